"""The role marts of random activities equal a second, plain computation of the same definitions."""

from collections import Counter
from fractions import Fraction

import duckdb
import pytest

from tests.warehouse.conftest import RandomLake
from tests.warehouse.learning_lake import SERIES
from tests.warehouse.random_lake import PARTITIONS, RELATIONS, SILENT, TAU_IDS, THETA, Partition
from tests.warehouse.roles_twin import answer_rate, twin_marts

COLUMNS = {
    "fct_role_memberships": "checkpoint_id, component_id, role, scope_id, relation_id",
    "fct_component_histories": "checkpoint_id, component_id, primary_role, previous_primary_role, "
    "previous_checkpoint_id, has_changed, role_since_checkpoint_id, change_count",
    "fct_role_stabilities": "checkpoint_id, component_kind, role, scope_id, member_count, iou_reference, iou_previous",
    "fct_role_transitions": "from_checkpoint_id, to_checkpoint_id, component_kind, from_role, to_role, component_count",
    "fct_turnovers": "from_checkpoint_id, to_checkpoint_id, component_kind, role, changed_count, component_count",
    "fct_role_switches": "* exclude (series_id, setting_id, tau_id)",
}


@pytest.mark.parametrize("mart", COLUMNS)
def test_mart_equals_its_twin(random_lake: RandomLake, mart: str) -> None:
    with duckdb.connect(str(random_lake.result.database), read_only=True) as connection:
        for (series_id, setting_id, tau_id), checkpoints in random_lake.twins.items():
            rows = connection.execute(
                f"select {COLUMNS[mart]} from {mart} where series_id = ? and setting_id = ? and tau_id = ?",
                [series_id, setting_id, tau_id],
            ).fetchall()
            for checkpoint in checkpoints:
                checkpoint.memberships.clear()
            assert Counter(rows) == Counter(twin_marts(checkpoints, Fraction(THETA))[mart])


def test_the_data_is_hard_enough(random_lake: RandomLake) -> None:
    """Every role is held, and rates lie exactly on θ."""
    held = Counter(
        membership[1]
        for checkpoints in random_lake.twins.values()
        for checkpoint in checkpoints
        for membership in checkpoint.memberships
    )
    assert min(held[role] for role in ("general", "entity", "relation_answer", "fact_answer")) > 10
    ties = 0
    for checkpoints in random_lake.twins.values():
        for checkpoint in checkpoints:
            for active in checkpoint.active.values():
                for relation_id in RELATIONS:
                    pairs = zip(checkpoint.prompts, active, strict=True)
                    ties += answer_rate([pair for pair in pairs if pair[0].relation_id == relation_id]) == Fraction(
                        THETA
                    )
    assert ties > 10


def test_where_nothing_is_active_every_component_is_inactive(random_lake: RandomLake) -> None:
    """A checkpoint without an active component has its rows, its neighbours, and a place in the grid θ × τ."""
    with duckdb.connect(str(random_lake.result.database), read_only=True) as connection:
        for series_id, name, tau_id in sorted(SILENT):
            (partition,) = (one for one in PARTITIONS if one.series_id == series_id)
            found = connection.execute(
                """select count(*), count_if(primary_role = 'inactive'), count_if(confidence = 1), count(robustness)
                from fct_component_histories where checkpoint_id = ? and tau_id = ?""",
                [partition.checkpoint_id(name), tau_id],
            ).fetchone()
            assert found == (len(partition.components),) * 4
            cells = connection.execute(
                "select count(*) from fct_role_sensitivities where checkpoint_id = ? and tau_id = ?",
                [partition.checkpoint_id(name), tau_id],
            ).fetchone()
            others = connection.execute(
                "select count(*) from fct_role_sensitivities where series_id = ? group by checkpoint_id, tau_id",
                [series_id],
            ).fetchall()
            assert set(others) == {cells} != {(0,)}


def test_core_is_the_same_role_at_every_threshold(random_lake: RandomLake) -> None:
    """The roles at every τ count, also where nothing is active at one of them."""
    with duckdb.connect(str(random_lake.result.database), read_only=True) as connection:
        wrong = connection.execute(
            """with roles as (
                select series_id, setting_id, checkpoint_id, component_id, count(distinct primary_role) as roles,
                    count(distinct tau_id) as taus, bool_or(robustness = 'core') as is_core
                from fct_component_histories group by all
            )
            select count_if(taus <> 2), count_if(is_core and roles > 1), count_if(roles > 1) > 10 from roles"""
        ).fetchone()
    assert wrong == (0, 0, True)


def test_every_check_passes(random_lake: RandomLake) -> None:
    assert {check.result for check in random_lake.result.checks} == {"pass"}


def test_components_of_every_shape(random_lake: RandomLake) -> None:
    """Every head and FFN has a row; consecutive query heads share a key-value head."""
    with duckdb.connect(str(random_lake.result.database), read_only=True) as connection:
        rows = connection.execute("select series_id, component_id, kv_head from dim_components").fetchall()
    for partition in PARTITIONS:
        of_series = {component: kv_head for series_id, component, kv_head in rows if series_id == partition.series_id}
        assert sorted(of_series) == sorted(partition.components)
        group_size = partition.head_count // partition.kv_head_count
        expected = [head // group_size for head in range(partition.head_count)]
        for layer in range(partition.layer_count):
            assert [of_series[f"L{layer}H{head}"] for head in range(partition.head_count)] == expected
            assert of_series[f"L{layer}F"] is None
    shapes = {(partition.head_count, partition.kv_head_count) for partition in PARTITIONS}
    assert {(6, 6), (6, 3), (6, 2), (1, 1)} <= shapes


def test_what_may_be_compared(random_lake: RandomLake) -> None:
    """Every pair has a row; only series of one block and setting are comparable, and the reasons are in words."""
    with duckdb.connect(str(random_lake.result.database), read_only=True) as connection:
        rows = connection.execute("from dim_series_pairs").fetchall()
        (blocks,) = connection.execute("select map_from_entries(list((series_id, block))) from dim_series").fetchall()
    found = {(tuple(row[:3]), tuple(row[3:6])): row[6:] for row in rows}
    measured = {
        (partition.series_id, partition.setting_id, tau): partition for partition in PARTITIONS for tau in TAU_IDS
    }
    measured[SERIES, "setting", "0.05"] = Partition(SERIES, "setting", 4, 4, 4, [])  # the accuracies' series
    assert set(found) == {(one, other) for one in measured for other in measured if one != other}
    assert blocks[0] == {partition.series_id: partition.block for partition in measured.values()}
    seen = set()
    for (one, other), (is_comparable, reason) in found.items():
        same_block, same_setting = measured[one].block == measured[other].block, one[1:] == other[1:]
        seen.add((same_block, same_setting))
        assert is_comparable == (same_block and same_setting)
        assert (reason is None) == is_comparable
        words = reason or ""
        assert (
            f"{one[0]} has {measured[one].block} blocks and {other[0]} {measured[other].block} ones: " in words
        ) == (not same_block)
        assert ("different settings" in words) == (not same_setting)
    assert len(seen) == 4
    assert found[("two", "setting", "5x"), ("post", "setting", "5x")] == (True, None)


def test_parts_of_every_block_are_read(random_lake: RandomLake) -> None:
    """A parallel layer has one residual, a sequential one two, and either has a bias where the model has."""
    with duckdb.connect(str(random_lake.result.database), read_only=True) as connection:
        rows = connection.execute(
            """select distinct series_id, setting_id, component_id
            from stg_raw__contributions join stg_raw__checkpoints using (extraction_id)"""
        ).fetchall()
    for partition in PARTITIONS:
        parts = [part for *key, part in rows if key == [partition.series_id, partition.setting_id]]
        assert sorted(parts) == sorted(part for parts in partition.sums for part in parts)


def test_a_checkpoint_of_predictions_only(random_lake: RandomLake) -> None:
    """It is in the series and its predictions count; the role marts skip it."""
    with duckdb.connect(str(random_lake.result.database), read_only=True) as connection:
        counts = [
            connection.execute(f"select count(*) from {mart} where checkpoint_id like '%/step9.5'").fetchall()[0][0]
            for mart in ("dim_checkpoints", "fct_fact_predictions", "fct_component_histories", "fct_role_stabilities")
        ]
    assert counts == [3, 27, 0, 0]
