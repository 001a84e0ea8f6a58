"""Weights of models that read emotion from a face."""

from stages.weights.entry import Weights

_EMONET = "https://raw.githubusercontent.com/face-analysis/emonet/49eef301513686d6cfd8304682d3ba7216baf398/pretrained"
_EMONET_LICENCE = "CC BY-NC-ND 4.0: non-commercial, unchanged"

# fmt: off
WEIGHTS = (
    Weights(
        "emonet_8", "emotion/emonet_8.pth", None, None, _EMONET_LICENCE, "non-commercial",
        "https://github.com/face-analysis/emonet, pretrained/emonet_8.pth: eight classes, valence, arousal",
        kind="affect/emonet", needed_by=("affect:emonet", "eval:emonet", "training:facecrafter"),
        git_blob="6833bfdcf8fc761deb7630256a750cf1f7c850c1", address=f"{_EMONET}/emonet_8.pth",
    ),
    Weights(
        "emonet_5", "emotion/emonet_5.pth", None, None, _EMONET_LICENCE, "non-commercial",
        "https://github.com/face-analysis/emonet, pretrained/emonet_5.pth: five classes, valence, arousal",
        kind="affect/emonet", needed_by=("affect:emonet",),
        git_blob="61358cb3ea0fe410c01ee4ffff5ed1b49713af98", address=f"{_EMONET}/emonet_5.pth",
    ),
    Weights(
        "mini_xception", "emotion/fer2013_mini_XCEPTION.102-0.66.hdf5",
        "59534287fdfb125e30a94400296c25ea9f5d706fca93dd8adbbbed916799ea0e", 872_856,
        "MIT (oarriaga/face_classification); trained on FER2013, whose images are for research", "non-commercial",
        "https://github.com/oarriaga/face_classification, trained_models/emotion_models: seven emotions, 64 x 64 grey",
        kind="affect/mini_xception", needed_by=("affect:mini_xception",),
        address="https://raw.githubusercontent.com/oarriaga/face_classification/b861d21b0e76ca5514cdeb5b56a689b7318584f4/"
        "trained_models/emotion_models/fer2013_mini_XCEPTION.102-0.66.hdf5",
    ),
)
# fmt: on
