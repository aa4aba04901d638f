"""What dbt's data tests found, as checks: one for every rule that a test holds a model to."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb

from timecourse.checks import CheckResult

SAMPLE_ROWS = 20
"""How many failing rows of a rule are kept."""


def check_results(results: Sequence[Any], database: Path) -> Iterator[CheckResult]:
    """A CheckResult for each rule of every data test that ran; failing rows are read from the database again."""
    for result in results:
        if result.node.resource_type != "test" or str(result.status) == "skipped":
            continue
        failing = _failing_rows(database, result.node) if result.failures else {}
        for check_id, label, rule in _rules(result.node):
            count, rows = failing.get(label, (0, []))
            yield CheckResult(
                check_id=check_id,
                home="dbt",
                stage="warehouse",
                table_name=_table_name(result.node),
                rule=rule,
                severity="warn" if result.node.config.severity.lower() == "warn" else "fail",
                result=str(result.status) if count else "pass",  # type: ignore[arg-type]  # dbt's words are ours
                observed=f"{count} failing row{'' if count == 1 else 's'}",
                failing_row_count=count,
                failing_rows=json.dumps(rows, default=str),
            )


def _table_name(node: Any) -> str:
    """The model that a generic test stands beside; the last fact table, else model, that a singular test reads."""
    if attached := getattr(node, "attached_node", None):
        return str(attached).split(".")[-1]
    names = [str(model).split(".")[-1] for model in node.depends_on.nodes]
    return [*names, *(name for name in names if name.startswith("fct_"))][-1]


def _rules(node: Any) -> Iterator[tuple[str, str | None, str]]:
    """What a test checks: each rule's id, what its failing rows have as `broken_rule`, and the rule in words."""
    metadata = getattr(node, "test_metadata", None)
    if metadata is None:
        yield node.name, None, str(node.description).strip()
        return
    kwargs = metadata.kwargs
    if metadata.name != "rows":  # dbt's own, of one column
        yield node.name, None, f"{kwargs['column_name']} is {metadata.name.replace('_', ' ')}"
        return
    rules = {"key": f"{', '.join(kwargs['key'])} {'identify' if len(kwargs['key']) > 1 else 'identifies'} a row"}
    for number, reference in enumerate(kwargs.get("references", []), start=1):
        to = re.sub(r"^ref\('(.+)'\)$", r"\1", reference["to"])
        verb = "name" if len(reference["columns"]) > 1 else "names"
        rules[f"reference_{number}"] = f"{', '.join(reference['columns'])} {verb} a row of {to}"
    for column, values in kwargs.get("one_of", {}).items():
        rules[f"one_of_{column}"] = f"{column} is one of {', '.join(values)}"
    for column in kwargs.get("shares", []):
        rules[f"share_{column}"] = f"{column} is in [0, 1]"
    for label, rule in rules.items():
        yield f"warehouse.{_table_name(node)}.{label}", label, rule


def _failing_rows(database: Path, node: Any) -> dict[str | None, tuple[int, list[dict[str, Any]]]]:
    """How many rows a test finds and the first of them, by the rule that they break where the test has several."""
    key = node.test_metadata.kwargs.get("key", ()) if getattr(node, "test_metadata", None) else ()
    with duckdb.connect(str(database), read_only=True) as connection:
        found = connection.sql(node.compiled_code)
        has_rules = "broken_rule" in found.columns
        counts = found.aggregate("broken_rule, count(*)" if has_rules else "null, count(*)").fetchall()
        failing: dict[str | None, tuple[int, list[dict[str, Any]]]] = {}
        for rule, count in counts:
            broken = (found.filter(f"broken_rule = '{rule}'") if has_rules else found).limit(SAMPLE_ROWS)
            failing[rule] = (count, [dict(zip(broken.columns, row, strict=True)) for row in broken.fetchall()])
    if key:  # the rules' rows have different columns, and null in each other's; a key may be null itself
        for rule, (_, rows) in failing.items():
            kept = key if rule == "key" else ()
            rows[:] = [
                {name: value for name, value in row.items() if name in kept or value is not None} for row in rows
            ]
            for row in rows:
                del row["broken_rule"]
    return failing
