"""Exact tests of specificity and of change, adjusted for all tests; effective sample sizes; the short simulations."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, pairwise, product
from math import comb, prod
from pathlib import Path
from typing import Any

import duckdb
import pytest

from simulations import changes, intervals, specificity, warehouse
from tests.warehouse.raw_lake import commit
from timecourse.build import BuildResult, build_warehouse

Stratum = tuple[int, int, int]
"""Units, active ones, labelled ones."""

THETA = Fraction(1, 4)
HEADS = [f"L{layer}H{head}" for layer in range(2) for head in range(4)]
FFNS = ["L0F", "L1F"]
TEMPLATES = {"a": [range(4)] * 8, "b": [(0, 1, 2), (1, 2, 3), (0, 1, 2), (0, 1), (0, 1, 2), (3,)], "c": [(0,)] * 20}
"""Relation -> per fact, the templates through which it is asked."""


# What is computed a second time, in fractions


def tail(strata: Iterable[Stratum], observed: int) -> Fraction:
    """Probability of `observed` or more labelled active units."""
    ways = {0: 1}
    for total, active, drawn in strata:
        added: dict[int, int] = defaultdict(int)
        for before, count in product(ways, range(max(0, drawn + active - total), min(active, drawn) + 1)):
            added[before + count] += ways[before] * comb(active, count) * comb(total - active, drawn - count)
        ways = added
    return Fraction(sum(number for count, number in ways.items() if count >= observed), sum(ways.values()))


def sign_p(raised: int, lowered: int) -> Fraction:
    moved = raised + lowered
    at_least = sum(comb(moved, count) for count in range(max(raised, lowered), moved + 1))
    return min(Fraction(1), Fraction(2 * at_least, 2**moved))


def adjusted(p_values: Mapping[Any, float]) -> dict[Any, float]:
    """Benjamini and Hochberg's step-up, by its definition: the lowest level at which each test is rejected."""
    ordered = sorted(p_values.values())
    levels = [p * len(ordered) / rank for rank, p in enumerate(ordered, 1)]
    return {
        key: min(1.0, *(level for level, p in zip(levels, ordered, strict=True) if p >= own))
        for key, own in p_values.items()
    }


# The exact tests


def exact_p_values(tests: list[tuple[list[Stratum], int]]) -> list[float]:
    """What the model int_exact_tests says of each test."""
    literals = [
        f"({number}, [{', '.join('{{total_count: {}, active_count: {}, drawn_count: {}}}'.format(*s) for s in strata)}]"
        f"::struct(total_count integer, active_count integer, drawn_count integer)[], {observed})"
        for number, (strata, observed) in enumerate(tests)
    ]
    with duckdb.connect() as connection:
        connection.execute(
            f"create table int_relation_tests as from (values {', '.join(literals)}) t (number, strata, active_count)"
        )
        connection.execute("create table int_fact_tests as from int_relation_tests where false")
        warehouse.build(connection, "int_exact_tests")
        rows = connection.execute(
            "select p_value::double from int_relation_tests "
            "join int_exact_tests using (strata, active_count) order by number"
        ).fetchall()
    assert len(rows) == len(tests)
    return [p for (p,) in rows]


def random_strata(chance: random.Random, count: int, largest: int) -> list[Stratum]:
    totals = [chance.randint(1, largest) for _ in range(count)]
    return sorted((total, chance.randint(1, total), chance.randint(1, total)) for total in totals)


def test_exact_p_counts_every_permutation() -> None:
    """Against all ways in which labels can fall on units."""
    chance = random.Random(1)
    tests, expected = [], []
    for _ in range(60):
        strata = random_strata(chance, chance.randint(1, 3), 5)
        falls = [
            Counter(sum(unit < active for unit in drawn) for drawn in combinations(range(total), labelled))
            for total, active, labelled in strata
        ]
        sums: Counter[int] = Counter()
        for counts in product(*falls):
            sums[sum(counts)] += prod(fall[count] for fall, count in zip(falls, counts, strict=True))
        for observed in sums:  # only what can be observed
            tests.append((strata, observed))
            expected.append(sum(ways for count, ways in sums.items() if count >= observed) / sums.total())
    assert exact_p_values(tests) == pytest.approx(expected, abs=1e-12)


def test_exact_p_of_many_units_is_fishers_and_falls() -> None:
    """One stratum: Fisher's one-sided test. In every case 0 < p ≤ 1, and p falls as more are observed."""
    chance = random.Random(2)
    tests, expected, groups = [], [], []
    for count in (1, 1, 1, 2, 3, 4) * 6:
        strata = random_strata(chance, count, 300)
        lowest = sum(max(0, drawn + active - total) for total, active, drawn in strata)
        highest = sum(min(drawn, active) for _, active, drawn in strata)
        observed = sorted({lowest, highest, *(chance.randint(lowest, highest) for _ in range(6))})
        groups.append(range(len(tests), len(tests) + len(observed)))
        for number in observed:
            tests.append((strata, number))
            if count == 1:
                ((total, active, drawn),) = strata
                ways = sum(
                    comb(active, k) * comb(total - active, drawn - k) for k in range(number, min(active, drawn) + 1)
                )
                expected.append(float(Fraction(ways, comb(total, drawn))))
            else:
                expected.append(float(tail(strata, number)))
    found = exact_p_values(tests)
    assert found == [pytest.approx(max(p, 1e-12), abs=1e-11) for p in expected]
    assert min(found) == 1e-12 and max(found) == 1
    assert all(0 < p <= 1 for p in found)
    for group in groups:
        of_group = [found[number] for number in group]
        assert of_group == sorted(of_group, reverse=True) and of_group[0] == 1


def test_sign_test_is_the_binomials() -> None:
    pairs = [(raised, lowered) for raised in range(0, 161, 7) for lowered in range(0, 161, 9) if raised + lowered]
    with duckdb.connect() as connection:
        sql = warehouse.render("select {{ sign_test('raised', 'lowered') }}::double from pairs order by number")
        warehouse.fill(
            connection,
            "pairs",
            {"number": list(range(len(pairs))), "raised": [a for a, _ in pairs], "lowered": [b for _, b in pairs]},
        )
        found = [p for (p,) in connection.execute(sql).fetchall()]
    assert found == [pytest.approx(max(1e-12, float(sign_p(*pair))), abs=1e-11) for pair in pairs]


# A build, row by row


@dataclass(frozen=True)
class Prompt:
    relation_id: str
    fact_id: str
    template_id: int
    answer_token_count: int

    @property
    def target_positions(self) -> list[int]:
        """After a special token: the template, the subject, the answer."""
        return list(range(1, 3 + self.answer_token_count))

    @property
    def answer_predicting(self) -> list[int]:
        return self.target_positions[1:-1]


Active = dict[tuple[str, int], set[int]]
"""(component, prompt) -> positions."""


@dataclass(frozen=True)
class Built:
    result: BuildResult
    prompts: list[Prompt]
    checkpoints: dict[str, Active]

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.result.database), read_only=True) as connection:
            return connection.execute(sql).fetchall()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Three checkpoints. Some heads are active for one relation or fact only; L0H2 wakes up at the last."""
    lake = tmp_path_factory.mktemp("specific")
    chance = random.Random(3)
    prompts = [
        Prompt(relation, f"{relation}/{number}", template, 1 + number % 2)
        for relation, asked in TEMPLATES.items()
        for number, templates in enumerate(asked)
        for template in templates
    ]
    tables: dict[str, list[dict[str, Any]]] = {"prompts": [], "prompt_tokens": []}
    for number, prompt in enumerate(prompts):
        names = {"relation_id": prompt.relation_id, "fact_id": prompt.fact_id, "template_id": prompt.template_id}
        tables["prompts"].append({"prompt_id": number, **names, "subject": "s", "object": "o"})
        roles = ["special", "template", "subject", *["answer"] * prompt.answer_token_count]
        tables["prompt_tokens"] += [
            {"prompt_id": number, "position": at, "span_role": role, "is_special": role == "special",
             "is_answer_predicting": at in prompt.answer_predicting}
            for at, role in enumerate(roles)
        ]  # fmt: skip
    checkpoints: dict[str, Active] = {}
    planted = {"L0H0": "a", "L0H1": "a/3", "L0H3": "b"}
    levels = {component: chance.choice([0.02, 0.1, 0.5, 0.9]) for component in HEADS + FFNS}
    for step in range(3):
        active: Active = {}
        for component, (number, prompt) in product(HEADS + FFNS, enumerate(prompts)):
            level = levels[component]
            if component in planted:
                level = 0
                if planted[component] in (prompt.relation_id, prompt.fact_id):
                    active[component, number] = set(prompt.answer_predicting)
                    continue
            if component == "L0H2":
                level = [0, 0, 0.9][step]
            active[component, number] = {at for at in prompt.target_positions if chance.random() < level}
        attributions = [
            {"tau_id": "0.05", "prompt_id": number, "position": at, "component_id": component}
            for (component, number), positions in active.items()
            for at in sorted(positions)
        ]
        shape = {"layer_count": 2, "head_count": 4, "kv_head_count": 4}
        commit(lake, "s", f"step{step}", {**tables, "attributions": attributions}, step=step, **shape)
        checkpoints[f"s/step{step}"] = active
    return Built(build_warehouse(lake, theta="0.25", complete_series=[]), prompts, checkpoints)


def answer_rate(built: Built, active: Active, component: str, fact_id: str) -> Fraction:
    asked = [(number, prompt) for number, prompt in enumerate(built.prompts) if prompt.fact_id == fact_id]
    hits = sum(len(active[component, number] & set(prompt.answer_predicting)) for number, prompt in asked)
    return Fraction(hits, sum(len(prompt.answer_predicting) for _, prompt in asked))


def relation_p(built: Built, active: Active, component: str, relation_id: str) -> tuple[int, Fraction]:
    """How many facts of the relation the component is active for, and the p of that."""
    facts = {prompt.fact_id: prompt for prompt in built.prompts}
    on = {fact for fact in facts if answer_rate(built, active, component, fact) > THETA}
    strata = []
    for tokens in (1, 2):
        units = {fact for fact, prompt in facts.items() if prompt.answer_token_count == tokens}
        here = {fact for fact in units if facts[fact].relation_id == relation_id}
        strata.append((len(units), len(units & on), len(here)))
    observed = len({fact for fact in on if facts[fact].relation_id == relation_id})
    return observed, tail(strata, observed)


def fact_p(built: Built, active: Active, component: str, fact_id: str) -> tuple[int, Fraction]:
    """Through how many templates the component is active for the fact, and the p of that."""
    observed, strata = 0, []
    for own in built.prompts:
        if own.fact_id == fact_id:
            alike = [
                (prompt.fact_id, bool(active[component, number] & set(prompt.answer_predicting)))
                for number, prompt in enumerate(built.prompts)
                if (prompt.relation_id, prompt.template_id) == (own.relation_id, own.template_id)
            ]
            observed += (fact_id, True) in alike
            strata.append((len(alike), sum(is_active for _, is_active in alike), 1))
    return observed, tail(strata, observed)


def test_every_specificity(built: Built) -> None:
    """Every row's count, p, q and verdict, and that no row is missing; q among all pairs, active or not."""
    found = {
        row[:4]: row[4:]
        for row in built.rows(
            "select checkpoint_id, component_id, scope_kind, scope_id, active_count, p_value, q_value, is_specific "
            "from fct_role_specificities"
        )
    }
    fact_ids = [
        f"{relation}/{at}" for relation, asked in TEMPLATES.items() for at, ts in enumerate(asked) if len(ts) > 2
    ]
    assert len(fact_ids) == 12
    expected: dict[tuple[str, ...], tuple[int, float]] = {}
    for checkpoint_id, active in built.checkpoints.items():
        for kind in (HEADS, FFNS):
            for scope_kind, scopes, test in (("relation", [*TEMPLATES], relation_p), ("fact", fact_ids, fact_p)):
                tests = {
                    (checkpoint_id, component, scope_kind, scope): test(built, active, component, scope)
                    for component in kind
                    for scope in scopes
                }
                q_values = adjusted({key: float(p) for key, (_, p) in tests.items()})
                for key, (observed, p) in tests.items():
                    if observed:
                        expected[key] = (observed, float(p))
                        assert found[key][:3] == pytest.approx((observed, float(p), q_values[key]), abs=1e-9)
                        assert found[key][3] == (q_values[key] <= 0.05)
    assert set(found) == set(expected)
    specific = {key for key, row in found.items() if row[3]}
    for checkpoint_id in built.checkpoints:
        assert {(checkpoint_id, "L0H0", "relation", "a"), (checkpoint_id, "L0H3", "relation", "b")} < specific
        assert (checkpoint_id, "L0H1", "fact", "a/3") in specific
    assert len(specific) < len(found) / 4


def test_counts_of_a_specificity(built: Built) -> None:
    """L0H0 is active for a's 8 facts and none of the 26 others; of its 4 prompts, so are those of 7 others."""
    columns = "active_count, total_count, other_active_count, other_total_count, rate_difference"
    where = "where checkpoint_id = 's/step0' and component_id = 'L0H0' and scope_id"
    assert built.rows(f"select {columns} from fct_role_specificities {where} = 'a'") == [(8, 8, 0, 26, 1.0)]
    assert built.rows(f"select {columns} from fct_role_specificities {where} = 'a/3'") == [(4, 4, 28, 28, 0.0)]


def test_memberships_say_whether_they_are_specific(built: Built) -> None:
    """General and entity have no test, nor have facts of fewer than 3 templates; every other membership has its own."""
    rows = built.rows(
        """select role, relation_id, count(*), count(p_value), count(q_value), count(is_specific),
            count_if(exists(from fct_role_specificities as s where
                (s.checkpoint_id, s.component_id, s.role, s.scope_id, s.p_value, s.q_value, s.is_specific)
                = (m.checkpoint_id, m.component_id, m.role, m.scope_id, m.p_value, m.q_value, m.is_specific)))
        from fct_role_memberships as m group by all"""
    )
    tested = {(role, relation): (count, set(others)) for role, relation, count, *others in rows}
    assert tested["general", None][1] == {0} and tested["fact_answer", "c"][1] == {0}
    for key in [("relation_answer", "b"), ("fact_answer", "a")]:
        count, with_test = tested[key]
        assert with_test == {count}, key
    ((count, with_test),) = built.rows(
        "select count(*), count(p_value) from fct_role_memberships where role = 'fact_answer' and relation_id = 'b'"
    )
    assert 0 < with_test < count


def test_every_change(built: Built) -> None:
    found = {
        row[:3]: row[3:]
        for row in built.rows(
            "select to_checkpoint_id, component_id, scope_kind, raised_fact_count, lowered_fact_count, mean_change, "
            "p_value, q_value, is_significant from fct_component_changes"
        )
    }
    fact_ids = list(dict.fromkeys(prompt.fact_id for prompt in built.prompts))

    def share(active: Active, component: str, fact_id: str) -> Fraction:
        shares = [
            Fraction(len(active[component, number]), len(prompt.target_positions))
            for number, prompt in enumerate(built.prompts)
            if prompt.fact_id == fact_id
        ]
        return sum(shares, Fraction(0)) / len(shares)

    expected = set()
    ids = list(built.checkpoints)
    for before, after in pairwise(ids):
        for kind, scope_kind in product((HEADS, FFNS), ("all", "answer")):
            tests: dict[str, tuple[int, int, Fraction]] = {}
            for component in kind:
                new, old = (
                    [
                        share(active, component, fact)
                        if scope_kind == "all"
                        else answer_rate(built, active, component, fact)
                        for fact in fact_ids
                    ]
                    for active in (built.checkpoints[after], built.checkpoints[before])
                )
                differences = [one - other for one, other in zip(new, old, strict=True)]
                raised, lowered = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
                tests[component] = (raised, lowered, sum(differences, Fraction(0)) / len(differences))
            q_values = adjusted({c: float(sign_p(*t[:2])) if t[0] + t[1] else 1.0 for c, t in tests.items()})
            for component, (raised, lowered, mean) in tests.items():
                if raised + lowered:
                    key = (after, component, scope_kind)
                    expected.add(key)
                    p = float(sign_p(raised, lowered))
                    assert found[key][:5] == pytest.approx(
                        (raised, lowered, float(mean), p, q_values[component]), abs=2e-9
                    )
                    assert found[key][5] == (q_values[component] <= 0.05)
    assert set(found) == expected
    assert found["s/step2", "L0H2", "all"][5] and not any(key[1] in ("L0H0", "L0H1", "L0H3") for key in found)
    assert 0 < sum(row[5] for row in found.values()) < len(found) / 2


def test_every_check_passes(built: Built) -> None:
    assert {check.result for check in built.result.checks} == {"pass"}


# Effective sample sizes


def accuracies(facts: list[tuple[float, int]]) -> tuple[Any, ...]:
    """Effective n, lower and upper bound of a relation with facts of (share of prompts recalled, prompts)."""
    with duckdb.connect() as connection:
        keys = {"series_id": "s", "setting_id": "x", "relation_id": "r"}
        shares = [share for share, _ in facts]
        warehouse.fill(
            connection,
            "fct_fact_predictions",
            {**keys, "checkpoint_id": "c", "prompt_count": [count for _, count in facts],
             **dict.fromkeys(("top1_share", "top10_share", "all_tokens_top1_share"), shares),
             **dict.fromkeys(("mean_log_prob", "mean_mismatched_log_prob", "log_prob_gain"), shares)},
        )  # fmt: skip
        warehouse.fill(connection, "dim_relations", {**keys, "relation_group": ["g"], "majority_share": 0.1})
        warehouse.build(connection, "fct_relation_accuracies")
        (row,) = connection.execute(
            "select top1_effective_n, top1_low, top1_high from fct_relation_accuracies where scope_kind = 'relation'"
        ).fetchall()
    return tuple(row)


def test_facts_whose_templates_agree_count_once() -> None:
    """n is then the number of facts; the bounds are Wilson's own example: 7 of 10 → 0.397, 0.892."""
    effective, low, high = accuracies([(1.0, 3)] * 7 + [(0.0, 3)] * 3)
    assert effective == 10 and (low, high) == (pytest.approx(0.3968, abs=1e-4), pytest.approx(0.8922, abs=1e-4))
    for certain in (0.0, 1.0):
        assert accuracies([(certain, 3)] * 12)[0] == 12
    assert accuracies([(0.4, 5)]) == (1.0, None, None)


def test_templates_count_as_far_as_they_tell_more() -> None:
    """0, 1/3, 2/3 and 1: variance 5/27, so 4 · 1/4 · 27/5; and never more than the prompts."""
    effective, low, high = accuracies([(0.0, 3), (1 / 3, 3), (2 / 3, 3), (1.0, 3)])
    assert effective == pytest.approx(5.4, abs=1e-5)
    plain = accuracies([(0.0, 3), (0.0, 3), (1.0, 3), (1.0, 3)])
    assert plain[0] == 4 and plain[1] < low and high < plain[2]
    assert accuracies([(1 / 3, 3), (2 / 3, 3)] * 6)[0] == 36
    assert accuracies([(0.5, 2)] * 6)[0] == 6  # no variance says nothing of it


# The simulations, short


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(warehouse, "OUT", tmp_path)
    return tmp_path


def test_simulated_intervals_cover(out: Path) -> None:
    rows = intervals.main(draws=100)
    assert len(rows) == 10 and all(row["mean coverage"] > 0.92 for row in rows)
    assert all(row["facts"] <= row["mean effective n"] <= row["facts"] * row["templates"] for row in rows)
    assert (out / "intervals.json").is_file() and "| 12 | 3 |" in (out / "intervals.md").read_text()


def test_simulated_specificity_finds_what_draws_cannot(out: Path) -> None:
    rows = {row["scenario"]: row for row in specificity.main(draws=4, scenarios=("sparse", "some"))}
    for row in rows.values():
        assert row["false"] < 0.15
    assert rows["sparse"]["found"] > 0.4 and rows["some"]["found"] > 0.7
    assert rows["sparse"][f"found, {specificity.PERMUTATIONS} permutations"] == 0


@pytest.mark.slow
def test_simulated_changes_are_found(out: Path) -> None:
    rows = changes.main(draws=6, scenarios=("nothing to find", "sparse, large"))
    assert all(row["false at p ≤ 0.05"] < 0.06 for row in rows)
    assert all(row["found"] > 0.5 for row in rows if row["changed"])
