"""Names of real public series: what they say, and the order that follows from them."""

import random
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timecourse.errors import UsageError, UserError
from timecourse.extract.checkpoints.names import PATTERNS, Place, compile_pattern, order, parse_name

K, M, B, T = 10**3, 10**6, 10**9, 10**12

# name, stage, branch, step, tokens
REAL_NAMES = [
    # OLMo 1, OLMoE
    ("step0-tokens0B", None, "main", 0, 0),
    ("step1000-tokens4B", None, "main", 1000, 4 * B),
    ("step5000-tokens20B", None, "main", 5000, 20 * B),
    ("step649650-tokens2723B", None, "main", 649650, 2723 * B),
    ("step738020-tokens3094B", None, "main", 738020, 3094 * B),
    ("step1454000-tokens3048B", None, "main", 1454000, 3048 * B),
    ("step1220000-tokens5117B", None, "main", 1220000, 5117 * B),
    # Pythia, PolyPythias
    ("step0", None, "main", 0, None),
    ("step1", None, "main", 1, None),
    ("step512", None, "main", 512, None),
    ("step1000", None, "main", 1000, None),
    ("step143000", None, "main", 143000, None),
    # OLMo 2, OLMoE-0125
    ("stage1-step150-tokens1B", "stage1", "main", 150, B),
    ("stage1-step300-tokens1B", "stage1", "main", 300, B),
    ("stage1-step928646-tokens3896B", "stage1", "main", 928646, 3896 * B),
    ("stage1-step596057-tokens5001B", "stage1", "main", 596057, 5001 * B),
    ("stage1-step1907359-tokens4001B", "stage1", "main", 1907359, 4001 * B),
    ("stage2-ingredient1-step1000-tokens5B", "stage2", "ingredient1", 1000, 5 * B),
    ("stage2-ingredient2-step12000-tokens51B", "stage2", "ingredient2", 12000, 51 * B),
    ("stage2-ingredient3-step23852-tokens51B", "stage2", "ingredient3", 23852, 51 * B),
    ("stage2-ingredient4-step35773-tokens300B", "stage2", "ingredient4", 35773, 300 * B),
    # OLMo 3
    ("stage1-step0", "stage1", "main", 0, None),
    ("stage1-step1413814", "stage1", "main", 1413814, None),
    ("stage2-step47684", "stage2", "main", 47684, None),
    ("stage2-ingredient1-step21000", "stage2", "ingredient1", 21000, None),
    ("stage2-step47684-mix-round5-from-2T-ckpt", "stage2", "mix-round5-from-2T-ckpt", 47684, None),
    ("stage2-step47684-mix-gen-mc-only-from-2T-ckpt", "stage2", "mix-gen-mc-only-from-2T-ckpt", 47684, None),
    ("stage3-step11921", "stage3", "main", 11921, None),
    ("step_0025", None, "main", 25, None),
    ("step_1375", None, "main", 1375, None),
    # SmolLM2, SmolLM3
    ("step-125000", None, "main", 125000, None),
    ("step-5125000", None, "main", 5125000, None),
    ("stage1-step-40000", "stage1", "main", 40000, None),
    ("stage1-step-3440000", "stage1", "main", 3440000, None),
    ("stage2-step-4200000", "stage2", "main", 4200000, None),
    ("stage3-step-4720000", "stage3", "main", 4720000, None),
    ("lc-4k-to-32k-step-4000", "lc-4k-to-32k", "main", 4000, None),
    ("lc-32k-to-64k-step-20000", "lc-32k-to-64k", "main", 20000, None),
    # Apertus
    ("step50000-tokens210B", None, "main", 50000, 210 * B),
    ("step2627139-tokens15T", None, "main", 2627139, 15 * T),
    ("longctx-step50", "longctx", "main", 50, None),
    ("longctx-step1700", "longctx", "main", 1700, None),
    # Lucie
    ("step0005000", None, "main", 5000, None),
    ("step0753851", None, "main", 753851, None),
    ("extension_step0000250", "extension", "main", 250, None),
    ("extension_step0001220", "extension", "main", 1220, None),
    # DataDecide
    ("step1250-seed-default", None, "seed-default", 1250, None),
    ("step6250-seed-small-aux-2", None, "seed-small-aux-2", 6250, None),
    ("step69369-seed-large-aux-3", None, "seed-large-aux-3", 69369, None),
    # LLM360
    ("ckpt_000", None, "main", 0, None),
    ("ckpt_356", None, "main", 356, None),
    ("CrystalCoder_phase1_checkpoint_055500", "phase1", "main", 55500, None),
    ("CrystalCoder_phase2_checkpoint_214387", "phase2", "main", 214387, None),
    ("CrystalCoder_phase3_checkpoint_027728", "phase3", "main", 27728, None),
    # TinyLlama
    ("TinyLlama-1.1B-step-50K-105b", None, "main", 50 * K, 105 * B),
    ("TinyLlama-1.1B-intermediate-step-240k-503b", None, "main", 240 * K, 503 * B),
    ("TinyLlama-1.1B-intermediate-step-715k-1.5T", None, "main", 715 * K, 1500 * B),
    ("TinyLlama-1.1B-intermediate-step-955k-token-2T", None, "main", 955 * K, 2 * T),
    ("TinyLlama-1.1B-intermediate-step-1195k-token-2.5T", None, "main", 1195 * K, 2500 * B),
    ("step-50k-105b", None, "main", 50 * K, 105 * B),
    # stanford-crfm GPT-2, BLOOM, MAP-Neo, trainers
    ("checkpoint-1000", None, "main", 1000, None),
    ("checkpoint-400000", None, "main", 400000, None),
    ("checkpoint-500", None, "main", 500, None),
    ("global_step1000", None, "main", 1000, None),
    ("global_step143000", None, "main", 143000, None),
    ("global_step_100", None, "main", 100, None),
    ("iter_0002384", None, "main", 2384, None),
    ("1200", None, "main", 1200, None),
    # every series
    ("main", None, "main", None, None),
    ("final", None, "main", None, None),
    ("last", None, "main", None, None),
]


@pytest.mark.parametrize(("name", "stage", "branch", "step", "tokens"), REAL_NAMES)
def test_names(name, stage, branch, step, tokens):
    place = parse_name(name)
    assert (place.stage, place.branch, place.step, place.tokens_reported) == (stage, branch, step, tokens)
    assert (place.phase, place.phase_index) == ("pretraining", 0)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.example)
def test_every_pattern_reads_its_own_example_and_is_the_first_to_do_so(pattern):
    assert next(one for one in PATTERNS if one.regex.fullmatch(pattern.example)) is pattern
    assert parse_name(pattern.example) is not None
    assert pattern.series


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("step100-tokens1.5T", 1500 * B),
        ("step1-tokens0.3T", 300 * B),  # 0.3 · 10¹² is no whole number in floats
        ("step1-tokens4.35B", 4350 * M),
        ("step7-tokens12K", 12 * K),
        ("step7-tokens2.5M", 2500 * K),
        ("STEP7-Tokens2b", 2 * B),
        ("step1-tokens1.000000000001T", 10**12 + 1),
    ],
)
def test_tokens_are_read_exactly(name, tokens):
    assert parse_name(name).tokens_reported == tokens


@pytest.mark.parametrize(
    "name",
    [
        "",
        "early",
        "step",
        "stepten",
        "v1.2",
        "step5-final",
        "step-",
        "step--5",
        "step1.5",
        "step5-tokens",
        "step5-tokens20",
        "step5-tokens20G",
        "step1-tokens1.2345K",  # not a whole number of tokens
        "stage-step5",
        "stage1",
        "stage2-ingredient-step5",
        "stage2-ingredient1",
        "lc-4k-step-10",
        "it-SFT",  # SmolLM3's post-training
        "it-mid-training",
        "decay100",
        "../step5",
        "step5/../../main",
        "step5\n",
        "\nstep5",
        "step5\0",
        "step 5",
        " step5",
        "step5;rm -rf",
        "step$(5)",
        "step５",  # full-width digits
        "step٣",
        "ſtep5",  # a long s, which equals s in upper case
        "main\n",
        "mаin",  # a Cyrillic а
        "step" + "9" * 19,  # above int64
        "step" + "1" * 5000,
        "step1-tokens9999999999T",
        "1" * 5000,
        "e" * 100_000,
    ],
)
def test_other_names_say_nothing(name):
    assert parse_name(name) is None


def test_long_and_padded_numbers():
    assert parse_name("step9223372036854775807").step == 2**63 - 1
    assert parse_name("step9223372036854775808") is None
    assert parse_name("ckpt_000000000000000007").step == 7


def shuffled(names):
    return random.Random(1).sample(names, len(names))


def order_of(names, own=None):
    return order({name: parse_name(name, own) for name in shuffled(names)})


@pytest.mark.parametrize(
    "names",
    [
        ["step0-tokens0B", "step9", "step10", "step_0025", "checkpoint-100", "global_step1000", "main"],
        ["ckpt_000", "ckpt_009", "ckpt_010", "ckpt_358", "main"],
        # SmolLM3: steps go on through the numbered stages and start again in the long-context ones
        [
            "stage1-step-40000",
            "stage1-step-3440000",
            "stage2-step-3480000",
            "stage3-step-4720000",
            "lc-4k-to-32k-step-4000",
            "lc-4k-to-32k-step-20000",
            "lc-32k-to-64k-step-4000",
            "lc-32k-to-64k-step-20000",
            "main",
        ],
        # OLMo 2: steps and tokens start again in stage 2, whose ingredients are siblings
        [
            "stage1-step150-tokens1B",
            "stage1-step20000-tokens84B",
            "stage1-step928646-tokens3896B",
            "stage2-ingredient1-step1000-tokens5B",
            "stage2-ingredient1-step11931-tokens50B",
            "stage2-ingredient2-step1000-tokens5B",
            "stage2-ingredient2-step11931-tokens50B",
            "stage2-ingredient10-step1000-tokens5B",
            "main",
        ],
        # a series whose early branches lack the prefix
        [
            "stage1-step150-tokens1B",
            "step600-tokens3B",
            "step1000-tokens5B",
            "stage1-step2150-tokens10B",
            "step11000-tokens47B",
            "stage2-ingredient1-step1000-tokens5B",
        ],
        # OLMo 3: the run itself, then the mixtures beside it
        [
            "stage1-step0",
            "stage1-step1413814",
            "stage2-step1000",
            "stage2-step47684",
            "stage2-step47684-mix-gen-mc-only-from-2T-ckpt",
            "stage2-step47684-mix-round5-from-2T-ckpt",
            "stage3-step11921",
            "main",
        ],
        # Apertus: tokens per step change, and the context is extended last
        [
            "step25000-tokens210B",
            "step1000000-tokens12400B",
            "step1155828-tokens15T",
            "longctx-step50",
            "longctx-step1700",
            "main",
        ],
        ["step0005000", "step0753851", "extension_step0000250", "extension_step0001220"],
        [
            "CrystalCoder_phase1_checkpoint_055500",
            "CrystalCoder_phase2_checkpoint_000600",
            "CrystalCoder_phase3_checkpoint_027728",
            "main",
        ],
        ["step0-seed-default", "step45787-seed-default", "step0-seed-small-aux-2", "step0-seed-small-aux-3"],
        [
            "TinyLlama-1.1B-step-50K-105b",
            "TinyLlama-1.1B-intermediate-step-715k-1.5T",
            "TinyLlama-1.1B-intermediate-step-955k-token-2T",
            "TinyLlama-1.1B-intermediate-step-1431k-3T",
        ],
        [],
    ],
    ids=lambda names: names[-1] if names else "none",
)
def test_order(names):
    assert order_of(names) == names


def test_a_phase_comes_after_the_one_before_whatever_its_steps():
    places = {
        "sft/step1": Place(None, 1, "main", 1, None, "sft", 1),
        "sft/main": Place(None, 1, "main", None, None, "sft", 1),
        "main": parse_name("main"),
        "stage2-step9": parse_name("stage2-step9"),
    }
    assert order(places) == ["stage2-step9", "main", "sft/step1", "sft/main"]


@pytest.mark.parametrize(
    ("names", "claim"),
    [
        (["step_0025", "step25"], "step 25"),
        (["step0", "step_000"], "step 0"),
        (["main", "final"], "the end of training"),
        (["step5-tokens1B", "step5-tokens2B"], "step 5"),
        (["stage1-step1000-tokens5B", "step1000-tokens5B"], "step 1000 of stage1"),
        (
            ["stage2-ingredient1-step11931-tokens100B", "stage2-ingredient1-step11931-tokens101B"],
            "step 11931 of stage2, branch ingredient1",
        ),
        (["step10", "STEP10"], "step 10"),
    ],
)
def test_two_names_for_one_place_are_refused(names, claim):
    with pytest.raises(UserError) as error:
        order_of([*names, "step7"])
    message = str(error.value)
    assert f"both claim {claim};" in message and "\n" not in message
    assert all(repr(name) in message for name in names)


def test_a_clash_in_a_later_phase_names_the_phase():
    place = Place(None, 1, "main", 5, None, "sft", 1)
    with pytest.raises(UserError, match="both claim step 5 of sft;"):
        order({"a": place, "b": place})


def test_siblings_and_stages_may_share_a_step():
    names = [f"stage2-ingredient{n}-step1000-tokens5B" for n in (1, 2, 3)]
    assert order_of([*names, "stage1-step1000-tokens5B"]) == ["stage1-step1000-tokens5B", *names]


# the user's own expression


def test_own_expression_is_tried_instead_of_the_table():
    own = compile_pattern(r"run_(?P<step>\d+)k_(?P<tokens>[\d.]+)(?P<unit>[mb])t")
    assert parse_name("RUN_50k_1.5Bt", own) == Place(None, 1, "main", 50, 1500 * M)
    assert parse_name("step1000", own) is None
    assert parse_name("run_50k_1.5Bt-old", own) is None
    assert parse_name("run_50k_1..5Bt", own) is None  # no number


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        (
            r"(?P<stage>[a-z]+\d*)\.(?P<step>\d+)",
            ["stage2.5", "stage10.1", "anneal2.7", "anneal10.3", "warm.9"],
        ),
        (r"(?P<stage>\d+)-(?P<step>\d+k?)", ["1-900", "1-1k", "2-5", "10-1"]),
        (r"(?:(?P<stage>phase \d)/)?(?P<step>\d+)?", ["10", "phase 1/20", "phase 1/", "phase 2/1", "phase 2/", ""]),
        (r"(?P<branch>seed\d+)_(?P<step>\d+)", ["seed1_5", "seed2_1", "seed10_1"]),
    ],
)
def test_own_expressions_with_stages_and_branches(expression, names):
    assert order_of(names, compile_pattern(expression)) == names


def test_own_expression_without_a_match_of_its_step_is_the_end():
    own = compile_pattern(r"(?:s(?P<step>\d*)|done)")
    assert parse_name("done", own).step is None
    assert parse_name("s", own) is None  # a step of no digits is none
    assert parse_name("s12", own).step == 12
    assert parse_name("s" + "9" * 30, own) is None


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("step(", "no valid regular expression"),
        ("step(?P<step>", "no valid regular expression"),
        ("(?P<step>[0-9]+)\n(", "no valid regular expression"),
        ("(?P<step>a{99999999999999999999})", "no valid regular expression"),
        ("(?L)(?P<step>a)", "no valid regular expression"),
        ("(" * 5000, "no valid regular expression"),
        (r"(?P<step>\d+)-(?P<epoch>\d+)", "unknown group 'epoch'; known: step, tokens, unit, stage, branch"),
        (r"step(\d+)", "no group for the step"),
        (r"(?P<tokens>\d+)", "no group for the step"),
        ("", "no group for the step"),
    ],
)
def test_a_wrong_expression_is_refused_in_one_line(expression, message):
    with pytest.raises(UsageError) as error:
        compile_pattern(expression)
    assert message in str(error.value) and "\n" not in str(error.value)


# for any series

names_of_series = st.one_of(
    st.builds("step{}".format, st.integers(0, 10**7)),
    st.builds("stage{}-step-{}".format, st.integers(1, 12), st.integers(0, 10**6)),
    st.builds("stage2-ingredient{}-step{}-tokens{}B".format, *[st.integers(0, 50)] * 3),
    st.builds("lc-{}k-to-{}k-step-{}".format, *[st.integers(1, 512)] * 3),
    st.builds("longctx-step{}".format, st.integers(0, 100)),
    st.sampled_from(["main", "final"]),
)


@given(st.lists(names_of_series, max_size=30), st.randoms(use_true_random=False))
def test_the_order_is_total_and_does_not_depend_on_the_input(names, source):
    places = {}
    for name in names:
        place = parse_name(name)
        if place.key not in {other.key for other in places.values()}:
            places[name] = place
    ordered = order(places)
    assert sorted(ordered) == sorted(places)
    keys = [places[name].key for name in ordered]
    assert all(before < after for before, after in pairwise(keys))
    again = list(places)
    source.shuffle(again)
    assert order({name: places[name] for name in again}) == ordered


@given(st.integers(0, 2**63 - 1), st.integers(0, 9_000_000), st.sampled_from("KMBTkmbt"))
def test_a_written_place_is_read_back(step, tokens, unit):
    place = parse_name(f"stage3-ingredient7-step{step}-tokens{tokens}{unit}")
    assert (place.step, place.stage_index, place.branch) == (step, 3, "ingredient7")
    assert place.tokens_reported == tokens * {"k": K, "m": M, "b": B, "t": T}[unit.lower()]


@given(st.text())
def test_no_text_breaks_the_reader(name):
    place = parse_name(name)
    assert place is None or re.fullmatch(r"[A-Za-z0-9_.-]+", name)
