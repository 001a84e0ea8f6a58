"""Which backends there are, by stage and name. Modules are imported only when their backend is
asked for.
"""

import importlib

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
    "caption": {"attributes": "stages.caption.attributes:AttributesCaption"},
    "landmark": {
        "dlib68": "stages.landmark.dlib68:Dlib68Landmark",
        "fan68": "stages.landmark.fan68:Fan68Landmark",
    },
    "fit": {"pnp": "stages.fit.pnp:PnpFit"},
    "segment": {"grabcut": "stages.segment.grabcut:GrabCutSegment"},
}
"""The order is the order in which stages run; the first backend of each is its default."""


RENAMED: dict[str, dict[str, str]] = {
    "clean": {"kmeans": "is now 'kmeans_paper' (the papers' method); the default is 'linkage'"}
}
"""Names of backends that were, and what became of them."""


class UnknownBackend(UserError, ValueError):
    """A stage or backend name that nothing answers to; the message gives the nearest one that
    exists.
    """

    exit_code = 2


def backend(stage: str, name: str | None = None) -> type[Stage]:
    """The class of a backend; the stage's default without a name. Raises UnknownBackend."""
    if stage not in BACKENDS:
        raise UnknownBackend(f"no stage {stage!r}{_nearest(stage, BACKENDS)}")
    known = BACKENDS[stage]
    name = next(iter(known)) if name is None else name
    if name not in known:
        raise UnknownBackend(f"stage {stage!r} has no backend {name!r}{instead(stage, name)}")
    module, _, attribute = known[name].partition(":")
    found: type[Stage] = getattr(importlib.import_module(module), attribute)
    return found


def instead(stage: str, name: str) -> str:
    """What to write in place of a backend that a stage does not have, to end a message with."""
    became = RENAMED.get(stage, {}).get(name)
    return f"; {name!r} {became}" if became else _nearest(name, BACKENDS[stage])


def _nearest(
    name: str, known: dict[str, object] | dict[str, str] | dict[str, dict[str, str]]
) -> str:
    close = near(name, known)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(known)}"
