"""Random sets match in number, kind and layer wherever they can, every admissible one equally often."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timecourse.extract.ablation_sets import AblationSet, MatchQuality, match_quality, matched_random_sets


def head(layer, number, heads=4):
    return layer * (heads + 1) + number


def feed_forward(layer, heads=4):
    return layer * (heads + 1) + heads


def by_layer(components, layers, heads=4):
    """Number of heads in each layer."""
    counts = Counter(one // (heads + 1) for one in components if one % (heads + 1) < heads)
    return [counts[layer] for layer in range(layers)]


def is_feed_forward(component, heads):
    return component % (heads + 1) == heads


@st.composite
def drawn(draw):
    """(components, layers, heads): any set of any small model."""
    layers, heads = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    components = draw(st.sets(st.integers(0, layers * (heads + 1) - 1), min_size=1))
    return sorted(components), layers, heads


@settings(max_examples=100, deadline=None, derandomize=True)
@given(drawn(), st.integers(0, 3))
def test_what_holds_of_any_set_of_any_model(shape, identity):
    components, layers, heads = shape
    found = matched_random_sets(components, layers, heads, 6, identity)
    assert found == matched_random_sets(components, layers, heads, 6, identity), "deterministic"
    assert len(set(found)) == len(found) <= 6, "distinct"
    own_heads = {one for one in components if not is_feed_forward(one, heads)}
    own_feed_forwards = set(components) - own_heads
    for one in found:
        assert list(one) == sorted(set(one)) and one[0] >= 0 and one[-1] < layers * (heads + 1)
        heads_drawn = {part for part in one if not is_feed_forward(part, heads)}
        feed_forwards_drawn = set(one) - heads_drawn
        assert len(heads_drawn) == len(own_heads) and len(feed_forwards_drawn) == len(own_feed_forwards)
        assert set(one) != set(components)
        wanted = by_layer(components, layers, heads)
        if 2 * len(own_heads) <= layers * heads:
            assert not heads_drawn & own_heads
            for layer, number in enumerate(by_layer(one, layers, heads)):
                assert number >= min(wanted[layer], heads - wanted[layer])
            if all(2 * number <= heads for number in wanted):
                assert by_layer(one, layers, heads) == wanted
        elif any(0 < number < heads for number in wanted):
            assert by_layer(one, layers, heads) == wanted and heads_drawn != own_heads
        if 2 * len(own_feed_forwards) <= layers:
            assert not feed_forwards_drawn & own_feed_forwards
        elif len(own_feed_forwards) < layers:
            assert feed_forwards_drawn != own_feed_forwards
        quality = match_quality(components, one, heads)
        assert quality.is_disjoint == (not set(one) & set(components))
        if own_heads:
            assert (quality.share_in_layer == 1.0) == (by_layer(one, layers, heads) == wanted)
    everything_of_its_kinds = len(own_heads) in (0, layers * heads) and len(own_feed_forwards) in (0, layers)
    assert bool(found) != everything_of_its_kinds


def admissible(components, layers, heads=4):
    """Every set with as many heads in every layer and as many FFNs, disjoint from this one."""
    others = [one for one in range(layers * (heads + 1)) if one not in components]
    return {
        one
        for one in combinations(others, len(components))
        if by_layer(one, layers, heads) == by_layer(components, layers, heads)
    }


@pytest.mark.parametrize(
    ("components", "layers", "expected_count"),
    [
        ((head(0, 1), head(1, 0), head(1, 2), feed_forward(1)), 3, 3 * 1 * 2),
        ((head(0, 3), head(2, 0)), 3, 3 * 3),
        ((feed_forward(0), feed_forward(2)), 5, 3),
    ],
)
def test_every_admissible_set_is_equally_likely(components, layers, expected_count):
    expected = admissible(components, layers)
    assert len(expected) == expected_count
    draws = 3000
    counts = Counter(matched_random_sets(components, layers, 4, 1, seed)[0] for seed in range(draws))
    assert_uniform(counts, expected, draws)


def assert_uniform(counts, expected, draws):
    """χ² within 4 standard deviations of its mean."""
    assert set(counts) == expected
    freedom = len(expected) - 1
    each = draws / len(expected)
    chi_square = sum((counts[one] - each) ** 2 / each for one in expected)
    assert chi_square < freedom + 4 * np.sqrt(2 * freedom)


def test_a_layer_with_too_few_other_heads_borrows_from_the_nearest():
    """Three of layer 1's four heads: its fourth, and two of layers 0 and 2, the more ways the likelier."""
    components = (head(1, 0), head(1, 1), head(1, 2), head(0, 0))
    near = [head(0, 1), head(0, 2), head(0, 3), *(head(2, number) for number in range(4))]
    # layer 0 owes one of its own three besides
    expected = {
        tuple(sorted((head(1, 3), *three)))
        for three in combinations(near, 3)
        if sum(one < head(1, 0) for one in three) >= 1
    }
    draws = 6000
    counts = Counter(matched_random_sets(components, 4, 4, 1, seed)[0] for seed in range(draws))
    assert_uniform(counts, expected, draws)
    quality = match_quality(components, (head(1, 3), head(0, 1), head(0, 2), head(2, 0)), 4)
    assert quality == MatchQuality(share_in_layer=0.5, is_disjoint=True)


def test_what_the_nearest_layers_lack_comes_from_the_next():
    """All of layer 0: the four of layer 1, unless they are taken; then of layer 2."""
    whole = [head(0, number) for number in range(4)]
    assert matched_random_sets(whole, 4, 4, 3, "any") == [tuple(head(1, number) for number in range(4))]
    taken = [*whole, head(1, 0), head(1, 1)]
    found = matched_random_sets(taken, 4, 4, 6, "any")
    assert len(found) == 1, "layers 1 and 2 give all they have"
    assert found[0] == (head(1, 2), head(1, 3), *(head(2, number) for number in range(4)))


def test_a_set_of_more_than_half_is_matched_by_layer_but_not_disjoint():
    components = tuple(sorted([*(head(0, number) for number in range(4)), head(1, 0), head(1, 1), head(1, 2)]))
    found = matched_random_sets(components, 2, 4, 20, "any")
    others = set(combinations([head(1, number) for number in range(4)], 3)) - {components[4:]}
    assert {one[4:] for one in found} == others and len(found) == 3, "each once, though 20 were asked for"
    assert match_quality(components, found[0], 4) == MatchQuality(share_in_layer=1.0, is_disjoint=False)


def test_full_layers_that_are_more_than_half_are_drawn_from_all_heads():
    components = tuple(head(layer, number) for layer in range(2) for number in range(4))
    found = matched_random_sets(components, 3, 4, 20, "any")
    assert len(found) == 20 and components not in found
    assert {sum(by_layer(one, 3)) for one in found} == {8} and len({tuple(by_layer(one, 3)) for one in found}) > 1


@pytest.mark.parametrize(
    ("components", "layers", "heads"),
    [
        ((), 3, 4),
        ((feed_forward(0, 8),), 1, 8),
        (tuple(range(8)), 1, 8),
        (tuple(range(9)), 1, 8),
        (tuple(one for one in range(10) if not is_feed_forward(one, 4)), 2, 4),
    ],
    ids=["empty", "the only FFN", "all heads of one layer", "everything", "all heads"],
)
def test_where_no_other_set_exists_there_is_none(components, layers, heads):
    assert matched_random_sets(components, layers, heads, 20, "any") == []


def test_all_of_one_kind_is_drawn_again_beside_another_draw_of_the_other():
    components = (head(0, 0), feed_forward(0))
    found = matched_random_sets(components, 1, 4, 20, "any")
    assert sorted(found) == [(head(0, number), feed_forward(0)) for number in (1, 2, 3)]
    assert not match_quality(components, found[0], 4).is_disjoint


def test_identity_decides_and_more_sets_begin_with_the_same():
    components = (0, 1, 7, 14, 24)
    few, many = (matched_random_sets(components, 5, 8, count, "series", "general", "A") for count in (5, 20))
    assert many[:5] == few and len(set(many)) == 20
    assert matched_random_sets(components, 5, 8, 5, "series", "general", "B") != few
    # the same on every machine and in every version of Python
    assert matched_random_sets(components, 5, 8, 1, "pinned") == [(3, 5, 6, 12, 19)]


def test_ffns_have_no_layer_to_match():
    assert match_quality((feed_forward(0),), (feed_forward(1),), 4) == MatchQuality(None, True)


def test_a_sets_components_are_sorted_and_distinct():
    for components in ((2, 1), (1, 1)):
        with pytest.raises(ValueError, match="not sorted"):
            AblationSet(3, "single", None, None, None, None, components)
    assert AblationSet(3, "role", "general", None, "A", None, (1, 2)).components == (1, 2)
