"""CLIP in OpenAI's layout: official names, official numbers."""

import pytest
import torch

from stages.networks.clip import ClipNetwork, Sizes
from tests.stages.networks.filled import filled, picture

RN101 = Sizes((3, 4, 23, 3), 64, 32, 7, 512, 512, 12, 77, 49408)
VIT_B32 = Sizes((12,), 768, 32, 7, 512, 512, 12, 77, 49408)
VIT_L14 = Sizes((24,), 1024, 14, 16, 768, 768, 12, 77, 49408)
SMALL_RESNET = Sizes((2, 1, 1, 1), 16, 32, 2, 64, 64, 2, 9, 40)
SMALL_VIT = Sizes((2,), 64, 14, 2, 32, 128, 2, 9, 40)

Shapes = dict[str, tuple[int, ...]]


def linear(name: str, out: int, channels: int) -> Shapes:
    return {f"{name}.weight": (out, channels), f"{name}.bias": (out,)}


def norm(name: str, width: int, *more: str) -> Shapes:
    return {f"{name}.{part}": (width,) for part in ("weight", "bias", *more)}


def transformer(name: str, width: int, layers: int) -> Shapes:
    made: Shapes = {}
    for block in (f"{name}.resblocks.{number}" for number in range(layers)):
        made |= {
            f"{block}.attn.in_proj_weight": (3 * width, width),
            f"{block}.attn.in_proj_bias": (3 * width,),
        }
        made |= linear(f"{block}.attn.out_proj", width, width)
        made |= linear(f"{block}.mlp.c_fc", 4 * width, width) | linear(
            f"{block}.mlp.c_proj", width, 4 * width
        )
        made |= norm(f"{block}.ln_1", width) | norm(f"{block}.ln_2", width)
    return made


def resnet(sizes: Sizes) -> Shapes:
    made: Shapes = {}

    def convolution(conv: str, bn: str, out: int, channels: int, side: int) -> None:
        made[f"{conv}.weight"] = (out, channels, side, side)
        made.update(norm(bn, out, "running_mean", "running_var"))

    channels = sizes.width
    for number, (out, before) in enumerate(
        ((channels // 2, 3), (channels // 2, channels // 2), (channels, channels // 2)), 1
    ):
        convolution(f"visual.conv{number}", f"visual.bn{number}", out, before, 3)
    for stage, blocks in enumerate(sizes.blocks):
        inner = sizes.width << stage
        for block in range(blocks):
            name = f"visual.layer{stage + 1}.{block}"
            for number, (out, before, side) in enumerate(
                ((inner, channels, 1), (inner, inner, 3), (4 * inner, inner, 1)), 1
            ):
                convolution(f"{name}.conv{number}", f"{name}.bn{number}", out, before, side)
            if block == 0:
                convolution(f"{name}.downsample.0", f"{name}.downsample.1", 4 * inner, channels, 1)
            channels = 4 * inner
    made["visual.attnpool.positional_embedding"] = (sizes.grid**2 + 1, channels)
    for name in ("q_proj", "k_proj", "v_proj"):
        made |= linear(f"visual.attnpool.{name}", channels, channels)
    return made | linear("visual.attnpool.c_proj", sizes.dims, channels)


def vision_transformer(sizes: Sizes) -> Shapes:
    return {
        "visual.conv1.weight": (sizes.width, 3, sizes.patch, sizes.patch),
        "visual.class_embedding": (sizes.width,),
        "visual.positional_embedding": (sizes.grid**2 + 1, sizes.width),
        "visual.proj": (sizes.width, sizes.dims),
        **norm("visual.ln_pre", sizes.width),
        **norm("visual.ln_post", sizes.width),
        **transformer("visual.transformer", sizes.width, sizes.blocks[0]),
    }


def layout(sizes: Sizes) -> Shapes:
    """Names and shapes of OpenAI's checkpoints, counters left out."""
    return {
        **(vision_transformer(sizes) if len(sizes.blocks) == 1 else resnet(sizes)),
        **transformer("transformer", sizes.text_width, sizes.text_layers),
        "token_embedding.weight": (sizes.vocabulary, sizes.text_width),
        "positional_embedding": (sizes.context, sizes.text_width),
        **norm("ln_final", sizes.text_width),
        "text_projection": (sizes.text_width, sizes.dims),
        "logit_scale": (),
    }


@pytest.mark.parametrize(
    ("sizes", "numbers"),
    [(RN101, 119_688_033), (VIT_B32, 151_277_313), (VIT_L14, 427_616_513)],
    ids=["RN101", "B32", "L14"],
)
def test_official_checkpoints_have_a_place_for_every_value(sizes: Sizes, numbers: int) -> None:
    with torch.device("meta"):
        network = ClipNetwork(sizes)
        official = {name: torch.empty(shape) for name, shape in layout(sizes).items()}
    state = {
        name: tuple(value.shape)
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    assert state == layout(sizes)
    assert sum(value.numel() for value in network.parameters()) == numbers
    assert Sizes.of(official) == sizes
    assert sizes.side == 224


def test_a_checkpoint_without_a_tower_is_told() -> None:
    state = {name: torch.empty(shape) for name, shape in layout(SMALL_RESNET).items()}
    del state["text_projection"]
    with pytest.raises(KeyError, match="text_projection"):
        Sizes.of(state)


GOLDEN = {
    SMALL_RESNET: (
        [2.18569, -0.360319, 2.18625, -0.74077, -0.0230683, 0.432781],
        [-0.337094, 0.165728, 0.191907, 0.680761, 0.283738, 0.913761],
    ),
    SMALL_VIT: (
        [1.11026, 0.653994, -0.153452, -2.20174, 0.0342362, 1.51054],
        [1.85626, -0.884145, 2.4025, -2.31534, 0.021613, 1.76034],
    ),
}
"""Some vectors' values, their mean and standard deviation, as OpenAI's model.py puts them out with
the weights of `filled`.
"""


@pytest.mark.parametrize("sizes", GOLDEN, ids=["resnet", "transformer"])
def test_the_official_network_puts_out_the_same_numbers(sizes: Sizes) -> None:
    network = ClipNetwork(sizes).eval()
    network.load_state_dict(filled(network.state_dict()))
    seen = picture(sizes.side, sizes.side)
    ids = torch.tensor([[38, 1, 2, 3, 39, 0, 0, 0, 0], [38, 30, 31, 32, 33, 34, 35, 36, 39]])
    with torch.inference_mode():
        outputs = network.image(torch.cat([seen, seen.flip(3)])), network.text(ids)
    for output, expected in zip(outputs, GOLDEN[sizes], strict=True):
        assert output.shape == (2, sizes.dims)
        got = [output[0, 0], output[0, 7], output[1, 0], output[1, -1], output.mean(), output.std()]
        assert [float(value) for value in got] == pytest.approx(expected, rel=1e-4)


def test_what_follows_a_text_does_not_change_its_vector() -> None:
    """Rows are filled up after the last token."""
    network = ClipNetwork(SMALL_VIT).eval()
    network.load_state_dict(filled(network.state_dict()))
    ids = torch.tensor([[38, 1, 2, 39, 0, 0, 0, 0, 0], [38, 1, 2, 39, 5, 6, 7, 8, 9]])
    with torch.inference_mode():
        first, second = network.text(ids)
    assert torch.equal(first, second)
