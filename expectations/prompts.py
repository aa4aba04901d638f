"""Expectations for the raw table `prompts`: every fact in every template of its relation, numbered from 0."""

from timecourse.expectations.rules import Rule, holds, is_unique

KEY = ("prompt_id",)

RULES = (
    is_unique("prompts", KEY),
    Rule(
        "numbers_are_contiguous",
        "prompt_id runs from 0 without a gap (shown: distance from the expected number)",
        "(select *, row_number() over (order by prompt_id) - 1 as expected_prompt_id from prompts)",
        "prompt_id - expected_prompt_id",
        ("prompt_id", "expected_prompt_id"),
        minimum=0,
        maximum=0,
    ),
    holds(
        "texts_are_filled",
        "relation, group, fact, subject and object are not empty",
        "prompts",
        "least(len(relation_id), len(relation_group), len(fact_id), len(trim(subject)), len(trim(object))) > 0",
        (*KEY, "relation_id", "relation_group", "fact_id", "subject", "object"),
    ),
    holds(
        "template_has_one_hole",
        "a template has exactly one {}",
        "prompts",
        "len(template) - len(replace(template, '{}', '')) = 2",
        (*KEY, "template"),
    ),
    Rule(
        "fact_is_one_thing",
        "a fact_id stands for one relation, subject and object",
        """(
            select fact_id, count(distinct (relation_id, relation_group, subject, object)) as meaning_count
            from prompts
            group by fact_id
        )""",
        "meaning_count",
        ("fact_id", "meaning_count"),
        maximum=1,
    ),
    Rule(
        "fact_is_asked_in_every_template",
        "every fact has one prompt per template of its relation (shown: prompts missing)",
        """(
            select fact_id, relation_id, template_count, template_count - asked_count as missing_count
            from (select fact_id, relation_id, count(distinct template_id) as asked_count from prompts group by all)
            inner join (
                select relation_id, count(distinct template_id) as template_count from prompts group by relation_id
            ) using (relation_id)
        )""",
        "missing_count",
        ("fact_id", "relation_id", "template_count", "missing_count"),
        minimum=0,
        maximum=0,
    ),
    Rule(
        "prompt_is_asked_once",
        "a fact has one prompt in a template",
        "(select fact_id, template_id, count(*) as prompt_count from prompts group by all)",
        "prompt_count",
        ("fact_id", "template_id", "prompt_count"),
        maximum=1,
    ),
)
