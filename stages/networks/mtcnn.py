"""The three networks of MTCNN (Zhang et al., "Joint Face Detection and Alignment using Multi-task
Cascaded CNNs", SPL 2016).

Layers are named as in facenet-pytorch, so that its state dicts load. All take RGB as (x - 127.5) /
128, float32. The published weights were trained in Caffe's MATLAB interface, which stores images
column by column: hence the transposed features before the first dense layer.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class ProposalNet(nn.Module):
    """P-net, fully convolutional: every place of its output, 2 pixels apart, sees 12 x 12
    pixels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1 = nn.Conv2d(32, 2, 1)
        self.conv4_2 = nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of (n, 3, h, w): the probability of a face (n, h', w'), and how its box differs from the
        square seen (n, 4, h', w').
        """
        x = _halve(self.prelu1(self.conv1(x)), 2)
        x = self.prelu2(self.conv2(x))
        x = self.prelu3(self.conv3(x))
        return torch.softmax(self.conv4_1(x), dim=1)[:, 1], self.conv4_2(x)


class RefinementNet(nn.Module):
    """R-net: takes or leaves a proposal, and corrects its box."""

    side = 24

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1 = nn.Linear(128, 2)
        self.dense5_2 = nn.Linear(128, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of (n, 3, 24, 24): the probability of a face (n), and how its box differs from the crop's
        (n, 4).
        """
        x = _halve(self.prelu1(self.conv1(x)), 3)
        x = _halve(self.prelu2(self.conv2(x)), 3)
        x = self.prelu3(self.conv3(x))
        x = self.prelu4(self.dense4(_by_column(x)))
        return torch.softmax(self.dense5_1(x), dim=1)[:, 1], self.dense5_2(x)


class OutputNet(nn.Module):
    """O-net: the last word on a face, its box and its five points."""

    side = 48

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1 = nn.Linear(256, 2)
        self.dense6_2 = nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of (n, 3, 48, 48): probability (n), difference of the box (n, 4), and the points' x, then
        their y, 0 to 1 (n, 10).
        """
        x = _halve(self.prelu1(self.conv1(x)), 3)
        x = _halve(self.prelu2(self.conv2(x)), 3)
        x = _halve(self.prelu3(self.conv3(x)), 2)
        x = self.prelu4(self.conv4(x))
        x = self.prelu5(self.dense5(_by_column(x)))
        return torch.softmax(self.dense6_1(x), dim=1)[:, 1], self.dense6_2(x), self.dense6_3(x)


def _halve(x: Tensor, window: int) -> Tensor:
    """Maximum pooling by 2 that keeps a last incomplete window, as Caffe does."""
    return functional.max_pool2d(x, window, 2, ceil_mode=True)


def _by_column(x: Tensor) -> Tensor:
    """(n, c, h, w) as (n, w * h * c)."""
    return x.permute(0, 3, 2, 1).flatten(1)
