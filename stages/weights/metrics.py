"""Weights of the networks behind metrics: Inception in its flavours, LPIPS."""

from stages.weights.entry import Weights

_TORCHVISION = (
    "BSD-3-Clause (torchvision); trained on ImageNet, whose images are for non-commercial research"
)
_TORCHVISION_SITE = "https://download.pytorch.org/models"
_LPIPS = "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/082bb24f84c091ea94de2867d34c4544f68e0963/lpips/weights/v0.1"
_INCEPTION = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


def _lpips(net: str, sha256: str, size: int) -> Weights:
    return Weights(
        f"lpips_{net}",
        f"lpips/v0.1_{net}.pth",
        sha256,
        size,
        "BSD-2-Clause",
        "any",
        f"https://github.com/richzhang/PerceptualSimilarity, lpips/weights/v0.1/{net}.pth: linear heads",
        kind="metric/lpips",
        needed_by=("eval:lpips",),
        address=f"{_LPIPS}/{net}.pth",
    )


def _torchvision(
    name: str,
    file: str,
    sha256: str | None,
    size: int | None,
    kind: str,
    needed_by: tuple[str, ...],
) -> Weights:
    # torch names its files by the first eight digits of their sha256 and checks them when it downloads.
    prefix = file.removesuffix(".pth").rsplit("-", 1)[-1]
    return Weights(
        name,
        f"metric/{file}",
        sha256,
        size,
        _TORCHVISION,
        "non-commercial",
        f"torchvision, {file}",
        kind=kind,
        needed_by=needed_by,
        address=f"{_TORCHVISION_SITE}/{file}",
        sha256_prefix=prefix,
    )


# fmt: off
WEIGHTS = (
    # One file of TensorFlow's weights under two names: pytorch-fid's and torch-fidelity's networks differ in what they do with it.
    Weights(
        "inception_fid", "metric/pt_inception-2015-12-05-6726825d.pth", _INCEPTION, 95_628_359,
        "Apache-2.0; trained on ImageNet, whose images are for non-commercial research", "non-commercial",
        "https://github.com/mseitzer/pytorch-fid, release fid_weights; converted from TensorFlow's inception-2015-12-05",
        kind="metric/inception_fid", needed_by=("eval:fid",),
        address="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    ),
    Weights(
        "inception_fidelity", "metric/weights-inception-2015-12-05-6726825d.pth", _INCEPTION, 95_628_359,
        "Apache-2.0; trained on ImageNet, whose images are for non-commercial research", "non-commercial",
        "https://github.com/toshas/torch-fidelity, release v0.2.0; converted from TensorFlow's inception-2015-12-05",
        kind="metric/inception_fid", needed_by=("eval:fid",),
        address="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    ),
    Weights(
        "inception_nvidia", "metric/inception-2015-12-05.pt", None, None,
        "NVIDIA source code licence; trained on ImageNet, whose images are for non-commercial research", "non-commercial",
        "NVIDIA, stylegan2-ada-pytorch: TorchScript, of which only tensors are read; what clean-fid takes",
        kind="metric/inception_nvidia", needed_by=("eval:fid_clean",),
        address="https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
    ),
    _torchvision("inception_torchvision", "inception_v3_google-0cc3c7bd.pth", None, None, "metric/inception_torchvision", ("eval:fid",)),
    _torchvision(
        "lpips_backbone_alex", "alexnet-owt-7be5be79.pth",
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02", 244_408_911, "metric/lpips_backbone", ("eval:lpips",),
    ),
    _torchvision(
        "lpips_backbone_vgg", "vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0", 553_433_881, "metric/lpips_backbone", ("eval:lpips",),
    ),
    _torchvision(
        "lpips_backbone_squeeze", "squeezenet1_1-b8a52dc0.pth",
        "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b", None, "metric/lpips_backbone", ("eval:lpips",),
    ),
    _lpips("alex", "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0", 6_009),
    _lpips("vgg", "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868", 7_289),
    _lpips("squeeze", "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76", 10_811),
)
# fmt: on
