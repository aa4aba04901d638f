"""The gate before publication: consistent marts pass, and every rule finds the one defect that breaks it."""

import json
from pathlib import Path

import duckdb
import pytest

from timecourse.checks import CheckResult
from timecourse.expectations import release
from timecourse.expectations.gate import gate_release

# One series of one layer with two heads, one setting, one tau, three checkpoints, three facts of two relations.
MARTS = """
    create table dim_series as
    select 'tiny' as series_id, 1 as layer_count, 2 as head_count, 'warn' as duplicates;

    create table dim_settings as
    select 'tiny' as series_id, 's' as setting_id, '0.01' as tau_id;

    create table dim_series_pairs as
    select series_id, setting_id, tau_id, series_id as other_series_id, setting_id as other_setting_id,
        tau_id as other_tau_id
    from dim_settings where false;

    create table dim_components as
    from (values ('tiny', 'L0H0', 'head'), ('tiny', 'L0H1', 'head'), ('tiny', 'L0F', 'ffn'))
        as v(series_id, component_id, component_kind);

    create table dim_checkpoints as
    select 'tiny' as series_id, 's' as setting_id, v.*, 'w' || v.checkpoint_id as weights_sha256,
        'olmo, 1 layer, 2 heads' as architecture
    from (
        values ('tiny/a', 'ea', null, 0, 'pretraining', 0), ('tiny/b', 'eb', 'tiny/a', 1, 'pretraining', 10),
            ('tiny/c', 'ec', 'tiny/b', 2, 'sft', 0)
    ) as v(checkpoint_id, extraction_id, previous_checkpoint_id, checkpoint_index, phase, cumulative_step);

    create table dim_revisions as
    select 'tiny' as series_id, checkpoint_name, 'tiny/' || checkpoint_name as checkpoint_id, status, same_weights_as,
        reason
    from (
        values ('a', 'used', null, null), ('b', 'left_out', null, 'not selected'), ('c', 'gone', null, null),
            ('main', 'alias', 'c', 'another name of c')
    ) as v(checkpoint_name, status, same_weights_as, reason);

    create table dim_relations as
    from (values ('tiny', 's', 'capital', 'location'), ('tiny', 's', 'author', 'name'))
        as v(series_id, setting_id, relation_id, relation_group);

    create table dim_facts as
    select series_id, setting_id, unnest(['capital/france', 'capital/italy', 'author/emma']) as fact_id
    from dim_settings;

    create table fct_component_histories as
    select series_id, setting_id, tau_id, checkpoint_id, component_id, component_kind, previous_checkpoint_id
    from dim_checkpoints
    inner join dim_settings using (series_id, setting_id)
    inner join dim_components using (series_id);

    create table fct_component_activities as
    select histories.* exclude (previous_checkpoint_id), scope_kind, scope_id
    from fct_component_histories as histories
    cross join (
        values ('all', 'all'), ('entity', 'entity'), ('relation', 'capital'), ('relation', 'author'),
        ('fact', 'author/emma')
    ) as v(scope_kind, scope_id);

    create table fct_role_stabilities as
    select distinct series_id, setting_id, tau_id, checkpoint_id, component_kind, role, scope_id
    from fct_component_histories
    cross join (
        values ('general', 'all'), ('entity', 'all'), ('relation_answer', 'capital'), ('relation_answer', 'author'),
        ('fact_answer', 'capital'), ('fact_answer', 'author')
    ) as v(role, scope_id);

    create view pairs as
    select distinct series_id, setting_id, tau_id, previous_checkpoint_id as from_checkpoint_id,
        checkpoint_id as to_checkpoint_id, component_kind
    from fct_component_histories
    where previous_checkpoint_id is not null;

    create table fct_role_transitions as
    select pairs.*, f.role as from_role, t.role as to_role
    from pairs
    cross join (select unnest(['general', 'entity', 'relation_answer', 'fact_answer', 'inactive']) as role) as f
    cross join (select unnest(['general', 'entity', 'relation_answer', 'fact_answer', 'inactive']) as role) as t;

    create table fct_role_switches as
    select pairs.*, unnest(['general', 'entity', 'relation_answer', 'fact_answer']) as role from pairs;

    create table fct_turnovers as
    select pairs.*, unnest(['all', 'general', 'entity', 'relation_answer', 'fact_answer']) as role,
        20 as component_count, 0.3::double as turnover
    from pairs;

    create table fct_fact_predictions as
    select series_id, setting_id, checkpoint_id, fact_id
    from dim_checkpoints inner join dim_facts using (series_id, setting_id);

    create table fct_relation_accuracies as
    select series_id, setting_id, checkpoint_id, v.*,
        0.5::double as top1_accuracy, 0.2::double as top1_low, 0.8::double as top1_high,
        0.6::double as top10_accuracy, 0.3::double as top10_low, 0.9::double as top10_high,
        0.4::double as all_tokens_accuracy, 0.1::double as all_tokens_low, 0.7::double as all_tokens_high,
        if(checkpoint_id = 'tiny/a', 0.2::double, 0.1::double) as majority_share
    from dim_checkpoints
    cross join (
        values ('relation', 'capital', 2), ('relation', 'author', 1), ('group', 'location', 2), ('group', 'name', 1),
        ('all', 'all', 3)
    ) as v(scope_kind, scope_id, fact_count);
    update fct_relation_accuracies set top1_low = null, top1_high = null where fact_count = 1;

    create table fct_relation_convergences as
    select series_id, setting_id, relation_id, unnest(['top1', 'top10']) as metric, 'all' as fact_subset
    from dim_relations;
    insert into fct_relation_convergences values ('tiny', 's', 'capital', 'top1', 'single_token_unshared');

    create table fct_layer_readouts as
    select series_id, setting_id, checkpoint_id, relation_id, unnest([-1, 0, 1]) as readout
    from dim_checkpoints inner join dim_relations using (series_id, setting_id);
"""

COMMITTED = {"tiny/a": "ea", "tiny/b": "eb", "tiny/c": "ec"}

# rule, defect, what the failing row says
DEFECTS: list[tuple[str, str, dict[str, object]]] = [
    ("dim_checkpoints.is_not_empty", "delete from dim_checkpoints", {"checkpoint_count": 0}),
    (
        "dim_checkpoints.weights_are_its_own",
        "update dim_checkpoints set weights_sha256 = 'the same' where checkpoint_id <> 'tiny/b'",
        {"checkpoint_id": "tiny/a", "same_weights_as": "tiny/c"},
    ),
    (
        "dim_revisions.step_has_its_own_weights",
        "update dim_revisions set status = 'duplicate', same_weights_as = 'c' where checkpoint_name = 'main'",
        {"checkpoint_name": "main", "same_weights_as": "c"},
    ),
    (
        "dim_revisions.step_has_its_own_weights",
        "insert into dim_revisions by name select 'nothing of it counts' as series_id, 'x' as checkpoint_name, "
        "'duplicate' as status, 'y' as same_weights_as",
        {"series_id": "nothing of it counts", "checkpoint_name": "x", "same_weights_as": "y"},
    ),
    (
        "dim_revisions.step_must_have_its_own_weights",
        "update dim_revisions set status = 'duplicate', same_weights_as = 'c' where checkpoint_name = 'main'; "
        "update dim_series set duplicates = 'fail'",
        {"checkpoint_name": "main", "same_weights_as": "c"},
    ),
    (
        "dim_revisions.revision_is_usable",
        "update dim_revisions set status = 'unusable', reason = 'no safetensors' where checkpoint_name = 'b'",
        {"checkpoint_name": "b", "status": "unusable", "reason": "no safetensors"},
    ),
    (
        "dim_revisions.revision_is_usable",
        "update dim_revisions set status = 'failed', reason = 'too large' where checkpoint_name = 'b'",
        {"checkpoint_name": "b", "status": "failed", "reason": "too large"},
    ),
    (
        "fct_relation_accuracies.step_0_is_random",
        "update fct_relation_accuracies set majority_share = 0.19 where checkpoint_id = 'tiny/a'",
        {"checkpoint_id": "tiny/a", "top1_low": 0.2, "majority_share": 0.19},
    ),
    (
        "dim_checkpoints.commits_are_released",
        "update dim_revisions set status = 'duplicate', same_weights_as = 'c' where checkpoint_name = 'b'",
        {"checkpoint_id": "tiny/b", "committed_extraction_id": "eb", "extraction_id": "eb"},
    ),
    (
        "dim_checkpoints.commits_are_released",
        "delete from dim_checkpoints where checkpoint_id = 'tiny/b'",
        {"checkpoint_id": "tiny/b", "committed_extraction_id": "eb", "extraction_id": None},
    ),
    (
        "dim_checkpoints.commits_are_released",
        "update dim_checkpoints set extraction_id = 'old' where checkpoint_id = 'tiny/b'",
        {"checkpoint_id": "tiny/b", "committed_extraction_id": "eb", "extraction_id": "old"},
    ),
    (
        "dim_checkpoints.commits_are_released",
        "insert into dim_checkpoints by name (select 'tiny/d' as checkpoint_id, 'ed' as extraction_id)",
        {"checkpoint_id": "tiny/d", "committed_extraction_id": None},
    ),
    (
        "dim_checkpoints.nothing_is_lost",
        "delete from dim_checkpoints where checkpoint_id = 'tiny/a'",
        {"checkpoint_id": "tiny/a"},
    ),
    (
        "dim_checkpoints.series_is_one_architecture",
        "update dim_checkpoints set architecture = 'gpt_neox, 1 layer, 2 heads' where checkpoint_id = 'tiny/c'",
        {"checkpoint_id": "tiny/c", "architecture": "gpt_neox, 1 layer, 2 heads", "checkpoint_count": 1, "found": 2.0},
    ),
    (
        "dim_series_pairs.rows_are_complete",
        "insert into dim_settings values ('other', 's', '0.01')",
        {"series_id": "other", "row_count": 0, "expected_count": 1},
    ),
    ("dim_components.rows_are_complete", "delete from dim_components where component_id = 'L0F'", {"row_count": 2}),
    (
        "fct_component_histories.rows_are_complete",
        "delete from fct_component_histories where component_id = 'L0F' and checkpoint_id = 'tiny/c'",
        {"checkpoint_id": "tiny/c", "row_count": 2, "component_count": 3},
    ),
    (
        "fct_component_histories.checkpoint_has_roles",
        "delete from fct_component_histories where checkpoint_id = 'tiny/c'",
        {"checkpoint_id": "tiny/c", "tau_id": "0.01"},
    ),
    (
        "fct_component_activities.rows_are_complete",
        "delete from fct_component_activities where component_id = 'L0H1' and scope_id = 'author'",
        {"component_id": "L0H1", "row_count": 3, "expected_count": 4},
    ),
    (
        "fct_role_stabilities.rows_are_complete",
        "delete from fct_role_stabilities where role = 'entity' and component_kind = 'ffn' and checkpoint_id='tiny/a'",
        {"checkpoint_id": "tiny/a", "component_kind": "ffn", "row_count": 5, "expected_count": 6},
    ),
    (
        "fct_role_transitions.rows_are_complete",
        "delete from fct_role_transitions where to_checkpoint_id = 'tiny/c' and to_role = 'inactive'",
        {"to_checkpoint_id": "tiny/c", "row_count": 20, "expected_count": 25},
    ),
    (
        "fct_role_switches.rows_are_complete",
        "delete from fct_role_switches where to_checkpoint_id = 'tiny/c'",
        {"to_checkpoint_id": "tiny/c", "row_count": 0, "expected_count": 4},
    ),
    (
        "fct_turnovers.rows_are_complete",
        "insert into fct_turnovers (from fct_turnovers where role = 'all' and to_checkpoint_id = 'tiny/b')",
        {"to_checkpoint_id": "tiny/b", "row_count": 6, "expected_count": 5},
    ),
    (
        "fct_turnovers.turnover_is_steady",
        "update fct_turnovers set turnover = 0.9 where to_checkpoint_id = 'tiny/c' and component_kind = 'head'",
        {"to_checkpoint_id": "tiny/c", "component_kind": "head", "turnover": 0.9, "previous_turnover": 0.3},
    ),
    (
        "fct_fact_predictions.rows_are_complete",
        "delete from fct_fact_predictions where fact_id = 'author/emma' and checkpoint_id = 'tiny/b'",
        {"checkpoint_id": "tiny/b", "row_count": 2, "expected_count": 3},
    ),
    (
        "fct_relation_accuracies.rows_are_complete",
        "delete from fct_relation_accuracies where scope_kind = 'group' and checkpoint_id = 'tiny/b'",
        {"checkpoint_id": "tiny/b", "row_count": 3, "expected_count": 5},
    ),
    (
        "fct_relation_accuracies.accuracies_are_shares",
        "update fct_relation_accuracies set top10_accuracy = 1.2 where scope_id = 'author'",
        {"scope_id": "author", "top10_accuracy": 1.2},
    ),
    (
        "fct_relation_accuracies.accuracies_are_shares",
        "update fct_relation_accuracies set all_tokens_accuracy = -0.1 where scope_id = 'author'",
        {"scope_id": "author", "all_tokens_accuracy": -0.1},
    ),
    (
        "fct_relation_accuracies.accuracies_are_shares",
        "update fct_relation_accuracies set top1_accuracy = null where scope_id = 'author'",
        {"scope_id": "author", "top1_accuracy": None},
    ),
    (
        "fct_relation_accuracies.intervals_hold_their_accuracy",
        "update fct_relation_accuracies set top1_low = 0.55 where scope_id = 'capital'",
        {"scope_id": "capital"},
    ),
    (
        "fct_relation_accuracies.intervals_hold_their_accuracy",
        "update fct_relation_accuracies set top1_low = null where scope_id = 'capital'",
        {"scope_id": "capital"},
    ),
    (
        "fct_relation_accuracies.top1_is_steady",
        "update fct_relation_accuracies set top1_accuracy = 0.25 where checkpoint_id = 'tiny/b'",
        {"previous_checkpoint_id": "tiny/a", "checkpoint_id": "tiny/b", "top1_accuracy": 0.25, "found": -0.25},
    ),
    (
        "fct_relation_accuracies.top10_is_steady",
        "update fct_relation_accuracies set top10_accuracy = 0 where checkpoint_id <> 'tiny/c'; "
        "update fct_relation_accuracies set top10_accuracy = 0.9 where checkpoint_id = 'tiny/c'",
        {"previous_checkpoint_id": "tiny/b", "checkpoint_id": "tiny/c", "found": 0.9},
    ),
    (
        "fct_relation_convergences.rows_are_complete",
        "delete from fct_relation_convergences where relation_id = 'author' and metric = 'top1'",
        {"relation_id": "author", "row_count": 1, "expected_count": 2},
    ),
    (
        "fct_layer_readouts.rows_are_complete",
        "delete from fct_layer_readouts where readout = 0 and checkpoint_id = 'tiny/b'",
        {"checkpoint_id": "tiny/b", "row_count": 2, "expected_count": 3},
    ),
]


def write_marts(path: Path, *defects: str) -> Path:
    with duckdb.connect(str(path)) as connection:
        connection.execute(MARTS)
        for defect in defects:
            connection.execute(defect)
    return path


def by_rule(results: list[CheckResult]) -> dict[str, CheckResult]:
    return {result.check_id.removeprefix("release."): result for result in results}


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_marts(tmp_path_factory.mktemp("release") / "it's warehouse.duckdb")


def test_consistent_marts_pass(valid: Path) -> None:
    results = gate_release(valid, valid, committed=COMMITTED)
    assert [result for result in results if result.result != "pass"] == []
    assert {(result.stage, result.checkpoint_id) for result in results} == {("release", None)}
    assert len(by_rule(results)) == len(results)
    assert {result.check_id for result in results if result.observed == "no rows"} == set()


def test_every_rule_has_a_defect() -> None:
    rules = {f"{table}.{rule.rule_id}" for table, rules in release.RULES.items() for rule in rules}
    extra = {f"dim_checkpoints.{rule.rule_id}" for rule in (*release.COMMITTED, *release.SINCE_PREVIOUS)}
    assert rules | extra == {rule for rule, _, _ in DEFECTS}


@pytest.mark.parametrize(("rule", "defect", "row"), DEFECTS, ids=[f"{i}-{rule[0]}" for i, rule in enumerate(DEFECTS)])
def test_a_rule_finds_its_defect(
    tmp_path: Path, valid: Path, monkeypatch: pytest.MonkeyPatch, rule: str, defect: str, row: dict[str, object]
) -> None:
    # only the suite of its own table runs, to save time
    own = {table: rules if rule.startswith(f"{table}.") else () for table, rules in release.RULES.items()}
    monkeypatch.setattr(release, "RULES", own)
    warehouse = write_marts(tmp_path / "warehouse.duckdb", defect)
    result = by_rule(gate_release(warehouse, valid, committed=COMMITTED))[rule]
    assert result.result == result.severity
    failing = json.loads(result.failing_rows)
    assert result.failing_row_count == len(failing) >= 1
    assert any(all(found[name] == value for name, value in row.items()) for found in failing), failing


@pytest.mark.parametrize("status", ["alias", "duplicate"])
def test_what_serves_another_checkpoints_weights_need_not_be_released(valid: Path, tmp_path: Path, status: str) -> None:
    defects = (
        f"update dim_revisions set status = '{status}', same_weights_as = 'c' where checkpoint_name = 'b'",
        "delete from dim_checkpoints where checkpoint_id = 'tiny/b'",
    )
    results = by_rule(gate_release(write_marts(tmp_path / "w.duckdb", *defects), valid, committed=COMMITTED))
    assert results["dim_checkpoints.commits_are_released"].result == "pass"
    assert results["dim_checkpoints.nothing_is_lost"].result == "warn"


def test_a_duplicate_fails_only_where_that_is_set(tmp_path: Path) -> None:
    duplicate = "update dim_revisions set status = 'duplicate' where checkpoint_name = 'main'"
    rules = ("dim_revisions.step_has_its_own_weights", "dim_revisions.step_must_have_its_own_weights")
    found = []
    for setting in ("warn", "fail"):
        marts = write_marts(
            tmp_path / f"{setting}.duckdb", duplicate, f"update dim_series set duplicates = '{setting}'"
        )
        results = by_rule(gate_release(marts, None))
        found.append([results[rule].result for rule in rules])
    assert found == [["warn", "pass"], ["pass", "fail"]]


def test_only_step_0_of_the_first_phase_has_to_be_random(tmp_path: Path) -> None:
    """All beat the majority answer but step 0 of pretraining, whose interval reaches it. Another first phase counts."""
    rule = "fct_relation_accuracies.step_0_is_random"
    assert by_rule(gate_release(write_marts(tmp_path / "w.duckdb"), None))[rule].result == "pass"
    without = ("delete from dim_checkpoints where phase = 'pretraining'",)
    (row,) = json.loads(by_rule(gate_release(write_marts(tmp_path / "sft.duckdb", *without), None))[rule].failing_rows)
    assert row["checkpoint_id"] == "tiny/c"


def test_what_is_judged_needs_only_the_warehouse(valid: Path) -> None:
    results = by_rule(gate_release(valid, None))
    assert {result.result for result in results.values()} == {"pass"}
    assert not {"dim_checkpoints.commits_are_released", "dim_checkpoints.nothing_is_lost"} & set(results)


def test_turnover_of_few_components_is_not_compared(tmp_path: Path) -> None:
    few = "update fct_turnovers set component_count = 9, turnover = if(to_checkpoint_id = 'tiny/c', 1, 0)"
    result = by_rule(gate_release(write_marts(tmp_path / "w.duckdb", few), None))["fct_turnovers.turnover_is_steady"]
    assert (result.result, result.observed) == ("pass", "no rows")


def test_a_damaged_previous_release_only_warns(valid: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "previous.duckdb"
    damaged.write_bytes(b"not a database at all" * 500)
    results = gate_release(valid, damaged)
    assert {result.check_id: result.result for result in results if result.result != "pass"} == {
        "release.dim_checkpoints.nothing_is_lost": "warn"
    }


def test_a_missing_mart_fails_instead_of_raising(tmp_path: Path) -> None:
    warehouse = write_marts(tmp_path / "warehouse.duckdb", "drop table fct_layer_readouts")
    result = by_rule(gate_release(warehouse, None))["fct_layer_readouts.rows_are_complete"]
    assert result.result == "fail"
    assert "fct_layer_readouts" in result.observed


def test_the_file_is_not_held_or_changed(tmp_path: Path) -> None:
    warehouse = write_marts(tmp_path / "warehouse.duckdb")
    before = warehouse.read_bytes()
    gate_release(warehouse, None)
    assert warehouse.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["warehouse.duckdb"]
    with duckdb.connect(str(warehouse)) as connection:  # would raise if the gate still held it
        connection.execute("create table later as select 1")
