"""What the command line says on the terminal: what a run did, and what the gates found."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from timecourse.errors import GateError, UserError

if TYPE_CHECKING:
    from timecourse.checks import CheckResult
    from timecourse.refresh import Outcome


def tell(outcome: "Outcome", console: Console) -> None:
    """What a run did, what was found, and where to look.

    Ends with a UserError where some checkpoints could not be used, although the others were, and no earlier run said
    so; its exit code is that of a failed gate where a gate refused one of them.
    """
    for line in outcome.damaged:
        console.print(escape(f"found damaged: {line}"), soft_wrap=True)
    if outcome.extracted:
        console.print(f"extracted {len(outcome.extracted)} of {outcome.committed} committed checkpoints")
    for checkpoint, holder in outcome.elsewhere.items():
        console.print(escape(f"{checkpoint} is left to {holder}"), soft_wrap=True)
    if outcome.published and outcome.release is not None:
        console.print(f"released {outcome.release.name}")
        if outcome.previous is not None:
            _tell_changes(outcome.previous, outcome.release, console)
    elif not outcome.extracted and not outcome.news and not outcome.elsewhere:
        known = f" but {len(outcome.unusable)} that cannot be used" if outcome.unusable else ""
        also = "" if outcome.release is None else ", and the release is made from them"
        console.print(f"nothing to do: every checkpoint{known} is committed{also}")
    if outcome.release is not None:
        _tell_release(outcome.release, outcome.seconds, console)
    if outcome.news:
        refused = UserError(outcome.unusable_in_words(outcome.news))
        refused.exit_code = GateError.exit_code if outcome.is_gated else UserError.exit_code
        raise refused
    if outcome.unusable:
        console.print(escape(f"as before, {outcome.unusable_in_words(outcome.unusable)}"), soft_wrap=True)


def _tell_changes(previous: Path, release: Path, console: Console) -> None:
    from timecourse.difference import differences

    with suppress(UserError):  # a release that is damaged is compared with nothing
        for line in differences(previous, release):
            console.print(escape(f"  since the last release: {line}"), soft_wrap=True)


def _tell_release(release: Path, seconds: Mapping[str, float], console: Console) -> None:
    from timecourse.summary import summarise

    for line in summarise(release):
        console.print(escape(line), soft_wrap=True)
    if seconds:
        console.print(
            "time: " + ", ".join(f"{phase} {spent:.1f} s" for phase, spent in seconds.items()), soft_wrap=True
        )
    folder = release.parent.parent / "current"
    console.print(f"warehouse: {escape(str(folder / 'warehouse.duckdb'))}", soft_wrap=True)
    console.print(f"report: {escape(str(folder / 'site' / 'index.html'))}", soft_wrap=True)


def tell_checks(checks: Sequence["CheckResult"], console: Console) -> None:
    """Each check's verdict, with the rows that fail it."""
    for result in checks:
        where = f" of {result.checkpoint_id}" if result.checkpoint_id else ""
        console.print(
            escape(f"{result.result}: {result.table_name}{where}: {result.rule} (observed: {result.observed})"),
            soft_wrap=True,
        )
        if result.failing_rows:
            console.print(escape(f"  failing rows ({result.failing_row_count}): {result.failing_rows}"), soft_wrap=True)
