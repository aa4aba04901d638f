"""Whether the numbers can be trusted: every check with its result, completeness, hashes, and duplicate weights."""

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Cards, Column, Figure, Prose, Table, checkpoint_table, source_line
from timecourse.reports.partition import Partition

_CHECK_ROW_LIMIT = 3000
_GATES = {"float32": 1e-4, "float16": 2e-3, "bfloat16": 2e-2}
"""Largest completeness error a checkpoint may have, by the precision it was measured in (method, section 2)."""


def summary(partition: Partition) -> Cards | Prose:
    """How many checks passed, warned and failed."""
    if not partition.has_mart("fct_check_results"):
        return Prose(["This release holds no check results."], "Checks")
    sql = """select count(*) as check_count, count(*) filter (where home = 'great_expectations') as gate_count,
        count(*) filter (where home = 'dbt') as test_count, count(*) filter (where result = 'pass') as passed,
        count(*) filter (where result = 'warn') as warned, count(*) filter (where result = 'fail') as failed
    from fct_check_results"""
    row = partition.row(sql)
    if not row["check_count"]:
        return Prose(["This release holds no check results."], "Checks")
    parts = [
        f"{row[key]:,} {label}"
        for key, label in (("gate_count", "gates (Great Expectations)"), ("test_count", "dbt tests"))
        if row[key]
    ]
    return Cards(
        "Checks of this release",
        [
            (
                "Passed",
                f"{row['passed']:,}",
                f"of {wording.count(row['check_count'], 'check')}: {wording.listing(parts or ['of neither home'])}",
            ),
            ("Warnings", f"{row['warned']:,}", "reported, and the release is published"),
            ("Failed", f"{row['failed']:,}", "a failed gate leaves the last release in place"),
        ],
        [partition.standalone(sql)],
    )


_NOT_PASSED = """select check_id, home, stage, table_name, rule, severity, result, observed, failing_row_count,
    failing_rows, checkpoint_id
from fct_check_results
where result <> 'pass'
order by list_position(['fail', 'warn'], result), list_position(['raw', 'warehouse', 'release'], stage), table_name,
    check_id, checkpoint_id, rule"""
_CHECKS = """select check_id, home, stage, table_name, rule, severity, count(*) as run_count,
    count(*) filter (where result = 'pass') as passed_count, count(*) filter (where result = 'warn') as warned_count,
    count(*) filter (where result = 'fail') as failed_count, sum(failing_row_count)::bigint as failing_row_count,
    if(count(distinct observed) < 3, string_agg(distinct observed, '; ' order by observed),
        count(distinct observed) || ' different, such as ' || min(observed)) as observed
from fct_check_results
group by check_id, home, stage, table_name, rule, severity
order by failed_count = 0, warned_count = 0, list_position(['raw', 'warehouse', 'release'], stage), table_name,
    check_id, rule, home, severity"""


def checks(partition: Partition) -> list[Figure]:
    """What did not pass, and every check; nothing where the release holds no results."""
    if not partition.has_mart("fct_check_results"):
        return []
    missed, rows = partition.rows(_NOT_PASSED), partition.rows(_CHECKS)
    source = f"Source: release {partition.release}"
    what = [
        Column("severity", "If missed"),
        Column("home", "Home"),
        Column("stage", "Stage"),
        Column("table_name", "Table"),
        Column("check_id", "Check", "code"),
    ]
    return [
        Figure(
            "not-passed",
            "Checks that did not pass",
            "Warnings and failures, with the rows that missed the rule.",
            f"{wording.count(len(missed), 'check')} did not pass." if missed else "Every check passed.",
            source,
            None,
            Table(
                "data-not-passed",
                [
                    Column("result", "Result"),
                    Column("rule", "Rule"),
                    Column("observed", "Observed"),
                    Column("failing_row_count", "Failing rows", "count"),
                    Column("failing_rows", "Rows (at most 20)", "json_rows"),
                    Column("checkpoint_id", "Checkpoint"),
                    *what,
                ],
                missed,
            )
            if missed
            else None,
            is_table_open=True,
            query=partition.standalone(_NOT_PASSED) if missed else None,
        ),
        Figure(
            "checks",
            "All checks",
            "Gates run before a checkpoint is committed (raw) and before a release is published (release); dbt tests"
            " run on the warehouse. A gate of raw tables runs once for every checkpoint. Checks are of the release as a"
            " whole.",
            f"{wording.count(len(rows), 'check')} with {wording.count(sum(r['run_count'] for r in rows), 'result')}.",
            source,
            None,
            Table(
                "data-checks",
                [
                    Column("rule", "Rule"),
                    Column("run_count", "Results", "count"),
                    Column("passed_count", "Passed", "count"),
                    Column("warned_count", "Warned", "count"),
                    Column("failed_count", "Failed", "count"),
                    Column("failing_row_count", "Failing rows", "count"),
                    Column("observed", "Observed"),
                    *what,
                ],
                rows,
                is_searchable=True,
                row_limit=_CHECK_ROW_LIMIT,
            ),
            query=partition.standalone(_CHECKS),
        ),
    ]


def completeness(partition: Partition, axis: charts.TrainingAxis) -> Figure:
    """How exactly the parts sum to the residual stream, beside the gate."""
    sql = """select checkpoint_index, checkpoint_name, dtype, device, completeness_error_max, lens_error_max,
        degenerate_share, prompt_count
    from dim_checkpoints order by checkpoint_index"""
    rows = partition.rows(sql)
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
        f" {partition.label_at(worst['checkpoint_index'])} in {worst['dtype']}"
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
        checkpoint_table(
            partition,
            "data-completeness",
            rows,
            [
                Column("dtype", "Precision"),
                Column("device", "Device"),
                Column("completeness_error_max", "Completeness error", "scientific"),
                Column("lens_error_max", "Lens error", "scientific"),
                Column("degenerate_share", "Degenerate sums", "scientific"),
                Column("prompt_count", "Prompts", "count"),
            ],
        ),
        empty=None if is_positive else "Every completeness error is exactly 0.",
        query=partition.standalone(sql),
    )


def checkpoints(partition: Partition) -> Figure:
    """What was measured, with its hashes."""
    sql = "from dim_checkpoints order by checkpoint_index"
    rows = partition.rows(sql)
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
            "data-checkpoints",
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
        query=partition.standalone(sql),
    )


def unused_names(partition: Partition) -> list[Figure]:
    """The names in the series' sources that were not used, and why; nothing where no names were declared."""
    declared = partition.row("select count(*) as total from dim_revisions")["total"]
    if not declared:
        return []
    sql = "from dim_revisions where status <> 'used' order by position, checkpoint_name"
    rows = partition.rows(sql)
    return [
        Figure(
            "names",
            "Names that were not used",
            "Of what the series' sources offered at the last refresh. Alias: a name without a step of its own for"
            " another checkpoint's weights. Duplicate: another step's weights under this name; the step's own are not"
            " published. What was extracted earlier of an alias or duplicate counts nowhere; of the others it counts.",
            f"{len(rows):,} of {wording.count(declared, 'name')}.",
            source_line(partition, uses_tau=False),
            None,
            Table(
                "data-names",
                [
                    Column("checkpoint_name", "Name"),
                    Column("status", "What became of it", "status"),
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
            query=partition.standalone(sql) if rows else None,
        )
    ]


def duplicates(partition: Partition) -> Figure:
    """Checkpoints whose weights equal another's."""
    sql = """select checkpoint_name, checkpoint_id, same_weights_checkpoint_count, weights_sha256
    from dim_checkpoints where same_weights_checkpoint_count > 0 order by weights_sha256, checkpoint_index"""
    rows = partition.rows(sql)
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
            "data-duplicates",
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
        query=partition.standalone(sql) if rows else None,
    )
