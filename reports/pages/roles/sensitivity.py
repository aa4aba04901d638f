"""How far roles depend on the thresholds θ and τ and on the facts: other θ, and core, contingent and noise."""

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Column, Control, Figure, Prose, last_label, source_line
from timecourse.reports.pages.roles.chosen_kind import kind_caption, kind_table
from timecourse.reports.partition import Partition, Row

_ROBUSTNESS = {
    "core": ("core", charts.METRIC_COLOURS["top1"]),
    "contingent": ("contingent", charts.METRIC_COLOURS["top10"]),
    "noise": ("noise", charts.ROLE_COLOURS["inactive"]),
}


def thetas(partition: Partition, axis: charts.TrainingAxis, kind: Control) -> Figure:
    """Counts by primary role at every θ of the grid."""
    sql = f"""
        select checkpoint_index, checkpoint_name, component_kind, theta::double as theta, role, component_count,
            share_of_active, iou_settled
        from fct_role_sensitivities join checkpoints using (checkpoint_id)
        order by checkpoint_index desc, component_kind desc, theta, list_position({list(charts.PRIMARY_ROLES)}, role)"""
    has_mart = partition.has_mart("fct_role_sensitivities")
    rows = partition.rows(sql) if has_mart else []
    settled = partition.setting["theta"]
    grid = sorted({row["theta"] for row in rows})
    points = [
        {
            "checkpoint_index": row["checkpoint_index"],
            "kind": row["component_kind"],
            "panel": f"θ = {row['theta']:g}" + (" (this report)" if row["theta"] == settled else ""),
            "panel_index": grid.index(row["theta"]),
            "series": row["role"],
            "value": row["component_count"],
            "overlap": wording.decimal(row["iou_settled"], 2),
        }
        for row in rows
    ]
    base = (
        axis.base(points)
        .transform_filter(f"datum.kind == {kind.control_id}")
        .transform_calculate(role=charts.role_name_expression("datum.series"))
    )
    panel = alt.Chart().encode(
        x=axis.x(),
        color=charts.role_colour("series"),
        y=alt.Y("value:Q", title="components", axis=charts.count_axis(4)),
    )
    layers = [
        panel.mark_line(strokeWidth=2).encode(detail="line:N"),
        panel.mark_point(size=18, opacity=1).encode(
            tooltip=[
                alt.Tooltip("checkpoint:N"),
                alt.Tooltip("panel:N", title="threshold"),
                alt.Tooltip("role:N", title="primary role"),
                alt.Tooltip("value:Q", title="components"),
                alt.Tooltip("overlap:N", title="overlap with this report's"),
            ]
        ),
        *axis.boundary_layers(),
    ]
    caption = kind_caption(partition, rows, kind, lambda last, one: _theta_caption(partition, last, one))
    return Figure(
        "thetas",
        "The same counts at other θ",
        "Components by primary role where θ, the rate above which a component holds a role, is half, three quarters,"
        f" one and a half times and twice that of this report ({settled:g}). τ is the same in all. The table has the"
        " overlap with this report's components too: intersection over union of the two sets.",
        caption,
        source_line(partition),
        charts.specification(
            charts.small_multiples(base, layers, height=130), caption, [charts.bound(kind.control_id, kind.selected)]
        )
        if rows
        else None,
        kind_table(
            partition,
            "roles-thetas",
            rows,
            [
                Column("theta", "θ", "decimal"),
                Column("role", "Primary role", "role"),
                Column("component_count", "Components", "count"),
                Column("share_of_active", "Of the active", "percent"),
                Column("iou_settled", "Overlap with this report's", "decimal"),
            ],
            kind,
        ),
        legend=list(wording.ROLE_LABELS.items()) if rows else [],
        empty=None if rows else "No counts at other θ in this release.",
        query=partition.standalone(sql) if has_mart else None,
    )


def robustness(partition: Partition, kind: Control) -> Figure:
    """How many components of each primary role are core, contingent or noise."""
    sql = f"""
        select checkpoint_index, checkpoint_name, component_kind, role, component_count, core_count, contingent_count,
            noise_count, mean_confidence
        from fct_role_counts join checkpoints using (checkpoint_id)
        where component_count > 0
        order by checkpoint_index desc, component_kind desc, list_position({list(charts.PRIMARY_ROLES)}, role)"""
    has_mart = partition.has_mart("fct_role_counts")
    rows = partition.rows(sql) if has_mart else []
    points = [
        {
            "checkpoint_index": row["checkpoint_index"],
            "kind": row["component_kind"],
            "panel": wording.ROLE_LABELS[row["role"]],
            "panel_index": charts.PRIMARY_ROLES.index(row["role"]),
            "robustness": robustness,
            "order": order,
            "value": row[f"{robustness}_count"],
            "checkpoint": row["checkpoint_name"],
            "confidence": charts.rounded(row["mean_confidence"]),
        }
        for row in rows
        for order, robustness in enumerate(_ROBUSTNESS)
        if row[f"{robustness}_count"]
    ]
    base = charts.chart_of(points).transform_filter(f"datum.kind == {kind.control_id}")
    bars = (
        alt.Chart()
        .mark_bar()
        .encode(
            x=charts.checkpoint_columns(partition.checkpoints, title="checkpoint", label_count=7),
            y=alt.Y("value:Q", title="components", stack="zero", axis=charts.count_axis(4)),
            color=alt.Color(
                "robustness:N",
                legend=None,
                scale=alt.Scale(domain=list(_ROBUSTNESS), range=[colour for _, colour in _ROBUSTNESS.values()]),
            ),
            order=alt.Order("order:Q"),
            tooltip=[
                alt.Tooltip("checkpoint:N"),
                alt.Tooltip("panel:N", title="primary role"),
                alt.Tooltip("robustness:N"),
                alt.Tooltip("value:Q", title="components"),
                alt.Tooltip("confidence:Q", format=".2f", title="mean confidence in the role"),
            ],
        )
    )
    caption = kind_caption(partition, rows, kind, lambda last, one: _robustness_caption(partition, last, one))
    return Figure(
        "robustness",
        "How far each role can be trusted",
        "Core (bottom): the component has the same primary role at every θ and τ of the grid. Noise (top): it has the"
        " role in fewer than half of the draws of the facts. Contingent: neither, so that it depends on the thresholds."
        " Confidence is the share of draws with the same primary role; its mean is over all components of the role.",
        caption,
        source_line(partition),
        charts.specification(
            charts.small_multiples(base, [bars], height=130), caption, [charts.bound(kind.control_id, kind.selected)]
        )
        if rows
        else None,
        kind_table(
            partition,
            "roles-robustness",
            rows,
            [
                Column("role", "Primary role", "role"),
                Column("component_count", "Components", "count"),
                Column("core_count", "core", "count"),
                Column("contingent_count", "contingent", "count"),
                Column("noise_count", "noise", "count"),
                Column("mean_confidence", "Mean confidence", "decimal"),
            ],
            kind,
        ),
        legend=[("top1", "core"), ("top10", "contingent"), ("inactive", "noise")] if rows else [],
        empty=None if rows else "No robustness in this release.",
        query=partition.standalone(sql) if has_mart else None,
    )


def other_taus(partition: Partition) -> list[Prose]:
    """Where the release holds the same series and setting at other τ: which, and where their roles stand."""
    others = [
        row["other_tau_id"]
        for row in partition.comparisons
        if (row["other_series_id"], row["other_setting_id"]) == (partition.series_id, partition.setting_id)
    ]
    if not others:
        return []
    return [
        Prose(
            [
                f"This release holds the same measurements at τ = {wording.listing(others)} too. A report shows one τ:"
                " each has a page of roles of its own, reached from the first page of the release. What is core above"
                " holds at all of them."
            ],
            "Other τ",
        )
    ]


def _theta_caption(partition: Partition, last: list[Row], kind: str) -> str:
    grid = sorted({row["theta"] for row in last})
    parts = []
    for role in charts.PRIMARY_ROLES:
        counts = {row["theta"]: row["component_count"] for row in last if row["role"] == role}
        if any(counts.values()):
            parts.append(f"{wording.ROLE_LABELS[role]} {counts[grid[0]]:,} and {counts[grid[-1]]:,}")
    return (
        f"{'Heads' if kind == 'head' else 'FFNs'} at {last_label(partition)}, at θ = {grid[0]:g} and {grid[-1]:g}:"
        f" {wording.listing(parts)}."
    )


def _robustness_caption(partition: Partition, last: list[Row], kind: str) -> str:
    total = sum(row["component_count"] for row in last)
    core, contingent, noise = (sum(row[f"{name}_count"] for row in last) for name in _ROBUSTNESS)
    return (
        f"Of {wording.kind_count(total, kind)} at {last_label(partition)}, {core:,}"
        f" {'is' if core == 1 else 'are'} core, {contingent:,} contingent and {noise:,} noise."
    )
