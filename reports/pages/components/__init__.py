"""Every component: a layer × head map of primary roles, each component's history, and what it is most active on."""

from timecourse.reports import wording
from timecourse.reports.blocks import Block, Column, ComponentMap, Figure, Page, Prose, Table, source_line
from timecourse.reports.pages.components.map_data import activity_sql, component_data, component_rows
from timecourse.reports.partition import Partition, Row

SLUG, TITLE = "components", "Components"

_MARTS = (
    "fct_component_histories", "fct_component_activities", "fct_component_examples", "fct_role_memberships",
    "fct_role_specificities",
)  # fmt: skip
_TABLE_ROW_LIMIT = 1500
_LONG_TABLE_ROW_LIMIT = 200
_EXAMPLES = """select component_id, component_kind, checkpoint_id, example_rank, relation_id, subject, object,
            sentence_before, token, sentence_after, score, prompt_id, position, fact_id
        from fct_component_examples join dim_components using (component_id, component_kind)
        order by layer, component_kind desc, head, example_rank"""


def build(partition: Partition) -> Page:
    """The component map of one partition."""
    lead = "What every attention head and FFN does at every checkpoint. Choose a checkpoint and a component."
    if missing := [mart for mart in _MARTS if not partition.has_mart(mart)]:
        return Page(SLUG, TITLE, lead, [Prose([f"This release does not hold {wording.listing(missing)}."])])
    components = component_rows(partition)
    if not components:
        return Page(SLUG, TITLE, lead, [Prose(["This release holds no component histories."])])
    last: int = components[0]["checkpoints"][-1]
    activities, examples = partition.rows(activity_sql(last)), partition.rows(_EXAMPLES)
    blocks: list[Block] = [
        _map(partition, components, component_data(partition, components, activities, examples)),
        _history_table(partition, last),
        _activity_table(partition, last, activities),
        _example_table(partition, last, examples),
    ]
    return Page(SLUG, TITLE, lead, blocks, scripts=["components.js"])


def _map(partition: Partition, components: list[Row], data: Row) -> ComponentMap:
    cells = {(row["layer"], row["head"]): (number, row["primary_role"][-1]) for number, row in enumerate(components)}
    return ComponentMap(
        data,
        sorted({layer for layer, _ in cells}),
        sorted({head for _, head in cells if head is not None}),
        cells,
        data["checkpoints"],
        source_line(partition),
    )


def _history_table(partition: Partition, last: int) -> Figure:
    sql = f"""with over_training as (
            select component_id, string_agg(left(primary_role, 1), '' order by checkpoint_index) as role_letters,
                string_agg(left(robustness, 1), '' order by checkpoint_index) as robustness_letters,
                bool_or(has_changed) as has_ever_changed
            from fct_component_histories join checkpoints using (checkpoint_id) group by component_id
        ),
        specific as (
            select checkpoint_id, component_id,
                count_if(role = 'relation_answer') as specific_relation_count,
                count_if(role = 'fact_answer') as specific_fact_count
            from fct_role_memberships where is_specific group by all
        )
        select component_id, component_kind, layer, head, role_letters, robustness_letters, has_ever_changed,
            primary_role, confidence, robustness, since.checkpoint_name as role_since, role_since_step, change_count,
            rate_all, rate_entity, rate_relation_max, relation_max_id, relation_answer_count,
            coalesce(specific_relation_count, 0) as specific_relation_count, fact_answer_count,
            coalesce(specific_fact_count, 0) as specific_fact_count
        from fct_component_histories
        left join specific using (checkpoint_id, component_id)
        join over_training using (component_id)
        join checkpoints as later using (checkpoint_id)
        join checkpoints as since on since.checkpoint_id = role_since_checkpoint_id
        where later.checkpoint_index = {last}
        order by layer, component_kind desc, head"""
    rows = partition.rows(sql)
    changed = sum(row["has_ever_changed"] for row in rows)
    return Figure(
        "histories",
        "All components: history, and state at the last measured checkpoint",
        "History: one letter per checkpoint in order (g general, e entity, r relation answer, f fact answer, i"
        " inactive). Changes are counted from checkpoint to previous checkpoint, back from the last. Confidence: share"
        " of the draws of the facts in which the component has the same primary role. Core: the same role whatever θ"
        " and τ of the grid; noise: a confidence below 50 %; contingent: neither. Specific: active there more often"
        " than elsewhere (permutation test, q ≤ 0.05).",
        f"{changed:,} of {wording.count(len(rows), 'component')} changed their primary role at least once.",
        source_line(partition),
        None,
        Table(
            "components-histories",
            [
                Column("component_id", "Component"),
                Column("component_kind", "Kind", "kind"),
                Column("role_letters", "History", "code"),
                Column("primary_role", "Last primary role", "role"),
                Column("confidence", "Confidence", "percent"),
                Column("robustness", "Robustness"),
                Column("role_since", "Held since"),
                Column("change_count", "Changes", "count"),
                Column("rate_all", "Rate, all tokens", "decimal"),
                Column("rate_entity", "Rate, entity", "decimal"),
                Column("rate_relation_max", "Rate, highest relation", "decimal"),
                Column("relation_max_id", "Highest relation"),
                Column("relation_answer_count", "Relations held", "count"),
                Column("specific_relation_count", "of them specific", "count"),
                Column("fact_answer_count", "Facts held", "count"),
                Column("specific_fact_count", "of them specific", "count"),
            ],
            rows,
            is_searchable=True,
            row_limit=_TABLE_ROW_LIMIT,
        ),
        query=partition.standalone(sql),
    )


def _activity_table(partition: Partition, last: int, rows: list[Row]) -> Figure:
    active = sum(row["rate"] > 0 for row in rows)
    specific = sum(bool(row["is_specific"]) for row in rows)
    return Figure(
        "activities",
        "How active every component is on each relation's answers",
        "Share of the positions that predict a relation's answers at which the component is active, with its Wilson"
        f" 95 % interval (n = facts), at {partition.label_at(last)}. Specific: active for more of the relation's facts"
        " than of others', by an exact permutation test (q ≤ 0.05); n/a where the component is never active.",
        f"Active in {active:,} of {wording.count(len(rows), 'pair')} of component and relation, specifically in"
        f" {specific:,}."
        if rows
        else "",
        source_line(partition),
        None,
        Table(
            "components-activities",
            [
                Column("component_id", "Component"),
                Column("component_kind", "Kind", "kind"),
                Column("relation_id", "Relation"),
                Column("rate", "Rate", "decimal"),
                Column("rate_low", "low", "decimal"),
                Column("rate_high", "high", "decimal"),
                Column("fact_count", "Facts", "count"),
                Column("holds_relation_answer", "Relation answer", "flag"),
                Column("is_specific", "Specific", "flag"),
                Column("q_value", "q", "decimal"),
            ],
            rows,
            row_limit=_LONG_TABLE_ROW_LIMIT,
        ),
        query=partition.standalone(activity_sql(last)),
    )


def _example_table(partition: Partition, last: int, examples: list[Row]) -> Figure:
    components = len({row["component_id"] for row in examples})
    return Figure(
        "examples",
        "What components are most active on",
        "Up to five prompts per component with the token at which its score is highest, at"
        f" {partition.label_at(last)}.",
        f"{wording.count(len(examples), 'example')} of {wording.count(components, 'component')}.",
        source_line(partition),
        None,
        Table(
            "components-examples",
            [
                Column("component_id", "Component"),
                Column("example_rank", "Rank", "count"),
                Column("sentence_before", "Before"),
                Column("token", "Token", "code"),
                Column("sentence_after", "After"),
                Column("relation_id", "Relation"),
                Column("score", "Score", "decimal"),
            ],
            examples,
            row_limit=_LONG_TABLE_ROW_LIMIT,
        ),
        query=partition.standalone(_EXAMPLES),
    )
