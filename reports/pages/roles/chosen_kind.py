"""What the figures share that show one kind of component at a time: their control, table and caption."""

from collections.abc import Callable, Sequence

from timecourse.reports import wording
from timecourse.reports.blocks import Column, Control, Table, at_last, checkpoint_table
from timecourse.reports.partition import Partition, Row

_ROW_LIMIT = 1000


def kind_control(kinds: Sequence[str]) -> Control:
    """The switch of the kind, of those that the release holds; heads and FFNs never share a scale."""
    return Control("role_kind", "Components", [(kind, wording.KIND_NOUNS[kind][1]) for kind in kinds], kinds[0])


def kind_table(
    partition: Partition, name: str, rows: list[Row], columns: Sequence[Column], kind: Control
) -> Table | None:
    """A table of checkpoints and kinds, of which the page shows the chosen kind's rows."""
    return checkpoint_table(
        partition,
        name,
        rows,
        [Column("component_kind", "Kind", "kind"), *columns],
        row_limit=_ROW_LIMIT,
        filter_control=kind.control_id,
        filter_key="component_kind",
    )


def kind_caption(partition: Partition, rows: list[Row], kind: Control, say: Callable[[list[Row], str], str]) -> str:
    """What `say` makes of the rows of one kind, and the kind, at the last checkpoint: of every kind that has any."""
    last = at_last(partition, rows)
    found = {one: [row for row in last if row["component_kind"] == one] for one, _ in kind.options}
    return " ".join(say(rows_of_kind, one) for one, rows_of_kind in found.items() if rows_of_kind)
