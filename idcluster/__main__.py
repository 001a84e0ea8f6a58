"""`python -m idcluster`: the command line."""

import sys
from pathlib import Path

from idcluster import own_packages


def main() -> None:
    """Run the command line."""
    if sys.path and sys.path[0] in ("", str(Path.cwd())) and not sys.flags.safe_path:
        del sys.path[0]
    own_packages.take()
    from pipeline.cli import main as start

    start()


if __name__ == "__main__":
    main()
