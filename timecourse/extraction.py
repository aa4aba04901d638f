"""One checkpoint's extraction, from its weights to its commit: what is done with each, wherever it is done.

A task names a checkpoint, and is carried to another process, perhaps on another machine, that sees the same lake and
the same sources. It may be called twice, by two processes at once, or after it was done: the lake says what is left.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from timecourse.checks import CheckResult
from timecourse.config import Settings
from timecourse.errors import ChangedError, FetchError, MachineError, SourceError, UsageError, UserError
from timecourse.extract.checkpoints.checkpoint import Source, refusing_what_is_gone
from timecourse.extract.identity import ExtractionRequest
from timecourse.extract.parts import WHOLE, Part
from timecourse.lake import Lake
from timecourse.plan import Opening, fetch
from timecourse.run_log import log, run_log

if TYPE_CHECKING:
    from timecourse.extract.job import Machine, Measured


@dataclass(frozen=True)
class Extracted:
    """What became of a checkpoint: it is committed, or `reason` says why not, or `holder` which process is on it.

    None of these where nothing was left to do: another process had committed it meanwhile, or will with its last part.
    """

    is_committed: bool = False
    reason: str | None = None
    holder: str | None = None


@dataclass(frozen=True)
class ExtractionTask:
    """A checkpoint, or a part of its prompts, that is to be extracted. before: its commit file when it was planned."""

    opening: Opening
    before: bytes | None
    part: Part = WHOLE

    @property
    def label(self) -> str:
        """`<series>/<checkpoint name>`."""
        return self.opening.checkpoint_id


def machine_of(settings: Settings) -> "Machine":
    """How jobs run here."""
    from timecourse.extract.job import Machine

    on = settings.machine
    return Machine(on.device, on.batch_size, on.threads, on.memory_gb)


def run_task(task: ExtractionTask) -> Extracted:
    """Claim, fetch, extract, gate and commit a checkpoint, or set it aside; where it is not done already.

    Of a checkpoint in parts: extract the part, and commit the checkpoint if it was the last one. Raises SourceError,
    MachineError and UsageError: they say nothing about the checkpoint.
    """
    settings, name = task.opening.settings, task.opening.name
    names = (settings.series_id, name, "" if task.part == WHOLE else str(task.part))
    lake = Lake(settings.lake.directory)
    with run_log(lake, f"extract {task.label}"):
        claim = lake.claim(*names)
        if claim is None:
            return Extracted(holder=lake.claimed_by(*names))
        try:
            source, request = task.opening.open()
            if is_done(lake, request, task.before):
                return Extracted()
            if task.part != WHOLE:
                return _extract_part(lake, source, request, task)
            error = fetch(source, request.checkpoint)
            found = measured(source, request, error, machine_of(settings))
            extracted = finish(lake, request, found)
            source.evict(request.checkpoint)
            return extracted
        except (ChangedError, FetchError) as passing:
            return Extracted(reason=str(passing))
        finally:
            claim.release()


def _extract_part(lake: Lake, source: Source, request: ExtractionRequest, task: ExtractionTask) -> Extracted:
    """Extract a part whose claim this process holds, if that was not done before, and finish the checkpoint with it."""
    from timecourse.extract.parts import is_whole, merge

    names, part = (request.series_id, request.checkpoint.name), task.part
    places = [lake.parts(*names, request.extraction_id) / str(Part(index, part.count)) for index in range(part.count)]
    refused: UserError | None = None
    if not places[part.index].is_dir():
        error = fetch(source, request.checkpoint)
        found = measured(source, request, error, machine_of(task.opening.settings), part=part)
        if isinstance(found, ChangedError | FetchError):  # says nothing about the other parts
            return Extracted(reason=str(found))
        if isinstance(found, UserError):
            refused = found
        else:
            with lake.incoming_extraction(*names, str(part)) as folder:
                found.write(folder)
                lake.keep_part(folder, places[part.index])
    are_all_there = all(place.is_dir() for place in places)
    if refused is None and not are_all_there and not is_done(lake, request, task.before):
        return Extracted()
    claim = lake.claim(*names)
    if claim is None:
        return Extracted(holder=lake.claimed_by(*names))
    try:
        if is_done(lake, request, task.before):  # by a process that had measured this part as well
            lake.remove_parts(*names, request.extraction_id)
            return Extracted()
        if refused is None and (torn := [place.name for place in places if not is_whole(place)]):
            for name in torn:
                lake.remove_parts(*names, request.extraction_id, name)
            return Extracted(
                reason=f"checkpoint {request.checkpoint.name!r}: damaged parts were removed ({', '.join(torn)}); "
                "the next run makes them again"
            )
        extracted = _commit(lake, request, refused or partial(merge, places))
        source.evict(request.checkpoint)
        return extracted
    finally:
        claim.release()


def measured(
    source: Source,
    request: ExtractionRequest,
    error: UserError | None,
    machine: "Machine",
    advance: Callable[[int], None] = lambda _: None,
    part: Part = WHOLE,
) -> "Measured | UserError":
    """What a checkpoint, or a part of its prompts, was measured to have, or why it cannot be.

    `error`: why its weights cannot be used, if they cannot. ChangedError, if its files changed meanwhile, comes before
    any other but FetchError. Raises SourceError, MachineError and UsageError: they say nothing about the checkpoint.
    """
    from timecourse.extract.job import measure

    start = time.perf_counter()
    try:
        try:
            if error is not None:
                raise error
            with refusing_what_is_gone(request.checkpoint.name, request.checkpoint.folder):
                found = measure(request, machine, advance, part)
        except FetchError:
            raise
        except UserError:
            source.check_unchanged(request.checkpoint)
            raise
        source.check_unchanged(request.checkpoint)
    except (SourceError, MachineError, UsageError):
        raise
    except UserError as of_checkpoint:
        return of_checkpoint
    log("measured", checkpoint=request.checkpoint_id, seconds=time.perf_counter() - start)
    return found


def finish(lake: Lake, request: ExtractionRequest, found: "Measured | UserError") -> Extracted:
    """Write, gate and commit what was measured of a checkpoint whose claim this process holds, or set it aside."""
    return _commit(lake, request, found if isinstance(found, UserError) else found.write)


def _commit(lake: Lake, request: ExtractionRequest, write: UserError | Callable[[Path], dict[str, int]]) -> Extracted:
    """Have the tables written into a new folder, gate and commit them; or set the checkpoint aside.

    `write` returns rows by table; it is an error where there is nothing to write.
    """
    from timecourse.expectations.gate import gate_extraction

    names = (request.series_id, request.checkpoint.name)
    if isinstance(write, ChangedError | FetchError):  # the next run tries again
        return Extracted(reason=str(write))
    if isinstance(write, UserError):
        return _set_aside(lake, request, str(write), is_gate=False)
    start = time.perf_counter()
    with lake.incoming_extraction(*names) as folder:
        rows = write(folder)
        checks = gate_extraction(folder)
        refusals = [check for check in checks if check.result == "fail"]
        if not refusals:
            lake.commit(
                folder,
                series_id=request.series_id,
                checkpoint_name=request.checkpoint.name,
                extraction_id=request.extraction_id,
                inputs=request.inputs,
                rows=rows,
                checks=checks,
            )
    if refusals:
        return _set_aside(lake, request, _refused(request.checkpoint.name, checks, refusals), is_gate=True)
    log("committed", checkpoint=request.checkpoint_id, seconds=time.perf_counter() - start)
    return Extracted(is_committed=True)


def _set_aside(lake: Lake, request: ExtractionRequest, reason: str, *, is_gate: bool) -> Extracted:
    lake.set_aside(
        request.series_id,
        request.checkpoint.name,
        extraction_id=request.extraction_id,
        reason=reason,
        is_gate=is_gate,
    )
    log("set aside", checkpoint=request.checkpoint_id, reason=reason)
    return Extracted(reason=reason)


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
