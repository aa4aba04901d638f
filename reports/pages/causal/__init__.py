"""What silencing a role's components does: beside random sets, relation by relation, and against attribution."""

from timecourse.reports import charts
from timecourse.reports.blocks import Block, Controls, Page, source_line
from timecourse.reports.pages.causal.explanations import how_to_read, nothing_silenced, other_tau, thetas_differ
from timecourse.reports.pages.causal.methods import METHOD, method_control
from timecourse.reports.pages.causal.relation_matrices import matrices
from timecourse.reports.pages.causal.role_effects import effect_sql, effects, excess, language
from timecourse.reports.pages.causal.score_effects import score_rows, scores
from timecourse.reports.partition import Partition

SLUG, TITLE = "causal", "Causal"


def build(partition: Partition) -> Page:
    """Effects of silencing in one partition; one sentence where nothing was silenced."""
    lead = "What the answers lose when a role's components are silenced, and when as many others like them are."
    of_roles, of_scores = partition.rows(effect_sql("effect")), score_rows(partition)
    if not of_roles and not of_scores:
        return Page(SLUG, TITLE, lead, [nothing_silenced(partition)])
    axis = charts.training_axis(partition.checkpoints)
    blocks: list[Block] = [how_to_read(partition, [*of_roles, *of_scores])]
    if of_roles:
        control = method_control(METHOD, of_roles)
        source = source_line(partition, thetas=[row["theta"] for row in of_roles])
        blocks += [
            *thetas_differ(partition, of_roles),
            Controls([control]),
            effects(partition, axis, control),
            language(partition, axis, control),
            excess(partition, control),
            *matrices(partition, control, source),
        ]
    else:
        blocks.append(other_tau())
    if of_scores:
        blocks.append(scores(partition, axis, of_scores))
    return Page(SLUG, TITLE, lead, blocks, axis)
