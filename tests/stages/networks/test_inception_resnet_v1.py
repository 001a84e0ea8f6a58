"""FaceNet's network: official names and official numbers."""

import pytest
import torch

from stages.networks.inception_resnet_v1 import InceptionResnetV1
from tests.stages.networks.filled import filled, picture


def official_names() -> dict[str, tuple[int, ...]]:
    """Names and shapes of facenet-pytorch's state dict, written down layer by layer, without
    `num_batches_tracked`.
    """
    names: dict[str, tuple[int, ...]] = {"last_linear.weight": (512, 1792)}

    def norm(name: str, width: int) -> None:
        names.update(
            {
                f"{name}.{value}": (width,)
                for value in ("weight", "bias", "running_mean", "running_var")
            }
        )

    def layer(name: str, inside: int, outside: int, height: int, width: int) -> None:
        names[f"{name}.conv.weight"] = (outside, inside, height, width)
        norm(f"{name}.bn", outside)

    def mixed(name: str, inside: int, outside: int) -> None:
        names.update(
            {f"{name}.conv2d.weight": (outside, inside, 1, 1), f"{name}.conv2d.bias": (outside,)}
        )

    for name, inside, outside, side in (
        ("1a", 3, 32, 3),
        ("2a", 32, 32, 3),
        ("2b", 32, 64, 3),
        ("3b", 64, 80, 1),
        ("4a", 80, 192, 3),
        ("4b", 192, 256, 3),
    ):
        layer(f"conv2d_{name}", inside, outside, side, side)
    for i in range(5):
        place = f"repeat_1.{i}"
        layer(f"{place}.branch0", 256, 32, 1, 1)
        layer(f"{place}.branch1.0", 256, 32, 1, 1)
        layer(f"{place}.branch1.1", 32, 32, 3, 3)
        layer(f"{place}.branch2.0", 256, 32, 1, 1)
        layer(f"{place}.branch2.1", 32, 32, 3, 3)
        layer(f"{place}.branch2.2", 32, 32, 3, 3)
        mixed(place, 96, 256)
    layer("mixed_6a.branch0", 256, 384, 3, 3)
    layer("mixed_6a.branch1.0", 256, 192, 1, 1)
    layer("mixed_6a.branch1.1", 192, 192, 3, 3)
    layer("mixed_6a.branch1.2", 192, 256, 3, 3)
    for i in range(10):
        place = f"repeat_2.{i}"
        layer(f"{place}.branch0", 896, 128, 1, 1)
        layer(f"{place}.branch1.0", 896, 128, 1, 1)
        layer(f"{place}.branch1.1", 128, 128, 1, 7)
        layer(f"{place}.branch1.2", 128, 128, 7, 1)
        mixed(place, 256, 896)
    layer("mixed_7a.branch0.0", 896, 256, 1, 1)
    layer("mixed_7a.branch0.1", 256, 384, 3, 3)
    layer("mixed_7a.branch1.0", 896, 256, 1, 1)
    layer("mixed_7a.branch1.1", 256, 256, 3, 3)
    layer("mixed_7a.branch2.0", 896, 256, 1, 1)
    layer("mixed_7a.branch2.1", 256, 256, 3, 3)
    layer("mixed_7a.branch2.2", 256, 256, 3, 3)
    for place in (*(f"repeat_3.{i}" for i in range(5)), "block8"):
        layer(f"{place}.branch0", 1792, 192, 1, 1)
        layer(f"{place}.branch1.0", 1792, 192, 1, 1)
        layer(f"{place}.branch1.1", 192, 192, 1, 3)
        layer(f"{place}.branch1.2", 192, 192, 3, 1)
        mixed(place, 384, 1792)
    norm("last_bn", 512)
    return names


def test_official_checkpoints_have_a_place_for_every_value() -> None:
    state = InceptionResnetV1().state_dict()
    ours = {
        name: tuple(value.shape)
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }
    assert ours == official_names()
    assert len(state) == 714  # of facenet-pytorch's network


def test_the_official_network_puts_out_the_same_numbers() -> None:
    """Values of facenet-pytorch 2.6.0's network with the weights of `filled`; it puts out unit
    vectors.
    """
    network = InceptionResnetV1().eval()
    network.load_state_dict(filled(network.state_dict()))
    with torch.inference_mode():
        raw = network(picture(160, 160))
    vector = torch.nn.functional.normalize(raw)[0]
    assert float(vector.double().std()) == pytest.approx(0.0441295820901838, rel=1e-5)
    assert vector[:4].tolist() == pytest.approx(
        [0.1095698327, -0.03953958675, -0.03266787156, -0.04321453348], rel=1e-4
    )
    assert float(raw.norm()) > 2  # raw: the length is the row's `norm`
