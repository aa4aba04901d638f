"""The report of a release: a folder of static pages, one report per series × setting × tau."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
from altair.utils.schemapi import debug_mode
from slugify import slugify

from timecourse.errors import UserError
from timecourse.reports.blocks import Download
from timecourse.reports.page import DICTIONARY, drawn, write_assets, write_dictionary, write_index, write_page
from timecourse.reports.pages import (
    causal,
    compare,
    components,
    data,
    knowledge,
    overview,
    roles,
    stability,
    transitions,
)
from timecourse.reports.partition import Partition, list_partitions, open_partition

PAGES = (overview, knowledge, roles, stability, transitions, components, causal, compare, data)


def render_site(warehouse: Path, output: Path, release: str | None = None) -> list[Path]:
    """Write the report of a release's warehouse into `output`; returns the files written.

    Reads the marts only and never writes to `warehouse`. One series × setting × tau: its pages stand in `output`, the
    overview as index.html. Several: each has a folder of its own, and index.html lists them. `release` is the name
    shown on the pages; by default that of the folder that holds the warehouse. Where a dictionary.json stands beside
    the warehouse, it has a page at the root. Raises UserError where the warehouse is
    missing or holds no series.
    """
    keys = _keys(warehouse)
    name = release or warehouse.resolve().parent.name
    output.mkdir(parents=True, exist_ok=True)
    written = write_assets(output / "assets")
    file = warehouse.parent / "dictionary.json"
    dictionary = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    if dictionary is not None:
        written.append(write_dictionary(dictionary["tables"], output))
    if len(keys) == 1:
        return written + _render_partition(warehouse, keys[0], name, output, "", dictionary)[1]
    reports = []
    for key in keys:
        folder = _folder_name(key)
        partition, files = _render_partition(warehouse, key, name, output / folder, "../", dictionary)
        reports.append((partition, folder))
        written += files
    return [*written, write_index(reports, output, dictionary is not None)]


def _render_partition(
    warehouse: Path,
    key: tuple[str, str, str],
    release: str,
    folder: Path,
    root: str,
    dictionary: Mapping[str, Any] | None,
) -> tuple[Partition, list[Path]]:
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    downloads: list[Download] = []
    # Altair would check every part of every chart against its schema, which takes half of a report's time; the charts
    # are the same whatever the data, and the tests draw all of them.
    with duckdb.connect(str(warehouse), read_only=True) as connection, debug_mode(False):
        partition = open_partition(connection, key, release)
        pages = _needed_pages(partition)
        navigation = [(page.SLUG, page.TITLE) for page in pages]
        if dictionary is not None:
            navigation.append((f"{root}{DICTIONARY}", "Data dictionary"))
        for module in pages:
            page = data.build(partition, downloads, dictionary) if module is data else module.build(partition)
            downloads += data.listed(page)
            written += write_page(page, partition, folder, root, navigation)
    return partition, written


def render_figures(warehouse: Path, output: Path) -> list[Path]:
    """Write every chart of a release as an SVG file, for a manuscript; returns the files written.

    They are named <page>-<figure>.svg, in a folder per report where the release holds several. Charts that follow a
    control show its default. Raises UserError as `render_site` does.
    """
    keys = _keys(warehouse)
    written = []
    for key in keys:
        folder = output if len(keys) == 1 else output / _folder_name(key)
        folder.mkdir(parents=True, exist_ok=True)
        with duckdb.connect(str(warehouse), read_only=True) as connection, debug_mode(False):
            partition = open_partition(connection, key, warehouse.resolve().parent.name)
            for page in _needed_pages(partition):
                for figure in page.build(partition).figures:
                    if figure.specification:
                        path = folder / f"{page.SLUG}-{figure.figure_id}.svg"
                        path.write_text(drawn(figure.specification), encoding="utf-8")
                        written.append(path)
    return written


def _needed_pages(partition: Partition) -> list[ModuleType]:
    """The pages of a report: comparisons only where there is something to compare with."""
    return [page for page in PAGES if page is not compare or compare.is_needed(partition)]


def _keys(warehouse: Path) -> list[tuple[str, str, str]]:
    if not warehouse.is_file():
        raise UserError(f"there is no warehouse at {warehouse}: build a release first")
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        keys = list_partitions(connection)
    if not keys:
        raise UserError(f"{warehouse} holds no series: extract a checkpoint first")
    return keys


def _folder_name(key: tuple[str, str, str]) -> str:
    """A safe and unique folder name for any ids: a readable part, and a hash of the whole key."""
    readable = slugify("-".join(key), max_length=60) or "report"
    return f"{readable}-{sha256(chr(0).join(key).encode()).hexdigest()[:8]}"
