"""Licences of weights: what a DAG needs that may not be used for everything, and who said when that
their use is allowed.
"""

import getpass
import os
import secrets
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from idcluster.root.storage import Store
from pipeline.weights.stored import is_url
from schemas.errors import UserError
from stages.stage import Stage
from stages.weights import LocalRegistry, registered

FILE = "accepted.yaml"
_HEAD = (
    "# Licences of weights that were accepted here; `idcluster run --accept-licence` writes it.\n"
)


class NotAccepted(UserError, RuntimeError):
    """A DAG loads weights that may not be used for everything, and nobody has said that this use is
    allowed.
    """


@dataclass(frozen=True)
class Term:
    """Weights with a licence that allows not every use, and the stages that load them."""

    weights: str
    licence: str
    use: str
    stages: tuple[str, ...]


@dataclass(frozen=True)
class Acceptance:
    """Somebody's word that the use of these weights is allowed. `when`: UTC."""

    weights: str
    licence: str
    use: str
    when: str
    by: str


def terms(stages: Iterable[Stage], local: LocalRegistry) -> list[Term]:
    """What the stages load that may not be used for everything, a line for each model. `local`:
    what the team registered itself.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    for stage in stages:
        for name in stage.weights:
            entry = registered(name, local)
            if entry.use != "any":
                users = found.setdefault((entry.bundle or entry.name, entry.licence, entry.use), [])
                users.extend([stage.name] if stage.name not in users else [])
    return [Term(*key, tuple(users)) for key, users in found.items()]


def places(models: str | None) -> list[Path]:
    """Where acceptances are remembered: in the models directory if there is one, and in the user's
    configuration.
    """
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    own = Path(home) / "idcluster" / FILE
    if models is None or is_url(models):
        return [own]
    folder = Path(os.path.expanduser(models.removeprefix("file://")))
    return [folder / FILE, own] if folder.is_dir() else [own]


def accepted(models: str | None) -> dict[str, Acceptance]:
    """By weights, what was accepted; the user's word goes before the models directory's."""
    found: dict[str, Acceptance] = {}
    for place in places(models):
        found |= {one.weights: one for one in _read(place)}
    if models is not None and is_url(models):
        found |= {one.weights: one for one in _of_store(models)}
    return found


def lacking(wanted: Sequence[Term], models: str | None) -> list[Term]:
    """What has not been accepted, or was accepted under another licence."""
    words = {name: (word.licence, word.use) for name, word in accepted(models).items()}
    return [term for term in wanted if words.get(term.weights) != (term.licence, term.use)]


def settle(
    wanted: Sequence[Term],
    models: str | None,
    accept: bool,
    say: Callable[[str], None] = lambda text: None,
) -> list[Acceptance]:
    """The acceptances that a run rests on.

    With `accept` the word is given now where it is open, and remembered where that can be written.
    Raises NotAccepted.
    """
    open_terms = lacking(wanted, models)
    if open_terms and not accept:
        raise NotAccepted(_request(open_terms))
    given = [acceptance(term) for term in open_terms]
    if given:
        # The user's own file first: a word is somebody's, and a models directory may serve many.
        place = _remember(given, list(reversed(places(models))))
        where = (
            "for this run; it can be written down nowhere"
            if place is None
            else f"and written down in {place}"
        )
        say(f"accepted {where}: {', '.join(one.weights for one in given)}")
    known = {**accepted(models), **{one.weights: one for one in given}}
    return [known[term.weights] for term in wanted]


def acceptance(term: Term) -> Acceptance:
    """Acceptance by whoever runs this, now."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return Acceptance(
        term.weights, term.licence, term.use, when, f"{_user()}@{socket.gethostname()}"
    )


def as_records(given: Iterable[Acceptance]) -> list[dict[str, Any]]:
    """For the record of a run."""
    return [asdict(one) for one in given]


def _request(open_terms: Sequence[Term]) -> str:
    lines = [f"this DAG loads weights that may not be used for everything ({len(open_terms)}):"]
    lines += [
        f"  {term.weights} (stage {', '.join(term.stages)}): {term.use}: {term.licence}"
        for term in open_terms
    ]
    lines += [
        "If your use is allowed, say so once: `idcluster run ... --accept-licence`. It is "
        "remembered, and kept in the record of the run.",
        "`idcluster models licences --dag DAG` shows all of them.",
    ]
    return "\n".join(lines)


def _of_store(url: str) -> list[Acceptance]:
    """What lies beside the weights in an object store: a models directory that was put there as it
    was.
    """
    try:
        return _parsed(Store(url, patience=10.0).read(FILE))
    except Exception:  # noqa: BLE001 - the clients below fsspec have no common error; whoever is not understood asks again
        return []


def _read(place: Path) -> list[Acceptance]:
    try:
        return _parsed(place.read_bytes())
    except OSError:
        return []


def _parsed(content: bytes) -> list[Acceptance]:
    try:
        document = yaml.safe_load(content)
        return [
            Acceptance(**{name: str(item[name]) for name in Acceptance.__dataclass_fields__})
            for item in document["accepted"]
        ]
    except (UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError):
        return []  # whoever damaged the file is asked again


def _remember(given: Sequence[Acceptance], candidates: Sequence[Path]) -> Path | None:
    for place in candidates:
        kept = {one.weights: one for one in (*_read(place), *given)}
        text = yaml.safe_dump(
            {"accepted": as_records(kept.values())}, sort_keys=False, allow_unicode=True, width=130
        )
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary = place.with_name(f".{secrets.token_hex(8)}.tmp")
            try:
                temporary.write_text(_HEAD + text, encoding="utf-8")
                os.replace(temporary, place)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError:
            continue  # models directories are often read-only
        return place
    return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as containers have it
        return str(os.getuid())
