"""The weights registry: every file of weights that a backend can name, what it may be used for, and where it lies.

`entry.py` says what is known of a file, one module a subject lists the files, `registry.py` looks them up by name,
`local.py` adds what a team registered itself, and `weight_files.py` finds and checks them on this machine.
"""

from stages.weights.entry import USES, Weights
from stages.weights.local import NOTHING, BadRegistry, LocalRegistry
from stages.weights.registry import (
    WEIGHTS,
    UnknownWeights,
    WeightsName,
    all_names,
    bundle,
    knowing,
    known_to,
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
    "NOTHING",
    "USES",
    "WEIGHTS",
    "BadRegistry",
    "LocalRegistry",
    "MissingWeights",
    "UnknownWeights",
    "WeightFiles",
    "Weights",
    "WeightsName",
    "all_names",
    "bundle",
    "is_registered",
    "knowing",
    "known_to",
    "models_dir_from_environment",
    "names",
    "registered",
]
