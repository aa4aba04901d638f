"""The causal check: silence each role's components at some checkpoints, and see what becomes of the answers.

1. read from the current release which components hold a role by either half of the facts; 2. plan each chosen
checkpoint's ablation, known from hashes alone; 3. ablate, gate and commit each that is new or changed. The next build
takes them into the warehouse.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from rich.console import Console

from timecourse.config import Settings
from timecourse.errors import UserError
from timecourse.executors import Executor, Lost, answered, executor_of, refuse_unusable
from timecourse.extract.identity import ExtractionRequest
from timecourse.extraction import Extracted, machine_of
from timecourse.lake import Lake, LockedError
from timecourse.plan import Opening, Plan, fetch, make_plan, stream
from timecourse.refresh import progress_bar
from timecourse.release import raise_if_failed
from timecourse.run_log import run_log

if TYPE_CHECKING:
    from timecourse.extract.ablations.job import AblationRequest
    from timecourse.extract.job import Machine

PLACES = ("first", "middle", "last")
"""Checkpoints that are named by where they stand among the series' extracted ones."""

_ROLE_SETS = """
select half, role, nullif(relation_id, '') as relation_id, list(component_id order by component_id)
from fct_half_roles
where series_id = ? and setting_id = ? and tau_id = ? and checkpoint_id = ?
group by all
order by all
"""
_HALVES = "select fact_id, half from fct_fact_halves where series_id = ? and setting_id = ?"
_THETA = "select theta::varchar from dim_settings where series_id = ? and setting_id = ? and tau_id = ?"


@dataclass(frozen=True)
class AblationTask:
    """A checkpoint whose ablation is to be made; the fields are those of AblationRequest but for its extraction."""

    opening: Opening
    ablation_id: str
    request: dict[str, Any]

    @property
    def label(self) -> str:
        """`<series>/<checkpoint name>`."""
        return self.opening.checkpoint_id


@dataclass
class Ablated:
    """What a run did: the names of the checkpoints that were not ablated so before, and why others are not ablated.

    held: of those that another process is on, as `failed` is of the others.
    """

    names: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)

    def raise_if_left(self) -> None:
        """Raises UserError where a checkpoint was not ablated, LockedError where that is only because of who is on it.

        Call it when the others are built.
        """
        if left := [*self.failed, *self.held]:
            error = UserError if self.failed else LockedError
            raise error(f"not ablated: {'; '.join(left[:3])}{f'; and {len(left) - 3} more' if len(left) > 3 else ''}")


def ablate(settings: Settings, console: Console) -> Ablated:
    """Ablate the chosen checkpoints of the series.

    Raises UserError where nothing is released yet, a checkpoint is not extracted with these settings, or one cannot be
    fetched or measured; GateError for data that failed their gate. What was committed before stays.
    """
    refuse_unusable(settings)
    lake = Lake(settings.lake.directory)
    plan = make_plan(settings)
    with lake.locked():
        committed = {commit.extraction_id for commit in lake.commits()}
        extracted = [one for one in plan.requests.values() if one.extraction_id in committed]
        chosen = _chosen(extracted, settings.ablation.checkpoints, settings.series_id)
        planned = [_request(lake.current_release(), one, settings) for one in chosen]
        missing = [one for one in planned if not _is_done(lake, one)]
        executor = executor_of(settings, lake, len(missing)) if missing else None
        total, finished = sum(one.run_count for one in missing), 0
        with progress_bar(console, "runs") as show:

            def advance(runs: int) -> None:
                nonlocal finished
                finished += runs
                show(finished, total)

            if executor is None:
                made = _here(lake, settings, plan, missing, console, advance)
            else:
                console.print(_work(missing), soft_wrap=True)
                made = _elsewhere(executor, settings, plan, missing, advance)
            ablated = Ablated()
            answers = {request.ablation_id: answer for request, answer in made}
        lake.prune()
    for request in missing:
        name, answer = request.extraction.checkpoint_id, answers[request.ablation_id]
        if answer.is_committed:
            ablated.names.append(request.extraction.checkpoint.name)
        elif answer.reason is not None:
            ablated.failed.append(answer.reason)
        elif answer.holder is not None:
            ablated.held.append(f"{name} is held by {answer.holder}; run it again when that has ended")
    return ablated


def _is_done(lake: Lake, request: "AblationRequest") -> bool:
    """Whether an ablation is committed, and its files are whole."""
    done = [one for one in lake.ablations() if one.content["ablation_id"] == request.ablation_id]
    return any(not lake.damages(one) for one in done)


def _here(
    lake: Lake,
    settings: Settings,
    plan: Plan,
    requests: Sequence["AblationRequest"],
    console: Console,
    advance: Callable[[int], None],
) -> Iterator[tuple["AblationRequest", Extracted]]:
    """Make the ablations in this process, one after the other; each with what became of it."""
    machine = machine_of(settings)
    request_of = {one.extraction.extraction_id: one for one in requests}
    for extraction, error in stream(plan, [one.extraction for one in requests], settings):
        if error is not None:
            raise error
        request = request_of[extraction.extraction_id]
        if request is requests[0]:
            console.print(f"{_work(requests)}, {_minutes(requests, machine)}", soft_wrap=True)
        yield request, _ablate(lake, request, machine, advance)


def _elsewhere(
    executor: Executor,
    settings: Settings,
    plan: Plan,
    requests: Sequence["AblationRequest"],
    advance: Callable[[int], None],
) -> Iterator[tuple["AblationRequest", Extracted]]:
    """Make the ablations by an executor's tasks; each with what became of it."""
    request_of = {one.extraction.checkpoint_id: one for one in requests}
    tasks = [
        AblationTask(
            plan.opening(one.extraction, settings),
            one.ablation_id,
            {each.name: getattr(one, each.name) for each in fields(one) if each.name != "extraction"},
        )
        for one in requests
    ]
    for task, answer in answered(executor, run_task, tasks):
        request = request_of[task.label]
        advance(request.run_count)
        yield request, Extracted(reason=answer.reason) if isinstance(answer, Lost) else answer


def run_task(task: AblationTask) -> Extracted:
    """Fetch a checkpoint and make its ablation, where that is not done already. Raises as `ablate` does."""
    from timecourse.extract.ablations.job import AblationRequest

    settings = task.opening.settings
    lake = Lake(settings.lake.directory)
    with run_log(lake, f"ablate {task.label}"):
        source, extraction = task.opening.open()
        if (error := fetch(source, extraction.checkpoint)) is not None:
            raise error
        ablated = _ablate(lake, AblationRequest(extraction=extraction, **task.request), machine_of(settings))
        source.evict(extraction.checkpoint)
        return ablated


def _ablate(
    lake: Lake, request: "AblationRequest", machine: "Machine", advance: Callable[[int], None] = lambda _: None
) -> Extracted:
    """Claim a checkpoint, ablate it, gate and commit that; where no other process did. Raises as `ablate` does."""
    from timecourse.expectations.gate import gate_ablation
    from timecourse.extract.ablations.job import ablate as ablate_checkpoint

    extraction = request.extraction
    names = (extraction.series_id, extraction.checkpoint.name)
    claim = lake.claim(*names)
    if claim is None:
        return Extracted(holder=lake.claimed_by(*names))
    try:
        if _is_done(lake, request):
            return Extracted()
        commit = next((one for one in lake.commits() if one.extraction_id == extraction.extraction_id), None)
        if commit is None:
            return Extracted(reason=f"{extraction.checkpoint_id} was extracted anew meanwhile; run it again")
        with lake.unfinished(request.ablation_id) as unfinished, lake.incoming_extraction(*names) as folder:
            rows = ablate_checkpoint(request, folder, unfinished, machine, advance)
            checks = gate_ablation(folder, lake.root / commit.content["directory"])
            raise_if_failed(f"the ablation of {commit.checkpoint_id!r}", checks)
            lake.commit_ablation(
                folder, commit, ablation_id=request.ablation_id, inputs=request.inputs, rows=rows, checks=checks
            )
        return Extracted(is_committed=True)
    finally:
        claim.release()


def _chosen(extracted: Sequence[ExtractionRequest], names: Sequence[str], series_id: str) -> list[ExtractionRequest]:
    """The named checkpoints, each once, in the order of training. Raises UserError for one that is not extracted."""
    if not extracted:
        raise UserError(
            f"no checkpoint of {series_id} is extracted with these settings; run `timecourse refresh` first"
        )
    by_name = {one.checkpoint.name: one for one in extracted}
    places = dict(zip(PLACES, (extracted[0], extracted[(len(extracted) - 1) // 2], extracted[-1]), strict=True))
    chosen = set()
    for name in extracted if "all" in names else names:
        one = name if isinstance(name, ExtractionRequest) else by_name.get(name) or places.get(name)
        if one is None:
            raise UserError(
                f"the checkpoint {name!r} is not extracted with these settings; say {', '.join(PLACES)}, all, or a "
                "name that `timecourse checkpoints` lists as extracted"
            )
        chosen.add(one.checkpoint.name)
    return [one for one in extracted if one.checkpoint.name in chosen]


def _request(release: Path, extraction: ExtractionRequest, settings: Settings) -> "AblationRequest":
    """What is to be silenced at one checkpoint. Raises UserError where the release does not hold its roles."""
    from timecourse.extract.ablations.job import AblationRequest, RoleSet

    wanted, tau_id = settings.ablation, extraction.settings.taus[0]
    key = [extraction.series_id, extraction.setting_id]
    with duckdb.connect(str(release / "warehouse.duckdb"), read_only=True) as connection:
        theta = connection.execute(_THETA, [*key, tau_id]).fetchall()
        halves = dict(connection.execute(_HALVES, key).fetchall())
        rows = connection.execute(_ROLE_SETS, [*key, tau_id, extraction.checkpoint_id]).fetchall()
    facts = {relation.fact_id(fact) for relation in extraction.relations for fact in relation.samples}
    if not theta or facts - set(halves):
        raise UserError(
            f"the current release does not hold {extraction.checkpoint_id} as it is extracted; run `timecourse build`"
        )
    if Decimal(theta[0][0]) != settings.roles.theta:
        raise UserError(
            f"the current release has roles at theta {Decimal(theta[0][0]).normalize():f}, not "
            f"{settings.roles.theta.normalize():f}; say so with --theta, or run `timecourse build` first"
        )
    sets = [RoleSet(half, role, relation, tuple(components)) for half, role, relation, components in rows]
    return AblationRequest(
        extraction=extraction,
        tau_id=tau_id,
        theta=f"{Decimal(theta[0][0]).normalize():f}",
        role_sets=[one for one in sets if not wanted.roles or one.role in wanted.roles],
        half_of_fact={fact: halves[fact] for fact in sorted(facts)},
        methods=wanted.methods,
        norm=wanted.norm,
        random_sets=wanted.random_sets,
        seed=wanted.seed,
    )


def _work(requests: Sequence["AblationRequest"]) -> str:
    """How much there is to do."""
    runs, sets = sum(one.run_count for one in requests), sum(len(one.sets) for one in requests)
    checkpoints = f"{len(requests)} checkpoint{'' if len(requests) == 1 else 's'}"
    return f"ablating {checkpoints}: {sets:,} sets of components, {runs:,} runs of a prompt"


def _minutes(requests: Sequence["AblationRequest"], machine: "Machine") -> str:
    """About how long that takes, by a few runs of the first checkpoint's model."""
    from timecourse.extract.ablations.job import seconds_per_run

    minutes = sum(one.run_count for one in requests) * seconds_per_run(requests[0], machine) / 60
    return f"about {max(minutes, 0.1):.1f} minutes"
