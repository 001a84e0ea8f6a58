"""What our modules leave alone: a notebook that imports them, or reads an image with them, stays as
its user has set it up.
"""

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.picture_headers import MAX_PIXELS
from stages.pictures import decode
from tests.test_house import MAY_IMPORT, imported, sources

_ROOT = Path(__file__).resolve().parents[1]

_LOOK = """
import importlib, json, locale, logging, os, signal, socket, sys, warnings

# What packages of others change when they are imported is theirs, and done before.
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except ImportError:
        pass
import matplotlib
from PIL import Image, ImageFile


def state():
    return {
        **{f"variable {name}": value for name, value in os.environ.items()},
        "Pillow's limit": Image.MAX_IMAGE_PIXELS,
        "Pillow and truncated files": ImageFile.LOAD_TRUNCATED_IMAGES,
        "time-out of sockets": socket.getdefaulttimeout(),
        "locale": locale.setlocale(locale.LC_ALL),
        "filters of warnings": [repr(entry) for entry in warnings.filters],
        "signals": {number: str(signal.getsignal(number)) for number in signal.valid_signals()},
        "handlers of the log": [repr(one) for one in logging.getLogger().handlers],
        "level of the log": logging.getLogger().level,
        "hooks": [repr(sys.excepthook), repr(sys.displayhook), repr(sys.unraisablehook)],
        "folder": os.getcwd(),
        "limit of recursion": sys.getrecursionlimit(),
        "backend of plots": matplotlib.rcParams._get_backend_or_none(),
        "path": list(sys.path),
    }


before = state()
imported = []
for name in json.loads(sys.argv[2]):
    try:
        importlib.import_module(name)
        imported.append(name)
    except ImportError as error:
        assert error.name and error.name.split(".")[0] not in json.loads(sys.argv[3]), error
after = state()
changed = {
    key: [before.get(key), after.get(key)]
    for key in {*before, *after}
    if before.get(key) != after.get(key)
}
print(json.dumps({"imported": imported, "changed": changed}, default=str))
"""


def modules() -> list[str]:
    return [
        ".".join(file.relative_to(_ROOT).with_suffix("").parts).removesuffix(".__init__")
        for file in sources()
    ]


def others() -> list[str]:
    """What our modules import of packages of others, at their tops or when it is needed."""
    ours = {*MAY_IMPORT, *sys.stdlib_module_names}
    return sorted(
        {name for file in sources() for name in imported(file) if name.split(".")[0] not in ours}
    )


@pytest.mark.slow
def test_importing_our_modules_changes_nothing_for_the_process() -> None:
    """Environment, limits, warnings, log, signals belong to whoever runs the process."""
    told = [json.dumps(names) for names in (others(), modules(), list(MAY_IMPORT))]
    said = run(_LOOK, *told, ORT_DISABLE_TELEMETRY="1")
    found = json.loads(said.splitlines()[-1])
    assert found["changed"] == {}
    assert {"schemas.tables", "idcluster.root.storage", "pipeline.dag", "stages.pictures"} <= set(
        found["imported"]
    )


@pytest.mark.parametrize("given", [None, 10**12, MAX_PIXELS // 2, 10_000])
def test_reading_images_leaves_pillows_limit_as_its_user_set_it(
    given: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", given)
    rgb = np.zeros((60, 80, 3), np.uint8)
    files = {kind: saved(rgb, kind) for kind in ("PNG", "GIF", "WEBP", "TIFF", "BMP")}
    threads = [
        threading.Thread(target=lambda data=data: [decode(data) for _ in range(40)])
        for data in files.values()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert given == Image.MAX_IMAGE_PIXELS


def saved(rgb: np.ndarray, kind: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, kind)
    return out.getvalue()


def gif_that_grows() -> bytes:
    """The header's reader stops at a stray byte; Pillow passes over it and finds a large frame."""
    screen = b"GIF89a\x01\x00\x01\x00\x00\x00\x00"
    control = b"\x21\xf9\x04\x08\x00\x00\x00\x00"  # what was there is to be filled in again
    frame = b"\x2c" + b"\x00\x00" * 2 + b"\xff\xff" * 2 + b"\x00\x02\x02\x4c\x01\x00\x3b"
    return screen + b"\x01" + control + frame


def webp_that_grows() -> bytes:
    """Its first chunk is a large image, and a later one claims a small canvas."""
    bits = (16_383) | (16_383 << 14)
    large = b"VP8L" + (6).to_bytes(4, "little") + b"\x2f" + bits.to_bytes(4, "little") + b"\0"
    small = b"VP8X" + (10).to_bytes(4, "little") + bytes(4) + b"\1\0\0" * 2
    body = b"WEBP" + large + small
    return b"RIFF" + len(body).to_bytes(4, "little") + body


@pytest.mark.parametrize("made", [gif_that_grows, webp_that_grows])
@pytest.mark.parametrize("given", [None, 10**12, MAX_PIXELS // 2])
def test_bombs_whose_header_is_small_take_no_memory_whatever_pillow_was_told(
    made: Callable[[], bytes], given: int | None
) -> None:
    """Else an image of a few bytes takes gigabytes in the process of whoever switched Pillow's
    limit off for files of their own.
    """
    script = (
        "import resource, sys\n"
        "from PIL import Image\n"
        "from stages.pictures import PictureError, decode\n"
        f"Image.MAX_IMAGE_PIXELS = {given}\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**29,) * 2)\n"
        "try:\n"
        "    decode(bytes.fromhex(sys.argv[1]))\n"
        "except PictureError as error:\n"
        "    print(error.reason)\n"
        f"assert Image.MAX_IMAGE_PIXELS == {given}\n"
    )
    assert run(script, made().hex()) == "too_many_pixels\n"


def test_networks_are_opened_without_a_trace_in_the_environment(tmp_path: Path) -> None:
    """onnxruntime must not write below the home directory, and nothing may be left behind."""
    script = (
        "import os\n"
        "before = dict(os.environ)\n"
        "from stages.onnx_session import WrongModel, open_session\n"
        "try:\n"
        "    open_session('no.onnx', 1)\n"
        "except Exception as error:\n"
        "    assert 'onnx' in str(error).lower(), error\n"
        "assert dict(os.environ) == before\n"
    )
    run(script, HOME=str(tmp_path), XDG_CACHE_HOME="")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def run(script: str, *words: str, **variables: str) -> str:
    """What a Python process of its own prints; one that fails fails the test."""
    environment = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=_ROOT,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
