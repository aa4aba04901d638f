"""The run: from a directory of checkpoints to a release. What was done before is not done again.

1. plan: which checkpoints are new or changed, known from hashes alone; 2. extract, gate and commit each of them, or set
it aside; 3. build the warehouse from what is committed; 4. gate and publish a release; 5. remove what nobody needs.

It may be killed at any moment: what is committed stays, and the next run goes on from there.
"""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from timecourse.build import build_warehouse
from timecourse.checks import CheckResult
from timecourse.config import Settings
from timecourse.errors import UserError
from timecourse.executors import Executor, Lost, answered, executor_of, refuse_unusable
from timecourse.extract.checkpoints.series import declarations
from timecourse.extract.identity import ExtractionRequest
from timecourse.extract.parts import BLOCK, Part
from timecourse.extraction import Extracted, ExtractionTask, finish, is_done, machine_of, measured, run_task
from timecourse.lake import Commit, Contents, Lake, LockedError
from timecourse.plan import Plan, Task, make_plan, refuse_early, stream
from timecourse.release import made_before, publish, raise_if_failed
from timecourse.releases import current, point_current_at, prune_releases
from timecourse.run_log import log


@dataclass
class Outcome:
    """What a run did. `release` is the current release's folder, `previous` the one before it; seconds by phase.

    offered: how many names the sources offer. unusable: why each checkpoint that could not be used was not; `news` are
    those of them that an earlier run did not say already, `is_gated` whether a gate refused one of these. elsewhere:
    the checkpoints that other processes are extracting, and which. healed: what was found damaged and made anew.
    """

    release: Path | None = None
    previous: Path | None = None
    extracted: list[str] = field(default_factory=list)
    committed: int = 0
    published: bool = False
    offered: int = 0
    unusable: dict[str, str] = field(default_factory=dict)
    news: set[str] = field(default_factory=set)
    is_gated: bool = False
    elsewhere: dict[str, str] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    removed_releases: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def unusable_in_words(self, names: Collection[str]) -> str:
        """One line that names the first few of these and why."""
        reasons = [reason for name, reason in self.unusable.items() if name in names]
        more = f"; and {len(reasons) - 3} more, see `timecourse checkpoints`" if len(reasons) > 3 else ""
        return f"{len(reasons)} of {self.offered} checkpoints could not be used: {'; '.join(reasons[:3])}{more}"


def refresh(
    settings: Settings,
    console: Console,
    *,
    do_extract: bool = True,
    do_release: bool = True,
    only: Collection[str] = (),
    is_full: bool = False,
) -> Outcome:
    """Bring the lake up to date with the checkpoints. Raises UserError; GateError for a release that failed its gate;
    LockedError where another run holds the lake, or other processes all checkpoints of an empty one.

    `only` and `is_full`: see Plan.tasks. A checkpoint that cannot be fetched, read or measured, or fails its gate, does
    not stop the others: it is set aside, and Outcome.unusable says which and why. Without a release to make, other
    processes may work on the same lake.
    """
    if do_extract:
        refuse_unusable(settings)
    lake = Lake(settings.lake.directory)
    outcome = Outcome()
    with ExitStack() as stack:
        if do_release and lake.root.is_dir():
            stack.enter_context(lake.locked())
        if do_extract:
            with _phase(outcome, "plan"):
                plan = make_plan(settings)
                before = _commit_files(lake)  # first: what is committed from here on is not made again
                sound, damaged = _sound_commits(lake)
                tasks = plan.tasks(sound, lake.quarantined(), only=only, is_full=is_full)
                refuse_early(lake, [task.request for task in tasks], settings)
        if do_release and not lake.root.is_dir():
            stack.enter_context(lake.locked())
        lake.create()
        if do_extract:
            outcome.damaged = [line for lines in damaged.values() for line in lines]
            if declaration := lake.damaged_declaration(settings.series_id):
                outcome.damaged.append(declaration)
            for line in outcome.damaged:
                log("found damaged", file=line)
            _extract(lake, settings, plan, tasks, before, console, outcome)
        contents = lake.contents()
        outcome.committed = len(contents.commits)
        if not contents.commits and outcome.unusable:
            raise UserError(outcome.unusable_in_words(outcome.unusable))
        if do_release and not contents.commits and outcome.elsewhere:
            held = "; ".join(f"{one} is left to {holder}" for one, holder in [*outcome.elsewhere.items()][:3])
            raise LockedError(f"no checkpoint is committed yet: {held}; run it again when that has ended")
        if do_release:
            damaged_releases = _release(lake, settings, contents, console, outcome, is_full=is_full)
            lake.prune()
            outcome.removed_releases = prune_releases(lake, settings.lake.keep_releases, damaged_releases)
    log("finished", seconds=outcome.seconds, published=outcome.published, committed=outcome.committed)
    return outcome


def plan_refresh(settings: Settings, *, only: Collection[str] = (), is_full: bool = False) -> list[Task]:
    """What `refresh` would extract, and why each; nothing is written."""
    lake = Lake(settings.lake.directory)
    tasks = make_plan(settings).tasks(_sound_commits(lake)[0], lake.quarantined(), only=only, is_full=is_full)
    refuse_early(lake, [task.request for task in tasks], settings)
    return tasks


def _sound_commits(lake: Lake) -> tuple[list[Commit], dict[Path, list[str]]]:
    """The commits that can be read with all of their files, and what is wrong with the others by their commit file."""
    commits, unreadable = lake.readable_commits()
    damaged = {path: [line] for path, line in unreadable.items()}
    damaged |= {commit.path: lines for commit in commits if (lines := lake.damages(commit))}
    return [commit for commit in commits if commit.path not in damaged], damaged


def _extract(
    lake: Lake,
    settings: Settings,
    plan: Plan,
    tasks: Sequence[Task],
    before: Mapping[str, bytes],
    console: Console,
    outcome: Outcome,
) -> None:
    """Extract what the plan says, and write down what the series offers and what could not be used of it.

    before: the commit files, by checkpoint, that the plan was made by.
    """
    series_id = settings.series_id
    known = {row["name"]: row["reason"] for row in lake.declared_checkpoints(series_id)}
    failed: dict[str, str] = {}
    for task in tasks:
        log("planned", checkpoint=task.request.checkpoint_id, reason=task.reason)
    if tasks:
        with _phase(outcome, "extract"):
            failed = _extract_all(lake, settings, plan, [task.request for task in tasks], before, console, outcome)
    tried = set(failed)
    aside = {one.checkpoint_id: one for one in lake.quarantined()}
    for name, request in plan.requests.items():
        one = aside.get(request.checkpoint_id)
        if one is not None and one.extraction_id == request.extraction_id:
            failed.setdefault(name, one.reason)
    _declare(lake, settings, plan, failed)
    outcome.offered = len(plan.entries)
    outcome.unusable = failed | {one.name: one.reason or "" for one in plan.entries if one.status == "unusable"}
    outcome.news = tried | {name for name, reason in outcome.unusable.items() if known.get(name) != reason}
    outcome.is_gated = any(
        one.is_gate and one.checkpoint_name in outcome.news
        for one in aside.values()
        if one.checkpoint_id.startswith(f"{series_id}/")
    )


def _release(
    lake: Lake, settings: Settings, contents: Contents, console: Console, outcome: Outcome, *, is_full: bool
) -> list[Path]:
    """Build and publish, where the newest release was not made from the same; `current` names a whole one then.

    Returns the damaged release whose place another took.
    """
    derivation = settings.derivation
    if lost := [line for commit in contents.commits for line in lake.damages(commit)]:
        raise UserError(
            f"the lake is damaged: {lost[0]}{f' and {len(lost) - 1} files more' if len(lost) > 1 else ''}; "
            "refresh its series to extract it anew, or withdraw its checkpoint"
        )
    for ablation in contents.ablations:
        if lost := lake.damages(ablation):
            raise UserError(
                f"an ablation is damaged: {lost[0]}; make it anew with `timecourse ablate --checkpoints "
                f"{ablation.content['checkpoint_name']}`, or remove {ablation.path.relative_to(lake.root)}"
            )
    now = current(lake)
    link = lake.root / "current"
    damages = [] if now is None else now.damages()
    if now is not None:
        outcome.damaged += damages
    elif link.is_symlink():
        outcome.damaged.append(f"{link.readlink()}, the current release, is missing or torn")
    made = None if is_full else made_before(lake, contents, derivation)
    if made is not None:
        if now is None or (now.path != made.path and damages):
            point_current_at(lake, made.path)
    else:
        if is_full:
            (lake.build / "warehouse.duckdb").unlink(missing_ok=True)
        with _phase(outcome, "build"), console.status("building the warehouse"):
            built = build_warehouse(
                lake.root,
                complete_series=contents.complete_series,
                memory_gb=settings.machine.build_memory_gb,
                contents=contents,
                **derivation,
            )
            raise_if_failed("the warehouse", built.checks)
        with _phase(outcome, "release"), console.status("checking and publishing the release"):
            release = publish(lake, contents, derivation, built.checks)
        log("released", release=release.path.name)
        outcome.published = True
        outcome.previous = None if now is None or damages else now.path
    outcome.release = lake.current_release()
    return [now.path] if now is not None and damages else []


def _declare(lake: Lake, settings: Settings, plan: Plan, failed: Mapping[str, str]) -> None:
    """Write down what the series offers now; what is committed and offered no more stays as it was last declared."""
    series_id, series = settings.series_id, settings.series
    committed = {
        one.content["checkpoint_name"] for one in lake.readable_commits()[0] if one.content["series_id"] == series_id
    }
    offered = {entry.name for entry in plan.entries}
    gone = [row for row in lake.declared_checkpoints(series_id) if row["name"] in committed - offered]
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
    before: Mapping[str, bytes],
    console: Console,
    outcome: Outcome,
) -> dict[str, str]:
    """Extract, gate and commit each checkpoint that no other process is on, or set it aside.

    Returns why each that could not be measured was not.
    """
    tasks = _tasks(settings, plan, requests, before)
    executor = executor_of(settings, lake, len(tasks))
    failed: dict[str, str] = {}
    with progress_bar(console, "prompts") as show:
        total, done = sum(request.prompt_count for request in requests), 0

        def advance(finished: int) -> None:
            nonlocal done
            done += finished
            show(done, total)

        if executor is None:
            made = _here(lake, settings, plan, requests, before, advance)
        else:
            made = _elsewhere(executor, tasks, plan, advance)
        for request, extracted in made:
            if extracted.is_committed:
                outcome.extracted.append(request.checkpoint_id)
            if extracted.reason is not None:
                failed[request.checkpoint.name] = extracted.reason
            if extracted.holder is not None:
                outcome.elsewhere[request.checkpoint_id] = extracted.holder
    aside = {one.extraction_id for one in lake.quarantined()}  # perhaps by another process, which had its last part
    for request in requests:
        checkpoint_id, name = request.checkpoint_id, request.checkpoint.name
        if checkpoint_id in outcome.extracted:  # whatever became of a part before
            outcome.elsewhere.pop(checkpoint_id, None)
            failed.pop(name, None)
        elif (
            checkpoint_id not in outcome.elsewhere
            and name not in failed
            and request.extraction_id not in aside
            and not is_done(lake, request, before.get(checkpoint_id))
        ):
            failed[name] = f"checkpoint {name!r}: not all of its parts were made; the next run goes on"
    return failed


def _here(
    lake: Lake,
    settings: Settings,
    plan: Plan,
    requests: Sequence[ExtractionRequest],
    before: Mapping[str, bytes],
    advance: Callable[[int], None],
) -> Iterator[tuple[ExtractionRequest, Extracted]]:
    """Each request with what became of it, one after the other in this process.

    While one is measured, the next one's weights come in, and what was measured before is written and committed.
    """
    machine = machine_of(settings)
    claims: dict[str, FileLock] = {}
    left: list[tuple[ExtractionRequest, Extracted]] = []

    def claimed() -> Iterator[ExtractionRequest]:
        for request in requests:
            names = (request.series_id, request.checkpoint.name)
            claim = lake.claim(*names)
            if claim is None:
                left.append((request, Extracted(holder=lake.claimed_by(*names))))
            elif is_done(lake, request, before.get(request.checkpoint_id)):  # by another process, since the plan
                claim.release()
            else:
                claims[request.checkpoint_id] = claim
                yield request

    def ended(request: ExtractionRequest, commit: Future[Extracted]) -> tuple[ExtractionRequest, Extracted]:
        extracted = commit.result()
        claims.pop(request.checkpoint_id).release()
        return request, extracted

    try:
        with ThreadPoolExecutor(1) as committing:
            before_it: tuple[ExtractionRequest, Future[Extracted]] | None = None
            for request, error in stream(plan, claimed(), settings):
                found = measured(plan.source_of(request.checkpoint), request, error, machine, advance)
                if before_it is not None:
                    yield ended(*before_it)
                before_it = request, committing.submit(finish, lake, request, found)
            if before_it is not None:
                yield ended(*before_it)
    finally:
        for claim in claims.values():
            claim.release()
    yield from left


def _tasks(
    settings: Settings, plan: Plan, requests: Sequence[ExtractionRequest], before: Mapping[str, bytes]
) -> list[ExtractionTask]:
    """The requests as an executor is given them: one task each, or one for so many prompts where that is set."""
    tasks = []
    for request in requests:
        prompts, at_once = request.prompt_count, settings.executor.prompts_per_task
        count = 1 if at_once is None else math.ceil(prompts / max(at_once, BLOCK))
        opening = plan.opening(request, settings)
        tasks += [
            ExtractionTask(opening, before.get(request.checkpoint_id), Part(index, count)) for index in range(count)
        ]
    return tasks


def _elsewhere(
    executor: Executor, tasks: Sequence[ExtractionTask], plan: Plan, advance: Callable[[int], None]
) -> Iterator[tuple[ExtractionRequest, Extracted]]:
    """The request of each task with what became of it, as an executor's tasks end."""
    for task, answer in answered(executor, run_task, tasks):
        request = plan.requests[task.opening.name]
        yield request, Extracted(reason=answer.reason) if isinstance(answer, Lost) else answer
        advance(request.prompt_count // task.part.count)


def _commit_files(lake: Lake) -> dict[str, bytes]:
    """What every readable commit file says, by checkpoint."""
    return {commit.checkpoint_id: commit.path.read_bytes() for commit in lake.readable_commits()[0]}


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
    log("phase", phase=name, seconds=outcome.seconds[name])
