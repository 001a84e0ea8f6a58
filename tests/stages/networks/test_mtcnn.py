"""MTCNN's three networks: official names and official numbers."""

import pytest
import torch

from stages.networks.mtcnn import OutputNet, ProposalNet, RefinementNet
from tests.stages.networks.filled import filled, picture

Net = type[ProposalNet] | type[RefinementNet] | type[OutputNet]

# fmt: off
CONVOLUTIONS: dict[Net, dict[str, tuple[int, ...]]] = {
    ProposalNet: {
        "conv1": (10, 3, 3, 3), "conv2": (16, 10, 3, 3), "conv3": (32, 16, 3, 3), "conv4_1": (2, 32,
            1, 1), "conv4_2": (4, 32, 1, 1),
    },
    RefinementNet: {
        "conv1": (28, 3, 3, 3), "conv2": (48, 28, 3, 3), "conv3": (64, 48, 2, 2),
        "dense4": (128, 576), "dense5_1": (2, 128), "dense5_2": (4, 128),
    },
    OutputNet: {
        "conv1": (32, 3, 3, 3), "conv2": (64, 32, 3, 3), "conv3": (64, 64, 3, 3), "conv4": (128, 64,
            2, 2),
        "dense5": (256, 1152), "dense6_1": (2, 256), "dense6_2": (4, 256), "dense6_3": (10, 256),
    },
}
# fmt: on


@pytest.mark.parametrize("net", CONVOLUTIONS)
def test_official_checkpoints_have_a_place_for_every_value(net: Net) -> None:
    expected: dict[str, tuple[int, ...]] = {}
    for name, shape in CONVOLUTIONS[net].items():
        expected |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        if "_" not in name:  # the last layers have none
            expected[f"prelu{name[-1]}.weight"] = shape[:1]
    assert {name: tuple(value.shape) for name, value in net().state_dict().items()} == expected


GOLDEN: dict[Net, tuple[tuple[int, int], tuple[tuple[float, ...], ...]]] = {
    ProposalNet: (
        (30, 37),
        ((0.29026207, 0.085042261, 0.53829896), (0.19444704, -1.2307842, 2.1165156)),
    ),
    RefinementNet: ((24, 24), ((0.87132967,), (2.1262307, -6.9791226, 1.0657507))),
    OutputNet: (
        (48, 48),
        (
            (0.00021554172,),
            (-19.294239, 1.2665058, -3.6202433),
            (-0.030459203, -8.7008953, 3.7110708),
        ),
    ),
}
"""Height and width of `picture`, and the first values of probability, box and points, as
facenet-pytorch 2.6.0's networks put them out with the weights of `filled`.
"""


@pytest.mark.parametrize("net", GOLDEN)
def test_the_official_network_puts_out_the_same_numbers(net: Net) -> None:
    network = net().eval()
    network.load_state_dict(filled(network.state_dict()))
    size, expected = GOLDEN[net]
    with torch.inference_mode():
        outputs = network(picture(*size))
    assert len(outputs) == len(expected)
    for output, first in zip(outputs, expected, strict=True):
        assert output.flatten()[: len(first)].tolist() == pytest.approx(first, rel=1e-4, abs=1e-6)


def test_the_first_network_sees_twelve_pixels_every_two() -> None:
    """Boxes are computed from places of its output, and strips are cut by them."""
    network = ProposalNet()
    for height, width in ((12, 12), (13, 14), (33, 70)):
        probability, shift = network(torch.zeros(1, 3, height, width))
        rows, columns = (-(-(side - 2) // 2) - 4 for side in (height, width))
        assert probability.shape == (1, rows, columns)
        assert shift.shape == (1, 4, rows, columns)
