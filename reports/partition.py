"""What one report is about: one series measured with one setting and one tau, read from the marts of a release."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from textwrap import dedent
from typing import Any

import duckdb

Row = dict[str, Any]
"""One row of a mart: column name -> text, whole number, float, bool or None."""

KEYS = ("series_id", "setting_id", "tau_id")

_PAIR_MARTS = ("fct_series_comparisons", "fct_series_distances")
"""Marts that hold a pair of partitions once; either of them sees it."""


@dataclass(frozen=True)
class Partition:
    """One series × setting × tau of a release.

    Every mart is visible to `rows` under its own name and holds this partition's rows only, so that no page can compare
    what was measured under different settings; a pair of two partitions is seen by both. `released_series` holds the
    rows of dim_series of the whole release.
    """

    series_id: str
    setting_id: str
    tau_id: str
    release: str
    connection: duckdb.DuckDBPyConnection
    views: Mapping[str, str]
    """What stands in front of the marts: name -> query over the release's tables."""

    def standalone(self, sql: str) -> str:
        """A query over the marts of this partition as one over the release, ready for `timecourse sql`."""
        needed = {name for name in self.views if re.search(rf"\b{re.escape(name)}\b", sql)}
        if "checkpoints" in needed:
            needed.add("dim_checkpoints")
        with_clause = ",\n".join(f"{_name(name)} as ({view})" for name, view in self.views.items() if name in needed)
        query = _dedent(sql)
        if not with_clause:
            return query
        own_clause = re.match(r"with\s", query)
        return f"with {with_clause},\n{query[own_clause.end() :]}" if own_clause else f"with {with_clause}\n{query}"

    def rows(self, sql: str) -> list[Row]:
        """The rows of a query over the marts, in its order."""
        cursor = self.connection.execute(sql)
        names = [column[0] for column in cursor.description or []]
        return [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]

    def row(self, sql: str) -> Row:
        """The only row of a query. Raises LookupError where it has none or several."""
        rows = self.rows(sql)
        if len(rows) != 1:
            raise LookupError(f"{len(rows)} rows instead of one: {sql}")
        return rows[0]

    def has_mart(self, name: str) -> bool:
        """Whether the release holds the mart."""
        return bool(self.rows(f"select 1 as found from duckdb_tables() where table_name = '{name}'"))

    @cached_property
    def series(self) -> Row:
        """The row of dim_series."""
        return self.row("from dim_series")

    @cached_property
    def setting(self) -> Row:
        """The row of dim_settings."""
        return self.row("from dim_settings")

    @cached_property
    def checkpoints(self) -> list[Row]:
        """The rows of dim_checkpoints by checkpoint_index, each with a `label`: its step, or else its name.

        Where steps are of several stages, phases or branches, or start again, every label is the name.
        """
        rows = self.rows("from dim_checkpoints order by checkpoint_index")
        stepped = [row for row in rows if row["step"] is not None]
        is_growing = len({(row["stage_number"], row["branch"]) for row in stepped}) < 2 and all(
            earlier["step"] < later["step"] for earlier, later in pairwise(stepped)
        )
        for row in rows:
            is_number = is_growing and row["step"] is not None
            row["label"] = f"{row['step']:,}" if is_number else row["checkpoint_name"]
        return rows

    @cached_property
    def labels(self) -> dict[str, str]:
        """checkpoint_id -> how sentences name it: `step 1,000`, or its name where it has no step of its own."""
        return {
            row["checkpoint_id"]: row["label"] if row["label"] == row["checkpoint_name"] else f"step {row['label']}"
            for row in self.checkpoints
        }

    def label_at(self, checkpoint_index: int) -> str:
        """How sentences name the checkpoint of this index; -1 is the last."""
        return self.labels[self.checkpoints[checkpoint_index]["checkpoint_id"]]

    @cached_property
    def places(self) -> list[str]:
        """Of phase, stage and branch, those in which the checkpoints differ."""
        columns = ("phase", "stage", "branch")
        return [column for column in columns if len({row[column] for row in self.checkpoints}) > 1]

    def placed(self, rows: list[Row]) -> list[Row]:
        """The rows, which have a checkpoint_index, with the `places` of their checkpoints added."""
        return [
            row | {place: self.checkpoints[row["checkpoint_index"]][place] for place in self.places} for row in rows
        ]

    @property
    def tau_words(self) -> str:
        """The threshold τ; with the name it was given by where that is another, such as `0.00975 (5x)`."""
        value = f"{self.setting['tau']:g}"
        return value if self.tau_id == value else f"{value} ({self.tau_id})"

    @cached_property
    def comparisons(self) -> list[Row]:
        """The rows of dim_series_pairs: what else the release holds, each with a `name` and a `sentence`.

        The sentence says whether its contributions, activity and roles may be compared with these, else why not.
        """
        rows = self.rows("from dim_series_pairs order by other_series_id, other_setting_id, other_tau_id")
        for row in rows:
            row["name"] = f"{row['other_series_id']}, τ = {row['other_tau_id']}"
            if row["other_setting_id"] != self.setting_id:
                row["name"] += f", setting {row['other_setting_id']}"
            row["sentence"] = "May be compared." if row["is_comparable"] else f"Not to be compared: {row['reason']}."
        return rows

    @cached_property
    def reference(self) -> Row:
        """The reference checkpoint's row of dim_checkpoints; the last phase's where there are several phases."""
        return next(row for row in reversed(self.checkpoints) if row["is_reference"])

    @cached_property
    def reference_words(self) -> str:
        """A sentence without its full stop: which checkpoint is the reference, of which phase, and whether for good."""
        parts = [
            f"{row['checkpoint_name']}, the last checkpoint of its phase ({row['phase']})"
            + ("; it is provisional: the series is still growing" if row["is_provisional"] else "")
            for row in self.checkpoints
            if row["is_reference"]
        ]
        return f"{'The reference is' if len(parts) == 1 else 'The references are'} {'; and '.join(parts)}"


def list_partitions(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str, str]]:
    """(series_id, setting_id, tau_id) of every partition of the release, sorted."""
    return connection.execute(f"select {', '.join(KEYS)} from dim_settings order by all").fetchall()


def open_partition(connection: duckdb.DuckDBPyConnection, key: tuple[str, str, str], release: str) -> Partition:
    """Restrict a connection of its own to one partition: a temporary view stands in front of every mart.

    `checkpoints` is dim_checkpoints without the columns that other marts have too, for joins.
    `connection` may be read-only: temporary views are not written to the file.
    """
    database = connection.execute("select current_database()").fetchall()[0][0]
    columns = connection.execute(
        "select table_name, list(column_name) from duckdb_columns() where database_name = ? group by all order by all",
        [database],
    ).fetchall()
    views = {}
    for table, names in columns:
        held = [(name, value) for name, value in zip(KEYS, key, strict=True) if name in names]
        condition = " and ".join(f"{name} = {_literal(value)}" for name, value in held) or "true"
        if table in _PAIR_MARTS:
            condition += " or " + " and ".join(f"other_{name} = {_literal(value)}" for name, value in held)
        views[table] = f"from main.{_name(table)} where {condition}"
        connection.execute(
            f"create temp view {_name(table)} as from {_name(database)}.main.{_name(table)} where {condition}"
        )
    views["checkpoints"] = (
        "select checkpoint_id, checkpoint_index, checkpoint_name, step, is_reference from dim_checkpoints"
    )
    connection.execute(f"create temp view checkpoints as {views['checkpoints']}")
    views["released_series"] = "from main.dim_series"
    connection.execute(f"create temp view released_series as from {_name(database)}.main.dim_series")
    return Partition(*key, release, connection, views)


def _dedent(sql: str) -> str:
    """A query without the indentation that it has in the code."""
    first, *others = sql.strip().splitlines()
    return "\n".join([first, *dedent("\n".join(others)).splitlines()])


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _name(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'
