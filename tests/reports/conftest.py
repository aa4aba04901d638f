"""Sites rendered from a real release and from copies of it that are hostile, tiny or many; and a reader of pages."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import pytest

from timecourse.reports.partition import list_partitions
from timecourse.reports.site import render_site

from .browser import CHROMIUM, FLAGS, Window, sync_api

HOSTILE = {
    "capital_of": "<script>window.pwned = 1</script>\"' &amp; ünï\u2028code",
    "tiny": "</script><img src=x onerror='window.pwned = 2'>",
    "main": "main \"quoted\\\" <b>é↯</b>' + alert(1) + '",
    "France": "{{ 7 * 7 }}<svg onload=window.pwned=3>",
    "Paris": '=HYPERLINK(javascript:alert(4)),\n"Paris"',
    " capital": "</script><script>window.pwned = 5</script>",
}
"""What names of the release are replaced by; every one must appear on the pages as plain text."""


@dataclass
class Element:
    """One element of a page: its tag, attributes and own text."""

    tag: str
    attributes: dict[str, str | None]
    text: str = ""


@dataclass
class Site:
    """A rendered site, its warehouse and the files that render_site returned."""

    folder: Path
    warehouse: Path
    files: list[Path] = field(default_factory=list)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a query over the warehouse that the site was made from."""
        with duckdb.connect(str(self.warehouse), read_only=True) as connection:
            return connection.execute(sql).fetchall()

    def page(self, slug: str) -> "PageReader":
        """One page, parsed."""
        return PageReader(self.folder / f"{slug}.html")


class PageReader(HTMLParser):
    """The elements, tables, embedded JSON and visible text of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.elements: list[Element] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.scripts: list[Element] = []
        self.text = ""
        self._table: list[list[str]] | None = None
        self._in_cell = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.elements.append(element)
        if tag == "script":
            self.scripts.append(element)
        elif tag == "table":
            self._table = self.tables.setdefault(element.attributes.get("id") or "map", [])
        elif tag == "tr" and self._table is not None:
            self._table.append([])
        elif tag in ("td", "th") and self._table is not None:
            self._table[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False
        elif tag == "table":
            self._table = None

    def handle_data(self, data: str) -> None:
        if self.scripts and self.elements[-1] is self.scripts[-1] and self.cdata_elem == "script":
            self.scripts[-1].text += data
            return
        self.text += data
        if self._in_cell and self._table:
            self._table[-1][-1] += data

    def json(self, element_id: str) -> Any:
        """What the script element with this id holds."""
        return json.loads(next(script.text for script in self.scripts if script.attributes.get("id") == element_id))

    def specifications(self) -> dict[str, dict[str, Any]]:
        """Figure id -> its Vega-Lite specification."""
        return {
            identifier.removesuffix("-chart"): json.loads(script.text)
            for script in self.scripts
            if (identifier := script.attributes.get("id") or "").endswith("-chart")
        }

    def chart_rows(self, figure_id: str) -> list[dict[str, Any]]:
        """The data of a chart."""
        specification = self.specifications()[figure_id]
        name = _first_data(specification)["name"]
        return list(specification["datasets"][name])

    def body(self, table: str) -> list[list[str]]:
        """The rows of a table without its heading."""
        return self.tables[table][1:]


def _first_data(node: Any) -> dict[str, Any]:
    if "data" in node:
        return dict(node["data"])
    return next(_first_data(child) for child in node["layer"])


@pytest.fixture(scope="session")
def browser() -> Iterator["sync_api.Browser"]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def window(browser: "sync_api.Browser") -> Iterator[Window]:
    """A fresh window; the test fails where it recorded a problem."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    window = Window(page)
    yield window
    page.close()
    assert not window.problems, window.problems


MadeOnce = Callable[[str, Callable[[Path], object]], Path]
Change = Callable[[duckdb.DuckDBPyConnection], None]
Render = Callable[[str, Change | None], Site]


@pytest.fixture(scope="session")
def rendered(small_release: Path, made_once: MadeOnce) -> Render:
    """Renders the release, or a copy of it that is changed first; each is made once. Read only."""

    def render(name: str, change: Change | None) -> Site:
        def fill(folder: Path) -> None:
            if change is not None:
                with changed(small_release, folder) as connection:
                    change(connection)
            files = render_site((small_release if change is None else folder) / "warehouse.duckdb", folder / "site")
            (folder / "files.json").write_text(json.dumps([str(path) for path in files]), encoding="utf-8")

        folder = made_once(f"site-{name}", fill)
        files = [Path(path) for path in json.loads((folder / "files.json").read_text(encoding="utf-8"))]
        return Site(folder / "site", (small_release if change is None else folder) / "warehouse.duckdb", files)

    return render


@contextmanager
def changed(release: Path, folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A copy of the release's warehouse in `folder`, open for changes."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(release / "warehouse.duckdb", folder / "warehouse.duckdb")
    with duckdb.connect(str(folder / "warehouse.duckdb")) as connection:
        yield connection


@pytest.fixture(scope="session")
def site(rendered: Render) -> Site:
    """The site of the release as it is: one series, one setting, one tau."""
    return rendered("as it is", None)


@pytest.fixture(scope="session")
def hostile_site(rendered: Render) -> Site:
    """The same release, with names that try to break out of every place they stand in."""

    def change(connection: duckdb.DuckDBPyConnection) -> None:
        columns = connection.execute(
            "select table_name, column_name from duckdb_columns() where data_type = 'VARCHAR' and not internal"
        ).fetchall()
        for table, column in columns:
            for name, other in HOSTILE.items():
                connection.execute(f'update {table} set "{column}" = ? where "{column}" = ?', [other, name])
        connection.execute(
            """insert into fct_check_results by name
            select 'check <i>' as check_id, 'dbt' as home, 'warehouse' as stage, 't' as table_name,
            'a rule </td></table>' as rule, 'fail' as severity, 'fail' as result, null as observed,
            1 as failing_row_count, '[{"name": "</script><script>window.pwned = 6</script>"}]' as failing_rows"""
        )

    return rendered("hostile", change)


@pytest.fixture(scope="session")
def staged_site(staged_release: Path) -> dict[str, Site]:
    """The reports, by series, of the release with stages, siblings, phases, names that were not used, and seeds."""
    with duckdb.connect(str(staged_release / "warehouse.duckdb"), read_only=True) as connection:
        series = [name for name, _, _ in list_partitions(connection)]
    folders = sorted(path for path in (staged_release / "site").iterdir() if path.is_dir() and path.name != "assets")
    return {
        name: Site(folder, staged_release / "warehouse.duckdb") for name, folder in zip(series, folders, strict=True)
    }


@pytest.fixture(scope="session")
def small_site(rendered: Render) -> Site:
    """One checkpoint without a step, and a relation of one fact without an interval."""

    def change(connection: duckdb.DuckDBPyConnection) -> None:
        last = "(select checkpoint_id from dim_checkpoints order by checkpoint_index desc limit 1)"
        fact = "(select min(fact_id) from dim_facts where relation_id = 'leader_of')"
        connection.execute(f"create table kept as select {last} as checkpoint_id, {fact} as fact_id")
        keep = "(select checkpoint_id from kept)"
        for (table,) in connection.execute(
            "select table_name from duckdb_columns() where column_name = 'checkpoint_id' and not internal"
        ).fetchall():
            if table not in ("kept", "fct_check_results"):
                connection.execute(f"delete from {table} where checkpoint_id <> {keep}")
        for table in ("fct_role_transitions", "fct_role_switches", "fct_turnovers"):
            connection.execute(f"delete from {table}")
        connection.execute("update dim_checkpoints set checkpoint_index = 0, previous_checkpoint_id = null")
        connection.execute("update fct_role_stabilities set previous_member_count = null, iou_previous = null")
        connection.execute(
            f"""update fct_component_histories set role_since_checkpoint_id = {keep}, role_since_step = null,
            previous_checkpoint_id = null, previous_primary_role = null, has_changed = false, change_count = 0"""
        )
        connection.execute(
            """update fct_relation_convergences set converged_checkpoint_id = null, previous_checkpoint_id = null,
            converged_step = null, previous_step = null, censoring = 'right'"""
        )
        for table in ("dim_facts", "fct_fact_predictions"):
            connection.execute(
                f"delete from {table} where relation_id = 'leader_of' and fact_id <> (select fact_id from kept)"
            )
        connection.execute(
            """update fct_relation_accuracies set fact_count = 1, top1_low = null, top1_high = null, top10_low = null,
            top10_high = null, all_tokens_low = null, all_tokens_high = null where scope_id = 'leader_of'"""
        )
        connection.execute("drop table kept")

    return rendered("small", change)


@pytest.fixture(scope="session")
def many_site(rendered: Render) -> Site:
    """Two taus, the second with an id that is no safe folder name and without the history of one head."""

    def change(connection: duckdb.DuckDBPyConnection) -> None:
        for table in tables_with(connection, "tau_id"):
            connection.execute(f"insert into {table} select * replace ('../../<b>''\"' as tau_id) from {table}")
        connection.execute("delete from fct_component_histories where component_id = 'L0H0' and tau_id like '..%'")
        pair_all(connection)

    return rendered("many", change)


@pytest.fixture(scope="session")
def series_site(rendered: Render) -> Site:
    """Three series: `tiny`, a post-norm one that is comparable with it, and a parallel one that is not."""

    def change(connection: duckdb.DuckDBPyConnection) -> None:
        for name in ("post & norm", "side"):
            for table in tables_with(connection, "series_id"):
                connection.execute(
                    f"insert into {table} select * replace (? as series_id) from {table} where series_id = 'tiny'",
                    [name],
                )
        connection.execute("update dim_series set topology = 'sequential_post_norm' where series_id = 'post & norm'")
        connection.execute(
            "update dim_series set topology = 'parallel_pre_norm', block = 'parallel' where series_id = 'side'"
        )
        pair_all(connection)
        connection.execute(
            """update dim_series_pairs set is_comparable = false, reason = series_id || ' <is> not ' || other_series_id
            where 'side' in (series_id, other_series_id)"""
        )

    return rendered("series", change)


@pytest.fixture(scope="session")
def ablated_site(rendered: Render) -> Site:
    """The release with its first and last checkpoint ablated by two methods, filled in by hand."""
    return rendered("ablated", silence)


@pytest.fixture(scope="session")
def hostile_ablated_site(rendered: Render) -> Site:
    """The same with hostile names, of a method too."""

    def change(connection: duckdb.DuckDBPyConnection) -> None:
        silence(connection)
        names = HOSTILE | {"resample": HOSTILE["tiny"] + "'\\"}
        for table, column in connection.execute(
            "select table_name, column_name from duckdb_columns() where data_type = 'VARCHAR' and not internal"
        ).fetchall():
            for name, other in names.items():
                connection.execute(f'update {table} set "{column}" = ? where "{column}" = ?', [other, name])

    return rendered("hostile_ablated", change)


def silence(connection: duckdb.DuckDBPyConnection) -> None:
    """Fill the marts of ablations: every number differs, entity has no set at first, fact_answer no random ones.

    Of relations, capital_of alone has a set of fact_answer. Rows of single relations must not be taken for the whole.
    """
    keys = "series_id, setting_id, tau_id, checkpoint_id, method"
    measured = """dim_settings join dim_checkpoints using (series_id, setting_id),
        (values ('mean', 0), ('resample', 1)) as methods (method, m)"""
    connection.execute(
        f"""insert into fct_role_effects by name
        select {keys}, theta, role, scope_kind, if(scope_kind = 'all', 'all', 'capital_of') as scope_id,
            if(scope_kind = 'all', null, 'capital_of') as relation_id, r + 0.5 as member_count, 6 as fact_count,
            if(scope_kind = 'all', -(r + 1) * (checkpoint_index + 1) / 7 - m / 30, 99) as effect,
            effect - 0.25 as effect_low, effect + 0.125 as effect_high, if(r = 3, 0, 20) as random_count,
            if(r = 3, null, -0.01 - effect / 13) as random_mean, random_mean - 0.02 as random_low,
            random_mean + 0.03 as random_high, effect - random_mean as excess, excess - 0.1 as excess_low,
            excess + 0.2 as excess_high, if(r = 3, null, (r + 1) / 21) as p_value, p_value * 1.5 as q_value,
            effect / 17 as template_effect, random_mean / 19 as random_template_mean,
            100 * effect as mean_rank_change, 100 * random_mean as random_mean_rank_change
        from {measured}, (values ('general', 0), ('entity', 1), ('relation_answer', 2), ('fact_answer', 3))
            as roles (role, r), (values ('all'), ('relation')) as scopes (scope_kind)
        where checkpoint_index <> 1 and (role <> 'entity' or checkpoint_index = 2)"""
    )
    connection.execute(
        f"""insert into fct_relation_specificities by name
        select {keys}, theta, role, own.relation_id as set_relation_id, scored.relation_id as scored_relation_id,
            1.5 as member_count, scored.fact_count,
            -(checkpoint_index + 1) * if(set_relation_id = scored_relation_id, 2, 0.11) - m / 30 - length(role) / 99
                - length(set_relation_id || role) / 999 as effect,
            effect - 0.25 as effect_low, effect + 0.125 as effect_high, effect / 17 as template_effect,
            10 * effect as mean_rank_change
        from {measured}, (values ('relation_answer'), ('fact_answer')) as roles (role),
            dim_relations as own, dim_relations as scored
        where checkpoint_index <> 1 and (role = 'relation_answer' or set_relation_id = 'capital_of')"""
    )
    connection.execute(
        f"""insert into fct_score_effects by name
        select {keys}, component_kind, measure, if(component_kind = 'head', 15, 3) as component_count,
            if(measure = 'rate' and checkpoint_index = 0, null, (m - k - n) / 7 + checkpoint_index / 9)
                as rank_correlation
        from {measured}, (values ('head', 0), ('ffn', 1)) as kinds (component_kind, k),
            (values ('score', 0), ('rate', 1), ('c_direct', 2)) as measures (measure, n)
        where checkpoint_index <> 1"""
    )


def tables_with(connection: duckdb.DuckDBPyConnection, column: str) -> list[str]:
    """Tables that have a column of this name."""
    rows = connection.execute(
        "select table_name from duckdb_columns() where column_name = ? and not internal", [column]
    ).fetchall()
    return [table for (table,) in rows]


def pair_all(connection: duckdb.DuckDBPyConnection) -> None:
    """Make every two reports of a release comparable."""
    connection.execute(
        """insert into dim_series_pairs by name
        select ones.series_id, ones.setting_id, ones.tau_id, others.series_id as other_series_id,
            others.setting_id as other_setting_id, others.tau_id as other_tau_id, true as is_comparable
        from dim_settings as ones, dim_settings as others
        where (ones.series_id, ones.setting_id, ones.tau_id) <> (others.series_id, others.setting_id, others.tau_id)"""
    )
