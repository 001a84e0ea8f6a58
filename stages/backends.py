"""Which backends there are, by stage and name. Modules are imported only when their backend is
asked for.
"""

import importlib
from importlib.metadata import entry_points

from schemas.errors import UserError
from schemas.wording import near
from stages.stage import Stage

BACKENDS: dict[str, dict[str, str]] = {
    "crawl": {"files": "stages.crawl.local_files:FilesCrawl"},
    "detect": {
        "dlib": "stages.detect.dlib:DlibDetect",
        "scrfd": "stages.detect.scrfd:ScrfdDetect",
        "retinaface": "stages.detect.retinaface:RetinaFaceDetect",
        "mtcnn": "stages.detect.mtcnn:MtcnnDetect",
        "yunet": "stages.detect.yunet:YunetDetect",
    },
    "embed": {
        "dlib": "stages.embed.dlib:DlibEmbed",
        "arcface": "stages.embed.arcface:ArcFaceEmbed",
        "iresnet": "stages.embed.iresnet:IResNetEmbed",
        "facenet": "stages.embed.facenet:FacenetEmbed",
    },
    "screen": {"limits": "stages.screen.limits:LimitsScreen"},
    "clean": {
        "linkage": "stages.clean.linkage:LinkageClean",
        "kmeans_paper": "stages.clean.kmeans_paper:KMeansPaperClean",
    },
    "people": {"summary": "stages.people.summary:SummaryPeople"},
    "match": {"indicators": "stages.match.indicators:IndicatorMatch"},
    "landmark": {
        "dlib68": "stages.landmark.dlib68:Dlib68Landmark",
        "fan68": "stages.landmark.fan68:Fan68Landmark",
    },
    "fit": {"pnp": "stages.fit.pnp:PnpFit"},
    "affect": {},
    "segment": {"grabcut": "stages.segment.grabcut:GrabCutSegment"},
    "render": {},
    "latents": {},
    "caption": {"attributes": "stages.caption.attributes:AttributesCaption"},
}
"""The order is the order in which stages run; the first backend of each is its default. A stage
without one needs a backend from a package of somebody's own.
"""
ENTRY_POINTS = "idcluster.backends"
"""The group in which an installed package names its backends: `affect.emonet =
"package.module:Class"`.
"""
RENAMED: dict[str, dict[str, str]] = {
    "clean": {"kmeans": "is now 'kmeans_paper' (the papers' method); the default is 'linkage'"}
}
"""Names of backends that were, and what became of them."""


class UnknownBackend(UserError, ValueError):
    """A stage or backend name that nothing answers to; the message gives the nearest one that
    exists.
    """

    exit_code = 2


def named(stage: str) -> dict[str, str]:
    """The backends of a stage that have a name: ours, and those that installed packages bring."""
    found = dict(BACKENDS[stage])
    for point in entry_points(group=ENTRY_POINTS):
        of, _, name = point.name.partition(".")
        if of == stage and name:
            found.setdefault(name, point.value)
    return found


def backend(stage: str, name: str | None = None) -> type[Stage]:
    """The class of a backend: by its name, or as `package.module:Class`; the stage's default
    without one.

    Raises UnknownBackend, and ImportError where the module, or what it needs, cannot be imported.
    """
    if stage not in BACKENDS:
        raise UnknownBackend(f"no stage {stage!r}{_nearest(stage, BACKENDS)}")
    chosen = default(stage) if name is None else name
    where = _place(stage, chosen)
    module, _, attribute = where.partition(":")
    found = getattr(importlib.import_module(module), attribute, None)
    if not (isinstance(found, type) and issubclass(found, Stage)):
        raise UnknownBackend(f"{where} is no class that derives from stages.stage.Stage")
    if getattr(found, "name", None) != stage:
        raise UnknownBackend(
            f"{where} is a backend of the stage {getattr(found, 'name', None)!r}, not of {stage!r}"
        )
    if chosen not in BACKENDS[stage] and found.backend in BACKENDS[stage]:
        raise UnknownBackend(
            f"{where} calls itself {found.backend!r}, as a backend of ours does: their rows would "
            "be taken for one another's; give its `backend` another value"
        )
    return found


def default(stage: str) -> str:
    """The name of the backend that a DAG means which names none. Raises UnknownBackend."""
    known = BACKENDS[stage] or named(stage)
    if not known:
        raise UnknownBackend(
            f"stage {stage!r} has no backend yet; a package of your own can bring one "
            "(`backend: my_package.module:Class`)"
        )
    return next(iter(known))


def place(stage: str, name: str | None) -> str:
    """The name of one of our backends, `package.module:Class` of others. Raises UnknownBackend."""
    chosen = default(stage) if name is None else name
    return chosen if chosen in BACKENDS[stage] else _place(stage, chosen)


def _place(stage: str, name: str) -> str:
    """Where the class of a backend is."""
    if ":" in name:
        return name
    if name in BACKENDS[stage]:
        return BACKENDS[stage][name]  # without looking through all installed packages
    known = named(stage)
    if name not in known:
        raise UnknownBackend(f"stage {stage!r} has no backend {name!r}{instead(stage, name)}")
    return known[name]


def instead(stage: str, name: str) -> str:
    """What to write in place of a backend that a stage does not have, to end a message with."""
    became = RENAMED.get(stage, {}).get(name)
    return f"; {name!r} {became}" if became else _nearest(name, named(stage))


def _nearest(
    name: str, known: dict[str, object] | dict[str, str] | dict[str, dict[str, str]]
) -> str:
    close = near(name, known)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(known)}"
