"""What the component map's script reads of every component, as small as it can be."""

from collections.abc import Sequence
from typing import Any

from timecourse.reports import charts, wording
from timecourse.reports.page import embed_json
from timecourse.reports.partition import Partition, Row

_BYTE_LIMIT = 1_700_000
_EVERY_CHECKPOINT_LIMIT, _ONE_CHECKPOINT_LIMIT = 15_000, 40_000
"""Rates by relation that the page holds: at every checkpoint, or else at the last one."""

LETTERS = {role: role[0] for role in charts.PRIMARY_ROLES}
_ROBUSTNESS = {"core": "c", "contingent": "t", "noise": "n", None: "-"}
_HOLDS, _IS_SPECIFIC = 1, 2


def component_rows(partition: Partition) -> list[Row]:
    """One row per component in the map's order; what changes over training is a list by checkpoint."""
    lists = ",\n".join(
        f"list({column} order by current.checkpoint_index) as {name}"
        for name, column in {
            "checkpoints": "current.checkpoint_index",
            "since": "since.checkpoint_index",
            "held": "coalesce(held, 0)",
            **{
                name: name
                for name in ("primary_role", "change_count", "confidence", "robustness", "rate_all", "rate_entity",
                             "rate_relation_max", "relation_max_id")
            },
        }.items()
    )  # fmt: skip
    return partition.rows(
        f"""with memberships as (
            select checkpoint_id, component_id,
                sum(distinct 1 << (list_position({list(charts.ROLES)}, role) - 1))::integer as held
            from fct_role_memberships group by all
        )
        select component_id, component_kind, layer, head, {lists}
        from fct_component_histories
        left join memberships using (checkpoint_id, component_id)
        join checkpoints as current using (checkpoint_id)
        join checkpoints as since on since.checkpoint_id = role_since_checkpoint_id
        group by component_id, component_kind, layer, head
        order by layer, component_kind desc, head"""
    )


def activity_sql(checkpoint_index: int | None) -> str:
    """A query: every component's activity in every relation, at one checkpoint or at all (None).

    Beside it whether the component holds relation_answer for the relation, and whether it is active there more often
    than elsewhere (null where it is never active: there is no test).
    """
    return f"""select component_id, component_kind, checkpoint_name, checkpoint_index,
            activities.scope_id as relation_id, activities.rate, rate_low, rate_high, activities.active_count,
            position_count, activities.fact_count, holders.role is not null as holds_relation_answer,
            tests.is_specific, tests.q_value
        from fct_component_activities as activities
        join dim_components using (component_id, component_kind)
        join checkpoints using (checkpoint_id)
        left join (from fct_role_memberships where role = 'relation_answer') as holders
            using (checkpoint_id, component_id, component_kind, scope_id)
        left join (from fct_role_specificities where scope_kind = 'relation') as tests
            using (checkpoint_id, component_id, component_kind, scope_id)
        where activities.scope_kind = 'relation'
            and {"true" if checkpoint_index is None else f"checkpoint_index = {checkpoint_index}"}
        order by layer, component_kind desc, head, relation_id, checkpoint_index"""


def component_data(partition: Partition, components: list[Row], activities: list[Row], examples: list[Row]) -> Row:
    """The data of the map, of `component_rows`, the last checkpoint's activities and the examples.

    Where they are too many, it leaves out first what the page's files hold too: activity by relation, examples, rates.
    """
    measured: list[int] = components[0]["checkpoints"]
    count = len(activities)
    if count * len(measured) <= _EVERY_CHECKPOINT_LIMIT:
        shown, activities = measured, partition.rows(activity_sql(None))
    elif count <= _ONE_CHECKPOINT_LIMIT:
        shown = measured[-1:]
    else:
        shown, activities = [], []
    facts = _fact_answers(partition)
    for has_rates, example_count in ((True, 5), (True, 3), (True, 1), (False, 3), (False, 1)):
        data = _data(partition, components, shown, activities, facts, examples, has_rates, example_count)
        if len(embed_json(data).encode()) <= _BYTE_LIMIT:
            return data
    return _data(partition, components, [], [], facts, examples, False, 0)


def title(row: Row) -> str:
    """`L3H5: head 5 of layer 3`."""
    part = "FFN" if row["component_kind"] == "ffn" else f"head {row['head']}"
    return f"{row['component_id']}: {part} of layer {row['layer']}"


def _fact_answers(partition: Partition) -> dict[tuple[str, int], list[int]]:
    """Component and checkpoint -> facts that it is fact_answer for; of them tested; of them specific."""
    rows = partition.rows(
        """select component_id, checkpoint_index, count(*) as held, count(is_specific) as tested,
            count_if(is_specific) as specific
        from fct_role_memberships join checkpoints using (checkpoint_id) where role = 'fact_answer' group by all"""
    )
    return {(row["component_id"], row["checkpoint_index"]): [row["held"], row["tested"], row["specific"]]
            for row in rows}  # fmt: skip


def _data(
    partition: Partition,
    components: list[Row],
    shown: Sequence[int],
    activities: list[Row],
    facts: dict[tuple[str, int], list[int]],
    examples: list[Row],
    has_rates: bool,
    example_count: int,
) -> Row:
    measured: list[int] = components[0]["checkpoints"]
    checkpoints = [partition.checkpoints[index] for index in measured]
    labels = [partition.labels[row["checkpoint_id"]] for row in checkpoints]
    relations = sorted({name for row in components for name in row["relation_max_id"] if name is not None}
                       | {row["relation_id"] for row in activities})  # fmt: skip
    numbers = {relation: number for number, relation in enumerate(relations)}
    by_component = _activity_lists(activities, numbers)
    prompts, shown_examples = _examples([row for row in examples if row["example_rank"] <= example_count])
    return {
        "checkpoints": labels,
        "names": [row["checkpoint_name"] for row in checkpoints],
        "theta": float(partition.setting["theta"]),
        "roles": list(charts.PRIMARY_ROLES),
        "labels": wording.ROLE_LABELS,
        "relations": relations,
        "activityAt": [measured.index(index) for index in shown],
        "examplesPerComponent": example_count,
        "prompts": prompts,
        "components": [
            {
                "name": row["component_id"],
                "title": title(row),
                "roles": "".join(LETTERS[role] for role in row["primary_role"]),
                "held": "".join(f"{held:x}" for held in row["held"]),
                "robustness": "".join(_ROBUSTNESS[value] for value in row["robustness"]),
                "since": [measured.index(index) for index in row["since"]],
                "changes": row["change_count"],
                "confidence": [_thousandths(value) for value in row["confidence"]] if has_rates else None,
                "rates": [
                    [_thousandths(every), _thousandths(entity), _thousandths(most), numbers.get(relation)]
                    for every, entity, most, relation in zip(
                        row["rate_all"], row["rate_entity"], row["rate_relation_max"], row["relation_max_id"],
                        strict=True,
                    )
                ] if has_rates else None,
                "activity": [by_component.get((row["component_id"], index), []) for index in shown],
                "facts": [facts.get((row["component_id"], index), 0) for index in shown],
                "examples": shown_examples.get(row["component_id"], []),
            }
            for row in components
        ],
    }  # fmt: skip


def _activity_lists(rows: list[Row], numbers: dict[str, int]) -> dict[tuple[str, int], list[list[Any]]]:
    """Component and checkpoint -> relation, rate, ends of its interval and marks, for every relation."""
    lists: dict[tuple[str, int], list[list[Any]]] = {}
    for row in rows:
        marks = _HOLDS * row["holds_relation_answer"] + _IS_SPECIFIC * bool(row["is_specific"])
        lists.setdefault((row["component_id"], row["checkpoint_index"]), []).append(
            [numbers[row["relation_id"]], *(_thousandths(row[key]) for key in ("rate", "rate_low", "rate_high")), marks]
        )
    return lists


def _examples(rows: list[Row]) -> tuple[list[list[str]], dict[str, list[list[Any]]]]:
    """The prompts, each once, and by component the number of the prompt, where its token begins and ends, the score."""
    prompts: dict[tuple[str, ...], int] = {}
    examples: dict[str, list[list[Any]]] = {}
    for row in rows:
        text = row["sentence_before"] + row["token"] + row["sentence_after"]
        number = prompts.setdefault((text, row["relation_id"], row["subject"], row["object"]), len(prompts))
        start = len(row["sentence_before"])
        examples.setdefault(row["component_id"], []).append(
            [number, start, start + len(row["token"]), wording.decimal(row["score"], 2)]
        )
    return [list(prompt) for prompt in prompts], examples


def _thousandths(share: float | None) -> int | None:
    return None if share is None else round(1000 * share)
