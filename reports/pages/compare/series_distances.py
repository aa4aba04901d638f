"""How far apart series are over training, beside how far apart seeds are; and the roles of two seeds."""

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Column, Control, Figure, Table, place_columns, source_line
from timecourse.reports.partition import Partition, Row

ORDER = """dense_rank() over (
                order by list_position(['same_recipe', 'other_recipe', 'same_series'], pair_kind), other_series_id,
                    other_setting_id, other_tau_id
            ) - 1"""
"""SQL: the number of a pair among those of this partition: seeds first."""

_SEED = "compared_seed"
_NAMED_LIMIT = 4
_ROLES = ("all", *charts.ROLES)
_PAIR_MARKS = {
    "same_recipe": ("ffn", "circle"),
    "other_recipe": ("all_tokens", "diamond"),
    "same_series": ("top10", "square"),
}
"""Kind of a pair -> swatch of its colour, and its shape."""

_KEYS = ("series_id", "setting_id", "tau_id")
_COLUMNS = {
    "checkpoint_id": (("checkpoint_id", "other_checkpoint_id"), ("other_checkpoint_id", "checkpoint_id")),
    "matched_by": (("matched_by",), ("matched_by",)),
    "value": (
        ("value", "value_low", "value_high", "other_value", "other_low", "other_high"),
        ("other_value", "other_low", "other_high", "value", "value_low", "value_high"),
    ),
    "difference": (
        ("difference", "difference_low", "difference_high"),
        ("0 - difference", "0 - difference_high", "0 - difference_low"),
    ),
    "seed": (("seed_distance", "seed_pair_count"), ("seed_distance", "seed_pair_count")),
    "distance": (("checkpoint_count", "end_count", "distance", "ratio"),) * 2,
}
"""Columns that go together: their names; and what they are where this partition is the second of a pair."""


def oriented(mart: str, *groups: str) -> str:
    """A query: the pairs of a mart that holds each once, with this partition as the first of every pair."""
    names = [name for group in groups for name in _COLUMNS[group][0]]
    swapped = [name for group in groups for name in _COLUMNS[group][1]]
    shared = "pair_kind, differs_in, statistic, component_kind"
    others = ", ".join(f"other_{key}" for key in _KEYS)
    turned = ", ".join(f"{key} as other_{key}" for key in _KEYS)
    also = ", ".join(f"{column} as {name}" for column, name in zip(swapped, names, strict=True))
    key = ", ".join(_KEYS)
    return f"""select {others}, {shared}, {", ".join(names)} from {mart} semi join dim_settings using ({key})
            union all
            select {turned}, {shared}, {also} from {mart} anti join dim_settings using ({key})"""


def distances(partition: Partition) -> Figure:
    """How far apart the pairs are in every statistic, and, beside two recipes, two seeds of one."""
    sql = f"""select {ORDER} as pair, other_series_id, other_setting_id, other_tau_id, pair_kind, differs_in, statistic,
            component_kind, checkpoint_count, end_count, distance, seed_pair_count, seed_distance, ratio
        from ({oriented("fct_series_distances", "distance", "seed")})
        order by pair, list_position({list(wording.STATISTIC_LABELS)}, statistic),
            list_position(['all', 'head', 'ffn'], component_kind)"""
    rows = partition.rows(sql)
    beside_seeds = [row for row in rows if row["seed_distance"] is not None]
    further = [row for row in beside_seeds if row["distance"] > row["seed_distance"]]
    title = (
        f"Other recipes are further apart than seeds in {len(further)} of {len(beside_seeds)} comparisons"
        if beside_seeds
        else "How far apart series are over training"
    )
    caption = _distance_caption(rows, beside_seeds)
    kinds = [kind for kind in _PAIR_MARKS if any(row["pair_kind"] == kind for row in rows)]
    legend = [(_PAIR_MARKS[kind][0], f"{wording.PAIR_LABELS[kind]} ({_PAIR_MARKS[kind][1]})") for kind in kinds]
    return Figure(
        "distances",
        title,
        "Mean over the matched checkpoints of the absolute difference: in nats for log-probabilities, else of shares;"
        " square-root scale. It is above 0 even for equal models, because the facts are few: the seeds' distance holds"
        " the same noise. An upright line: mean distance of two seeds of either recipe.",
        caption,
        source_line(partition),
        charts.specification(_distance_chart(rows, kinds, bool(beside_seeds)), caption),
        Table(
            "compare-distances",
            [
                Column("other_series_id", "Beside"),
                Column("other_tau_id", "τ"),
                Column("pair_kind", "To this series", "pair"),
                Column("statistic", "Statistic", "statistic"),
                Column("component_kind", "Of", "kind_or_all"),
                Column("checkpoint_count", "Matched", "count"),
                Column("end_count", "of them ends", "count"),
                Column("distance", "Distance", "decimal"),
                Column("seed_distance", "Two seeds", "decimal"),
                Column("seed_pair_count", "Pairs of seeds", "count"),
                Column("ratio", "Ratio", "decimal"),
            ],
            rows,
            is_searchable=True,
        ),
        legend=[*legend, *([("all", "two seeds of one recipe (upright line)")] if beside_seeds else [])],
        query=partition.standalone(sql),
    )


def _distance_chart(rows: list[Row], kinds: list[str], has_seeds: bool) -> alt.LayerChart | alt.FacetChart:
    points = [
        {
            "label": _statistic(row),
            "kind": row["pair_kind"],
            "words": wording.PAIR_LABELS[row["pair_kind"]],
            "other": row["other_series_id"],
            "tau": row["other_tau_id"],
            "distance": charts.rounded(row["distance"]),
            "seeds": charts.rounded(row["seed_distance"]),
            "checkpoints": row["checkpoint_count"],
        }
        for row in rows
    ]
    statistics, shown = list(wording.STATISTIC_LABELS), ["all", *wording.KIND_NOUNS]
    ordered = sorted(rows, key=lambda row: (statistics.index(row["statistic"]), shown.index(row["component_kind"])))
    labels = list(dict.fromkeys(_statistic(row) for row in ordered))
    scale = alt.Scale(type="sqrt", zero=True, nice=True)
    base = charts.chart_of(points).encode(
        y=alt.Y("label:N", title=None, sort=labels, axis=alt.Axis(labelLimit=190, grid=True, ticks=False)),
        tooltip=[
            alt.Tooltip("label:N", title="statistic"),
            alt.Tooltip("other:N", title="beside"),
            alt.Tooltip("tau:N", title="τ"),
            alt.Tooltip("words:N", title="to this series"),
            alt.Tooltip("distance:Q", format=".3f"),
            alt.Tooltip("seeds:Q", title="two seeds", format=".3f"),
            alt.Tooltip("checkpoints:Q", title="matched checkpoints"),
        ],
    )
    axis = alt.Axis(format=".2~g", tickCount=5)
    seeds = base.transform_filter("isValid(datum.seeds)").mark_tick(
        thickness=3, size=16, color=charts.CSS_COLOURS["all"]
    )
    layers = [seeds.encode(x=alt.X("seeds:Q", scale=scale, axis=axis))] if has_seeds else []
    dots = base.mark_point(size=60, opacity=0.85).encode(
        x=alt.X("distance:Q", title="difference (square-root scale)", scale=scale, axis=axis),
        color=alt.Color(
            "kind:N",
            legend=None,
            scale=alt.Scale(domain=kinds, range=[charts.CSS_COLOURS[_PAIR_MARKS[kind][0]] for kind in kinds]),
        ),
        shape=alt.Shape(
            "kind:N", legend=None, scale=alt.Scale(domain=kinds, range=[_PAIR_MARKS[kind][1] for kind in kinds])
        ),
    )
    chart = alt.layer(*layers, dots)
    return chart.properties(width="container", height=22 * len(labels))


def _statistic(row: Row) -> str:
    """`turnover, heads`."""
    kind = row["component_kind"]
    label = wording.STATISTIC_LABELS[row["statistic"]]
    return label if kind == "all" else f"{label}, {wording.KIND_NOUNS[kind][1]}"


def _distance_caption(rows: list[Row], beside_seeds: list[Row]) -> str:
    if beside_seeds:
        furthest = max(beside_seeds, key=lambda row: row["ratio"] or 0)
        times = f", {furthest['ratio']:.1f} times as far" if furthest["ratio"] else ""
        return (
            f"The furthest beside the seeds: {_statistic(furthest)}, {wording.decimal(furthest['distance'])} from"
            f" {furthest['other_series_id']}, where two seeds are {wording.decimal(furthest['seed_distance'])} apart"
            f" (mean of {wording.count(furthest['seed_pair_count'], 'pair')}){times}."
        )
    nearest, furthest = (pick(rows, key=lambda row: row["distance"]) for pick in (min, max))
    no_recipes = "" if any(row["pair_kind"] == "other_recipe" for row in rows) else " No other recipe stands beside it."
    return (
        f"From {_statistic(nearest)}, {wording.decimal(nearest['distance'])} from {nearest['other_series_id']}, to"
        f" {_statistic(furthest)}, {wording.decimal(furthest['distance'])} from {furthest['other_series_id']}."
        + no_recipes
    )


def seed_overlaps(partition: Partition, axis: charts.TrainingAxis) -> list[Figure]:
    """Which components hold a role in two seeds of this recipe; nothing where the release holds no other seed."""
    if not partition.has_mart("fct_recipe_overlaps"):
        return []
    sql = """select dense_rank() over (order by other_series_id) - 1 as seed, other_series_id, checkpoint_index,
            checkpoint_name, component_kind, role, member_count, other_member_count, iou, differing_count,
            component_count, differing_share
        from fct_recipe_overlaps join checkpoints using (checkpoint_id)
        order by seed, component_kind desc,
            list_position(['all', 'general', 'entity', 'relation_answer', 'fact_answer'], role), checkpoint_index"""
    rows = partition.rows(sql)
    if not rows:
        return []
    names = {row["seed"]: row["other_series_id"] for row in rows}
    control = Control(_SEED, "Other seed", [(str(seed), name) for seed, name in names.items()], "0")
    points = [
        {
            "seed": row["seed"], "checkpoint_index": row["checkpoint_index"], "role": row["role"],
            "panel": wording.KIND_NOUNS[row["component_kind"]][1],
            "panel_index": list(wording.KIND_NOUNS).index(row["component_kind"]),
            "iou": charts.rounded(row["iou"]), "members": row["member_count"], "others": row["other_member_count"],
        }
        for row in rows
    ]  # fmt: skip
    has_overlap = any(row["iou"] is not None for row in rows)
    caption = _overlap_caption(partition, rows, names)
    return [
        Figure(
            "seed-overlaps",
            "Whether two seeds have the same components in a role",
            "Intersection over union of the components that hold the role in this series and in the other seed, at the"
            " same place in training. Heads of a layer have no order: where seeds begin with other weights, head 3 of"
            " one is not head 3 of the other, and no more need be shared than by random heads of the same layers.",
            caption,
            source_line(partition),
            charts.specification(_overlap_chart(axis, points), caption, [charts.bound(_SEED, "0")])
            if has_overlap
            else None,
            Table(
                "compare-seed-overlaps",
                [
                    Column("other_series_id", "Other seed"),
                    Column("checkpoint_name", "Checkpoint"),
                    *place_columns(partition),
                    Column("component_kind", "Kind", "kind"),
                    Column("role", "Role", "role"),
                    Column("member_count", "Components", "count"),
                    Column("other_member_count", "in the other", "count"),
                    Column("iou", "IoU", "decimal"),
                    Column("differing_share", "Other primary role", "percent"),
                ],
                partition.placed(rows),
                is_searchable=True,
            ),
            legend=[("all", "any role"), *((role, wording.ROLE_LABELS[role]) for role in charts.ROLES)],
            controls=[control],
            empty=None if has_overlap else "No component holds a role in either seed: the overlap is n/a throughout.",
            query=partition.standalone(sql),
        )
    ]


def _overlap_chart(axis: charts.TrainingAxis, points: list[Row]) -> alt.FacetChart:
    base = axis.base(points).transform_filter(f"datum.seed == toNumber({_SEED})")
    panel = alt.Chart().encode(
        x=axis.x(),
        y=alt.Y("iou:Q", title="intersection over union", scale=alt.Scale(domain=[0, 1])),
        color=alt.Color(
            "role:N",
            legend=None,
            scale=alt.Scale(domain=list(_ROLES), range=[charts.CSS_COLOURS[role] for role in _ROLES]),
        ),
        tooltip=[
            alt.Tooltip("checkpoint:N"),
            alt.Tooltip("role:N"),
            alt.Tooltip("iou:Q", title="IoU", format=".3f"),
            alt.Tooltip("members:Q", title="components here"),
            alt.Tooltip("others:Q", title="in the other"),
        ],
    )
    shape = alt.Shape(
        "role:N",
        legend=None,
        scale=alt.Scale(domain=list(_ROLES), range=["circle", "square", "diamond", "triangle-up", "triangle-down"]),
    )
    layers = [
        panel.mark_line(strokeWidth=1.5).encode(detail="line:N"),
        panel.mark_point(size=34, opacity=1).encode(shape=shape),
        *axis.boundary_layers(),
    ]
    chart = charts.small_multiples(base, layers, height=190)
    chart.spec.width = 400
    return chart


def _overlap_caption(partition: Partition, rows: list[Row], names: dict[int, str]) -> str:
    """Any role, at the last checkpoint that each seed has too."""
    texts = []
    for seed, name in list(names.items())[:_NAMED_LIMIT]:
        held = [row for row in rows if row["seed"] == seed and row["role"] == "all"]
        last = max(row["checkpoint_index"] for row in held)
        parts = [
            f"{wording.KIND_NOUNS[row['component_kind']][1]} {wording.decimal(row['iou'])}"
            for row in held
            if row["checkpoint_index"] == last
        ]
        at = partition.label_at(last)
        texts.append(f"with {name} at {at}, {wording.listing(parts)}")
    return f"IoU of the components with any role: {'; '.join(texts)}."
