"""What pages are made of: each block is a dataclass that names its template (templates/), a page is a list of them."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from timecourse.reports import charts, wording
from timecourse.reports.partition import Partition, Row

TABLE_ROW_LIMIT = 400
"""Rows that a page shows of a table; the CSV file holds them all."""

_FORMATS: dict[str, Callable[[Any], str]] = {
    "text": lambda value: wording.NOT_AVAILABLE if value is None else str(value),
    "count": wording.integer,
    "percent": wording.percent,
    "decimal": wording.decimal,
    "rank": lambda value: wording.decimal(value, 1),
    "scientific": wording.scientific,
    "flag": lambda value: wording.NOT_AVAILABLE if value is None else "yes" if value else "no",
    "role": lambda value: wording.NOT_AVAILABLE if value is None else wording.ROLE_LABELS.get(value, value),
    "kind": lambda value: wording.KIND_NOUNS[value][0],
    "kind_or_all": lambda value: "whole model" if value == "all" else wording.KIND_NOUNS[value][0],
    "pair": lambda value: wording.PAIR_LABELS[value],
    "statistic": lambda value: wording.STATISTIC_LABELS[value],
    "metric": lambda value: charts.METRIC_LABELS.get(value, value),
    "hash": wording.short_hash,
    "code": lambda value: wording.NOT_AVAILABLE if value is None else str(value),
    "json_rows": wording.json_rows,
    "status": lambda value: wording.STATUS_LABELS[value],
    "verdict": lambda value: wording.VERDICT_LABELS[value],
}
_NUMBERS = {"count", "percent", "decimal", "rank", "scientific"}


@dataclass(frozen=True)
class Column:
    """A column of a table: the key in the rows, its heading, and how its values are written (a key of `_FORMATS`)."""

    key: str
    label: str
    kind: str = "text"

    @property
    def is_number(self) -> bool:
        """Whether the values stand right-aligned."""
        return self.kind in _NUMBERS

    def text(self, row: Row) -> str:
        """The value as the page shows it; `n/a` for null."""
        return _FORMATS[self.kind](row[self.key])

    def css_class(self, text: str) -> str:
        """How a cell with this text is set: numbers right-aligned, long text wrapped, short text on one line."""
        if self.is_number:
            return "number"
        return " ".join(["code"] * (self.kind in ("code", "json_rows")) + ["long"] * (len(text) > 32))


@dataclass(frozen=True)
class Table:
    """Rows under a chart (or on their own), and the CSV file that holds all of them unrounded.

    `filter_control` and `filter_key`: the page shows only rows whose `filter_key` equals the control's value.
    """

    name: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    is_searchable: bool = False
    row_limit: int = TABLE_ROW_LIMIT
    filter_control: str | None = None
    filter_key: str | None = None

    @property
    def shown(self) -> Sequence[Row]:
        """The rows on the page."""
        return self.rows[: self.row_limit]

    def write(self, folder: Path) -> list[Path]:
        """Write every row with every key, unrounded, as <name>.csv (null: an empty field) and <name>.parquet."""
        folder.mkdir(parents=True, exist_ok=True)
        names = list(self.rows[0]) if self.rows else [column.key for column in self.columns]
        as_csv, as_parquet = folder / f"{self.name}.csv", folder / f"{self.name}.parquet"
        with as_csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            writer.writerows([row[name] for name in names] for row in self.rows)
        columns = {name: [row[name] for row in self.rows] for name in names}
        pq.write_table(pa.table(columns), as_parquet, compression="zstd")
        return [as_csv, as_parquet]


@dataclass(frozen=True)
class Control:
    """A select (`options`: value and label) that charts and tables with its id follow."""

    control_id: str
    label: str
    options: Sequence[tuple[str, str]]
    selected: str


@dataclass(frozen=True)
class Controls:
    """Selects that several figures below them follow."""

    controls: Sequence[Control]
    template: ClassVar[str] = "controls.html.j2"


@dataclass(frozen=True)
class Figure:
    """A chart with all that belongs to it: what it shows, the definition, what is seen, source, data table.

    `title` says what is found where the data says it clearly, else what is shown. `specification` is a Vega-Lite
    specification, or None where a table stands alone or there is nothing to draw; `empty` then says in words why.
    `caption` says what is seen, in numbers of the data; it is the chart's text description too. `query`: the SQL that
    gives the rows of the table on the release (Partition.standalone). `other_queries`: what else the chart draws or the
    numbers follow from, each with what it gives.
    """

    figure_id: str
    title: str
    definition: str
    caption: str
    source: str
    specification: dict[str, Any] | None
    table: Table | None
    legend: Sequence[tuple[str, str]] = ()
    controls: Sequence[Control] = ()
    empty: str | None = None
    is_half: bool = False
    is_table_open: bool = False
    query: str | None = None
    other_queries: Sequence[tuple[str, str]] = ()
    template: ClassVar[str] = "figure.html.j2"


@dataclass(frozen=True)
class Prose:
    """Paragraphs under an optional heading. A plain `str` paragraph is escaped; `Markup` is not."""

    paragraphs: Sequence[str]
    heading: str | None = None
    is_caution: bool = False
    template: ClassVar[str] = "prose.html.j2"


@dataclass(frozen=True)
class Terms:
    """A list of terms and what each is. `queries`: SQL that gives each, in their order; empty where none is needed."""

    heading: str
    items: Sequence[tuple[str, str]]
    queries: Sequence[str] = ()
    template: ClassVar[str] = "terms.html.j2"


@dataclass(frozen=True)
class Cards:
    """Headline numbers: (label, number, explanation with its n). `queries`: SQL that gives each, in their order.

    An empty one: the release holds nothing to ask.
    """

    heading: str
    items: Sequence[tuple[str, str, str]]
    queries: Sequence[str] = ()
    template: ClassVar[str] = "cards.html.j2"


@dataclass(frozen=True)
class ComponentMap:
    """The layer × head map with a slider over checkpoints; `data` is what assets/components.js reads."""

    data: dict[str, Any]
    layers: Sequence[int]
    heads: Sequence[int]
    cells: dict[tuple[int, int | None], tuple[int, str]]
    checkpoint_labels: Sequence[str]
    source: str
    template: ClassVar[str] = "component_map.html.j2"


@dataclass(frozen=True)
class Download:
    """A table of the report and where it stands: the page and the figure."""

    page_slug: str
    page_title: str
    figure_id: str
    figure_title: str
    name: str
    row_count: int


@dataclass(frozen=True)
class Downloads:
    """Every table of the report in one list, with its files, and what else the release's folder holds."""

    items: Sequence[Download]
    release: str
    has_dictionary: bool
    template: ClassVar[str] = "downloads.html.j2"


@dataclass(frozen=True)
class Node:
    """A table or model in the picture of where tables come from, and the numbers of those that it reads."""

    number: int
    name: str
    layer: str
    x: float
    y: float
    reads: Sequence[int]
    raw_tables: Sequence[str]


@dataclass(frozen=True)
class Lineage:
    """The picture of where a release's tables come from: raw tables, models, tables of the release, left to right.

    `edges`: (number of the node that is read, number of the one that reads it, SVG path). `selected`: the node that
    assets/lineage.js shows first.
    """

    nodes: Sequence[Node]
    edges: Sequence[tuple[int, int, str]]
    width: int
    height: int
    columns: Sequence[tuple[float, str]]
    selected: int
    template: ClassVar[str] = "lineage.html.j2"


Block = Controls | Figure | Prose | Terms | Cards | ComponentMap | Downloads | Lineage


@dataclass(frozen=True)
class Page:
    """One page of the report. `slug` is the file's name; the overview's is `index`."""

    slug: str
    title: str
    lead: str
    blocks: Sequence[Block]
    training_axis: charts.TrainingAxis | None = None
    scripts: Sequence[str] = field(default=())

    @property
    def figures(self) -> list[Figure]:
        """Every figure of the page."""
        return [block for block in self.blocks if isinstance(block, Figure)]

    @property
    def tables(self) -> list[Table]:
        """Every table of the page."""
        return [figure.table for figure in self.figures if figure.table is not None]

    @property
    def has_charts(self) -> bool:
        """Whether the page draws anything with Vega."""
        return any(figure.specification for figure in self.figures)


def place_columns(partition: Partition) -> list[Column]:
    """The columns of a table that say a checkpoint's phase, stage and branch, where there are several."""
    return [Column(place, place.capitalize()) for place in partition.places]


def checkpoint_table(
    partition: Partition, name: str, rows: list[Row], columns: Sequence[Column], **options: Any
) -> Table | None:
    """A table of rows that have a checkpoint_index and checkpoint_name; None where there are no rows.

    `columns` stand beside the checkpoint's name and place; `options`: further fields of the table.
    """
    if not rows:
        return None
    names = [Column("checkpoint_name", "Checkpoint"), *place_columns(partition)]
    return Table(name, [*names, *columns], partition.placed(rows), **options)


def interval_columns(key: str, label: str, kind: str = "decimal") -> list[Column]:
    """The columns of a number and of the ends of its interval: `key`, `key`_low and `key`_high."""
    return [Column(key, label, kind), Column(f"{key}_low", "low", kind), Column(f"{key}_high", "high", kind)]


def last_label(partition: Partition) -> str:
    """How sentences name the last checkpoint."""
    return partition.label_at(-1)


def at_last(partition: Partition, rows: Sequence[Row]) -> list[Row]:
    """Those of the rows, which have a checkpoint_index, that are of the last checkpoint."""
    return [row for row in rows if row["checkpoint_index"] == partition.checkpoints[-1]["checkpoint_index"]]


def source_line(partition: Partition, uses_tau: bool = True, thetas: Sequence[float] | None = None) -> str:
    """Where a figure's numbers come from: series, thresholds where they matter, release.

    `thetas`: what stands in the place of the report's θ; none where θ does not matter.
    """
    values = [f"{theta:g}" for theta in ([partition.setting["theta"]] if thetas is None else sorted({*thetas}))]
    parts = [f"Source: {partition.series_id}"]
    if uses_tau:
        parts += [f"τ = {partition.tau_words}", *([f"θ = {wording.listing(values)}"] if values else [])]
    return " · ".join([*parts, f"release {partition.release}"])
