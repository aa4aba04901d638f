"""Errors that a user can cause: each is shown as one line, without a traceback."""


class UserError(Exception):
    """Something the user can mend. The message is one line: what is wrong and what to do.

    `exit_code` is what the command line ends with: 1 for an error, 2 for wrong usage, 3 for a failed gate.
    """

    exit_code = 1


class UsageError(UserError):
    """Settings or flags that contradict themselves or name what does not exist."""

    exit_code = 2


class GateError(UserError):
    """Data that failed its gate. The last release stays in place."""

    exit_code = 3
