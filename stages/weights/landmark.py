"""Weights of landmark models."""

from stages.weights.detect import DLIB_PACKAGE, DLIB_SOURCE
from stages.weights.entry import Weights

_FAN = "code and weights BSD-3-Clause; trained on 300-W-LP, whose pictures are for research"

WEIGHTS = (
    Weights(
        "dlib_68_points", "models/shape_predictor_68_face_landmarks.dat",
        "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f", 99_693_937,
        "trained on iBUG 300-W, whose licence excludes commercial use", "non-commercial", DLIB_SOURCE, DLIB_PACKAGE,
        kind="landmark/dlib68", needed_by=("landmark:dlib68",),
    ),
    Weights(
        "fan68_2hg", "landmark/2dfan2.pth", None, None, _FAN, "non-commercial",
        "https://github.com/hhj1897/face_alignment, 2dfan2.pth", kind="landmark/fan68", needed_by=("landmark:fan68",),
    ),
    Weights(
        "fan68_4hg", "landmark/2DFAN4-11f355bf06.pth.tar", None, None, _FAN, "non-commercial",
        "https://www.adrianbulat.com/face-alignment, 2DFAN4-11f355bf06.pth.tar", kind="landmark/fan68",
        needed_by=("landmark:fan68", "eval:deca"), sha256_prefix="11f355bf06",
        address="https://www.adrianbulat.com/downloads/python-fan/2DFAN4-11f355bf06.pth.tar",
    ),
)  # fmt: skip
