"""CLIP by OpenAI: ViT-L/14 and ViT-B/32 in the layout that transformers reads, and OpenAI's own files."""

from stages.weights.entry import Weights, hub_bundle

_LICENCE = "MIT (code and weights, openai/CLIP)"
_OPENAI = "https://openaipublic.azureedge.net/clip/models"
_BPE = "https://raw.githubusercontent.com/openai/CLIP/d05afc436d78f1c48dc0dbf8e5980a9d471f35f6/clip/bpe_simple_vocab_16e6.txt.gz"

# fmt: off
WEIGHTS = (
    *hub_bundle(
        "clip_vit_l14", "clip", "openai/clip-vit-large-patch14", "32bd64288804d66eefd0ccbe215aa642df71cc41", {
            "model.safetensors": ("a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb", 1_710_540_580),
            "config.json": ("8a09b467700c58138c29d53c605b34ebc69beaadd13274a8a2af8ad2c2f4032a", 4_519),
            "preprocessor_config.json": ("910e70b3956ac9879ebc90b22fb3bc8a75b6a0677814500101a4c072bd7857bd", 316),
            "vocab.json": ("3f0c4f7d2086b61b38487075278ea9ed04edb53a03cbb045b86c27190fa8fb69", None),
            "merges.txt": ("9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a", None),
            "tokenizer.json": ("a83e0809aa4c3af7208b2df632a7a69668c6d48775b3c3fe4e1b1199d1f8b8f4", None),
            "tokenizer_config.json": ("deef455e52fa5e8151e339add0582e4235f066009601360999d3a9cda83b1129", None),
            "special_tokens_map.json": ("f8c0d6c39aee3f8431078ef6646567b0aba7f2246e9c54b8b99d55c22b707cbf", 389),
        },
        kind="clip/transformers", licence=_LICENCE, use="any", needed_by=("training:facestudio", "training:caphuman", "eval:clip"),
    ),
    *hub_bundle(
        "clip_vit_b32", "clip", "openai/clip-vit-base-patch32", "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268", {
            "pytorch_model.bin": ("a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f", 605_247_071),
            "config.json": ("b575ef3c36f2a057fa19e221650105052d61cc9c1a972ec15019c6261ec98770", 4_186),
            "preprocessor_config.json": ("910e70b3956ac9879ebc90b22fb3bc8a75b6a0677814500101a4c072bd7857bd", 316),
            "vocab.json": ("5047b556ce86ccaf6aa22b3ffccfc52d391ea4accdab9c2f2407da5b742d4363", 862_328),
            "merges.txt": ("f526393189112391ce6f9795d4695f704121ce452c3aad1f5335cc41337eba85", 524_657),
            "tokenizer.json": ("b556ac8c99757ffb677208af34bc8c6721572114111a6e0aaf5fa69ff0b8d842", 2_224_041),
            "tokenizer_config.json": ("34b7336e4bee12e0a9730eaf5189f582ef3c3eea5027f65730e5717256755aad", 592),
            "special_tokens_map.json": ("f8c0d6c39aee3f8431078ef6646567b0aba7f2246e9c54b8b99d55c22b707cbf", 389),
        },
        kind="clip/transformers", licence=_LICENCE, use="any", needed_by=("training:facestudio", "eval:clip"),
    ),
    # transformers has no CLIP with a ResNet: OpenAI's TorchScript archive, of which only the tensors are read.
    Weights(
        "clip_rn101/RN101.pt", "clip/clip_rn101/RN101.pt",
        "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599", 291_791_292, _LICENCE, "any",
        "https://github.com/openai/CLIP, RN101", kind="clip/openai", needed_by=("training:facestudio",),
        address=f"{_OPENAI}/8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599/RN101.pt",
    ),
    Weights(
        "clip_rn101/bpe_simple_vocab_16e6.txt.gz", "clip/clip_rn101/bpe_simple_vocab_16e6.txt.gz",
        "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a", 1_356_917, _LICENCE, "any",
        "https://github.com/openai/CLIP, clip/bpe_simple_vocab_16e6.txt.gz", kind="clip/openai", needed_by=("training:facestudio",),
        address=_BPE,
    ),
    Weights(
        "clip_vit_l14_openai", "clip/ViT-L-14.pt",
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836", 932_768_134, _LICENCE, "any",
        "https://github.com/openai/CLIP, ViT-L/14", kind="clip/openai", needed_by=("training:flashface", "eval:clip"),
        address=f"{_OPENAI}/b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
    ),
    Weights(
        "clip_vit_b32_openai", "clip/ViT-B-32.pt",
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af", 353_976_522, _LICENCE, "any",
        "https://github.com/openai/CLIP, ViT-B/32", kind="clip/openai", needed_by=("training:facestudio",),
        address=f"{_OPENAI}/40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
    ),
)
# fmt: on
