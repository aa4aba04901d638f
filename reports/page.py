"""How the blocks of a page become one HTML file and its data files, and the assets that all pages share.

All text passes through Jinja's
autoescape; JSON inside a page has every `<`, `>` and `&` written as an escape, so that no name in the data can end a
script element. Pages work from a folder over file://, without a network: the content security policy allows no remote
host, no inline script or style and no eval (charts run through Vega's expression interpreter).
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import altair
import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Page
from timecourse.reports.partition import Partition

DICTIONARY = "dictionary"
"""Name of the page that describes the tables, without its ending."""

_HERE = Path(__file__).parent
_VEGA_LITE = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])


def write_page(
    page: Page, partition: Partition, folder: Path, root: str, navigation: Sequence[tuple[str, str]]
) -> list[Path]:
    """Write a page and the files of its tables into `folder`; `root` is the relative path to the site's root.

    `navigation`: (slug, title) of all pages. Returns the files written.
    """
    written = []
    for table in page.tables:
        written += table.write(folder / "data")
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
    """Write what all pages share: the Vega bundle, small scripts and the style sheet."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "vega.js": _vega_bundle(),
        "site.css": _environment().get_template("site.css.j2").render(colours=charts.CSS_COLOURS),
        **{path.name: path.read_text(encoding="utf-8") for path in sorted((_HERE / "assets").glob("*.js"))},
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in files]


def drawn(specification: Mapping[str, Any]) -> str:
    """A chart as SVG, 640 pixels wide where it takes the width of its page."""
    fixed = {**specification, "config": {**specification["config"], "background": "white"}}
    if fixed.get("width") == "container":
        fixed["width"] = 640
    return str(vl_convert.vegalite_to_svg(fixed, vl_version=_VEGA_LITE))


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


def _on_both_themes(colour: str) -> str:
    return f"light-dark({colour}, {charts.DARK_COLOURS.get(colour, colour)})"


@cache
def _vega_bundle() -> str:
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=_VEGA_LITE))


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
    environment.filters["both"] = _on_both_themes
    environment.globals["wording"] = wording
    environment.globals["dark_colours"] = charts.DARK_COLOURS
    return environment
