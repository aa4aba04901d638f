"""Every component: a layer × head map of primary roles, each component's history, and what it is most active on."""

from typing import Any

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Column, ComponentMap, Figure, Page, Prose, Table, source_line
from timecourse.reports.page import embed_json
from timecourse.reports.partition import Partition, Row

SLUG, TITLE = "components", "Components"

_DATA_BYTE_LIMIT = 1_700_000
_TABLE_ROW_LIMIT = 1500
_EXAMPLE_ROW_LIMIT = 200
_LETTERS = {role: role[0] for role in charts.PRIMARY_ROLES}


def build(partition: Partition) -> Page:
    """The component map of one partition."""
    histories = partition.rows(
        """select component_id, component_kind, layer, head, current.checkpoint_index, primary_role, change_count,
            since.checkpoint_index as since_index, rate_all, rate_entity, rate_relation_max, relation_max_id
        from fct_component_histories
        join checkpoints as current using (checkpoint_id)
        join checkpoints as since on since.checkpoint_id = role_since_checkpoint_id
        order by layer, component_kind desc, head, current.checkpoint_index"""
    )
    lead = "The primary role of every attention head and FFN at every checkpoint. Choose a checkpoint and a component."
    if not histories:
        return Page(SLUG, TITLE, lead, [Prose(["This release holds no component histories."])])
    examples = partition.rows(
        """select component_id, component_kind, example_rank, relation_id, subject, object, sentence_before, token,
            sentence_after, score, prompt_id, position, fact_id
        from fct_component_examples join dim_components using (component_id, component_kind)
        order by layer, component_kind desc, head, example_rank"""
    )
    return Page(
        SLUG,
        TITLE,
        lead,
        [_map(partition, histories, examples), _history_table(partition), _example_table(partition, examples)],
        scripts=["components.js"],
    )


def _map(partition: Partition, histories: list[Row], examples: list[Row]) -> ComponentMap:
    by_component: dict[str, list[Row]] = {}
    for row in histories:
        by_component.setdefault(row["component_id"], []).append(row)
    cells = {
        (rows[0]["layer"], rows[0]["head"]): (number, rows[-1]["primary_role"])
        for number, rows in enumerate(by_component.values())
    }
    return ComponentMap(
        _fitting_data(partition, by_component, examples),
        sorted({layer for layer, _ in cells}),
        sorted({head for _, head in cells if head is not None}),
        cells,
        list(partition.labels.values()),
        source_line(partition),
    )


def _fitting_data(partition: Partition, histories: dict[str, list[Row]], examples: list[Row]) -> dict[str, Any]:
    """What the map's script reads, with as many examples, and then rates, as keep the page below its limit."""
    for has_rates, example_count in ((True, 5), (True, 3), (True, 1), (False, 3), (False, 1)):
        data = _data(partition, histories, examples, has_rates, example_count)
        if len(embed_json(data).encode()) <= _DATA_BYTE_LIMIT:
            return data
    return _data(partition, histories, examples, False, 0)


def _data(
    partition: Partition, histories: dict[str, list[Row]], examples: list[Row], has_rates: bool, example_count: int
) -> dict[str, Any]:
    relations = sorted({row["relation_max_id"] for rows in histories.values() for row in rows} - {None})
    numbers = {relation: number for number, relation in enumerate(relations)}
    shown: dict[str, list[list[str]]] = {}
    for row in examples:
        if row["example_rank"] <= example_count:
            shown.setdefault(row["component_id"], []).append(
                [row["sentence_before"], row["token"], row["sentence_after"], row["relation_id"], row["subject"],
                 row["object"], wording.decimal(row["score"], 2)]
            )  # fmt: skip
    return {
        "checkpoints": list(partition.labels.values()),
        "reference": partition.labels[partition.reference["checkpoint_id"]],
        "theta": f"{partition.setting['theta']:g}",
        "roles": list(charts.PRIMARY_ROLES),
        "labels": wording.ROLE_LABELS,
        "relations": relations,
        "examplesPerComponent": example_count,
        "components": [
            {
                "name": component,
                "title": _title(rows[0]),
                "roles": "".join(_LETTERS[row["primary_role"]] for row in rows),
                "since": [row["since_index"] for row in rows],
                "changes": [row["change_count"] for row in rows],
                "rates": [
                    [_thousandths(row["rate_all"]), _thousandths(row["rate_entity"]),
                     _thousandths(row["rate_relation_max"]), numbers.get(row["relation_max_id"])]
                    for row in rows
                ] if has_rates else None,
                "examples": shown.get(component, []),
            }
            for component, rows in histories.items()
        ],
    }  # fmt: skip


def _title(row: Row) -> str:
    return (
        f"{row['component_id']}: FFN of layer {row['layer']}"
        if row["component_kind"] == "ffn"
        else f"{row['component_id']}: head {row['head']} of layer {row['layer']}"
    )


def _thousandths(rate: float | None) -> int | None:
    return None if rate is None else round(1000 * rate)


def _history_table(partition: Partition) -> Figure:
    rows = partition.rows(
        f"""with letters as (
            select component_id, string_agg(left(primary_role, 1), '' order by checkpoint_index) as role_letters,
                bool_or(has_changed) as has_ever_changed
            from fct_component_histories join checkpoints using (checkpoint_id) group by component_id
        )
        select component_id, component_kind, layer, head, role_letters, has_ever_changed, primary_role,
            since.checkpoint_name as role_since, role_since_step, change_count, rate_all, rate_entity,
            rate_relation_max, relation_max_id, relation_answer_count, fact_answer_count
        from fct_component_histories
        join checkpoints as later using (checkpoint_id)
        join checkpoints as since on since.checkpoint_id = role_since_checkpoint_id
        join letters using (component_id)
        where later.checkpoint_index = {len(partition.checkpoints) - 1}
        order by layer, component_kind desc, head"""
    )
    changed = sum(row["has_ever_changed"] for row in rows)
    return Figure(
        "histories",
        "All components: history, and state at the last checkpoint",
        "History: one letter per checkpoint in order (g general, e entity, r relation answer, f fact answer, i"
        " inactive). Changes are counted from checkpoint to previous checkpoint, back from the last.",
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
                Column("role_since", "Held since"),
                Column("change_count", "Changes", "count"),
                Column("rate_all", "Rate, all tokens", "decimal"),
                Column("rate_entity", "Rate, entity", "decimal"),
                Column("rate_relation_max", "Rate, highest relation", "decimal"),
                Column("relation_max_id", "Highest relation"),
                Column("relation_answer_count", "Relations held", "count"),
                Column("fact_answer_count", "Facts held", "count"),
            ],
            rows,
            is_searchable=True,
            row_limit=_TABLE_ROW_LIMIT,
        ),
    )


def _example_table(partition: Partition, examples: list[Row]) -> Figure:
    components = len({row["component_id"] for row in examples})
    return Figure(
        "examples",
        "What components are most active on",
        "Up to five prompts per component with the token at which its score is highest, at the reference checkpoint"
        f" ({partition.reference['checkpoint_name']}).",
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
            row_limit=_EXAMPLE_ROW_LIMIT,
        ),
    )
