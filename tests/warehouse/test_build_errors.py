"""What a build says when it cannot work, and when the data breaks a rule."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.warehouse.raw_lake import commit
from timecourse import build
from timecourse.build import build_warehouse
from timecourse.errors import UsageError, UserError
from timecourse.expectations.gate import gate_release

PROMPTS = [{"prompt_id": 0, "relation_id": "r", "fact_id": "r/'f'", "subject": "s", "object": "o"}]
TOKENS = [
    {"prompt_id": 0, "position": 0, "span_role": "subject", "is_answer_predicting": True},
    {"prompt_id": 0, "position": 1, "span_role": "answer"},
]
ATTRIBUTIONS = [{"tau_id": "0.05", "prompt_id": 0, "position": 0, "component_id": "L0F"}]
PREDICTIONS = [{"prompt_id": 0, "readout": 4, "rank": 0}]


def test_nothing_committed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint is committed"):
        build_warehouse(tmp_path, theta="0.1", complete_series=[], replicates=50)


@pytest.mark.parametrize("theta", ["0", "1", "-0.1", "nan", "0.1; drop table x", "ten percent"])
def test_theta_is_a_decimal_between_0_and_1(tmp_path: Path, theta: str) -> None:
    commit(tmp_path, "s", "main", {"prompts": PROMPTS})
    with pytest.raises(UsageError, match="theta"):
        build_warehouse(tmp_path, theta=theta, complete_series=[], replicates=50)


def test_an_unreadable_commit_is_named(tmp_path: Path) -> None:
    commit(tmp_path, "s", "main", {"prompts": PROMPTS})
    (path,) = tmp_path.glob("commits/*/*.json")
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "schema_version": 99}))
    with pytest.raises(UserError, match="schema version 99"):
        build_warehouse(tmp_path, theta="0.1", complete_series=[], replicates=50)
    path.write_text(path.read_text()[:40])
    with pytest.raises(UserError, match=path.name):
        build_warehouse(tmp_path, theta="0.1", complete_series=[], replicates=50)


def test_a_missing_raw_file_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    directory = commit(tmp_path, "s", "main", {"prompts": PROMPTS, "prompt_tokens": TOKENS})
    (directory / "prompt_tokens.parquet").unlink()
    with pytest.raises(UserError) as caught:
        build_warehouse(tmp_path, theta="0.1", complete_series=[], replicates=50)
    assert "stg_raw__prompt_tokens failed" in str(caught.value)
    assert "prompt_tokens.parquet" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", ""), "dbt speaks"


def test_broken_data_is_a_result_with_its_rows(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tables = {
        "prompts": PROMPTS * 2,
        "prompt_tokens": TOKENS,
        "attributions": ATTRIBUTIONS,
        "predictions": PREDICTIONS,
    }
    commit(tmp_path, "s", "main", tables)
    result = build_warehouse(tmp_path, theta="0.1", complete_series=[], replicates=50)
    (failed,) = (check for check in result.checks if check.result == "fail")
    assert (failed.table_name, failed.severity) == ("stg_raw__prompts", "fail")
    assert failed.check_id == "warehouse.stg_raw__prompts.key"
    assert failed.rule == "extraction_id, prompt_id identify a row"
    assert (failed.failing_row_count, failed.observed) == (1, "1 failing row")
    (row,) = json.loads(failed.failing_rows)
    assert (row["prompt_id"], row["row_count"]) == (0, 2)
    assert capfd.readouterr() == ("", ""), "dbt speaks"


def test_broken_references_and_values_are_results_with_their_rows(tmp_path: Path) -> None:
    tables = {
        "prompts": PROMPTS,
        "prompt_tokens": [TOKENS[0], {**TOKENS[1], "span_role": "prefix"}],
        "attributions": ATTRIBUTIONS,
        "predictions": [*PREDICTIONS, {**PREDICTIONS[0], "extraction_id": "elsewhere"}],
    }
    commit(tmp_path, "s", "main", tables)
    result = build_warehouse(tmp_path, theta="0.1", complete_series=[], replicates=50)
    failed = {check.table_name: check for check in result.checks if check.result == "fail"}
    assert set(failed) == {"stg_raw__prompt_tokens", "stg_raw__predictions"}
    values, references = failed["stg_raw__prompt_tokens"], failed["stg_raw__predictions"]
    assert values.rule == "span_role is one of special, template, subject, answer"
    assert [row["span_role"] for row in json.loads(values.failing_rows)] == ["prefix"]
    assert references.rule == "extraction_id names a row of stg_raw__checkpoints"
    (row,) = json.loads(references.failing_rows)
    assert row == {"extraction_id": "elsewhere"}


def test_broken_data_of_any_batch_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_BATCH_SHARE", 1e-12)
    for name, attributions in (("step1", ATTRIBUTIONS * 2), ("step2", ATTRIBUTIONS)):
        tables = {"prompts": PROMPTS, "prompt_tokens": TOKENS, "attributions": attributions, "predictions": PREDICTIONS}
        commit(tmp_path, "s", name, tables)
    result = build_warehouse(tmp_path, theta="0.1", complete_series=[], replicates=50)
    (failed,) = (check for check in result.checks if check.result == "fail")
    assert failed.table_name == "stg_raw__attributions"


def test_a_database_in_use_is_said_so(tmp_path: Path) -> None:
    commit(tmp_path, "s", "main", {"prompts": PROMPTS})
    (tmp_path / "build").mkdir()
    script = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(tmp_path / "build" / "warehouse.duckdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        with pytest.raises(UserError, match="another process"):
            build_warehouse(tmp_path, theta="0.1", complete_series=[], replicates=50)
        process.stdin.close()


def test_two_architectures_in_one_series_do_not_pass_the_gate(tmp_path: Path) -> None:
    """Whatever it is that differs: components of the same name would not be the same ones."""
    tables = {"prompts": PROMPTS, "prompt_tokens": TOKENS, "attributions": ATTRIBUTIONS, "predictions": PREDICTIONS}
    commit(tmp_path, "steady", "step1", tables, step=1)
    commit(tmp_path, "steady", "step2", tables, step=2)
    changes = {
        "family": "gpt_neox",
        "topology": "parallel_pre_norm",
        "layer_count": 5,
        "head_count": 8,
        "kv_head_count": 2,
        "hidden_size": 64,
    }
    for column, value in changes.items():
        commit(tmp_path, column, "step1", tables, step=1)
        commit(tmp_path, column, "step2", tables, step=2, **{column: value})
    built = build_warehouse(tmp_path, theta="0.1", complete_series=[], replicates=50)
    assert {check.result for check in built.checks} == {"pass"}
    rule = "release.dim_checkpoints.series_is_one_architecture"
    (result,) = (check for check in gate_release(built.database, None) if check.check_id == rule)
    assert result.result == "fail"
    assert {(row["series_id"], row["found"]) for row in json.loads(result.failing_rows)} == {
        (column, 2.0) for column in changes
    }


@pytest.mark.slow
def test_a_damaged_copy_of_the_parsed_models_is_made_again(tmp_path, monkeypatch):
    from dbt.contracts.graph.manifest import Manifest

    from timecourse import build

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    database = str(tmp_path / "warehouse.duckdb")
    project = [
        "--project-dir",
        str(build.PACKAGE / "dbt_project"),
        "--profiles-dir",
        str(build.PACKAGE / "dbt_project"),
    ]
    arguments = [*project, "--target-path", str(tmp_path / "dbt"), "--log-path", str(tmp_path / "dbt"), "--quiet"]
    with build.environment(TIMECOURSE_BUILD_DATABASE=database):
        nodes = set(build._parsed_models(arguments, {}).nodes)
        (kept,) = (tmp_path / "cache" / "timecourse").glob("models-*.msgpack")
        whole = kept.read_bytes()
        for damaged in (whole[: len(whole) // 2], b"\x81\xa1a\x01"):  # half of it; another thing in its format
            kept.write_bytes(damaged)
            assert set(build._parsed_models(arguments, {}).nodes) == nodes != set()
            assert set(Manifest.from_msgpack(kept.read_bytes()).nodes) == nodes
        for damaged in (b"", b"garbage"):
            kept.write_bytes(damaged)
            with pytest.raises((OSError, ValueError, LookupError, TypeError)):  # what _parsed_models takes for damage
                Manifest.from_msgpack(kept.read_bytes())
