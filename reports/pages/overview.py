"""The first page: what was measured, the headline numbers with their n, how to read them, and what they come from."""

from markupsafe import Markup

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Cards, Column, Figure, Page, Prose, Table, Terms, place_columns, source_line
from timecourse.reports.partition import Partition, Row

SLUG, TITLE = "index", "Overview"

_ROLE_DEFINITIONS = (
    ("general", "active on more than a share θ of all tokens"),
    ("entity", "active on more than θ of the subject tokens and the positions that predict the answer; not general"),
    ("relation answer", "active on more than θ of a relation's answer-predicting positions; not general, not entity"),
    ("fact answer", "active on more than θ of a single fact's answer-predicting positions; none of the above for it"),
    ("inactive", "none of these"),
)


def build(partition: Partition) -> Page:
    """The overview of one partition."""
    axis = charts.training_axis(partition.checkpoints)
    source = source_line(partition)
    return Page(
        SLUG,
        TITLE,
        f"Which attention heads and feed-forward networks (FFNs) of {partition.series_id} carry factual knowledge"
        " at each checkpoint of its training, and how that changes.",
        [
            _headlines(partition),
            _accuracy(partition, axis),
            _roles(partition, axis, source),
            _role_counts(partition, source),
            _measured(partition),
            *_comparisons(partition),
            Terms("How to read the roles", _ROLE_DEFINITIONS),
            Prose(
                [
                    "A component is active for a token when a part of what it writes into the residual stream"
                    " survives τ on the route to that token. A component can hold several relation-answer and"
                    " fact-answer roles; its primary role is the first held in the order above, so that primary"
                    " roles are exclusive.",
                    "Relation answer and fact answer ask whether a component passes θ for any of many relations or"
                    " facts: their counts grow by chance alone with the number of relations and facts. Read them"
                    " as descriptions, not as evidence of specialisation.",
                ]
            ),
            _reference(partition),
            _versions(partition),
            _citation(),
        ],
        axis,
    )


def _headlines(partition: Partition) -> Cards:
    first, last = partition.checkpoints[0], partition.checkpoints[-1]
    items = []
    accuracies = {
        row["checkpoint_id"]: row for row in partition.rows("from fct_relation_accuracies where scope_kind = 'all'")
    }
    for metric, label in (
        ("top1", "First answer token ranked first"),
        ("all_tokens", "All answer tokens ranked first"),
    ):
        start, end = accuracies.get(first["checkpoint_id"]), accuracies.get(last["checkpoint_id"])
        if start is None or end is None:
            items.append((label, wording.NOT_AVAILABLE, "No accuracies in this release."))
            continue
        there = f"{partition.labels[last['checkpoint_id']]}: {_accuracy_words(end, metric)}"
        here = f"{partition.labels[first['checkpoint_id']]}: {_accuracy_words(start, metric)}"
        values = [wording.percent(row[f"{metric}_accuracy"]) for row in (start, end)]
        items.append(
            (
                label,
                values[1] if first is last else " → ".join(values),
                f"{there}." if first is last else f"{here}; {there}.",
            )
        )
    for kind in ("head", "ffn"):
        items.append((f"{wording.KIND_NOUNS[kind][1]} that changed role".capitalize().replace("Ffn", "FFN"),
                      *_changed(partition, kind)))  # fmt: skip
    errors = [row["completeness_error_max"] for row in partition.checkpoints]
    items.append(
        (
            "Completeness error, worst",
            wording.scientific(max(errors)),
            f"Largest relative difference between the sum of the parts and the residual stream, over "
            f"{wording.count(len(errors), 'checkpoint')}, every layer and prompt.",
        )
    )
    items.append(("Checks", *_checks(partition)))
    return Cards("Headline numbers", items)


def _accuracy_words(row: Row, metric: str) -> str:
    value = wording.percent(row[f"{metric}_accuracy"])
    band = wording.interval(row[f"{metric}_low"], row[f"{metric}_high"])
    return f"{value} of {wording.count(row['fact_count'], 'fact')} ({band})"


def _changed(partition: Partition, kind: str) -> tuple[str, str]:
    row = partition.row(
        f"""select count(*) as total, count(*) filter (where has_changed) as changed
        from (
            select component_id, bool_or(has_changed) as has_changed
            from fct_component_histories where component_kind = '{kind}' group by component_id
        )"""
    )
    if len(partition.checkpoints) == 1:
        return wording.NOT_AVAILABLE, "One checkpoint: there is nothing to compare it with."
    if not row["total"]:
        return wording.NOT_AVAILABLE, "No components of this kind."
    return (
        wording.percent(row["changed"] / row["total"]),
        f"{row['changed']:,} of {wording.kind_count(row['total'], kind)} changed their primary role at least once.",
    )


def _checks(partition: Partition) -> tuple[str, str]:
    if not partition.has_mart("fct_check_results"):
        return wording.NOT_AVAILABLE, "This release holds no check results."
    counts = {
        row["result"]: row["total"]
        for row in partition.rows("select result, count(*) as total from fct_check_results group by result")
    }
    passed, warned, failed = (counts.get(result, 0) for result in ("pass", "warn", "fail"))
    return (
        f"{passed:,} of {passed + warned + failed:,} passed",
        f"{wording.count(warned, 'warning')}, {wording.count(failed, 'failure')}; each is listed under Data quality.",
    )


def _accuracy(partition: Partition, axis: charts.TrainingAxis) -> Figure:
    rows = partition.rows(
        """select checkpoint_index, checkpoint_name, fact_count, prompt_count,
            top1_accuracy, top1_low, top1_high, top10_accuracy, top10_low, top10_high,
            all_tokens_accuracy, all_tokens_low, all_tokens_high
        from fct_relation_accuracies join checkpoints using (checkpoint_id)
        where scope_kind = 'all' order by checkpoint_index"""
    )
    points = [
        {
            "checkpoint_index": row["checkpoint_index"],
            "series": metric,
            "value": charts.rounded(row[f"{metric}_accuracy"]),
            "low": charts.rounded(row[f"{metric}_low"]),
            "high": charts.rounded(row[f"{metric}_high"]),
        }
        for metric in charts.METRIC_LABELS
        for row in rows
    ]
    caption = (
        f"At {partition.labels[partition.checkpoints[-1]['checkpoint_id']]}: "
        + wording.listing(
            [f"{label} {wording.percent(rows[-1][f'{key}_accuracy'])}" for key, label in charts.METRIC_LABELS.items()]
        )
        + f", over {wording.count(rows[-1]['fact_count'], 'fact')}. Bands are 95 % Wilson intervals."
        if rows
        else ""
    )
    chart = charts.line_chart(
        axis, points, value_title="share of facts", colours=charts.METRIC_COLOURS, series_title="measure",
        value_format=".0%", domain=(0, 1), has_band=True,
    )  # fmt: skip
    return Figure(
        "accuracy",
        "Facts the model knows, over training",
        "Share of facts whose first answer token is ranked first (top-1) or among the first ten (top-10), and"
        " whose answer tokens are all ranked first; mean over facts of the mean over templates.",
        caption,
        source_line(partition, uses_tau=False),
        charts.specification(chart, caption) if rows else None,
        Table(
            "overview-accuracy",
            [
                Column("checkpoint_name", "Checkpoint"),
                *place_columns(partition),
                Column("fact_count", "Facts", "count"),
                *(
                    Column(f"{metric}_{part}", f"{label}{suffix}", "percent")
                    for metric, label in charts.METRIC_LABELS.items()
                    for part, suffix in (("accuracy", ""), ("low", ", low"), ("high", ", high"))
                ),
            ],
            partition.placed(rows),
        ),
        legend=list(charts.METRIC_LABELS.items()),
        empty=None if rows else "No accuracies in this release.",
        is_half=True,
    )


def role_count_rows(partition: Partition) -> list[Row]:
    """Components by primary role: one row per checkpoint × kind × role (0 where none holds it)."""
    return partition.rows(
        f"""select checkpoint_index, checkpoint_name, component_kind, role as primary_role,
            count(*) filter (where primary_role = role) as component_count, count(*) as kind_count,
            component_count / kind_count as component_share
        from fct_component_histories join checkpoints using (checkpoint_id)
        cross join (select unnest({list(charts.PRIMARY_ROLES)}) as role, generate_subscripts(
            {list(charts.PRIMARY_ROLES)}, 1) as role_order)
        group by all order by component_kind desc, checkpoint_index, any_value(role_order)"""
    )


def _roles(partition: Partition, axis: charts.TrainingAxis, source: str) -> Figure:
    rows = [row for row in role_count_rows(partition) if row["component_kind"] == "head"]
    points = [
        {"checkpoint_index": row["checkpoint_index"], "series": row["primary_role"], "value": row["component_count"]}
        for row in rows
    ]
    caption = ""
    if rows:
        index = rows[-1]["checkpoint_index"]
        counts = [
            f"{row['component_count']:,} {wording.ROLE_LABELS[row['primary_role']]}"
            for row in rows
            if row["checkpoint_index"] == index
        ]
        caption = (
            f"At {partition.labels[partition.checkpoints[index]['checkpoint_id']]}, of"
            f" {wording.kind_count(rows[-1]['kind_count'], 'head')}: {wording.listing(counts)}."
        )
    chart = charts.line_chart(
        axis, points, value_title="heads", colours=charts.ROLE_COLOURS, series_title="primary role", value_format="d"
    )
    return Figure(
        "roles",
        "Attention heads by primary role, over training",
        "Number of heads whose first held role, in the order of the legend, is this one.",
        caption,
        source,
        charts.specification(chart, caption) if rows else None,
        Table(
            "overview-roles",
            [
                Column("checkpoint_name", "Checkpoint"),
                *place_columns(partition),
                Column("primary_role", "Primary role", "role"),
                Column("component_count", "Heads", "count"),
                Column("kind_count", "of", "count"),
            ],
            partition.placed(rows),
        ),
        legend=list(wording.ROLE_LABELS.items()),
        empty=None if rows else "No component histories in this release.",
        is_half=True,
    )


def _role_counts(partition: Partition, source: str) -> Figure:
    last = len(partition.checkpoints) - 1
    indices = sorted({0, last // 2, last})
    labels = [partition.labels[partition.checkpoints[index]["checkpoint_id"]] for index in indices]
    rows: dict[str, Row] = {role: {"primary_role": role} for role in charts.PRIMARY_ROLES}
    for kind in ("head", "ffn"):
        for index in indices:
            for line in rows.values():
                line[f"{kind}_{index}"] = None
    for row in role_count_rows(partition):
        if row["checkpoint_index"] in indices:
            rows[row["primary_role"]][f"{row['component_kind']}_{row['checkpoint_index']}"] = row["component_count"]
    return Figure(
        "role-counts",
        f"Components by primary role at {wording.listing(labels)}",
        "The first, the middle and the last checkpoint measured."
        if len(indices) == 3
        else "Every checkpoint measured.",
        "",
        source,
        None,
        Table(
            "overview-role-counts",
            [
                Column("primary_role", "Primary role", "role"),
                *(
                    Column(f"{kind}_{index}", f"{noun}, {label}", "count")
                    for kind, noun in (("head", "Heads"), ("ffn", "FFNs"))
                    for index, label in zip(indices, labels, strict=True)
                ),
            ],
            list(rows.values()),
        ),
        is_table_open=True,
    )


def _measured(partition: Partition) -> Terms:
    series, setting, checkpoints = partition.series, partition.setting, partition.checkpoints
    facts = partition.row(
        """select count(*) as relation_count, count(distinct relation_group) as group_count,
            sum(fact_count)::bigint as fact_count, sum(prompt_count)::bigint as prompt_count from dim_relations"""
    )
    names = [checkpoint["checkpoint_name"] for checkpoint in checkpoints]
    span = f": {names[0]}" if len(names) == 1 else f": {names[0]} to {names[-1]}"
    tokens = [checkpoint["tokens"] for checkpoint in checkpoints if checkpoint["tokens"] is not None]
    layers = wording.count(series["layer_count"], "layer")
    return Terms(
        "What was measured",
        [
            ("Series", partition.series_id),
            (
                "Model",
                f"{series['family']}, {series['topology'].replace('_', ' ')};"
                f" {wording.count(series['parameter_count'], 'parameter')}; {layers} of"
                f" {wording.count(series['head_count'], 'head')} and one FFN;"
                f" width {series['hidden_size']:,}; vocabulary {series['vocabulary_size']:,}",
            ),
            ("Checkpoints", wording.count(len(checkpoints), "checkpoint") + span),
            *_offered(partition),
            (
                "Training tokens",
                f"up to {max(tokens):,} (known for {wording.count(len(tokens), 'checkpoint')})" if tokens else
                wording.NOT_AVAILABLE,
            ),
            (
                "Facts",
                f"{wording.count(facts['fact_count'], 'fact')} of"
                f" {wording.count(facts['relation_count'], 'relation')} in"
                f" {wording.count(facts['group_count'], 'group')}; {wording.count(facts['prompt_count'], 'prompt')}"
                " per checkpoint",
            ),
            ("Threshold τ", f"{partition.tau_words}: a part of a sum counts when its contribution is larger"),
            ("Threshold θ", f"{setting['theta']:g}: a role is held when the activity rate is larger"),
            ("Norm and precision", f"{setting['norm']} proximity, weights in {setting['dtype']}"),
        ],
    )  # fmt: skip


def _offered(partition: Partition) -> list[tuple[str, str]]:
    """How many names the series' sources offer, and what became of them; nothing where none was declared."""
    counts = {
        row["status"]: row["total"]
        for row in partition.rows("select status, count(*) as total from dim_revisions group by status")
    }
    if not counts:
        return []
    offered = sum(total for status, total in counts.items() if status != "gone")
    others = [f"{counts[status]:,} {label}" for status, label in wording.STATUS_LABELS.items()
              if status != "used" and status in counts]  # fmt: skip
    return [
        (
            "Names offered",
            f"{wording.count(offered, 'name')}, of which {counts.get('used', 0):,}"
            f" {'is' if counts.get('used', 0) == 1 else 'are'} used"
            + (f"; {wording.listing(others)} (listed under Data quality)" if others else ""),
        )
    ]


def _comparisons(partition: Partition) -> list[Terms]:
    """What the release's other reports are to this one; nothing where there is no other."""
    items = [(row["name"], row["sentence"]) for row in partition.comparisons]
    return [Terms("What else this release holds, and whether it may be compared", items)] if items else []


def _reference(partition: Partition) -> Prose:
    return Prose(
        [f"Overlaps are measured against a reference checkpoint. {partition.reference_words}."],
        "The reference checkpoint",
    )


def _versions(partition: Partition) -> Terms:
    checkpoint = partition.reference
    return Terms(
        "Versions and hashes",
        [
            ("Release", partition.release),
            ("Setting", partition.setting_id),
            ("Facts, sha256", partition.setting["facts_sha256"]),
            ("Weights of the reference, sha256", checkpoint["weights_sha256"]),
            ("Tokenizer of the reference, sha256", checkpoint["tokenizer_sha256"]),
            ("Extractor version", str(checkpoint["extractor_version"])),
            ("Libraries", checkpoint["versions"]),
        ],
    )


def _citation() -> Prose:
    return Prose(
        [
            "Roles, stability and transitions follow: Ahmad Dawar Hakimi, Ali Modarressi, Philipp Wicke, Hinrich"
            " Schütze. Time Course MechInterp: Analyzing the Evolution of Components and Knowledge in Large"
            " Language Models. Findings of the Association for Computational Linguistics: ACL 2025.",
            "The attribution follows: Javier Ferrando, Elena Voita. Information Flow Routes: Automatically Interpreting"
            " Language Models at Scale. EMNLP 2024.",
            Markup("Please cite both with the release named above."),
        ],
        "How to cite",
    )
