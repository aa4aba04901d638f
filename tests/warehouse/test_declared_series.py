"""What a series' sources offer decides where its checkpoints stand and which of them count, whatever was extracted."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.warehouse.raw_lake import commit, entry
from tests.warehouse.staged_lake import DPO, ENTRIES, NOT_COMMITTED, SEEDS, SERIES, SFT
from timecourse.build import build_warehouse
from timecourse.errors import UserError
from timecourse.expectations.gate import gate_release
from timecourse.lake import Lake
from timecourse.release import input_sha256

GONE = ("stage1-step1500", "sft/main")
"""Committed names that serve another checkpoint's weights."""


@dataclass(frozen=True)
class Staged:
    lake: Path

    @property
    def database(self) -> Path:
        return self.lake / "build" / "warehouse.duckdb"

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return query(self.database, sql)


def query(database: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(database), read_only=True) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture(scope="module")
def staged(staged_release: Path) -> Staged:
    """The lake of that release. Copy before changing."""
    return Staged(staged_release.parent.parent)


def test_order_neighbours_and_counts_from_the_beginning(staged: Staged) -> None:
    found = staged.rows(
        f"""select checkpoint_name, cumulative_step, tokens // 1000000000,
            split_part(previous_checkpoint_id, 'staged/', 2), split_part(reference_checkpoint_id, 'staged/', 2)
        from dim_checkpoints where series_id = '{SERIES}' order by checkpoint_index"""
    )
    assert found == [
        ("stage1-step0", 0, 0, None, "main"),
        ("stage1-step1000", 1000, 4, "stage1-step0", "main"),
        ("stage1-step2000", 2000, 8, "stage1-step1000", "main"),
        ("stage2-ingredient1-step500", 2500, 10, "stage1-step2000", "main"),
        ("stage2-ingredient1-step1000", 3000, 12, "stage2-ingredient1-step500", "main"),
        ("stage2-ingredient2-step500", 2500, 10, "stage1-step2000", "main"),
        ("stage2-ingredient2-step1200", 3200, 13, "stage2-ingredient2-step500", "main"),
        ("main", None, None, None, "main"),
        ("sft/step100", 3300, None, "main", "sft/step200"),
        ("sft/step200", 3400, None, "sft/step100", "sft/step200"),
        ("dpo/step60", 3460, None, "sft/step200", "dpo/step80"),
        ("dpo/step80", 3480, None, "dpo/step60", "dpo/step80"),
    ]
    assert staged.rows(
        "select tokens_reported, tokens_computed, commit_sha, stage, branch, step from dim_checkpoints "
        "where checkpoint_name = 'stage1-step1000'"
    ) == [(4 * 10**9, None, "c0ffee", "stage1", "main", 1000)]
    assert staged.rows(f"select first_step, last_step from dim_series where series_id = '{SERIES}'") == [(0, 3480)]


@pytest.mark.parametrize("mart", ["fct_role_transitions", "fct_role_switches", "fct_turnovers"])
def test_there_are_transitions_between_neighbours_only(staged: Staged, mart: str) -> None:
    links = "select previous_checkpoint_id, checkpoint_id from dim_checkpoints where previous_checkpoint_id is not null"
    moves = staged.rows(f"select distinct from_checkpoint_id, to_checkpoint_id from {mart}")
    assert sorted(moves) == sorted(staged.rows(links))


def test_changes_are_counted_along_each_line_of_descent(staged: Staged) -> None:
    rows = staged.rows(
        f"""select checkpoint_id, dim_checkpoints.previous_checkpoint_id, component_id, primary_role, has_changed,
            change_count, role_since_checkpoint_id
        from fct_component_histories join dim_checkpoints using (series_id, setting_id, checkpoint_id)
        where series_id = '{SERIES}' order by checkpoint_index"""
    )
    seen: dict[tuple[str | None, str], tuple[str, int, str]] = {}
    for checkpoint, previous, component, role, has_changed, count, since in rows:
        before, changes, begin = seen.get((previous, component), (role, 0, checkpoint))
        expected = (changes + 1, checkpoint) if role != before else (changes, begin)
        assert (has_changed, count, since) == (role != before, *expected)
        seen[checkpoint, component] = (role, *expected)
    assert max(count for _, count, _ in seen.values()) > 3
    assert len(rows) == 12 * 8


def test_what_serves_other_weights_counts_nowhere(staged: Staged) -> None:
    """Though its extraction stays committed."""
    ids = [f"{SERIES}/{name}" for name in GONE]
    with duckdb.connect(str(staged.database), read_only=True) as connection:
        columns = connection.execute(
            "select table_name, column_name from duckdb_columns() "
            "where regexp_matches(table_name, '^(dim|fct)_') and contains(column_name, 'checkpoint_id')"
        ).fetchall()
        held = {
            table
            for table, column in columns
            if connection.execute(f"select 1 from {table} where list_contains(?, {column})", [ids]).fetchall()
        }
        extracted = connection.execute(
            "select count(*) from stg_raw__checkpoints where list_contains(?, checkpoint_id)", [ids]
        )
        assert extracted.fetchall() == [(2,)]
    assert len(columns) > 20
    assert held == {"dim_revisions"}
    assert staged.rows("select distinct setting_id from dim_settings") == [("setting",)]
    assert staged.rows(
        """select checkpoint_name, also_named, identical_names from dim_checkpoints
        where also_named <> '' or identical_names <> '' order by checkpoint_index"""
    ) == [("stage1-step2000", None, "stage1-step1500"), ("sft/step200", "sft/main", None)]


def test_every_offered_name_is_a_revision(staged: Staged) -> None:
    rows = staged.rows(
        f"""select is_committed, checkpoint_name, position, phase, stage, branch, step, status, same_weights_as, reason,
            bytes, commit_sha
        from dim_revisions where series_id = '{SERIES}' order by position"""
    )
    keys = ("name", "position", "phase", "stage", "branch", "step", "status", "same_weights_as", "reason", "bytes")
    assert rows == [
        (one["name"] not in NOT_COMMITTED, *(one[key] for key in keys), one["commit_sha"]) for one in ENTRIES
    ]


def test_the_gates_name_what_is_not_what_it_claims(staged: Staged) -> None:
    committed = {commit.checkpoint_id: commit.extraction_id for commit in Lake(staged.lake).commits()}
    results = gate_release(staged.database, None, committed=committed)
    warned = {
        result.check_id.split(".")[2]: [row.get("checkpoint_name", row.get("checkpoint_id")) for row in rows]
        for result in results
        for rows in [json.loads(result.failing_rows)]
        if result.result != "pass" and not result.check_id.endswith("is_steady")
    }
    assert warned == {
        "step_has_its_own_weights": ["stage1-step1500"],
        "revision_is_usable": ["dpo/step50", "dpo/torn"],
        "step_0_is_random": ["staged/stage1-step0"],
    }


def test_another_declaration_moves_checkpoints_without_an_extraction(staged: Staged, tmp_path: Path) -> None:
    """DPO comes before SFT now, the duplicate turns out to be none, and the second ingredient is stage 3."""
    lake = shutil.copytree(staged.lake, tmp_path / "lake", symlinks=True)
    changed = []
    for one in ENTRIES:
        change: dict[str, Any] = {}
        if one["phase"] in ("sft", "dpo"):
            change = {"phase_index": {SFT["phase"]: 2, DPO["phase"]: 1}[one["phase"]]}
        if one["name"] == "stage1-step1500":
            change = {"status": "used", "same_weights_as": None}
        if one["branch"] == "ingredient2":
            change = {"stage": "stage3", "stage_index": 3}
        changed.append({**one, **change})
    changed.sort(key=lambda one: (one["phase_index"], one["position"]))
    changed = [{**one, "position": position} for position, one in enumerate(changed)]
    Lake(lake).declare_series(SERIES, complete=True, checkpoints=changed)
    result = build_warehouse(lake, theta="0.3", complete_series=[SERIES, *SEEDS], replicates=50)
    assert not result.is_full_refresh and not result.added_extractions and not result.removed_extractions
    found = query(
        result.database,
        f"""select checkpoint_name, cumulative_step, split_part(previous_checkpoint_id, 'staged/', 2)
        from dim_checkpoints where series_id = '{SERIES}' order by checkpoint_index""",
    )
    assert found[2:4] == [("stage1-step1500", 1500, "stage1-step1000"), ("stage1-step2000", 2000, "stage1-step1500")]
    assert found[6:] == [
        ("stage2-ingredient2-step500", 3500, "stage2-ingredient1-step1000"),
        ("stage2-ingredient2-step1200", 4200, "stage2-ingredient2-step500"),
        ("main", None, "stage2-ingredient2-step1200"),
        ("dpo/step60", 4260, "main"),
        ("dpo/step80", 4280, "dpo/step60"),
        ("sft/step100", 4380, "dpo/step80"),
        ("sft/step200", 4480, "sft/step100"),
    ]


def test_a_release_is_out_of_date_when_the_declaration_says_something_else(staged: Staged, tmp_path: Path) -> None:
    lake = Lake(shutil.copytree(staged.lake, tmp_path / "lake", symlinks=True))

    def now() -> str:
        return input_sha256(lake.contents(), {"theta": "0.1"})

    before = now()
    lake.declare_series(SERIES, complete=True, checkpoints=ENTRIES)
    lake.declare_series(SERIES, complete=True, checkpoints=[dict(reversed(one.items())) for one in reversed(ENTRIES)])
    for path in (lake.root / "series").glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()), indent=7))
    assert now() == before, "the same said in other words"
    said = {before}
    for declaration in (
        {"complete": False, "checkpoints": ENTRIES},
        {"complete": True, "checkpoints": ENTRIES, "recipe_id": "r"},
        {"complete": True, "checkpoints": ENTRIES, "duplicates": "fail"},
        {"complete": True, "checkpoints": ENTRIES[:-1]},
        {"complete": True, "checkpoints": [{**ENTRIES[0], "step": 1}, *ENTRIES[1:]]},
    ):
        lake.declare_series(SERIES, **declaration)
        said.add(now())
    assert len(said) == 6


def test_seeds_of_a_recipe_are_compared_at_the_same_place(staged: Staged) -> None:
    """Against sets made here from the roles of each component."""
    roles = {
        (checkpoint, component): (kind, held, primary)
        for checkpoint, component, kind, held, primary in staged.rows(
            "select checkpoint_id, component_id, component_kind, roles, primary_role from int_component_roles"
        )
    }
    components = [component for checkpoint, component in roles if checkpoint == "seed 1/step0"]
    expected = []
    for name in ("step0", "step10", "main"):
        for ones, others in (("seed 1", "seed 2"), ("seed 2", "seed 1")):
            for kind in ("head", "ffn"):
                pairs = [
                    (roles[f"{ones}/{name}", component], roles[f"{others}/{name}", component])
                    for component in components
                    if roles[f"{ones}/{name}", component][0] == kind
                ]
                for role in ("all", "general", "entity", "relation_answer", "fact_answer"):
                    held = [[bool(side[1]) if role == "all" else role in side[1] for side in pair] for pair in pairs]
                    primary = [(one[2], other[2]) for one, other in pairs]
                    counted = [
                        both for both in primary if (set(both) != {"inactive"} if role == "all" else role in both)
                    ]
                    union = sum(any(both) for both in held)
                    expected.append(
                        (f"{ones}/{name}", f"{others}/{name}", kind, role, sum(one for one, _ in held),
                         sum(other for _, other in held), sum(all(both) for both in held) / union if union else None,
                         sum(one != other for one, other in counted), len(counted))
                    )  # fmt: skip
    found = staged.rows(
        """select checkpoint_id, other_checkpoint_id, component_kind, role, member_count, other_member_count, iou,
            differing_count, component_count from fct_recipe_overlaps"""
    )
    assert sorted(map(repr, found)) == sorted(map(repr, expected))
    assert any(row[6] not in (None, 0, 1) for row in found)


def test_series_files_of_earlier_versions_say_whether_they_are_complete(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.create()
    (tmp_path / "series" / "old.json").write_text('{"series_id": "old", "complete": true}')
    lake.declare_series("new", complete=False, recipe_id="r", checkpoints=[entry(1, "b"), entry(0, "a")])
    assert lake.contents().complete_series == ["old"]
    new, old = lake.declarations()
    assert old == {"series_id": "old", "complete": True, "recipe_id": None, "duplicates": "warn", "checkpoints": []}
    assert (new["series_id"], new["recipe_id"]) == ("new", "r")
    assert [one["name"] for one in new["checkpoints"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"series_id": "s"}', "damaged"),
        ('{"series_id": "s", "complete": true, "checkpoints": [{"name": "a"}]}', "damaged"),
        ('{"schema_version": 2, "series_id": "s", "complete": true}', "schema version 2"),
    ],
)
def test_a_series_file_that_cannot_be_read_is_named(tmp_path: Path, text: str, message: str) -> None:
    lake = Lake(tmp_path)
    lake.create()
    (tmp_path / "series" / "s-1.json").write_text(text)
    with pytest.raises(UserError, match=rf"series/s-1\.json.*{message}"):
        lake.declarations()


def test_a_value_of_another_type_is_the_users_error(tmp_path: Path) -> None:
    commit(tmp_path, "s", "main", {})
    Lake(tmp_path).declare_series("s", complete=True, checkpoints=[entry(0, "main", step="many")])
    with pytest.raises(UserError, match="step Input should be a valid integer"):
        build_warehouse(tmp_path, theta="0.1", complete_series=[], replicates=50)
