"""FAN: the published layout of its checkpoints, and what it computes from one."""

import pytest
import torch

from stages.networks.fan import Fan, hourglasses_of
from tests.stages.networks.filled import filled, picture


def block(name: str, channels: int, out: int) -> dict[str, tuple[int, ...]]:
    made = {
        **{
            f"{name}.{norm}.{part}": (width,)
            for norm, width in (("bn1", channels), ("bn2", out // 2), ("bn3", out // 4))
            for part in ("weight", "bias", "running_mean", "running_var")
        },
        f"{name}.conv1.weight": (out // 2, channels, 3, 3),
        f"{name}.conv2.weight": (out // 4, out // 2, 3, 3),
        f"{name}.conv3.weight": (out // 4, out // 4, 3, 3),
    }
    if channels != out:
        made |= {
            f"{name}.downsample.0.{part}": (channels,)
            for part in ("weight", "bias", "running_mean", "running_var")
        }
        made[f"{name}.downsample.2.weight"] = (out, channels, 1, 1)
    return made


def layout(hourglasses: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the checkpoints of face-alignment (2DFAN4), iBUG (2dfan2, 2dfan4) and of
    EmoNet's FAN, counters left out.
    """
    made: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), "conv1.bias": (64,)}
    norms = [("bn1", 64)]
    made |= block("conv2", 64, 128) | block("conv3", 128, 128) | block("conv4", 128, 256)
    for i in range(hourglasses):
        for level in (1, 2, 3, 4):
            for branch in ("b1", "b2", "b3"):
                made |= block(f"m{i}.{branch}_{level}", 256, 256)
        made |= block(f"m{i}.b2_plus_1", 256, 256) | block(f"top_m_{i}", 256, 256)
        norms.append((f"bn_end{i}", 256))
        layers = [(f"conv_last{i}", 256, 256), (f"l{i}", 68, 256)]
        layers += [(f"bl{i}", 256, 256), (f"al{i}", 256, 68)] if i < hourglasses - 1 else []
        for name, out, channels in layers:
            made |= {f"{name}.weight": (out, channels, 1, 1), f"{name}.bias": (out,)}
    return made | {
        f"{name}.{part}": (width,)
        for name, width in norms
        for part in ("weight", "bias", "running_mean", "running_var")
    }


@pytest.mark.parametrize(("hourglasses", "numbers"), [(4, 23_820_176), (2, 12_106_504)])
def test_published_checkpoints_fit(hourglasses: int, numbers: int) -> None:
    """Any other name or shape, and official weights would be refused."""
    network = Fan(hourglasses)
    state = {
        name: tuple(value.shape)
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    assert state == layout(hourglasses)
    assert sum(value.numel() for value in network.parameters()) == numbers
    assert hourglasses_of(layout(hourglasses)) == hourglasses


def test_other_checkpoints_are_not_taken_for_fans() -> None:
    assert hourglasses_of(["layer1.0.conv1.weight", "fc.weight", "l0.bias", "model.l0.weight"]) == 0


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ("avg", [50.3578, 74.5676, 40.5862, 49.6879, 3.39219, 28.1591]),
        ("max", [171.822, 300.011, 182.326, 224.519, 12.452, 107.691]),
    ],
)
def test_numbers_are_those_of_the_published_networks(pool: str, expected: list[float]) -> None:
    """Computed once with the FAN of face-alignment (avg) and that of EmoNet (max) from the same
    values.
    """
    network = Fan(2, pool)  # type: ignore[arg-type]
    network.load_state_dict(filled(network.state_dict()))
    with torch.inference_mode():
        found = network.eval().features(picture(64, 64) / 2 + 0.5)
    (maps,) = found.maps
    assert maps.shape == (68, 16, 16)
    got = [maps[0, 0, 0], maps[0, 7, 9], maps[30, 8, 8], maps[67, 15, 15], maps.mean(), maps.std()]
    assert [float(value) for value in got] == pytest.approx(expected, rel=1e-4)
    assert [tuple(value.shape) for value in (found.trunk, *found.stacks)] == [(1, 256, 16, 16)] * 3
