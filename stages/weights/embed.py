"""Weights of face recognisers."""

from stages.weights.detect import DLIB_PACKAGE, DLIB_SOURCE, INSIGHTFACE, INSIGHTFACE_RELEASE
from stages.weights.entry import Weights, hub

_FACENET = "MIT (timesler/facenet-pytorch); trained on {data}, whose images are for research"
_FACENET_RELEASE = "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9"
_ARCFACE_TORCH = (
    "https://github.com/deepinsight/insightface, recognition/arcface_torch, model zoo on OneDrive"
)

# fmt: off
WEIGHTS = (
    Weights(
        "dlib_resnet_v1", "models/dlib_face_recognition_resnet_model_v1.dat",
        "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30", 22_466_066,
        "CC0-1.0", "any", DLIB_SOURCE, DLIB_PACKAGE, kind="embed/dlib", needed_by=("embed:dlib",),
    ),
    Weights(
        "edgeface_xs", "embed/derived_edgeface_xs_fp32.onnx",
        "d148486cde9d3077674b782c713a812d175bc20095507117650a3ce1d2117ebc", 9_151_395,
        "code BSD-3-Clause, weights CC BY-NC-SA 4.0 (Idiap)", "non-commercial",
        "https://github.com/yayoimizuha/face_recognition_train, checkpoints/edgeface_xs_q.pt, dequantised and exported to ONNX",
        normalisation=(127.5, 127.5), kind="embed/arcface", needed_by=("embed:arcface",),
        by_hand="an export of the published checkpoint without a public copy; export it to ONNX yourself (n x 3 x 112 x 112 to n x 512) and"
        " register yours: idcluster models add NAME FILE --like edgeface_xs",
    ),
    Weights(
        "mobilefacenet_128d", "embed/mobilefacenet_128d.onnx",
        "e0974ec4c84ae30781e9b0a320c37c6705944d4532bfa9fb0c083755b19dde14", 3_981_135,
        "MIT; training data not stated", "non-commercial",
        "https://github.com/rit5k0005296-star/SmartStorage-RV1126B, models/mobilefacenet.onnx",
        normalisation=(127.5, 127.5), kind="embed/arcface", needed_by=("embed:arcface",),
        address="https://raw.githubusercontent.com/rit5k0005296-star/SmartStorage-RV1126B/"
        "c82083740e324d64677418ceff207ff51efe2c51/models/mobilefacenet.onnx",
    ),
    Weights(
        "glintr100", "embed/glintr100.onnx",
        "4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf", 260_665_334,
        INSIGHTFACE, "non-commercial", "insightface release v0.7, antelopev2.zip; R100 on Glint360K",
        normalisation=(127.5, 127.5), kind="embed/arcface", needed_by=("embed:arcface", "eval:id_similarity"),
        address=f"{INSIGHTFACE_RELEASE}/antelopev2.zip", member="antelopev2/glintr100.onnx",
    ),
    Weights(
        "w600k_r50", "embed/w600k_r50.onnx",
        "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43", 174_383_860,
        INSIGHTFACE, "non-commercial", "insightface release v0.7, buffalo_l.zip; R50 on WebFace600K",
        normalisation=(127.5, 127.5), kind="embed/arcface", needed_by=("embed:arcface", "eval:id_similarity"),
        address=f"{INSIGHTFACE_RELEASE}/buffalo_l.zip", member="w600k_r50.onnx",
    ),
    Weights(
        "arcface_r100_ms1mv3", "embed/ms1mv3_arcface_r100_fp16.pth",
        "a566a62357f0c55b679d9ff2f022a294486568be0c00665d39029d0e46a8109b", None,
        INSIGHTFACE, "non-commercial", f"{_ARCFACE_TORCH}: ms1mv3_arcface_r100_fp16/backbone.pth; fetched from a copy of it",
        normalisation=(127.5, 127.5), kind="embed/iresnet", needed_by=("embed:iresnet", "training:flashface"),
        address=hub("camenduru/show", "main", "models/arcface/ms1mv3_arcface_r100_fp16.pth"),
    ),
    Weights(
        "arcface_r50_ms1mv3", "embed/ms1mv3_arcface_r50_fp16.pth", None, None,
        INSIGHTFACE, "non-commercial", _ARCFACE_TORCH,
        normalisation=(127.5, 127.5), kind="embed/iresnet", needed_by=("embed:iresnet",),
        by_hand="the README of insightface's recognition/arcface_torch links its model zoo: take ms1mv3_arcface_r50_fp16/backbone.pth",
    ),
    Weights(
        "arc2face_arcface", "embed/arc2face_arcface.onnx", None, None,
        INSIGHTFACE, "non-commercial", "https://huggingface.co/FoivosPar/Arc2Face, arcface.onnx; R100 on WebFace42M",
        normalisation=(127.5, 127.5), kind="embed/arcface", needed_by=("embed:arcface", "training:facecrafter"),
        address=hub("FoivosPar/Arc2Face", "321709b2e9697ea2a5bd06c8a51b340592333e1e", "arcface.onnx"),
    ),
    Weights(
        "facenet_vggface2", "embed/20180402-114759-vggface2.pt",
        "281cebca8662831adb987a874bdcb36e73f5b1c6dc5ee5878f305e985625d99b", 111_898_327,
        _FACENET.format(data="VGGFace2"), "non-commercial", f"{_FACENET_RELEASE}/20180402-114759-vggface2.pt",
        normalisation=(127.5, 128.0), kind="embed/facenet", needed_by=("embed:facenet", "eval:facenet", "training:caphuman"),
        address=f"{_FACENET_RELEASE}/20180402-114759-vggface2.pt",
    ),
    Weights(
        "facenet_casia", "embed/20180408-102900-casia-webface.pt", None, None,
        _FACENET.format(data="CASIA-WebFace"), "non-commercial", f"{_FACENET_RELEASE}/20180408-102900-casia-webface.pt",
        normalisation=(127.5, 128.0), kind="embed/facenet", needed_by=("embed:facenet",),
        address=f"{_FACENET_RELEASE}/20180408-102900-casia-webface.pt",
    ),
)
# fmt: on
