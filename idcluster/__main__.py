"""`python -m idcluster`: the command line, with the packages that lie beside this one.

`python -m` and a PYTHONPATH with a dot put the current folder before everything that is installed,
and people stand in folders that have a `pipeline/` or `stages/` of their own.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent.parent
_PACKAGES = ("schemas", "stages", "eval", "training", "pipeline")


def _take_ours() -> None:
    """Import our packages by the place of this file, before anything asks for them by name."""
    here = str(Path.cwd())
    if sys.path and sys.path[0] in ("", here) and not sys.flags.safe_path:
        del sys.path[0]
    for name in _PACKAGES:
        found = PathFinder.find_spec(name, [str(_FOLDER)])
        if found is not None and found.loader is not None and name not in sys.modules:
            sys.modules[name] = module_from_spec(found)
            found.loader.exec_module(sys.modules[name])


def main() -> None:
    """Run the command line."""
    _take_ours()
    from pipeline.cli import main as start

    start()


if __name__ == "__main__":
    main()
