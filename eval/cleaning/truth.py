"""What labels say of the photographs of a dataset: right, wrong, or of a group of their own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from eval.labels import BadLabels, read_rows

RIGHT, WRONG = "right", "wrong"


@dataclass(frozen=True)
class Label:
    """What somebody said of a photograph. `truth`: right, wrong, or the name of a group that is
    reported apart.
    """

    truth: str
    person: str | None


def read_labels(path: Path) -> dict[str, Label]:
    """Labels by file: `<folder>/<file>` as in the source, or the whole address.

    A CSV file with a column `file` and one or both of `person` (whom it shows) and `label_check`:
    what begins with `ok`, `right` or `single` is right, with `wrong` wrong, anything else names a
    group by its first word that is reported apart (`hard`, `scraped: agrees`); empty is right.
    Raises BadLabels.
    """
    found: dict[str, Label] = {}
    for row in read_rows(path, one_of=("person", "label_check")):
        if row.file in found:
            raise BadLabels(f"{row.where}: {row.file} is labelled twice; leave one line of it")
        found[row.file] = Label(_truth(row.label_check), row.person or None)
    if not found:
        raise BadLabels(f"{path}: there are no labels in it")
    return found


def _truth(text: str) -> str:
    word = text.replace(":", " ").replace("(", " ").split()[:1]
    first = word[0].casefold() if word else "ok"
    return RIGHT if first in ("ok", "right", "single") else first


def label_of(address: str, labels: Mapping[str, Label]) -> Label | None:
    """The label of an address: of itself, or of what stands behind the name of the source
    (`local:Ada/1.jpg`).
    """
    return labels.get(address) or labels.get(address.partition(":")[2])
