"""The pages of the documentation that are made from the code are those that it makes now."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.stage_facts import STAGES, stage_facts
from schemas.views import VIEWS

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(("page", "command"), [("stages.md", "stages"), ("tables.md", "schema")])
def test_a_generated_page_is_up_to_date(page: str, command: str) -> None:
    made = CliRunner().invoke(app, [command, "--markdown"])
    assert made.exit_code == 0, made.output
    assert (DOCS / page).read_text(encoding="utf-8") == made.stdout, (
        f"idcluster {command} --markdown > docs/{page}"
    )


def test_pages_hold_all_that_there_is() -> None:
    stages, tables = (
        (DOCS / name).read_text(encoding="utf-8") for name in ("stages.md", "tables.md")
    )
    for name in STAGES:
        facts = stage_facts(name)
        assert f"\n## {name}\n" in stages
        for backend in facts.backends:
            assert not backend.lacks, "all backends are loaded where the pages are made"
            assert all(f"| `{one.name}` |" in stages for one in backend.parameters)
    for name, schema in VIEWS.items():
        assert f"\n## {name}\n" in tables
        assert all(f"| `{column.name}` |" in tables for column in schema.columns)


def test_parameters_say_what_they_are_for() -> None:
    """`idcluster stages` and the page show the texts under the fields of the models."""
    silent = [
        f"{name}.{backend.name}.{one.name}"
        for name in STAGES
        for backend in stage_facts(name).backends
        for one in backend.parameters
        if not one.text
    ]
    assert silent == []
