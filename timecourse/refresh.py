"""The run: from a directory of checkpoints to a release. What was done before is not done again.

1. plan: which checkpoints are new or changed, known from hashes alone; 2. extract, gate and commit each of them;
3. build the warehouse from what is committed; 4. gate and publish a release.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from timecourse.build import build_warehouse
from timecourse.checks import CheckResult
from timecourse.config import Settings
from timecourse.errors import SourceError, UserError
from timecourse.extract.checkpoints.series import declarations
from timecourse.extract.identity import ExtractionRequest
from timecourse.lake import Lake
from timecourse.plan import Plan, make_plan, refuse_early, stream
from timecourse.release import is_current, publish, raise_if_failed


@dataclass
class Outcome:
    """What a run did. `release` is the current release's folder; seconds by phase.

    offered: how many names the sources offer. unusable: why each checkpoint that could not be used was not.
    """

    release: Path | None = None
    extracted: list[str] = field(default_factory=list)
    committed: int = 0
    published: bool = False
    offered: int = 0
    unusable: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def unusable_in_words(self) -> str:
        """One line that names the first few and why."""
        reasons = list(self.unusable.values())
        more = f"; and {len(reasons) - 3} more, see `timecourse checkpoints`" if len(reasons) > 3 else ""
        return f"{len(reasons)} of {self.offered} checkpoints could not be used: {'; '.join(reasons[:3])}{more}"


def refresh(settings: Settings, console: Console, *, do_extract: bool = True, do_release: bool = True) -> Outcome:
    """Bring the lake up to date with the checkpoints. Raises UserError; GateError for data that failed a gate.

    A checkpoint that cannot be fetched, read or measured does not stop the others; Outcome.unusable says which and why.
    """
    lake = Lake(settings.lake.directory)
    outcome = Outcome()
    plan: Plan | None = None
    if do_extract:
        with _phase(outcome, "plan"):
            plan = make_plan(settings)
            refuse_early(lake, plan.missing(lake.commits()), settings)
    with lake.locked():
        if plan is not None:
            failed: dict[str, str] = {}
            if missing := plan.missing(lake.commits()):
                with _phase(outcome, "extract"):
                    failed = _extract_all(lake, settings, plan, missing, console, outcome)
            _declare(lake, settings, plan, failed)
            outcome.unusable = failed | {one.name: one.reason or "" for one in plan.entries if one.status == "unusable"}
            outcome.offered = len(plan.entries)
        commits = lake.commits()
        outcome.committed = len(commits)
        if not commits and outcome.unusable:
            raise UserError(outcome.unusable_in_words)
        derivation = settings.derivation
        if do_release and not is_current(lake, commits, derivation):
            with _phase(outcome, "build"), console.status("building the warehouse"):
                built = build_warehouse(
                    lake.root,
                    complete_series=lake.complete_series(),
                    memory_gb=settings.machine.build_memory_gb,
                    **derivation,
                )
                raise_if_failed("the warehouse", built.checks)
            with _phase(outcome, "release"), console.status("checking and publishing the release"):
                publish(lake, derivation, built.checks)
            outcome.published = True
        if do_release:
            outcome.release = lake.current_release()
        lake.prune()
    return outcome


def _declare(lake: Lake, settings: Settings, plan: Plan, failed: Mapping[str, str]) -> None:
    """Write down what the series offers now; what is committed and offered no more stays as it was last declared."""
    series_id, series = settings.series_id, settings.series
    committed = {one.content["checkpoint_name"] for one in lake.commits() if one.content["series_id"] == series_id}
    offered = {entry.name for entry in plan.entries}
    before = [row for one in lake.declarations() if one["series_id"] == series_id for row in one["checkpoints"]]
    gone = [row for row in before if row["name"] in committed - offered]
    lake.declare_series(
        series_id,
        complete=series.complete,
        recipe_id=series.recipe,
        duplicates=series.duplicates,
        checkpoints=declarations(plan.entries, failed, gone),
    )


def _extract_all(
    lake: Lake,
    settings: Settings,
    plan: Plan,
    requests: Sequence[ExtractionRequest],
    console: Console,
    outcome: Outcome,
) -> dict[str, str]:
    """Extract, gate and commit; returns why each checkpoint that could not be measured was not."""
    from timecourse.expectations.gate import gate_extraction
    from timecourse.extract.job import Machine, extract

    machine = Machine(settings.machine.device, settings.machine.batch_size, settings.machine.threads)
    total = sum(request.prompt_count for request in requests)
    failed: dict[str, str] = {}
    done = 0

    def advance(finished: int) -> None:
        nonlocal done
        done += finished
        show(done, total)

    with progress_bar(console, "prompts") as show:
        for request, error in stream(plan, requests, settings):
            with lake.incoming() as folder:
                try:
                    if error is not None:
                        raise error
                    rows = extract(request, folder, machine, advance)
                except SourceError:
                    raise
                except UserError as refused:
                    failed[request.checkpoint.name] = str(refused)
                    continue
                checks = gate_extraction(folder)
                raise_if_failed(f"checkpoint {request.checkpoint.name!r}", checks)
                lake.commit(
                    folder,
                    series_id=request.series_id,
                    checkpoint_name=request.checkpoint.name,
                    extraction_id=request.extraction_id,
                    inputs=request.inputs,
                    rows=rows,
                    checks=checks,
                )
            outcome.extracted.append(request.checkpoint_id)
    return failed


def check_again(lake: Lake) -> list[CheckResult]:
    """The gates' verdicts on every committed extraction and on the current release, as they are on disk now."""
    from timecourse.expectations.gate import gate_extraction, gate_release

    release = lake.current_release()
    results = [
        result for commit in lake.commits() for result in gate_extraction(lake.root / commit.content["directory"])
    ]
    return [*results, *gate_release(release / "warehouse.duckdb", None)]


@contextmanager
def progress_bar(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function to be called with (done, total); a bar on a terminal, nothing elsewhere."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def _phase(outcome: Outcome, name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    outcome.seconds[name] = time.perf_counter() - start
