"""FAN: 68 heat maps of facial points from stacked hourglasses.

Bulat and Tzimiropoulos, "How far are we from solving the 2D & 3D face alignment problem?", ICCV
2017: hourglasses after Newell et al. (ECCV 2016) whose blocks are the hierarchical, parallel and
multi-scale ones of Bulat and Tzimiropoulos, "Binarized convolutional landmark localizers", ICCV
2017. Names of parameters are those of the published checkpoints.
"""

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

POINTS = 68
SIDE, MAP_SIDE = 256, 64
_DEPTH = 4
_WIDTH = 256

Pool = Literal["avg", "max"]


class Features(NamedTuple):
    """What the network knows of a batch of n crops; heads on top of it, such as EmoNet's, read more
    than the heat maps.
    """

    trunk: Tensor
    """(n, 256, 64, 64): what goes into the first hourglass."""
    stacks: list[Tensor]
    """(n, 256, 64, 64) a hourglass: what it hands to the next; of the last one, what its heat maps
    are made from.
    """
    maps: Tensor
    """(n, 68, 64, 64): heat maps of the last hourglass, unbounded."""


class ConvBlock(nn.Module):
    """Three 3 x 3 convolutions in a row whose outputs are put side by side, 1/2, 1/4 and 1/4 of the
    channels; pre-activated.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = (
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, out // 2, 3, padding=1, bias=False),
        )
        self.bn2, self.conv2 = (
            nn.BatchNorm2d(out // 2),
            nn.Conv2d(out // 2, out // 4, 3, padding=1, bias=False),
        )
        self.bn3, self.conv3 = (
            nn.BatchNorm2d(out // 4),
            nn.Conv2d(out // 4, out // 4, 3, padding=1, bias=False),
        )
        self.downsample: nn.Module = nn.Identity()
        if channels != out:
            self.downsample = nn.Sequential(
                nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, out, 1, bias=False)
            )

    def forward(self, x: Tensor) -> Tensor:
        wide = self.conv1(functional.relu(self.bn1(x)))
        middle = self.conv2(functional.relu(self.bn2(wide)))
        narrow = self.conv3(functional.relu(self.bn3(middle)))
        return torch.cat([wide, middle, narrow], dim=1) + self.downsample(x)


class Hourglass(nn.Module):
    """Four times down by two and up again, with a side branch at every scale."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self._pool = pool
        for level in range(_DEPTH, 0, -1):
            for branch in ("b1", "b2", "b3"):
                self.add_module(f"{branch}_{level}", ConvBlock(_WIDTH, _WIDTH))
        self.b2_plus_1 = ConvBlock(_WIDTH, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        sides = []
        for level in range(_DEPTH, 0, -1):
            sides.append(self.get_submodule(f"b1_{level}")(x))
            x = self.get_submodule(f"b2_{level}")(_halve(x, self._pool))
        x = self.b2_plus_1(x)
        for level in range(1, _DEPTH + 1):
            x = (
                functional.interpolate(
                    self.get_submodule(f"b3_{level}")(x), scale_factor=2, mode="nearest"
                )
                + sides.pop()
            )
        return x


class Fan(nn.Module):
    """(n, 3, 256, 256) RGB, 0 to 1, to heat maps (n, 68, 64, 64).

    `pool`: how sizes are halved. It leaves no trace in the checkpoint: face-alignment's networks
    use `avg`, EmoNet's `max`.
    """

    def __init__(self, hourglasses: int, pool: Pool = "avg") -> None:
        super().__init__()
        self.hourglasses, self._pool = hourglasses, pool
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, stride=2, padding=3), nn.BatchNorm2d(64)
        self.conv2, self.conv3, self.conv4 = (
            ConvBlock(64, 128),
            ConvBlock(128, 128),
            ConvBlock(128, _WIDTH),
        )
        for i in range(hourglasses):
            self.add_module(f"m{i}", Hourglass(pool))
            self.add_module(f"top_m_{i}", ConvBlock(_WIDTH, _WIDTH))
            self.add_module(f"conv_last{i}", nn.Conv2d(_WIDTH, _WIDTH, 1))
            self.add_module(f"bn_end{i}", nn.BatchNorm2d(_WIDTH))
            self.add_module(f"l{i}", nn.Conv2d(_WIDTH, POINTS, 1))
            if i < hourglasses - 1:
                self.add_module(f"bl{i}", nn.Conv2d(_WIDTH, _WIDTH, 1))
                self.add_module(f"al{i}", nn.Conv2d(POINTS, _WIDTH, 1))

    def features(self, x: Tensor) -> Features:
        """Heat maps and what they were made from."""
        x = _halve(self.conv2(functional.relu(self.bn1(self.conv1(x)))), self._pool)
        x = trunk = self.conv4(self.conv3(x))
        stacks = []
        for i in range(self.hourglasses):
            name = self.get_submodule
            y = name(f"conv_last{i}")(name(f"top_m_{i}")(name(f"m{i}")(x)))
            y = functional.relu(name(f"bn_end{i}")(y))
            maps = name(f"l{i}")(y)
            if i < self.hourglasses - 1:
                y = name(f"bl{i}")(y)
                x = x + y + name(f"al{i}")(maps)
            stacks.append(y)
        return Features(trunk, stacks, maps)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).maps


def hourglasses_of(names: Iterable[str]) -> int:
    """How many hourglasses the network has whose parameters have these names; 0 where it is no
    FAN.
    """
    return sum(1 for name in set(names) if re.fullmatch(r"l\d+\.weight", name))


def _halve(x: Tensor, pool: Pool) -> Tensor:
    return functional.avg_pool2d(x, 2) if pool == "avg" else functional.max_pool2d(x, 2)
