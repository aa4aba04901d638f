"""Choosing checkpoints of a series."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timecourse.errors import UsageError
from timecourse.extract.checkpoints.names import Place, order, parse_name
from timecourse.extract.checkpoints.selection import Selection, existing_names, select


def series(*names):
    places = {name: parse_name(name) for name in names}
    return [(name, places[name]) for name in order(places)]


PYTHIA = series(*(f"step{n}" for n in [0, *(2**k for k in range(10)), *range(1000, 144000, 1000)]))
OLMO = series(*(f"step{n}-tokens{n * 4 // 1000}B" for n in range(1000, 650000, 1000)), "main")
OLMO2 = series(
    *(f"stage1-step{n}" for n in range(1000, 928000, 1000)),
    *(f"stage2-ingredient{i}-step{n}" for i in (1, 2, 3) for n in [*range(1000, 12000, 1000), 11931]),
    "main",
)
SMOLLM3 = series(
    *(f"stage1-step-{n}" for n in range(40000, 3450000, 40000)),
    *(f"stage2-step-{n}" for n in range(3480000, 4210000, 40000)),
    *(f"stage3-step-{n}" for n in range(4240000, 4730000, 40000)),
    *(f"lc-{stage}-step-{n}" for stage in ("4k-to-32k", "32k-to-64k") for n in range(4000, 20001, 4000)),
    "main",
)
ALL_SERIES = {"pythia": PYTHIA, "olmo": OLMO, "olmo2": OLMO2, "smollm3": SMOLLM3}


def with_post_training(*extra):
    """A series of two phases."""
    later = [(f"sft-{n}", Place(None, 1, "main", n, None, "sft", 1)) for n in extra]
    return [*series("step1", "step2", "step3", "main"), *later]


def test_nothing_set_takes_everything():
    assert select(OLMO2, Selection()) == [name for name, _ in OLMO2]
    assert select([], Selection()) == []


def test_every_counts_from_the_first_and_keeps_the_last():
    some = series(*(f"step{n}" for n in range(0, 10)))
    assert select(some, Selection(every=4)) == ["step0", "step4", "step8", "step9"]
    assert select(some, Selection(every=1)) == [name for name, _ in some]
    assert select(some, Selection(every=1000)) == ["step0", "step9"]


def test_every_counts_anew_in_every_stage_and_branch():
    some = series(
        *(f"stage1-step{n}" for n in (1, 2, 3)),
        *(f"stage2-ingredient{i}-step{n}" for i in (1, 2) for n in (1, 2, 3)),
        "main",
    )
    assert select(some, Selection(every=2)) == [
        "stage1-step1",
        "stage1-step3",
        "stage2-ingredient1-step1",
        "stage2-ingredient1-step3",
        "stage2-ingredient2-step1",
        "stage2-ingredient2-step3",
        "main",
    ]


def test_early_branches_without_a_prefix_count_with_their_stage():
    some = series("step1", "stage1-step2", "step3", "stage1-step4", "stage1-step5")
    assert select(some, Selection(every=2)) == ["step1", "step3", "stage1-step5"]


def test_log_spaced_pythia_is_spread_over_the_powers_of_two():
    chosen = select(PYTHIA, Selection(log_spaced=10))
    assert chosen == [
        "step0",
        "step4",
        "step16",
        "step64",
        "step256",
        "step1000",
        "step3000",
        "step11000",
        "step40000",
        "step143000",
    ]


@pytest.mark.parametrize("name", ALL_SERIES)
@pytest.mark.parametrize("n", [2, 5, 10, 20, 50])
def test_log_spaced_takes_about_n_with_the_first_and_the_last(name, n):
    ordered = ALL_SERIES[name]
    chosen = select(ordered, Selection(log_spaced=n))
    assert n - 1 <= len(chosen) <= n + 1
    assert (chosen[0], chosen[-1]) == (ordered[0][0], ordered[-1][0])


def test_log_spaced_leaves_ever_larger_gaps():
    steps = [parse_name(name).step for name in select(OLMO, Selection(log_spaced=12))[:-1]]
    ratios = [after / before for before, after in pairwise(steps)]
    assert all(1.3 < ratio < 2.5 for ratio in ratios)


def test_log_spaced_knows_that_a_later_stage_starts_its_steps_again():
    """The long-context stages are the end of training, though their steps are small: none is taken for an early one."""
    chosen = select(SMOLLM3, Selection(log_spaced=8))
    assert [parse_name(name).stage for name in chosen] == ["stage1"] * 7 + [None]
    short = series("stage1-step1000", "stage1-step2000", "stage2-step0", "stage2-step1000", "stage2-step14000", "main")
    assert select(short, Selection(log_spaced=4)) == ["stage1-step1000", "stage2-step1000", "stage2-step14000", "main"]


def test_log_spaced_takes_the_first_whichever_sibling_has_the_smallest_step():
    some = series(*(f"step{n}-seed-default" for n in (500, 600, 700)), *(f"step{n}-seed-small-aux-2" for n in (0, 300)))
    chosen = select(some, Selection(log_spaced=3))
    assert (chosen[0], chosen[-1]) == ("step500-seed-default", "step300-seed-small-aux-2")


def test_log_spaced_takes_all_of_a_few():
    some = series("step5", "step1000", "main")
    assert select(some, Selection(log_spaced=3)) == ["step5", "step1000", "main"]
    assert select(some, Selection(log_spaced=50)) == ["step5", "step1000", "main"]


def test_log_spaced_with_a_sparse_end():
    some = series("step1", "step2", "step3", "step4", "step5", "step1000000")
    chosen = select(some, Selection(log_spaced=4))
    assert chosen[0] == "step1" and chosen[-1] == "step1000000" and len(chosen) <= 4


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        (Selection(from_step=2, to_step=3), ["step2", "step3", "step9"]),
        (Selection(from_step=4), ["step4", "step9"]),
        (Selection(to_step=0), ["step0", "step9"]),
        (Selection(from_step=1, to_step=4, every=2), ["step1", "step3", "step9"]),
        (Selection(from_step=1, log_spaced=2), ["step1", "step9"]),
        (Selection(names=("step3", "step1")), ["step1", "step3", "step9"]),
        (Selection(names=("step3", "step3")), ["step3", "step9"]),
        (Selection(names=("step3",), every=4), ["step0", "step3", "step4", "step9"]),
        (Selection(names=("step4",), to_step=1), ["step0", "step1", "step4", "step9"]),
    ],
)
def test_ranges_and_lists(selection, names):
    assert select(series("step0", "step1", "step2", "step3", "step4", "step9"), selection) == names


def test_a_range_speaks_of_steps_as_named_in_every_stage():
    chosen = select(SMOLLM3, Selection(from_step=4000, to_step=40000))
    assert chosen[0] == "stage1-step-40000" and chosen[1:3] == ["lc-4k-to-32k-step-4000", "lc-4k-to-32k-step-8000"]
    assert chosen[-1] == "main"


def test_the_last_of_each_phase_is_always_there():
    two = with_post_training(10, 20, 30)
    assert select(two, Selection(names=("step2",))) == ["step2", "main", "sft-30"]
    assert select(two, Selection(every=2)) == ["step1", "step3", "main", "sft-10", "sft-30"]
    assert select(two, Selection(log_spaced=2)) == ["step1", "main", "sft-10", "sft-30"]
    assert select(two, Selection(to_step=1)) == ["step1", "main", "sft-30"]


@pytest.mark.parametrize(
    ("name", "closest"),
    [("step100-tokens4B", "step1000-tokens4B"), ("step649000", "step649000-tokens2596B"), ("mian", "main"), ("", "")],
)
def test_a_name_that_does_not_exist_is_refused_with_the_closest(name, closest):
    with pytest.raises(UsageError) as error:
        select(OLMO, Selection(names=("main", name)))
    message = str(error.value)
    assert f"no checkpoint is named {name!r}; the closest is " in message and "\n" not in message
    assert not closest or repr(closest) in message


def test_existing_names_can_be_asked_for_before_ordering():
    assert existing_names(["a", "b"], ["b"]) == ["b"]
    with pytest.raises(UsageError, match=r"no checkpoint is named 'a'$"):
        existing_names([], ["a"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": 0}, "every must be 1 or more, not 0"),
        ({"every": -3}, "every must be 1 or more, not -3"),
        ({"log_spaced": 1}, "log-spaced must be 2 or more"),
        ({"log_spaced": 0}, "log-spaced must be 2 or more"),
        ({"every": 2, "log_spaced": 5}, "exclude each other"),
        ({"from_step": 5, "to_step": 4}, "from 5 to 4 is empty"),
    ],
)
def test_a_selection_that_contradicts_itself_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        select(OLMO, Selection(**settings))


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(from_step=10**9), "no checkpoint has a step from 1000000000$"),
        (Selection(to_step=10), "no checkpoint has a step to 10$"),
        (Selection(from_step=1, to_step=10, every=2), "no checkpoint has a step from 1 to 10$"),
    ],
)
def test_a_range_without_a_step_is_refused(selection, message):
    with pytest.raises(UsageError, match=message):
        select(OLMO, selection)


# for any series and selection

names_of_series = st.one_of(
    st.builds("step{}".format, st.integers(0, 10**9)),
    st.builds("stage{}-step{}".format, st.integers(2, 4), st.integers(0, 1000)),
    st.builds("stage2-ingredient{}-step{}".format, st.integers(1, 3), st.integers(0, 1000)),
    st.builds("lc-4k-to-{}k-step-{}".format, st.sampled_from([32, 64]), st.integers(0, 1000)),
    st.just("main"),
)
rules = st.one_of(
    st.builds(Selection),
    st.builds(Selection, every=st.integers(1, 12)),
    st.builds(Selection, log_spaced=st.integers(2, 12)),
    st.builds(Selection, from_step=st.integers(0, 1000)),
    st.builds(Selection, every=st.integers(1, 12), to_step=st.integers(0, 1000)),
    st.builds(Selection, log_spaced=st.integers(2, 12), from_step=st.integers(0, 1000)),
)


@given(st.sets(names_of_series, min_size=1, max_size=40), rules, st.data())
def test_a_selection_is_a_part_in_order_with_the_last(names, selection, data):
    ordered = series(*names)
    all_names = [name for name, _ in ordered]
    wanted = tuple(data.draw(st.lists(st.sampled_from(all_names), max_size=3)))
    selection = Selection(selection.every, selection.log_spaced, selection.from_step, selection.to_step, wanted)
    try:
        chosen = select(ordered, selection)
    except UsageError as error:
        assert "no checkpoint has a step" in str(error)
        return
    assert chosen == [name for name in all_names if name in set(chosen)]
    assert chosen[-1] == all_names[-1]
    assert set(wanted) <= set(chosen)
    has_range = (selection.from_step, selection.to_step) != (None, None)
    if selection.has_rule and not has_range:
        assert chosen[0] == all_names[0]
    if selection.log_spaced is not None:
        assert len(chosen) <= selection.log_spaced + 2 + len(wanted)
