"""The weights registry: every file of weights that a backend can name, what it may be used for, and where it lies.

`entry.py` says what is known of a file, one module a subject lists the files, `registry.py` looks them up by name,
`local.py` adds what a team registered itself, and `files.py` finds and checks them on this machine.
"""

from stages.weights.entry import USES, Weights
from stages.weights.local import BadRegistry, LocalRegistry, activate, active
from stages.weights.registry import (
    WEIGHTS,
    UnknownWeights,
    WeightsName,
    all_names,
    bundle,
    names,
    registered,
)
from stages.weights.weight_files import (
    MODELS_VARIABLE,
    MissingWeights,
    WeightFiles,
    is_registered,
    models_dir_from_environment,
)

__all__ = [
    "MODELS_VARIABLE",
    "USES",
    "WEIGHTS",
    "BadRegistry",
    "LocalRegistry",
    "MissingWeights",
    "UnknownWeights",
    "WeightFiles",
    "Weights",
    "WeightsName",
    "activate",
    "active",
    "all_names",
    "bundle",
    "is_registered",
    "models_dir_from_environment",
    "names",
    "registered",
]
