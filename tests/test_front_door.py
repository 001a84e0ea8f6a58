"""`python -m idcluster`, whatever lies in the folder that one stands in."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]
OURS = ("pipeline", "stages", "schemas", "eval")


@pytest.mark.parametrize(
    "path", ["", ".", str(_ROOT)], ids=["no PYTHONPATH", "a dot", "the checkout"]
)
def test_other_peoples_packages_of_our_names_are_not_imported(tmp_path: Path, path: str) -> None:
    """Checkouts for machine learning have a folder `pipeline` or `stages`; standing in one, nothing
    would work.
    """
    for name in OURS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('somebody else\\'s')")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # Without an installation, the folder of the package has to be named.
    environment["PYTHONPATH"] = os.pathsep.join([path, str(_ROOT)] if path else [str(_ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "idcluster", "schema", "faces"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout.startswith("faces (version")
