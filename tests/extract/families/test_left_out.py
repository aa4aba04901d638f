"""A family file that forgot a term is caught: the parts then miss the stream by more than the gate allows."""

import dataclasses

import pytest
import torch

from tests.extract.families.reference import SOURCES, window
from tests.extract.families.shapes import EXAMPLES, SHAPES, Shape, each, measure, measured, prompts
from timecourse.extract.contributions import layer_contributions
from timecourse.extract.measurement import COMPLETENESS_BOUND

BOUND = COMPLETENESS_BOUND["float32"]
PRESENT = prompts()[1].bool()


def worst_error(layers):
    sums = [one for layer in layers for one in layer_contributions(layer).sums]
    return float(torch.stack([one.completeness_error[PRESENT].max() for one in sums]).max())


def text_config(shape):
    return shape.config.get("text_config", shape.config)


FORGETFUL = {
    "the norm after attention": {"attention_norm": None},
    "the norm after the FFN": {"feed_forward_output": "mlp"},
    "what is added to a norm's weight": {"gain_offset": 0.0},
    "the residual multiplier": {"residual_multiplier": None},
}
"""Fields of a family whose default says that there is no such term."""


def forgetful_families():
    for shape in EXAMPLES:
        for term, change in FORGETFUL.items():
            forgetful = dataclasses.replace(shape.family, **change)
            if forgetful != shape.family:
                yield pytest.param(shape, forgetful, id=f"{shape}-{term}")


@pytest.mark.parametrize(("shape", "forgetful"), forgetful_families())
def test_a_family_that_forgets_a_term(shape, forgetful):
    layers, _ = measure(shape.build(), forgetful, *prompts())
    assert worst_error(layers) > BOUND
    assert worst_error(measured(shape)[0]) < BOUND / 10


@pytest.mark.parametrize("shape", each(SHAPES))
def test_a_family_that_forgets_the_ffn_or_a_bias(shape):
    layers, _ = measured(shape)
    for layer in layers:
        silent = dataclasses.replace(layer, feed_forward=torch.zeros_like(layer.feed_forward))
        assert worst_error([silent]) > BOUND
        if layer.output_bias is not None:
            assert worst_error([dataclasses.replace(layer, output_bias=None)]) > BOUND


@pytest.mark.parametrize("shape", each([one for one in SHAPES if text_config(one).get("clip_qkv")]))
def test_a_family_that_forgets_the_clip(shape):
    """The values as the projection gave them."""
    source, given = SOURCES[shape.model_type], []
    model = shape.build()
    for block in model.get_submodule(source.blocks):
        # the copy matters: the model clips in place
        block.get_submodule(source.value).register_forward_hook(lambda *seen: given.append(seen[-1].clone()))
    with torch.no_grad():
        model(input_ids=prompts()[0], attention_mask=prompts()[1], use_cache=False)
    for layer, projected in zip(measured(shape)[0], given, strict=True):
        unclipped = projected.view(layer.value.transpose(1, 2).shape).transpose(1, 2)
        assert worst_error([dataclasses.replace(layer, value=unclipped)]) > BOUND


def first_windowed_block(shape):
    """Below it, forgetting windows changes nothing; None where every prompt fits into the windows."""
    if not text_config(shape).get("sliding_window"):
        return None
    config = shape.build().config.get_text_config()
    sizes = [window(config, index) for index in range(config.num_hidden_layers)]
    return next((index for index, size in enumerate(sizes) if size is not None and size < PRESENT.shape[1]), None)


@pytest.mark.parametrize("shape", each([one for one in SHAPES if first_windowed_block(one) is not None]))
def test_a_family_that_forgets_the_window(shape):
    """The pattern as it would be over all earlier tokens."""
    wide = {"sliding_window": 64}
    nested = {"text_config": {**text_config(shape), **wide}} if "text_config" in shape.config else wide
    without_windows = Shape(shape.family, shape.name, {**shape.config, **nested}, shape.gains)
    index = first_windowed_block(shape)
    pattern = measured(without_windows)[0][index].pattern
    assert worst_error([dataclasses.replace(measured(shape)[0][index], pattern=pattern)]) > BOUND


def neox(is_parallel):
    return [
        shape
        for shape in SHAPES
        if shape.model_type == "gpt_neox" and shape.config.get("use_parallel_residual", True) == is_parallel
    ]


def measured_as(shape, is_parallel):
    mistaken = dataclasses.replace(shape.family, is_parallel=lambda _: is_parallel)
    return measure(shape.build(), mistaken, *prompts())[0]


@pytest.mark.parametrize("shape", neox(True), ids=str)
def test_a_parallel_block_taken_for_a_sequential_one(shape):
    assert worst_error(measured_as(shape, False)) > BOUND


@pytest.mark.parametrize("shape", neox(False), ids=str)
def test_a_sequential_block_taken_for_a_parallel_one_adds_up(shape):
    """Completeness cannot tell, but the numbers are others: test_interventions asks the model what its FFN reads."""
    layers = measured_as(shape, True)
    assert worst_error(layers) < BOUND
    found, right = (layer_contributions(one[0]).feed_forward_part[PRESENT] for one in (layers, measured(shape)[0]))
    assert float((found - right).abs().max()) > 0.01
