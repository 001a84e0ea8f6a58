"""Which weights of the registry some backend can load; others wait for their code."""

from stages.backends import BACKENDS
from stages.weights import NOTHING, LocalRegistry, all_names, names, registered


def loadable(local: LocalRegistry = NOTHING) -> frozenset[str]:
    """The names of weights of the kinds that backends load. No backend is imported for it: an
    install without their packages lists weights too.
    """
    backends = {f"{stage}:{name}" for stage, known in BACKENDS.items() for name in known}
    entries = [registered(name, NOTHING) for name in all_names(NOTHING)]
    kinds = {entry.kind for entry in entries if backends.intersection(entry.needed_by)}
    return frozenset(names(*kinds, local=local))
