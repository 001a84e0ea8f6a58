"""Pages of the documentation that are made from the code: `docs/stages.md` and `docs/tables.md`."""

from pipeline.stage_facts import STAGES, stage_facts
from schemas.views import VIEWS


def stages_page() -> str:
    """`docs/stages.md`."""
    lines = [
        "# Stages",
        "",
        "Generated from the code by `idcluster stages --markdown`; a test compares it.",
        "",
        "| stage | writes | backends, the default first |",
        "|---|---|---|",
    ]
    found = [stage_facts(name) for name in STAGES]
    for stage in found:
        names = ", ".join(f"`{one.name}`" for one in stage.backends) or "none yet"
        lines.append(f"| [`{stage.name}`](#{stage.name}) | `{stage.table}` | {names} |")
    for stage in found:
        lines += ["", f"## {stage.name}", "", f"Writes `{stage.table}`: {stage.text}"]
        if not stage.backends:
            lines += ["", "No backend yet. A package of your own can bring one."]
        for place, one in enumerate(stage.backends):
            default = ", the default" if not place and len(stage.backends) > 1 else ""
            lines += ["", f"### {stage.name}: `{one.name}`{default}", "", one.text]
            if one.weights:
                names = ", ".join(f"`{name}`" for name in one.weights)
                lines += ["", f"Weights by default: {names}."]
            if not one.parameters:
                lines += ["", "No parameters."]
                continue
            lines += ["", "| parameter | type | default | |", "|---|---|---|---|"]
            lines += [
                f"| `{p.name}` | {_cell(p.kind)} | {_code(p.default)} | {_cell(p.text)} |"
                for p in one.parameters
            ]
    return "\n".join(lines) + "\n"


def tables_page() -> str:
    """`docs/tables.md`."""
    lines = [
        "# Tables",
        "",
        "Generated from the code by `idcluster schema --markdown`; a test compares it.",
        "`idcluster query ROOT SQL` and `Dataset.sql` ask them.",
    ]
    for name, schema in VIEWS.items():
        lines += ["", f"## {name}", "", schema.description, ""]
        lines += ["| column | type | |", "|---|---|---|"]
        lines += [
            f"| `{column.name}` | {_cell(str(column.type))} | {_cell(column.description)} |"
            for column in schema.columns
        ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _code(text: str) -> str:
    return text if text == "needed" else f"`{_cell(text)}`"
