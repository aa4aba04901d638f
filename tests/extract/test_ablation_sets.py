"""Random sets match in number, kind and layer, and share what the sets share that they stand beside."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timecourse.extract.ablations.sets import AblationSet, image, permutations


def by_layer(components, heads):
    """Heads of each layer, and FFNs."""
    return Counter("ffn" if one % (heads + 1) == heads else one // (heads + 1) for one in components)


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**32), st.data())
def test_random_sets_match_in_number_kind_and_layer(layers, heads, seed, data):
    everything = st.sets(st.integers(0, layers * (heads + 1) - 1))
    one, other = data.draw(everything), data.draw(everything)
    for permutation in permutations(layers, heads, 3, seed):
        assert sorted(permutation) == list(range(layers * (heads + 1)))
        assert by_layer(image(one, permutation), heads) == by_layer(one, heads)
        both = set(image(one, permutation)) & set(image(other, permutation))
        assert both == set(image(one & other, permutation)), "what sets share, their random sets share"


def test_every_random_set_is_equally_likely():
    """One head of layer 0 and one FFN of three layers: 4 × 3 random sets, the set itself among them."""
    draws = 3000
    counts = Counter(image((1, 4), permutations(3, 4, 1, seed)[0]) for seed in range(draws))
    assert set(counts) == {tuple(sorted((head, ffn))) for head in range(4) for ffn in (4, 9, 14)}
    chi_square = sum((count - draws / 12) ** 2 / (draws / 12) for count in counts.values())
    assert chi_square < 11 + 4 * np.sqrt(22)  # 4 standard deviations above its mean


def test_identity_decides_and_more_begin_with_the_same():
    assert permutations(3, 4, 5, "seed", 0) == permutations(3, 4, 20, "seed", 0)[:5]
    assert permutations(3, 4, 5, "seed", 0) != permutations(3, 4, 5, "seed", 1)
    assert len(set(permutations(3, 4, 20, 0))) == 20
    assert permutations(2, 3, 1, "pinned") == [(1, 0, 2, 3, 5, 4, 6, 7)], (
        "the same on every machine and version of Python"
    )


def test_a_sets_components_are_sorted_and_distinct():
    for components in ((3, 1), (1, 1)):
        with pytest.raises(ValueError, match="not sorted, or one occurs twice"):
            AblationSet(0, "role", "general", None, "A", None, components)
