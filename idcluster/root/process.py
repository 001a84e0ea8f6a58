"""Whether a process that somebody wrote down still runs: told by the machine since its start, the
namespace, and the ticks since then.

From /proc itself: a root is also looked at and collected where the packages of a run are not
installed.
"""

import contextlib
import os
import socket
from pathlib import Path


def place() -> str:
    """What tells this machine, since it was started, and this namespace of processes from all
    others; empty if nothing does.

    Containers may share the name of their host, and numbers of processes mean something in their
    namespace alone.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        started(os.getpid())
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def started(pid: int) -> int | None:
    """When a process of this place was started, in ticks since the machine was; None for one that
    was killed. Raises OSError where it is gone, or hidden.

    Not as a time of day: that changes when the clock is set.
    """
    about = Path(f"/proc/{pid}/stat").read_text()
    # The second field is a name in brackets, in which anything may stand.
    state, *rest = about.rpartition(")")[2].split()
    # Killed, and nobody has asked for its exit code yet (Z): in containers often nobody ever does.
    return None if state in "ZX" else int(rest[18])


def runs(pid: int, since: int) -> bool | None:
    """Whether the process of this place runs that was started at `since`, as `started` told; None
    for one that is hidden from us.
    """
    with contextlib.suppress(OSError):
        return started(pid) == since
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return None  # somebody else's: /proc may show users their own processes alone
