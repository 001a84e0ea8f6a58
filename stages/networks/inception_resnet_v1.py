"""Inception-ResNet-v1, the network of FaceNet's open weights.

Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning"
(AAAI 2017), figures 10 to 15, with padding as in David Sandberg's TensorFlow network: none where a
layer makes the image smaller. Layers are named as in facenet-pytorch, so that its state dicts
load.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

_EPSILON = 0.001
"""Of TensorFlow's batch normalisation, with which the weights were trained; torch's default is
1e-5.
"""


class InceptionResnetV1(nn.Module):
    """Raw vectors (n, 512) of crops (n, 3, 160, 160) float32 RGB as (x - 127.5) / 128."""

    side = 160

    def __init__(self) -> None:
        super().__init__()
        self.conv2d_1a = _Layer(3, 32, 3, stride=2)
        self.conv2d_2a = _Layer(32, 32, 3)
        self.conv2d_2b = _Layer(32, 64, 3, padding=1)
        self.conv2d_3b = _Layer(64, 80, 1)
        self.conv2d_4a = _Layer(80, 192, 3)
        self.conv2d_4b = _Layer(192, 256, 3, stride=2)
        self.repeat_1 = nn.Sequential(*(_block35() for _ in range(5)))
        self.mixed_6a = _Reduction(
            _Layer(256, 384, 3, stride=2),
            nn.Sequential(
                _Layer(256, 192, 1), _Layer(192, 192, 3, padding=1), _Layer(192, 256, 3, stride=2)
            ),
        )
        self.repeat_2 = nn.Sequential(*(_block17() for _ in range(10)))
        self.mixed_7a = _Reduction(
            nn.Sequential(_Layer(896, 256, 1), _Layer(256, 384, 3, stride=2)),
            nn.Sequential(_Layer(896, 256, 1), _Layer(256, 256, 3, stride=2)),
            nn.Sequential(
                _Layer(896, 256, 1), _Layer(256, 256, 3, padding=1), _Layer(256, 256, 3, stride=2)
            ),
        )
        self.repeat_3 = nn.Sequential(*(_block8(0.2, last=False) for _ in range(5)))
        self.block8 = _block8(1.0, last=True)
        self.last_linear = nn.Linear(1792, 512, bias=False)
        self.last_bn = nn.BatchNorm1d(512, eps=_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x)))
        x = functional.max_pool2d(x, 3, 2)
        x = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(x)))
        x = self.mixed_6a(self.repeat_1(x))
        x = self.mixed_7a(self.repeat_2(x))
        x = self.block8(self.repeat_3(x))
        return self.last_bn(self.last_linear(x.mean(dim=(2, 3))))


class _Layer(nn.Module):
    """Convolution without bias, batch normalisation, rectifier."""

    def __init__(
        self,
        inside: int,
        outside: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outside, eps=_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class _Branches(nn.Module):
    """Modules that look at the same input, named branch0, branch1, ...; their outputs one after the
    other as channels.
    """

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self._names = tuple(f"branch{i}" for i in range(len(branches)))
        for name, branch in zip(self._names, branches, strict=True):
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.get_submodule(name)(x) for name in self._names], dim=1)


class _Residual(_Branches):
    """x plus a scaled mixture of what the branches see; the very last one is not rectified."""

    def __init__(
        self, width: int, mixed: int, scale: float, last: bool, *branches: nn.Module
    ) -> None:
        super().__init__(*branches)
        self.conv2d = nn.Conv2d(mixed, width, 1)
        self._scale, self._last = scale, last

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._scale * self.conv2d(super().forward(x))
        return x if self._last else functional.relu(x)


class _Reduction(_Branches):
    """Half the height and width: what the branches see, then the maximum of 3 x 3."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([super().forward(x), functional.max_pool2d(x, 3, 2)], dim=1)


def _block35() -> _Residual:
    return _Residual(
        256,
        96,
        0.17,
        False,
        _Layer(256, 32, 1),
        nn.Sequential(_Layer(256, 32, 1), _Layer(32, 32, 3, padding=1)),
        nn.Sequential(
            _Layer(256, 32, 1), _Layer(32, 32, 3, padding=1), _Layer(32, 32, 3, padding=1)
        ),
    )


def _block17() -> _Residual:
    wide, high = _Layer(128, 128, (1, 7), padding=(0, 3)), _Layer(128, 128, (7, 1), padding=(3, 0))
    return _Residual(
        896, 256, 0.1, False, _Layer(896, 128, 1), nn.Sequential(_Layer(896, 128, 1), wide, high)
    )


def _block8(scale: float, last: bool) -> _Residual:
    wide, high = _Layer(192, 192, (1, 3), padding=(0, 1)), _Layer(192, 192, (3, 1), padding=(1, 0))
    return _Residual(
        1792,
        384,
        scale,
        last,
        _Layer(1792, 192, 1),
        nn.Sequential(_Layer(1792, 192, 1), wide, high),
    )
