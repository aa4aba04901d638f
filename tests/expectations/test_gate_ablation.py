"""The gate of ablations: a real one passes, and every rule finds the one defect that breaks it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.extract.planted_model import save_planted_checkpoint, save_planted_facts
from timecourse.expectations import ablation_sets, ablations
from timecourse.expectations.gate import gate_ablation
from timecourse.extract.ablations.job import AblationRequest, RoleSet, ablate
from timecourse.extract.checkpoints.directory import find_checkpoints
from timecourse.extract.facts import load_relations
from timecourse.extract.identity import ExtractionRequest, MeasurementSettings
from timecourse.extract.job import Machine, extract
from timecourse.extract.raw import ABLATION_TABLES, write_table

Row = dict[str, Any]
Tables = dict[str, list[Row]]


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> tuple[Path, Path]:
    """The extraction and the ablation of one checkpoint of the planted model."""
    directory = tmp_path_factory.mktemp("measured")
    save_planted_checkpoint(directory / "series" / "step1")
    relations = load_relations(save_planted_facts(directory / "facts"))
    (checkpoint,) = find_checkpoints(directory / "series")
    request = ExtractionRequest("planted", checkpoint, relations, MeasurementSettings())
    for name in ("extraction", "unfinished", "ablation"):
        (directory / name).mkdir()
    extract(request, directory / "extraction", Machine("cpu"))
    facts = [relation.fact_id(fact) for relation in relations for fact in relation.samples]
    role_sets = [
        RoleSet("A", "general", None, ("L0F", "L0H1")),
        RoleSet("B", "general", None, ("L0F",)),
        RoleSet("A", "relation_answer", "capital_of", ("L1H1",)),
    ]
    halves = {fact: "AB"[index % 2] for index, fact in enumerate(facts)}
    ablation = AblationRequest(request, "0.01", "0.1", role_sets, halves, ("mean", "zero"))
    ablate(ablation, directory / "ablation", directory / "unfinished", Machine("cpu"))
    return directory / "extraction", directory / "ablation"


def change(table: str, is_meant: Callable[[Row], bool], **values: Any) -> Callable[[Tables], None]:
    """A defect: other values in the first row of a kind."""

    def spoil(tables: Tables) -> None:
        next(row for row in tables[table] if is_meant(row)).update(values)

    return spoil


def drop(table: str, is_meant: Callable[[Row], bool], *, first: bool = False) -> Callable[[Tables], None]:
    """A defect: missing rows, or one of them."""

    def spoil(tables: Tables) -> None:
        missing = [row for row in tables[table] if is_meant(row)][: 1 if first else None]
        tables[table] = [row for row in tables[table] if row not in missing]

    return spoil


def repeat(table: str, **values: Any) -> Callable[[Tables], None]:
    """A defect: a row that is there twice, the second time with other values."""
    return lambda tables: tables[table].append({**tables[table][0], **values})


def is_kind(kind: str) -> Callable[[Row], bool]:
    return lambda row: row["set_kind"] == kind


def anything(_row: Row) -> bool:
    return True


def another_head_in_a_random_set(tables: Tables) -> None:
    own = next(row for row in tables["ablation_sets"] if row["set_kind"] == "random")
    members = {row["component_id"] for row in tables["ablation_sets"] if row["set_id"] == own["set_id"]}
    other = next(f"L1H{head}" for head in range(4) if f"L1H{head}" not in members)
    tables["ablation_sets"].append({**own, "component_id": other})


DEFECTS = {
    ("ablation_sets", "key_is_unique"): repeat("ablation_sets"),
    ("ablation_sets", "component_is_known"): change("ablation_sets", anything, component_id="L9H0"),
    ("ablation_sets", "kind_is_known"): change("ablation_sets", is_kind("single"), set_kind="pair"),
    ("ablation_sets", "rows_of_a_set_agree"): change("ablation_sets", is_kind("role"), theta="0.2"),
    ("ablation_sets", "sets_are_described"): change("ablation_sets", is_kind("role"), half="C"),
    ("ablation_sets", "random_sets_match"): another_head_in_a_random_set,
    ("ablation_sets", "every_component_is_silenced"): drop("ablation_sets", is_kind("single"), first=True),
    ("ablations", "key_is_unique"): repeat("ablations"),
    ("ablations", "method_is_known"): change("ablations", anything, method="delete"),
    ("ablations", "set_and_token_are_known"): change("ablations", anything, set_id=10_000),
    ("ablations", "numbers_are_finite"): change("ablations", anything, delta_log_prob=float("nan")),
    ("ablations", "log_prob_stays_one"): change("ablations", anything, delta_log_prob=30.0),
    ("ablations", "rank_stays_one"): change("ablations", anything, delta_rank=100_000),
    ("ablations", "answers_are_whole"): repeat("ablations", answer_token_index=1),
    ("ablations", "sets_are_scored"): drop("ablations", lambda row: row["set_id"] == 0 and row["method"] == "zero"),
}


def test_every_rule_has_a_defect() -> None:
    rules = {("ablation_sets", rule.rule_id) for rule in ablation_sets.RULES}
    assert set(DEFECTS) == rules | {("ablations", rule.rule_id) for rule in ablations.RULES}


def test_a_real_ablation_passes(measured: tuple[Path, Path]) -> None:
    extraction, ablation = measured
    results = gate_ablation(ablation, extraction)
    assert len(results) == len(DEFECTS)
    assert [result for result in results if result.result != "pass"] == []
    assert {result.checkpoint_id for result in results} == {"planted/step1"}


@pytest.mark.parametrize("table, rule_id", DEFECTS)
def test_the_defect_is_found(measured: tuple[Path, Path], tmp_path: Path, table: str, rule_id: str) -> None:
    extraction, ablation = measured
    tables = {name: pq.read_table(ablation / f"{name}.parquet").to_pylist() for name in ABLATION_TABLES}
    DEFECTS[table, rule_id](tables)
    for name, rows in tables.items():
        write_table(tmp_path, name, {column: [row[column] for row in rows] for column in ABLATION_TABLES[name].names})
    failed = {result.check_id for result in gate_ablation(tmp_path, extraction) if result.result == "fail"}
    assert f"raw.{table}.{rule_id}" in failed


def test_a_missing_file_is_said(measured: tuple[Path, Path], tmp_path: Path) -> None:
    results = gate_ablation(tmp_path, measured[0])
    assert {result.table_name for result in results if result.result == "fail"} == set(ABLATION_TABLES)
