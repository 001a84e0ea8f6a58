"""Frames of clips: the right ones, the same bytes whenever they are asked for, and a reason where
there are none.
"""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from stages.crawl.listing import SourceError
from stages.crawl.video import Clip, VideoSource, times_of
from stages.picture_headers import read_header


def write_clip(path: Path, frames: int, rate: float = 10.0, codec: str = "mp4v") -> Path:
    """A clip whose frame n is of the grey level 40 * (n % 6)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(os.fspath(path), cv2.VideoWriter.fourcc(*codec), rate, (64, 48))
    assert writer.isOpened()
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 40 * (number % 6), np.uint8))
    writer.release()
    return path


class Kept:
    """A shelf in memory."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def get(self, key: str) -> tuple[float, str] | None:
        return (0.0, self.texts[key]) if key in self.texts else None

    def put(self, key: str, text: str) -> None:
        self.texts[key] = text

    def flush(self) -> None:
        return None


def addresses(source: VideoSource) -> list[str]:
    return [offer.address for person in source.people()[0] for offer in person.offers]


def grey(data: bytes | None) -> int:
    assert data is not None
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return round(float(picture.mean()))


@pytest.mark.parametrize(("ending", "codec"), [("mp4", "mp4v"), ("avi", "MJPG")])
def test_frames_are_those_of_their_times(tmp_path: Path, ending: str, codec: str) -> None:
    """Expressions would be measured in frames of other moments."""
    write_clip(tmp_path / "M003" / "video" / "front" / f"001.{ending}", 35, codec=codec)
    source = VideoSource(tmp_path, rate=2)
    found = addresses(source)
    assert found == [f"video:M003/video/front/001.{ending}#t={k / 2:.3f}" for k in range(7)]
    for k, answer in enumerate(source.fetch(found)):
        assert abs(grey(answer.data) - 40 * (5 * k % 6)) < 8


def test_a_frame_is_the_same_however_it_is_asked_for(tmp_path: Path) -> None:
    """A resumed run would have other images than an undisturbed one."""
    write_clip(tmp_path / "Ada" / "long.mp4", 1100)
    source = VideoSource(tmp_path, rate=1)
    found = addresses(source)
    assert len(found) == 110
    together = [answer.data for answer in source.fetch(found)]
    chosen = [0, 3, 49, 50, 51, 99, 100, 109]
    assert [source.fetch([found[i]])[0].data for i in chosen] == [together[i] for i in chosen]
    backwards = source.fetch([found[i] for i in reversed(chosen)])
    assert [answer.data for answer in backwards] == [together[i] for i in reversed(chosen)]
    assert all(abs(grey(data) - 40 * (10 * i % 6)) < 8 for i, data in enumerate(together))


def test_frames_are_kept_without_loss_or_as_jpeg_when_told(tmp_path: Path) -> None:
    """A data set would be ten times as large as the disk, or lose detail twice."""
    write_clip(tmp_path / "Ada" / "1.mp4", 3)
    for kind in ("png", "jpeg"):
        source = VideoSource(tmp_path, kind=kind)
        (person,), _ = source.people()
        assert str(person.offers[0].fingerprint).endswith(kind)
        data = source.fetch([person.offers[0].address])[0].data
        assert data is not None and read_header(data).format == kind


def test_people_are_folders_and_clips_are_chosen_by_patterns(tmp_path: Path) -> None:
    """All seven cameras of MEAD would be taken where one was wanted; M003 of two data sets would be
    one person.
    """
    for view in ("front", "left_30"):
        for emotion in ("angry", "happy"):
            write_clip(tmp_path / "M003" / "video" / view / emotion / "level_1" / "001.mp4", 2)
    write_clip(tmp_path / "W009" / "video" / "front" / "sad" / "level_3" / "021.mp4", 2)
    (tmp_path / "M003" / "audio.m4a").write_bytes(b"")
    listed, remarks = VideoSource(tmp_path, clips=["video/front/*"], prefix="MEAD ").people()
    assert [(person.name, len(person.offers)) for person in listed] == [
        ("MEAD M003", 2),
        ("MEAD W009", 1),
    ]
    assert remarks == [
        f"3 files below {tmp_path} are no clips by their endings, or not in source.clips, and "
        "are not used"
    ]


def test_bad_clips_end_in_rows_with_reasons(tmp_path: Path) -> None:
    """One broken file would stop the run, or people would be missing without a word."""
    good = write_clip(tmp_path / "Ada" / "good.mp4", 12)
    data = good.read_bytes()
    (tmp_path / "Ada" / "cut.mp4").write_bytes(data[: len(data) // 2])
    (tmp_path / "Ada" / "empty.mp4").write_bytes(b"")
    (tmp_path / "Ada" / "text.mp4").write_text("this is no clip")
    (tmp_path / "Ada" / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    os.symlink("nowhere", tmp_path / "Ada" / "dangling.mp4")
    os.mkfifo(tmp_path / "Ada" / "pipe.mp4")
    source = VideoSource(tmp_path)
    _, remarks = source.people()
    assert remarks == [f"6 of 7 clips below {tmp_path} cannot be read; a row each will say why"]
    found = dict(zip(addresses(source), source.fetch(addresses(source)), strict=True))
    reasons = {
        address.removeprefix("video:Ada/"): answer.reason or answer.status
        for address, answer in found.items()
    }
    assert reasons == {
        "cut.mp4#t=0.000": "decode_error",
        "dangling.mp4#t=0.000": "not_found",
        "empty.mp4#t=0.000": "not_a_video",
        "good.mp4#t=0.000": "ok",
        "good.mp4#t=1.000": "ok",
        "pipe.mp4#t=0.000": "not_a_file",
        "playlist.mp4#t=0.000": "not_a_video",
        "text.mp4#t=0.000": "not_a_video",
    }
    assert all(answer.detail for answer in found.values() if answer.status != "ok")


def test_a_time_behind_the_end_is_a_row_that_says_so(tmp_path: Path) -> None:
    """A clip that was cut since it was listed would stop the run."""
    write_clip(tmp_path / "Ada" / "1.mp4", 12)
    late = VideoSource(tmp_path).fetch(
        ["video:Ada/1.mp4#t=0.500", "video:Ada/1.mp4#t=7.000", "video:Ada/1.mp4#t=700.000"]
    )
    assert [(answer.status, answer.reason) for answer in late] == [
        ("ok", None),
        ("failed", "no_frame"),
        ("failed", "no_frame"),
    ]


@pytest.mark.parametrize(
    "address",
    [
        "video:Ada/1.mp4",
        "video:Ada/1.mp4#t=",
        "video:Ada/1.mp4#t=-1",
        "video:Ada/1.mp4#t=nan",
        "video:Ada/1.mp4#t=inf",
        "video:../1.mp4#t=0",
        "video:Ada/..%2F..%2F1.mp4#t=0",
        "other:Ada/1.mp4#t=0",
        "/etc/passwd#t=0",
        "",
    ],
)
def test_an_address_never_leads_out_of_the_folder(tmp_path: Path, address: str) -> None:
    """A crafted list of candidates would bring files of the machine into the dataset."""
    write_clip(tmp_path / "people" / "Ada" / "1.mp4", 3)
    write_clip(tmp_path / "1.mp4", 3)
    (found,) = VideoSource(tmp_path / "people").fetch([address])
    assert (found.data, found.status, found.reason) == (None, "failed", "bad_address")


def test_names_with_signs_of_addresses_lead_back_to_their_clips(tmp_path: Path) -> None:
    """A clip called `a#t=1.mp4` would be reported missing."""
    write_clip(tmp_path / "100% Zoë" / "a#t=1 %20.mp4", 3)
    source = VideoSource(tmp_path)
    assert [answer.status for answer in source.fetch(addresses(source))] == ["ok"]


def test_what_heads_of_clips_say_is_asked_once(tmp_path: Path) -> None:
    """Every plan would open 280,000 clips."""
    clip = write_clip(tmp_path / "Ada" / "1.mp4", 12)
    source, shelf = VideoSource(tmp_path), Kept()
    source.shelf = shelf
    before = addresses(source)
    assert len(shelf.texts) == 1
    shelf.texts = dict.fromkeys(shelf.texts, "10.0 45")
    assert len(addresses(source)) == 5
    os.utime(clip, ns=(5, 5))
    assert addresses(source) == before and len(shelf.texts) == 2


def test_times_are_spread_and_no_frame_is_taken_twice() -> None:
    """A clip at 10 frames a second would give each of them three times at a rate of 30."""
    assert times_of(Clip(10, 35), 2, None) == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    assert times_of(Clip(10, 4), 30, None) == [0, 0.1, 0.2, 0.3]
    assert times_of(Clip(10, 100), 1, 2) == [2, 7]
    assert times_of(Clip(30, 1), 1, None) == [0]
    assert times_of(Clip(29.97, 300), 1, 100)[-1] < 300 / 29.97


def test_a_source_that_cannot_be_listed_says_how_to_mend_it(tmp_path: Path) -> None:
    """The first run of a new user would end in a stack trace, or in an empty dataset."""
    with pytest.raises(SourceError, match=r"does not exist; set source\.path"):
        VideoSource(tmp_path / "none").check()
    with pytest.raises(SourceError, match="needs one folder of clips a person"):
        VideoSource(tmp_path).check()
    (tmp_path / "Ada").mkdir()
    with pytest.raises(SourceError, match=r"match source\.clips: front"):
        VideoSource(tmp_path, clips=["front/*"]).people()
