"""What a fact's own subject adds, from answer tokens to marts; and a lake whose files know nothing of it yet."""

import json
import math
import random
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from tests.warehouse.raw_lake import commit, commit_path
from timecourse.build import build_warehouse

SERIES = "told"
LAYERS = 2
RELATIONS = {"capital": ("location", 4), "sport": ("name", 3)}  # group, number of facts
WITHOUT = {("capital", 3, 1), ("sport", 2, 0), ("sport", 2, 1)}  # fact and template that no other subject is found for
TEMPLATES = 2

Value = float | None


def predictions(name: str) -> dict[str, list[dict[str, Any]]]:
    """Raw tables of a checkpoint: answers of one to three tokens, each with its own numbers at every readout."""
    chance = random.Random(name)
    tables: dict[str, list[dict[str, Any]]] = {"prompts": [], "predictions": []}
    asked = [(relation_id, fact) for relation_id, (_, facts) in RELATIONS.items() for fact in range(facts)]
    for prompt_id, ((relation_id, fact), template_id) in enumerate(product(asked, range(TEMPLATES))):
        tables["prompts"].append(
            {
                "prompt_id": prompt_id,
                "relation_id": relation_id,
                "relation_group": RELATIONS[relation_id][0],
                "template_id": template_id,
                "fact_id": f"{relation_id}/{fact}",
                "subject": f"subject {fact}",
                "object": f"object {fact}",
            }
        )
        for index, readout in product(range(1 + fact % 3), range(-1, LAYERS + 1)):
            is_mismatched = readout == LAYERS and (relation_id, fact, template_id) not in WITHOUT
            tables["predictions"].append(
                {
                    "prompt_id": prompt_id,
                    "answer_token_index": index,
                    "readout": readout,
                    "rank": 0,
                    "log_prob": -chance.randint(0, 80) / 8,
                    "log_prob_mismatched": -chance.randint(0, 80) / 8 if is_mismatched else None,
                }
            )
    return tables


def expected(tables: Mapping[str, list[dict[str, Any]]]) -> dict[str, tuple[Value, Value]]:
    """Mean mismatched log-probability and gain of each fact, from the rows themselves."""
    sums: dict[int, tuple[float, Value]] = {}
    for row in tables["predictions"]:
        if row["readout"] == LAYERS:
            own, other = sums.get(row["prompt_id"], (0.0, 0.0))
            added = row["log_prob_mismatched"]
            sums[row["prompt_id"]] = (own + row["log_prob"], None if None in (other, added) else other + added)
    facts: dict[str, list[tuple[float, float]]] = {}
    for prompt in tables["prompts"]:
        own, other = sums[prompt["prompt_id"]]
        facts.setdefault(prompt["fact_id"], []).extend([] if other is None else [(own, other)])
    return {
        fact_id: (mean(other for _, other in pairs), mean(own - other for own, other in pairs))
        if pairs
        else (None, None)
        for fact_id, pairs in facts.items()
    }


def forget_mismatched(lake: Path, name: str, directory: Path) -> None:
    """Make a committed checkpoint what schema version 1 wrote."""
    file = directory / "predictions.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["log_prob_mismatched"]), file)
    path = commit_path(lake, SERIES, name)
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 1}))


def rows(database: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(database), read_only=True) as connection:
        return connection.execute(sql).fetchall()


FACTS = """
    select checkpoint_name, fact_id, mean_log_prob, mean_mismatched_log_prob, log_prob_gain
    from fct_fact_predictions join dim_checkpoints using (series_id, setting_id, checkpoint_id)"""
SCOPES = """
    select checkpoint_name, scope_id, mean_log_prob, gain_fact_count, mean_log_prob_gain, positive_gain_share,
        mean_log_prob_gain_low, mean_log_prob_gain_high, mean_mismatched_log_prob, mean_own_log_prob
    from fct_relation_accuracies join dim_checkpoints using (series_id, setting_id, checkpoint_id)
    where scope_kind in ('relation', 'all')"""


@pytest.mark.slow
def test_gains_are_those_of_the_tokens_and_unknown_in_an_older_lake(tmp_path: Path) -> None:
    """First every file is of schema version 1; then a checkpoint of the second joins them."""
    old, new = predictions("step0"), predictions("step1")
    forget_mismatched(tmp_path, "step0", commit(tmp_path, SERIES, "step0", old, step=0, layer_count=LAYERS))
    built = build_warehouse(tmp_path, theta="0.1", complete_series=[], replicates=50)
    assert {check.result for check in built.checks} == {"pass"}
    before = {name: rows(built.database, f"{query} order by all") for name, query in (("f", FACTS), ("s", SCOPES))}
    assert len(before["f"]) == 7 and len(before["s"]) == 3
    assert all(row[2] is not None for found in before.values() for row in found)
    assert all(row[3:] == (None, None) for row in before["f"])
    assert all(row[3] == 0 and {*row[4:]} == {None} for row in before["s"])

    commit(tmp_path, SERIES, "step1", new, step=1, layer_count=LAYERS)
    built = build_warehouse(tmp_path, theta="0.1", complete_series=[SERIES], replicates=50)
    assert {check.result for check in built.checks} == {"pass"}
    assert rows(built.database, f"{FACTS} where checkpoint_name = 'step0' order by all") == before["f"]
    gains = expected(new)
    assert gains["sport/2"] == (None, None) and sum(gain is None for _, gain in gains.values()) == 1
    found = rows(built.database, f"{FACTS} where checkpoint_name = 'step1'")
    assert {fact_id: numbers for _, fact_id, _, *numbers in found} == {
        fact_id: [pytest.approx(one, abs=1e-8) if one is not None else None for one in pair]
        for fact_id, pair in gains.items()
    }
    scopes = {scope_id: numbers for name, scope_id, _, *numbers in rows(built.database, SCOPES) if name == "step1"}
    for scope_id in (*RELATIONS, "all"):
        known = [pair for fact, pair in gains.items() if None not in pair and scope_id in ("all", fact.split("/")[0])]
        other, own = [pair[0] for pair in known], [pair[1] for pair in known]
        error = 1.959963984540054 * stdev(own) / math.sqrt(len(own))
        assert scopes[scope_id] == pytest.approx(
            [len(own), mean(own), mean(gain > 0 for gain in own), mean(own) - error, mean(own) + error, mean(other),
             mean(other) + mean(own)],
            abs=1e-8,
        )  # fmt: skip
    assert 0 < scopes["all"][2] < 1
