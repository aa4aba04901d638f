"""Drifts, spells and repurposings, each worked out a second time in plain loops, and planted ones found."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import duckdb
import pytest

from tests.warehouse.raw_lake import commit, commit_path
from tests.warehouse.roles_twin import Checkpoint, Prompt
from timecourse.build import BuildResult, build_warehouse

LAYERS, HEADS = 3, 5
SHAPE = {"layer_count": LAYERS, "head_count": HEADS, "kv_head_count": HEADS}
COMPONENTS = [f"L{layer}H{head}" for layer in range(LAYERS) for head in range(HEADS)]
COMPONENTS += [f"L{layer}F" for layer in range(LAYERS)]

# Drifts: contributions of every component to every position of every prompt.
Contributions = dict[str, list[float]]
PROMPT_FACTS = ["f", "f", "g", "h"]  # by prompt; the fact f has two
PROMPT_POSITIONS = [1, 2, 1, 3]
STEADY = 9  # checkpoints of a drift series, before anything is planted

# Roles: checkpoints as (name, stage, branch, phase), in order. A name without a stage ends its phase.
THETA = "0.25"
TAU_IDS = ["0.05", "0.1"]
LINES: dict[str, list[tuple[str, str | None, str, str]]] = {
    "plain": [(f"p{number}", "1", "main", "pretraining") for number in range(8)],
    "merged": [
        *((name, "1", "main", "pretraining") for name in ("m0", "m1", "m2", "m3")),
        *((name, "2", name[:4], "pretraining") for name in ("red_1", "red_2", "tan_1", "tan_2")),
        ("merge", None, "main", "pretraining"),
        ("tuned", "1", "main", "sft"),
    ],
    "branched": [
        *((name, "1", "main", "pretraining") for name in ("b0", "b1", "b2", "b3")),
        *((name, "2", name[:4], "pretraining") for name in ("red_1", "tan_1", "tan_2")),
        ("tan_3", "3", "tan_", "pretraining"),
    ],
}
MAIN_LINES = {
    "plain": [f"p{number}" for number in range(8)],
    "merged": ["m0", "m1", "m2", "m3", "merge"],
    "branched": ["b0", "b1", "b2", "b3", "tan_1", "tan_2", "tan_3"],
}
PREDICTIONS_ONLY = {"p3", "m2", "tan_1"}
KNOWN_FROM = {"at first": 0, "early": 1, "gap": 3, "later": 4, "never": None}
"""Relation -> from which checkpoint of the main line on all its facts are recalled. In `plain`, the fourth has no
attributions."""


@dataclass(frozen=True)
class Dynamics:
    result: BuildResult
    drifts: dict[str, dict[str, Contributions]]
    """Series -> checkpoint name -> its contributions."""
    twins: dict[tuple[str, str], dict[str, Checkpoint]]
    """Series and tau -> checkpoint name -> its roles, of those with attributions."""

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.result.database), read_only=True) as connection:
            return connection.execute(sql).fetchall()


@pytest.fixture(scope="module")
def dynamics(tmp_path_factory: pytest.TempPathFactory) -> Dynamics:
    lake = tmp_path_factory.mktemp("dynamics")
    drifts = {series_id: dict(courses) for series_id, courses in drift_courses()}
    for series_id, checkpoints in drifts.items():
        for number, (name, contributions) in enumerate(checkpoints.items()):
            commit_drift(lake, series_id, name, number, contributions)
    twins: dict[tuple[str, str], dict[str, Checkpoint]] = {}
    for series_id in LINES:
        commit_line(lake, series_id, twins)
    result = build_warehouse(lake, theta=THETA, complete_series=[], replicates=50)
    assert [check for check in result.checks if check.result != "pass"] == []
    return Dynamics(result, drifts, twins)


# Drifts


def drift_courses() -> Iterator[tuple[str, dict[str, Contributions]]]:
    """Series whose contributions go steadily from one place to another, but for what their name says."""
    for series_id in ("steady", "duplicate", "broken", "changed", "parallel", "few"):
        chance = random.Random(series_id)
        start, end, elsewhere = (draw_contributions(chance) for _ in range(3))
        count = 4 if series_id == "few" else STEADY
        course = [jittered(chance, between(start, end, 0.04 * number)) for number in range(count)]
        if series_id == "duplicate":
            course[4] = course[3]
        if series_id == "broken":
            course[4] = elsewhere
        if series_id == "changed":
            course[5:] = [between(step, elsewhere, 0.7) for step in course[5:]]
        yield series_id, {f"c{number}": contributions for number, contributions in enumerate(course)}


def draw_contributions(chance: random.Random) -> Contributions:
    """Every component's contribution by position; heads of a layer add up to less than 1, some contribute nothing."""
    positions = sum(PROMPT_POSITIONS)
    return {
        component: [
            0.0 if component.endswith("H0") else chance.random() / (2 if component.endswith("F") else HEADS)
            for _ in range(positions)
        ]
        for component in COMPONENTS
    }


def between(start: Contributions, end: Contributions, share: float) -> Contributions:
    return {
        component: [left + share * (right - left) for left, right in zip(values, end[component], strict=True)]
        for component, values in start.items()
    }


def jittered(chance: random.Random, contributions: Contributions) -> Contributions:
    return {
        component: [value * (1 + 0.01 * chance.random()) for value in values]
        for component, values in contributions.items()
    }


def commit_drift(
    lake: Path, series_id: str, name: str, step: int, contributions: Contributions, active: Sequence[str] = ()
) -> Path:
    """Commit one checkpoint, with components `active` at its first position; returns its directory."""
    prompts = [
        {"prompt_id": number, "relation_id": "r", "fact_id": fact, "subject": "s", "object": "o"}
        for number, fact in enumerate(PROMPT_FACTS)
    ]
    places = [(prompt, position) for prompt, count in enumerate(PROMPT_POSITIONS) for position in range(count)]
    rows = [
        {"prompt_id": prompt, "position": position, "component_id": component, "c_direct": value}
        for component, values in contributions.items()
        for (prompt, position), value in zip(places, values, strict=True)
    ]
    # What is no component does not move with the components, and would show if it counted.
    rows += [
        {"prompt_id": prompt, "position": position, "component_id": part, "c_direct": step % 3 / 3}
        for layer in range(LAYERS)
        for part in (f"L{layer}RA", f"L{layer}RF", f"L{layer}BA")
        for prompt, position in places
    ]
    tokens = [
        {"prompt_id": prompt, "position": position, "span_role": "subject", "is_answer_predicting": True}
        for prompt, position in places
    ]
    attributions = [{"tau_id": "0.05", "prompt_id": 0, "position": 0, "component_id": each} for each in active]
    tables = {"prompts": prompts, "prompt_tokens": tokens, "contributions": rows, "attributions": attributions}
    topology = "parallel_pre_norm" if series_id == "parallel" else "sequential_pre_norm"
    return commit(lake, series_id, name, tables, step=step, topology=topology, **SHAPE)


def component_mean(values: Sequence[float]) -> float:
    """Mean over the facts' means over positions."""
    by_fact: dict[str, list[float]] = {}
    facts = [fact for fact, count in zip(PROMPT_FACTS, PROMPT_POSITIONS, strict=True) for _ in range(count)]
    for fact, value in zip(facts, values, strict=True):
        by_fact.setdefault(fact, []).append(value)
    return sum(sum(each) / len(each) for each in by_fact.values()) / len(by_fact)


def total_variation(left: Contributions, right: Contributions, kind: str, is_parallel: bool) -> float:
    """Mean over the sums of half the summed absolute difference of all parts, what is left over being one part."""
    sums: dict[Any, list[float]] = {}
    for component in COMPONENTS:
        layer, own_kind = component[:2], "ffn" if component.endswith("F") else "head"
        if kind in ("all", own_kind):
            change = component_mean(right[component]) - component_mean(left[component])
            sums.setdefault(layer if is_parallel else (layer, own_kind), []).append(change)
    parts = [[*changes, -sum(changes)] for changes in sums.values()]
    return sum(sum(map(abs, changes)) / 2 for changes in parts) / len(parts)


def mean_ranks(values: Sequence[float]) -> list[float]:
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def spearman(left: Sequence[float], right: Sequence[float]) -> float:
    ranks = [mean_ranks([round(value, 9) for value in values]) for values in (left, right)]
    mean = (len(left) + 1) / 2
    products = sum((one - mean) * (other - mean) for one, other in zip(*ranks, strict=True))
    return products / math.sqrt(math.prod(sum((rank - mean) ** 2 for rank in each) for each in ranks))


@pytest.mark.parametrize("kind", ["all", "head", "ffn"])
def test_drifts(dynamics: Dynamics, kind: str) -> None:
    """Every number and every verdict, from the definitions."""
    found = {
        (series_id, checkpoint_id.split("/")[1]): values
        for series_id, checkpoint_id, *values in dynamics.rows(
            "select series_id, checkpoint_id, previous_checkpoint_id, contribution_distance, rank_correlation, "
            "typical_distance, distance_ratio, is_outlier, is_identical, bypass_distance, is_suspect "
            f"from fct_checkpoint_drifts where component_kind = '{kind}'"
        )
    }
    components = [each for each in COMPONENTS if kind in ("all", "ffn" if each.endswith("F") else "head")]
    seen = 0
    for series_id, checkpoints in dynamics.drifts.items():
        courses, is_parallel = list(checkpoints.values()), series_id == "parallel"
        distances = [total_variation(*pair, kind, is_parallel) for pair in pairwise(courses)]
        typical = [median(distances[:at] + distances[at + 1 :]) for at in range(len(distances))]
        logs = [math.log(each / usual) if each else None for each, usual in zip(distances, typical, strict=True)]
        for at, distance in enumerate(distances):
            name = f"c{at + 1}"
            others = [abs(log) for other, log in enumerate(logs) if other != at and log is not None]
            is_outlier = (
                len(distances) >= 5 and logs[at] is not None and logs[at] > max(math.log(3), 5.1891 * median(others))
            )
            bypass, onward = None, None
            if at + 2 < len(courses):
                bypass, onward = total_variation(courses[at], courses[at + 2], kind, is_parallel), distances[at + 1]
            is_suspect = bypass is not None and onward is not None and bypass < min(distance, onward) / 2
            ends = [[component_mean(course[each]) for each in components] for course in courses[at : at + 2]]
            assert found[series_id, name] == [
                f"{series_id}/c{at}",
                pytest.approx(distance, abs=1e-8),
                pytest.approx(spearman(*ends), abs=1e-8),
                pytest.approx(typical[at], abs=1e-8),
                pytest.approx(distance / typical[at], abs=1e-4),
                is_outlier,
                distance == 0,
                None if bypass is None else pytest.approx(bypass, abs=1e-8),
                is_suspect,
            ], name
            seen += 1
    assert seen == len(found) == 5 * (STEADY - 1) + 3


@pytest.mark.parametrize(
    ("series_id", "identical", "outliers", "suspects"),
    [
        ("steady", set(), set(), set()),
        ("duplicate", {"c4"}, set(), set()),
        ("broken", set(), {"c4", "c5"}, {"c4"}),
        ("changed", set(), {"c5"}, set()),
        ("parallel", set(), set(), set()),
        ("few", set(), set(), set()),
    ],
)
def test_what_was_planted_is_found(
    dynamics: Dynamics, series_id: str, identical: set[str], outliers: set[str], suspects: set[str]
) -> None:
    for kind in ("all", "head", "ffn"):
        rows = dynamics.rows(
            "select split_part(checkpoint_id, '/', 2), is_identical, is_outlier, is_suspect from fct_checkpoint_drifts "
            f"where series_id = '{series_id}' and component_kind = '{kind}'"
        )
        marked = [{row[0] for row in rows if row[column]} for column in (1, 2, 3)]
        assert marked == [identical, outliers, suspects], kind


SMOOTH_TABLES = """
create table dim_series as select 's' || n as series_id, 'sequential' as block from range(100) r (n);
create table dim_components as
    select series_id, 'L' || layer || if(head = 8, 'F', 'H' || head) as component_id,
        if(head = 8, 'ffn', 'head') as component_kind, layer
    from dim_series, range(4) l (layer), range(9) h (head);
create table int_checkpoints as
    select series_id, 'x' as setting_id, series_id || '/' || i as checkpoint_id, series_id || '/' || i as extraction_id,
        i::integer as checkpoint_index, 1 as stage_number, 'main' as branch, i / (checkpoint_count - 1) as progress
    from (select series_id, 6 + (random() * 30)::integer as checkpoint_count from dim_series), range(40) c (i)
    where i < checkpoint_count;
-- Every component goes from one value to another along a course of its own: an S, or a relaxation.
create table courses as
    select series_id, component_id, random() / 9 as first, random() / 9 as last, random() as middle,
        0.15 + 0.35 * random() as width, series_id like '%0' or series_id like '%5' as relaxes
    from dim_components;
create table int_component_contributions as
    select extraction_id, component_id, 'r' as relation_id, 'f' as fact_id,
        first + (last - first) * if(relaxes, 1 - exp(-progress / width), 1 / (1 + exp((middle - progress) / width)))
        + 0.00002 * random() as mean_contribution, 1 as position_count
    from int_checkpoints inner join courses using (series_id);
"""


def test_smooth_drifts_raise_no_alarm(dynamics: Dynamics) -> None:
    """The rules themselves, over 100 series of 6 to 36 checkpoints: at most 5 with any outlier or suspect."""
    (compiled,) = dynamics.result.database.parent.glob("dbt/compiled/**/fct_checkpoint_drifts.sql")
    with duckdb.connect() as connection:
        connection.execute("set threads = 1; select setseed(0.25); attach ':memory:' as warehouse; use warehouse")
        connection.execute(SMOOTH_TABLES)
        connection.execute(f"create table drifts as {compiled.read_text()}")
        alarms = connection.execute(
            "select component_kind, count(distinct series_id) filter (where is_outlier), "
            "count(distinct series_id) filter (where is_suspect), count(distinct series_id) from drifts group by all"
        ).fetchall()
    assert {kind for kind, *_ in alarms} == {"all", "head", "ffn"}
    for kind, outliers, suspects, count in alarms:
        assert count == 100
        assert outliers <= 5, kind
        assert suspects <= 5, kind


# Roles along the main line


def commit_line(lake: Path, series_id: str, twins: dict[tuple[str, str], dict[str, Checkpoint]]) -> None:
    """A series whose components keep what they do from checkpoint to checkpoint, or change it, at random."""
    chance = random.Random(series_id)
    prompts, tables = line_prompts()
    active: dict[tuple[str, str], list[set[int]]] = {}
    for number, (name, stage, branch, phase) in enumerate(LINES[series_id]):
        attributions = []
        for tau_id in TAU_IDS:
            for component in COMPONENTS:
                if number == 0 or chance.random() < 0.4:
                    active[tau_id, component] = line_activity(chance, prompts)
                attributions += [
                    {"tau_id": tau_id, "prompt_id": prompt, "position": position, "component_id": component}
                    for prompt, positions in enumerate(active[tau_id, component])
                    for position in sorted(positions)
                ]
            if name not in PREDICTIONS_ONLY:
                now = {component: active[tau_id, component] for component in COMPONENTS}
                checkpoint = Checkpoint(name, (phase, stage or ""), branch, prompts, now)
                checkpoint.decide_roles(Fraction(THETA))
                twins.setdefault((series_id, tau_id), {})[name] = checkpoint
        # Beside the main line everything is known, which must not count.
        on_line = name in MAIN_LINES[series_id]
        index = MAIN_LINES[series_id].index(name) if on_line else 99
        predictions = []
        for prompt_id, prompt in enumerate(prompts):
            since = KNOWN_FROM[prompt.relation_id]
            is_known = not on_line or (since is not None and index >= since)
            predictions.append({"prompt_id": prompt_id, "readout": LAYERS, "rank": 0 if is_known else 50})
        raw = {**tables, "predictions": predictions, "attributions": [] if name in PREDICTIONS_ONLY else attributions}
        values = {"stage": stage, "branch": branch, "phase": phase, "step": None if stage is None else 10 * number}
        commit(lake, series_id, name, raw, tau_ids=TAU_IDS, taus=[0.05, 0.1], **values, **SHAPE)


def line_prompts() -> tuple[list[Prompt], dict[str, list[dict[str, Any]]]]:
    """Four facts per relation. Of `early`, one answer has two tokens; of `gap`, two begin alike."""
    prompts: list[Prompt] = []
    tables: dict[str, list[dict[str, Any]]] = {"prompts": [], "prompt_tokens": []}
    for relation_id in KNOWN_FROM:
        for number in range(4):
            fact_id = f"{relation_id}/{number}"
            spans = ["template", "subject", "answer"]
            token_id = number
            if relation_id == "early" and number == 3:
                spans.append("answer")
            if relation_id == "gap" and number == 3:
                token_id = 0
            predicting = {at - 1 for at, span in enumerate(spans) if span == "answer"}
            row = {"prompt_id": len(prompts), "relation_id": relation_id, "fact_id": fact_id}
            tables["prompts"].append({**row, "subject": fact_id, "object": "o"})
            tables["prompt_tokens"] += [
                {"prompt_id": len(prompts), "position": at, "span_role": span, "token_id": token_id,
                 "is_answer_predicting": at in predicting}
                for at, span in enumerate(spans)
            ]  # fmt: skip
            prompts.append(Prompt(relation_id, fact_id, set(range(len(spans))), {1}, predicting))
    return prompts, tables


def line_activity(chance: random.Random, prompts: Sequence[Prompt]) -> list[set[int]]:
    """Active nowhere, for a fact or two, for a relation or two, or for much."""
    what = chance.choice(["nothing", "facts", "relations", "much"])
    relations = chance.sample(list(KNOWN_FROM), 1)
    facts = {prompt.fact_id for prompt in chance.sample(list(prompts), 2)}
    active = []
    for prompt in prompts:
        if what == "much":
            active.append({at for at in sorted(prompt.target_positions) if chance.random() < 0.4})
        elif (what == "facts" and prompt.fact_id in facts) or (what == "relations" and prompt.relation_id in relations):
            active.append(set(prompt.answer_predicting_positions))
        else:
            active.append(set())
    return active


def test_spells(dynamics: Dynamics) -> None:
    expected = set()
    for (series_id, tau_id), checkpoints in dynamics.twins.items():
        line = [name for name in MAIN_LINES[series_id] if name in checkpoints]
        steps = {name: None if stage is None else 10 * at for at, (name, stage, *_) in enumerate(LINES[series_id])}
        for component in COMPONENTS:
            spell: list[str] = []
            for at, name in enumerate(line):
                spell.append(name)
                role = checkpoints[name].primary_role(component)
                if at + 1 == len(line) or checkpoints[line[at + 1]].primary_role(component) != role:
                    ends = (f"{series_id}/{spell[0]}", f"{series_id}/{spell[-1]}", steps[spell[0]], steps[spell[-1]])
                    censored = (spell[0] == line[0], name == line[-1])
                    kind = "ffn" if component.endswith("F") else "head"
                    expected.add((series_id, tau_id, component, kind, role, *ends, len(spell), *censored))
                    spell = []
    assert {row[4] for row in expected} == {"general", "entity", "relation_answer", "fact_answer", "inactive"}
    assert {row[9] for row in expected} >= {1, 2, 3, 4}
    found = dynamics.rows(
        "select series_id, tau_id, component_id, component_kind, role, from_checkpoint_id, to_checkpoint_id, "
        "from_step, to_step, checkpoint_count, is_left_censored, is_right_censored from fct_role_spells "
        f"where series_id in {tuple(LINES)}"  # in the others nothing is active
    )
    assert len(found) == len(expected)
    assert set(found) == expected


def test_spells_agree_with_histories(dynamics: Dynamics) -> None:
    """Along a line without branches, a spell begins where the history says that the role is held since."""
    found = dynamics.rows(
        "select count(*), count_if(from_checkpoint_id = role_since_checkpoint_id and role = primary_role) "
        "from fct_role_spells as spells inner join fct_component_histories as histories "
        "using (series_id, setting_id, tau_id, component_id) "
        "inner join dim_checkpoints using (series_id, setting_id, checkpoint_id) "
        "inner join dim_checkpoints as firsts on firsts.checkpoint_id = from_checkpoint_id "
        "inner join dim_checkpoints as lasts on lasts.checkpoint_id = to_checkpoint_id "
        "where series_id = 'plain' "
        "and dim_checkpoints.checkpoint_index between firsts.checkpoint_index and lasts.checkpoint_index"
    )
    assert found == [(len(TAU_IDS) * len(COMPONENTS) * 7, len(TAU_IDS) * len(COMPONENTS) * 7)]


def test_repurposings(dynamics: Dynamics) -> None:
    expected = set()
    for (series_id, tau_id), checkpoints in dynamics.twins.items():
        line = MAIN_LINES[series_id]
        measured = [name for name in line if name in checkpoints]
        last = checkpoints[measured[-1]]
        for relation_id, since in KNOWN_FROM.items():
            # Reached only at the last checkpoint is not converged.
            if since is None or since == len(line) - 1:
                continue
            then = checkpoints[next(name for name in line[since:] if name in checkpoints)]
            for component in COMPONENTS:
                held, held_at_last = (
                    {role for who, role, _, what in checkpoint.memberships if (who, what) == (component, relation_id)}
                    for checkpoint in (then, last)
                )
                if held:
                    role_at_last = last.primary_role(component)
                    expected.add(
                        (series_id, tau_id, relation_id, component, "ffn" if component.endswith("F") else "head",
                         f"{series_id}/{then.checkpoint_id}", f"{series_id}/{last.checkpoint_id}",
                         "relation_answer" if "relation_answer" in held else "fact_answer",
                         then.primary_role(component), role_at_last, bool(held_at_last),
                         not held_at_last and role_at_last != "inactive", role_at_last == "inactive")
                    )  # fmt: skip
    found = dynamics.rows("select * exclude (setting_id) from fct_repurposings")
    assert len(found) == len(expected)
    assert set(found) == expected
    # All that can happen does, from both roles; and a relation converged at a checkpoint without attributions.
    assert {row[7:8] + row[10:] for row in expected} == {
        (role, *outcome)
        for role in ("relation_answer", "fact_answer")
        for outcome in ((True, False, False), (False, True, False), (False, False, True))
    }
    assert ("plain", "gap", "plain/p4") in {(row[0], row[2], row[5]) for row in expected}
    assert {row[0] for row in expected} == set(LINES)
    assert {row[2] for row in expected} == {"at first", "early", "gap", "later"}


def test_subsets_of_facts(dynamics: Dynamics) -> None:
    """Four of four facts, three without the answer of two tokens, two without those that begin alike: too few."""
    found = dynamics.rows(
        "select distinct relation_id, fact_subset, majority_share from fct_relation_convergences "
        "where series_id = 'plain' and relation_id in ('at first', 'early', 'gap')"
    )
    assert set(found) == {
        ("at first", "all", 0.25), ("at first", "single_token_unshared", 0.25),
        ("early", "all", 0.25), ("early", "single_token_unshared", 1 / 3),
        ("gap", "all", 0.5),
    }  # fmt: skip


def test_contributions_are_read_once(dynamics: Dynamics) -> None:
    """Every component, fact and checkpoint, none of the residuals."""
    count = sum(map(len, dynamics.drifts.values())) * len(COMPONENTS) * len(set(PROMPT_FACTS))
    assert dynamics.rows("select count(*) from int_component_contributions") == [(count,)]


@pytest.mark.slow
def test_withdrawn_and_new_contributions(tmp_path: Path) -> None:
    """What was built is not read again, what is withdrawn is gone, and all is as if built from nothing."""
    course = dict(drift_courses())["steady"]
    names = list(course)[:5]
    for number, name in enumerate(names[:4]):
        directory = commit_drift(tmp_path / "grown", "steady", name, number, course[name], ["L0F"])
    build_warehouse(tmp_path / "grown", theta=THETA, complete_series=[], replicates=50)
    for path in (tmp_path / "grown").glob("raw/*/*/*/contributions.parquet"):
        path.write_bytes(b"garbage")
    commit_path(tmp_path / "grown", "steady", names[3]).unlink()
    new = commit_drift(tmp_path / "grown", "steady", names[4], 4, course[names[4]], ["L0F"]).name
    grown = build_warehouse(tmp_path / "grown", theta=THETA, complete_series=[], replicates=50)
    assert not grown.is_full_refresh
    assert (grown.added_extractions, grown.removed_extractions) == ((new,), (directory.name,))

    for number, name in enumerate(names):
        if number != 3:
            commit_drift(tmp_path / "fresh", "steady", name, number, course[name], ["L0F"])
    fresh = build_warehouse(tmp_path / "fresh", theta=THETA, complete_series=[], replicates=50)
    for table in ("int_component_contributions", "fct_checkpoint_drifts"):
        rows = []
        for result in (grown, fresh):
            with duckdb.connect(str(result.database), read_only=True) as connection:
                rows.append(connection.execute(f"from {table} order by all").fetchall())
        assert rows[0] == rows[1] != []
