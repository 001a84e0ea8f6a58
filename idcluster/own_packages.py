"""Our packages are those that lie beside this one, whatever lies in the folder that one stands in.

`python -m`, a notebook and a PYTHONPATH with a dot put the current folder before everything that is
installed, and people stand in folders that have a `pipeline/` or `stages/` of their own.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent.parent
_PACKAGES = ("schemas", "stages", "training", "eval", "pipeline")


def take() -> None:
    """Import our packages by the place of this file, before anything asks for them by name.

    Raises ImportError where one of these names was imported from elsewhere already.
    """
    for name in _PACKAGES:
        found = PathFinder.find_spec(name, [str(_FOLDER)])
        if found is None or found.loader is None or not _is_ours(found.origin):
            continue
        there = sys.modules.get(name)
        if there is None:
            sys.modules[name] = module_from_spec(found)
            found.loader.exec_module(sys.modules[name])
        elif not _is_ours(getattr(there, "__file__", None)):
            raise ImportError(
                f"idcluster needs its own package {name!r}, and "
                f"{getattr(there, '__file__', 'another one')} was imported "
                "under that name; import idcluster first, or run it in a process of its own",
                name=name,
            )


def _is_ours(file: str | None) -> bool:
    return file is not None and Path(file).resolve().parent.parent == _FOLDER
