"""Errors that a user can cause: each is shown as one line, without a traceback."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from timecourse.checks import CheckResult


LONGEST = 2000
"""Characters of a message; what is quoted in it may be of any length, and is cut in the middle."""


class UserError(Exception):
    """Something the user can mend. The message is one line: what is wrong and what to do.

    Line breaks in it become spaces, and characters that a terminal obeys or cannot show are escaped: names that are
    quoted come from files. `exit_code` is what the command line ends with: 1 for an error, 2 for wrong usage, 3 for a
    failed gate, 130 for Ctrl-C.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        line = " ".join(message.split())
        shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)
        half = LONGEST // 2  # the beginning says what it is about, the end what to do
        super().__init__(shown if len(shown) <= LONGEST else f"{shown[:half]} … {shown[-half:]}")


class UsageError(UserError):
    """Settings or flags that contradict themselves or name what does not exist."""

    exit_code = 2


class SourceError(UserError):
    """Where checkpoints come from cannot be reached or does not let the user in: it says nothing about one of them."""


class MachineError(UserError):
    """This machine lacks what was asked of it, such as a device or a package: it says nothing about a checkpoint."""


class FetchError(UserError):
    """A checkpoint's files could not be brought here this time."""


class ChangedError(UserError):
    """A checkpoint's files were replaced while it was being read."""


class Interrupted(UserError):
    """The user ended the run, by Ctrl-C."""

    exit_code = 130


class GateError(UserError):
    """Data that failed its gate. The last release stays in place; `failed` holds the checks with their failing rows."""

    exit_code = 3

    def __init__(self, message: str, failed: "Sequence[CheckResult]") -> None:
        super().__init__(message)
        self.failed = failed

    def __reduce__(self) -> "tuple[type[GateError], tuple[str, Sequence[CheckResult]]]":
        return GateError, (str(self), self.failed)  # for the way back from another process
