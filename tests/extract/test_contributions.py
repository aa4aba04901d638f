"""Contributions: what they must satisfy on any model of any family, and the rules that models alone seldom reach."""

import dataclasses

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.extract.families.comparison import largest_excess
from tests.extract.families.reference import contributions as reference_contributions
from tests.extract.families.reference import reference
from tests.extract.families.shapes import SHAPES, Shape, config_of, measure, prompts
from timecourse.extract import contributions, proximities
from timecourse.extract.contributions import layer_contributions, value_outputs
from timecourse.extract.families import FAMILIES

OLMO = next(shape for shape in SHAPES if str(shape) == "olmo-example0")


@st.composite
def drawn_shapes(draw):
    """A model of any family, of any small shape."""
    family = draw(st.sampled_from(FAMILIES))
    heads = draw(st.sampled_from([1, 2, 4, 6]))
    config = config_of(
        family.model_types[0],
        layers=draw(st.integers(1, 3)),
        heads=heads,
        kv_heads=draw(st.sampled_from([one for one in (1, 2, heads) if heads % one == 0])),
        head_size=draw(st.sampled_from([4, 8, 12])),
    )
    return Shape(family, "drawn", config)


any_model = {"shape": drawn_shapes(), "seed": st.integers(0, 1000), "lengths": st.tuples(*[st.integers(1, 9)] * 2)}
anywhere = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@anywhere
@given(**any_model, norm=st.sampled_from(["l1", "l2"]))
def test_equal_to_the_reference_in_float64(shape, seed, lengths, norm):
    ids, mask = prompts(lengths, seed=seed)
    layers, _ = measure(shape.build(seed=seed), shape.family, ids, mask)
    blocks = reference(shape.build(seed=seed), shape.model_type, ids, mask)
    expected = reference_contributions(blocks, lengths, order={"l1": 1, "l2": 2}[norm])
    assert largest_excess([layer_contributions(layer, norm) for layer in layers], *expected) <= 1


@anywhere
@given(**any_model)
def test_parts_sum_to_the_stream_and_shares_to_one(shape, seed, lengths):
    ids, mask = prompts(lengths, seed=seed)
    layers, _ = measure(shape.build(seed=seed), shape.family, ids, mask)
    present = mask.bool()
    for layer in layers:
        for one in layer_contributions(layer).sums:
            assert float(one.completeness_error[present].max()) <= 1e-5
            parts = [part for part in (one.residual, one.heads, one.feed_forward, one.bias) if part is not None]
            total = sum(part.flatten(2).sum(-1) if part.dim() > 2 else part for part in parts)
            torch.testing.assert_close(total, torch.where(one.degenerate, 0.0, 1.0))
            assert all(bool((part >= 0).all()) for part in parts)
            assert one.heads is None or (one.heads[~layer.attendable] == 0).all()


def example_layers():
    return measure(OLMO.build(), OLMO.family, *prompts((11, 11)))[0]


def test_a_sum_that_no_part_comes_closer_to_is_degenerate():
    layer = example_layers()[0]
    opposed = dataclasses.replace(
        layer, feed_forward=-layer.residual_between, residual_after=layer.residual_between * 0
    )
    found = layer_contributions(opposed).feed_forward
    assert found.degenerate.all()
    assert float(found.residual.abs().max()) == float(found.feed_forward.abs().max()) == 0.0


def test_the_threshold_is_strict_and_renormalises():
    before = layer_contributions(example_layers()[0]).attention
    heads, residual = before.heads[0, 5], float(before.residual[0, 5])
    tau = float(heads.flatten().sort(descending=True).values[3])
    kept = heads > tau
    assert int(kept.sum()) == 3
    after = before.thresholded(tau)
    assert torch.equal(after.heads[0, 5] > 0, kept)
    total = float(heads[kept].sum()) + (residual if residual > tau else 0.0)
    torch.testing.assert_close(after.heads[0, 5][kept], heads[kept] / total)
    nothing = before.thresholded(0.999)
    assert nothing.degenerate[0, 5] and float(nothing.heads[0, 5].sum()) == 0.0


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("elements", [1, 500, 3_000, 10_000])
def test_the_size_of_blocks_changes_nothing(monkeypatch, elements, norm):
    """Blocks of head parts; values behind W_O for some prompts, for one, and for some heads of one at a time."""
    layer = example_layers()[2]
    expected = layer_contributions(layer, norm)
    monkeypatch.setattr(proximities, "BLOCK_ELEMENTS", elements)
    monkeypatch.setattr(contributions, "VALUE_ELEMENTS", elements)
    found = layer_contributions(layer, norm)
    torch.testing.assert_close(found.attention.heads, expected.attention.heads, rtol=0, atol=1e-6)
    assert float(found.attention.completeness_error.max()) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("groups", "heads", "size", "width"), [(1, 1, 4, 3), (2, 6, 8, 40), (16, 16, 128, 2048)])
def test_values_behind_the_projection_lose_nothing_to_the_dtype(dtype, groups, heads, size, width):
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(3, groups, 11, size, generator=generator).to(dtype)
    weight = torch.randn(width, heads * size, generator=generator).to(dtype)
    by_head = weight.double().view(width, heads, size)
    values = value.double().repeat_interleave(heads // groups, dim=1)
    exact = torch.einsum("bhns,dhs->bnhd", values, by_head)
    largest = torch.einsum("bhns,dhs->bnhd", values.abs(), by_head.abs())
    precision = torch.get_float32_matmul_precision()
    assert ((value_outputs(value, weight, heads) - exact).abs() <= 1e-6 * largest).all()
    assert torch.get_float32_matmul_precision() == precision
