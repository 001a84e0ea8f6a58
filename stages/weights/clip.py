"""CLIP by OpenAI, in the layout that transformers reads."""

from stages.weights.entry import hub_bundle

_FILES = (
    "model.safetensors", "config.json", "preprocessor_config.json",
    "vocab.json", "merges.txt", "tokenizer_config.json", "tokenizer.json",
)  # fmt: skip
_LICENCE = "MIT (code and weights, openai/CLIP); the model card advises against use without testing"

WEIGHTS = (
    *hub_bundle(
        "clip_vit_l14", "clip", "openai/clip-vit-large-patch14", "main", dict.fromkeys(_FILES, (None, None)),
        kind="clip/transformers", licence=_LICENCE, use="any", needed_by=("training:facestudio", "training:caphuman", "eval:clip"),
    ),
    *hub_bundle(
        "clip_vit_b32", "clip", "openai/clip-vit-base-patch32", "main", dict.fromkeys(_FILES, (None, None)),
        kind="clip/transformers", licence=_LICENCE, use="any", needed_by=("training:facestudio", "eval:clip"),
    ),
)  # fmt: skip
