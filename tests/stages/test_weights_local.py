"""A team's own registry: pinning what no source states, adding files of one's own, and naming them
in parameters.
"""

import hashlib
import threading
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ValidationError

from stages.embed.arcface import ArcFaceEmbedParams
from stages.weights import (
    NOTHING,
    USES,
    WEIGHTS,
    BadRegistry,
    MissingWeights,
    UnknownWeights,
    WeightFiles,
    Weights,
    WeightsName,
    bundle,
    knowing,
    names,
    registered,
)
from stages.weights.local import FILE, parse, read
from stages.weights.pinning import Wrong, add, calibrate, pin

BODY = b"weights that nobody states a hash of"
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def loose(monkeypatch: pytest.MonkeyPatch) -> Weights:
    """Registered without a hash."""
    entry = Weights(
        "loose",
        "fit/loose.bin",
        None,
        None,
        "own",
        "non-commercial",
        "https://example.org",
        kind="fit/loose",
    )
    monkeypatch.setitem(WEIGHTS, "loose", entry)
    return entry


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle of two files, one of them without a hash."""
    for name, sha256 in (("model.bin", SHA256), ("config.json", None)):
        entry = Weights(
            f"pair/{name}",
            f"caption/pair/{name}",
            sha256,
            None,
            "MIT",
            "any",
            "https://example.org",
            kind="caption/pair",
        )
        monkeypatch.setitem(WEIGHTS, entry.name, entry)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "Downloads" / "loose (1).bin"
    path.parent.mkdir()
    path.write_bytes(BODY)
    return path


# What the code registers


def test_every_registered_file_says_what_a_user_needs() -> None:
    for name, entry in WEIGHTS.items():
        assert (
            entry.name == name
            and entry.use in USES
            and entry.licence
            and entry.source
            and entry.needed_by
        ), name
        assert "/" in entry.kind and not entry.file.startswith("/") and ".." not in entry.file, name
        assert entry.sha256 is None or (
            len(entry.sha256) == 64 and set(entry.sha256) <= set("0123456789abcdef")
        ), name
        assert (
            entry.sha256_prefix is None
            or entry.sha256 is None
            or entry.sha256.startswith(entry.sha256_prefix)
        ), name
        assert entry.address or entry.by_hand or entry.package, f"nobody can get {name}"
        assert entry.address is None or entry.address.startswith("https://"), name
    assert len({entry.file for entry in WEIGHTS.values()}) == len(WEIGHTS), (
        "two files would overwrite each other"
    )


def test_files_of_a_model_are_of_one_kind_and_lie_in_one_folder() -> None:
    for model in {entry.bundle for entry in WEIGHTS.values() if entry.bundle}:
        parts = [registered(name, NOTHING) for name in bundle(model, NOTHING)]
        assert len({(part.kind, part.use, part.licence) for part in parts}) == 1, model
        assert (
            len({part.file.removesuffix(part.name.removeprefix(f"{model}/")) for part in parts})
            == 1
        ), model


# Pinning


def test_a_pinned_file_is_kept_and_found(loose: Weights, file: Path, tmp_path: Path) -> None:
    models = str(tmp_path / "models")
    with pytest.raises(
        MissingWeights,
        match=r"'loose' are not pinned(.|\n)*idcluster models pin loose FILE --models DIR",
    ):
        WeightFiles(models).path("loose")
    [entry] = pin(models, "loose", file)
    assert (entry.sha256, entry.bytes) == (SHA256, len(BODY))
    assert WeightFiles(models).path("loose") == f"{models}/fit/loose.bin"
    assert WeightFiles(models).sha256("loose") == SHA256
    assert read(models).pins["loose"].date, "and when it was done is written down"
    with pytest.raises(MissingWeights):
        WeightFiles().sha256("loose")


def test_another_file_cannot_take_the_place_of_a_pinned_one(
    loose: Weights, file: Path, tmp_path: Path
) -> None:
    models = str(tmp_path / "models")
    pin(models, "loose", file)
    file.write_bytes(b"something else")
    with pytest.raises(
        Wrong,
        match=rf"is not 'loose': it has 14 bytes, registered are {len(BODY)}; --again pins it",
    ):
        pin(models, "loose", file)
    assert Path(WeightFiles(models).path("loose")).read_bytes() == BODY
    pin(models, "loose", file, again=True)
    assert Path(WeightFiles(models).path("loose")).read_bytes() == b"something else"


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"sha256_prefix": "00000000"}, "begins with 00000000"),
        ({"md5": "0" * 32}, "the source states"),
        ({"git_blob": "0" * 40}, "the source's is"),
    ],
)
def test_what_the_source_states_is_held_against_the_file(
    stated: dict[str, str],
    said: str,
    loose: Weights,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known: dict[str, Any] = {**vars(loose), **stated}
    monkeypatch.setitem(WEIGHTS, "loose", Weights(**known))
    for again in (False, True):
        with pytest.raises(Wrong, match=said):
            pin(str(tmp_path / "models"), "loose", file, again)


def test_what_the_code_pins_cannot_be_pinned_otherwise(file: Path, tmp_path: Path) -> None:
    with pytest.raises(
        Wrong,
        match=r"is not 'edgeface_xs': it has \d+ bytes, registered are 9151395; to use another "
        r"file, register it",
    ):
        pin(str(tmp_path), "edgeface_xs", file, again=True)
    forged = f"pins:\n  edgeface_xs: {{sha256: '{SHA256}', bytes: {len(BODY)}}}\n"
    (tmp_path / FILE).write_text(forged)
    assert WeightFiles(str(tmp_path)).sha256("edgeface_xs") == WEIGHTS["edgeface_xs"].sha256


def test_a_bundle_is_pinned_by_its_folder(pair: None, tmp_path: Path) -> None:
    models, folder = str(tmp_path / "models"), tmp_path / "snapshot"
    folder.mkdir()
    (folder / "model.bin").write_bytes(BODY)
    with pytest.raises(Wrong, match=r"lacks config\.json of 'pair'"):
        pin(models, "pair", folder)
    with pytest.raises(Wrong, match="comes as 2 files; name the folder"):
        pin(models, "pair", folder / "model.bin")
    (folder / "config.json").write_text("{}")
    pin(models, "pair", folder)
    assert WeightFiles(models).folder("pair") == f"{models}/caption/pair/"
    assert list(read(models).pins) == ["pair/config.json"]


@pytest.mark.parametrize("place", ["{}", "sha256/{}", "models--org--pair/blobs/{}"])
def test_a_bundle_out_of_a_store_by_hash_is_a_folder_all_the_same(
    place: str, pair: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    other = b"{}"
    known: dict[str, Any] = {
        **vars(WEIGHTS["pair/config.json"]),
        "sha256": hashlib.sha256(other).hexdigest(),
    }
    monkeypatch.setitem(WEIGHTS, "pair/config.json", Weights(**known))
    for body in (BODY, other):
        path = tmp_path / "store" / place.format(hashlib.sha256(body).hexdigest())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    files = WeightFiles(str(tmp_path / "store"))
    folder = Path(files.folder("pair"))
    assert (folder / "model.bin").read_bytes() == BODY and (
        folder / "config.json"
    ).read_bytes() == other
    assert files.folder("pair") == f"{folder}/", "again, and the same"
    path.write_bytes(b"changed")
    with pytest.raises(MissingWeights):
        files.folder("pair")


def test_pins_of_two_at_once_are_both_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(8):
        monkeypatch.setitem(
            WEIGHTS,
            f"w{number}",
            Weights(f"w{number}", f"w{number}.bin", None, None, "x", "any", "x", kind="a/b"),
        )
        (tmp_path / f"{number}").write_bytes(bytes([number]))
    threads = [
        threading.Thread(
            target=pin, args=(str(tmp_path / "m"), f"w{number}", tmp_path / f"{number}")
        )
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read(str(tmp_path / "m")).pins) == [f"w{number}" for number in range(8)]


# Names of one's own


def test_an_added_recogniser_is_loaded_like_its_model(file: Path, tmp_path: Path) -> None:
    models = str(tmp_path / "models")
    [entry] = add(models, "ours_r100", file, "glintr100", "our own", "any", "trained here")
    assert (entry.kind, entry.normalisation, entry.licence, entry.use) == (
        "embed/arcface",
        (127.5, 127.5),
        "our own",
        "any",
    )
    assert WeightFiles(models).path("ours_r100") == f"{models}/embed/ours_r100.bin"
    with pytest.raises(UnknownWeights):
        registered("ours_r100", NOTHING)
    local = read(models)
    assert registered("ours_r100", local).sha256 == SHA256
    assert "ours_r100" in names("embed/arcface", local=local)
    assert "ours_r100" not in names("detect", local=local)
    assert "ours_r100" in names("embed", local=local)


def test_a_file_in_the_models_directory_stays_where_it_is(file: Path, tmp_path: Path) -> None:
    [entry] = add(
        str(tmp_path), "ours", file, "edgeface_xs", "own", "any", normalisation=(0.0, 255.0)
    )
    assert entry.file == "Downloads/loose (1).bin" and entry.normalisation == (0.0, 255.0)
    assert WeightFiles(str(tmp_path)).path("ours") == str(file)
    [second] = add(str(tmp_path), "second", file, "ours", "own", "any")
    assert second.normalisation == (0.0, 255.0), "like one that was added"


def test_an_added_bundle_is_a_folder(pair: None, tmp_path: Path) -> None:
    folder = tmp_path / "finetuned"
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"other weights")
    (folder / "config.json").write_text("{}")
    models = str(tmp_path / "models")
    add(models, "ours", folder, "pair", "own", "any")
    assert WeightFiles(models).folder("ours") == f"{models}/caption/ours/"
    assert names("caption/pair", local=read(models)) == ("pair", "ours")


@pytest.mark.parametrize(
    ("name", "like", "said"),
    [
        ("glintr100", "glintr100", "is registered already; take a name of your own"),
        ("clip_vit_l14", "glintr100", "is registered already"),
        ("../x", "glintr100", "is no name"),
        ("a/b", "glintr100", "is no name"),
        ("", "glintr100", "is no name"),
        ("ours", "glintr10", "did you mean 'glintr100'"),
    ],
)
def test_names_that_cannot_be_added(
    name: str, like: str, said: str, file: Path, tmp_path: Path
) -> None:
    with pytest.raises((Wrong, UnknownWeights), match=said):
        add(str(tmp_path / "models"), name, file, like, "own", "any")


def test_a_name_is_added_once(file: Path, tmp_path: Path) -> None:
    add(str(tmp_path), "ours", file, "glintr100", "own", "any")
    with pytest.raises(Wrong, match=r"registry\.yaml already; take another name"):
        add(str(tmp_path), "ours", file, "glintr100", "own", "any")


def test_an_unknown_use_is_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(
        Wrong, match="'commercial' is not one of any, restricted, non-commercial, unstated"
    ):
        add(str(tmp_path), "ours", file, "glintr100", "own", "commercial")


# Names in parameters


class _Params(BaseModel):
    weights: Annotated[str, WeightsName("embed/arcface", "embed/facenet")] = "edgeface_xs"


@pytest.mark.parametrize("name", ["edgeface_xs", "glintr100", "facenet_vggface2"])
def test_names_of_the_right_kind_are_accepted(name: str) -> None:
    assert _Params(weights=name).weights == name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "glint100",
            "'glint100' names no weights of kind embed/arcface or embed/facenet; did you mean "
            "'glintr100'?",
        ),
        (
            "scrfd_10g_bnkps",
            "'scrfd_10g_bnkps' names no weights of kind embed/arcface or embed/facenet; there "
            "are: edgeface_xs, ",
        ),
        ("../../etc/passwd", "names no weights of kind"),
    ],
)
def test_other_names_are_refused_with_the_nearest(name: str, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        _Params(weights=name)
    assert said in str(caught.value)


def test_added_names_are_parameters_of_real_backends(file: Path, tmp_path: Path) -> None:
    models = str(tmp_path)
    add(models, "ours", file, "edgeface_xs", "own", "any")
    with pytest.raises(ValidationError):
        ArcFaceEmbedParams.model_validate({"weights": "ours"})
    known = knowing(read(models))
    assert ArcFaceEmbedParams.model_validate({"weights": "ours"}, context=known).weights == "ours"
    with pytest.raises(ValidationError, match=r"'our' names no weights .*did you mean 'ours'"):
        ArcFaceEmbedParams.model_validate({"weights": "our"}, context=known)


# registry.yaml by hand


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pins: [", r"registry\.yaml: not YAML: "),
        ("pins: {x: {sha256: abc, bytes: 1}}", r"pins\.x\.sha256: String should match pattern"),
        ("pins: {x: {sha256: '" + "0" * 64 + "'}}", r"pins\.x\.bytes: Field required"),
        ("colours: {}", "colours: Extra inputs are not permitted"),
        ("- a list", "the whole file: Input should be"),
        (
            f"weights: {{ours: {{like: glintr100, file: ../x, sha256: '{SHA256}', bytes: 1, "
            f"licence: own}}}}",
            "not a path below",
        ),
        (
            f"weights: {{ours: {{like: glintr100, file: /x, sha256: '{SHA256}', bytes: 1, "
            f"licence: own}}}}",
            "not a path below",
        ),
        (
            f"weights: {{../x: {{like: glintr100, file: x, sha256: '{SHA256}', bytes: 1, "
            f"licence: own}}}}",
            "is no name",
        ),
        (
            "calibrations: {x: {similarity_threshold: 3, merge_cosine: 0}}",
            "similarity_threshold: Input should be less than or equal to 1",
        ),
        (
            "pins: !!python/object/apply:os.system ['true']",
            "not YAML: could not determine a constructor",
        ),
    ],
)
def test_a_registry_that_cannot_be_read_names_file_and_field(
    text: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(BadRegistry, match=said):
        read(str(tmp_path))
    with pytest.raises(MissingWeights, match=said):
        WeightFiles(str(tmp_path)).path("dlib_5_points")


def test_like_something_that_is_not_registered() -> None:
    local = parse(
        f"weights: {{ours: {{like: nothing, file: x, sha256: '{SHA256}', bytes: 1, licence: "
        f"own}}}}",
        "registry.yaml",
    )
    with pytest.raises(
        UnknownWeights, match="registered like 'nothing', which is not in the registry"
    ):
        registered("ours", local)


def test_an_empty_registry_and_dates_as_yaml_has_them() -> None:
    assert parse("", "registry.yaml") == NOTHING
    found = parse(
        f"pins: {{x: {{sha256: '{SHA256}', bytes: 1, date: 2026-11-21}}}}", "registry.yaml"
    )
    assert found.pins["x"].date == "2026-11-21"


def test_calibrations_are_kept_beside_the_rest(loose: Weights, file: Path, tmp_path: Path) -> None:
    pin(str(tmp_path), "loose", file)
    calibrate(str(tmp_path), "ours", 0.31, 0.29, "measured")
    found = read(str(tmp_path))
    assert found.calibrations["ours"].similarity_threshold == 0.31 and list(found.pins) == ["loose"]
    assert WeightFiles(str(tmp_path)).sha256("loose") == SHA256
