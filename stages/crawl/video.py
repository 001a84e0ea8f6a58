"""Frames of clips: one folder a person, clips anywhere below it, as MEAD has them
(`M003/video/front/angry/level_1/001.mp4`).

A frame's address is `name:<person>/<clip>#t=12.480`, in seconds of the clip at its nominal frame
rate. Its bytes are an image that is made here, the same for the same clip with the same version of
OpenCV: clips are decoded by one thread, from the start or from a fixed step before the frame, never
from wherever an earlier frame has left off.
"""

import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import cv2
import numpy as np

from schemas.fetched import Fetched
from schemas.wording import counted, verb
from stages.crawl.folder import address_of, escape, fingerprint_of, is_folder, readable, relative_of
from stages.crawl.listing import Listed, Offer, Shelf, SourceError
from stages.pictures import MAX_PIXELS

ENDINGS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")

_STEP = 500
"""Frames between two places from which decoding begins."""
# fmt: off
_JPEG = (
    cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
)
# fmt: on
_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 3)


@dataclass(frozen=True)
class Clip:
    """What the head of a clip says. `rate`: frames a second."""

    rate: float
    frames: int

    @property
    def seconds(self) -> float:
        return self.frames / self.rate


class BadClip(Exception):
    """A clip that cannot be used: a reason code, and the same in words."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class VideoSource:
    """Frames at `rate` a second of the clips below the folders of `path`; `per_clip` spreads so
    many over each.

    `shelf` may keep what the heads of clips say between two listings.
    """

    web = False

    def __init__(
        self,
        path: Path,
        name: str = "video",
        rate: float = 1.0,
        per_clip: int | None = None,
        clips: Sequence[str] = ("*",),
        prefix: str = "",
        kind: str = "png",
    ) -> None:
        self.path, self.name, self.rate, self.per_clip, self.clips = (
            path,
            name,
            rate,
            per_clip,
            tuple(clips),
        )
        self.prefix, self.kind = prefix, kind
        self.shelf: Shelf | None = None

    def check(self) -> None:
        if not self.path.is_dir():
            what = "is not a folder" if self.path.exists() else "does not exist"
            raise SourceError(
                f"source {self.name!r}: {self.path} {what}; set source.path to a folder with one "
                "folder of clips a person"
            )
        if not any(self._folders()):
            raise SourceError(
                f"source {self.name!r}: {self.path} holds no folders; it needs one folder of "
                "clips a person"
            )

    def people(self) -> tuple[list[Listed], list[str]]:
        self.check()
        listed: list[Listed] = []
        remarks: list[str] = []
        clips = others = bad = 0
        for person in self._folders():
            offers: list[Offer] = []
            before = len(remarks)
            for relative in self._clips(person, remarks):
                if relative is None:
                    others += 1
                    continue
                clips += 1
                times = self._times(relative)
                bad += times is None
                mark = f"{fingerprint_of(self.path / relative)}-{self.kind}"
                # A clip that cannot be read is offered once, so that a row says why there is
                # nothing of it.
                offers += [
                    Offer(f"{address_of(self.name, relative)}#t={time:.3f}", mark)
                    for time in times or [0.0]
                ]
            listed.append(
                Listed(self.prefix + readable(person), offers, complete=len(remarks) == before)
            )
        if self.shelf is not None:
            self.shelf.flush()
        if not clips:
            raise SourceError(
                f"source {self.name!r}: no clips below {self.path} end in {', '.join(ENDINGS)} "
                "and match source.clips:"
                f" {', '.join(self.clips)}" + "".join(f"; {text}" for text in remarks)
            )
        if others:
            no_clips = verb(others, "is no clip by its ending", "are no clips by their endings")
            remarks.append(
                f"{counted(others, 'file')} below {self.path} {no_clips}, or not in "
                f"source.clips, and {verb(others)} not used"
            )
        if bad:
            remarks.append(
                f"{bad} of {counted(clips, 'clip')} below {self.path} cannot be read; a row each "
                "will say why"
            )
        return listed, remarks

    def fetch(self, addresses: Sequence[str]) -> list[Fetched]:
        found: dict[int, Fetched] = {}
        wanted: dict[str, dict[int, float]] = defaultdict(dict)
        for number, address in enumerate(addresses):
            place, mark, time = address.rpartition("#t=")
            relative = relative_of(self.name, place)
            try:
                seconds = float(time)
            except ValueError:
                seconds = -1.0
            if not mark or relative is None or not 0 <= seconds < 1e6:
                found[number] = Fetched(
                    None,
                    "failed",
                    "bad_address",
                    f"{address!r} is no address of source {self.name!r}",
                )
            else:
                wanted[relative][number] = seconds
        for relative, times in wanted.items():
            found |= self._frames(self.path / relative, times)
        return [found[number] for number in range(len(addresses))]

    def _folders(self) -> Iterator[str]:
        try:
            yield from sorted(
                entry.name
                for entry in os.scandir(self.path)
                if is_folder(entry) and not entry.name.startswith(".")
            )
        except OSError as error:
            raise SourceError(
                f"source {self.name!r}: {self.path} cannot be listed: {error.strerror}"
            ) from error

    def _clips(self, person: str, remarks: list[str]) -> Iterator[str | None]:
        """Paths of clips below `path`, in order; None for a file that is not used. A remark on
        every folder that cannot be listed.
        """

        def unlisted(error: OSError) -> None:
            remarks.append(
                f"{error.filename} cannot be listed ({error.strerror}); the clips in it stay as "
                "they were"
            )

        for where, folders, files in os.walk(self.path / person, onerror=unlisted):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            below = os.path.relpath(where, self.path / person)
            for name in sorted(name for name in files if not name.startswith(".")):
                inside = name if below == "." else f"{below}/{name}"
                usable = name.lower().endswith(ENDINGS) and any(
                    fnmatchcase(inside, pattern) for pattern in self.clips
                )
                yield f"{person}/{inside}" if usable else None

    def _times(self, relative: str) -> list[float] | None:
        """The times of the frames of a clip, in seconds; None where it cannot be read."""
        path = self.path / relative
        key = f"{escape(relative)} {fingerprint_of(path)}"  # another clip has another key
        there = self.shelf.get(key) if self.shelf is not None else None
        if there is not None:
            told = there[1]
        else:
            try:
                clip = head_of(path)
                told = f"{clip.rate!r} {clip.frames}"
            except BadClip:
                told = "bad"
            if self.shelf is not None:
                self.shelf.put(key, told)
        if told == "bad":
            return None
        rate, frames = told.split()
        return times_of(Clip(float(rate), int(frames)), self.rate, self.per_clip)

    def _frames(self, path: Path, times: dict[int, float]) -> dict[int, Fetched]:
        """The frames of one clip at `times`, by number."""
        try:
            clip = head_of(path)
        except BadClip as bad:
            return dict.fromkeys(times, Fetched(None, "failed", bad.reason, bad.detail))
        at = {number: round(seconds * clip.rate) for number, seconds in times.items()}
        found: dict[int, Fetched] = {}
        for base in sorted({index - index % _STEP for index in at.values()}):
            mine = {index for index in at.values() if index - index % _STEP == base}
            frames = decode(path, base, mine)
            for number, index in at.items():
                if index in mine:
                    found[number] = self._picture(frames.get(index), index, clip)
        return found

    def _picture(self, frame: np.ndarray | None, index: int, clip: Clip) -> Fetched:
        if frame is None:
            return Fetched(
                None,
                "failed",
                "no_frame",
                f"frame {index} cannot be decoded, of {clip.frames} that the clip claims to have",
            )
        done, data = cv2.imencode(
            ".jpg" if self.kind == "jpeg" else ".png", frame, _JPEG if self.kind == "jpeg" else _PNG
        )
        if not done:
            return Fetched(
                None, "failed", "no_frame", f"frame {index} cannot be written as {self.kind}"
            )
        return Fetched(data.tobytes())


def times_of(clip: Clip, rate: float, per_clip: int | None) -> list[float]:
    """When frames are taken: `rate` a second from the first, as far as the clip goes; at most
    `per_clip`, spread evenly.

    No frame is taken twice where `rate` is above the clip's own.
    """
    indices = sorted(
        {
            index
            for k in range(int(clip.seconds * rate) + 1)
            if (index := round(k / rate * clip.rate)) < clip.frames
        }
    )
    if per_clip is not None and len(indices) > per_clip:
        indices = [indices[(2 * k + 1) * len(indices) // (2 * per_clip)] for k in range(per_clip)]
    return [index / clip.rate for index in indices]


def head_of(path: Path) -> Clip:
    """What the head of a clip says. Raises BadClip."""
    reader = _open(path)
    try:
        rate, frames = reader.get(cv2.CAP_PROP_FPS), reader.get(cv2.CAP_PROP_FRAME_COUNT)
        width, height = reader.get(cv2.CAP_PROP_FRAME_WIDTH), reader.get(cv2.CAP_PROP_FRAME_HEIGHT)
    finally:
        reader.release()
    # Times have three digits, which tell the frames of faster clips no longer apart.
    if not (0 < rate <= 480) or not (0 < frames < 1e8):
        raise BadClip(
            "decode_error", f"the clip says that it has {frames:g} frames, {rate:g} a second"
        )
    if width * height > MAX_PIXELS:
        raise BadClip("too_large", f"{width:g} x {height:g} pixels")
    return Clip(rate, int(frames))


def decode(path: Path, base: int, wanted: set[int]) -> dict[int, np.ndarray]:
    """Frames by number: (height, width, 3) uint8, BGR, upright. Decoding begins at frame `base`;
    what cannot be had is left out.
    """
    found: dict[int, np.ndarray] = {}
    reader = _open(path)
    try:
        if base and not reader.set(cv2.CAP_PROP_POS_FRAMES, base):
            return found
        for index in range(base, max(wanted) + 1):
            if not reader.grab():
                break
            if index in wanted:
                done, frame = reader.retrieve()
                if done:
                    found[index] = frame
    except cv2.error:
        return found
    finally:
        reader.release()
    return found


def _open(path: Path) -> cv2.VideoCapture:
    """The clip, opened. Raises BadClip.

    Only files that begin like one of the usual containers: others, such as playlists, can make
    FFmpeg read other files.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise BadClip(
            "not_found" if isinstance(error, FileNotFoundError) else "unreadable",
            error.strerror or "unreadable",
        ) from error
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BadClip("not_a_file", "not a regular file")
        try:
            head = file.read(16)
        except OSError as error:
            raise BadClip("unreadable", error.strerror or "unreadable") from error
    if not _is_container(head):
        raise BadClip("not_a_video", "begins like no MP4, MOV, AVI, Matroska, WebM or MPEG file")
    reader = cv2.VideoCapture(os.fspath(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    if not reader.isOpened():
        reader.release()
        raise BadClip("decode_error", "cannot be opened as a video")
    return reader


def _is_container(head: bytes) -> bool:
    return (
        head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
        or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
        or head[:4] in (b"\x1a\x45\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3")
    )
