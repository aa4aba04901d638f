"""The run: from a directory of checkpoints to a release. What was done before is not done again.

1. plan: which checkpoints are new or changed, known from hashes alone; 2. extract, gate and commit each of them;
3. build the warehouse from what is committed; 4. gate and publish a release.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from timecourse.build import build_warehouse
from timecourse.checks import CheckResult
from timecourse.config import Settings
from timecourse.errors import UserError
from timecourse.extract.checkpoints.directory import find_checkpoints
from timecourse.extract.facts import load_relations
from timecourse.extract.identity import ExtractionRequest
from timecourse.lake import Commit, Lake
from timecourse.release import is_current, publish, raise_if_failed


@dataclass
class Outcome:
    """What a run did. `release` is the current release's folder; seconds by phase."""

    release: Path | None = None
    extracted: list[str] = field(default_factory=list)
    committed: int = 0
    published: bool = False
    seconds: dict[str, float] = field(default_factory=dict)


def refresh(settings: Settings, console: Console, *, do_extract: bool = True, do_release: bool = True) -> Outcome:
    """Bring the lake up to date with the checkpoints. Raises UserError; GateError for data that failed a gate."""
    lake = Lake(settings.lake.directory)
    outcome = Outcome()
    requests: list[ExtractionRequest] = []
    if do_extract:
        relations = load_relations(settings.facts.directory, settings.facts.relations)
        requests = [
            ExtractionRequest(settings.series_id, checkpoint, relations, settings.measurement_settings)
            for checkpoint in find_checkpoints(settings.checkpoints)
        ]
        with _phase(outcome, "plan"):
            _refuse_early(lake, changed_or_new(lake.commits(), requests))
    with lake.locked():
        if do_extract:
            if missing := changed_or_new(lake.commits(), requests):
                with _phase(outcome, "extract"):
                    _extract_all(lake, settings, missing, console, outcome)
            lake.declare_series(settings.series_id, complete=settings.series.complete)
        commits = lake.commits()
        outcome.committed = len(commits)
        if do_release and not is_current(lake, commits, settings.theta):
            with _phase(outcome, "build"), console.status("building the warehouse"):
                built = build_warehouse(lake.root, theta=settings.theta, complete_series=lake.complete_series())
                raise_if_failed("the warehouse", built.checks)
            with _phase(outcome, "release"), console.status("checking and publishing the release"):
                publish(lake, settings.theta, built.checks)
            outcome.published = True
        if do_release:
            outcome.release = lake.current_release()
        lake.prune()
    return outcome


def changed_or_new(commits: Sequence[Commit], requests: Sequence[ExtractionRequest]) -> list[ExtractionRequest]:
    """The requests whose extraction is not the committed one."""
    committed = {commit.checkpoint_id: commit.extraction_id for commit in commits}
    return [request for request in requests if committed.get(request.checkpoint_id) != request.extraction_id]


def _refuse_early(lake: Lake, requests: Sequence[ExtractionRequest]) -> None:
    """Refuse what can be refused before anything is extracted, so that a mistake leaves the lake as it was."""
    if not requests:
        return
    _refuse_mixed_architectures(lake, requests)
    from timecourse.extract.job import prompts_of

    seen = set()
    for request in requests:
        _ = request.taus  # raises for a multiple that this model has too few heads for
        request.checkpoint.check_finite()
        if (tokenizer := request.checkpoint.tokenizer_sha256) not in seen:
            prompts_of(request)
            seen.add(tokenizer)


def _refuse_mixed_architectures(lake: Lake, requests: Sequence[ExtractionRequest]) -> None:
    """Refuse a series of two architectures: its checkpoints are compared component by component.

    Looks at the requests, and at what the lake holds of their series and they do not replace.
    """
    requested = {request.checkpoint_id: request.checkpoint.architecture for request in requests}
    (first_id, first), *others = requested.items()
    for commit in lake.commits():
        if commit.content["series_id"] == requests[0].series_id and commit.checkpoint_id not in requested:
            others.append((f"{commit.checkpoint_id} (in the lake)", _committed_architecture(lake, commit, list(first))))
    for other_id, other in others:
        if differences := [f"{name} {first[name]} and {other[name]}" for name in first if first[name] != other[name]]:
            raise UserError(
                f"{first_id} and {other_id} differ in {', '.join(differences)}; the checkpoints of a series are of one "
                "architecture: make two series of them, or withdraw what the lake holds"
            )


def _committed_architecture(lake: Lake, commit: Commit, names: list[str]) -> dict[str, object]:
    path = lake.root / commit.content["directory"] / "checkpoint.parquet"
    try:
        (row,) = pq.read_table(path, columns=names).to_pylist()
    except (OSError, pa.ArrowException, ValueError) as error:
        raise UserError(
            f"what the lake holds of {commit.checkpoint_id} cannot be read ({path.name}); withdraw it to extract anew"
        ) from error
    return dict(row)


def _extract_all(
    lake: Lake, settings: Settings, requests: Sequence[ExtractionRequest], console: Console, outcome: Outcome
) -> None:
    from timecourse.expectations.gate import gate_extraction
    from timecourse.extract.job import Machine, extract

    machine = Machine(settings.machine.device, settings.machine.batch_size, settings.machine.threads)
    total = sum(request.prompt_count for request in requests)
    done = 0

    def advance(finished: int) -> None:
        nonlocal done
        done += finished
        show(done, total)

    with progress_bar(console, "prompts") as show:
        for request in requests:
            with lake.incoming() as folder:
                rows = extract(request, folder, machine, advance)
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
