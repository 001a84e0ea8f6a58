"""RetinaFace (Deng et al., "RetinaFace: Single-stage Dense Face Localisation in the Wild", 2019),
without its mesh decoder.

A backbone, a feature pyramid with three levels, a context module on each (SSH: Najibi et al., 2017,
section 3.2), and three heads that give class, box and five points of the two anchors at every
place. Layers are named as in the Pytorch_Retinaface of biubug6, whose state dicts, and those of
retinaface-pytorch, load as they are.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

Backbone = Literal["resnet50", "mobilenet025"]

STRIDES = (8, 16, 32)
ANCHORS = 2
"""Anchors at every place of a level."""
VARIANCES = (0.1, 0.2)
"""By what the outputs for places and for sizes are scaled down (SSD, Liu et al. 2016)."""

_LEAKS = {"resnet50": 0.0, "mobilenet025": 0.1}
"""Slope of the rectifiers below zero: narrow networks leak."""
_WIDTHS = {"resnet50": ((512, 1024, 2048), 256), "mobilenet025": ((64, 128, 256), 64)}
"""Channels of the backbone's three levels, and of everything behind it."""


class RetinaFace(nn.Module):
    """Class logits (n, a, 2), boxes (n, a, 4) and points (n, a, 10) of all a anchors, float32, as
    `decode` takes them.

    Images (n, 3, height, width), normalised as the weights want them, with sides that are
    multiples of 32. Anchors come by level, row, column, and size. `leak`: slope of the rectifiers
    below zero, where it is not Pytorch_Retinaface's.
    """

    def __init__(self, backbone: Backbone, leak: float | None = None) -> None:
        super().__init__()
        widths, width = _WIDTHS[backbone]
        leak = _LEAKS[backbone] if leak is None else leak
        self.body = _ResNet50() if backbone == "resnet50" else _MobileNet025(leak)
        self.fpn = _Pyramid(widths, width, leak)
        self.ssh1, self.ssh2, self.ssh3 = (_Context(width, leak) for _ in STRIDES)
        self.ClassHead, self.BboxHead, self.LandmarkHead = (
            nn.ModuleList(_Head(width, values) for _ in STRIDES) for values in (2, 4, 10)
        )

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        contexts = (self.ssh1, self.ssh2, self.ssh3)
        levels = [
            context(level)
            for context, level in zip(contexts, self.fpn(self.body(pictures)), strict=True)
        ]
        found = [
            torch.cat([head(level) for head, level in zip(heads, levels, strict=True)], dim=1)
            for heads in (self.ClassHead, self.BboxHead, self.LandmarkHead)
        ]
        return found[0], found[1], found[2]

    def lowered(self, precision: torch.dtype) -> "RetinaFace":
        """Itself with all but the heads in `precision`: rounding a box to 8 bits would move it by
        pixels.
        """
        for part in (self.body, self.fpn, self.ssh1, self.ssh2, self.ssh3):
            part.to(precision)
        return self


def anchors(
    height: int, width: int, sizes: Sequence[Sequence[int]], device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Anchors (a, 3) of a canvas, in the network's order: centre x, centre y and side in pixels,
    float32.

    `sizes`: the sides of a level's anchors, for every level.
    """
    levels = []
    for stride, sides in zip(STRIDES, sizes, strict=True):
        y = (torch.arange(-(-height // stride), dtype=torch.float32) + 0.5) * stride
        x = (torch.arange(-(-width // stride), dtype=torch.float32) + 0.5) * stride
        grid = torch.meshgrid(y, x, torch.tensor(sides, dtype=torch.float32), indexing="ij")
        levels.append(torch.stack([grid[1], grid[0], grid[2]], dim=-1).reshape(-1, 3))
    return torch.cat(levels).to(device)


def decode(
    boxes: torch.Tensor, points: torch.Tensor, places: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes (..., 4) as x1 y1 x2 y2 and points (..., 10) as x y x y ... in pixels of the canvas.

    `boxes` (..., 4) and `points` (..., 10) are the network's, `places` (..., 3) their anchors.
    Shifts are in tenths of the anchor's side, sizes logarithms in fifths (SSD, Liu et al. 2016,
    equation 2, with the usual variances).
    """
    centre, side = places[..., :2], places[..., 2:]
    middle = centre + boxes[..., :2] * VARIANCES[0] * side
    half = side * torch.exp(boxes[..., 2:] * VARIANCES[1]) / 2
    moved = (
        points.reshape(*points.shape[:-1], 5, 2) * VARIANCES[0] * side[..., None]
        + centre[..., None, :]
    )
    return torch.cat([middle - half, middle + half], dim=-1), moved.flatten(-2)


def _convolved(
    inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1
) -> tuple[nn.Module, nn.Module]:
    """A convolution that keeps the size, or halves it, and its normalisation."""
    layer = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
    return layer, nn.BatchNorm2d(outside)


def _rectifier(leak: float) -> nn.Module:
    return nn.LeakyReLU(leak, inplace=True) if leak else nn.ReLU(inplace=True)


class _Pyramid(nn.Module):
    """Three levels of one width, each joined with what the coarser one says (Lin et al., "Feature
    Pyramid Networks", 2017).
    """

    def __init__(self, widths: Sequence[int], width: int, leak: float) -> None:
        super().__init__()
        self.output1, self.output2, self.output3 = (
            nn.Sequential(*_convolved(inside, width, 1), _rectifier(leak)) for inside in widths
        )
        self.merge1, self.merge2 = (
            nn.Sequential(*_convolved(width, width, 3), _rectifier(leak)) for _ in range(2)
        )

    def forward(
        self, levels: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        fine, middle, coarse = (
            self.output1(levels[0]),
            self.output2(levels[1]),
            self.output3(levels[2]),
        )
        middle = self.merge2(
            middle + functional.interpolate(coarse, size=middle.shape[2:], mode="nearest")
        )
        fine = self.merge1(
            fine + functional.interpolate(middle, size=fine.shape[2:], mode="nearest")
        )
        return fine, middle, coarse


class _Context(nn.Module):
    """What lies around a place, seen through fields of 3, 5 and 7: the last two from stacked 3 x 3
    convolutions.
    """

    def __init__(self, width: int, leak: float) -> None:
        super().__init__()
        quarter = width // 4
        self.conv3X3 = nn.Sequential(*_convolved(width, width // 2, 3))
        self.conv5X5_1 = nn.Sequential(*_convolved(width, quarter, 3), _rectifier(leak))
        self.conv5X5_2 = nn.Sequential(*_convolved(quarter, quarter, 3))
        self.conv7X7_2 = nn.Sequential(*_convolved(quarter, quarter, 3), _rectifier(leak))
        self.conv7x7_3 = nn.Sequential(*_convolved(quarter, quarter, 3))

    def forward(self, level: torch.Tensor) -> torch.Tensor:
        shared = self.conv5X5_1(level)
        fields = [
            self.conv3X3(level),
            self.conv5X5_2(shared),
            self.conv7x7_3(self.conv7X7_2(shared)),
        ]
        return functional.relu(torch.cat(fields, dim=1), inplace=True)


class _Head(nn.Module):
    """(n, places * ANCHORS, values) float32 of a level."""

    def __init__(self, width: int, values: int) -> None:
        super().__init__()
        self.values = values
        self.conv1x1 = nn.Conv2d(width, ANCHORS * values, 1)

    def forward(self, level: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.conv1x1(level.float())
        return out.permute(0, 2, 3, 1).reshape(len(out), -1, self.values)


class _MobileNet025(nn.Module):
    """MobileNet (Howard et al. 2017) at a quarter of its width, up to stride 32."""

    def __init__(self, leak: float) -> None:
        super().__init__()
        first = nn.Sequential(*_convolved(3, 8, 3, stride=2), _rectifier(leak))
        steps = ((8, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1))
        self.stage1 = nn.Sequential(first, *(_separable(*step, leak) for step in steps))
        self.stage2 = nn.Sequential(
            _separable(64, 128, 2, leak), *(_separable(128, 128, 1, leak) for _ in range(5))
        )
        self.stage3 = nn.Sequential(_separable(128, 256, 2, leak), _separable(256, 256, 1, leak))

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        fine = self.stage1(pictures)
        middle = self.stage2(fine)
        return fine, middle, self.stage3(middle)


def _separable(inside: int, outside: int, stride: int, leak: float) -> nn.Sequential:
    """A convolution channel by channel, then one place by place."""
    deep = _convolved(inside, inside, 3, stride, groups=inside)
    return nn.Sequential(*deep, _rectifier(leak), *_convolved(inside, outside, 1), _rectifier(leak))


class _ResNet50(nn.Module):
    """ResNet-50 (He et al. 2016) with strides in the 3 x 3 convolutions, layers named as in
    torchvision, without its head.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.layer1 = _bottlenecks(64, 64, 3, 1)
        self.layer2 = _bottlenecks(256, 128, 4, 2)
        self.layer3 = _bottlenecks(512, 256, 6, 2)
        self.layer4 = _bottlenecks(1024, 512, 3, 2)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        start = functional.relu(self.bn1(self.conv1(pictures)), inplace=True)
        fine = self.layer2(self.layer1(functional.max_pool2d(start, 3, 2, 1)))
        middle = self.layer3(fine)
        return fine, middle, self.layer4(middle)


def _bottlenecks(inside: int, width: int, count: int, stride: int) -> nn.Sequential:
    blocks = [_Bottleneck(inside, width, stride)]
    return nn.Sequential(*blocks, *(_Bottleneck(4 * width, width, 1) for _ in range(count - 1)))


class _Bottleneck(nn.Module):
    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        outside = 4 * width
        self.conv1, self.bn1 = _convolved(inside, width, 1)
        self.conv2, self.bn2 = _convolved(width, width, 3, stride)
        self.conv3, self.bn3 = _convolved(width, outside, 1)
        self.downsample = (
            nn.Sequential(*_convolved(inside, outside, 1, stride)) if inside != outside else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        out = functional.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return functional.relu(out, inplace=True)
