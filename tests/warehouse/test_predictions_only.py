"""A series measured for its predictions alone goes the whole way: marts, gates, release and report."""

from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.warehouse.raw_lake import commit
from timecourse.build import build_warehouse
from timecourse.dictionary import read_dictionary
from timecourse.lake import Lake
from timecourse.release import publish
from timecourse.reports.site import PAGES

FACTS = 8
RECALLED = {0: 0, 10: 2, 20: 7, 30: 1, 40: 8}  # step -> facts recalled first; the one after them is among the ten


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = Lake(tmp_path_factory.mktemp("predictions"))
    lake.create()
    for step, recalled in RECALLED.items():
        tables: dict[str, list[dict[str, Any]]] = {"prompts": [], "prompt_tokens": [], "predictions": []}
        for fact in range(FACTS):
            rank = 0 if fact < recalled else 9 if fact == recalled else 10
            tables["prompts"].append(
                {"prompt_id": fact, "relation_id": "capital", "fact_id": f"{fact}", "subject": "s", "object": "o"}
            )
            tables["prompt_tokens"] += [
                {"prompt_id": fact, "position": 0, "span_role": "subject", "is_answer_predicting": True},
                {"prompt_id": fact, "position": 1, "span_role": "answer", "token_id": fact},
            ]
            tables["predictions"] += [
                {"prompt_id": fact, "readout": readout, "rank": rank if readout == 2 else 99}
                for readout in range(-1, 3)
            ]
        commit(lake.root, "told", f"step{step}", tables, step=step, layer_count=2)
    built = build_warehouse(lake.root, theta="0.1", complete_series=["told"], replicates=50)
    return publish(lake, lake.contents(), {"theta": "0.1"}, built.checks).path


def rows(release: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(release / "warehouse.duckdb"), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_accuracies_are_those_of_the_ranks(release: Path) -> None:
    found = rows(
        release,
        """select cumulative_step, top1_accuracy, top10_accuracy
        from fct_relation_accuracies join dim_checkpoints using (series_id, setting_id, checkpoint_id)
        where scope_kind = 'relation' order by checkpoint_index""",
    )
    assert found == [(step, recalled / FACTS, min(recalled + 1, FACTS) / FACTS) for step, recalled in RECALLED.items()]


def test_what_needs_attributions_is_empty_and_said_to_be(release: Path) -> None:
    assert rows(release, "select count(*) from fct_component_histories") == [(0,)]
    warned = rows(release, "select check_id, failing_row_count from fct_check_results where check_id like '%has_roles'")
    assert warned == [("release.fct_component_histories.checkpoint_has_roles", len(RECALLED))]
    assert rows(release, "select check_id from fct_check_results where result = 'fail'") == []
    names = {f"{page.SLUG}.html" for page in PAGES} - {"compare.html"}  # there is one series
    assert names | {"dictionary.html"} == {path.name for path in (release / "site").glob("*.html")}
    assert "100.0" in (release / "site" / "index.html").read_text(encoding="utf-8")


def test_every_example_runs(release: Path) -> None:
    for table in read_dictionary():
        for example in table["examples"]:
            rows(release, example["sql"])
