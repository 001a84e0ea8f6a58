"""The improved residual network that ArcFace is trained with (Deng et al., "ArcFace", 2019, section
3.1; Duta et al. 2020).

Blocks of normalisation, convolution, normalisation, PReLU, convolution, normalisation; the stride
is in the second convolution. Layers are named as in insightface's arcface_torch, so that its state
dicts load as they are.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

_WIDTHS = (64, 128, 256, 512)
_PLACES = 7 * 7
"""What is left of 112 x 112 after four halvings."""


class IResNet(nn.Module):
    """Raw vectors (n, features) float32 of crops (n, 3, 112, 112), RGB as (x - 127.5) / 127.5.

    `blocks`: their number in each of the four layers; (3, 4, 14, 3) is iresnet50, (3, 13, 30, 3)
    iresnet100.
    """

    def __init__(self, blocks: Sequence[int], features: int = 512) -> None:
        super().__init__()
        self.conv1, self.bn1 = (
            nn.Conv2d(3, _WIDTHS[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(_WIDTHS[0]),
        )
        self.prelu = nn.PReLU(_WIDTHS[0])
        inside = (_WIDTHS[0], *_WIDTHS[:-1])
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(
                _Block(before, width, 2), *(_Block(width, width, 1) for _ in range(count - 1))
            )
            for before, width, count in zip(inside, _WIDTHS, blocks, strict=True)
        )
        self.bn2 = nn.BatchNorm2d(_WIDTHS[-1])
        self.fc, self.features = (
            nn.Linear(_WIDTHS[-1] * _PLACES, features),
            nn.BatchNorm1d(features),
        )

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        x = self.prelu(self.bn1(self.conv1(crops)))
        x = self.bn2(self.layer4(self.layer3(self.layer2(self.layer1(x)))))
        out: torch.Tensor = self.features(self.fc(x.flatten(1).float()))
        return out

    def lowered(self, precision: torch.dtype) -> "IResNet":
        """Itself with all but the last dense layer in `precision`; arcface_torch trains its mixed
        precision so.
        """
        for name, part in self.named_children():
            if name not in ("fc", "features"):
                part.to(precision)
        return self


def shape_of(state: Mapping[str, torch.Tensor]) -> tuple[tuple[int, ...], int]:
    """Blocks of each layer and length of the vector, as the keys and shapes of a checkpoint tell;
    raises ValueError.
    """
    blocks = tuple(
        len({name.split(".")[1] for name in state if name.startswith(f"layer{layer}.")})
        for layer in range(1, 5)
    )
    if not all(blocks) or "fc.weight" not in state:
        raise ValueError(
            "no iresnet of arcface_torch: it has fc.weight, and layer1.0. to layer4.0. before "
            "its layers' names"
        )
    return blocks, len(state["fc.weight"])


class _Block(nn.Module):
    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv1, self.bn2 = (
            nn.Conv2d(inside, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.prelu = nn.PReLU(width)
        self.conv2, self.bn3 = (
            nn.Conv2d(width, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.downsample = (
            nn.Sequential(nn.Conv2d(inside, width, 1, stride, bias=False), nn.BatchNorm2d(width))
            if stride > 1
            else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        out += x if self.downsample is None else self.downsample(x)
        return out
