"""CLIP as OpenAI and open_clip publish it: a text tower, and an image tower that is a vision
transformer or a ResNet.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021.
Names of parameters are those of their checkpoints, which hold both towers. transformers has other
names, and no CLIP with a ResNet.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

_EXPANSION = 4
_HEAD_WIDTH = 64
_STAGES = (1, 2, 3, 4)


@dataclass(frozen=True)
class Sizes:
    """What tells the networks apart; all of it shows in a checkpoint."""

    blocks: tuple[int, ...]
    """Of a ResNet the residual blocks in each of four stages (3, 4, 23, 3 in RN101), of a
    transformer one number (24 in ViT-L/14).
    """
    width: int
    """Of a ResNet the channels after the stem, of a transformer those of a token."""
    patch: int
    """Pixels along a side of what becomes one place."""
    grid: int
    """Places along a side of the image."""
    dims: int
    """Length of the vectors, of images as of texts."""
    text_width: int
    text_layers: int
    context: int
    """Tokens of a text, the first and last included."""
    vocabulary: int

    @property
    def side(self) -> int:
        """Pixels along a side of the image."""
        return self.patch * self.grid

    @staticmethod
    def of(state: Mapping[str, Tensor]) -> "Sizes":
        """The sizes of a checkpoint. Raises KeyError with the first name that it lacks."""
        blocks: tuple[int, ...]
        if "visual.proj" in state:
            width, _, patch, _ = state["visual.conv1.weight"].shape
            places = state["visual.positional_embedding"].shape[0] - 1
            blocks = (_count(state, "visual.transformer.resblocks."),)
        else:
            width, patch = state["visual.layer1.0.conv1.weight"].shape[0], 32
            places = state["visual.attnpool.positional_embedding"].shape[0] - 1
            blocks = tuple(_count(state, f"visual.layer{stage}.") for stage in _STAGES)
        return Sizes(
            blocks=blocks,
            width=width,
            patch=patch,
            grid=round(places**0.5),
            dims=state["text_projection"].shape[1],
            text_width=state["ln_final.weight"].shape[0],
            text_layers=_count(state, "transformer.resblocks."),
            context=state["positional_embedding"].shape[0],
            vocabulary=state["token_embedding.weight"].shape[0],
        )


class ClipNetwork(nn.Module):
    """Both towers; vectors are not normalised."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.visual: nn.Module = (
            _VisionTransformer(sizes) if len(sizes.blocks) == 1 else _ResNet(sizes)
        )
        self.token_embedding = nn.Embedding(sizes.vocabulary, sizes.text_width)
        self.positional_embedding = nn.Parameter(torch.zeros(sizes.context, sizes.text_width))
        self.transformer = _Transformer(sizes.text_width, sizes.text_layers, causal=True)
        self.ln_final = nn.LayerNorm(sizes.text_width)
        self.text_projection = nn.Parameter(torch.zeros(sizes.text_width, sizes.dims))
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def image(self, pixels: Tensor) -> Tensor:
        """(n, 3, side, side), normalised RGB, to (n, dims)."""
        found: Tensor = self.visual(pixels)
        return found

    def text(self, ids: Tensor) -> Tensor:
        """(n, context) token numbers to (n, dims). The last token of a text has the highest number
        of all and stands for it.
        """
        x = self.transformer(self.token_embedding(ids) + self.positional_embedding)
        ends = self.ln_final(x[torch.arange(ids.shape[0], device=ids.device), ids.argmax(dim=1)])
        found: Tensor = ends @ self.text_projection
        return found


class _VisionTransformer(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.width
        self.conv1 = nn.Conv2d(3, width, sizes.patch, stride=sizes.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(sizes.grid**2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = _Transformer(width, sizes.blocks[0], causal=False)
        self.proj = nn.Parameter(torch.zeros(width, sizes.dims))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(x.shape[0], 1, -1), x], dim=1)
        x = self.transformer(self.ln_pre(x + self.positional_embedding))
        found: Tensor = self.ln_post(x[:, 0]) @ self.proj
        return found


class _ResNet(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        half = sizes.width // 2
        self.conv1, self.bn1 = (
            nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(half),
        )
        self.conv2, self.bn2 = nn.Conv2d(half, half, 3, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = (
            nn.Conv2d(half, sizes.width, 3, padding=1, bias=False),
            nn.BatchNorm2d(sizes.width),
        )
        channels = sizes.width
        for stage, count in zip(_STAGES, sizes.blocks, strict=True):
            inner = sizes.width * 2 ** (stage - 1)
            blocks = []
            for number in range(count):
                blocks.append(_Bottleneck(channels, inner, 2 if stage > 1 and number == 0 else 1))
                channels = inner * _EXPANSION
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.attnpool = _AttentionPool(sizes.grid**2, channels, sizes.dims)

    def forward(self, x: Tensor) -> Tensor:
        for number in (1, 2, 3):
            x = functional.relu(
                self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(x))
            )
        x = functional.avg_pool2d(x, 2)
        for stage in _STAGES:
            x = self.get_submodule(f"layer{stage}")(x)
        pooled: Tensor = self.attnpool(x)
        return pooled


class _Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1; where it halves the size, by averaging before the last convolution and
    on the shortcut.
    """

    def __init__(self, channels: int, inner: int, stride: int) -> None:
        super().__init__()
        self._stride = stride
        self.conv1, self.bn1 = nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = (
            nn.Conv2d(inner, inner, 3, padding=1, bias=False),
            nn.BatchNorm2d(inner),
        )
        out = inner * _EXPANSION
        self.conv3, self.bn3 = nn.Conv2d(inner, out, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or channels != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        if self._stride > 1:
            x, y = functional.avg_pool2d(x, self._stride), functional.avg_pool2d(y, self._stride)
        return functional.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class _AttentionPool(nn.Module):
    """One vector for a feature map: its mean asks, all places and the mean answer."""

    def __init__(self, places: int, channels: int, dims: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.zeros(places + 1, channels))
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(channels, channels) for _ in range(3))
        self.c_proj = nn.Linear(channels, dims)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + self.positional_embedding
        query, key, value = (
            _heads(part) for part in (self.q_proj(x[:, :1]), self.k_proj(x), self.v_proj(x))
        )
        found: Tensor = self.c_proj(
            functional.scaled_dot_product_attention(query, key, value).flatten(1)
        )
        return found


class _Transformer(nn.Module):
    """(n, tokens, width) to the same. `causal`: a token sees those before it only."""

    def __init__(self, width: int, layers: int, causal: bool) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(_Block(width, causal) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.resblocks(x)
        return found


class _Block(nn.Module):
    """Attention, then a feed-forward layer, each behind its layer norm."""

    def __init__(self, width: int, causal: bool) -> None:
        super().__init__()
        self.attn = _Attention(width, causal)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = _FeedForward(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        found: Tensor = x + self.mlp(self.ln_2(x))
        return found


class _FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c_fc(x)
        found: Tensor = self.c_proj(
            x * torch.sigmoid(1.702 * x)
        )  # the approximation of GELU that OpenAI trained with
        return found


class _Attention(nn.Module):
    def __init__(self, width: int, causal: bool) -> None:
        super().__init__()
        self._causal = causal
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = functional.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=2)
        query, key, value = (_heads(part) for part in parts)
        y = functional.scaled_dot_product_attention(query, key, value, is_causal=self._causal)
        found: Tensor = self.out_proj(y.transpose(1, 2).flatten(2))
        return found


def _heads(x: Tensor) -> Tensor:
    """(n, tokens, width) to (n, heads, tokens, 64)."""
    return x.reshape(*x.shape[:2], -1, _HEAD_WIDTH).transpose(1, 2)


def _count(names: Iterable[str], prefix: str) -> int:
    return len(
        {name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)}
    )
