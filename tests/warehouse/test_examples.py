"""What the models' YAML promises its readers: examples that answer, a true dictionary, what each page reads."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest
import yaml
from altair.utils.schemapi import debug_mode

from tests.conftest import Finished
from tests.reports.conftest import PageReader
from timecourse.build import PACKAGE
from timecourse.dictionary import read_dictionary, read_lineage
from timecourse.reports.page import write_page
from timecourse.reports.partition import Partition, Row, list_partitions, open_partition
from timecourse.reports.site import PAGES

MARTS = [*sorted(path.stem for path in (PACKAGE / "models" / "marts").glob("*.sql")), "fct_check_results"]
DICTIONARY = {table["name"]: table for table in read_dictionary()}
EXAMPLES = [(name, number) for name, table in DICTIONARY.items() for number in range(len(table["examples"]))]
MART = re.compile(r"\b(?:dim|fct)_[a-z_]+\b")


@pytest.fixture(scope="module")
def disordered(staged_release: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The release's tables with their rows in another order."""
    with duckdb.connect() as connection:
        connection.execute(f"attach '{staged_release}/warehouse.duckdb' as release (read_only)")
        for name in MARTS:
            connection.execute(f"create table {name} as from release.main.{name} as row order by md5(row::varchar)")
        yield connection


@pytest.mark.parametrize("name", MARTS)
def test_every_table_has_two_examples(name: str) -> None:
    examples = DICTIONARY[name]["examples"]
    assert len(examples) == 2
    assert len({example["question"] for example in examples}) == 2
    assert all(example["question"].endswith("?") and name in MART.findall(example["sql"]) for example in examples)


@pytest.mark.parametrize(("name", "number"), EXAMPLES)
def test_an_example_answers_in_an_order_of_its_own(
    staged_release: Path, disordered: duckdb.DuckDBPyConnection, request: pytest.FixtureRequest, name: str, number: int
) -> None:
    """It finds rows, and the same ones in the same order wherever the tables' rows stand."""
    sql = DICTIONARY[name]["examples"][number]["sql"]
    with duckdb.connect(str(staged_release / "warehouse.duckdb"), read_only=True) as connection:
        rows = connection.execute(sql).fetchall()
    assert rows == disordered.execute(sql).fetchall()
    if not rows:  # what only a real extraction has
        release = request.getfixturevalue("small_release")
        with duckdb.connect(str(release / "warehouse.duckdb"), read_only=True) as connection:
            assert connection.execute(sql).fetchall()


def test_the_dictionary_says_what_the_release_holds(staged_release: Path) -> None:
    with duckdb.connect(str(staged_release / "warehouse.duckdb"), read_only=True) as connection:
        held: dict[str, dict[str, str]] = {}
        for table, column, kind in connection.execute(
            "select table_name, column_name, lower(data_type) from duckdb_columns() where not internal"
        ).fetchall():
            held.setdefault(table, {})[column] = kind
        for name, table in DICTIONARY.items():
            key = ", ".join(table["key"])
            assert connection.execute(f"select {key} from {name} group by all having count(*) > 1").fetchall() == []
    said = {name: {column["name"]: column["type"] for column in table["columns"]} for name, table in DICTIONARY.items()}
    assert said == held


def test_the_dictionary_is_part_of_the_release(staged_release: Path) -> None:
    file = staged_release / "dictionary.json"
    assert json.loads(file.read_text(encoding="utf-8")) == {
        "tables": list(DICTIONARY.values()),
        "lineage": read_lineage(),
    }
    manifest = json.loads((staged_release / "release.json").read_text(encoding="utf-8"))
    assert manifest["files"]["dictionary.json"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert "site/dictionary.html" in manifest["files"]


def test_the_dictionary_is_a_page_of_the_report(staged_release: Path) -> None:
    page = PageReader(staged_release / "site" / "dictionary.html")
    text = " ".join(page.text.split())
    for name, table in DICTIONARY.items():
        assert any(element.attributes.get("id") == name for element in page.elements)
        texts = [table["description"], *(column["description"] for column in table["columns"])]
        texts += [example[part] for example in table["examples"] for part in ("question", "sql")]
        for said in texts:
            assert " ".join(said.replace("`", "").split()) in text, name
    links = {
        element.attributes["href"]
        for path in (staged_release / "site").rglob("*.html")
        for element in PageReader(path).elements
        if element.tag == "a" and "dictionary.html" in (element.attributes["href"] or "")
    }
    assert links == {"dictionary.html", "../dictionary.html"}


@pytest.mark.slow
def test_dbt_documents_every_model(staged_release: Path, tmp_path: Path, run: Callable[..., Finished]) -> None:
    """In one page that asks nothing of a network and names no file of this machine."""
    lake = shutil.copytree(staged_release.parents[1], tmp_path / "lake", symlinks=True)
    file = tmp_path / "docs" / "models.html"
    done = run("docs", "--lake", lake, "--output", file)
    assert done.returncode == 0, done.stderr
    text = file.read_text(encoding="utf-8")
    for path in (PACKAGE / "models").rglob("*.sql"):
        assert f'"model.timecourse.{path.stem}": {{"database"' in text
    assert str(lake) not in text and str(PACKAGE.resolve()) not in text
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=.?https?:", text)

    # The dictionary's lineage is what dbt knows, and beyond it the raw tables, of which dbt knows nothing.
    manifest = json.loads((lake / "build" / "docs" / "manifest.json").read_text(encoding="utf-8"))
    models = [node for node in manifest["nodes"].values() if node["resource_type"] == "model"]
    known = {node["name"]: {name.rpartition(".")[2] for name in node["depends_on"]["nodes"]} for node in models}
    lineage = read_lineage()
    raw = {entry["name"] for entry in lineage if entry["layer"] == "raw"}
    assert {entry["name"]: set(entry["reads"]) - raw for entry in lineage if entry["name"] not in raw} == known
    assert {name for entry in lineage if entry["layer"] == "staging" for name in entry["reads"]} == raw
    assert not any(entry["reads"] for entry in lineage if entry["name"] in raw)


def test_exposures_name_what_each_page_reads(
    staged_release: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the SQL names while a page is written, and what else its source names."""
    asked: list[str] = []
    original = Partition.rows

    def rows(self: Partition, sql: str) -> list[Row]:
        asked.append(sql)
        return original(self, sql)

    monkeypatch.setattr(Partition, "rows", rows)
    read: dict[str, set[str]] = {}
    with duckdb.connect(str(staged_release / "warehouse.duckdb"), read_only=True) as connection:
        key = next(key for key in list_partitions(connection) if key[0] == "staged")
    for page in PAGES:
        asked.clear()
        with duckdb.connect(str(staged_release / "warehouse.duckdb"), read_only=True) as connection, debug_mode(False):
            partition = open_partition(connection, key, "a release")
            write_page(page.build(partition), partition, tmp_path, "", [])
        name = page.__name__.rpartition(".")[2]
        written = re.sub(r"\bcheckpoints\b", "dim_checkpoints", " ".join(asked))
        in_source = set(MART.findall(Path(page.__file__ or "").read_text(encoding="utf-8"))) & set(MARTS)
        read[f"report_{name}"] = set(MART.findall(written)) | in_source

    content = yaml.safe_load((PACKAGE / "models" / "exposures.yml").read_text(encoding="utf-8"))
    said = {
        exposure["name"]: {re.findall(r"'(\w+)'", upstream)[-1] for upstream in exposure["depends_on"]}
        for exposure in content["exposures"]
    }
    assert said == read


def test_documentation_needs_a_build(tmp_path: Path, run: Callable[..., Finished]) -> None:
    done = run("docs", "--lake", tmp_path / "lake", "--output", tmp_path / "models.html")
    assert done.returncode == 1 and "run `timecourse build`" in done.stderr
    assert not (tmp_path / "models.html").exists()
