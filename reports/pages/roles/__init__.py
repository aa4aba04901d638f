"""Which roles components hold: counts and shares by primary role, by relation, beside chance and other thresholds."""

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Block, Controls, Page
from timecourse.reports.pages.roles.chosen_kind import kind_control
from timecourse.reports.pages.roles.counts import counts, shares
from timecourse.reports.pages.roles.kinds import activity_rates, differences, saturation
from timecourse.reports.pages.roles.relation_roles import caution, fact_answers, relation_answers, specific_roles
from timecourse.reports.pages.roles.sensitivity import other_taus, robustness, thetas
from timecourse.reports.partition import Partition

SLUG, TITLE = "roles", "Roles"


def build(partition: Partition) -> Page:
    """Role counts and shares of one partition, heads and FFNs compared, and how far the counts can be trusted."""
    axis = charts.training_axis(partition.checkpoints)
    kinds = [row["component_kind"] for row in partition.rows(
        "select distinct component_kind from fct_component_histories order by component_kind desc"
    )]  # fmt: skip
    blocks: list[Block] = [
        *(counts(partition, axis, kind) for kind in wording.KIND_NOUNS),
        *(shares(partition, axis, kind) for kind in wording.KIND_NOUNS),
        saturation(partition),
        activity_rates(partition, axis),
        differences(partition, axis),
    ]
    if kinds:
        kind = kind_control(kinds)
        blocks += [
            Controls([kind]),
            relation_answers(partition, axis, kind),
            fact_answers(partition, axis, kind),
            specific_roles(partition, kind),
            robustness(partition, kind),
            thetas(partition, axis, kind),
            *other_taus(partition),
            caution(partition),
        ]
    return Page(
        SLUG,
        TITLE,
        "How many attention heads and FFNs hold each role at each checkpoint, how many would by chance, and how far"
        " that depends on the thresholds. Heads and FFNs are counted apart.",
        blocks,
        axis,
    )
