"""Draws over facts, and roles under them, worked out a second time in plain Python."""

import json
from collections import defaultdict
from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from simulations import draws as simulated_draws
from simulations import warehouse
from tests.warehouse.conftest import snapshot
from tests.warehouse.drawn_lake import (
    CHECKPOINTS,
    MARTS,
    ONE,
    REPLICATES,
    SERIES,
    TAU_IDS,
    THETA,
    THETAS,
    Draw,
    DrawnLake,
    drawn_roles,
)
from tests.warehouse.raw_lake import commit_path
from tests.warehouse.roles_twin import ROLES
from timecourse.build import build_warehouse, theta_grid
from timecourse.resampling import BOOTSTRAP_SPLITS, PERMUTATIONS, draw_orders, draw_resamples

SAMPLED = {
    "observed": range(1),
    "bootstrap": range(1, 16),
    "half": (*range(1, 6), 20, 21, 22),  # the first 20 have every theta
    "bootstrap_half": range(1, 16),
}
INCREMENTAL = (
    "int_component_contributions",
    "int_component_peaks",
    "int_contribution_ranks",
    "int_resampled_role_sets",
)

# Roles under draws


def test_roles_under_draws(drawn_lake: DrawnLake) -> None:
    """Of every kind of draw, at every theta that it has: a sample, by fractions, from the weights alone."""
    compared = defaultdict[str, int](int)
    for (checkpoint, tau_id, draw, theta), sets in drawn_lake.sets.items():
        kind, number, _ = draw
        if number not in SAMPLED[kind] or (kind != "observed" and tau_id != TAU_IDS[0]):
            continue
        weights, present = drawn_lake.weights[draw]
        expected = drawn_roles(drawn_lake, drawn_lake.measured[checkpoint, tau_id], weights, present, theta)
        if kind == "bootstrap":  # facts are never drawn, and have their union only
            expected = {key: members for key, members in expected.items() if key[0] != "fact_answer" or not key[1]}
        assert sets == expected, (checkpoint, tau_id, draw, theta)
        compared[kind] += 1
    cells = len(CHECKPOINTS) * len(THETAS)
    assert compared == {
        "observed": cells * len(TAU_IDS),
        "bootstrap": 15 * len(CHECKPOINTS),
        "half": 2 * (6 * cells + 2 * len(CHECKPOINTS)),
        "bootstrap_half": 2 * 15 * len(CHECKPOINTS),
    }
    draws = {draw for _, _, draw, _ in drawn_lake.sets}
    assert draws == set(drawn_lake.weights)
    assert sum(kind == "bootstrap" for kind, _, _ in draws) == REPLICATES
    # The comparison is worth something: roles of every kind change with the draw.
    for role in ROLES:
        seen = {
            sets[role, ""] for (name, tau, *_), sets in drawn_lake.sets.items() if (name, tau) == ("main", TAU_IDS[0])
        }
        assert len(seen) > 5, role


def test_observed_roles_are_the_memberships(drawn_lake: DrawnLake) -> None:
    held = defaultdict[tuple[str, str, str, str], set[str]](set)
    for row in drawn_lake.of_series("fct_role_memberships"):
        for relation in {row["relation_id"] or "", ""}:
            held[row["checkpoint_id"].split("/")[1], row["tau_id"], row["role"], relation].add(row["component_id"])
    for (checkpoint, tau_id, draw, theta), sets in drawn_lake.sets.items():
        if draw[0] == "observed" and theta == Fraction(THETA):
            for (role, relation), members in sets.items():
                assert members == held.pop((checkpoint, tau_id, role, relation), set())
    assert held == {}


def test_an_empty_half_holds_no_role() -> None:
    """Where a model is asked one fact only, one half of the facts is empty, and nothing is a rate in it."""
    prompts = {"extraction_id": "e", "prompt_id": [0], "relation_id": "r", "fact_id": "f"}
    with duckdb.connect() as connection:
        connection.execute(
            "create table drawn_facts as select 's' fact_set_id, 0 fact_number, 'r' relation_id, 'f' fact_id"
        )
        warehouse.fill(
            connection,
            "int_fact_positions",
            {**{name: prompts[name] for name in ("extraction_id", "relation_id", "fact_id")}, "fact_set_id": "s",
             "fact_number": [0], "prompt_count": 1, "entity_position_count": 2, "answer_position_count": 1},
        )  # fmt: skip
        warehouse.fill(
            connection,
            "stg_draws__weights",
            {"fact_set_id": "s", "resample_kind": "half", "resample": 1, "half": ["A", "B"],
             "weights": [[0.0], [1.0]], "presence": [[0.0], [1.0]]},
        )  # fmt: skip
        warehouse.fill(
            connection,
            "int_component_vectors",
            {"extraction_id": "e", "tau_id": "t", "component_number": [0], "prompt_share_sums": [[1.0]],
             "entity_active_counts": [[2.0]], "answer_active_counts": [[1.0]]},
        )  # fmt: skip
        variables = {"theta": "0.1", "theta_grid": theta_grid("0.1"), "component_limit": 2}
        warehouse.build(connection, "int_resampled_role_sets", **variables)
        rows = connection.execute(
            "select half, role from int_resampled_role_sets where get_bit(members, 0) = 1 and theta = 0.1"
        ).fetchall()
    assert rows == [("B", "general")]


# Draws


def draws_of(sizes: Mapping[str, int], seed: int = 0, replicates: int = 300) -> dict[Draw, tuple[Any, Any]]:
    return {
        (one.resample_kind, one.resample, one.half): (one.weights, one.presence)
        for one in draw_resamples(sizes, replicates=replicates, seed=seed)
    }


def test_draws_are_what_they_say() -> None:
    sizes = {"all": 5, "it's": 8, "one": 1}
    draws = draws_of(sizes)
    ends = np.cumsum([0, *sizes.values()])
    assert sum(kind == "bootstrap_half" for kind, *_ in draws) == 2 * BOOTSTRAP_SPLITS
    for (kind, number, half), (weights, presence) in draws.items():
        per_relation = [weights[start:end] for start, end in pairwise(ends)]
        assert (weights >= 0).all() and (weights == weights.round()).all()
        if kind in ("observed", "bootstrap"):
            assert [part.sum() for part in per_relation] == list(sizes.values())
            assert (presence == 1).all()
        if kind == "observed":
            assert (weights == 1).all()
        if half == "A":
            other_weights, other_presence = draws[kind, number, "B"]
            assert (presence + other_presence == 1).all()
            assert (weights[presence == 0] == 0).all()
            whole = draws["bootstrap", number, ""][0] if kind == "bootstrap_half" else 1
            assert (weights + other_weights == whole).all()
            counts = [presence[start:end].sum() for start, end in pairwise(ends)]
            assert counts[0] in (2, 3) and counts[1] == 4 and counts[2] in (0, 1)
    drawn = np.array([weights for (kind, *_), (weights, _) in draws.items() if kind == "bootstrap"])
    for start, end in pairwise(ends):
        size = end - start  # weights are binomial
        assert abs(drawn[:, start:end].mean() - 1) < 1e-9
        assert drawn[:, start:end].var(axis=0) == pytest.approx(1 - 1 / size, abs=0.35)
    first = np.array([presence for (kind, _, half), (_, presence) in draws.items() if (kind, half) == ("half", "A")])
    assert first.mean(axis=0) == pytest.approx(0.5, abs=0.25)
    orders = draw_orders(sizes, seed=0)
    assert orders.shape == (PERMUTATIONS, 14)
    assert len(np.unique(orders)) == orders.size


def test_draws_depend_on_the_seed_and_the_relation_only() -> None:
    both, alone = draws_of({"all": 5, "it's": 8}), draws_of({"it's": 8})
    assert all((both[draw][part][5:] == alone[draw][part]).all() for draw in both for part in (0, 1))
    assert (draw_orders({"all": 5, "it's": 8}, seed=0)[:, 5:] == draw_orders({"it's": 8}, seed=0)).all()
    for other in (draws_of({"it's": 8}, seed=1), draws_of({"its": 8})):
        for kind in ("bootstrap", "half", "bootstrap_half"):
            same = [np.array_equal(alone[draw][0], other[draw][0]) for draw in alone if draw[0] == kind]
            assert sum(same) < len(same) / 10
    assert not (draw_orders({"it's": 8}, seed=1) == draw_orders({"it's": 8}, seed=0)).any()
    more = draws_of({"it's": 8}, replicates=400)
    assert all((more[draw][0] == alone[draw][0]).all() for draw in alone if draw[0] != "bootstrap")


def test_what_was_measured_alike_has_the_same_statistics(drawn_lake: DrawnLake) -> None:
    """Another series, in another setting, meets the same draws."""
    for table in MARTS:
        rows = drawn_lake.rows(f"select * exclude (setting_id) from {table}")
        one, other = (
            sorted(
                str({name: str(value).replace(series_id, "") for name, value in row.items()})
                for row in rows
                if row["series_id"] == series_id
            )
            for series_id in SERIES
        )
        assert one == other
        assert one


def test_another_seed_gives_other_intervals(drawn_lake: DrawnLake) -> None:
    with duckdb.connect() as connection:
        warehouse.read_lake(connection, drawn_lake.path)
        warehouse.build_from_raw(
            connection, "fct_turnovers", theta=THETA, replicates=REPLICATES, seed=1, kinds=("observed", "bootstrap")
        )
        other = connection.execute("from fct_turnovers order by all").fetchall()
    rows = drawn_lake.connection.execute("from fct_turnovers order by all").fetchall()
    assert [row[:-2] for row in other] == [row[:-2] for row in rows]
    assert sum(row != changed for row, changed in zip(rows, other, strict=True)) > 20


@pytest.mark.slow
def test_builds_in_steps(drawn_lake: DrawnLake) -> None:
    """With the last checkpoint as a second step, and after a build that left things out, the marts are the same."""
    hidden = commit_path(drawn_lake.path, ONE, "main", SERIES[ONE])
    hidden.rename(hidden.with_suffix(".later"))
    for step in range(3):
        if step == 1:
            hidden.with_suffix(".later").rename(hidden)
        if step == 2:
            with duckdb.connect(str(drawn_lake.path / "build" / "warehouse.duckdb")) as connection:
                for number, model in enumerate(INCREMENTAL):
                    connection.execute(
                        f"delete from {model} where extraction_id = (select distinct extraction_id from {model} "
                        f"order by extraction_id limit 1 offset {number % len(CHECKPOINTS)})"
                    )
        result = build_warehouse(drawn_lake.path, theta=THETA, complete_series=[], replicates=REPLICATES)
        assert result.is_full_refresh == (step == 0)
        built = snapshot(result.database)
        same = {
            name: built[name] == drawn_lake.connection.execute(f"from {name} order by all").fetchall() for name in MARTS
        }
        assert set(same.values()) == {step > 0}, (step, same)


# The simulation, short


def test_simulated_intervals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals hold a statistic's mean over as many facts. Its limit they miss: noise at θ looks like turnover."""
    monkeypatch.setattr(warehouse, "OUT", tmp_path)
    rows = {(row["statistic"], row["role"]): row for row in simulated_draws.main(series=8, facts=(12,), replicates=40)}
    assert len(rows) == 8
    for row in rows.values():
        assert row["covers mean"] > 0.7
        assert 0.5 < row["half width"] / (1.96 * row["deviation"]) < 4
    for role in ("entity", "relation_answer", "all"):
        assert rows["turnover", role]["mean"] > rows["turnover", role]["limit"] + 0.05
    noise = {row["role"]: row for row in json.loads((tmp_path / "noise.json").read_text())}
    assert noise["entity"]["overlap"] < 0.85 and noise["entity"]["noise-corrected"] == pytest.approx(1, abs=0.15)
    (planted,) = json.loads((tmp_path / "planted.json").read_text())
    assert planted["significant: true"] > 0.85 > planted["role changed: true"]
    assert planted["significant: found"] > 0.5
