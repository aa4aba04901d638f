"""Where the release's tables come from: raw tables, models and tables in columns, a line from each to its readers."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from timecourse.reports.blocks import Lineage, Node

_ROW, _TOP, _WIDTH = 16, 34, 1000
_ENDS = {"raw": (128, 136), "model": (384, 568), "table": (800, 800)}
"""Left and right end of each column, where lines arrive and leave: names stand right of it, of raw tables left."""

_HEADINGS = ((128, "raw tables"), (392, "models"), (808, "tables of the release"))
_STAGING = "staging"


def build_lineage(entries: Sequence[Mapping[str, Any]]) -> Lineage:
    """The picture of the entries of a dictionary's lineage: `name`, `layer`, and `reads`, the names of its inputs.

    Staging models only give a raw table its types: they are left out, and what reads them reads the raw table.
    """
    given = {entry["name"]: entry for entry in entries}

    @cache
    def reads(name: str) -> tuple[str, ...]:
        """What it reads directly, raw tables in the place of staging models; names that the entries lack left out."""
        found: dict[str, None] = {}
        for source in given[name]["reads"]:
            if source in given:
                found |= dict.fromkeys(given[source]["reads"] if given[source]["layer"] == _STAGING else [source])
        return tuple(source for source in found if source in given)

    @cache
    def depth(name: str) -> int:
        """Steps from the raw tables."""
        return 1 + max((depth(source) for source in reads(name)), default=-1)

    @cache
    def raw_tables(name: str) -> frozenset[str]:
        if given[name]["layer"] == "raw":
            return frozenset([name])
        return frozenset().union(*(raw_tables(source) for source in reads(name)))

    columns: dict[str, list[str]] = {"raw": [], "model": [], "table": []}
    for name, entry in given.items():
        if entry["layer"] != _STAGING:
            columns[_column(entry["layer"])].append(name)
    columns["model"].sort(key=lambda name: (depth(name), name))
    columns["table"].sort()
    columns["raw"].sort()
    longest = max(len(names) for names in columns.values())
    names = [name for column in columns.values() for name in column]
    numbers = {name: number for number, name in enumerate(names)}
    nodes = [
        Node(
            numbers[name],
            name,
            given[name]["layer"],
            _ENDS[column][0],
            round(_TOP + (place + 0.5) * _ROW * longest / len(members), 1),
            [numbers[source] for source in reads(name)],
            sorted(raw_tables(name)) if column != "raw" else (),
        )
        for column, members in columns.items()
        for place, name in enumerate(members)
    ]
    edges = [
        (source, target, _path(nodes[source], nodes[target]))
        for target, node in enumerate(nodes)
        for source in node.reads
    ]
    wanted = "fct_component_histories"
    selected = numbers[wanted] if wanted in numbers else len(nodes) - 1
    return Lineage(nodes, edges, _WIDTH, _TOP + _ROW * longest + 6, _HEADINGS, selected)


def _column(layer: str) -> str:
    return {"raw": "raw", "marts": "table"}.get(layer, "model")


def _path(source: Node, target: Node) -> str:
    """A line from one node to another; within a column, and back to one further left, as a bow."""
    start, end = _ENDS[_column(source.layer)], _ENDS[_column(target.layer)]
    x1, x2 = (start[1], end[0]) if start[0] < end[0] else (start[0], end[1] if start[0] > end[0] else end[0])
    if start == end:
        bow = 18 + min(120, abs(source.y - target.y) / 3)
        bends = (x1 - bow, x2 - bow)
    else:
        bends = ((x1 + x2) / 2, (x1 + x2) / 2)
    return f"M{x1:g} {source.y:g}C{bends[0]:.0f} {source.y:g} {bends[1]:.0f} {target.y:g} {x2:g} {target.y:g}"
