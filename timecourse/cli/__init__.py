"""The command line: one module of commands for measuring, one for keeping a lake, one for asking it."""

import errno
import os
import sys

import duckdb
import typer
from rich.markup import escape

from timecourse.cli import asking, keeping, measuring
from timecourse.cli.options import app, errors
from timecourse.errors import GateError, Interrupted, UsageError, UserError
from timecourse.telling import tell_checks

__all__ = ["app", "asking", "keeping", "main", "measuring"]


def main(arguments: list[str] | None = None) -> None:
    """Entry point: errors that a user can mend are one line and an exit code; tracebacks are for bugs."""
    try:
        code = app(arguments, standalone_mode=False)
        if code == Interrupted.exit_code:  # what typer makes of Ctrl-C
            _fail("interrupted; run it again to go on", code)
        sys.exit(code)
    except typer.TyperException as error:  # a flag, value or command that is none
        if not error.format_message():  # no command at all: the help was shown
            sys.exit(UsageError.exit_code)
        _fail(error.format_message(), UsageError.exit_code)
    except typer.Abort:
        _fail("interrupted", Interrupted.exit_code)
    except UserError as error:
        if isinstance(error, GateError):
            tell_checks(error.failed, errors)
        _fail(str(error), error.exit_code)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _fail(f"{error.strerror or error}{where}", UserError.exit_code)
    except duckdb.Error as error:
        if not isinstance(error, duckdb.IOException) and "Could not write file" not in str(error):
            raise
        _fail(str(error), UserError.exit_code)


def _fail(message: str, code: int) -> None:
    if os.strerror(errno.ENOSPC) in message:
        message += "; free some space, then run it again"
    errors.print(f"error: {escape(' '.join(message.split()))}", soft_wrap=True)
    sys.exit(code)
