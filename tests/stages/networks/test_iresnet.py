"""ArcFace's residual network: official names and official numbers."""

import pytest
import torch

from stages.networks.fold import fold
from stages.networks.iresnet import IResNet, shape_of
from tests.stages.networks.filled import filled, picture


def official_names(blocks: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of arcface_torch's state dict, written down layer by layer, without
    `num_batches_tracked`.
    """
    names: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 3, 3), "prelu.weight": (64,)}
    names |= {"fc.weight": (512, 512 * 49), "fc.bias": (512,)}

    def norm(name: str, width: int) -> None:
        names.update(
            {
                f"{name}.{value}": (width,)
                for value in ("weight", "bias", "running_mean", "running_var")
            }
        )

    norm("bn1", 64)
    norm("bn2", 512)
    norm("features", 512)
    inside = 64
    for layer, (width, count) in enumerate(zip((64, 128, 256, 512), blocks, strict=True), 1):
        for block in range(count):
            place = f"layer{layer}.{block}"
            norm(f"{place}.bn1", inside)
            names[f"{place}.conv1.weight"] = (width, inside, 3, 3)
            norm(f"{place}.bn2", width)
            names[f"{place}.prelu.weight"] = (width,)
            names[f"{place}.conv2.weight"] = (width, width, 3, 3)
            norm(f"{place}.bn3", width)
            if block == 0:
                names[f"{place}.downsample.0.weight"] = (width, inside, 1, 1)
                norm(f"{place}.downsample.1", width)
            inside = width
    return names


@pytest.mark.parametrize(
    ("blocks", "count"), [((2, 2, 2, 2), 187), ((3, 4, 14, 3), 475), ((3, 13, 30, 3), 925)]
)
def test_official_checkpoints_have_a_place_for_every_value(
    blocks: tuple[int, ...], count: int
) -> None:
    state = IResNet(blocks).state_dict()
    ours = {
        name: tuple(value.shape)
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }
    assert ours == official_names(blocks)
    assert len(state) == count  # of insightface's networks
    assert shape_of(state) == (blocks, 512)


def test_what_is_no_iresnet_is_told() -> None:
    with pytest.raises(ValueError, match="no iresnet of arcface_torch"):
        shape_of({"body.conv1.weight": torch.zeros(1)})


GOLDEN: dict[tuple[int, ...], tuple[float, tuple[float, ...]]] = {
    (2, 2, 2, 2): (0.5133744355, (-0.1910253018, -0.1751306355, -0.4974285066, -0.03847669065)),
    (3, 4, 14, 3): (7.69725144, (6.34273529, 6.411315441, 4.882977962, -1.063584447)),
}
"""Standard deviation and first four values of the vector, as
https://github.com/deepinsight/insightface puts them out
(`recognition/arcface_torch/backbones/iresnet.py`, iresnet18 and iresnet50) with the weights of
`filled` for `picture(112, 112)`.
"""


@pytest.mark.slow
@pytest.mark.parametrize("blocks", GOLDEN)
def test_the_official_network_puts_out_the_same_numbers(blocks: tuple[int, ...]) -> None:
    network = IResNet(blocks).eval()
    network.load_state_dict(filled(network.state_dict()))
    deviation, first = GOLDEN[blocks]
    with torch.inference_mode():
        plain = network(picture(112, 112))
        folded = fold(network)(picture(112, 112))
        rough = network.lowered(torch.bfloat16)(picture(112, 112).bfloat16())
    for vector in (plain, folded):
        assert float(vector.double().std()) == pytest.approx(deviation, rel=1e-4)
        assert vector[0, :4].tolist() == pytest.approx(first, rel=1e-4, abs=1e-4 * deviation)
    assert float((plain - folded).abs().max()) < 1e-5 * float(plain.abs().max())
    assert rough.dtype == torch.float32
    assert 0.99 < float(torch.nn.functional.cosine_similarity(plain, rough)) < 1
