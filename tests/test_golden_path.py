"""The whole path on the reference checkpoints: the real command on real weights must give the published roles.

The folder in the repository holds the last of the four checkpoints; with TIMECOURSE_GOLDEN naming a folder that holds
all, overlaps between checkpoints and switches are compared too.
"""

from pathlib import Path

import duckdb
import pytest

from tests.conftest import GOLDEN

COMPONENT = "case kind when 'ffn' then 'L' || layer || 'F' else 'L' || layer || 'H' || head end"
REVISIONS = sorted(path.name for path in (GOLDEN / "models").iterdir())
IS_WHOLE = len(REVISIONS) == 4


@pytest.fixture(scope="module")
def warehouse(run, tmp_path_factory) -> Path:
    lake = tmp_path_factory.mktemp("golden") / "lake"
    flags = ["--checkpoints", GOLDEN / "models", "--facts", GOLDEN / "facts", "--series", "golden", "--lake", lake]
    done = run("refresh", *flags, "--tau", "0.05", "--tau", "0.15", "--complete")
    assert done.returncode == 0, done.stderr
    return (lake / "current").resolve() / "warehouse.duckdb"


def compare(warehouse: Path, expected: str, found: str) -> int:
    """Assert that both queries give the same rows; returns how many."""
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        wanted, given = (sorted(map(repr, connection.execute(query).fetchall())) for query in (expected, found))
    assert given == wanted
    return len(wanted)


def reference(tau: str, table: str) -> str:
    return f"'{GOLDEN}/tau_{tau}/{table}.parquet'"


@pytest.mark.parametrize("tau", ["0.05", "0.15"])
def test_role_memberships(warehouse, tau):
    """Every component × role × relation × fact; facts are matched by the sentence that the reference numbers."""
    names = ", ".join(f"'{revision}'" for revision in REVISIONS)
    rows = compare(
        warehouse,
        f"""
        with prompts as (select distinct relation, idx, sentence from {reference("0.05", "prompts")})
        select 'golden/' || revision, kind, {COMPONENT}, role, memberships.relation, sentence
        from {reference(tau, "role_memberships")} as memberships
        left join prompts on memberships.relation = prompts.relation and memberships.idx = prompts.idx
        where revision in ({names})""",
        f"""
        with sentences as (
            select fact_id, sentence
            from dim_facts
            inner join (select distinct relation as relation_id, sentence from {reference("0.05", "prompts")})
                using (relation_id)
            where contains(sentence, subject) and ends_with(sentence, ' ' || object)
        )
        select checkpoint_id, component_kind, component_id, role, memberships.relation_id, sentence
        from fct_role_memberships as memberships
        left join sentences on memberships.scope_id = sentences.fact_id
        where tau_id = '{tau}'""",
    )
    assert rows >= 10


@pytest.mark.parametrize("tau", ["0.05", "0.15"])
def test_role_stabilities(warehouse, tau):
    """Counts and the overlap with `main`; with the previous checkpoint only where all checkpoints are there."""
    names = ", ".join(f"'{revision}'" for revision in REVISIONS)
    previous = ", iou_previous" if IS_WHOLE else ""
    rows = compare(
        warehouse,
        f"""
        select 'golden/' || revision, kind, role, coalesce(relation, 'all'), count, iou_reference {previous}
        from {reference(tau, "role_stabilities")} where revision in ({names})""",
        f"""
        select checkpoint_id, component_kind, role, scope_id, member_count, iou_reference {previous}
        from fct_role_stabilities where tau_id = '{tau}'""",
    )
    assert rows == 20 * len(REVISIONS)


@pytest.mark.parametrize("tau", ["0.05", "0.15"])
def test_role_switches(warehouse, tau):
    rows = compare(
        warehouse,
        f"""
        select 'golden/' || from_revision, 'golden/' || to_revision, columns(* exclude (from_revision, to_revision))
        from {reference(tau, "role_switches")} where {IS_WHOLE}""",
        f"""
        select
            from_checkpoint_id, to_checkpoint_id, component_kind, role, from_count, to_count, left_count, entered_count,
            deactivated_count, activated_count, switched_to_general_count, switched_to_entity_count,
            switched_to_relation_answer_count, switched_to_fact_answer_count
        from fct_role_switches where tau_id = '{tau}'""",
    )
    assert rows == (24 if IS_WHOLE else 0)


def test_first_token_ranks(warehouse):
    names = ", ".join(f"'{revision}'" for revision in REVISIONS)
    query = (
        "select checkpoint_id, relation_id, first_token_rank::bigint, count(*) from fct_fact_predictions group by all"
    )
    compare(
        warehouse,
        f"""
        select 'golden/' || revision, relation, first_answer_token_rank, count(*)
        from {reference("0.05", "predictions")} where stage = 'final_post' and revision in ({names}) group by all""",
        query,
    )
