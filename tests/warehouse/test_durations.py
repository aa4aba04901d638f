"""How long roles last: published and random spells, each worked out a second time; how often intervals hold."""

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import duckdb
import pytest

from simulations import warehouse

KEYS = ("series_id", "setting_id", "tau_id", "component_kind", "role")
COLUMNS = ("checkpoint_count", "is_left_censored", "is_right_censored")
Z = 1.959963984540054


@dataclass(frozen=True)
class Spell:
    """One spell of a group: its length in checkpoints, and on which sides it is censored."""

    group: tuple[str, ...]
    length: int
    is_left_censored: bool = False
    is_right_censored: bool = False


def estimated(spells: Iterable[Spell]) -> dict[tuple[str, ...], dict[int, tuple[Any, ...]]]:
    """Group -> duration -> the other columns of the mart."""
    rows = [(*spell.group, spell.length, spell.is_left_censored, spell.is_right_censored) for spell in spells]
    columns = zip(*rows, strict=True)
    with duckdb.connect() as connection:
        warehouse.fill(
            connection,
            "fct_role_spells",
            {name: list(column) for name, column in zip((*KEYS, *COLUMNS), columns, strict=True)},
        )
        warehouse.build(connection, "fct_role_durations")
        found = connection.execute(
            f"""select {", ".join(KEYS)}, duration, at_risk_count, ended_count, censored_count, lasting_share,
                lasting_share_low, lasting_share_high, spell_count, left_censored_count, right_censored_count
            from fct_role_durations"""
        ).fetchall()
    by_group: dict[tuple[str, ...], dict[int, tuple[Any, ...]]] = {}
    for row in found:
        numbers = by_group.setdefault(row[:5], {})
        assert row[5] not in numbers, "a duration has one row"
        numbers[row[5]] = row[6:]
    return by_group


def kaplan_meier(spells: list[Spell]) -> dict[int, tuple[Any, ...]]:
    """The same of one group, one checkpoint after another, in fractions."""
    seen = [spell for spell in spells if not spell.is_left_censored]
    found = {}
    lasting, variance = Fraction(1), Fraction(0)
    for duration in range(1, max((spell.length for spell in seen), default=0) + 1):
        at_risk = [spell for spell in seen if spell.length >= duration]
        last = [spell for spell in at_risk if spell.length == duration]
        ended = sum(not spell.is_right_censored for spell in last)
        lasting *= 1 - Fraction(ended, len(at_risk))
        low = high = None
        if lasting > 0:
            variance += Fraction(ended, len(at_risk) * (len(at_risk) - ended))
        if 0 < lasting < 1:
            middle = math.log(-math.log(lasting))
            error = math.sqrt(variance) / -math.log(lasting)
            low, high = (math.exp(-math.exp(middle + sign * Z * error)) for sign in (1, -1))
        if last:
            sides = (sum(spell.is_left_censored for spell in spells), sum(spell.is_right_censored for spell in spells))
            counts = (len(at_risk), ended, len(last) - ended)
            found[duration] = (*counts, float(lasting), low, high, len(spells), *sides)
    return found


def near(numbers: dict[int, tuple[Any, ...]]) -> dict[int, list[Any]]:
    return {
        duration: [pytest.approx(value, abs=1e-8) if isinstance(value, float) else value for value in row]
        for duration, row in numbers.items()
    }


def test_published_example() -> None:
    """Remission of 21 patients in weeks (Freireich and others 1963), with what survival packages say of it."""
    group = ("s", "x", "t", "head", "general")
    ended = [6, 6, 6, 7, 10, 13, 16, 22, 23]
    censored = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    spells = [Spell(group, length) for length in ended]
    spells += [Spell(group, length, is_right_censored=True) for length in censored]
    (found,) = estimated(spells).values()
    expected = {
        6: (21, 0.857, 0.620, 0.952),
        7: (17, 0.807, 0.563, 0.923),
        10: (15, 0.753, 0.503, 0.889),
        13: (12, 0.690, 0.432, 0.849),
        16: (11, 0.627, 0.368, 0.805),
        22: (7, 0.538, 0.268, 0.747),
        23: (6, 0.448, 0.188, 0.680),
    }
    assert {duration: (row[0], *row[3:6]) for duration, row in found.items() if row[1]} == {
        duration: (at_risk, *(pytest.approx(value, abs=6e-4) for value in values))
        for duration, (at_risk, *values) in expected.items()
    }
    assert found.keys() == {*ended, *censored}


@pytest.mark.parametrize("seed", range(5))
def test_random_spells(seed: int) -> None:
    """Groups of 1 to 60 spells, censored left, right, on both sides or not; some have none to estimate from."""
    chance = random.Random(seed)
    spells: list[Spell] = []
    for series in ("a", "b"):
        for kind in ("head", "ffn"):
            for tau in ("0.05", "5x"):
                for role in ("general", "entity", "inactive"):
                    censoring = chance.random(), chance.random()
                    spells += [
                        Spell(
                            (series, "x", tau, kind, role),
                            chance.randint(1, chance.choice([2, 9])),
                            chance.random() < censoring[0],
                            chance.random() < censoring[1],
                        )
                        for _ in range(chance.choice([1, 2, 5, 60]))
                    ]
    expected: dict[tuple[str, ...], dict[int, tuple[Any, ...]]] = {}
    for group in {spell.group for spell in spells}:
        numbers = kaplan_meier([spell for spell in spells if spell.group == group])
        if numbers:
            expected[group] = numbers
    found = estimated(spells)
    assert found.keys() == expected.keys()
    for group, numbers in expected.items():
        assert {duration: list(row) for duration, row in found[group].items()} == near(numbers), group
    rows = [row for numbers in found.values() for row in numbers.values()]
    assert {0.0, 1.0} <= {row[3] for row in rows}, "the ends are tried"
    assert all((row[4] is None) == (row[3] in (0, 1)) for row in rows)


def test_intervals_hold_where_spells_are_independent() -> None:
    """600 groups of 150 spells that end with probability 1/5 at each checkpoint, and are censored at random."""
    chance = random.Random(1)
    spells = []
    for group in range(600):
        for _ in range(150):
            lasts = 1
            while chance.random() > 0.2 and lasts < 30:
                lasts += 1
            limit = chance.randint(2, 12)
            spells.append(Spell((str(group), "x", "t", "head", "general"), min(lasts, limit), False, lasts > limit))
    found = estimated(spells).values()
    for duration in range(1, 7):
        rows = [numbers[duration] for numbers in found]
        assert sum(row[4] <= 0.8**duration <= row[5] for row in rows) / len(rows) == pytest.approx(0.95, abs=0.02)
