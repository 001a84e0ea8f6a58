"""Weights of classifiers that `screen` asks about an image or a face."""

from stages.weights.detect import INSIGHTFACE, INSIGHTFACE_RELEASE
from stages.weights.entry import Weights, hub

# fmt: off
WEIGHTS = (
    Weights(
        "genderage", "age/genderage.onnx",
        "4fde69b1c810857b88c64a335084f1c3fe8f01246c9a191b48c7bb756d6652fb", 1_322_532,
        INSIGHTFACE, "non-commercial", "insightface release v0.7, buffalo_l.zip; the same file is in antelopev2.zip",
        kind="age/face", needed_by=("screen:limits",), address=f"{INSIGHTFACE_RELEASE}/buffalo_l.zip", member="genderage.onnx",
    ),
    Weights(
        "falconsai_nsfw", "nsfw/falconsai_nsfw_int8.onnx",
        "bdc941491cd09ae75c5f40b038a5cd64482fa4e2b5297747323c5cda31303920", 87_333_629,
        "Apache-2.0; training data not stated", "any",
        "https://huggingface.co/onnx-community/nsfw_image_detection-ONNX, onnx/model_int8.onnx; of Falconsai/nsfw_image_detection",
        normalisation=(127.5, 127.5), kind="nsfw/picture", needed_by=("screen:limits",),
        address=hub("onnx-community/nsfw_image_detection-ONNX", "1ceb3c7fe1e9f3f2507e6df577437f23a9149fd5", "onnx/model_int8.onnx"),
    ),
)
# fmt: on
