"""Errors that a user can cause: each is shown as one line, without a traceback."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from timecourse.checks import CheckResult


class UserError(Exception):
    """Something the user can mend. The message is one line: what is wrong and what to do.

    `exit_code` is what the command line ends with: 1 for an error, 2 for wrong usage, 3 for a failed gate.
    """

    exit_code = 1


class UsageError(UserError):
    """Settings or flags that contradict themselves or name what does not exist."""

    exit_code = 2


class SourceError(UserError):
    """Where checkpoints come from cannot be reached or does not let the user in: it says nothing about one of them."""


class GateError(UserError):
    """Data that failed its gate. The last release stays in place; `failed` holds the checks with their failing rows."""

    exit_code = 3

    def __init__(self, message: str, failed: "Sequence[CheckResult]") -> None:
        super().__init__(message)
        self.failed = failed
