"""What takes the place of a silenced component: the switch of the methods, and tables that follow it."""

from collections.abc import Sequence

from timecourse.reports.blocks import Column, Control, Table, checkpoint_table
from timecourse.reports.partition import Partition, Row

METHOD, SINGLE_METHOD = "method", "single_method"
"""Ids of the switches: of the sets of roles, and of single components."""

_METHODS = {
    "mean": "its mean over the prompts",
    "resample": "its value in another fact's prompt",
    "zero": "nothing",
}
_LIVE_NORM = "_live_norm"


def method_control(control_id: str, rows: list[Row]) -> Control:
    """A switch of the methods that the rows are of, in the order of `_METHODS`."""
    order = list(_METHODS)
    methods = sorted({row["method"] for row in rows})
    methods.sort(key=lambda method: order.index(base) if (base := _base(method)) in order else len(order))
    options = [(method, _words(method)) for method in methods]
    return Control(control_id, "What takes the place of a silenced component", options, methods[0])


def method_table(
    partition: Partition, name: str, rows: list[Row], columns: Sequence[Column], method: Control
) -> Table | None:
    """A table of ablated checkpoints, of which the page shows the chosen method's rows."""
    return checkpoint_table(
        partition,
        name,
        rows,
        [*columns, Column("method", "Method")],
        filter_control=method.control_id,
        filter_key="method",
    )


def _base(method: str) -> str:
    return method.removesuffix(_LIVE_NORM)


def _words(method: str) -> str:
    """`mean: its mean over the prompts`; a method that this page does not know by its name alone."""
    words = _METHODS.get(_base(method))
    anew = ", and the norm behind it computed anew" if method.endswith(_LIVE_NORM) else ""
    return f"{method}: {words}{anew}" if words else method
