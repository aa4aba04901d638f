"""Convergence intervals equal an exact isotonic fit by pooling adjacent violators; so do those of draws over facts."""

from fractions import Fraction
from math import ceil

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


def of_subset(course: Course, fact_subset: str) -> tuple[list[tuple[str, int, int]], Fraction]:
    """Checkpoint name, facts asked and facts recalled, where any was asked; and the share of the majority answer.

    The first facts share their answer, where there are more than one.
    """
    shared = course.majority_fact_count
    left_out = shared if fact_subset == "single_token_unshared" and shared > 1 else 0
    points = [
        (name, asked - left_out, max(0, recalled - left_out))
        for name, asked, recalled in zip(NAMES, course.asked, course.recalled, strict=True)
        if asked > left_out
    ]
    return points, Fraction(1 if left_out else shared, FACTS - left_out)


def fit(points: list[tuple[str, int, int]]) -> list[Fraction]:
    return isotonic([Fraction(known, asked) for _, asked, known in points], [asked for _, asked, _ in points])


def interval_of(points: list[tuple[str, int, int]], majority_share: Fraction) -> tuple[str | None, str | None, str]:
    """Converged checkpoint, the one before, censoring: method.md section 6."""
    names = [f"{SERIES}/{name}" for name, _, _ in points]
    fits = fit(points)
    reached = next(index for index, value in enumerate(fits) if value >= Fraction(9, 10) * fits[-1])
    if fits[-1] <= majority_share or reached == len(fits) - 1:
        return None, names[-1], "right"
    if reached == 0:
        return names[0], None, "left"
    return names[reached], names[reached - 1], "none"


def expected_interval(course: Course, fact_subset: str = "all") -> tuple[str | None, str | None, str]:
    return interval_of(*of_subset(course, fact_subset))


def under_draw(course: Course, weights: list[int]) -> tuple[list[tuple[str, int, int]], Fraction]:
    """As of_subset, of all facts, each as often as the draw says. If no fact shares its answer, all are majorities."""
    points = [
        (name, sum(weights[:asked]), sum(weights[:recalled]))
        for name, asked, recalled in zip(NAMES, course.asked, course.recalled, strict=True)
        if sum(weights[:asked]) > 0
    ]
    shared = course.majority_fact_count
    return points, Fraction(1 if shared == 1 else sum(weights[:shared]), sum(weights) if shared > 1 else FACTS)


@pytest.mark.parametrize("fact_subset", ["all", "single_token_unshared"])
def test_intervals(random_lake: RandomLake, fact_subset: str) -> None:
    with duckdb.connect(str(random_lake.result.database), read_only=True) as connection:
        rows = connection.execute(
            "select relation_id, converged_checkpoint_id, previous_checkpoint_id, censoring, final_fit, majority_share "
            "from fct_relation_convergences where series_id = ? and metric = 'top1' and fact_subset = ?",
            [SERIES, fact_subset],
        ).fetchall()
    assert {row[0]: row[1:4] for row in rows} == {
        course.relation_id: expected_interval(course, fact_subset) for course in random_lake.courses
    }
    found = {row[0]: row[4:] for row in rows}
    for course in random_lake.courses:
        points, majority_share = of_subset(course, fact_subset)
        final_fit = float(fit(points)[-1])
        assert found[course.relation_id] == pytest.approx((final_fit, float(majority_share)), abs=1e-8)


def test_a_subset_converges_by_itself(random_lake: RandomLake) -> None:
    """What is left out makes a difference, and majority answers are those of the relation only with all facts."""
    different = [
        course for course in random_lake.courses
        if expected_interval(course) != expected_interval(course, "single_token_unshared")
    ]  # fmt: skip
    assert len(different) >= 3
    with duckdb.connect(str(random_lake.result.database), read_only=True) as connection:
        rows = connection.execute(
            "select fact_subset, count_if(relations.majority_share = convergences.majority_share), count(*) "
            "from fct_relation_convergences as convergences "
            "inner join dim_relations as relations using (series_id, setting_id, relation_id) group by all"
        ).fetchall()
    agreeing = {fact_subset: (equal, count) for fact_subset, equal, count in rows}
    assert agreeing["all"][0] == agreeing["all"][1]
    assert agreeing["single_token_unshared"][0] < agreeing["single_token_unshared"][1]


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


@pytest.fixture(scope="module")
def draws(random_lake: RandomLake) -> dict[str, dict[int, list[int]]]:
    """Relation -> bootstrap draw -> how often each fact counts; the first 25 draws."""
    with duckdb.connect(str(random_lake.result.database), read_only=True) as connection:
        rows = connection.execute(
            "select relation_id, resample, "
            "list(weights[fact_number + 1]::int order by split_part(fact_id, '/', 2)::int) "
            "from drawn_weights join drawn_facts using (fact_set_id) join drawn_extractions using (fact_set_id) "
            "join int_checkpoints using (extraction_id) where series_id = ? and checkpoint_name = 'main' "
            "and resample_kind = 'bootstrap' and resample <= 25 group by all",
            [SERIES],
        ).fetchall()
    found: dict[str, dict[int, list[int]]] = {}
    for relation_id, resample, weights in rows:
        found.setdefault(relation_id, {})[resample] = weights
    return found


def test_draws(random_lake: RandomLake, draws: dict[str, dict[int, list[int]]]) -> None:
    expected = {
        (course.relation_id, resample): interval_of(*under_draw(course, weights))[::2]
        for course in random_lake.courses
        for resample, weights in draws[course.relation_id].items()
        if under_draw(course, weights)[0]
    }
    assert len(expected) > 20 * len(random_lake.courses)
    estimates = {course.relation_id: expected_interval(course)[::2] for course in random_lake.courses}
    moved = {one for one, outcome in expected.items() if outcome != estimates[one[0]]}
    assert len(moved) > 50 and len({relation_id for relation_id, _ in moved}) >= 8
    with duckdb.connect(str(random_lake.result.database), read_only=True) as connection:
        for metric in ("top1", "top10"):  # ranks are 0 or 100
            rows = connection.execute(
                "select relation_id, resample, converged_checkpoint_id, censoring from int_convergence_draws "
                "where series_id = ? and metric = ? and resample_kind = 'bootstrap' and resample <= 25",
                [SERIES, metric],
            ).fetchall()
            assert {row[:2]: row[2:] for row in rows} == expected


def test_drawing_every_fact_once_is_the_estimate(random_lake: RandomLake) -> None:
    """The draws never make the fit; what they find must be what it says."""
    columns = "series_id, setting_id, relation_id, metric, converged_checkpoint_id, converged_step, censoring"
    with duckdb.connect(str(random_lake.result.database), read_only=True) as connection:
        drawn = connection.execute(
            f"select {columns} from int_convergence_draws where resample_kind = 'observed' order by all"
        ).fetchall()
        estimated = connection.execute(
            f"select {columns} from fct_relation_convergences where fact_subset = 'all' order by all"
        ).fetchall()
    assert drawn == estimated
    assert {row[-1] for row in drawn} == {"none", "left", "right"}
    assert len({row[:2] for row in drawn}) > 2


def test_intervals_are_percentiles_of_the_draws(random_lake: RandomLake) -> None:
    with duckdb.connect(str(random_lake.result.database), read_only=True) as connection:
        rows = connection.execute(
            "select relation_id, converged_step, censoring from int_convergence_draws "
            "where series_id = ? and metric = 'top1' and resample_kind = 'bootstrap'",
            [SERIES],
        ).fetchall()
        intervals = connection.execute(
            "select relation_id, converged_step_low, converged_step_high, censored_share "
            "from fct_relation_convergences where series_id = ? and metric = 'top1' and fact_subset = 'all'",
            [SERIES],
        ).fetchall()
        without_draws = connection.execute(
            "select count_if(converged_step_low is null and converged_step_high is null and censored_share is null), "
            "count(*) from fct_relation_convergences where fact_subset <> 'all'"
        ).fetchone()
    late = 10**9
    expected = {}
    for relation_id in {row[0] for row in rows}:
        steps = sorted(late if row[2] == "right" else row[1] for row in rows if row[0] == relation_id)
        low, high = (steps[ceil(share * len(steps)) - 1] for share in (Fraction(25, 1000), Fraction(975, 1000)))
        expected[relation_id] = (
            None if low == late else low,
            None if high == late else high,
            pytest.approx(steps.count(late) / len(steps)),
        )
    assert {row[0]: row[1:] for row in intervals} == expected
    assert {(low is None, high is None) for low, high, _ in expected.values()} == {
        (False, False), (False, True), (True, True)
    }  # fmt: skip
    assert without_draws is not None and without_draws[0] == without_draws[1] > 0


@pytest.mark.parametrize("fact_subset", ["all", "single_token_unshared"])
def test_without_the_last_checkpoint(random_lake: RandomLake, fact_subset: str) -> None:
    expected = {}
    for course in random_lake.courses:
        points, majority_share = of_subset(course, fact_subset)
        converged, _, censoring = interval_of(points[:-1], majority_share)
        is_steady = converged == expected_interval(course, fact_subset)[0]
        expected[course.relation_id] = (converged, censoring, is_steady)
    assert {is_steady for *_, is_steady in expected.values()} == {True, False}
    with duckdb.connect(str(random_lake.result.database), read_only=True) as connection:
        rows = connection.execute(
            "select relation_id, converged_checkpoint_id_without_last, censoring_without_last, is_steady, "
            "converged_step_without_last from fct_relation_convergences "
            "where series_id = ? and metric = 'top1' and fact_subset = ?",
            [SERIES, fact_subset],
        ).fetchall()
    assert {row[0]: row[1:4] for row in rows} == expected
    assert all(row[4] == (row[1] and int(row[1].removeprefix(f"{SERIES}/step"))) for row in rows)
