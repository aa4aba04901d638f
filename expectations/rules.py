"""A rule: which rows it is about, which number it looks at, and the bounds that every such number must keep.

1. DuckDB reduces the rows to the smallest and the largest number per rule, and counts the rows out of bounds.
2. Great Expectations judges the two extremes of every rule of a table: one suite, one frame of two rows.
3. Where a rule is broken, the first rows that break it are fetched with their keys.

A number that is missing or not finite counts as infinitely far beyond the bound, so that it breaks every rule. Dividing
by zero is an error in DuckDB and would take the other rules of the same rows with it: rules guard their divisors.
"""

import json
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import duckdb

from timecourse.checks import CheckResult
from timecourse.expectations.limits import FAILING_ROWS

if TYPE_CHECKING:
    import pandas

Severity = Literal["fail", "warn"]
Stage = Literal["raw", "release"]


@dataclass(frozen=True)
class Rule:
    """One rule about a table.

    `rows` is a table, a view or a query in parentheses; `value` an expression over one of its rows; `show` the columns
    that identify and explain a failing row, in the order by which failing rows are sorted.
    """

    rule_id: str
    statement: str
    rows: str
    value: str
    show: tuple[str, ...]
    minimum: float | None = None
    maximum: float | None = None
    exclude_minimum: bool = False
    exclude_maximum: bool = False
    severity: Severity = "fail"
    is_condition: bool = False  # the number is 1 where a condition is true, else 0

    @property
    def number(self) -> str:
        """SQL of the number that is compared."""
        value = f"({self.value})::double"
        beyond = "-infinity" if self.maximum is None else "infinity"
        return f"case when isfinite({value}) then {value} else '{beyond}'::double end"

    def is_broken(self, number: str) -> str:
        """SQL condition of a number out of bounds."""
        broken = []
        if self.minimum is not None:
            broken.append(f"{number} {'<=' if self.exclude_minimum else '<'} {self.minimum!r}")
        if self.maximum is not None:
            broken.append(f"{number} {'>=' if self.exclude_maximum else '>'} {self.maximum!r}")
        return " or ".join(broken)


def holds(
    rule_id: str, statement: str, rows: str, condition: str, show: tuple[str, ...], severity: Severity = "fail"
) -> Rule:
    """A rule that a condition is true for every row (null is not true)."""
    value = f"coalesce(({condition}), false)::integer"
    return Rule(rule_id, statement, rows, value, show, minimum=1, maximum=1, severity=severity, is_condition=True)


def is_unique(table: str, key: tuple[str, ...]) -> Rule:
    """A rule that no two rows of a table have the same key."""
    columns = ", ".join(key)
    rows = f"(select {columns}, count(*) as row_count from {table} group by {columns})"
    statement = f"one row per {', '.join(key)}"
    return Rule("key_is_unique", statement, rows, "row_count", (*key, "row_count"), maximum=1)


def evaluate(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    rules: Sequence[Rule],
    stage: Stage,
    checkpoint_id: str | None = None,
) -> list[CheckResult]:
    """Judge every rule of one table, in order. A rule whose query does not run is broken."""
    extremes: dict[str, tuple[float, float, int]] = {}
    errors: dict[str, str] = {}
    for rows in dict.fromkeys(rule.rows for rule in rules):
        group = [rule for rule in rules if rule.rows == rows]
        try:
            extremes |= _extremes(connection, rows, group)
        except duckdb.Error as error:
            errors |= {rule.rule_id: str(error).splitlines()[0] for rule in group}
    kept = _judge([rule for rule in rules if rule.rule_id in extremes], extremes)
    results = []
    for rule in rules:
        is_kept = kept.get(rule.rule_id, False)
        smallest, largest, broken_count = extremes.get(rule.rule_id, (math.nan, math.nan, 0))
        failing = [] if is_kept or rule.rule_id in errors else _failing_rows(connection, rule)
        results.append(
            CheckResult(
                check_id=f"{stage}.{table}.{rule.rule_id}",
                home="great_expectations",
                stage=stage,
                table_name=table,
                rule=rule.statement,
                severity=rule.severity,
                result="pass" if is_kept else rule.severity,
                observed=errors.get(rule.rule_id, _observed(rule, smallest, largest, broken_count)),
                failing_row_count=broken_count,
                failing_rows=json.dumps(failing, ensure_ascii=False),
                checkpoint_id=checkpoint_id,
            )
        )
    return results


def _extremes(
    connection: duckdb.DuckDBPyConnection, rows: str, rules: Sequence[Rule]
) -> dict[str, tuple[float, float, int]]:
    """Smallest number, largest number and count of broken rows by rule; NaN, NaN, 0 where there are no rows."""
    numbers = ", ".join(f"{rule.number} as number_{index}" for index, rule in enumerate(rules))
    columns = ", ".join(
        f"min(number_{index}), max(number_{index}), count(*) filter (where {rule.is_broken(f'number_{index}')})"
        for index, rule in enumerate(rules)
    )
    (found,) = connection.execute(f"select {columns} from (select {numbers} from {rows})").fetchall()
    return {
        rule.rule_id: (
            math.nan if found[3 * index] is None else found[3 * index],
            math.nan if found[3 * index + 1] is None else found[3 * index + 1],
            found[3 * index + 2],
        )
        for index, rule in enumerate(rules)
    }


def _failing_rows(connection: duckdb.DuckDBPyConnection, rule: Rule) -> list[dict[str, Any]]:
    query = f"""
        select {", ".join(rule.show if rule.is_condition else (*rule.show, f"{rule.number} as found"))}
        from {rule.rows}
        where {rule.is_broken(rule.number)}
        order by {", ".join(rule.show)}
        limit {FAILING_ROWS}
    """
    found = connection.execute(query)
    names = [column[0] for column in found.description or []]
    return [dict(zip(names, map(_plain, row), strict=True)) for row in found.fetchall()]


def _plain(value: Any) -> Any:
    """A value as JSON can carry it; floats with the seven digits that float32 has."""
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else str(value)
    return value if isinstance(value, int | str | None) else str(value)


def _observed(rule: Rule, smallest: float, largest: float, broken_count: int) -> str:
    if math.isnan(smallest):
        return "no rows"
    if rule.is_condition:
        return f"not so in {broken_count} rows" if broken_count else "so in every row"
    return f"{smallest:.6g}" if smallest == largest else f"{smallest:.6g} to {largest:.6g}"


# Great Expectations ---------------------------------------------------------------------------------------------------


def _judge(rules: Sequence[Rule], extremes: dict[str, tuple[float, float, int]]) -> dict[str, bool]:
    """Whether each rule is kept, by a suite of Great Expectations over the extremes."""
    import pandas

    if not rules:
        return {}
    frame = pandas.DataFrame({rule.rule_id: extremes[rule.rule_id][:2] for rule in rules}, dtype="float64")
    return _validate(frame, rules)


def _validate(frame: "pandas.DataFrame", rules: Sequence[Rule]) -> dict[str, bool]:
    batch_definition = _batch_definition()
    import great_expectations as gx

    suite = gx.ExpectationSuite(
        name="extremes",
        expectations=[
            gx.expectations.ExpectColumnValuesToBeBetween(
                column=rule.rule_id,
                min_value=rule.minimum,
                max_value=rule.maximum,
                strict_min=rule.exclude_minimum,
                strict_max=rule.exclude_maximum,
            )
            for rule in rules
        ],
    )
    validation = batch_definition.get_batch({"dataframe": frame}).validate(suite, result_format="BOOLEAN_ONLY")
    return {result.expectation_config.kwargs["column"]: bool(result.success) for result in validation.results}


@cache
def _batch_definition() -> Any:
    """Where Great Expectations takes a frame from: an ephemeral context, nothing on disk or sent out."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    # once dbt has given the root logger a handler, the INFO of this library would reach the console
    logging.getLogger("great_expectations").propagate = False
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("queries").add_dataframe_asset("extremes")
    return asset.add_batch_definition_whole_dataframe("all")
