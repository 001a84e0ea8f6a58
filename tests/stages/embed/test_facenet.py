"""FaceNet: its crops, and what must hold for any weights; the published ones may not be
redistributed.
"""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from pipeline.dag import load_dag
from schemas import TABLES
from stages.embed.facenet import FacenetEmbed, squash
from stages.networks.inception_resnet_v1 import InceptionResnetV1
from stages.stage import Picture
from stages.torch_session import BadCheckpoint
from stages.weights import WeightFiles
from tests.stages.networks.filled import filled

NO_SERVICES: Any = None  # this stage asks nothing of the outside


class Made(WeightFiles):
    """A models directory with one checkpoint in facenet-pytorch's layout, its classifier
    included.
    """

    def __init__(self, top: Path, **others: torch.Tensor) -> None:
        super().__init__(str(top))
        self.file = top / "facenet.pt"
        classifier = {"logits.weight": torch.zeros(8631, 2), "logits.bias": torch.zeros(8631)}
        torch.save(filled(InceptionResnetV1().state_dict()) | classifier | others, self.file)

    def path(self, name: str) -> str:
        return str(self.file)

    def folder(self, name: str) -> str:
        return str(self.file.parent)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> FacenetEmbed:
    made = FacenetEmbed({"batch": 3})
    made.setup(Made(tmp_path_factory.mktemp("models")))
    return made


def noise(seed: int, height: int = 160, width: int = 160) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# The crop


def test_the_crop_is_the_box_rounded_down_and_squashed() -> None:
    """facenet-pytorch's extract_face with margin 0: other vectors are not comparable with published
    ones.
    """
    rgb = noise(0, 90, 120)
    expected = np.asarray(
        Image.fromarray(rgb).crop((10, 20, 50, 85)).resize((160, 160), Image.Resampling.BILINEAR)
    )
    crop = squash(rgb, [10.9, 20.1, 50.99, 85.5])
    assert crop is not None and np.array_equal(crop, expected)


def test_the_crop_ends_at_the_edge_of_the_picture() -> None:
    rgb = noise(0, 90, 120)
    for box, inside in (
        ([-7.5, -3, 60.5, 40.5], (0, 0, 60, 40)),
        ([100.5, 50, 500, 300], (100, 50, 120, 90)),
    ):
        assert np.array_equal(squash(rgb, box), squash(rgb, inside))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "box",
    [
        [130, 10, 150, 30],
        [-30, -30, -1, -1],
        [10, 10, 10.9, 30],
        [30, 30, 10, 50],
        [float("nan"), 0, 9, 9],
        [0, 0, float("inf"), 9],
    ],
)
def test_a_box_without_pixels_has_no_crop(box: list[float]) -> None:
    assert squash(noise(0, 90, 120), box) is None


def test_the_way_of_scaling_is_a_choice_that_changes_the_pixels() -> None:
    rgb = noise(0, 400, 300)
    crops = [squash(rgb, [0, 0, 300, 400], way) for way in ("bilinear", "area")]
    assert all(crop is not None and crop.shape == (160, 160, 3) for crop in crops)
    assert not np.array_equal(*crops)  # type: ignore[arg-type]
    tiny = squash(noise(0, 1, 1), [0, 0, 1, 1], "area")
    assert tiny is not None and len(np.unique(tiny.reshape(-1, 3), axis=0)) == 1
    with pytest.raises(ValidationError, match="bilinear"):
        FacenetEmbed({"resize": "cubic"})


# The vectors


@pytest.mark.slow
def test_a_vector_depends_on_its_face_alone(stage: FacenetEmbed) -> None:
    """Bit for bit: alone, at every place of a batch, beside other faces, and in a call that is no
    multiple of the batch.
    """
    crops = [noise(seed) // (seed + 1) for seed in range(7)]
    expected = stage.embed(crops)
    assert expected.shape == (7, 512) and stage.embed([]).shape == (0, 512)
    assert len(np.unique(expected.round(3), axis=0)) == 7
    for i in range(3):
        assert np.array_equal(stage.embed([crops[i]])[0], expected[i])
        assert np.array_equal(np.roll(stage.embed(crops[i:] + crops[:i]), i, axis=0), expected)


def test_the_network_sees_batches_of_one_size_only(
    stage: FacenetEmbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On chips whose kernels depend on the batch, this is what makes a vector depend on its face
    alone.
    """
    seen: list[tuple[Sequence[int], float]] = []

    def watched(pixels: torch.Tensor) -> torch.Tensor:
        seen.append((tuple(pixels.shape), float(pixels.max())))
        return torch.zeros(len(pixels), 512)

    monkeypatch.setattr(stage, "_network", watched)
    for count in (1, 3, 4):
        assert stage.embed([np.full((160, 160, 3), 255, np.uint8)] * count).shape == (count, 512)
    assert seen == [((3, 3, 160, 160), 127.5 / 128)] * 4


@pytest.fixture(scope="module")
def faces() -> SimpleNamespace:
    """Four faces of two images as the rows that embed gets, one of them outside of its
    image.
    """
    pictures = {
        "one": Picture("one", noise(1, 300, 200)),
        "two": Picture("two", noise(2, 80, 90) // 3),
    }
    for picture in pictures.values():
        picture.rgb.setflags(write=False)
    boxes = [
        ("one", [10, 20, 110, 170]),
        ("one", [-20, 50, 90, 160]),
        ("two", [95, 0, 120, 30]),
        ("two", [0, 0, 90, 80]),
    ]
    rows = [
        {
            "identity_id": "p",
            "image_id": image,
            "face_id": f"f{i}",
            "faces.box": [float(value) for value in box],
            "faces.status": "ok",
        }
        for i, (image, box) in enumerate(boxes)
    ]
    return SimpleNamespace(rows=pa.Table.from_pylist(rows), pictures=pictures)


def test_faces_have_unit_vectors_and_a_box_outside_fails_by_itself(
    stage: FacenetEmbed, faces: SimpleNamespace
) -> None:
    table = stage.run(faces.rows, faces.pictures, NO_SERVICES)
    TABLES["embeddings"].check(
        table.append_column("inputs", pa.array([b"8 bytes."] * 4, pa.binary(8))), "test"
    )
    assert table["status"].to_pylist() == ["ok", "ok", "failed", "ok"]
    assert table["reason"].to_pylist() == [None, None, "bad_box", None]
    assert set(table["recogniser"].to_pylist()) == {"facenet_vggface2"}
    vectors = np.array([vector for vector in table["vector"].to_pylist() if vector is not None])
    assert vectors.shape == (3, 512)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    raw = stage.embed([squash(faces.pictures["two"].rgb, [0, 0, 90, 80])])  # type: ignore[list-item]
    assert table["norm"].to_pylist()[3] == pytest.approx(float(np.linalg.norm(raw)), rel=1e-5)
    alone = [
        stage.run(faces.rows.slice(i, 1), faces.pictures, NO_SERVICES) for i in reversed(range(4))
    ]
    assert table.equals(pa.concat_tables(alone[::-1]).combine_chunks())
    assert stage.run(faces.rows.slice(0, 0), faces.pictures, NO_SERVICES).num_rows == 0


@pytest.mark.slow
def test_vectors_are_stored_to_half_precision_where_asked(
    tmp_path: Path, faces: SimpleNamespace
) -> None:
    rows = faces.rows.slice(0, 1)
    vectors = []
    for store in ("float32", "float16"):
        made = FacenetEmbed({"store": store})
        made.setup(Made(tmp_path))
        vectors.append(
            np.array(
                made.run(rows, faces.pictures, NO_SERVICES)["vector"].to_pylist()[0], np.float32
            )
        )
    assert not np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[0].astype(np.float16), vectors[1])


# What can be set, and what is refused


@pytest.mark.slow
def test_a_checkpoint_of_another_network_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match=r"facenet\.pt: has unknown fc\.weight"):
        FacenetEmbed().setup(Made(tmp_path, **{"fc.weight": torch.zeros(1)}))
    with pytest.raises(BadCheckpoint, match=r"has another shape for last_linear\.weight"):
        FacenetEmbed().setup(Made(tmp_path, **{"last_linear.weight": torch.zeros(512, 1536)}))
    assert FacenetEmbed({"weights": "facenet_casia"}).recogniser == "facenet_casia"
    with pytest.raises(ValidationError, match="embed/facenet"):
        FacenetEmbed({"weights": "edgeface_xs"})


@pytest.mark.parametrize("detector", ["dlib", "scrfd", "mtcnn", "yunet"])
def test_any_detector_may_stand_before_it(tmp_path: Path, detector: str) -> None:
    file = tmp_path / "dag.yaml"
    file.write_text(
        f"name: any\nroot: out\nsource: {{kind: folder, path: people/, name: local}}\n"
        f"stages:\n  crawl: {{}}\n  detect: {{backend: {detector}}}\n  embed: {{backend: "
        f"facenet}}\n"
    )
    assert load_dag(file).stages["embed"].backend == "facenet"
