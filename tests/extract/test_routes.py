"""Routes for all targets at once, as matrix products, against a walk in plain loops, and the rules one by one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.extract.families.comparison import check_routes, clear_of
from tests.extract.families.reference import contributions, reference
from tests.extract.families.shapes import measure, prompts
from tests.extract.test_contributions import any_model, anywhere
from timecourse.extract.contributions import LayerContributions, SumContributions, layer_contributions
from timecourse.extract.routes import walk_routes


@anywhere
@given(**any_model, nominal=st.sampled_from([0.0, 0.02, 0.06, 0.15, 0.4, 0.6]))
def test_equal_to_a_walk_in_plain_loops(shape, seed, lengths, nominal):
    ids, mask = prompts(lengths, seed=seed)
    model = shape.build(seed=seed)
    shares, _ = contributions(reference(model, shape.model_type, ids, mask), lengths)
    layers, _ = measure(model, shape.family, ids, mask)
    tau = nominal and clear_of(shares, nominal)
    head_count = model.config.get_text_config().num_attention_heads
    active = check_routes([layer_contributions(layer) for layer in layers], shares, lengths, tau, head_count)
    assert active > 0 or nominal > 0.1


def one_sum(residual, heads=None, feed_forward=None, bias=None):
    """One prompt's sum; heads: {(query, key): contribution} of the only head."""
    positions = len(residual)
    by_head = None
    if heads is not None:
        by_head = torch.zeros(1, positions, positions, 1)
        for (query, key), value in heads.items():
            by_head[0, query, key, 0] = value
    given = [None if part is None else torch.tensor([part]) for part in (feed_forward, bias)]
    zero = torch.zeros(1, positions)
    return SumContributions(torch.tensor([residual]), by_head, *given, zero.bool(), zero, zero)


def active_at(routes, target):
    """(heads, FFNs): the layers whose only head, or FFN, is active for a target."""
    return tuple(
        [index for index, kinds in enumerate(routes.layers) if kinds[kind].edges[0, target, 0] > 0] for kind in (0, 1)
    )


QUIET = LayerContributions(one_sum([1.0, 1.0], {}), one_sum([0.5, 0.5], feed_forward=[0.5, 0.5]))
TARGETS, GROUPS = torch.ones(1, 2, dtype=torch.bool), torch.tensor([[3, 2]])
HEAD_ONLY = {(0, 0): 1.0, (1, 0): 1.0}


@pytest.mark.parametrize(
    ("top", "below"),
    [
        # sequential: the head carries the route to key 0, and below it goes on
        (LayerContributions(one_sum([0.0, 0.0], HEAD_ONLY), one_sum([1.0, 1.0], feed_forward=[0.0, 0.0])), True),
        # the FFN alone keeps the route alive at q as well as the residual does
        (LayerContributions(one_sum([0.0, 1.0], {}), one_sum([0.0, 0.0], feed_forward=[1.0, 1.0])), True),
        # neither survives: the attention sum is not entered
        (LayerContributions(one_sum([1.0, 1.0], HEAD_ONLY), one_sum([0.1, 0.1], feed_forward=[0.1, 0.1])), False),
        # only the bias survives the attention sum: the route ends
        (
            LayerContributions(one_sum([0.1, 0.1], {}, bias=[0.9, 0.9]), one_sum([0.5] * 2, feed_forward=[0.5] * 2)),
            False,
        ),
        # parallel: the FFN reads the stream at q; the bias reads nothing
        (LayerContributions(one_sum([0.1, 0.1], {}, feed_forward=[0.9, 0.9]), None), True),
        (LayerContributions(one_sum([0.9, 0.9], {}, feed_forward=[0.1, 0.1]), None), True),
        (LayerContributions(one_sum([0.1, 0.1], {}, feed_forward=[0.1, 0.1], bias=[0.9, 0.9]), None), False),
    ],
)
def test_where_a_route_goes_on_below(top, below):
    routes = walk_routes([QUIET, top], 0.2, TARGETS, GROUPS)
    assert (0 in active_at(routes, 1)[1]) == below


def test_a_head_carries_the_route_to_its_key_and_away_from_the_query():
    top = LayerContributions(
        one_sum([0.0, 0.0], {(0, 0): 1.0, (1, 0): 0.6, (1, 1): 0.1}), one_sum([0.7, 0.7], feed_forward=[0.1, 0.1])
    )
    at_key_one = LayerContributions(one_sum([1.0, 0.0], {(1, 1): 1.0}), one_sum([0.5, 1.0], feed_forward=[0.5, 0.0]))
    routes = walk_routes([at_key_one, top], 0.2, TARGETS, GROUPS)
    heads, feed_forward = routes.layers[1]
    assert float(heads.score[0, 1, 0]) == float(heads.direct[0, 1, 0]) == 1.0  # alone above τ, so all of it
    assert heads.by_key[0, 1, 0].tolist() == [0.0, 0.0, 0.0, 1.0]
    assert not feed_forward.edges.any()
    # position 1 is left at the top: below it, its own head has no part in the route, position 0's FFN has
    assert active_at(routes, 1) == ([1], [0])
    assert float(routes.layers[0][1].direct[0, 1, 0]) == 0.0 < float(routes.layers[0][1].score[0, 1, 0])


def test_a_target_that_is_none_has_no_route():
    targets = torch.tensor([[False, True]])
    routes = walk_routes([QUIET, QUIET], 0.2, targets, GROUPS)
    assert active_at(routes, 0) == ([], [])
    assert active_at(routes, 1) == ([], [0, 1])
