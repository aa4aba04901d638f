"""Series side by side: what is matched is written down here, and every value is worked out a second time."""

import math
import random
from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from statistics import fmean
from typing import Any

import duckdb
import pytest

from tests.warehouse.random_lake import random_activity
from tests.warehouse.raw_lake import commit, entry
from tests.warehouse.roles_twin import ROLES, Checkpoint, Prompt, kind_of
from timecourse.build import build_warehouse
from timecourse.lake import Lake

THETA = "0.25"
TAU_IDS = ("0.05", "0.1")
SHAPES = {"one": (2, 3), "two": (3, 4), "side": (2, 3)}  # first word of a series -> layers, heads
TOKENS: dict[str, list[int | None]] = {  # a checkpoint is named by its tokens
    "one a": [0, 100, 200, 400, 800],
    "one b": [0, 110, 200, 430, 1600],
    "one c": [None, None, None],
    "side": [0, 100],
    "two a": [0, 90, 105, 250, 501, 1000],
    "two b": [0, 100, 205, 2000, None],
}
STEPS: dict[str, list[int | None]] = {  # where they are not a tenth of the tokens
    "one c": [10, 20, None],
    "two b": [0, 10, 20, 200, None],
}
TWIG = ("two b", "twig", 400)
"""A checkpoint beside the main line, where another series has just as many tokens."""
PREDICTIONS_ONLY = ("two b", "205")
SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    **{(series_id, "setting"): {"tau_ids": TAU_IDS} for series_id in TOKENS},
    ("one a", "l2"): {"tau_ids": ("0.05",), "norm": "l2"},
    ("one a", "facts"): {"tau_ids": ("0.1",), "facts_sha256": "other facts"},
    ("one a", "version"): {"tau_ids": TAU_IDS, "extractor_version": 2},
}

MATCHES: dict[tuple[str, str], list[tuple[str, str, str]]] = {
    ("one a", "one b"): [("0", "0", "tokens"), ("100", "110", "tokens"), ("200", "200", "tokens"),
                         ("400", "430", "tokens")],
    ("one a", "one c"): [("100", "step10", "step"), ("200", "step20", "step")],
    ("one b", "one c"): [("200", "step20", "step")],
    ("one a", "two a"): [("0", "0", "tokens"), ("100", "105", "tokens"), ("200", "250", "tokens"),
                         ("800", "1000", "tokens")],
    ("one a", "two b"): [("0", "0", "tokens"), ("100", "100", "tokens"), ("200", "205", "tokens")],
    ("one b", "two a"): [("0", "0", "tokens"), ("110", "105", "tokens"), ("200", "250", "tokens"),
                         ("430", "501", "tokens")],
    ("one b", "two b"): [("0", "0", "tokens"), ("110", "100", "tokens"), ("200", "205", "tokens"),
                         ("1600", "2000", "tokens")],
    ("one c", "two b"): [("main", "main", "end")],
    ("two a", "two b"): [("0", "0", "tokens"), ("105", "100", "tokens"), ("250", "205", "tokens")],
}  # fmt: skip
SETTING_PAIRS: dict[tuple[str, ...], str] = {  # of "one a": setting and tau of both -> what differs
    ("facts", "0.1", "l2", "0.05"): "facts, tau, norm",
    ("facts", "0.1", "setting", "0.05"): "facts, tau",
    ("facts", "0.1", "setting", "0.1"): "facts",
    ("l2", "0.05", "setting", "0.05"): "norm",
    ("l2", "0.05", "setting", "0.1"): "tau, norm",
}
"""Every series also has two tau in one setting."""
PAIR = ("series_id", "setting_id", "tau_id", "other_series_id", "other_setting_id", "other_tau_id")

Place = tuple[str, ...]
"""Series, setting, tau and checkpoint name."""
Pair = tuple[str, ...]
"""Series, setting and tau, twice."""
Measured = tuple[float, float | None, float | None]
"""A value and its interval."""


@dataclass
class Compared:
    connection: duckdb.DuckDBPyConnection
    twins: dict[Place, Checkpoint]
    predictions: dict[Place, tuple[float, float]]
    """Accuracy and mean log-probability."""

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql).fetchall()


def names(series_id: str, setting_id: str = "setting") -> list[str]:
    """The main line's checkpoints."""
    places = zip(TOKENS[series_id], steps(series_id), strict=True)
    found = [str(tokens) if tokens is not None else f"step{step}" if step else "main" for tokens, step in places]
    return found if setting_id == "setting" else found[: {"l2": 3, "facts": 2, "version": 1}[setting_id]]


def steps(series_id: str) -> list[int | None]:
    return STEPS.get(series_id) or [None if tokens is None else tokens // 10 for tokens in TOKENS[series_id]]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    lake = tmp_path_factory.mktemp("compared")
    prompts, tables = four_relations()
    twins: dict[Place, Checkpoint] = {}
    predictions: dict[Place, tuple[float, float]] = {}
    for (series_id, setting_id), values in SETTINGS.items():
        twig = [TWIG[1]] if (series_id, setting_id) == (TWIG[0], "setting") else []
        for name in [*names(series_id, setting_id), *twig]:
            chance = random.Random(f"{series_id}/{setting_id}/{name}")
            layers, heads = SHAPES[series_id.split()[0]]
            components = [
                f"L{layer}{part}" for layer in range(layers) for part in ["F", *map("H{}".format, range(heads))]
            ]
            attributions: list[dict[str, Any]] = []
            for tau_id in values["tau_ids"]:
                if (series_id, name) != PREDICTIONS_ONLY:
                    active = activity(chance, components, prompts, attributions, tau_id)
                    twin = Checkpoint(name, ("pretraining", ""), "main", prompts, active)
                    twin.decide_roles(Fraction(THETA))
                    twins[series_id, setting_id, tau_id, name] = twin
            outcomes = [(chance.choice([0, 5]), -chance.randint(0, 24) / 8) for _ in prompts]
            for tau_id in values["tau_ids"]:
                predictions[series_id, setting_id, tau_id, name] = (
                    mean_over_facts(prompts, [float(rank == 0) for rank, _ in outcomes]),
                    mean_over_facts(prompts, [log_prob for _, log_prob in outcomes]),
                )
            predicted = [
                {"prompt_id": number, "readout": layers, "rank": rank, "log_prob": log_prob}
                for number, (rank, log_prob) in enumerate(outcomes)
            ]
            commit(
                lake, series_id, name, {**tables, "attributions": attributions, "predictions": predicted},
                topology="parallel_pre_norm" if series_id == "side" else "sequential_pre_norm",
                layer_count=layers, head_count=heads, kv_head_count=heads, setting_id=setting_id,
                **{**values, "tau_ids": list(values["tau_ids"]), "taus": [float(each) for each in values["tau_ids"]]},
            )  # fmt: skip
    for series_id in TOKENS:
        entries = [
            entry(number, name, step=step, tokens_reported=tokens)
            for number, (name, step, tokens) in enumerate(
                zip(names(series_id), steps(series_id), TOKENS[series_id], strict=True)
            )
        ]
        if series_id == TWIG[0]:
            entries.append(entry(99, TWIG[1], step=40, tokens_reported=TWIG[2], branch="twig"))
        recipe_id = "two" if series_id.startswith("two") else "one"
        Lake(lake).declare_series(series_id, complete=True, recipe_id=recipe_id, checkpoints=entries)
    result = build_warehouse(lake, theta=THETA, complete_series=[], replicates=20)
    assert [check for check in result.checks if check.result != "pass"] == []
    return Compared(duckdb.connect(str(result.database), read_only=True), twins, predictions)


def four_relations() -> tuple[list[Prompt], dict[str, list[dict[str, Any]]]]:
    """One fact has two templates."""
    prompts: list[Prompt] = []
    tables: dict[str, list[dict[str, Any]]] = {"prompts": [], "prompt_tokens": []}
    for relation_id in ("capital", "author", "river", "founder"):
        for fact in range(-(relation_id == "capital"), 6):
            number, fact_id = len(prompts), f"{relation_id}/{max(fact, 0)}"
            prompts.append(Prompt(relation_id, fact_id, {0, 1, 2}, {1}, {1}))
            row = {"relation_id": relation_id, "template_id": -min(fact, 0), "fact_id": fact_id}
            tables["prompts"].append({"prompt_id": number, "subject": "s", "object": "o", **row})
            tables["prompt_tokens"] += [
                {"prompt_id": number, "position": at, "span_role": span, "is_answer_predicting": at == 1}
                for at, span in enumerate(("template", "subject", "answer"))
            ]
    return prompts, tables


def activity(
    chance: random.Random,
    components: list[str],
    prompts: list[Prompt],
    attributions: list[dict[str, Any]],
    tau_id: str,
) -> dict[str, list[set[int]]]:
    """Random, but for a few components that are active for one relation's answers only: specific ones."""
    planted = [each for each in components if chance.random() < 0.2]
    active = random_activity(
        chance, [each for each in components if each not in planted], prompts, attributions, tau_id
    )
    for component in planted:
        active[component] = [{1} if prompt.relation_id == "author" else set() for prompt in prompts]
        attributions += [
            {"tau_id": tau_id, "prompt_id": number, "position": 1, "component_id": component}
            for number, positions in enumerate(active[component])
            if positions
        ]
    return active


def mean_over_facts(prompts: list[Prompt], values: list[float]) -> float:
    by_fact: dict[str, list[float]] = defaultdict(list)
    for prompt, value in zip(prompts, values, strict=True):
        by_fact[prompt.fact_id].append(value)
    return fmean(fmean(each) for each in by_fact.values())


def share(count: int, total: int) -> float | None:
    return count / total if total else None


def role_statistics(compared: Compared, place: Place, kind: str) -> dict[tuple[str, str], float | None]:
    """What follows from the roles of one checkpoint, and of the one before it."""
    twin = compared.twins[place]
    roles = {each: twin.primary_role(each) for each in twin.active if kind_of(each) == kind}
    active = [each for each, role in roles.items() if role != "inactive"]
    specific = {
        component
        for component, role in compared.rows(
            "select component_id, role from fct_role_memberships "
            f"where (series_id, setting_id, tau_id, checkpoint_id) = ({literals(place)}) and is_specific"
        )
        if roles.get(component) == role
    }
    found = {f"{role}_share": share(sum(roles[each] == role for each in active), len(active)) for role in ROLES}
    found["active_share"] = share(len(active), len(roles))
    found["specific_share"] = share(len(specific), len(active))
    if before := previous(compared, place):
        old = {each: compared.twins[(*place[:3], before)].primary_role(each) for each in roles}
        counted = [each for each in roles if {old[each], roles[each]} != {"inactive"}]
        found["turnover"] = share(sum(old[each] != roles[each] for each in counted), len(counted))
    return {(statistic, kind): value for statistic, value in found.items()}


def literals(place: Place) -> str:
    return ", ".join(f"'{each}'" for each in (*place[:3], f"{place[0]}/{place[3]}"))


def previous(compared: Compared, place: Place) -> str | None:
    line = [name for name in names(*place[:2]) if (*place[:3], name) in compared.twins]
    at = line.index(place[3])
    return line[at - 1] if at else None


def statistics(compared: Compared, place: Place) -> dict[tuple[str, str], Measured]:
    """Values by statistic and kind. Corrected overlaps and intervals have tests of their own: they are looked up."""
    accuracy, log_prob = compared.predictions[place]
    ((low, high),) = compared.rows(
        "select top1_low, top1_high from fct_relation_accuracies where scope_kind = 'all' "
        f"and (series_id, setting_id, '{place[2]}', checkpoint_id) = ({literals(place)})"
    )
    found: dict[tuple[str, str], Measured] = {
        ("accuracy", "all"): (accuracy, low, high),
        ("mean_log_prob", "all"): (log_prob, None, None),
    }
    if place not in compared.twins:
        return found
    for kind in ("head", "ffn"):
        for key, value in role_statistics(compared, place, kind).items():
            if value is not None:
                found[key] = (value, None, None)
    for kind, value, low, high in compared.rows(
        "select component_kind, iou_reference_corrected, iou_reference_corrected_low, iou_reference_corrected_high "
        f"from fct_role_stabilities where (series_id, setting_id, tau_id, checkpoint_id) = ({literals(place)}) "
        "and role = 'general' and iou_reference_corrected is not null"
    ):
        found["corrected_overlap", kind] = (value, low, high)
    for kind, low, high in compared.rows(
        "select component_kind, turnover_low, turnover_high from fct_turnovers "
        f"where (series_id, setting_id, tau_id, to_checkpoint_id) = ({literals(place)}) and role = 'all' "
        "and turnover is not null"
    ):
        found["turnover", kind] = (found["turnover", kind][0], low, high)
    return found


def all_matches() -> dict[Pair, list[tuple[str, str, str]]]:
    matches: dict[Pair, list[tuple[str, str, str]]] = {
        (one, "setting", tau_id, other, "setting", tau_id): found
        for (one, other), found in MATCHES.items()
        for tau_id in TAU_IDS
    }
    two_taus = [(series_id, setting_id, "0.05", series_id, setting_id, "0.1") for series_id, setting_id in SETTINGS]
    for pair in [pair for pair in two_taus if pair[1] in ("setting", "version")]:
        matches[pair] = [(name, name, "checkpoint") for name in names(*pair[:2])]
    for setting_id, tau_id, other_setting_id, other_tau_id in SETTING_PAIRS:
        both = set(names("one a", setting_id)) & set(names("one a", other_setting_id))
        pair = ("one a", setting_id, tau_id, "one a", other_setting_id, other_tau_id)
        matches[pair] = [(name, name, "checkpoint") for name in both]
    return matches


def differences_of(pair: Pair) -> str | None:
    """What differs between two settings of one series."""
    return SETTING_PAIRS.get((*pair[1:3], *pair[4:6]), "tau") if pair[0] == pair[3] else None


def pair_kind(pair: Pair) -> str:
    if pair[0] == pair[3]:
        return "same_series"
    return "same_recipe" if pair[0].split()[0] == pair[3].split()[0] else "other_recipe"


def expected_comparisons(compared: Compared) -> dict[tuple[str, ...], tuple[Any, ...]]:
    expected = {}
    for pair, matches in all_matches().items():
        differs_in = differences_of(pair)
        for name, other_name, matched_by in matches:
            one, other = (*pair[:3], name), (*pair[3:], other_name)
            others = statistics(compared, other)
            for key, measured in statistics(compared, one).items():
                if key not in others:
                    continue
                if key[1] == "all" and ("facts" in (differs_in or "") or pair[:2] == pair[3:5]):
                    continue
                if key[0] == "turnover":
                    since = previous(compared, one), previous(compared, other)
                    if since not in [match[:2] for match in matches]:
                        continue
                row = (f"{pair[0]}/{name}", f"{pair[3]}/{other_name}", matched_by, pair_kind(pair), differs_in)
                expected[*pair, *key, row[0]] = (*row, *measured, *others[key], *difference(measured, others[key]))
    return expected


def difference(one: Measured, other: Measured) -> Measured:
    (value, low, high), (other_value, other_low, other_high) = one, other
    found = value - other_value
    if low is None or high is None or other_low is None or other_high is None:
        return found, None, None
    below, above = math.hypot(value - low, other_high - other_value), math.hypot(high - value, other_value - other_low)
    return found, found - below, found + above


@pytest.fixture(scope="module")
def expected(compared: Compared) -> dict[tuple[str, ...], tuple[Any, ...]]:
    return expected_comparisons(compared)


def test_comparisons(compared: Compared, expected: dict[tuple[str, ...], tuple[Any, ...]]) -> None:
    """Every row and no other: none with the parallel series, none by another extractor, none matched otherwise."""
    found = {
        row[:9]: row[8:]
        for row in compared.rows(
            f"select {', '.join(PAIR)}, statistic, component_kind, checkpoint_id, other_checkpoint_id, matched_by, "
            "pair_kind, differs_in, value, value_low, value_high, other_value, other_low, other_high, difference, "
            "difference_low, difference_high from fct_series_comparisons"
        )
    }
    assert found.keys() == expected.keys()
    for key, row in expected.items():
        assert found[key][:5] == row[:5], key
        assert found[key][5:] == tuple(
            None if value is None else pytest.approx(value, abs=1e-8) for value in row[5:]
        ), key
    kinds = {row[3] for row in expected.values()}
    assert kinds == {"same_series", "same_recipe", "other_recipe"}
    # Every statistic takes values other than 0, and differs.
    assert {key[6] for key, row in expected.items() if row[5] and row[11]} == {key[6] for key in expected}
    by_statistic = {key[6] for key, row in expected.items() if row[12] is not None}
    assert by_statistic == {"accuracy", "turnover", "corrected_overlap"}
    assert {key[6] for key in expected} - by_statistic == {
        "mean_log_prob", "active_share", "specific_share", *(f"{role}_share" for role in ROLES)
    }  # fmt: skip


def test_what_is_no_comparison(compared: Compared) -> None:
    """Accuracies of other facts, and of one measurement at two tau; of another norm they are one."""
    asked = "select distinct differs_in from fct_series_comparisons where pair_kind = 'same_series'"
    assert set(compared.rows(f"{asked} and statistic = 'accuracy'")) == {("norm",), ("tau, norm",)}
    assert set(compared.rows(f"{asked} and statistic = 'active_share'")) == {
        (differs,) for differs in ("tau", *SETTING_PAIRS.values())
    }


def test_turnovers_are_compared_over_one_stretch(compared: Compared) -> None:
    """From 0 to 100 is not from 90 to 105, but from 100 to 200 is from 105 to 250."""
    found = compared.rows(
        "select distinct checkpoint_id, other_checkpoint_id from fct_series_comparisons "
        "where (series_id, other_series_id, statistic) = ('one a', 'two a', 'turnover')"
    )
    assert found == [("one a/200", "two a/250")]


def test_distances(compared: Compared, expected: dict[tuple[str, ...], tuple[Any, ...]]) -> None:
    differences: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for key, row in expected.items():
        differences[key[:8]].append(abs(row[11]))
    distances = {key: fmean(values) for key, values in differences.items()}
    found = {
        row[:8]: row[8:]
        for row in compared.rows(
            f"select {', '.join(PAIR)}, statistic, component_kind, pair_kind, differs_in, checkpoint_count, "
            "end_count, distance, seed_pair_count, seed_distance, ratio from fct_series_distances"
        )
    }
    assert found.keys() == distances.keys()
    seed_pair_counts = set()
    for key, distance in distances.items():
        kind = pair_kind(key)
        pairs = [
            other_distance
            for other, other_distance in distances.items()
            if pair_kind(other) == "same_recipe" and other[1:3] == key[1:3] and other[6:] == key[6:]
        ]
        count, of_seeds, ratio = None, None, None
        if kind == "other_recipe":  # both recipes of the lake are the pair's
            count, of_seeds = len(pairs), fmean(pairs) if pairs else None
            ratio = distance / of_seeds if of_seeds else None
            seed_pair_counts.add(count)
        assert found[key] == (
            kind,
            differences_of(key),
            len(differences[key]),
            len(differences[key]) if key[0] == "one c" and key[3] == "two b" else 0,
            pytest.approx(distance, abs=1e-8),
            count,
            None if of_seeds is None else pytest.approx(of_seeds, abs=1e-8),
            None if ratio is None else pytest.approx(ratio, rel=1e-6),
        ), key
    # Three pairs of seeds of the first recipe, one of the second; some compare what others cannot.
    assert 4 in seed_pair_counts and len(seed_pair_counts) > 1
