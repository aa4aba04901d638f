"""Every family's contributions and routes against explicit loops over what the untouched model shows."""

import pytest

from tests.extract.families.comparison import check_routes, clear_of, largest_excess
from tests.extract.families.reference import completeness_error, contributions, reference
from tests.extract.families.shapes import SHAPES, each, measured, prompts
from timecourse.extract.contributions import layer_contributions

LENGTHS = (9, 5, 1)


@pytest.mark.parametrize("shape", each(SHAPES))
def test_contributions_and_routes(shape):
    ids, mask = prompts(LENGTHS)
    layers, _ = measured(shape)
    model = shape.build()
    blocks = reference(model, shape.model_type, ids, mask)
    assert completeness_error(blocks, LENGTHS) < 1e-6, "the reference itself misses the stream"

    found = [layer_contributions(layer) for layer in layers]
    for layer in found:
        for one in layer.sums:
            assert float(one.completeness_error[mask.bool()].max()) <= 1e-5
    shares, rounding = contributions(blocks, LENGTHS)
    assert largest_excess(found, shares, rounding) <= 1
    by_l2 = [layer_contributions(layer, "l2") for layer in layers]
    assert largest_excess(by_l2, *contributions(blocks, LENGTHS, order=2)) <= 1

    head_count = model.config.get_text_config().num_attention_heads
    taus = [0.0, *(clear_of(shares, nominal) for nominal in (0.02, 0.1, 0.4, 0.6))]
    active = [check_routes(found, shares, LENGTHS, tau, head_count) for tau in taus]
    assert active[0] >= active[1] >= active[2] > 0
