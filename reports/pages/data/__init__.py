"""The data behind the report: files, tables and where they come from, every check, and what was measured."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Column, Download, Downloads, Figure, Lineage, Page, Prose, Table
from timecourse.reports.pages.data.data_quality import (
    checkpoints,
    checks,
    completeness,
    duplicates,
    summary,
    unused_names,
)
from timecourse.reports.pages.data.lineage import build_lineage
from timecourse.reports.partition import Partition

SLUG, TITLE = "data", "Data"


def build(
    partition: Partition, downloads: Sequence[Download] = (), dictionary: Mapping[str, Any] | None = None
) -> Page:
    """The page of one partition's release.

    `downloads`: the tables of the pages before this one; `dictionary`: the content of the release's dictionary.json.
    """
    axis = charts.training_axis(partition.checkpoints)
    quality = [
        *checks(partition),
        completeness(partition, axis),
        checkpoints(partition),
        *unused_names(partition),
        duplicates(partition),
    ]
    tables = _tables(partition)
    own = _listed(SLUG, TITLE, [tables, *quality])
    return Page(
        SLUG,
        TITLE,
        "Every table of this report to download, where it comes from, and whether it can be trusted: each check with"
        " its rule and result, how exactly the parts sum to the residual stream, and the hashes of what was measured.",
        [
            summary(partition),
            Downloads([*downloads, *own], partition.release, dictionary is not None),
            tables,
            _lineage(dictionary),
            *quality,
        ],
        axis,
        scripts=("lineage.js",),
    )


def listed(page: Page) -> list[Download]:
    """The tables of a page, for the list of all."""
    return _listed(page.slug, page.title, page.figures)


def _listed(slug: str, title: str, figures: Sequence[Figure]) -> list[Download]:
    return [
        Download(slug, title, figure.figure_id, figure.title, figure.table.name, len(figure.table.rows))
        for figure in figures
        if figure.table is not None
    ]


def _tables(partition: Partition) -> Figure:
    names = sorted(name for name in partition.views if re.fullmatch(r"(dim|fct)_[a-z_]+", name))
    counts = "\n    union all ".join(
        f"select '{name}' as table_name, count(*) as row_count from {name}" for name in names
    )
    sql = f"""select table_name, row_count
from (
    {counts}
)
order by table_name"""
    rows = partition.rows(sql)
    empty = sum(row["row_count"] == 0 for row in rows)
    return Figure(
        "tables",
        "Tables of the release",
        "Rows about this series, setting and τ; of the tables without a series, all rows. Tables beginning with dim_"
        " say what there is, those with fct_ what was measured and found.",
        f"{wording.count(len(rows), 'table')} with {sum(row['row_count'] for row in rows):,} rows in all;"
        f" {empty:,} of them {'has' if empty == 1 else 'have'} none.",
        f"Source: release {partition.release}",
        None,
        Table(
            "data-tables",
            [Column("table_name", "Table", "code"), Column("row_count", "Rows", "count")],
            rows,
        ),
        query=partition.standalone(sql),
    )


def _lineage(dictionary: Mapping[str, Any] | None) -> Lineage | Prose:
    entries = (dictionary or {}).get("lineage")
    if not entries:
        return Prose(["This release does not say what its tables were made from."], "Where the tables come from")
    return build_lineage(entries)
