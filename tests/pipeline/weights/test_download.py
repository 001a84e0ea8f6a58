"""One file over http from a real server: what arrives, what is gone on with, what is refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.weights import download as module
from pipeline.weights.download import DownloadError, NotThere, download
from tests.pipeline.file_server import Files, broken_after, busy, endless, file_server, redirect

BODY = bytes(range(256)) * 4000


@pytest.fixture
def server() -> Iterator[Files]:
    with file_server(weights=BODY) as files:
        yield files


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "weights.part"


class Waits(list[float]):
    """Pauses that are written down instead of waited for."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def interrupted(seconds: float) -> None:
    """Ctrl-C while a broken connection is waited out."""
    raise KeyboardInterrupt


def test_the_whole_file_arrives_and_progress_is_told(server: Files, part: Path) -> None:
    told: list[tuple[int, int | None]] = []
    download(
        f"{server.base}/weights", part, len(BODY), lambda have, total: told.append((have, total))
    )
    assert part.read_bytes() == BODY
    assert told[-1] == (len(BODY), len(BODY)) and all(total == len(BODY) for _, total in told)
    assert not list(part.parent.glob("*.about"))


def test_a_broken_body_is_gone_on_with_from_its_last_byte(server: Files, part: Path) -> None:
    server.faults["/weights"] = [broken_after(1000), broken_after(3000)]
    waits = Waits()
    download(f"{server.base}/weights", part, len(BODY), wait=waits)
    assert part.read_bytes() == BODY
    assert [asked for _, asked in server.asked] == [None, "bytes=1000-", "bytes=3000-"]
    assert len(waits) == 2


def test_a_later_call_goes_on_where_an_earlier_process_ended(server: Files, part: Path) -> None:
    server.faults["/weights"] = [broken_after(5000)]
    with pytest.raises(KeyboardInterrupt):
        download(f"{server.base}/weights", part, len(BODY), wait=interrupted)
    download(f"{server.base}/weights", part, None)
    assert part.read_bytes() == BODY and server.asked[-1] == ("/weights", "bytes=5000-")


def test_a_file_that_changed_meanwhile_is_fetched_anew(server: Files, part: Path) -> None:
    server.faults["/weights"] = [broken_after(5000)]
    with pytest.raises(KeyboardInterrupt):
        download(f"{server.base}/weights", part, len(BODY), wait=interrupted)
    server.bodies["/weights"], server.tag = BODY[::-1], '"two"'
    download(f"{server.base}/weights", part, len(BODY))
    assert part.read_bytes() == BODY[::-1], "not the beginning of one file and the end of another"


def test_a_server_that_ignores_ranges_is_read_from_the_start(server: Files, part: Path) -> None:
    server.ranges = False
    server.faults["/weights"] = [broken_after(7000)]
    download(f"{server.base}/weights", part, len(BODY), wait=Waits())
    assert part.read_bytes() == BODY


def test_what_is_complete_is_not_asked_for_again(server: Files, part: Path) -> None:
    part.write_bytes(BODY)
    download(f"{server.base}/weights", part, len(BODY))
    assert not server.asked


@pytest.mark.parametrize("tag", ['"one"', None, 'W/"weak"'])
def test_more_bytes_than_the_file_has_are_thrown_away(
    server: Files, part: Path, tag: str | None
) -> None:
    server.tag = tag
    part.write_bytes(BODY + b"too much")
    download(f"{server.base}/weights", part, len(BODY))
    assert part.read_bytes() == BODY


def test_a_range_beyond_the_end_starts_again(server: Files, part: Path) -> None:
    server.faults["/weights"] = [broken_after(9000)]
    with pytest.raises(KeyboardInterrupt):
        download(f"{server.base}/weights", part, wait=interrupted)
    server.bodies["/weights"] = BODY[:4000]  # the same tag, but shorter: the server says 416
    download(f"{server.base}/weights", part, wait=Waits())
    assert part.read_bytes() == BODY[:4000]


def test_without_anything_to_tell_the_file_by_it_is_begun_again(server: Files, part: Path) -> None:
    server.tag = None
    part.write_bytes(b"of who knows which file")
    download(f"{server.base}/weights", part)
    assert part.read_bytes() == BODY and server.asked == [("/weights", None)]


def test_a_busy_server_is_waited_for(server: Files, part: Path) -> None:
    server.faults["/weights"] = [busy(503), busy(429, Retry_After="7"), busy(500)]
    waits = Waits()
    download(f"{server.base}/weights", part, len(BODY), wait=waits)
    assert part.read_bytes() == BODY
    assert waits == [1.0, 7.0, 4.0], "growing pauses, and the one that the server asks for"


def test_a_server_that_stays_busy_is_given_up(server: Files, part: Path) -> None:
    server.faults["/weights"] = [busy(503)] * 10
    with pytest.raises(
        DownloadError, match=r"/weights: HTTP 503 Service Unavailable \(tried 3 times"
    ):
        download(f"{server.base}/weights", part, attempts=3, wait=Waits())
    assert len(server.asked) == 3


def test_a_body_that_breaks_off_often_arrives_as_long_as_it_moves(
    server: Files, part: Path
) -> None:
    server.faults["/weights"] = [broken_after(count) for count in range(1000, 20_000, 1000)]
    download(f"{server.base}/weights", part, len(BODY), attempts=2, wait=Waits())
    assert part.read_bytes() == BODY


def test_nobody_there_is_said_with_the_address(part: Path) -> None:
    with file_server() as gone:
        pass
    with pytest.raises(DownloadError, match=rf"{gone.base}/weights: no connection: .*refused"):
        download(f"{gone.base}/weights", part, attempts=2, wait=Waits())


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [(404, NotThere, "HTTP 404"), (401, DownloadError, "registered people only")],
)
def test_what_is_not_there_or_not_for_all_is_not_asked_for_twice(
    server: Files, part: Path, code: int, kind: type[Exception], said: str
) -> None:
    server.faults["/weights"] = [busy(code)]
    with pytest.raises(kind, match=said):
        download(f"{server.base}/weights", part, wait=Waits())
    assert len(server.asked) == 1


def test_an_endless_body_ends_at_the_size_of_the_file(server: Files, part: Path) -> None:
    server.faults["/weights"] = [endless]
    with pytest.raises(DownloadError, match="sends more than the 1024000 bytes that it may have"):
        download(f"{server.base}/weights", part, len(BODY), wait=Waits())
    assert part.stat().st_size == 0, "nothing of it fills the disk"


def test_an_endless_body_of_unknown_size_ends_too(
    server: Files, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 3 * 2**20)
    server.faults["/weights"] = [endless]
    with pytest.raises(DownloadError, match=f"sends more than the {3 * 2**20} bytes"):
        download(f"{server.base}/weights", part, wait=Waits())


def test_another_size_than_the_registered_one_is_refused_before_a_byte_is_written(
    server: Files, part: Path
) -> None:
    with pytest.raises(DownloadError, match="has 1024000 bytes, the registered file has 1000"):
        download(f"{server.base}/weights", part, 1000)
    assert not part.exists()


def test_redirects_are_followed_on_this_machine_and_not_to_plain_http(
    server: Files, part: Path
) -> None:
    server.faults["/old"] = [redirect("/weights")]
    download(f"{server.base}/old", part, len(BODY))
    assert part.read_bytes() == BODY
    server.faults["/old"] = [redirect("http://example.org/weights")]
    with pytest.raises(
        DownloadError, match=r"http://example\.org/weights: only https is fetched from"
    ):
        download(f"{server.base}/old", part.with_name("other"))


@pytest.mark.parametrize(
    "address",
    ["http://example.org/x", "ftp://example.org/x", "file:///etc/passwd", "https:///x", "x"],
)
def test_only_https_and_this_machine_are_fetched_from(address: str, part: Path) -> None:
    with pytest.raises(DownloadError, match="only https is fetched from"):
        download(address, part)
