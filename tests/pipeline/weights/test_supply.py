"""Weights brought into a models directory: from addresses, mirrors and archives, checked before
they get their name.
"""

import hashlib
import io
import os
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.weights import supply as module
from pipeline.weights.download import DownloadError, download
from pipeline.weights.supply import Outcome, Supply, unpack
from stages.weights import WEIGHTS, MissingWeights, WeightFiles, Weights
from tests.pipeline.file_server import Files, broken_after, busy, file_server

BODY = b"weights of a tiny network " * 4000
OTHER = BODY[:-1] + b"!"
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server() -> Iterator[Files]:
    with file_server() as files:
        files.bodies["/tiny.onnx"] = BODY
        yield files


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch, server: Files) -> Callable[..., Weights]:
    """Registers weights that the server has; what a test gives goes before that."""

    def one(name: str = "tiny", **given: Any) -> Weights:
        known: dict[str, Any] = {
            "file": "detect/tiny.onnx",
            "sha256": SHA256,
            "bytes": len(BODY),
            "licence": "MIT",
            "use": "any",
            "source": "https://example.org/tiny",
            "kind": "detect/tiny",
            "address": f"{server.base}/tiny.onnx",
        }
        entry = Weights(name, **{**known, **given})
        monkeypatch.setitem(WEIGHTS, name, entry)
        return entry

    return one


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return tmp_path / "models"


def bring(top: Path, *names: str, **options: Any) -> list[Outcome]:
    patient = partial(download, wait=lambda seconds: None)
    return list(Supply(str(top), get=patient, **options).bring(names))


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return buffer.getvalue()


def left(top: Path) -> list[str]:
    """All files below the models directory."""
    return sorted(
        str(path.relative_to(top))
        for path in top.rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    )


def test_fetched_checked_and_found_again(
    register: Callable[..., Weights], top: Path, server: Files
) -> None:
    register()
    [outcome] = bring(top, "tiny")
    assert (outcome.state, outcome.said) == ("fetched", str(top / "detect/tiny.onnx"))
    assert WeightFiles(str(top)).path("tiny") == str(top / "detect/tiny.onnx")
    assert left(top) == ["detect/tiny.onnx"], "and nothing else"
    assert [one.state for one in bring(top, "tiny")] == ["here"]
    assert len(server.asked) == 1


def test_an_interrupted_fetch_goes_on_in_the_next_one(
    register: Callable[..., Weights], top: Path, server: Files
) -> None:
    register()
    server.faults["/tiny.onnx"] = [broken_after(1000)]

    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(Supply(str(top), get=partial(download, wait=stop)).bring(["tiny"]))
    assert not (top / "detect").exists(), "half a file has no name that a stage could open"
    assert [one.state for one in bring(top, "tiny")] == ["fetched"]
    assert server.asked[-1] == ("/tiny.onnx", "bytes=1000-")
    assert left(top) == ["detect/tiny.onnx"]


def test_another_file_behind_the_address_is_thrown_away(
    register: Callable[..., Weights], top: Path, server: Files
) -> None:
    register()
    server.bodies["/tiny.onnx"] = OTHER
    [outcome] = bring(top, "tiny")
    assert outcome.state == "failed"
    assert (
        f"its sha256 is {hashlib.sha256(OTHER).hexdigest()}, registered is {SHA256}" in outcome.said
    )
    assert left(top) == []
    with pytest.raises(MissingWeights):
        WeightFiles(str(top)).path("tiny")


def test_the_beginning_of_another_file_is_not_built_upon(
    register: Callable[..., Weights], top: Path, server: Files
) -> None:
    """An earlier try may have begun with what another mirror sent, or with a page of an error."""
    register()
    server.tag = None
    server.faults["/tiny.onnx"] = [broken_after(1000)]
    server.bodies["/tiny.onnx"] = OTHER[::-1]

    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(Supply(str(top), get=partial(download, wait=stop)).bring(["tiny"]))
    server.bodies["/tiny.onnx"] = BODY
    assert [one.state for one in bring(top, "tiny")] == ["fetched"]
    assert [asked for _, asked in server.asked] == [None, "bytes=1000-", None]


def test_one_failure_does_not_keep_the_others(
    register: Callable[..., Weights], top: Path, server: Files
) -> None:
    register()
    register("gone", file="gone.onnx", address=f"{server.base}/gone.onnx")
    server.faults["/tiny.onnx"] = [busy(503)]
    outcomes = bring(top, "gone", "tiny")
    assert [one.state for one in outcomes] == ["failed", "fetched"]
    assert outcomes[0].said == f"{server.base}/gone.onnx: HTTP 404 Not Found"


def test_two_at_once_fetch_a_file_once(
    register: Callable[..., Weights], top: Path, server: Files
) -> None:
    register()
    said: list[str] = []
    first = Supply(str(top)).bring(["tiny"])
    states: list[str] = []
    second = threading.Thread(
        target=lambda: states.extend(
            one.state for one in Supply(str(top), say=said.append).bring(["tiny"])
        )
    )
    assert next(first).state == "fetched"
    second.start()
    while not said:  # the other one has come as far as the lock
        second.join(0.01)
    assert list(first) == []
    second.join()
    assert states == ["here"] and said == [f"another process fetches into {top}; waiting for it"]
    assert len(server.asked) == 1


def test_no_room_on_the_disk_is_said_before_anything_is_fetched(
    register: Callable[..., Weights], top: Path, server: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(bytes=10**18)
    with pytest.raises(DownloadError, match=r"GB of free disk; 1000000000\.0 GB are needed"):
        bring(top, "tiny")
    assert not server.asked


# Archives


def member(register: Callable[..., Weights], server: Files, archive: bytes, **given: Any) -> None:
    server.bodies["/pack.zip"] = archive
    register(address=f"{server.base}/pack.zip", member="pack/tiny.onnx", **given)


def test_out_of_an_archive_that_is_fetched_once_for_two(
    register: Callable[..., Weights], top: Path, server: Files
) -> None:
    member(register, server, zipped(**{"pack/tiny.onnx": BODY, "pack/second.onnx": OTHER}))
    register(
        "second",
        file="detect/second.onnx",
        sha256=hashlib.sha256(OTHER).hexdigest(),
        address=f"{server.base}/pack.zip",
        member="pack/second.onnx",
    )
    assert [one.state for one in bring(top, "tiny", "second")] == ["fetched", "fetched"]
    assert [path for path, _ in server.asked] == ["/pack.zip"]
    assert left(top) == ["detect/second.onnx", "detect/tiny.onnx"], "the archive is not kept"


def test_a_member_that_lies_elsewhere_in_the_archive_is_found_by_its_name(
    register: Callable[..., Weights], top: Path, server: Files
) -> None:
    member(register, server, zipped(**{"tiny.onnx": BODY}))
    assert [one.state for one in bring(top, "tiny")] == ["fetched"]


@pytest.mark.parametrize(
    "name", ["../../escape.onnx", "/etc/escape.onnx", "a/../../escape.onnx", "..\\escape.onnx"]
)
def test_an_archive_with_a_way_out_is_not_unpacked(name: str, tmp_path: Path) -> None:
    archive = tmp_path / "deep" / "pack.zip"
    archive.parent.mkdir()
    archive.write_bytes(zipped(**{"tiny.onnx": BODY, name: b"x"}))
    with pytest.raises(DownloadError, match="leads out of a folder; not unpacked"):
        unpack(archive, "tiny.onnx", tmp_path / "out", len(BODY))
    assert not (tmp_path / "out").exists() and not list(tmp_path.rglob("escape.onnx"))


def test_a_link_in_an_archive_is_not_followed(tmp_path: Path) -> None:
    archive = tmp_path / "pack.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        link = zipfile.ZipInfo("tiny.onnx")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(link, "/etc/passwd")
    with pytest.raises(DownloadError, match="leads out of a folder"):
        unpack(archive, "tiny.onnx", tmp_path / "out", None)


def test_a_bomb_is_stopped_by_what_the_file_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "pack.zip"
    archive.write_bytes(zipped(**{"tiny.onnx": bytes(5_000_000)}))
    assert archive.stat().st_size < 10_000
    with pytest.raises(DownloadError, match="is said to have 5000000 bytes, it may have 1000"):
        unpack(archive, "tiny.onnx", tmp_path / "out", 1000)
    monkeypatch.setattr(module, "_MEMBER_MOST", 10_000)
    with pytest.raises(DownloadError, match="it may have 10000"):
        unpack(archive, "tiny.onnx", tmp_path / "out", None)


def test_a_member_that_lies_about_its_size_is_stopped(tmp_path: Path) -> None:
    archive = tmp_path / "pack.zip"
    content = zipped(**{"tiny.onnx": bytes(5_000_000)})
    archive.write_bytes(
        content.replace((5_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    )
    with pytest.raises(
        DownloadError,
        match=r"pack\.zip: (tiny\.onnx is longer|not a zip file that can be unpacked)",
    ):
        unpack(archive, "tiny.onnx", tmp_path / "out", 1000)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html>login</html>", "not a zip file"),
        (zipped(other=b"x"), "has no members"),
        (zipped(**{"a/tiny.onnx": b"1", "b/tiny.onnx": b"2"}), "has 2 members"),
    ],
    ids=["a page", "without it", "two of them"],
)
def test_an_archive_that_does_not_hold_the_file(content: bytes, said: str, tmp_path: Path) -> None:
    archive = tmp_path / "pack.zip"
    archive.write_bytes(content)
    with pytest.raises(DownloadError, match=said):
        unpack(archive, "tiny.onnx", tmp_path / "out", None)


def test_a_damaged_archive_is_a_failure_of_its_files(
    register: Callable[..., Weights], top: Path, server: Files
) -> None:
    whole = zipped(**{"pack/tiny.onnx": os.urandom(50_000)})
    member(register, server, whole[:20_000] + bytes(1000) + whole[21_000:], bytes=None)
    [outcome] = bring(top, "tiny")
    assert (
        outcome.state == "failed"
        and "pack.zip: not a zip file that can be unpacked: Bad CRC-32" in outcome.said
    )
    assert left(top) == []


# Mirrors


@pytest.mark.parametrize("place", ["detect/tiny.onnx", "tiny.onnx", SHA256, f"sha256/{SHA256}"])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_folder_as_a_mirror_goes_before_the_address(
    place: str,
    scheme: str,
    register: Callable[..., Weights],
    top: Path,
    tmp_path: Path,
    server: Files,
) -> None:
    register()
    file = tmp_path / "mirror" / place
    file.parent.mkdir(parents=True)
    file.write_bytes(BODY)
    assert [one.state for one in bring(top, "tiny", mirror=f"{scheme}{tmp_path}/mirror")] == [
        "fetched"
    ]
    assert WeightFiles(str(top)).path("tiny") and not server.asked


def test_another_file_in_a_mirror_is_passed_over(
    register: Callable[..., Weights], top: Path, tmp_path: Path, server: Files
) -> None:
    register()
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "tiny.onnx").write_bytes(OTHER)
    assert [one.state for one in bring(top, "tiny", mirror=str(tmp_path / "mirror"))] == ["fetched"]
    assert server.asked == [("/tiny.onnx", None)]


@pytest.mark.parametrize("place", ["detect/tiny.onnx", "tiny.onnx", SHA256])
def test_addresses_as_a_mirror(
    place: str, register: Callable[..., Weights], top: Path, server: Files
) -> None:
    register(address=None)
    server.bodies = {f"/mirror/{place}": BODY}
    assert [one.state for one in bring(top, "tiny", mirror=f"{server.base}/mirror/")] == ["fetched"]


def test_archives_lie_in_mirrors_under_their_own_names(
    register: Callable[..., Weights], top: Path, tmp_path: Path, server: Files
) -> None:
    member(register, server, b"not asked for")
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "pack.zip").write_bytes(zipped(**{"pack/tiny.onnx": BODY}))
    assert [one.state for one in bring(top, "tiny", mirror=str(tmp_path / "mirror"))] == ["fetched"]
    (top / "detect/tiny.onnx").unlink()
    server.bodies["/far/pack.zip"] = (tmp_path / "mirror" / "pack.zip").read_bytes()
    assert [one.state for one in bring(top, "tiny", mirror=f"{server.base}/far")] == ["fetched"]
    assert (tmp_path / "mirror" / "pack.zip").exists() and "/pack.zip" not in [
        path for path, _ in server.asked
    ]


def test_a_mirror_over_plain_http_or_nowhere_is_refused(top: Path, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="only https"):
        Supply(str(top), mirror="http://example.org/mirror")
    with pytest.raises(DownloadError, match="is no folder; --mirror names a folder"):
        Supply(str(top), mirror=str(tmp_path / "nowhere"))


# What no source states a hash of


def test_what_nobody_states_a_hash_of_waits_to_be_pinned(
    register: Callable[..., Weights], top: Path
) -> None:
    register(sha256=None, bytes=None)
    [outcome] = bring(top, "tiny")
    assert outcome.state == "unpinned"
    assert (
        f"idcluster models pin tiny {top}/detect/tiny.onnx --models {top}" in outcome.said
        and SHA256 in outcome.said
    )
    with pytest.raises(
        MissingWeights, match="'tiny' are not pinned: no source states their sha256"
    ):
        WeightFiles(str(top)).path("tiny")


def test_pin_takes_what_comes_as_the_right_file(
    register: Callable[..., Weights], top: Path, server: Files
) -> None:
    register(sha256=None, bytes=None)
    assert [one.state for one in bring(top, "tiny", pin_unstated=True)] == ["fetched"]
    assert WeightFiles(str(top)).sha256("tiny") == SHA256
    assert [one.state for one in bring(top, "tiny")] == ["here"]
    (top / "detect/tiny.onnx").unlink()
    server.bodies["/tiny.onnx"] = OTHER
    [outcome] = bring(top, "tiny", pin_unstated=True)
    assert outcome.state == "failed", "another file does not slip in afterwards"


@pytest.mark.parametrize("how", ["git_blob", "md5"])
def test_a_hash_of_another_kind_that_the_source_states_is_enough(
    how: str, register: Callable[..., Weights], top: Path, server: Files
) -> None:
    blob = hashlib.sha1(f"blob {len(BODY)}\0".encode() + BODY, usedforsecurity=False).hexdigest()
    stated = {"git_blob": blob, "md5": hashlib.md5(BODY, usedforsecurity=False).hexdigest()}[how]
    register(sha256=None, bytes=None, **{how: stated})
    server.bodies["/tiny.onnx"] = OTHER
    [outcome] = bring(top, "tiny")
    assert outcome.state == "failed" and stated in outcome.said
    server.bodies["/tiny.onnx"] = BODY
    [outcome] = bring(top, "tiny")
    assert outcome.state == "fetched" and "agrees with what its source states" in outcome.said
    assert WeightFiles(str(top)).sha256("tiny") == SHA256


def test_a_prefix_alone_does_not_pin_but_tells_wrong_files(
    register: Callable[..., Weights], top: Path, server: Files
) -> None:
    register(sha256=None, bytes=None, sha256_prefix=SHA256[:8])
    assert [one.state for one in bring(top, "tiny")] == ["unpinned"]
    server.bodies["/tiny.onnx"] = OTHER
    [outcome] = bring(top, "tiny")
    assert outcome.state == "failed" and f"begins with {SHA256[:8]}" in outcome.said


def test_what_comes_by_hand_says_from_where_and_whereto(
    register: Callable[..., Weights], top: Path
) -> None:
    register(address=None, by_hand="register at https://example.org and take tiny.onnx")
    [outcome] = bring(top, "tiny")
    assert (outcome.state, outcome.said) == (
        "by_hand",
        f"register at https://example.org and take tiny.onnx; put it at {top}/detect/tiny.onnx",
    )
    register(
        address=None, sha256=None, by_hand="register at https://example.org and take tiny.onnx"
    )
    [outcome] = bring(top, "tiny")
    assert outcome.said.endswith(f"; then: idcluster models pin tiny FILE --models {top}")
