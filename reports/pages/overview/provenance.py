"""What was measured, with what, from what, and how to cite it: the terms of the overview, with their SQL."""

import json
from collections.abc import Sequence

from markupsafe import Markup

from timecourse.reports import wording
from timecourse.reports.blocks import Prose, Terms
from timecourse.reports.partition import Partition


def measured(partition: Partition) -> Terms:
    """What was measured: term, text, and the query that gives the numbers in it."""
    series, setting = partition.series, partition.setting
    facts_sql = """select count(*) as relation_count, count(distinct relation_group) as group_count,
        sum(fact_count)::bigint as fact_count, sum(prompt_count)::bigint as prompt_count
    from dim_relations"""
    facts = partition.row(facts_sql)
    span_sql = """select count(*) as checkpoint_count, min_by(checkpoint_name, checkpoint_index) as first_checkpoint,
        max_by(checkpoint_name, checkpoint_index) as last_checkpoint
    from dim_checkpoints"""
    span = partition.row(span_sql)
    names = dict.fromkeys([span["first_checkpoint"], span["last_checkpoint"]])
    tokens_sql = "select max(tokens) as tokens, count(tokens) as checkpoint_count\nfrom dim_checkpoints"
    tokens = partition.row(tokens_sql)
    series_sql = """select series_id, family, topology, parameter_count, layer_count, head_count, hidden_size,
        vocabulary_size
    from dim_series"""
    setting_sql = "select setting_id, tau_id, tau, theta, norm, dtype\nfrom dim_settings"
    layers = wording.count(series["layer_count"], "layer")
    items = [
        ("Series", partition.series_id, series_sql),
        (
            "Model",
            f"{series['family']}, {series['topology'].replace('_', ' ')};"
            f" {wording.count(series['parameter_count'], 'parameter')}; {layers} of"
            f" {wording.count(series['head_count'], 'head')} and one FFN;"
            f" width {series['hidden_size']:,}; vocabulary {series['vocabulary_size']:,}",
            series_sql,
        ),
        ("Checkpoints", f"{wording.count(span['checkpoint_count'], 'checkpoint')}: {' to '.join(names)}", span_sql),
        *_offered(partition),
        (
            "Training tokens",
            f"up to {tokens['tokens']:,} (known for {wording.count(tokens['checkpoint_count'], 'checkpoint')})"
            if tokens["tokens"] is not None
            else wording.NOT_AVAILABLE,
            tokens_sql,
        ),
        (
            "Facts",
            f"{wording.count(facts['fact_count'], 'fact')} of"
            f" {wording.count(facts['relation_count'], 'relation')} in"
            f" {wording.count(facts['group_count'], 'group')}; {wording.count(facts['prompt_count'], 'prompt')}"
            " per checkpoint",
            facts_sql,
        ),
        ("Threshold τ", f"{partition.tau_words}: a part of a sum counts when its contribution is larger", setting_sql),
        ("Threshold θ", f"{setting['theta']:g}: a role is held when the activity rate is larger", setting_sql),
        ("Norm and precision", f"{setting['norm']} proximity, weights in {setting['dtype']}", setting_sql),
    ]
    return _terms(partition, "What was measured", items)


def _terms(partition: Partition, heading: str, items: Sequence[tuple[str, str, str]]) -> Terms:
    """Terms with their text and query; a query that several share stands beside the first of them."""
    queries: list[str] = []
    for _, _, sql in items:
        query = partition.standalone(sql) if sql else ""
        queries.append("" if query in queries else query)
    return Terms(heading, [(term, text) for term, text, _ in items], queries)


def _offered(partition: Partition) -> list[tuple[str, str, str]]:
    """How many names the series' sources offer, and what became of them; nothing where none was declared."""
    counts = ", ".join(f"count(*) filter (where status = '{status}') as {status}" for status in wording.STATUS_LABELS)
    sql = f"""select count(*) as declared, count(*) filter (where status <> 'gone') as offered,
        {counts}
    from dim_revisions"""
    row = partition.row(sql)
    if not row["declared"]:
        return []
    others = [f"{row[status]:,} {label}" for status, label in wording.STATUS_LABELS.items()
              if status != "used" and row[status]]  # fmt: skip
    return [
        (
            "Names offered",
            f"{wording.count(row['offered'], 'name')}, of which {row['used']:,}"
            f" {'is' if row['used'] == 1 else 'are'} used"
            + (f"; {wording.listing(others)} (listed under Data)" if others else ""),
            sql,
        )
    ]


def comparisons(partition: Partition) -> list[Terms]:
    """What the release's other reports are to this one; nothing where there is no other."""
    sql = """select other_series_id, other_setting_id, other_tau_id, is_comparable, reason
    from dim_series_pairs order by other_series_id, other_setting_id, other_tau_id"""
    items = [(row["name"], row["sentence"], sql) for row in partition.comparisons]
    heading = "What else this release holds, and whether it may be compared"
    return [_terms(partition, heading, items)] if items else []


def reference(partition: Partition) -> Prose:
    return Prose(
        [f"Overlaps are measured against a reference checkpoint. {partition.reference_words}."],
        "The reference checkpoint",
    )


def versions(partition: Partition) -> Terms:
    sql = """select setting_id, dim_settings.facts_sha256, checkpoint_name, weights_sha256, tokenizer_sha256,
        extractor_version, versions
    from dim_checkpoints join dim_settings using (series_id, setting_id)
    where is_reference
    order by checkpoint_index desc limit 1"""
    row = partition.row(sql)
    return _terms(
        partition,
        "Versions and hashes",
        [
            ("Release", partition.release, ""),
            ("Setting", row["setting_id"], sql),
            ("Facts, sha256", row["facts_sha256"], sql),
            ("Weights of the reference, sha256", row["weights_sha256"], sql),
            ("Tokenizer of the reference, sha256", row["tokenizer_sha256"], sql),
            ("Extractor version", str(row["extractor_version"]), sql),
            ("Libraries", _libraries(row["versions"]), sql),
        ],
    )


def _libraries(text: str | None) -> str:
    """Names and versions from their JSON; the text itself where it is something else."""
    try:
        versions = json.loads(text or "{}")
    except ValueError:
        return str(text)
    if not isinstance(versions, dict):
        return str(text)
    return ", ".join(f"{name} {version}" for name, version in versions.items()) or wording.NOT_AVAILABLE


def citation(partition: Partition) -> Prose:
    setting = partition.setting
    return Prose(
        [
            Markup("<strong>timecourse report on {}, release {}</strong> (setting {}, τ = {}, θ = {}; facts sha256 {})."
                   " Numbers of other releases may differ: name this one with every number that you take.").format(
                partition.series_id, partition.release, partition.setting_id, partition.tau_words,
                f"{setting['theta']:g}", wording.short_hash(setting["facts_sha256"]),
            ),
            "Roles, stability and transitions follow: Ahmad Dawar Hakimi, Ali Modarressi, Philipp Wicke, Hinrich"
            " Schütze. Time Course MechInterp: Analyzing the Evolution of Components and Knowledge in Large"
            " Language Models. Findings of the Association for Computational Linguistics: ACL 2025.",
            "The attribution follows: Javier Ferrando, Elena Voita. Information Flow Routes: Automatically Interpreting"
            " Language Models at Scale. EMNLP 2024.",
            "Please cite both papers, and the report with its release.",
        ],
        "How to cite",
    )  # fmt: skip
