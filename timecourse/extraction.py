"""One checkpoint's extraction, from its weights to its commit: what is done with each, wherever it is done.

A task names a checkpoint, and is carried to another process, perhaps on another machine, that sees the same lake and
the same sources. It may be called twice, by two processes at once, or after it was done: the lake says what is left.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from timecourse.checks import CheckResult
from timecourse.config import Settings
from timecourse.errors import ChangedError, FetchError, MachineError, SourceError, UsageError, UserError
from timecourse.extract.checkpoints.checkpoint import Source
from timecourse.extract.identity import ExtractionRequest
from timecourse.lake import Lake
from timecourse.plan import Opening, fetch
from timecourse.run_log import log, run_log

if TYPE_CHECKING:
    from timecourse.extract.job import Machine


@dataclass(frozen=True)
class Extracted:
    """What became of a checkpoint: it is committed, or `reason` says why not, or `holder` which process is on it.

    None of these where nothing was left to do: another process had committed it meanwhile.
    """

    is_committed: bool = False
    reason: str | None = None
    holder: str | None = None


@dataclass(frozen=True)
class ExtractionTask:
    """A checkpoint that is to be extracted. before: its commit file when that was planned."""

    opening: Opening
    before: bytes | None

    @property
    def label(self) -> str:
        """`<series>/<checkpoint name>`."""
        return self.opening.checkpoint_id


def machine_of(settings: Settings) -> "Machine":
    """How jobs run here."""
    from timecourse.extract.job import Machine

    return Machine(settings.machine.device, settings.machine.batch_size, settings.machine.threads)


def run_task(task: ExtractionTask) -> Extracted:
    """Claim, fetch, extract, gate and commit a checkpoint, or set it aside; where it is not done already.

    Raises SourceError, MachineError and UsageError: they say nothing about the checkpoint.
    """
    settings, names = task.opening.settings, (task.opening.settings.series_id, task.opening.name)
    lake = Lake(settings.lake.directory)
    with run_log(lake, f"extract {task.label}"):
        claim = lake.claim(*names)
        if claim is None:
            return Extracted(holder=lake.claimed_by(*names))
        with claim:
            try:
                source, request = task.opening.open()
            except (ChangedError, FetchError) as passing:
                return Extracted(reason=str(passing))
            if is_done(lake, request, task.before):
                return Extracted()
            error = fetch(source, request.checkpoint)
            extracted = extract_claimed(lake, source, request, error, machine_of(settings))
            source.evict(request.checkpoint)
            return extracted


def extract_claimed(
    lake: Lake,
    source: Source,
    request: ExtractionRequest,
    error: UserError | None,
    machine: "Machine",
    advance: Callable[[int], None] = lambda _: None,
) -> Extracted:
    """Extract, gate and commit a checkpoint whose claim this process holds, or set it aside.

    `error`: why its weights cannot be used, if they cannot. Raises as `run_task` does.
    """
    from timecourse.expectations.gate import gate_extraction

    names = (request.series_id, request.checkpoint.name)
    reason, is_gate = None, False
    start = time.perf_counter()
    with lake.incoming_extraction(*names) as folder:
        try:
            rows = _measured(source, request, error, folder, machine, advance)
        except (SourceError, MachineError, UsageError):
            raise
        except (ChangedError, FetchError) as passing:  # the next run tries again
            return Extracted(reason=str(passing))
        except UserError as refused:
            reason = str(refused)
        else:
            checks = gate_extraction(folder)
            if refusals := [check for check in checks if check.result == "fail"]:
                reason, is_gate = _refused(request.checkpoint.name, checks, refusals), True
            else:
                lake.commit(
                    folder,
                    series_id=request.series_id,
                    checkpoint_name=request.checkpoint.name,
                    extraction_id=request.extraction_id,
                    inputs=request.inputs,
                    rows=rows,
                    checks=checks,
                )
                log("committed", checkpoint=request.checkpoint_id, seconds=time.perf_counter() - start)
    if reason is not None:
        lake.set_aside(*names, extraction_id=request.extraction_id, reason=reason, is_gate=is_gate)
        log("set aside", checkpoint=request.checkpoint_id, reason=reason)
    return Extracted(is_committed=reason is None, reason=reason)


def _measured(
    source: Source,
    request: ExtractionRequest,
    error: UserError | None,
    folder: Path,
    machine: "Machine",
    advance: Callable[[int], None],
) -> dict[str, int]:
    """Extract a checkpoint into a folder; rows by table. Raises ChangedError before any other error of it."""
    from timecourse.extract.job import extract

    try:
        if error is not None:
            raise error
        rows = extract(request, folder, machine, advance)
    except UserError:
        source.check_unchanged(request.checkpoint)
        raise
    source.check_unchanged(request.checkpoint)
    return rows


def is_done(lake: Lake, request: ExtractionRequest, before: bytes | None) -> bool:
    """Whether a checkpoint was committed as it is wanted after the plan was made, when its commit file was `before`."""
    path = lake.commit_path(request.series_id, request.checkpoint.name)
    if not path.is_file() or path.read_bytes() == before:
        return False
    committed = {commit.checkpoint_id: commit.extraction_id for commit in lake.readable_commits()[0]}
    return committed.get(request.checkpoint_id) == request.extraction_id


def _refused(name: str, checks: Sequence[CheckResult], refusals: Sequence[CheckResult]) -> str:
    first = refusals[0]
    return (
        f"checkpoint {name!r} failed {len(refusals)} of {len(checks)} checks, first {first.check_id}: {first.rule} "
        f"({first.failing_row_count} failing rows)"
    )
