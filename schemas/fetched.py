"""What fetching one address brought: what a source gives, the spool keeps and the crawl stage makes
rows of.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fetched:
    """What a fetch brought: the bytes, or a status and reason that say why there are none."""

    data: bytes | None
    status: str = "ok"
    reason: str | None = None
    detail: str | None = None
    opt_out: str | None = None
    fetched_at: int | None = None  # microseconds since 1970, UTC; None for files of a folder
    http_status: int | None = None  # of the last answer; None where there was none, and for files
    attempts: int | None = None  # requests that it took
    final_address: str | None = None  # where redirects led
