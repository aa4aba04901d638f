"""One page of a changed copy of the release, rendered without the others."""

from pathlib import Path
from types import ModuleType

import duckdb

from timecourse.reports.page import write_page
from timecourse.reports.partition import list_partitions, open_partition

from .conftest import PageReader, Site, changed


def render_page(module: ModuleType, release: Path, folder: Path, *statements: str) -> tuple[PageReader, Site]:
    """The page of the first partition after these statements, and a site of the changed warehouse to query."""
    with changed(release, folder) as connection:
        for statement in statements:
            connection.execute(statement)
    warehouse = folder / "warehouse.duckdb"
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        partition = open_partition(connection, list_partitions(connection)[0], "a release")
        write_page(module.build(partition), partition, folder, "", [])
    return PageReader(folder / f"{module.SLUG}.html"), Site(folder, warehouse)
