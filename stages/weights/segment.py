"""Weights of models that tell face, hair, clothes and background apart."""

from stages.weights.entry import Weights, hub_bundle

_CELEBAMASK = "trained on CelebAMask-HQ, which is for non-commercial research"
_RAW = "https://raw.githubusercontent.com"

# fmt: off
WEIGHTS = (
    *hub_bundle(
        "segformer_face_parsing", "segment", "jonathandinu/face-parsing", "main", {
            "model.safetensors": (None, None), "config.json": (None, None), "preprocessor_config.json": (None, None),
        },
        kind="segment/segformer", licence=f"NVIDIA source code licence (SegFormer): non-commercial; {_CELEBAMASK}", use="non-commercial",
        needed_by=("segment:segformer",),
    ),
    Weights(
        "bisenet_face_parsing", "segment/79999_iter.pth",
        "468e13ca13a9b43cc0881a9f99083a430e9c0a38abd935431d1c28ee94b26567", None,
        f"MIT (zllrunning/face-parsing.PyTorch); {_CELEBAMASK}", "non-commercial",
        "https://github.com/zllrunning/face-parsing.PyTorch, 79999_iter.pth, as clibdev's fork hands it on",
        kind="segment/bisenet", needed_by=("segment:bisenet", "training:caphuman"), md5="ff26a222ce48a618a1fa820b46223cae",
        address="https://github.com/clibdev/face-parsing.PyTorch/releases/latest/download/face-parsing-bisenet.pth",
    ),
    Weights(
        "face_parsing_unet", "segment/face_parsing_unet_simonenkel.pth",
        "88db73a3e90fe36ac12ba7cd8704610cda55947c04ddd5a70e6ab3a54cdb06eb", 1_877_941,
        f"no licence stated; {_CELEBAMASK}", "non-commercial",
        "https://github.com/SimonEnkel/lightweight-unet-face-parsing, model_best.pth", kind="segment/unet", needed_by=("segment:unet",),
        address=f"{_RAW}/SimonEnkel/lightweight-unet-face-parsing/a50774255c4f743e41740481f818f2d011bd8536/model_best.pth",
    ),
    Weights(
        "sinet_portrait", "segment/SINet.onnx", "f35b9e40a455248ddb53fcae605b7cb3f0fcebaa6aa7c6e4d76e928cfb0ce995", 436_866,
        "MIT", "any", "https://github.com/anilsathyan7/Portrait-Segmentation, SINet/SINet.onnx: person and background, 320 x 320",
        kind="segment/sinet", needed_by=("segment:sinet",),
        address=f"{_RAW}/anilsathyan7/Portrait-Segmentation/dbf69b043cf70d3362bc500ee620f20807e622d2/SINet/SINet.onnx",
    ),
    Weights(
        "mediapipe_selfie", "mediapipe/selfie_segmentation.tflite",
        "8d13b7fae74af625c641226813616a2117bd6bca19eb3b75574621fc08557f27", 249_024, "Apache-2.0", "any",
        "https://github.com/google-ai-edge/mediapipe, mediapipe/modules/selfie_segmentation: person and background, 256 x 256",
        kind="segment/mediapipe", needed_by=("segment:mediapipe",),
        address=f"{_RAW}/google-ai-edge/mediapipe/8b57bf879b419173b26277d220b643dac0402334/"
        "mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite",
    ),
)
# fmt: on
