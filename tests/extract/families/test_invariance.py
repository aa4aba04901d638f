"""Contributions before τ depend on the prompt alone, not on its batch, padding or what follows; heads have no order."""

import pytest
import torch

from tests.extract.families.reference import SOURCES
from tests.extract.families.shapes import SHAPES, VOCABULARY, each, measure
from timecourse.extract.contributions import layer_contributions
from timecourse.extract.loading import LoadedModel

LENGTH = 6
PROMPT = torch.randint(VOCABULARY, (1, LENGTH), generator=torch.Generator().manual_seed(5))
OTHER = torch.randint(VOCABULARY, (1, LENGTH + 3), generator=torch.Generator().manual_seed(6))
CLOSE = 5e-6
"""A batch of another shape is added up in another order: below 1e-6 in nine of ten of these models, 3e-6 in the worst.
Gains of 20 make the softmax as much more sensitive."""


def named(layers, row, positions):
    """{name: contributions} of one prompt's positions, per layer and sum."""
    found = {}
    for index, layer in enumerate(layers):
        for number, one in enumerate(layer_contributions(layer).sums):
            for name in ("residual", "feed_forward", "bias"):
                part = getattr(one, name)
                if part is not None:
                    found[index, number, name] = part[row, positions]
            if one.heads is not None:
                found[index, number, "heads"] = one.heads[row, positions, positions]
    return found


def assert_equal(found, expected, shape):
    close = CLOSE * abs(shape.gains)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float((found[name] - value).abs().max()) <= close, name


@pytest.mark.parametrize("shape", each(SHAPES))
def test_batch_padding_and_later_text_change_nothing(shape):
    model = LoadedModel(shape.build(), shape.family, torch.device("cpu"))
    alone = named(measure(model, shape.family, PROMPT)[0], 0, slice(None))

    longer = torch.cat([PROMPT, OTHER[:, :3]], dim=1)
    assert_equal(named(measure(model, shape.family, longer)[0], 0, slice(LENGTH)), alone, shape)

    for padded_on_the_left in (False, True):
        rows = slice(3, None) if padded_on_the_left else slice(LENGTH)
        ids = OTHER.repeat(2, 1)
        ids[1, rows] = PROMPT[0]
        mask = torch.ones_like(ids)
        mask[1] = 0
        mask[1, rows] = 1
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        batched, _ = measure(model, shape.family, ids, mask, position_ids=positions)
        assert_equal(named(batched, 1, rows), alone, shape)


def permute_heads(model, model_type, order, group_order):
    """Move heads and groups, with their weights, to where `order` and `group_order` say they come from."""
    source, heads = SOURCES[model_type], len(order)
    for block in model.get_submodule(source.blocks):
        output = block.get_submodule(source.output)
        along = 0 if source.output_is_transposed else 1
        output.weight.copy_(_moved(output.weight, order, along))
        packed = block.get_submodule(source.value)
        if source.value_layout == "last third":
            for tensor in (packed.weight, packed.bias):
                thirds = tensor.view(*tensor.shape[:-1], 3 * heads, -1)
                three = [head + third * heads for third in range(3) for head in order]
                tensor.copy_(thirds[..., three, :].reshape(tensor.shape))
            continue
        if source.value_layout == "last third of every head":
            _move_rows(packed, order)
            continue
        attention = block.get_submodule(source.value.rpartition(".")[0])
        for name, which in (("q", order), ("k", group_order), ("v", group_order)):
            _move_rows(getattr(attention, f"{name}_proj"), which)
            norm = getattr(attention, f"{name}_norm", None)
            if norm is not None and len(norm.weight) == len(getattr(attention, f"{name}_proj").weight):
                norm.weight.copy_(_moved(norm.weight, which, 0))


def _moved(tensor, order, along):
    split = tensor.transpose(0, along).reshape(len(order), -1, *tensor.transpose(0, along).shape[1:])
    return split[order].reshape(tensor.transpose(0, along).shape).transpose(0, along).contiguous()


def _move_rows(projection, order):
    projection.weight.copy_(_moved(projection.weight, order, 0))
    if projection.bias is not None:
        projection.bias.copy_(_moved(projection.bias, order, 0))


@pytest.mark.parametrize("shape", each([one for one in SHAPES if "one-head" not in one.name]))
def test_permuting_heads_permutes_contributions(shape):
    """Groups of heads that share keys and values move together, and heads within them too."""
    model, permuted = shape.build(), shape.build()
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", heads)
    within = heads // groups
    group_order = [*range(1, groups), 0]
    order = [group * within + head for group in group_order for head in reversed(range(within))]
    assert order != list(range(heads))
    permute_heads(permuted, shape.model_type, order, group_order)
    expected = named(measure(model, shape.family, PROMPT)[0], 0, slice(None))
    found = named(measure(permuted, shape.family, PROMPT)[0], 0, slice(None))
    for name in expected:
        if name[-1] == "heads":
            expected[name] = expected[name][..., order]
    assert_equal(found, expected, shape)
