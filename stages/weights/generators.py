"""Weights of generators: Stable Diffusion 1.5 with its autoencoders, and the published systems that build on it.

The tokenizer of Stable Diffusion 1.5 is that of `clip_vit_l14`.
"""

from stages.weights.entry import Weights, hub, hub_bundle

_RAIL = "CreativeML Open RAIL-M: also commercial, not for the purposes that its attachment A lists"
_SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
_SD15_REVISION = "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"
_ALL = ("training:flashface", "training:caphuman", "training:facestudio", "training:facecrafter")
# fmt: off
_ARC2FACE = (
    "arc2face/config.json", "arc2face/diffusion_pytorch_model.safetensors", "encoder/config.json", "encoder/pytorch_model.bin",
)
# fmt: on


def _realistic_vision(name: str, repository: str, file: str) -> Weights:
    return Weights(
        name,
        f"generate/{file}",
        None,
        None,
        _RAIL,
        "restricted",
        f"https://huggingface.co/{repository}, {file}",
        kind="generate/sd15_checkpoint",
        needed_by=("training:caphuman", "training:flashface"),
        address=hub(repository, "main", file),
    )


# fmt: off
WEIGHTS = (
    *hub_bundle(
        "sd15", "generate", _SD15, _SD15_REVISION, {
            "unet/diffusion_pytorch_model.safetensors": ("19da7aaa4b880e59d56843f1fcb4dd9b599c28a1d9d9af7c1143057c8ffae9f1", 3_438_167_540),
            "vae/diffusion_pytorch_model.safetensors": ("a2b5134f4dbc140d9c11f11cba3233099e00af40f262f136c691fb7d38d2194c", 334_643_276),
            "text_encoder/model.safetensors": ("d008943c017f0092921106440254dbbe00b6a285f7883ec8ba160c3faad88334", 492_265_874),
        },
        kind="generate/sd15", licence=_RAIL, use="restricted", needed_by=_ALL,
    ),
    Weights(
        "sd15_checkpoint", "generate/v1-5-pruned-emaonly.safetensors",
        "6ce0161689b3853acaa03779ec93eafe75a02f4ced659bee03f50797806fa2fa", 4_265_146_304, _RAIL, "restricted",
        f"https://huggingface.co/{_SD15}, all parts in one file", kind="generate/sd15_checkpoint", needed_by=_ALL,
        address=hub(_SD15, _SD15_REVISION, "v1-5-pruned-emaonly.safetensors"),
    ),
    Weights(
        "sd_vae_ft_mse", "generate/sd-vae-ft-mse/diffusion_pytorch_model.safetensors",
        "a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815", 334_643_276, "MIT", "any",
        "https://huggingface.co/stabilityai/sd-vae-ft-mse", kind="generate/sd_vae", needed_by=("training:caphuman", "latents:sd_vae"),
        address=hub("stabilityai/sd-vae-ft-mse", "31f26fdeee1355a5c34592e401dd41e45d25a493", "diffusion_pytorch_model.safetensors"),
    ),
    Weights(
        "sd_vae_ft_mse_original", "generate/vae-ft-mse-840000-ema-pruned.safetensors",
        "735e4c3a447a3255760d7f86845f09f937809baa529c17370d83e4c3758f3c75", 334_641_190, "MIT", "any",
        "https://huggingface.co/stabilityai/sd-vae-ft-mse-original, in the layout of latent-diffusion", kind="generate/sd_vae_original",
        needed_by=("training:caphuman",),
        address=hub(
            "stabilityai/sd-vae-ft-mse-original", "629b3ad3030ce36e15e70c5db7d91df0d60c627f", "vae-ft-mse-840000-ema-pruned.safetensors"
        ),
    ),
    Weights(
        "sd_vae_ft_ema", "generate/sd-vae-ft-ema/diffusion_pytorch_model.safetensors", None, 334_643_276, "MIT", "any",
        "https://huggingface.co/stabilityai/sd-vae-ft-ema", kind="generate/sd_vae", needed_by=("latents:sd_vae",),
        address=hub("stabilityai/sd-vae-ft-ema", "main", "diffusion_pytorch_model.safetensors"),
    ),
    _realistic_vision("realistic_vision_3_0", "SG161222/Realistic_Vision_V3.0_VAE", "Realistic_Vision_V3.0.safetensors"),
    _realistic_vision("realistic_vision_4_0", "SG161222/Realistic_Vision_V4.0_noVAE", "Realistic_Vision_V4.0.safetensors"),
    _realistic_vision("realistic_vision_5_1", "SG161222/Realistic_Vision_V5.1_noVAE", "Realistic_Vision_V5.1.safetensors"),
    *hub_bundle(
        "arc2face", "generate", "FoivosPar/Arc2Face", "321709b2e9697ea2a5bd06c8a51b340592333e1e", dict.fromkeys(_ARC2FACE, (None, None)),
        kind="generate/arc2face", licence="MIT; takes vectors of insightface's recogniser, which is non-commercial",
        use="non-commercial", needed_by=("training:facecrafter",),
    ),
    *hub_bundle(
        "flashface", "generate", "shilongz/FlashFace-SD1.5", "main", dict.fromkeys(("flashface.ckpt", "sd-v1-vae.pth"), (None, None)),
        kind="generate/flashface", licence=f"MIT (code); builds on Stable Diffusion 1.5: {_RAIL}", use="restricted",
        needed_by=("training:flashface",),
    ),
    Weights(
        "caphuman", "generate/caphuman.ckpt", None, None, "CC BY-NC 4.0", "non-commercial",
        "https://github.com/VamosC/CapHuman, caphuman.ckpt", kind="generate/caphuman", needed_by=("training:caphuman",),
        md5="6f0086112db9abc6ce4518a458d4d4b8",
        by_hand="the README of https://github.com/VamosC/CapHuman links caphuman.ckpt",
    ),
)
# fmt: on
