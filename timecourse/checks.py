"""The outcome of one check, whichever tool made it; the release lists them in `fct_check_results`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class CheckResult:
    """One rule, and whether the data keeps it.

    `severity` says what a violation would mean, `result` what was found. `failing_rows` is JSON: a list of at most 20
    objects. `checkpoint_id` is set only where one checkpoint's raw tables were checked.
    """

    check_id: str
    home: Literal["great_expectations", "dbt"]
    stage: Literal["raw", "release", "warehouse"]
    table_name: str
    rule: str
    severity: Literal["fail", "warn"]
    result: Literal["pass", "warn", "fail"]
    observed: str
    failing_row_count: int
    failing_rows: str = "[]"
    checkpoint_id: str | None = None
