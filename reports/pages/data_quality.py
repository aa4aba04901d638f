"""Whether the numbers can be trusted: every check with its result, completeness, hashes, and duplicate weights."""

import json

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Cards, Column, Figure, Page, Prose, Table, place_columns, source_line
from timecourse.reports.partition import Partition, Row

SLUG, TITLE = "data-quality", "Data quality"

_CHECK_ROW_LIMIT = 3000
_GATES = {"float32": 1e-4, "float16": 2e-3, "bfloat16": 2e-2}
"""Largest completeness error a checkpoint may have, by the precision it was measured in (method, section 2)."""


def build(partition: Partition) -> Page:
    """Checks and checkpoints of one partition's release."""
    axis = charts.training_axis(partition.checkpoints)
    checks = (
        partition.rows(
            """select check_id, home, stage, table_name, rule, severity, result, observed, failing_row_count,
                failing_rows, checkpoint_id
            from fct_check_results
            order by list_position(['fail', 'warn', 'pass'], result),
                list_position(['raw', 'warehouse', 'release'], stage), table_name, check_id, checkpoint_id"""
        )
        if partition.has_mart("fct_check_results")
        else []
    )
    return Page(
        SLUG,
        TITLE,
        "Every check of this release with its rule and result, how exactly the parts sum to the residual stream,"
        " and the hashes of what was measured.",
        [
            _summary(checks),
            *_not_passed(partition, checks),
            _all_checks(partition, checks),
            _completeness(partition, axis),
            _checkpoints(partition),
            *_unused_names(partition),
            _duplicates(partition),
        ],
        axis,
    )


def _summary(checks: list[Row]) -> Cards | Prose:
    if not checks:
        return Prose(["This release holds no check results."], "Checks")
    counts = {result: sum(row["result"] == result for row in checks) for result in ("pass", "warn", "fail")}
    homes = {"great_expectations": "gates (Great Expectations)", "dbt": "dbt tests"}
    parts = [
        f"{sum(row['home'] == home for row in checks):,} {label}"
        for home, label in homes.items()
        if any(row["home"] == home for row in checks)
    ]
    return Cards(
        "Checks of this release",
        [
            ("Passed", f"{counts['pass']:,}", f"of {wording.count(len(checks), 'check')}: {wording.listing(parts)}"),
            ("Warnings", f"{counts['warn']:,}", "reported, and the release is published"),
            ("Failed", f"{counts['fail']:,}", "a failed gate leaves the last release in place"),
        ],
    )


def _check_table(name: str, rows: list[Row], is_searchable: bool) -> Table:
    return Table(
        name,
        [
            Column("result", "Result"),
            Column("rule", "Rule"),
            Column("observed", "Observed"),
            Column("failing_row_count", "Failing rows", "count"),
            Column("failing_rows_text", "Rows (at most 20)", "code"),
            Column("severity", "If missed"),
            Column("home", "Home"),
            Column("stage", "Stage"),
            Column("table_name", "Table"),
            Column("checkpoint_id", "Checkpoint"),
            Column("check_id", "Check", "code"),
        ],
        [row | {"failing_rows_text": _failing_rows(row["failing_rows"])} for row in rows],
        is_searchable=is_searchable,
        row_limit=_CHECK_ROW_LIMIT,
    )


def _failing_rows(text: str | None) -> str | None:
    """One failing row per line; the text itself where it is not a JSON list."""
    if not text:
        return None
    try:
        rows = json.loads(text)
    except ValueError:
        return text
    if not isinstance(rows, list):
        return text
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) or None


def _not_passed(partition: Partition, checks: list[Row]) -> list[Figure]:
    rows = [row for row in checks if row["result"] != "pass"]
    if not checks:
        return []
    return [
        Figure(
            "not-passed",
            "Checks that did not pass",
            "Warnings and failures, with the rows that missed the rule.",
            "Every check passed." if not rows else f"{wording.count(len(rows), 'check')} did not pass.",
            f"Source: release {partition.release}",
            None,
            _check_table("data-quality-not-passed", rows, is_searchable=False) if rows else None,
            is_table_open=True,
        )
    ]


def _all_checks(partition: Partition, checks: list[Row]) -> Figure:
    return Figure(
        "checks",
        "All checks",
        "Gates run before a checkpoint is committed (raw) and before a release is published (release); dbt tests"
        " run on the warehouse. Checks are of the release as a whole.",
        wording.count(len(checks), "check") + ".",
        f"Source: release {partition.release}",
        None,
        _check_table("data-quality-checks", checks, is_searchable=True),
    )


def _completeness(partition: Partition, axis: charts.TrainingAxis) -> Figure:
    rows = partition.rows(
        """select checkpoint_index, checkpoint_name, dtype, device, completeness_error_max, lens_error_max,
            degenerate_share, prompt_count
        from dim_checkpoints order by checkpoint_index"""
    )
    points = [
        {
            "checkpoint_index": row["checkpoint_index"],
            "error": row["completeness_error_max"],
            "gate": _GATES.get(row["dtype"]),
            "dtype": row["dtype"],
        }
        for row in rows
    ]
    # An error of exactly 0 has no place on a logarithmic axis; the table shows it.
    base = axis.base(points).transform_filter("datum.error > 0").encode(x=axis.x())
    scale = alt.Scale(type="log")
    error = alt.Y(
        "error:Q",
        title="relative error",
        scale=scale,
        axis=alt.Axis(format=".0e", values=[10.0**-power for power in range(13)]),
    )
    gate = base.mark_line(strokeDash=[4, 3], strokeWidth=1, color="#8a8f94").encode(
        y=alt.Y("gate:Q", title="relative error", scale=scale)
    )
    line = base.mark_line(strokeWidth=2, color=charts.METRIC_COLOURS["top1"]).encode(y=error, detail="line:N")
    marks = base.mark_point(size=28, opacity=1, color=charts.METRIC_COLOURS["top1"]).encode(
        y=error,
        tooltip=[
            alt.Tooltip("checkpoint:N"),
            alt.Tooltip("error:Q", format=".2e"),
            alt.Tooltip("gate:Q", format=".0e"),
            alt.Tooltip("dtype:N", title="precision"),
        ],
    )
    worst = max(rows, key=lambda row: row["completeness_error_max"])
    gate_value = _GATES.get(worst["dtype"])
    caption = (
        f"Worst: {wording.scientific(worst['completeness_error_max'])} at"
        f" {partition.labels[partition.checkpoints[worst['checkpoint_index']]['checkpoint_id']]} in {worst['dtype']}"
        + (f" (gate {wording.scientific(gate_value)})." if gate_value else ".")
    )
    chart = alt.layer(gate, line, marks, *axis.boundary_layers()).properties(width="container", height=200)
    is_positive = any(point["error"] > 0 for point in points)
    return Figure(
        "completeness",
        "Completeness: do the parts sum to the residual stream?",
        "Largest ‖sum of parts − stream‖₁ / ‖stream‖₁ over every layer and prompt of a checkpoint. The dashed line"
        " is the gate for the precision of the weights: a checkpoint above it is refused.",
        caption,
        source_line(partition, uses_tau=False),
        charts.specification(chart, caption) if is_positive else None,
        Table(
            "data-quality-completeness",
            [
                Column("checkpoint_name", "Checkpoint"),
                *place_columns(partition),
                Column("dtype", "Precision"),
                Column("device", "Device"),
                Column("completeness_error_max", "Completeness error", "scientific"),
                Column("lens_error_max", "Lens error", "scientific"),
                Column("degenerate_share", "Degenerate sums", "scientific"),
                Column("prompt_count", "Prompts", "count"),
            ],
            partition.placed(rows),
        ),
        empty=None if is_positive else "Every completeness error is exactly 0.",
    )


def _checkpoints(partition: Partition) -> Figure:
    rows = partition.rows("from dim_checkpoints order by checkpoint_index")
    from_beginning = [
        Column("cumulative_step", "Step from the beginning", "count"),
        Column("tokens", "Tokens from the beginning", "count"),
    ]
    names = [Column("also_named", "Also named"), Column("identical_names", "Duplicates of it")]
    return Figure(
        "checkpoints",
        "Checkpoints and hashes",
        "What was measured, in order. Hashes are sha256, shortened here and full in the CSV file.",
        wording.count(len(rows), "checkpoint") + ".",
        source_line(partition, uses_tau=False),
        None,
        Table(
            "data-quality-checkpoints",
            [
                Column("checkpoint_name", "Checkpoint"),
                *(name for name in names if any(row[name.key] is not None for row in rows)),
                Column("step", "Step", "count"),
                Column("tokens_computed", "Tokens, computed", "count"),
                Column("tokens_reported", "Tokens, reported", "count"),
                *(from_beginning if partition.places else []),
                Column("phase", "Phase"),
                Column("stage", "Stage"),
                Column("branch", "Branch"),
                Column("is_reference", "Reference", "flag"),
                Column("weights_sha256", "Weights", "hash"),
                Column("tokenizer_sha256", "Tokenizer", "hash"),
                Column("facts_sha256", "Facts", "hash"),
                Column("commit_sha", "Commit", "hash"),
                Column("extraction_id", "Extraction", "hash"),
                Column("model", "Model"),
            ],
            rows,
        ),
        is_table_open=True,
    )


def _unused_names(partition: Partition) -> list[Figure]:
    """The names in the series' sources that were not used, and why; nothing where no names were declared."""
    declared = partition.rows("from dim_revisions order by position")
    if not declared:
        return []
    rows = [row | {"outcome": wording.STATUS_LABELS[row["status"]]} for row in declared if row["status"] != "used"]
    return [
        Figure(
            "names",
            "Names that were not used",
            "Of what the series' sources offered at the last refresh. Alias: a name without a step of its own for"
            " another checkpoint's weights. Duplicate: another step's weights under this name; the step's own are not"
            " published. What was extracted earlier of an alias or duplicate counts nowhere; of the others it counts.",
            f"{len(rows):,} of {wording.count(len(declared), 'name')}.",
            source_line(partition, uses_tau=False),
            None,
            Table(
                "data-quality-names",
                [
                    Column("checkpoint_name", "Name"),
                    Column("outcome", "What became of it"),
                    Column("same_weights_as", "Weights of"),
                    Column("reason", "Reason"),
                    Column("is_committed", "Extracted", "flag"),
                    Column("weights_sha256", "Weights", "hash"),
                    Column("commit_sha", "Commit", "hash"),
                    Column("bytes", "Bytes", "count"),
                ],
                rows,
            )
            if rows
            else None,
            is_table_open=True,
        )
    ]


def _duplicates(partition: Partition) -> Figure:
    rows = partition.rows(
        """select checkpoint_name, checkpoint_id, same_weights_checkpoint_count, weights_sha256
        from dim_checkpoints where same_weights_checkpoint_count > 0 order by weights_sha256, checkpoint_index"""
    )
    return Figure(
        "duplicates",
        "Equal weights under several names",
        "Checkpoints of this series whose weights equal those of another: they are one measurement, not two.",
        f"{wording.count(len(rows), 'checkpoint')} {'shares' if len(rows) == 1 else 'share'} weights with another."
        if rows
        else "No two checkpoints have equal weights.",
        source_line(partition, uses_tau=False),
        None,
        Table(
            "data-quality-duplicates",
            [
                Column("checkpoint_name", "Checkpoint"),
                Column("same_weights_checkpoint_count", "Others with these weights", "count"),
                Column("weights_sha256", "Weights", "hash"),
            ],
            rows,
        )
        if rows
        else None,
        is_table_open=True,
    )
