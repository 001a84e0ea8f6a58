"""What is said to a user: as usual, quietly or with details, and into a log file."""

import warnings
from contextlib import suppress
from datetime import datetime
from typing import Any, TextIO

from rich.console import Console

WARNING = "yellow"
"""The style of what is said however quiet a run shall be."""


def without_remarks_of_pillow() -> None:
    """For processes of our own: Pillow warns of every odd tag and of every large image. Whatever
    costs pixels raises, and the row says so.
    """
    for kind in (UserWarning, RuntimeWarning):
        warnings.filterwarnings("ignore", category=kind, module=r"PIL\.")


class Teller(Console):
    """A console that says more or less than usual, and writes all of it into a log file, line by
    line with the time.

    `level`: -1 says warnings alone, 1 says details as well.
    """

    def __init__(self, level: int = 0, log: TextIO | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.level, self.log_file = level, log

    def print(self, *objects: Any, **options: Any) -> None:
        """As a console does; quietly only what has the style of a warning."""
        self.note(*objects)
        if self.level >= 0 or options.get("style") == WARNING:
            super().print(*objects, **options)

    def detail(self, text: str) -> None:
        """What is said where more is asked for, and in the log file."""
        self.note(text)
        if self.level > 0:
            super().print(text, style="dim", highlight=False)

    def note(self, *objects: Any) -> None:
        """Into the log file alone. One that cannot be written any more ends no run: it is said, and
        the run goes on without.
        """
        if self.log_file is None:
            return
        plain = Console(width=200, highlight=False, markup=False, color_system=None, soft_wrap=True)
        with plain.capture() as captured:
            plain.print(*objects)
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        lines = [f"{now} {line}\n" for line in captured.get().splitlines() if line.strip()]
        try:
            self.log_file.write("".join(lines))
            self.log_file.flush()
        except OSError as error:
            with suppress(OSError):  # it would try to write what is left
                self.log_file.close()
            self.log_file = None
            super().print(
                f"note: the log file cannot be written any more: {error.strerror}",
                style=WARNING,
                highlight=False,
            )


def detail(console: Console, text: str) -> None:
    """Say `text` where more is asked for."""
    if isinstance(console, Teller):
        console.detail(text)
