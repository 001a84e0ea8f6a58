"""RetinaFace's network: official names, official numbers, and boxes from its outputs."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from stages.networks.fold import fold
from stages.networks.retinaface import Backbone, RetinaFace, anchors, decode
from tests.stages.networks.filled import filled, picture

SIZES = ((16, 32), (64, 128), (256, 512))


def official_names(backbone: Backbone) -> dict[str, tuple[int, ...]]:
    """Names and shapes of Pytorch_Retinaface's state dict, written down layer by layer, without
    `num_batches_tracked`.
    """
    names: dict[str, tuple[int, ...]] = {}

    def layer(conv: str, norm: str, outside: int, inside: int, kernel: int) -> None:
        names[f"{conv}.weight"] = (outside, inside, kernel, kernel)
        names.update(
            {
                f"{norm}.{value}": (outside,)
                for value in ("weight", "bias", "running_mean", "running_var")
            }
        )

    if backbone == "resnet50":
        layer("body.conv1", "body.bn1", 64, 3, 7)
        before = 64
        for stage, (width, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
            for block in range(count):
                place = f"body.layer{stage}.{block}"
                layer(f"{place}.conv1", f"{place}.bn1", width, before, 1)
                layer(f"{place}.conv2", f"{place}.bn2", width, width, 3)
                layer(f"{place}.conv3", f"{place}.bn3", 4 * width, width, 1)
                if block == 0:
                    layer(f"{place}.downsample.0", f"{place}.downsample.1", 4 * width, before, 1)
                before = 4 * width
        widths, width = (512, 1024, 2048), 256
    else:
        layer("body.stage1.0.0", "body.stage1.0.1", 8, 3, 3)
        stages = (
            (1, 1, (8, 16, 32, 32, 64, 64)),
            (2, 0, (64, *[128] * 6)),
            (3, 0, (128, 256, 256)),
        )
        for stage, first, channels in stages:
            for number, (inside, outside) in enumerate(pairwise(channels), first):
                place = f"body.stage{stage}.{number}"
                layer(f"{place}.0", f"{place}.1", inside, 1, 3)
                layer(f"{place}.3", f"{place}.4", outside, inside, 1)
        widths, width = (64, 128, 256), 64
    for number, inside in enumerate(widths, 1):
        layer(f"fpn.output{number}.0", f"fpn.output{number}.1", width, inside, 1)
    for number in (1, 2):
        layer(f"fpn.merge{number}.0", f"fpn.merge{number}.1", width, width, 3)
    for number in (1, 2, 3):
        shapes = {"conv3X3": (width // 2, width), "conv5X5_1": (width // 4, width)}
        shapes |= dict.fromkeys(("conv5X5_2", "conv7X7_2", "conv7x7_3"), (width // 4, width // 4))
        for name, (outside, inside) in shapes.items():
            layer(f"ssh{number}.{name}.0", f"ssh{number}.{name}.1", outside, inside, 3)
    for head, values in (("ClassHead", 4), ("BboxHead", 8), ("LandmarkHead", 20)):
        for number in range(3):
            names[f"{head}.{number}.conv1x1.weight"] = (values, width, 1, 1)
            names[f"{head}.{number}.conv1x1.bias"] = (values,)
    return names


@pytest.mark.parametrize(("backbone", "count"), [("resnet50", 456), ("mobilenet025", 300)])
def test_official_checkpoints_have_a_place_for_every_value(backbone: Backbone, count: int) -> None:
    state = RetinaFace(backbone).state_dict()
    ours = {
        name: tuple(value.shape)
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }
    assert ours == official_names(backbone)
    assert len(state) == count  # of the published files


GOLDEN = {
    "mobilenet025": (
        (0.07634885019, 0.1143628627, -0.06747627258, -0.2391353101),
        (0.03157009213, 0.1237472745, 0.1069962084, -0.06044689566),
        (0.01222421901, 0.1639823304, 0.2295265049, -0.01790531725),
    ),
    "resnet50": (
        (5.690099311, 9.152739561, 2.598289489, 8.679929733),
        (2.166196374, 9.285322991, 1.144079208, 2.773347378),
        (0.03510439084, 8.556672991, 3.8992002, -0.9805815816),
    ),
}
"""Of class logits, boxes and points: mean, standard deviation, and the seventh value from either
end.

Put out in float32 by the network of https://github.com/biubug6/Pytorch_Retinaface at b984b4b
(`models/retinaface.py`, phase train) with the weights of `filled` for `50 * image(64, 96)`.
"""


@pytest.mark.parametrize("backbone", ["resnet50", "mobilenet025"])
def test_the_official_network_puts_out_the_same_numbers(backbone: Backbone) -> None:
    network = RetinaFace(backbone).eval()
    network.load_state_dict(filled(network.state_dict()))
    with torch.inference_mode():
        plain = network(50 * picture(64, 96))
        folded = fold(network)(50 * picture(64, 96))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    for outputs in (plain, folded):
        for found, expected in zip(outputs, GOLDEN[backbone], strict=True):
            flat = found.double().flatten()
            told = torch.stack([flat.mean(), flat.std(), flat[7], flat[-7]]).numpy()
            assert told == pytest.approx(expected, rel=1e-4, abs=1e-4 * expected[1])
    for one, other in zip(plain, folded, strict=True):
        assert float((one - other).abs().max() / one.abs().max()) < 1e-5


def test_half_precision_stays_out_of_the_heads() -> None:
    network = RetinaFace("mobilenet025").eval()
    network.load_state_dict(filled(network.state_dict()))
    x = 50 * picture(64, 96)
    with torch.inference_mode():
        exact = fold(network)(x)
        rough = network.lowered(torch.bfloat16)(x.bfloat16())
    for one, other in zip(exact, rough, strict=True):
        assert other.dtype == torch.float32
        assert 0 < float((one - other).abs().max() / one.abs().max()) < 0.03


def test_anchors_and_boxes_as_a_plain_loop_makes_them() -> None:
    """Place by place as SSD defines it: what the network says at an anchor becomes a box and points
    in pixels.
    """
    height, width = 64, 96
    expected = []
    for stride, sides in zip((8, 16, 32), SIZES, strict=True):
        for row in range(height // stride):
            for column in range(width // stride):
                expected += [
                    ((column + 0.5) * stride, (row + 0.5) * stride, float(side)) for side in sides
                ]
    places = anchors(height, width, SIZES)
    assert places.tolist() == [list(place) for place in expected]
    rng = np.random.default_rng(0)
    said_boxes = rng.normal(0, 2, (len(expected), 4)).astype(np.float32)
    said_points = rng.normal(0, 2, (len(expected), 10)).astype(np.float32)
    boxes, points = decode(torch.from_numpy(said_boxes), torch.from_numpy(said_points), places)
    for i, (x, y, side) in enumerate(expected):
        dx, dy, dw, dh = (float(value) for value in said_boxes[i])
        centre_x, centre_y = x + dx * 0.1 * side, y + dy * 0.1 * side
        wide, high = side * np.exp(dw * 0.2), side * np.exp(dh * 0.2)
        box = [centre_x - wide / 2, centre_y - high / 2, centre_x + wide / 2, centre_y + high / 2]
        assert boxes[i].tolist() == pytest.approx(box, abs=2e-3)
        for k in range(5):
            point = (
                x + said_points[i, 2 * k] * 0.1 * side,
                y + said_points[i, 2 * k + 1] * 0.1 * side,
            )
            assert points[i, 2 * k : 2 * k + 2].tolist() == pytest.approx(point, abs=2e-3)
    batch = decode(
        torch.from_numpy(said_boxes)[None], torch.from_numpy(said_points)[None], places[None]
    )
    assert torch.equal(batch[0][0], boxes)
    assert torch.equal(batch[1][0], points)


def test_as_many_anchors_as_outputs() -> None:
    network = RetinaFace("mobilenet025").eval()
    with torch.inference_mode():
        classes, boxes, points = network(picture(96, 32))
    count = len(anchors(96, 32, SIZES))
    assert (classes.shape, boxes.shape, points.shape) == (
        (1, count, 2),
        (1, count, 4),
        (1, count, 10),
    )
