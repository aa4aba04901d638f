"""Routes for all targets at once, as matrix products, against a walk in plain loops."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.extract import slow_reference
from tests.extract.test_contributions import SHAPES, activations, random_olmo
from timecourse.extract.contributions import layer_contributions
from timecourse.extract.routes import KEY_GROUPS, walk_routes


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    shape=SHAPES,
    tau=st.sampled_from([0.0, 0.02, 0.06, 0.15, 0.4]),
    lengths=st.tuples(st.integers(1, 8), st.integers(1, 8)),
)
def test_equal_to_a_walk_in_plain_loops(shape, tau, lengths):
    longest = max(lengths)
    ids = torch.zeros(2, longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    groups = torch.full((2, longest), -1)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.arange(length) + 3 + row
        mask[row, :length] = 1
        groups[row, :length] = torch.arange(length) % 3
        groups[row, 0] = KEY_GROUPS.index("first")
    model = random_olmo(**shape)
    layers, _ = activations(model, ids, mask)
    measured = [layer_contributions(layer) for layer in layers]
    routes = walk_routes(measured, tau, mask.bool(), groups)
    for row, length in enumerate(lengths):
        slow = [slow_reference.layer_shares(layer, row) for layer in layers]
        if near_threshold(slow, tau, length):
            continue
        for target in range(length):
            check_target(routes, slow, tau, row, target, shape["heads"], groups)
        for heads, feed_forward in routes.layers:
            assert float(heads.edges[row, length:].sum() + feed_forward.edges[row, length:].sum()) == 0


def near_threshold(slow, tau, length):
    """Whether some contribution lies so close to τ that float32 may put it on the other side."""
    return any(
        abs(value - tau) < 1e-5
        for kinds in slow
        for sums in kinds
        for query in range(length)
        for value in sums[query].values()
    )


def check_target(routes, slow, tau, row, target, head_count, groups):
    expected = slow_reference.walk(slow, tau, target, head_count)
    for index, (heads, feed_forward) in enumerate(routes.layers):
        for head in range(head_count + 1):
            scores, part = (heads, head) if head < head_count else (feed_forward, 0)
            terms = expected.get(f"L{index}{f'H{head}' if head < head_count else 'F'}", [])
            at = (row, target, part)
            assert int(scores.edges[at]) == len(terms)
            assert float(scores.score[at]) == pytest.approx(sum(value for *_, value in terms), rel=1e-3, abs=1e-5)
            assert float(scores.peak[at]) == pytest.approx(
                max([value for *_, value in terms], default=0), rel=1e-3, abs=1e-5
            )
            direct = sum(value for query, _, value in terms if query == target)
            assert float(scores.direct[at]) == pytest.approx(direct, rel=1e-3, abs=1e-5)
            if scores.by_key is not None:
                for group in range(len(KEY_GROUPS)):
                    wanted = sum(value for _, key, value in terms if int(groups[row, key]) == group)
                    assert float(scores.by_key[(*at, group)]) == pytest.approx(wanted, rel=1e-3, abs=1e-5)


def test_a_target_that_is_none_has_no_route():
    layers, _ = activations(random_olmo(), torch.arange(6)[None])
    targets = torch.tensor([[False, True, True, False, True, True]])
    groups = torch.tensor([[3, 0, 0, 2, 1, 1]])
    routes = walk_routes([layer_contributions(layer) for layer in layers], 0.02, targets, groups)
    for kinds in routes.layers:
        for scores in kinds:
            active = scores.edges[0].sum(-1) > 0
            assert not active[~targets[0]].any()
    assert all(bool((feed_forward.edges[0, targets[0]] >= 0).all()) for _, feed_forward in routes.layers)
    top = routes.layers[-1][1]
    assert bool((top.edges[0, targets[0]] > 0).any())
