"""Images that are valid but odd, and some that are not, through decoding, detection, recognition
and screening of every backend.

Each file has its outcome as a row, and every row that must follow from another one is there.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from idcluster.catalogue.connection import connect
from stages.pictures import decode
from tests.pipeline.in_process import run_here

pytestmark = pytest.mark.slow

DAG = """
name: odd
root: root
source: {kind: folder, path: people}
stages:
  crawl: {}
  detect: {backend: BACKEND}
  embed: {backend: BACKEND}
  screen: {}
  clean: {}
  shard: {params: {profile: faces, target_mb: 1, validation: 0}}
"""

PAIRS: dict[str, tuple[str, ...]] = {
    "dlib": ("stages.detect.backend=dlib", "stages.embed.backend=dlib"),
    "scrfd and edgeface": ("stages.detect.backend=scrfd", "stages.embed.backend=arcface"),
    "fixed scrfd and mobilefacenet": (
        "stages.detect={backend: scrfd, params: {weights: scrfd_500m_kps}}",
        "stages.embed={backend: arcface, params: {weights: mobilefacenet_128d}}",
    ),
    "yunet and edgeface": ("stages.detect.backend=yunet", "stages.embed.backend=arcface"),
    "mtcnn and edgeface": ("stages.detect.backend=mtcnn", "stages.embed.backend=arcface"),
}
"""Detectors and recognisers whose weights come in packages or lie beside the checkout."""

BOX = np.array([175, 76, 265, 166])
"""The face of the astronaut."""

MANY = (10, 5)
"""Columns and rows of faces in `many.png`."""


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    picture.save(sink, kind, **options)
    return sink.getvalue()


def turned(rgb: np.ndarray, orientation: int) -> bytes:
    """A PNG that is stored turned and says so: upright it has the pixels `rgb`."""
    undo: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.swapaxes(0, 1),
        6: lambda p: np.rot90(p),
        7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
        8: lambda p: np.rot90(p, -1),
    }
    stored = np.ascontiguousarray(undo[orientation](rgb))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(Image.fromarray(stored), "PNG", exif=exif)


def with_one_face(rgb: np.ndarray) -> dict[str, bytes]:
    """The same image in every guise that decodes to about the same pixels."""
    picture = Image.fromarray(rgb)
    grey = picture.convert("L")
    alpha = np.full(rgb.shape[:2], 255, np.uint8)
    alpha[:30] = np.linspace(0, 255, 30, dtype=np.uint8)[:, None]
    wide = cv2.imencode(".png", rgb[:, :, ::-1].astype(np.uint16) * 257)[1].tobytes()
    frames = {"save_all": True, "append_images": [Image.new("RGB", picture.size)], "duration": 100}
    return {
        "plain.png": saved(picture, "PNG"),
        "grey.png": saved(grey, "PNG"),
        "grey.jpg": saved(grey, "JPEG", quality=90),
        "alpha.png": saved(Image.merge("RGBA", (*picture.split(), Image.fromarray(alpha))), "PNG"),
        "grey_alpha.png": saved(Image.merge("LA", (grey, Image.fromarray(alpha))), "PNG"),
        "palette.png": saved(picture.quantize(256), "PNG"),
        "palette_alpha.png": saved(picture.quantize(255), "PNG", transparency=254),
        "sixteen.png": saved(Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), "PNG"),
        "sixteen_colour.png": wide,
        "cmyk.jpg": saved(picture.convert("CMYK"), "JPEG", quality=90),
        "progressive.jpg": saved(picture, "JPEG", quality=90, progressive=True),
        "animated.gif": saved(picture, "GIF", **frames),
        "animated.webp": saved(picture, "WEBP", lossless=True, **frames),
        "windows.bmp": saved(picture, "BMP"),
        "scanner.tiff": saved(picture, "TIFF"),
        "misnamed.jpg": saved(picture, "PNG"),
        **{f"turned {orientation}.png": turned(rgb, orientation) for orientation in range(1, 9)},
    }


SAME = (
    "plain.png",
    "misnamed.jpg",
    "sixteen_colour.png",
    "animated.webp",
    "windows.bmp",
    "scanner.tiff",
)
SAME_PIXELS = (*SAME, *(f"turned {orientation}.png" for orientation in range(1, 9)))
"""Files that decode to the very pixels of `plain.png`."""

NOTHING = {
    "one.png": ("faces", "filtered", "no_face"),
    "column.png": ("faces", "filtered", "no_face"),
    "flat.jpg": ("faces", "filtered", "no_face"),
    "noise.png": ("faces", "filtered", "no_face"),
    "cut.jpg": ("faces", "failed", "decode_error"),
    "cut.webp": ("faces", "failed", "decode_error"),
    "float.tiff": ("faces", "failed", "unsupported_format"),
    "text.png": ("images", "failed", "not_an_image"),
}
"""Table, status and reason of files without a usable face."""


def without_faces(rgb: np.ndarray) -> dict[str, bytes]:
    """The files of NOTHING."""
    picture = Image.fromarray(rgb)
    jpeg, webp = saved(picture, "JPEG", quality=90), saved(picture, "WEBP")
    return {
        "one.png": saved(picture.crop((200, 100, 201, 101)), "PNG"),
        "column.png": saved(picture.crop((200, 0, 201, 512)), "PNG"),
        "flat.jpg": saved(Image.new("RGB", (300, 200), (120, 130, 140)), "JPEG"),
        "noise.png": saved(Image.effect_noise((200, 200), 80), "PNG"),
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut.webp": webp[: len(webp) // 2],
        "float.tiff": saved(Image.fromarray(np.zeros((20, 20), np.float32)), "TIFF"),
        "text.png": b"a page that says 404",
    }


def grown(margin: int) -> list[int]:
    """The face with a margin."""
    return [int(value) for value in (*(BOX[:2] - margin), *(BOX[2:] + margin))]


def panorama(rgb: np.ndarray) -> bytes:
    """20,000 pixels wide, with a face of 90 in it: three at the scale of most detectors."""
    x1, y1, x2, y2 = grown(40)
    wide = np.full((400, 20_000, 3), 90, np.uint8)
    wide[50 : 50 + y2 - y1, 9_000 : 9_000 + x2 - x1] = rgb[y1:y2, x1:x2]
    return saved(Image.fromarray(wide), "PNG", compress_level=1)


def many(rgb: np.ndarray) -> bytes:
    """Fifty faces in rows."""
    x1, y1, x2, y2 = grown(35)
    tile = cv2.resize(
        np.ascontiguousarray(rgb[y1:y2, x1:x2]), (160, 160), interpolation=cv2.INTER_AREA
    )
    return saved(Image.fromarray(np.tile(tile, (MANY[1], MANY[0], 1))), "PNG")


def cut_faces(rgb: np.ndarray) -> dict[str, bytes]:
    """Faces at the edge of the image, more and more of them outside."""
    x1, y1, x2, y2 = BOX
    made = {}
    for share in range(0, 60, 10):
        gone = 90 * share // 100
        made[f"left {share}.png"] = rgb[y1 - 40 : y2 + 40, x1 + gone : x2 + 60]
        made[f"bottom {share}.png"] = rgb[y1 - 60 : y2 - gone, x1 - 60 : x2 + 60]
    return {
        name: saved(Image.fromarray(np.ascontiguousarray(part)), "PNG")
        for name, part in made.items()
    }


@dataclass(frozen=True)
class Found:
    """What a run made of the folder, and which files there were by person."""

    root: Path
    files: Mapping[str, Mapping[str, bytes]]

    def rows(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:
        connection = connect(str(self.root))
        try:
            return list(connection.sql(sql, params=list(parameters)).to_arrow_table().to_pylist())
        finally:
            connection.close()

    def of(self, table: str, person: str, name: str) -> list[dict[str, Any]]:
        """The rows of a file, best face first."""
        order = "face" if table == "faces" else "image_id"
        sql = (
            f"SELECT t.* FROM {table} t JOIN candidates c USING (image_id) WHERE c.address = ? "
            f"ORDER BY t.{order}"
        )
        return self.rows(sql, f"local:{person}/{name}")

    def vector(self, person: str, name: str, face: Mapping[str, Any]) -> list[float]:
        """The vector of a face of a file, which has to have one."""
        [row] = [
            row for row in self.of("embeddings", person, name) if row["face_id"] == face["face_id"]
        ]
        assert row["status"] == "ok"
        return list(row["vector"])


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[pytest.mark.slow] if name != "dlib" else []) for name in PAIRS
    ],
)
def found(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, astronaut: bytes
) -> Found:
    models = None if request.param == "dlib" else str(request.getfixturevalue("models_dir"))
    folder = tmp_path_factory.mktemp("odd")
    rgb = decode(astronaut)
    files = {"one face": with_one_face(rgb), "nothing": without_faces(rgb), "edge": cut_faces(rgb)}
    files |= {"many": {"many.png": many(rgb)}, "wide": {"panorama.png": panorama(rgb)}}
    extra = Path(__file__).parents[3] / "shared" / "data" / "extra"
    for name in ("bad_files", "rotated", "masked", "no_face"):
        if (extra / name).is_dir():
            files[name] = {
                path.name: path.read_bytes()
                for path in sorted((extra / name).iterdir())
                if path.suffix != ".csv"
            }
    for person, pictures in files.items():
        (folder / "people" / person).mkdir(parents=True)
        for name, data in pictures.items():
            (folder / "people" / person / name).write_bytes(data)
    file = folder / "odd.yaml"
    file.write_text(DAG.replace("BACKEND", "dlib"))
    root = folder / "root"
    record = run_here(
        file,
        sets=[f"source.path={folder / 'people'}", f"root={root}", *PAIRS[request.param]],
        models=models,
    )
    assert record.status == "done"
    return Found(root, files)


@pytest.mark.slow
def test_every_row_is_accounted_for(found: Found) -> None:
    """An image or a face would be missing from the dataset without anybody being told."""
    [counts] = found.rows("""
        SELECT
          (SELECT count(*) FROM candidates) AS candidates,
          (SELECT count(*) FROM images) AS images,
          (SELECT count(*) FROM images i WHERE i.status = 'ok' AND NOT EXISTS (FROM faces f
              WHERE f.image_id = i.image_id)) AS unseen,
          (SELECT count(*) FROM faces f JOIN images i USING (image_id)
              WHERE i.status <> 'ok') AS invented,
          (SELECT count(*) FROM faces f WHERE f.status = 'ok' AND f.face_id NOT IN (SELECT face_id
              FROM embeddings)) AS unknown,
          (SELECT count(*) FROM faces f WHERE f.status = 'ok' AND f.face_id NOT IN (SELECT face_id
              FROM screenings)) AS unscreened,
          (SELECT count(*) FROM faces f WHERE f.status <> 'ok' AND f.face_id IN (SELECT face_id
              FROM embeddings)) AS nobodies,
          (SELECT count(*) FROM embeddings e JOIN screenings s USING (face_id)
             WHERE e.status = 'ok' AND s.status = 'ok' AND e.face_id NOT IN (SELECT face_id
                 FROM clusters)) AS unjudged,
          (SELECT count(*) FROM clusters k JOIN screenings s USING (face_id)
              WHERE s.status <> 'ok') AS unfit,
          (SELECT count(DISTINCT i.sha256) FROM clusters k JOIN images i USING (image_id)
              WHERE k.keep) AS kept,
          (SELECT count(DISTINCT sha256) FROM samples) AS samples
    """)
    there = sum(len(pictures) for pictures in found.files.values())
    assert counts["candidates"] == counts["images"] == there
    assert counts["kept"] == counts["samples"]
    absent = ("unseen", "invented", "unknown", "unscreened", "nobodies", "unjudged", "unfit")
    assert {name: counts[name] for name in absent} == dict.fromkeys(absent, 0)
    for table in ("images", "faces", "embeddings", "screenings", "clusters"):
        [bad] = found.rows(
            f"SELECT count(*) AS n FROM {table} WHERE (status = 'ok') <> (reason IS NULL)"
        )
        [twice] = found.rows(
            f"SELECT count(*) - count(DISTINCT {'image_id' if table == 'images' else 'face_id'}) "
            f"AS n FROM {table}"
        )
        assert (bad["n"], twice["n"]) == (0, 0), table
    assert found.rows("SELECT reason FROM faces WHERE reason IN ('error', 'worker_died')") == []
    assert found.rows("SELECT reason FROM embeddings WHERE status <> 'ok'") == []


@pytest.mark.parametrize("name", NOTHING)
def test_a_picture_without_a_usable_face_says_why(found: Found, name: str) -> None:
    table, status, reason = NOTHING[name]
    [row] = found.of(table, "nothing", name)
    assert (row["status"], row["reason"]) == (status, reason)
    if table == "images":
        assert found.of("faces", "nothing", name) == []


@pytest.mark.slow
def test_one_face_is_found_in_every_guise_of_a_picture(found: Found) -> None:
    plain, *_ = found.of("faces", "one face", "plain.png")
    assert np.abs(np.array(plain["box"]) - BOX).max() < 40
    expected = found.vector("one face", "plain.png", plain)
    for name in found.files["one face"]:
        face, *_ = found.of("faces", "one face", name)
        assert face["status"] == "ok", name
        assert np.abs(np.array(face["box"]) - plain["box"]).max() < 25, name
        assert float(np.dot(found.vector("one face", name, face), expected)) > 0.7, name


@pytest.mark.slow
@pytest.mark.parametrize("name", SAME_PIXELS)
def test_the_same_pixels_give_the_same_faces_whatever_the_file(found: Found, name: str) -> None:
    """Boxes of a turned photograph would lie beside the face in the upright one."""
    columns = ("face", "box", "landmarks", "score", "side", "sharpness", "status")
    mine, plain = (found.of("faces", "one face", file) for file in (name, "plain.png"))
    assert [[face[column] for column in columns] for face in mine] == [
        [face[column] for column in columns] for face in plain
    ]
    for face, other in zip(mine, plain, strict=True):
        assert found.vector("one face", name, face) == found.vector("one face", "plain.png", other)
    [image] = found.of("images", "one face", name)
    assert (image["width"], image["height"]) == (512, 512)


def test_a_panorama_costs_no_more_than_its_row(found: Found) -> None:
    """Nothing is found in it, or the face where it is; and it is no image for a dataset."""
    for face in found.of("faces", "wide", "panorama.png"):
        if face["status"] == "ok":
            assert 8_950 < face["box"][0] < face["box"][2] < 9_250
            assert [row["reason"] for row in found.of("screenings", "wide", "panorama.png")] == [
                "extreme_aspect"
            ]
        else:
            assert face["reason"] == "no_face"


def test_fifty_faces_are_fifty_rows(found: Found) -> None:
    faces = found.of("faces", "many", "many.png")
    assert len(faces) == MANY[0] * MANY[1]
    assert [face["face"] for face in faces] == list(range(50)) and {
        face["faces_in_image"] for face in faces
    } == {50}
    centres = {
        (
            int((face["box"][0] + face["box"][2]) / 2 // 160),
            int((face["box"][1] + face["box"][3]) / 2 // 160),
        )
        for face in faces
    }
    assert len(centres) == 50, "one in every tile"
    assert {row["status"] for row in found.of("embeddings", "many", "many.png")} == {"ok"}
    assert {row["reason"] for row in found.of("screenings", "many", "many.png")} == {"collage"}


@pytest.mark.slow
def test_faces_beyond_the_edge_are_described_from_what_is_there(found: Found) -> None:
    """A landmark outside of the frame would stop the slice, or give a vector of nothing."""
    outside = 0
    for name in found.files["edge"]:
        [image] = found.of("images", "edge", name)
        faces = found.of("faces", "edge", name)
        assert [face["status"] for face in faces] == ["ok"] * len(faces) or [
            face["reason"] for face in faces
        ] == ["no_face"]
        for face in (face for face in faces if face["status"] == "ok"):
            points = np.array([*face["box"], *face["landmarks"]]).reshape(-1, 2)
            outside += bool(
                (points < 0).any() or (points > (image["width"], image["height"])).any()
            )
            assert np.linalg.norm(found.vector("edge", name, face)) == pytest.approx(1, abs=1e-5)
    assert outside


@pytest.mark.slow
def test_files_that_broke_other_peoples_tools(found: Found) -> None:
    if "bad_files" not in found.files:
        pytest.skip("needs the folder shared/data/extra beside the checkout")
    assert [row["reason"] for row in found.of("images", "bad_files", "empty.png")] == [
        "not_an_image"
    ]
    assert [row["reason"] for row in found.of("images", "bad_files", "corrupted.png")] == [
        "decode_error"
    ]
    assert [row["reason"] for row in found.of("faces", "bad_files", "truncated.jpg")] == [
        "decode_error"
    ]
    for name in ("einstein.bmp", "einstein.jpeg", "einstein.png", "einstein.webp"):
        assert [row["status"] for row in found.of("faces", "bad_files", name)] == ["ok"], name
