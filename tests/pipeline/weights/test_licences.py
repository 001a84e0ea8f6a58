"""Who may use which weights: what a DAG needs, what was accepted where, and what a run says and
keeps.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from pipeline.weights.licences import (
    Acceptance,
    NotAccepted,
    Term,
    acceptance,
    accepted,
    lacking,
    places,
    settle,
    terms,
)
from stages.stage import Stage
from stages.weights import NOTHING

TERM = Term("dlib_68_points", "trained on iBUG 300-W", "non-commercial", ("landmark",))


class _Loads(Stage):
    name: ClassVar[str] = "caption"
    backend: ClassVar[str] = "x"
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def __init__(self, name: str, *weights: str) -> None:
        super().__init__()
        self._name, self._weights = name, weights

    @property
    def weights(self) -> tuple[str, ...]:
        return self._weights


def test_what_is_free_for_all_needs_no_word() -> None:
    stages = [_Loads("detect", "dlib_5_points"), _Loads("caption", "clip_vit_b32/config.json")]
    assert terms(stages, NOTHING) == []


def test_a_model_of_several_files_is_one_term() -> None:
    stage = _Loads(
        "caption", "blip2_opt_2_7b/config.json", "blip2_opt_2_7b/tokenizer.json", "sd15_checkpoint"
    )
    found = terms([stage, stage], NOTHING)
    assert [(term.weights, term.use, term.stages) for term in found] == [
        ("blip2_opt_2_7b", "non-commercial", ("caption",)),
        ("sd15_checkpoint", "restricted", ("caption",)),
    ]


def test_a_word_given_once_is_the_users_and_a_models_directory_may_hold_one_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    own = tmp_path / "config" / "idcluster" / "accepted.yaml"
    with pytest.raises(
        NotAccepted,
        match=r"dlib_68_points \(stage landmark\): non-commercial: trained on "
        r"iBUG(.|\n)*--accept-licence",
    ):
        settle([TERM], str(tmp_path), accept=False)
    said: list[str] = []
    [given] = settle([TERM], str(tmp_path), True, said.append)
    assert said == [f"accepted and written down in {own}: dlib_68_points"]
    assert given.by.count("@") == 1 and given.when.endswith("+00:00")
    assert settle([TERM], str(tmp_path), False, said.append) == [given], "asked once"
    assert len(said) == 1
    assert yaml.safe_load(own.read_text())["accepted"][0]["weights"] == "dlib_68_points"
    assert not (tmp_path / "accepted.yaml").exists()
    own.rename(tmp_path / "accepted.yaml")
    assert settle([TERM], str(tmp_path), False) == [given]


def test_another_licence_is_asked_for_again(tmp_path: Path) -> None:
    settle([TERM], str(tmp_path), True)
    changed = Term(TERM.weights, "now forbidden on Tuesdays", TERM.use, TERM.stages)
    assert lacking([changed], str(tmp_path)) == [changed]
    settle([changed], str(tmp_path), True)
    assert [one.licence for one in accepted(str(tmp_path)).values()] == [
        "now forbidden on Tuesdays"
    ]


@pytest.mark.parametrize("models", [None, "s3://bucket/models", "gone"])
def test_without_a_folder_to_write_into_it_is_the_users_word(
    models: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(
        "pipeline.weights.licences._of_store", lambda url: []
    )  # no network here; test_stored.py has a store
    models = str(tmp_path / "gone") if models == "gone" else models
    settle([TERM], models, True)
    assert places(models) == [tmp_path / "config" / "idcluster" / "accepted.yaml"]
    assert lacking([TERM], models) == [] and lacking([TERM], str(tmp_path)) == []


def test_a_folder_that_cannot_be_written_leaves_it_to_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "models").mkdir()
    (
        tmp_path / "models" / "accepted.yaml"
    ).mkdir()  # stands for a file system that is read-only; root may write anywhere else
    said: list[str] = []
    settle([TERM], str(tmp_path / "models"), True, said.append)
    assert said == [
        f"accepted and written down in {tmp_path}/config/idcluster/accepted.yaml: dlib_68_points"
    ]
    (tmp_path / "config" / "idcluster" / "accepted.yaml").unlink()
    (tmp_path / "config" / "idcluster" / "accepted.yaml").mkdir()
    settle([TERM], str(tmp_path / "models"), True, said.append)
    assert said[-1] == "accepted for this run; it can be written down nowhere: dlib_68_points"


@pytest.mark.parametrize("content", ["[", "accepted: 3", "accepted: [{weights: x}]", "", "\x00"])
def test_a_damaged_file_means_asking_again(content: str, tmp_path: Path) -> None:
    (tmp_path / "accepted.yaml").write_text(content)
    assert accepted(str(tmp_path)) == {}
    settle([TERM], str(tmp_path), True)
    assert list(accepted(str(tmp_path))) == ["dlib_68_points"]


def test_acceptance_says_what_when_and_by_whom() -> None:
    word = acceptance(TERM)
    given: dict[str, Any] = vars(word)
    assert word == Acceptance(**given) and (word.weights, word.licence, word.use) == (
        TERM.weights,
        TERM.licence,
        TERM.use,
    )
