"""The base of all errors that a user can mend: what the command line tells without a traceback."""

from typing import ClassVar


class UserError(Exception):
    """Something that whoever started it can mend; the message says what is wrong, where, and what
    to do.

    `exit_code` is what the command line ends with: 2 for a usage error (in the command
    line, a DAG, or a file of decisions, labels or splits), else 1.
    """

    exit_code: ClassVar[int] = 1
