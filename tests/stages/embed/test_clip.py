"""CLIP's vectors of images and texts, from folders of transformers and from OpenAI's files."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from stages.embed.clip import MEAN, STD, Clip, framed, normalised, open_clip
from stages.networks.clip import ClipNetwork, Sizes
from stages.pictures import decode
from stages.torch_session import BadCheckpoint
from stages.weights import WEIGHTS, MissingWeights, WeightFiles, Weights
from tests.stages.embed.test_clip_text import vocabulary, write_folder, write_openai
from tests.stages.networks.filled import filled

TOKENS = len(vocabulary())
WIDTH, LAYERS, CONTEXT, PATCH, SIDE, DIMS = 64, 2, 12, 14, 56, 32
RESNET = Sizes((1, 1, 1, 1), 16, 32, 2, DIMS, WIDTH, LAYERS, CONTEXT, TOKENS)


def transformers_layout() -> dict[str, torch.Tensor]:
    """Names and shapes of `openai/clip-vit-*` on the hub."""
    made: dict[str, tuple[int, ...]] = {
        "logit_scale": (),
        "text_projection.weight": (DIMS, WIDTH),
        "visual_projection.weight": (DIMS, WIDTH),
        "text_model.embeddings.token_embedding.weight": (TOKENS, WIDTH),
        "text_model.embeddings.position_embedding.weight": (CONTEXT, WIDTH),
        "vision_model.embeddings.class_embedding": (WIDTH,),
        "vision_model.embeddings.patch_embedding.weight": (WIDTH, 3, PATCH, PATCH),
        "vision_model.embeddings.position_embedding.weight": ((SIDE // PATCH) ** 2 + 1, WIDTH),
    }
    norms = [
        "text_model.final_layer_norm",
        "vision_model.pre_layrnorm",
        "vision_model.post_layernorm",
    ]  # misspelt on the hub
    for tower in ("text_model", "vision_model"):
        for block in (f"{tower}.encoder.layers.{number}" for number in range(LAYERS)):
            norms += [f"{block}.layer_norm1", f"{block}.layer_norm2"]
            layers = [(f"self_attn.{name}_proj", WIDTH, WIDTH) for name in ("q", "k", "v", "out")]
            layers += [("mlp.fc1", 4 * WIDTH, WIDTH), ("mlp.fc2", WIDTH, 4 * WIDTH)]
            for name, out, channels in layers:
                made |= {f"{block}.{name}.weight": (out, channels), f"{block}.{name}.bias": (out,)}
    made |= {f"{name}.{part}": (WIDTH,) for name in norms for part in ("weight", "bias")}
    state = filled({name: torch.empty(shape) for name, shape in made.items()})
    state["text_model.embeddings.position_ids"] = torch.arange(CONTEXT)[None]
    state["vision_model.embeddings.position_ids"] = torch.arange((SIDE // PATCH) ** 2 + 1)[None]
    return state


def configuration() -> dict[str, Any]:
    """config.json with what the hub's files of 2022 say."""
    common = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_attention_heads": 1,
        "num_hidden_layers": LAYERS,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-05,
        "projection_dim": DIMS,
    }
    text = {
        **common,
        "model_type": "clip_text_model",
        "vocab_size": TOKENS,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }
    vision = {**common, "model_type": "clip_vision_model", "image_size": SIDE, "patch_size": PATCH}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": DIMS,
        "logit_scale_init_value": 2.6592,
        "text_config": text,
        "vision_config": vision,
        "torch_dtype": "float32",
        "transformers_version": "4.16.0.dev0",
    }


def write_hub(folder: Path) -> Path:
    write_folder(folder)
    (folder / "config.json").write_text(json.dumps(configuration()))
    save_file(transformers_layout(), folder / "model.safetensors")
    return folder


def register(monkeypatch: pytest.MonkeyPatch, models: Path, bundle: str, kind: str) -> WeightFiles:
    """Whatever lies in `models`/`bundle`, as the files of that bundle."""
    for name in [name for name in WEIGHTS if name.startswith(f"{bundle}/")]:
        monkeypatch.delitem(WEIGHTS, name)
    for path in sorted((models / bundle).iterdir()):
        body, name = path.read_bytes(), f"{bundle}/{path.name}"
        entry = Weights(
            name,
            name,
            hashlib.sha256(body).hexdigest(),
            len(body),
            "MIT",
            "any",
            "made here",
            kind=kind,
        )
        monkeypatch.setitem(WEIGHTS, name, entry)
    return WeightFiles(str(models))


def write_resnet(
    folder: Path, state: dict[str, torch.Tensor] | None = None, name: str = "RN101.pt"
) -> None:
    folder.mkdir(exist_ok=True)
    write_openai(folder / "bpe_simple_vocab_16e6.txt.gz")
    torch.save(filled(ClipNetwork(RESNET).state_dict()) if state is None else state, folder / name)


@pytest.fixture(params=["clip_vit_l14", "clip_rn101"])
def clip(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clip:
    """A tiny vision transformer in a folder of transformers, and a tiny ResNet in OpenAI's
    layout.
    """
    if request.param == "clip_vit_l14":
        write_hub(tmp_path / request.param)
        files = register(monkeypatch, tmp_path, request.param, "clip/transformers")
    else:
        write_resnet(tmp_path / request.param)
        files = register(monkeypatch, tmp_path, request.param, "clip/openai")
    return open_clip(request.param, files, batch=3)


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        rng.integers(
            0, 256, (int(rng.integers(40, 200)), int(rng.integers(40, 200)), 3), dtype=np.uint8
        )
        for _ in range(count)
    ]


TEXTS = [
    "a dog",
    "and",
    "dog and dog and dog and dog and dog and dog",
    "",
    "22 dogs",
    "ll",
    "a photo of nothing at all",
]


def test_vectors_are_units_of_float32(clip: Clip) -> None:
    for unit, raw in (
        (clip.images(pictures(4)), clip.raw_images(pictures(4))),
        (clip.texts(TEXTS), clip.raw_texts(TEXTS)),
    ):
        assert unit.dtype == raw.dtype == np.float32
        assert unit.shape == raw.shape == (len(raw), clip.dims)
        lengths = np.linalg.norm(raw, axis=1, keepdims=True)
        assert np.linalg.norm(unit, axis=1) == pytest.approx(1, abs=1e-6)
        assert np.allclose(unit * lengths, raw, atol=1e-5)
        assert np.abs(lengths - 1).min() > 0.01
        assert len(np.unique(raw, axis=0)) == len(raw)
    assert clip.images([]).shape == clip.texts([]).shape == (0, clip.dims)


def test_a_vector_depends_on_its_picture_or_text_alone(clip: Clip) -> None:
    """To the last bit: whoever resumes a run cuts its batches elsewhere."""
    seen = pictures(7)
    images, texts = clip.raw_images(seen), clip.raw_texts(TEXTS)
    for number in range(7):
        assert np.array_equal(clip.raw_images(seen[number : number + 1])[0], images[number])
        assert np.array_equal(clip.raw_texts(TEXTS[number : number + 1])[0], texts[number])
    assert np.array_equal(clip.raw_images(seen[::-1])[::-1], images)
    assert np.array_equal(clip.raw_texts(TEXTS[::-1])[::-1], texts)


def test_a_long_text_is_read_up_to_its_limit(clip: Clip) -> None:
    limit = clip.tokeniser.context - 2
    vectors = clip.texts(["dog " * limit, "dog " * (limit + 1), "dog " * 400, "dog " * (limit - 1)])
    assert np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[0], vectors[2])
    assert not np.array_equal(vectors[0], vectors[3])


def test_the_folder_gives_what_transformers_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import CLIPModel

    folder = write_hub(tmp_path / "clip_vit_b32")
    clip = open_clip(
        "clip_vit_b32", register(monkeypatch, tmp_path, "clip_vit_b32", "clip/transformers")
    )
    reference: Any = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    seen = pictures(3)
    pixels = torch.from_numpy(np.stack([normalised(framed(rgb, SIDE)) for rgb in seen]))
    ids = torch.from_numpy(clip.tokeniser(TEXTS))
    with torch.inference_mode():
        images = reference.eval().get_image_features(pixel_values=pixels).pooler_output.numpy()
        texts = reference.get_text_features(input_ids=ids).pooler_output.numpy()
    assert np.allclose(clip.raw_images(seen), images, rtol=1e-5, atol=1e-5)
    assert np.allclose(clip.raw_texts(TEXTS), texts, rtol=1e-5, atol=1e-5)
    assert (clip.side, clip.dims) == (SIDE, DIMS)
    assert clip.logit_scale == pytest.approx(float(reference.logit_scale.detach().exp()), rel=1e-6)


@pytest.mark.filterwarnings("ignore:`torch.jit.:DeprecationWarning")
@pytest.mark.parametrize("kind", ["archive", "safetensors", "open_clip"])
def test_files_of_openai_and_open_clip_are_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """OpenAI's TorchScript archive with three numbers beside the weights, a state dict, open_clip's
    file with its mask.
    """
    state = filled(ClipNetwork(RESNET).state_dict())
    write_resnet(tmp_path / "clip_rn101")
    plain = open_clip("clip_rn101", register(monkeypatch, tmp_path, "clip_rn101", "clip/openai"))
    expected = plain.raw_images(pictures(2)), plain.raw_texts(TEXTS)
    path = tmp_path / "clip_rn101" / "RN101.pt"
    if kind == "archive":
        network = ClipNetwork(RESNET)
        network.load_state_dict(state)
        for name, value in (
            ("input_resolution", 64),
            ("context_length", CONTEXT),
            ("vocab_size", TOKENS),
        ):
            network.register_buffer(name, torch.tensor(value))
        example = {
            "image": torch.zeros(1, 3, 64, 64),
            "text": torch.zeros(1, CONTEXT, dtype=torch.long),
        }
        torch.jit.save(torch.jit.trace_module(network.eval(), example), path)
    elif kind == "safetensors":
        path.unlink()
        save_file(state, path.with_name("rn101.safetensors"))
    else:
        torch.save(
            {
                "state_dict": {
                    f"module.{name}": value
                    for name, value in {**state, "attn_mask": torch.zeros(1)}.items()
                }
            },
            path,
        )
    opened = open_clip("clip_rn101", register(monkeypatch, tmp_path, "clip_rn101", "clip/openai"))
    assert np.array_equal(opened.raw_images(pictures(2)), expected[0])
    assert np.array_equal(opened.raw_texts(TEXTS), expected[1])
    assert (opened.side, opened.dims) == (64, DIMS)


def test_openais_own_vision_transformer_is_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its byte pairs are those that lie with RN101."""
    write_resnet(tmp_path / "clip_rn101")
    files = register(monkeypatch, tmp_path, "clip_rn101", "clip/openai")
    sizes = Sizes((LAYERS,), WIDTH, PATCH, SIDE // PATCH, DIMS, WIDTH, LAYERS, CONTEXT, TOKENS)
    torch.save(filled(ClipNetwork(sizes).state_dict()), tmp_path / "ViT-B-32.pt")
    body = (tmp_path / "ViT-B-32.pt").read_bytes()
    entry = Weights(
        "vit",
        "ViT-B-32.pt",
        hashlib.sha256(body).hexdigest(),
        len(body),
        "MIT",
        "any",
        "made here",
        kind="clip/openai",
    )
    monkeypatch.setitem(WEIGHTS, "vit", entry)
    clip = open_clip("vit", files)
    assert (clip.side, clip.images(pictures(2)).shape, clip.texts(TEXTS).shape) == (
        SIDE,
        (2, DIMS),
        (len(TEXTS), DIMS),
    )


def test_half_precision_files_are_computed_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_hub(tmp_path / "clip_vit_l14")
    files = register(monkeypatch, tmp_path, "clip_vit_l14", "clip/transformers")
    full = open_clip("clip_vit_l14", files).raw_images(pictures(2))
    halves = {
        name: value.half() if value.is_floating_point() else value
        for name, value in transformers_layout().items()
    }
    save_file(halves, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(configuration() | {"torch_dtype": "float16"}))
    half = open_clip(
        "clip_vit_l14", register(monkeypatch, tmp_path, "clip_vit_l14", "clip/transformers")
    ).raw_images(pictures(2))
    assert np.abs(half - full).max() < 0.02 * np.abs(full).max()


def reference_pixels(rgb: np.ndarray, side: int) -> np.ndarray:
    """OpenAI's transform: Resize (bicubic), CenterCrop, ToTensor and Normalize of torchvision, one
    after the other.
    """
    image = Image.fromarray(rgb)
    width, height = image.size
    if min(width, height) != side:
        size = (
            (side, int(side * height / width))
            if width <= height
            else (int(side * width / height), side)
        )
        image = image.resize(size, Image.Resampling.BICUBIC)
    width, height = image.size
    top, left = round((height - side) / 2.0), round((width - side) / 2.0)
    cut = np.asarray(image.crop((left, top, left + side, top + side)))
    tensor = torch.from_numpy(cut.copy()).permute(2, 0, 1).float().div(255)
    mean, std = (
        torch.tensor([0.48145466, 0.4578275, 0.40821073]),
        torch.tensor([0.26862954, 0.26130258, 0.27577711]),
    )
    return tensor.sub(mean[:, None, None]).div(std[:, None, None]).numpy()


def test_pictures_are_prepared_as_openai_does(photos: Path) -> None:
    files = sorted(photos.glob("*/*.jpg"))[::60]
    assert len(files) > 5
    for file in files:
        rgb = decode(file.read_bytes())
        for seen in (rgb, rgb[: 224 + len(rgb) % 2], rgb[:, :225]):
            assert np.array_equal(normalised(framed(seen, 224)), reference_pixels(seen, 224))


def test_the_middle_of_a_long_strip_is_seen_without_scaling_all_of_it() -> None:
    strip = np.zeros((2, 60_000, 3), np.uint8)
    strip[:, 29_990:30_010] = 255
    cut = framed(strip, 224)
    assert cut.shape == (224, 224, 3)
    assert cut.min() == 255
    assert framed(strip.transpose(1, 0, 2), 224).min() == 255
    assert framed(np.full((1, 1, 3), 7, np.uint8), 224).shape == (224, 224, 3)


def test_mean_and_deviation_are_those_of_the_training() -> None:
    assert normalised(np.full((1, 1, 3), 255, np.uint8))[:, 0, 0] == pytest.approx((1 - MEAN) / STD)
    assert normalised(np.zeros((1, 1, 3), np.uint8))[:, 0, 0] == pytest.approx(
        [-1.7923, -1.7521, -1.4802], abs=1e-4
    )


def test_what_is_no_picture_or_no_list_is_refused(clip: Clip) -> None:
    for wrong in (
        np.zeros((5, 5), np.uint8),
        np.zeros((5, 5, 4), np.uint8),
        np.zeros((5, 5, 3)),
        np.zeros((0, 5, 3), np.uint8),
    ):
        with pytest.raises(
            ValueError, match=r"image 1 is .* wanted \(height, width, 3\) uint8 RGB"
        ):
            clip.images([np.zeros((5, 5, 3), np.uint8), wrong])
    with pytest.raises(TypeError, match="wanted a list of texts"):
        clip.texts("a dog")


def test_unknown_names_and_missing_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'clip_vit_l15' is no CLIP; there are: .*clip_vit_l14"):
        open_clip("clip_vit_l15", WeightFiles(str(tmp_path)))
    with pytest.raises(MissingWeights, match="clip_rn101"):
        open_clip("clip_rn101", WeightFiles(str(tmp_path)))


def test_foreign_folders_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened() -> Clip:
        return open_clip(
            "clip_vit_l14", register(monkeypatch, tmp_path, "clip_vit_l14", "clip/transformers")
        )

    folder = write_hub(tmp_path / "clip_vit_l14")
    state = transformers_layout()
    del state["visual_projection.weight"]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(BadCheckpoint, match=r"model\.safetensors: lacks visual_projection\.weight"):
        opened()
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadCheckpoint, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        opened()
    torch.save(transformers_layout(), folder / "pytorch_model.bin")
    assert opened().dims == DIMS
    (folder / "config.json").write_text(json.dumps(configuration() | {"model_type": "siglip"}))
    with pytest.raises(BadCheckpoint, match=r"config\.json: not the configuration of a CLIP"):
        opened()
    (folder / "config.json").write_text("{")
    with pytest.raises(BadCheckpoint, match=r"config\.json: not the configuration of a CLIP"):
        opened()
    more = configuration()
    more["text_config"]["vocab_size"] = TOKENS + 1
    (folder / "config.json").write_text(json.dumps(more))
    with pytest.raises(BadCheckpoint, match="has another shape for text_model"):
        opened()


def test_foreign_files_of_openais_kind_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(state: dict[str, torch.Tensor]) -> Clip:
        write_resnet(tmp_path / "clip_rn101", state)
        return open_clip("clip_rn101", register(monkeypatch, tmp_path, "clip_rn101", "clip/openai"))

    with pytest.raises(
        BadCheckpoint,
        match=r"RN101\.pt: not a CLIP as OpenAI and open_clip save it: this is the layout of "
        r"transformers",
    ):
        opened(transformers_layout())
    state = ClipNetwork(RESNET).state_dict()
    with pytest.raises(
        BadCheckpoint, match=r"RN101\.pt: lacks visual\.attnpool\.c_proj\.bias \(1\)"
    ):
        opened(
            {name: value for name, value in state.items() if name != "visual.attnpool.c_proj.bias"}
        )
    other = ClipNetwork(replace(RESNET, vocabulary=49408)).state_dict()
    with pytest.raises(
        BadCheckpoint, match=rf"made for 49408 tokens, the vocabulary beside it has {TOKENS}"
    ):
        opened(other)
