"""Detectors and recognisers on labelled photographs: reading labels, running real backends, and
what the report says.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

from eval.metrics.verification import Scores
from eval.recognition import BadLabels, Measured, Photograph, curves, labelled, measure, report
from eval.roc_plot import write
from stages.backends import backend
from stages.stage import Stage
from stages.weights import WeightFiles


def made(stage: str, name: str, files: WeightFiles, **params: object) -> Stage:
    one = backend(stage, name)(params)
    one.setup(files)
    return one


@pytest.fixture(scope="module")
def dlib() -> tuple[Stage, Stage]:
    pytest.importorskip("dlib")
    return made("detect", "dlib", WeightFiles()), made("embed", "dlib", WeightFiles())


def picture(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_folders_alone_are_labels(tmp_path: Path) -> None:
    for name in (
        "Ada/1.jpg",
        "Ada/2.PNG",
        "Grace/a.webp",
        "Grace/notes.txt",
        ".cache/x.jpg",
        "Grace/.hidden.jpg",
        "loose.jpg",
    ):
        picture(tmp_path / name, b"")
    assert [
        (photo.path.name, photo.person, photo.undisputed, photo.faces)
        for photo in labelled(tmp_path)
    ] == [
        ("1.jpg", "Ada", True, None),
        ("2.PNG", "Ada", True, None),
        ("a.webp", "Grace", True, None),
    ]


def test_a_labels_file_says_who_how_surely_and_how_many(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/2.jpg", "group.jpg"):
        picture(tmp_path / name, b"")
    (tmp_path / "LABELS.csv").write_text(
        "file,person,label_check,n_faces\na/1.jpg,Ada,ok,\na/2.jpg,Ada,wrong "
        "person,2\ngroup.jpg,,,4\n"
    )
    found = [(photo.person, photo.undisputed, photo.faces) for photo in labelled(tmp_path)]
    assert found == [("Ada", True, None), ("Ada", False, 2), (None, True, 4)]
    other = tmp_path / "other.csv"
    other.write_text("file,person\na/1.jpg,Grace\n")
    assert [photo.person for photo in labelled(tmp_path, other)] == ["Grace"], (
        "a file that is named goes before the folder's own"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name\nx\n", "has no column `file`; it has name"),
        ("", "has no column `file`; it has none"),
        (
            "file\ngone.jpg\n",
            r"LABELS\.csv:2: .*gone\.jpg is not there; is this the labels file of that folder",
        ),
        ("file\n../x.jpg\n", r"LABELS\.csv:2: file '\.\./x\.jpg' is no path below"),
        ("file\n/etc/passwd\n", "is no path below"),
        ("file,n_faces\na/1.jpg,many\n", "n_faces 'many' is no number"),
        ("file\n", "no photographs; a folder has one folder a person"),
    ],
)
def test_labels_that_cannot_be_used_are_told_with_their_line(
    content: str, said: str, tmp_path: Path
) -> None:
    picture(tmp_path / "a/1.jpg", b"")
    (tmp_path / "LABELS.csv").write_text(content)
    with pytest.raises(BadLabels, match=said):
        labelled(tmp_path)


def test_a_folder_that_is_none_and_one_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(BadLabels, match="is no folder"):
        labelled(tmp_path / "nowhere")
    with pytest.raises(BadLabels, match="no photographs"):
        labelled(tmp_path)


def test_faces_are_found_counted_and_recognised(
    astronaut: bytes, t1: Path, tmp_path: Path, dlib: tuple[Stage, Stage]
) -> None:
    detect, embed = dlib
    photographs = [
        Photograph(picture(tmp_path / "Eileen/1.png", astronaut), "Eileen", faces=2),
        Photograph(picture(tmp_path / "Eileen/2.png", astronaut), "Eileen", faces=1),
        Photograph(picture(tmp_path / "Friend/1.jpg", t1.read_bytes()), "Friend"),
        Photograph(picture(tmp_path / "Friend/broken.jpg", b"\xff\xd8\xff no picture"), "Friend"),
    ]
    told: list[tuple[int, int]] = []
    measured = measure(photographs, detect, [embed], lambda done, of: told.append((done, of)))
    assert told[-1] == (4, 4) and measured.found.tolist() == [2, 2, 6, -1], (
        "dlib takes the suit for a face"
    )
    vectors = measured.vectors["dlib_resnet_v1"]
    assert (
        vectors.shape == (4, 128)
        and np.allclose(vectors[0], vectors[1])
        and np.isnan(vectors[3]).all()
    )
    numbers = report(measured)
    found = numbers["detection"]
    assert (found["photographs"], found["with_face"], found["share_with_face"]) == (4, 3, 1.0)
    assert [text.split(":")[0] for text in found["unreadable"]] == [
        str(tmp_path / "Friend/broken.jpg")
    ]
    assert (found["counted"], found["count_agrees"]) == (2, 1)
    assert found["count_differs"] == [
        {"file": str(tmp_path / "Eileen/2.png"), "labelled": 1, "found": 2}
    ]
    pairs = numbers["recognisers"]["dlib_resnet_v1"]["verification"]["all"]["pairs"]
    assert (pairs["genuine"], pairs["impostor"]) == (2, 4)
    assert "there are 0" in numbers["recognisers"]["dlib_resnet_v1"]["thresholds_lack"]


def test_landmarks_that_do_not_fit_are_refused_before_anything_is_measured(
    models_dir: Path, tmp_path: Path, dlib: tuple[Stage, Stage]
) -> None:
    embed = made("embed", "arcface", WeightFiles(str(models_dir)))
    with pytest.raises(
        BadLabels,
        match="'arcface' aligns faces by arcface5 landmarks, detect backend 'dlib' gives dlib5",
    ):
        measure([Photograph(tmp_path / "gone.jpg", "a")], dlib[0], [embed])


def measured(vectors: np.ndarray, person: list[str], undisputed: list[bool]) -> Measured:
    photographs = [
        Photograph(Path(f"{at}.jpg"), name, fine)
        for at, (name, fine) in enumerate(zip(person, undisputed, strict=True))
    ]
    return Measured(photographs, np.ones(len(person), dtype=np.int64), {"toy": vectors})


def test_disputed_labels_are_reported_apart_and_set_no_thresholds(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    person = [name for name in "abcdefgh" for _ in range(8)]
    vectors = np.repeat(random.normal(size=(8, 16)), 8, axis=0) + 0.1 * random.normal(size=(64, 16))
    vectors[:2] = vectors[-2:]  # two photographs of somebody else
    fine = [False, False, *[True] * 62]
    numbers = report(measured(vectors, person, fine))["recognisers"]["toy"]
    sets = numbers["verification"]
    assert list(sets) == ["undisputed", "all"] and (
        sets["undisputed"]["photographs"],
        sets["all"]["photographs"],
    ) == (62, 64)
    assert (
        sets["undisputed"]["pairs"]["equal_error"]["rate"]
        == 0
        < sets["all"]["pairs"]["equal_error"]["rate"]
    )
    assert numbers["thresholds"]["own_below"] == (0, 62) and numbers["thresholds"][
        "people_linked"
    ] == (0, 28)
    assert list(
        report(measured(vectors, person, [True] * 64))["recognisers"]["toy"]["verification"]
    ) == ["all"]


def test_rates_that_so_few_pairs_cannot_show_are_left_out() -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 8))
    numbers = report(measured(vectors, [str(at // 2) for at in range(20)], [True] * 20))
    found = numbers["recognisers"]["toy"]["verification"]["all"]["pairs"]
    assert found["impostor"] == 180 and [point["far"] for point in found["tar_at_far"]] == [1e-2]


def test_the_curve_as_a_table_and_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    vectors = np.random.default_rng(0).normal(size=(40, 8))
    shown = curves(
        measured(vectors, [str(at // 4) for at in range(40)], [at % 5 > 0 for at in range(40)])
    )
    assert len(shown["toy"].genuine) + len(shown["toy"].impostor) == 32 * 31 // 2, (
        "of undisputed labels only"
    )
    table, plot = write(tmp_path, {**shown, "empty": Scores(np.zeros(0), np.zeros(0))})
    lines = table.read_text().splitlines()
    assert lines[0] == "recogniser,far,tar,threshold" and lines[1].startswith("toy,1.0,1.0,")
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_scrfd_and_edgeface_on_real_photographs(
    photos: Path, models_dir: Path, shared: Path
) -> None:
    """968 photographs of 84 people, and 9 with several faces that somebody counted."""
    files = WeightFiles(str(models_dir))
    detect, embed = (
        made("detect", "scrfd", files),
        made("embed", "arcface", files, weights="edgeface_xs", batch=16),
    )
    numbers = report(measure(labelled(photos), detect, [embed]))
    assert numbers["detection"]["share_with_face"] >= 0.999
    found = numbers["recognisers"]["edgeface_xs"]
    tar = {
        name: {point["far"]: point["tar"] for point in each["pairs"]["tar_at_far"]}
        for name, each in found["verification"].items()
    }
    assert tar["undisputed"][1e-3] >= 0.998 and tar["all"][1e-3] >= 0.93
    assert (
        found["verification"]["undisputed"]["image_to_indicator"]["tar_at_far"][1]["tar"] >= 0.998
    )
    assert abs(found["thresholds"]["similarity_threshold"] - 0.40) < 0.08, (
        "what ships was chosen on a part of these photographs"
    )
    groups = report(measure(labelled(shared / "data" / "group_photos"), detect, []))["detection"]
    assert (groups["counted"], groups["count_agrees"]) == (9, 9)


def test_a_copy_of_real_photographs_by_folders(
    photos: Path, models_dir: Path, tmp_path: Path
) -> None:
    for person in ("ariel_sharon", "serena_williams"):
        (tmp_path / person).mkdir()
        for source in sorted((photos / person).glob("*.jpg"))[:4]:
            shutil.copy(source, tmp_path / person)
    files = WeightFiles(str(models_dir))
    detect, embed = (
        made("detect", "scrfd", files),
        made("embed", "arcface", files, weights="edgeface_xs"),
    )
    measured = measure(labelled(tmp_path), detect, [embed])
    pairs = report(measured)["recognisers"]["edgeface_xs"]["verification"]["all"]["pairs"]
    assert (pairs["genuine"], pairs["impostor"]) == (12, 16) and pairs["equal_error"]["rate"] == 0
