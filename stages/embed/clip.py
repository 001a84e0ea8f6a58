"""CLIP: vectors of whole images and of texts in one space (Radford et al., ICML 2021), for
captions, training and scores.

Not a backend of `embed`: that writes vectors of faces by which people are told apart, and CLIP's
are none. OpenAI's ViT-L/14 and ViT-B/32 are read from a folder of transformers or from OpenAI's
files, RN101 from OpenAI's or open_clip's. Everything is computed in float32 and in batches of one
fixed size, so that a vector depends on its image or text alone.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from stages.embed import clip_text
from stages.networks.clip import ClipNetwork, Sizes
from stages.stage import Device, WeightFiles
from stages.torch_session import BadCheckpoint, load_state, ready
from stages.weights import bundle, names

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)
"""Of RGB, 0 to 1, over the images that CLIP was trained on."""

_BYTE_PAIRS = f"clip_rn101/{clip_text.OPENAI_FILE}"
"""Registered name of the byte pairs for OpenAI's files, which all share them."""
_TENSORS = (".safetensors", ".bin", ".pt", ".pth")
_NOT_PARAMETERS = ("input_resolution", "context_length", "vocab_size", "attn_mask")
"""What OpenAI's archives, and older files of open_clip, keep beside the parameters."""
_NARROWEST = 64


class _Network(Protocol):
    def image(self, pixels: torch.Tensor) -> torch.Tensor: ...

    def text(self, ids: torch.Tensor) -> torch.Tensor: ...


class Clip:
    """An opened CLIP. Made by `open_clip`."""

    def __init__(
        self,
        network: _Network,
        tokeniser: clip_text.ClipTokeniser,
        side: int,
        dims: int,
        scale: float,
        device: Device,
        batch: int,
    ) -> None:
        self.side = side
        """Pixels along a side of what the image tower sees."""
        self.dims = dims
        """Length of the vectors."""
        self.logit_scale = scale
        """By what cosines are multiplied before a softmax over texts; 100 in OpenAI's weights."""
        self.tokeniser = tokeniser
        self._network, self._device, self._batch = network, device, batch

    def images(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Unit vectors (n, dims) float32 of images, each (h, w, 3) uint8 RGB. Raises ValueError
        for others.
        """
        return _unit(self.raw_images(pictures))

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors (n, dims) float32 of texts; what goes beyond 75 tokens is not read."""
        return _unit(self.raw_texts(texts))

    def raw_images(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """As `images`, with the lengths that the network gives them."""
        for number, rgb in enumerate(pictures):
            if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
                raise ValueError(
                    f"image {number} is {rgb.shape} {rgb.dtype}, wanted (height, width, 3) "
                    "uint8 RGB"
                )

        def pixels(part: Sequence[np.ndarray]) -> np.ndarray:
            return np.stack([normalised(framed(rgb, self.side)) for rgb in part])

        return self._in_batches(pictures, pixels, self._network.image)

    def raw_texts(self, texts: Sequence[str]) -> np.ndarray:
        """As `texts`, with the lengths that the network gives them."""
        if isinstance(texts, str):
            raise TypeError("wanted a list of texts, got one text")
        return self._in_batches(texts, self.tokeniser, self._network.text)

    @torch.inference_mode()
    def _in_batches(
        self,
        things: Sequence[Any],
        prepare: Callable[[Sequence[Any]], np.ndarray],
        forward: Callable[[torch.Tensor], torch.Tensor],
    ) -> np.ndarray:
        out = [np.zeros((0, self.dims), dtype=np.float32)]
        for start in range(0, len(things), self._batch):
            prepared = prepare(things[start : start + self._batch])
            full = np.zeros((self._batch, *prepared.shape[1:]), dtype=prepared.dtype)
            full[: len(prepared)] = prepared
            out.append(
                forward(torch.from_numpy(full).to(self._device))[: len(prepared)].cpu().numpy()
            )
        return np.concatenate(out)


def open_clip(
    name: str, files: WeightFiles, device: Device = "cpu", threads: int = 1, batch: int = 8
) -> Clip:
    """The CLIP that is registered as `name`: clip_vit_l14, clip_vit_b32, clip_rn101 and others of
    kind `clip`.

    `batch` and `threads` have their part in the last bits of the vectors. Raises ValueError for
    another name, MissingWeights where files are not there, BadCheckpoint where they are not a
    CLIP's, NoDevice.
    """
    there = names("clip", local=files.local)
    if name not in there:
        raise ValueError(f"{name!r} is no CLIP; there are: {', '.join(there)}")
    parts = bundle(name, files.local)
    if files.entry(parts[0]).kind == "clip/transformers":
        return _from_transformers(files.folder(name), device, threads, batch)
    (weights,) = (part for part in parts if files.entry(part).file.endswith(_TENSORS))
    return _from_openai(files.path(weights), files.path(_BYTE_PAIRS), device, threads, batch)


def _from_openai(path: str, byte_pairs: str, device: Device, threads: int, batch: int) -> Clip:
    state = {key: value for key, value in load_state(path).items() if key not in _NOT_PARAMETERS}
    try:
        sizes = Sizes.of(state)
    except KeyError as error:
        hint = (
            ": this is the layout of transformers"
            if any(key.startswith("text_model.") for key in state)
            else ""
        )
        raise BadCheckpoint(
            f"{path}: not a CLIP as OpenAI and open_clip save it{hint}, it lacks {error.args[0]}"
        ) from error
    network = ready(ClipNetwork(sizes), state, path, device, threads)
    tokeniser = clip_text.from_openai(byte_pairs, sizes.context)
    _same_vocabulary(tokeniser, sizes.vocabulary, path)
    scale = float(state["logit_scale"].double().exp())
    return Clip(network, tokeniser, sizes.side, sizes.dims, scale, device, batch)  # type: ignore[arg-type]


def _from_transformers(folder: str, device: Device, threads: int, batch: int) -> Clip:
    from transformers import CLIPConfig

    config_path = str(Path(folder) / "config.json")
    try:
        config: Any = CLIPConfig.from_json_file(config_path)
    except Exception as error:  # whatever it met in there
        raise BadCheckpoint(f"{config_path}: not the configuration of a CLIP: {error}") from error
    if config.model_type != "clip":
        raise BadCheckpoint(
            f"{config_path}: not the configuration of a CLIP, but of a {config.model_type}"
        )
    path = next(
        (
            str(Path(folder) / one)
            for one in ("model.safetensors", "pytorch_model.bin")
            if (Path(folder) / one).is_file()
        ),
        None,
    )
    if path is None:
        raise BadCheckpoint(f"{folder}: there is neither model.safetensors nor pytorch_model.bin")
    # Position numbers were saved by old versions; they follow from the sizes.
    state = {
        key: value for key, value in load_state(path).items() if not key.endswith(".position_ids")
    }
    # That the vector of a text is the one at its highest token number, as with OpenAI, is what
    # transformers calls this.
    config.text_config.eos_token_id = 2
    network = _Transformers(config)
    ready(network.model, state, path, device, threads)
    tokeniser = clip_text.from_folder(folder, config.text_config.max_position_embeddings)
    _same_vocabulary(tokeniser, config.text_config.vocab_size, path)
    side, scale = config.vision_config.image_size, float(state["logit_scale"].double().exp())
    return Clip(network, tokeniser, side, config.projection_dim, scale, device, batch)


class _Transformers:
    """transformers' CLIPModel behind the two methods of `_Network`."""

    def __init__(self, config: Any) -> None:
        from transformers import CLIPModel

        model: Any = CLIPModel(config)
        self.model = model.float()  # whatever precision the configuration asks for

    def image(self, pixels: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.model.get_image_features(pixel_values=pixels).pooler_output
        return found

    def text(self, ids: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.model.get_text_features(input_ids=ids).pooler_output
        return found


def _same_vocabulary(tokeniser: clip_text.ClipTokeniser, size: int, path: str) -> None:
    if tokeniser.size != size:
        raise BadCheckpoint(
            f"{path}: made for {size} tokens, the vocabulary beside it has {tokeniser.size}"
        )


def framed(rgb: np.ndarray, side: int) -> np.ndarray:
    """The image's centre as (side, side, 3) uint8: the shorter side scaled to `side`, bicubic,
    the longer cut at both ends.

    As torchvision's Resize and CenterCrop do on a Pillow image, roundings included.
    """
    height, width = rgb.shape[:2]
    # Of a very long strip only the middle is seen; scaled as a whole it could fill the memory.
    if max(height, width) > _NARROWEST * min(height, width):
        half = _NARROWEST * min(height, width) // 2
        rgb = rgb[
            max(0, height // 2 - half) : height // 2 + half,
            max(0, width // 2 - half) : width // 2 + half,
        ]
        height, width = rgb.shape[:2]
    image = Image.fromarray(np.ascontiguousarray(rgb))
    short = min(height, width)
    scaled = (int(side * width / short), int(side * height / short))
    if scaled != image.size:
        image = image.resize(scaled, Image.Resampling.BICUBIC)
    left, top = (round((length - side) / 2) for length in scaled)
    return np.asarray(image.crop((left, top, left + side, top + side)))


def normalised(rgb: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 as (3, h, w) float32 by CLIP's mean and standard deviation."""
    scaled: np.ndarray = (rgb.astype(np.float32) / np.float32(255) - MEAN) / STD
    return scaled.transpose(2, 0, 1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    unit: np.ndarray = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return unit
