"""The headline numbers of the overview, each with the query whose one row holds what its card says."""

from markupsafe import Markup

from timecourse.reports import wording
from timecourse.reports.blocks import Cards
from timecourse.reports.partition import Partition

_Card = tuple[tuple[str, str, str], str]
"""A card (label, number, explanation) and its query; empty where the release holds nothing to ask."""


def headlines(partition: Partition) -> Cards:
    """The headline numbers, each with the query whose one row holds them."""
    found = [
        _known(partition, "top1", "First answer token ranked first"),
        _known(partition, "all_tokens", "All answer tokens ranked first"),
        _changed(partition, "head"),
        _changed(partition, "ffn"),
        _judged(partition),
        _quality(partition),
    ]
    return Cards("Headline numbers", [item for item, _ in found], [query for _, query in found])


def _known(partition: Partition, metric: str, label: str) -> _Card:
    sql = f"""select first_checkpoint, first_accuracy, first_low, first_high, first_facts,
        last_checkpoint, last_accuracy, last_low, last_high, last_facts
    from (
        select checkpoint_name as first_checkpoint, {metric}_accuracy as first_accuracy, {metric}_low as first_low,
            {metric}_high as first_high, fact_count as first_facts
        from fct_relation_accuracies join checkpoints using (checkpoint_id)
        where scope_kind = 'all' and checkpoint_index = (select min(checkpoint_index) from checkpoints)
    ), (
        select checkpoint_name as last_checkpoint, {metric}_accuracy as last_accuracy, {metric}_low as last_low,
            {metric}_high as last_high, fact_count as last_facts
        from fct_relation_accuracies join checkpoints using (checkpoint_id)
        where scope_kind = 'all' and checkpoint_index = (select max(checkpoint_index) from checkpoints)
    )"""
    rows = partition.rows(sql)
    if not rows:
        return (label, wording.NOT_AVAILABLE, "No accuracies in this release."), ""
    (row,) = rows
    first, last = (partition.label_at(index) for index in (0, -1))
    values = [wording.percent(row[f"{end}_accuracy"]) for end in ("first", "last")]
    here, there = (
        f"{name}: {wording.percent(row[f'{end}_accuracy'])} of {wording.count(row[f'{end}_facts'], 'fact')}"
        f" ({wording.interval(row[f'{end}_low'], row[f'{end}_high'])})"
        for name, end in ((first, "first"), (last, "last"))
    )
    if len(partition.checkpoints) == 1:
        return (label, values[1], f"{there}."), partition.standalone(sql)
    return (label, " → ".join(values), f"{here}; {there}."), partition.standalone(sql)


def _changed(partition: Partition, kind: str) -> _Card:
    label = f"{wording.KIND_NOUNS[kind][1]} that changed role"
    label = label[0].upper() + label[1:]
    sql = f"""select count(*) as total_count, count(*) filter (where has_changed) as changed_count,
        changed_count / nullif(total_count, 0) as changed_share
    from (
        select component_id, bool_or(has_changed) as has_changed
        from fct_component_histories where component_kind = '{kind}' group by component_id
    )"""
    row = partition.row(sql)
    query = partition.standalone(sql)
    if len(partition.checkpoints) == 1:
        return (label, wording.NOT_AVAILABLE, "One checkpoint: there is nothing to compare it with."), query
    if not row["total_count"]:
        return (label, wording.NOT_AVAILABLE, "No components of this kind."), query
    return (
        label,
        wording.percent(row["changed_share"]),
        f"{row['changed_count']:,} of {wording.kind_count(row['total_count'], kind)} changed their primary role at"
        " least once.",
    ), query


def _judged(partition: Partition) -> _Card:
    label = "Claims that it supports"
    if not partition.has_mart("fct_claims"):
        return (label, wording.NOT_AVAILABLE, "This release judges no claims."), ""
    counts = ", ".join(
        f"count(distinct claim_number) filter (where verdict = '{verdict}') as {verdict}"
        for verdict in wording.VERDICT_LABELS
    )
    sql = f"select count(distinct claim_number) as claim_count, {counts}\nfrom fct_claims"
    row = partition.row(sql)
    query = partition.standalone(sql)
    if not row["claim_count"]:
        return (label, wording.NOT_AVAILABLE, "This release judges no claims."), query
    others = [
        f"{row[verdict]:,} {words}" for verdict, words in wording.VERDICT_LABELS.items() if verdict != "supported"
    ]
    return (label, f"{row['supported']:,} of {row['claim_count']:,}", f"{wording.listing(others)}; see below."), query


def _quality(partition: Partition) -> _Card:
    """Data quality in one line."""
    errors = "(select max(completeness_error_max) from dim_checkpoints)"
    if not partition.has_mart("fct_check_results"):
        sql = f"select {errors} as completeness_error"
        counted, number = "This release holds no check results", wording.NOT_AVAILABLE
        row = partition.row(sql)
    else:
        sql = f"""select count(*) as check_count, count(*) filter (where result = 'pass') as passed,
            count(*) filter (where result = 'warn') as warned, count(*) filter (where result = 'fail') as failed,
            {errors} as completeness_error
        from fct_check_results"""
        row = partition.row(sql)
        number = f"{row['passed']:,} of {row['check_count']:,}"
        counted = f"{wording.count(row['warned'], 'warning')}, {wording.count(row['failed'], 'failure')}"
    return (
        "Checks passed",
        number,
        Markup('{}; the parts sum to the residual stream within {}. See <a href="data.html">'
               "Data</a>.").format(counted, wording.scientific(row["completeness_error"])),
    ), partition.standalone(sql)  # fmt: skip
