"""Weights of landmark models."""

from stages.weights.detect import DLIB_PACKAGE, DLIB_SOURCE
from stages.weights.entry import Weights

_IBUG = "https://raw.githubusercontent.com/hhj1897/face_alignment/9cf5494e443f26d567972f3f50f6212d65b76c01/ibug/face_alignment/fan/weights"
_MEDIAPIPE = "https://raw.githubusercontent.com/google-ai-edge/mediapipe"
_FAN = "code and weights BSD-3-Clause; trained on 300-W-LP, whose images are for research"

# fmt: off
WEIGHTS = (
    Weights(
        "dlib_68_points", "models/shape_predictor_68_face_landmarks.dat",
        "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f", 99_693_937,
        "trained on iBUG 300-W, whose licence excludes commercial use", "non-commercial", DLIB_SOURCE, DLIB_PACKAGE,
        kind="landmark/dlib68", needed_by=("landmark:dlib68",),
    ),
    # Two and four hourglasses in the layout of ibug's face_alignment. The published FAN with four is another file.
    Weights(
        "fan68_2hg", "landmark/2dfan2.pth", None, None, _FAN, "non-commercial",
        "https://github.com/hhj1897/face_alignment (ibug), 2dfan2.pth", kind="landmark/fan68", needed_by=("landmark:fan68",),
        git_blob="02738a66b9420dd15364d7d79f908f0627fb88b4",
        address=f"{_IBUG}/2dfan2.pth",
    ),
    Weights(
        "fan68_4hg", "landmark/2DFAN4-11f355bf06.pth.tar",
        "11f355bf0693120222f5955ce3f9dc8fb5763ebb30a47d7906e509490d32e4aa", None, _FAN, "non-commercial",
        "https://www.adrianbulat.com/face-alignment, 2DFAN4-11f355bf06.pth.tar", kind="landmark/fan68",
        needed_by=("landmark:fan68", "fit:deca", "eval:deca"),
        address="https://www.adrianbulat.com/downloads/python-fan/2DFAN4-11f355bf06.pth.tar",
    ),
    Weights(
        "mediapipe_landmarker", "mediapipe/face_landmarker_v2_with_blendshapes.task",
        "b261925d4aad812b47a0e8d58c1baa1223270a5d1f663d78338bc881c003879d", 2_357_924, "Apache-2.0", "any",
        "https://github.com/google-ai-edge/mediapipe, mediapipe/tasks/testdata/vision: 478 points, 52 blendshapes",
        kind="landmark/mediapipe", needed_by=("landmark:mediapipe", "training:facecrafter"),
        address=f"{_MEDIAPIPE}/0179f0c4566ae78e02e1198cb73c60e4668395b5/"
        "mediapipe/tasks/testdata/vision/face_landmarker_v2_with_blendshapes.task",
    ),
    Weights(
        "mediapipe_landmarker_v1", "mediapipe/face_landmarker.task",
        "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff", 3_758_596, "Apache-2.0", "any",
        "https://ai.google.dev/edge/mediapipe/solutions/vision/face_landmarker, float16, version 1",
        kind="landmark/mediapipe", needed_by=("landmark:mediapipe",),
        address="https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
    ),
    Weights(
        "pfld", "landmark/pfld.onnx", "7d7bbd5c6a1d9272e58d9773898284a1905d872eba9a662df9b5f20f1ba6f83e", 2_987_921,
        "no licence stated; trained on 300-W, whose licence excludes commercial use", "non-commercial",
        "https://github.com/cunjian/pytorch_face_landmark, onnx/pfld.onnx: 68 points", kind="landmark/pfld",
        needed_by=("landmark:pfld",),
        address="https://raw.githubusercontent.com/cunjian/pytorch_face_landmark/6f34bf9f034aa2f521952f825e6ccc567deb42d6/onnx/pfld.onnx",
    ),
)
# fmt: on
