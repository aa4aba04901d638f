"""Roles, overlaps and switches of the reference results, exactly."""

from pathlib import Path

import duckdb
import pytest

from tests.warehouse.conftest import Golden
from tests.warehouse.raw_lake import GOLDEN, GOLDEN_CHECKPOINTS, GOLDEN_TAUS

COMPONENT = "case kind when 'ffn' then 'L' || layer || 'F' else 'L' || layer || 'H' || head end"


def differing_rows(database: Path, expected: str, actual: str) -> tuple[int, list[tuple[object, ...]]]:
    """How many rows were expected, and the rows that only one side has."""
    with duckdb.connect(str(database), read_only=True) as connection:
        count = connection.execute(f"select count(*) from ({expected})").fetchall()[0][0]
        difference = connection.execute(
            f"(({expected}) except all ({actual})) union all (({actual}) except all ({expected}))"
        ).fetchall()
    return count, difference


@pytest.mark.parametrize(("tau_id", "rows"), [("0.05", 70), ("0.15", 44)])
def test_memberships(golden: Golden, tau_id: str, rows: int) -> None:
    expected = f"""
        select 'golden/' || revision, kind, {COMPONENT}, role, relation, case role
            when 'general' then 'all' when 'entity' then 'entity' when 'relation_answer' then relation
            else relation || '/fact-' || idx end
        from '{GOLDEN}/tau_{tau_id}/role_memberships.parquet'"""
    actual = f"""
        select checkpoint_id, component_kind, component_id, role, relation_id, scope_id
        from fct_role_memberships where tau_id = '{tau_id}'"""
    assert differing_rows(golden.second.database, expected, actual) == (rows, [])


@pytest.mark.parametrize("tau_id", GOLDEN_TAUS)
def test_stabilities(golden: Golden, tau_id: str) -> None:
    expected = f"""
        select 'golden/' || revision, kind, role, coalesce(relation, 'all'), count, iou_reference, iou_previous
        from '{GOLDEN}/tau_{tau_id}/role_stabilities.parquet'"""
    actual = f"""
        select checkpoint_id, component_kind, role, scope_id, member_count, iou_reference, iou_previous
        from fct_role_stabilities where tau_id = '{tau_id}'"""
    assert differing_rows(golden.second.database, expected, actual) == (80, [])


@pytest.mark.parametrize("tau_id", GOLDEN_TAUS)
def test_switches(golden: Golden, tau_id: str) -> None:
    expected = f"""
        select 'golden/' || from_revision, 'golden/' || to_revision, columns(* exclude (from_revision, to_revision))
        from '{GOLDEN}/tau_{tau_id}/role_switches.parquet'"""
    actual = f"""
        select
            from_checkpoint_id, to_checkpoint_id, component_kind, role, from_count, to_count, left_count, entered_count,
            deactivated_count, activated_count, switched_to_general_count, switched_to_entity_count,
            switched_to_relation_answer_count, switched_to_fact_answer_count
        from fct_role_switches where tau_id = '{tau_id}'"""
    assert differing_rows(golden.second.database, expected, actual) == (24, [])


def test_ranks(golden: Golden) -> None:
    expected = f"""
        select 'golden/' || revision, relation || '/fact-' || idx, first_answer_token_rank
        from '{GOLDEN}/tau_0.05/predictions.parquet' where stage = 'final_post'"""
    actual = "select checkpoint_id, fact_id, first_token_rank from fct_fact_predictions"
    assert differing_rows(golden.second.database, expected, actual) == (124, [])


def test_order_and_reference(golden: Golden) -> None:
    with duckdb.connect(str(golden.second.database), read_only=True) as connection:
        rows = connection.execute(
            "select checkpoint_name, reference_checkpoint_id, is_provisional from dim_checkpoints order by all"
        ).fetchall()
        order = connection.execute("select checkpoint_name from dim_checkpoints order by checkpoint_index").fetchall()
    assert [name for (name,) in order] == list(GOLDEN_CHECKPOINTS)
    assert {row[1:] for row in rows} == {("golden/main", False)}


def test_every_check_passes(golden: Golden) -> None:
    assert {check.result for check in golden.second.checks} == {"pass"}
    tables = {check.table_name for check in golden.second.checks}
    assert tables >= set(golden.snapshot), "a mart without a single check"
