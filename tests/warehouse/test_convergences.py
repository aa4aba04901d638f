"""Convergence intervals equal an exact isotonic fit by pooling adjacent violators."""

from fractions import Fraction

import duckdb
import pytest

from tests.warehouse.conftest import RandomLake
from tests.warehouse.learning_lake import FACTS, SERIES, SHAPES, STEPS, Course

NAMES = ["main" if step is None else f"step{step}" for step in STEPS]


def isotonic(values: list[Fraction], weights: list[int]) -> list[Fraction]:
    """The never falling sequence nearest to `values`: neighbours in the wrong order are replaced by their mean."""
    blocks: list[tuple[Fraction, int, int]] = []  # mean, weight, length
    for value, weight in zip(values, weights, strict=True):
        blocks.append((value, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (left, left_weight, left_length), (right, right_weight, right_length) = blocks[-2:]
            mean = (left * left_weight + right * right_weight) / (left_weight + right_weight)
            blocks[-2:] = [(mean, left_weight + right_weight, left_length + right_length)]
    return [mean for mean, _, length in blocks for _ in range(length)]


def fit(course: Course) -> list[Fraction]:
    values = [Fraction(known, asked) for known, asked in zip(course.recalled, course.asked, strict=True)]
    return isotonic(values, course.asked)


def expected_interval(course: Course) -> tuple[str | None, str | None, str]:
    """Converged checkpoint, the one before, censoring: method.md section 6."""
    fits = fit(course)
    reached = next(index for index, value in enumerate(fits) if value >= Fraction(9, 10) * fits[-1])
    if fits[-1] <= Fraction(course.majority_fact_count, FACTS) or reached == len(fits) - 1:
        return None, f"{SERIES}/{NAMES[-1]}", "right"
    if reached == 0:
        return f"{SERIES}/{NAMES[0]}", None, "left"
    return f"{SERIES}/{NAMES[reached]}", f"{SERIES}/{NAMES[reached - 1]}", "none"


def test_intervals(random_lake: RandomLake) -> None:
    with duckdb.connect(str(random_lake.result.database), read_only=True) as connection:
        rows = connection.execute(
            "select relation_id, converged_checkpoint_id, previous_checkpoint_id, censoring, final_fit "
            "from fct_relation_convergences where series_id = ? and metric = 'top1'",
            [SERIES],
        ).fetchall()
    assert {row[0]: row[1:4] for row in rows} == {
        course.relation_id: expected_interval(course) for course in random_lake.courses
    }
    final_fits = {row[0]: row[4] for row in rows}
    for course in random_lake.courses:
        assert final_fits[course.relation_id] == pytest.approx(float(fit(course)[-1]), abs=1e-8)


def test_shapes_that_a_person_can_check(random_lake: RandomLake) -> None:
    found = {course.relation_id: expected_interval(course) for course in random_lake.courses}
    assert found["rises"] == ("learning/step32", "learning/step16", "none")
    assert found["reaches exactly nine tenths"] == ("learning/step4", "learning/step2", "none")
    assert found["known from the start"] == ("learning/step0", None, "left")
    assert {found[name][2] for name in ("never known", "learned at the end", "no better than guessing")} == {"right"}
    assert {found[f"random {number}"][2] for number in range(12)} >= {"none", "right"}
    assert set(found) > set(SHAPES)


def test_accuracies(random_lake: RandomLake) -> None:
    with duckdb.connect(str(random_lake.result.database), read_only=True) as connection:
        rows = connection.execute(
            "select checkpoint_id, scope_id, fact_count, top1_accuracy, majority_share from fct_relation_accuracies "
            "where series_id = ? and scope_kind = 'relation'",
            [SERIES],
        ).fetchall()
    found = {(checkpoint_id, relation_id): values for checkpoint_id, relation_id, *values in rows}
    for course in random_lake.courses:
        for name, asked, recalled in zip(NAMES, course.asked, course.recalled, strict=True):
            fact_count, accuracy, majority_share = found[f"{SERIES}/{name}", course.relation_id]
            assert fact_count == asked
            assert accuracy == pytest.approx(recalled / asked, abs=1e-9)
            assert majority_share == pytest.approx(course.majority_fact_count / FACTS, abs=1e-9)
