"""What every model owes its reader, and dbt's own unit tests of role and transition logic."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from dbt.adapters.duckdb.connections import DuckDBConnectionManager
from dbt.cli.main import dbtRunner
from dbt_common.exceptions import CompilationError

from timecourse.build import PACKAGE

MODELS = sorted((PACKAGE / "models").rglob("*.sql"))


def run_dbt(command: list[str], directory: Path, monkeypatch: pytest.MonkeyPatch, package: Path = PACKAGE) -> list[Any]:
    """Results of one dbt command on an empty warehouse in `directory`."""
    monkeypatch.setenv("TIMECOURSE_BUILD_DATABASE", str(directory / "warehouse.duckdb"))
    project = ["--project-dir", str(package / "dbt_project"), "--profiles-dir", str(package / "dbt_project")]
    output = ["--target-path", str(directory), "--log-path", str(directory), "--log-level-file", "none", "--quiet"]
    try:
        outcome = dbtRunner().invoke([*command, *project, *output])
    finally:
        DuckDBConnectionManager.close_all_connections()
    if outcome.exception is not None:
        raise outcome.exception
    return list(outcome.result.results)


def test_dbt_unit_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    *models, contracts = run_dbt(["run", "--empty"], tmp_path, monkeypatch)
    assert {str(result.status) for result in [*models, contracts]} == {"success"}
    assert len(models) == len(MODELS)
    assert all(result.node.config.contract.enforced for result in models)
    *tests, _ = run_dbt(["test", "--select", "test_type:unit"], tmp_path, monkeypatch)
    assert {result.node.name: str(result.status) for result in tests if str(result.status) != "pass"} == {}
    written = sum(len(yaml.safe_load(path.with_suffix(".yml").read_text()).get("unit_tests", [])) for path in MODELS)
    assert len(tests) == written >= 14


@pytest.mark.slow
def test_another_type_than_declared_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in ("models", "dbt_project"):
        shutil.copytree(PACKAGE / room, tmp_path / "package" / room)
    changes = {"int_roles": ("integer", "bigint"), "stg_series__series": ("varchar", "integer")}
    for name, (declared, changed) in changes.items():
        (path,) = (tmp_path / "package" / "models").rglob(f"{name}.yml")
        before = path.read_text()
        path.write_text(before.replace(declared, changed))
        broken = f"the contract of {name} does not hold: built .*, declared .*{changed.split()[-1]}"
        with pytest.raises(CompilationError, match=re.compile(broken, re.IGNORECASE)):
            run_dbt(["run", "--empty", "--select", name], tmp_path, monkeypatch, tmp_path / "package")
        path.write_text(before)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_model_is_described(path: Path) -> None:
    """One .yml beside each .sql: its grain, a key, and every column with its type and meaning."""
    content = yaml.safe_load(path.with_suffix(".yml").read_text())
    (model,) = content["models"]
    assert model["name"] == path.stem
    assert model["description"].startswith("One row per ")
    keys = [test["rows"]["arguments"]["key"] for test in model["data_tests"]]
    names = [column["name"] for column in model["columns"]]
    assert keys and set(keys[0]) <= set(names)
    assert all(column["description"].strip() and column["data_type"] for column in model["columns"])
    assert path.read_text().endswith("select * from final\n")
