"""The causal check: silence each role's components at some checkpoints, and see what becomes of the answers.

1. read from the current release which components hold a role by either half of the facts; 2. plan each chosen
checkpoint's ablation, known from hashes alone; 3. ablate, gate and commit each that is new or changed. The next build
takes them into the warehouse.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
from rich.console import Console

from timecourse.config import Settings
from timecourse.errors import UserError
from timecourse.extract.identity import ExtractionRequest
from timecourse.lake import Commit, Lake
from timecourse.plan import make_plan, stream
from timecourse.refresh import progress_bar
from timecourse.release import raise_if_failed

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
class _Planned:
    commit: Commit
    request: "AblationRequest"


def ablate(settings: Settings, console: Console) -> list[str]:
    """Ablate the chosen checkpoints of the series; returns the names of those that were not ablated so before.

    Raises UserError where nothing is released yet, a checkpoint is not extracted with these settings, or one cannot be
    fetched or measured; GateError for data that failed their gate. What was committed before stays.
    """
    from timecourse.expectations.gate import gate_ablation
    from timecourse.extract.ablations.job import ablate as ablate_checkpoint
    from timecourse.extract.job import Machine

    lake = Lake(settings.lake.directory)
    plan = make_plan(settings)
    with lake.locked():
        commits = {commit.extraction_id: commit for commit in lake.commits()}
        extracted = [one for one in plan.requests.values() if one.extraction_id in commits]
        chosen = _chosen(extracted, settings.ablation.checkpoints, settings.series_id)
        planned = [
            _Planned(commits[one.extraction_id], _request(lake.current_release(), one, settings)) for one in chosen
        ]
        done = {ablation.content["ablation_id"] for ablation in lake.ablations()}
        missing = {one.request.extraction.extraction_id: one for one in planned if one.request.ablation_id not in done}
        on = settings.machine
        machine = Machine(on.device, on.batch_size, on.threads, on.memory_gb)
        finished = 0
        total = sum(one.request.run_count for one in missing.values())
        with progress_bar(console, "runs") as show:

            def advance(runs: int) -> None:
                nonlocal finished
                finished += runs
                show(finished, total)

            for extraction, error in stream(plan, [one.request.extraction for one in missing.values()], settings):
                if error is not None:
                    raise error
                one = missing[extraction.extraction_id]
                if finished == 0:
                    console.print(_costs(list(missing.values()), machine), soft_wrap=True)
                with lake.unfinished(one.request.ablation_id) as unfinished, lake.incoming() as folder:
                    rows = ablate_checkpoint(one.request, folder, unfinished, machine, advance)
                    checks = gate_ablation(folder, lake.root / one.commit.content["directory"])
                    raise_if_failed(f"the ablation of {one.commit.checkpoint_id!r}", checks)
                    lake.commit_ablation(
                        folder,
                        one.commit,
                        ablation_id=one.request.ablation_id,
                        inputs=one.request.inputs,
                        rows=rows,
                        checks=checks,
                    )
        lake.prune()
    return [one.commit.content["checkpoint_name"] for one in missing.values()]


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


def _costs(planned: Sequence[_Planned], machine: "Machine") -> str:
    """How much there is to do, and about how long it takes, by a few runs of the first checkpoint's model."""
    from timecourse.extract.ablations.job import seconds_per_run

    runs = sum(one.request.run_count for one in planned)
    minutes = runs * seconds_per_run(planned[0].request, machine) / 60
    sets = sum(len(one.request.sets) for one in planned)
    checkpoints = f"{len(planned)} checkpoint{'' if len(planned) == 1 else 's'}"
    return (
        f"ablating {checkpoints}: {sets:,} sets of components, {runs:,} runs of a prompt, about "
        f"{max(minutes, 0.1):.1f} minutes"
    )
