"""The shell of a page: its blocks, and how they become one HTML file, its data files and the shared assets.

A page is a list of blocks; each block is a dataclass that names its template. All text passes through Jinja's
autoescape; JSON inside a page has every `<`, `>` and `&` written as an escape, so that no name in the data can end a
script element. Pages work from a folder over file://, without a network: the content security policy allows no remote
host, no inline script or style and no eval (charts run through Vega's expression interpreter).
"""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import altair
import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from timecourse.reports import charts, wording
from timecourse.reports.partition import Partition, Row

TABLE_ROW_LIMIT = 400
"""Rows that a page shows of a table; the CSV file holds them all."""

DICTIONARY = "dictionary"
"""Name of the page that describes the tables, without its ending."""

_HERE = Path(__file__).parent

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
    "hash": wording.short_hash,
    "code": lambda value: wording.NOT_AVAILABLE if value is None else str(value),
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
        return " ".join(["code"] * (self.kind == "code") + ["long"] * (len(text) > 32))


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

    def write_csv(self, path: Path) -> None:
        """Write every row with every key, unrounded; null is an empty field."""
        path.parent.mkdir(parents=True, exist_ok=True)
        names = list(self.rows[0]) if self.rows else [column.key for column in self.columns]
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            writer.writerows([row[name] for name in names] for row in self.rows)


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

    `specification` is a Vega-Lite specification, or None where a table stands alone or there is nothing to draw;
    `empty` then says in words why. `caption` says what is seen, in numbers of the data; it is the chart's text
    description too.
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
    """A list of terms and what each is."""

    heading: str
    items: Sequence[tuple[str, str]]
    template: ClassVar[str] = "terms.html.j2"


@dataclass(frozen=True)
class Cards:
    """Headline numbers: (label, number, explanation with its n)."""

    heading: str
    items: Sequence[tuple[str, str, str]]
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


Block = Controls | Figure | Prose | Terms | Cards | ComponentMap


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
    def tables(self) -> list[Table]:
        """Every table of the page."""
        return [block.table for block in self.blocks if isinstance(block, Figure) and block.table is not None]

    @property
    def has_charts(self) -> bool:
        """Whether the page draws anything with Vega."""
        return any(isinstance(block, Figure) and block.specification for block in self.blocks)


def place_columns(partition: Partition) -> list[Column]:
    """The columns of a table that say a checkpoint's phase, stage and branch, where there are several."""
    return [Column(place, place.capitalize()) for place in partition.places]


def source_line(partition: Partition, uses_tau: bool = True) -> str:
    """Where a figure's numbers come from: series, thresholds where they matter, release."""
    setting = partition.setting
    thresholds = f" · τ = {partition.tau_words} · θ = {setting['theta']:g}" if uses_tau else ""
    return f"Source: {partition.series_id}{thresholds} · release {partition.release}"


def write_page(
    page: Page, partition: Partition, folder: Path, root: str, navigation: Sequence[tuple[str, str]]
) -> list[Path]:
    """Write a page and the CSV files of its tables into `folder`; `root` is the relative path to the site's root.

    `navigation`: (slug, title) of all pages. Returns the files written.
    """
    written = []
    for table in page.tables:
        path = folder / "data" / f"{table.name}.csv"
        table.write_csv(path)
        written.append(path)
    path = folder / f"{page.slug}.html"
    text = (
        _environment()
        .get_template("page.html.j2")
        .render(page=page, partition=partition, root=root, navigation=navigation)
    )
    path.write_text(text, encoding="utf-8")
    return [*written, path]


def write_index(partitions: Sequence[tuple[Partition, str]], folder: Path, has_dictionary: bool) -> Path:
    """Write the page that lists several reports: (partition, its folder's name) each."""
    path = folder / "index.html"
    text = (
        _environment()
        .get_template("index.html.j2")
        .render(partitions=partitions, root="", has_dictionary=has_dictionary)
    )
    path.write_text(text, encoding="utf-8")
    return path


def write_dictionary(tables: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write the page of the data dictionary: for each table name, description, key, columns and examples."""
    path = folder / f"{DICTIONARY}.html"
    text = _environment().get_template("dictionary.html.j2").render(tables=tables, root="")
    path.write_text(text, encoding="utf-8")
    return path


def write_assets(folder: Path) -> list[Path]:
    """Write what all pages share: the Vega bundle, two small scripts and the style sheet."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "vega.js": _vega_bundle(),
        "site.css": _environment().get_template("site.css.j2").render(colours=charts.CSS_COLOURS),
        "site.js": (_HERE / "assets" / "site.js").read_text(encoding="utf-8"),
        "components.js": (_HERE / "assets" / "components.js").read_text(encoding="utf-8"),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in files]


def embed_json(value: object) -> Markup:
    """JSON that can stand inside a script element whatever the names in it are."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _with_code(text: str) -> Markup:
    """Escaped text, with what stands between backticks set as code."""
    return Markup().join(
        Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in enumerate(text.split("`"))
    )


@cache
def _vega_bundle() -> str:
    version = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["embed"] = embed_json
    environment.filters["with_code"] = _with_code
    environment.globals["wording"] = wording
    return environment
