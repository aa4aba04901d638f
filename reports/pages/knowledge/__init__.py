"""What the model knows: accuracy by relation, group and kind of answer, convergence, the logit lens and the facts."""

from timecourse.reports import charts
from timecourse.reports.blocks import Controls, Page
from timecourse.reports.pages.knowledge.accuracies import length_accuracies, measure_control, scope_accuracies
from timecourse.reports.pages.knowledge.convergence import convergences
from timecourse.reports.pages.knowledge.facts import facts, learning
from timecourse.reports.pages.knowledge.guessing import gains, levels
from timecourse.reports.pages.knowledge.readouts import readouts
from timecourse.reports.partition import Partition

SLUG, TITLE = "knowledge", "Knowledge"


def build(partition: Partition) -> Page:
    """Accuracy, knowledge against guessing, convergence, readouts and facts of one partition."""
    axis = charts.training_axis(partition.checkpoints)
    measure = measure_control()
    return Page(
        SLUG,
        TITLE,
        "How many facts the model answers at each checkpoint, whether it knows or guesses, when each relation settles,"
        " and at which depth the answer can be read.",
        [
            Controls([measure]),
            scope_accuracies(partition, axis, measure, is_relations=False),
            scope_accuracies(partition, axis, measure, is_relations=True),
            length_accuracies(partition, axis, measure),
            levels(partition, axis),
            gains(partition, axis),
            convergences(partition, axis),
            readouts(partition),
            learning(partition, axis),
            facts(partition),
        ],
        axis,
    )
