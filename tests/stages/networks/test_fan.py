"""FAN: the published layout of its checkpoints, and what it computes from one."""

import pytest
import torch

from stages.networks.fan import Fan, hourglasses_of


def filled(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Values that look random but follow from names alone, of a size that keeps a network's signal in bounds."""
    values = {}
    for n, name in enumerate(sorted(state)):
        shape = state[name].shape
        if name.endswith("num_batches_tracked"):
            values[name] = torch.zeros(shape, dtype=torch.long)
            continue
        wave = torch.sin(torch.arange(state[name].numel(), dtype=torch.float64) * 12.9898 + n)
        wave = 2 * torch.frac(10000 * wave).abs() - 1
        if name.endswith("running_var"):
            wave = 1 + 0.5 * wave
        elif len(shape) == 1:
            wave = 1 + 0.3 * wave if name.endswith("weight") else 0.1 * wave
        else:
            wave = wave * (3 / shape[1:].numel()) ** 0.5
        values[name] = wave.reshape(shape).float()
    return values


def block(name: str, channels: int, out: int) -> dict[str, tuple[int, ...]]:
    made = {
        **{f"{name}.{norm}.{part}": (width,) for norm, width in (("bn1", channels), ("bn2", out // 2), ("bn3", out // 4))
           for part in ("weight", "bias", "running_mean", "running_var")},
        f"{name}.conv1.weight": (out // 2, channels, 3, 3),
        f"{name}.conv2.weight": (out // 4, out // 2, 3, 3),
        f"{name}.conv3.weight": (out // 4, out // 4, 3, 3),
    }  # fmt: skip
    if channels != out:
        made |= {f"{name}.downsample.0.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
        made[f"{name}.downsample.2.weight"] = (out, channels, 1, 1)
    return made


def layout(hourglasses: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the checkpoints of face-alignment (2DFAN4), iBUG (2dfan2, 2dfan4) and of EmoNet's FAN, counters left out."""
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
    return made | {f"{name}.{part}": (width,) for name, width in norms for part in ("weight", "bias", "running_mean", "running_var")}


@pytest.mark.parametrize(("hourglasses", "numbers"), [(4, 23_820_176), (2, 12_106_504)])
def test_published_checkpoints_fit(hourglasses: int, numbers: int) -> None:
    """Any other name or shape, and official weights would be refused."""
    network = Fan(hourglasses)
    state = {name: tuple(value.shape) for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert state == layout(hourglasses)
    assert sum(value.numel() for value in network.parameters()) == numbers
    assert hourglasses_of(layout(hourglasses)) == hourglasses


def test_other_checkpoints_are_not_taken_for_fans() -> None:
    assert hourglasses_of(["layer1.0.conv1.weight", "fc.weight", "l0.bias", "model.l0.weight"]) == 0


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ("avg", [99.3556, 272.8407, 7.9155, -22.5845, -1.0747, 110.0752]),
        ("max", [772.0237, 1802.9172, 41.8858, -281.066, -62.7389, 757.2624]),
    ],
)
def test_numbers_are_those_of_the_published_networks(pool: str, expected: list[float]) -> None:
    """Computed once with the FAN of face-alignment (avg) and that of EmoNet (max) from the same values."""
    network = Fan(2, pool)  # type: ignore[arg-type]
    network.load_state_dict(filled(network.state_dict()))
    picture = torch.sin(torch.arange(3 * 64 * 64, dtype=torch.float64) * 0.01).reshape(1, 3, 64, 64).float() * 0.5 + 0.5
    with torch.inference_mode():
        found = network.eval().features(picture)
    (maps,) = found.maps
    assert maps.shape == (68, 16, 16)
    got = [maps[0, 0, 0], maps[0, 7, 9], maps[30, 8, 8], maps[67, 15, 15], maps.mean(), maps.std()]
    assert [float(value) for value in got] == pytest.approx(expected, rel=1e-3)
    assert [tuple(value.shape) for value in (found.trunk, *found.stacks)] == [(1, 256, 16, 16)] * 3
