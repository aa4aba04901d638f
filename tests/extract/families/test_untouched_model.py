"""Reading a model changes nothing that it says, and its parts add up to its stream in every dtype."""

import pytest
import torch

from tests.extract.families.shapes import SHAPES, each, measure, prompts
from timecourse.extract.contributions import layer_contributions
from timecourse.extract.loading import LoadedModel
from timecourse.extract.measurement import COMPLETENESS_BOUND

WITHOUT_SDPA = ("gemma2",)
"""Families that transformers does not run with sdpa."""

BATCHES = [prompts((9, 5, 1)), (prompts((6, 6))[0], None), prompts((1,))]


def logits_of(model, ids, mask):
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, use_cache=False).logits


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("shape", each(SHAPES))
def test_logits_are_equal_and_the_lens_reads_them(shape, attention):
    if attention == "sdpa" and shape.model_type in WITHOUT_SDPA:
        with pytest.raises(ValueError, match="does not support"):
            shape.build(attention=attention)
        return
    untouched = shape.build(attention=attention)
    read = LoadedModel(shape.build(attention=attention), shape.family, torch.device("cpu"))
    for ids, mask in BATCHES:
        layers, logits = measure(read, shape.family, ids, mask)
        assert torch.equal(logits, logits_of(untouched, ids, mask))
        present = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        for layer in layers:
            for one in layer_contributions(layer).sums:
                assert float(one.completeness_error[present].max()) <= 1e-5
        lens = read.read_stream(layers[-1].residual_after)
        scale = float(logits[present].abs().max())
        assert float((lens - logits)[present].abs().max()) <= 1e-5 * scale


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("shape", each(SHAPES))
def test_half_precision(shape, dtype):
    kind = getattr(torch, dtype)
    ids, mask = BATCHES[0]
    layers, logits = measure(shape.build(dtype=kind), shape.family, ids, mask)
    expected = logits_of(shape.build(dtype=kind), ids, mask)
    assert torch.equal(logits.nan_to_num(), expected.nan_to_num())
    # in float16 a window that holds nothing but padding overflows, and the model itself answers NaN to that prompt
    usable = mask.bool() & expected.isfinite().all(-1)
    assert usable[0].all()
    for layer in layers:
        assert layer.residual_after.dtype == kind
        for one in layer_contributions(layer).sums:
            assert one.residual.dtype == torch.float32
            assert float(one.completeness_error[usable].max()) <= COMPLETENESS_BOUND[dtype]
