"""Contributions: what they must satisfy on any model of the family, and against the slow reference."""

import dataclasses

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import OlmoConfig, OlmoForCausalLM

from tests.extract import slow_reference
from timecourse.extract import contributions as module
from timecourse.extract.contributions import layer_contributions
from timecourse.extract.families.base import reading_layers, use_capturing_attention
from timecourse.extract.families.olmo import OLMO


def random_olmo(seed=0, *, layers=3, heads=5, kv_heads=None, head_size=8, clip=None, bias=False, dtype=torch.float32):
    """A random OLMo whose every parameter, biases included, is random and large enough to matter."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = OlmoConfig(
            vocab_size=50,
            hidden_size=heads * head_size,
            intermediate_size=3 * heads * head_size // 2,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads or heads,
            clip_qkv=clip,
            attention_bias=bias,
            max_position_embeddings=64,
            tie_word_embeddings=False,
        )
        model = OlmoForCausalLM(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.15)
    return model.to(dtype).requires_grad_(False)


def activations(model, ids, mask=None):
    """Every layer's activations, and the logits."""
    use_capturing_attention(model)
    layers = []
    with torch.no_grad(), reading_layers(model, OLMO, lambda _, layer: layers.append(layer)):
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return layers, logits


SHAPES = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 1000),
        "layers": st.integers(1, 3),
        "heads": st.sampled_from([1, 2, 4, 6]),
        "kv_heads": st.sampled_from([1, 2, None]),
        "head_size": st.sampled_from([2, 4, 10]),
        "clip": st.sampled_from([None, 0.3]),
        "bias": st.booleans(),
    }
).filter(lambda shape: shape["heads"] % (shape["kv_heads"] or 1) == 0)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(shape=SHAPES, length=st.integers(1, 9), order=st.sampled_from(["l1", "l2"]))
def test_equal_to_the_slow_reference_in_float64(shape, length, order):
    layers, _ = activations(random_olmo(**shape), torch.arange(length)[None] + 3)
    for layer in layers:
        found = layer_contributions(layer, order)
        attention, feed_forward = slow_reference.layer_shares(layer, 0, {"l1": 1, "l2": 2}[order])
        for query in range(length):
            heads = torch.zeros_like(found.attention.heads[0, query]).double()
            for name, value in attention[query].items():
                if name not in ("residual", "bias"):
                    heads[name[1], name[2]] = value
            # float32 keeps 7 digits of a norm, and a proximity is the difference of two
            close = {"rtol": 1e-4, "atol": 1e-5}
            torch.testing.assert_close(found.attention.heads[0, query].double(), heads, **close)
            assert float(found.attention.residual[0, query]) == pytest.approx(attention[query]["residual"], 1e-4, 1e-5)
            if shape["bias"]:
                assert float(found.attention.bias[0, query]) == pytest.approx(attention[query]["bias"], 1e-4, 1e-5)
            assert float(found.feed_forward.feed_forward[0, query]) == pytest.approx(
                feed_forward[query]["ffn"], 1e-4, 1e-5
            )


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(shape=SHAPES, length=st.integers(1, 12))
def test_parts_sum_to_the_stream_and_shares_to_one(shape, length):
    layers, _ = activations(random_olmo(**shape), torch.arange(length)[None] + 3)
    for layer in layers:
        found = layer_contributions(layer)
        for part in (found.attention, found.feed_forward):
            assert float(part.completeness_error.max()) <= 1e-5
            total = sum(one.flatten(2).sum(-1) if one.dim() > 2 else one for one in part._parts() if one is not None)
            torch.testing.assert_close(total, torch.where(part.degenerate, 0.0, 1.0))
        assert (found.attention.heads[~layer.attendable] == 0).all()


def test_logits_are_those_of_the_untouched_model():
    ids = torch.arange(24).view(2, 12)
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    untouched = random_olmo(clip=0.3)
    untouched.set_attn_implementation("eager")
    with torch.inference_mode():
        expected = untouched(input_ids=ids, attention_mask=mask).logits
    _, logits = activations(random_olmo(clip=0.3), ids, mask)
    assert torch.equal(logits, expected)


@pytest.mark.parametrize("pad_left", [False, True])
def test_batch_padding_and_later_text_change_nothing(pad_left):
    model = random_olmo(clip=0.4)
    prompt = torch.tensor([[7, 8, 9, 10, 11, 12]])
    alone, _ = activations(model, prompt)
    later, _ = activations(model, torch.cat([prompt, torch.tensor([[13, 14, 15]])], dim=1))
    ids = torch.tensor([[20, 21, 22, 23, 24, 25, 26, 27, 28], [0, 0, 0, 7, 8, 9, 10, 11, 12]])
    mask = torch.tensor([[1] * 9, [0] * 3 + [1] * 6])
    rows = slice(3, 9)
    if not pad_left:
        ids[1], mask[1], rows = ids[1].roll(-3), mask[1].roll(-3), slice(0, 6)
    use_capturing_attention(model)
    batched = []
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad(), reading_layers(model, OLMO, lambda _, layer: batched.append(layer)):
        model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
    for one, longer, many in zip(alone, later, batched, strict=True):
        expected = layer_contributions(one)
        for found, row, part in ((layer_contributions(longer), 0, slice(0, 6)), (layer_contributions(many), 1, rows)):
            heads = found.attention.heads[row, part, part]
            torch.testing.assert_close(heads, expected.attention.heads[0], rtol=0, atol=1e-6)
            for kind in ("attention", "feed_forward"):
                residual = getattr(found, kind).residual[row, part]
                torch.testing.assert_close(residual, getattr(expected, kind).residual[0], rtol=0, atol=1e-6)


def test_permuting_heads_permutes_contributions():
    model = random_olmo(heads=4, head_size=6)
    order = [2, 0, 3, 1]
    permuted = random_olmo(heads=4, head_size=6)
    rows = torch.tensor([head * 6 + index for head in order for index in range(6)])
    with torch.no_grad():
        for layer in permuted.model.layers:
            for name in ("q_proj", "k_proj", "v_proj"):
                projection = getattr(layer.self_attn, name)
                projection.weight.copy_(projection.weight[rows].clone())
            layer.self_attn.o_proj.weight.copy_(layer.self_attn.o_proj.weight[:, rows].clone())
    ids = torch.arange(8)[None]
    for one, other in zip(activations(model, ids)[0], activations(permuted, ids)[0], strict=True):
        expected = layer_contributions(one).attention.heads[..., order]
        torch.testing.assert_close(layer_contributions(other).attention.heads, expected, rtol=0, atol=1e-6)


def test_each_heads_part_is_what_zeroing_it_takes_from_the_stream():
    model = random_olmo(clip=0.3, bias=True)
    ids = torch.arange(7)[None]
    layer = activations(model, ids)[0][1]
    value_output = module.value_outputs(layer.value, layer.output_weight, heads=5)
    written = torch.einsum("bhqk,bkhd->bqhd", layer.pattern, value_output)
    for head in range(5):
        silenced = random_olmo(clip=0.3, bias=True)
        with torch.no_grad():
            silenced.model.layers[1].self_attn.o_proj.weight[:, head * 8 : (head + 1) * 8] = 0
        changed = activations(silenced, ids)[0][1]
        torch.testing.assert_close(
            layer.residual_between - changed.residual_between, written[:, :, head], rtol=0, atol=1e-5
        )


@pytest.mark.parametrize(
    ("left_out", "options"),
    [
        ("bias", {"output_bias": None}),
        ("clip", {"clip": True}),
        ("window", {"pattern": True}),
        ("feed forward", {"feed_forward": True}),
    ],
)
def test_the_completeness_error_shows_a_term_that_is_left_out(left_out, options):
    layer = activations(random_olmo(clip=0.3, bias=True), torch.arange(9)[None])[0][1]
    replaced = dict(options)
    if "clip" in options:  # values as projected, before clip_qkv
        replaced = {"value": layer.value * 1.5}
    elif "pattern" in options:  # a pattern that forgets all but the last three keys
        replaced = {"pattern": layer.pattern.triu(-2)}
    elif "feed_forward" in options:
        replaced = {"feed_forward": torch.zeros_like(layer.feed_forward)}
    found = layer_contributions(dataclasses.replace(layer, **replaced))
    worst = max(float(part.completeness_error.max()) for part in (found.attention, found.feed_forward))
    assert worst > 1e-2, left_out


def test_a_sum_that_no_part_comes_closer_to_is_degenerate():
    layer = activations(random_olmo(), torch.arange(4)[None])[0][0]
    opposed = dataclasses.replace(
        layer, feed_forward=-layer.residual_between, residual_after=layer.residual_between * 0
    )
    found = layer_contributions(opposed).feed_forward
    assert found.degenerate.all()
    assert float(found.residual.abs().max()) == float(found.feed_forward.abs().max()) == 0.0


def test_the_threshold_is_strict_and_renormalises():
    layer = activations(random_olmo(), torch.arange(6)[None])[0][0]
    before = layer_contributions(layer)
    tau = float(before.attention.residual[0, 3])
    after = before.attention.thresholded(tau)
    assert float(after.residual[0, 3]) == 0.0
    assert float(after.heads[0, 3].sum()) == pytest.approx(1.0, abs=1e-5)
    kept = before.attention.heads[0, 3] > tau
    assert torch.equal(after.heads[0, 3] > 0, kept)
    nothing = before.thresholded(0.999)
    assert nothing.attention.degenerate[0, 5] and float(nothing.attention.heads[0, 5].sum()) == 0.0


@pytest.mark.parametrize("elements", [1, 500, 10_000])
def test_the_block_size_changes_nothing(monkeypatch, elements):
    layer = activations(random_olmo(), torch.arange(22).view(2, 11))[0][2]
    expected = layer_contributions(layer)
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", elements)
    found = layer_contributions(layer)
    torch.testing.assert_close(found.attention.heads, expected.attention.heads, rtol=0, atol=1e-7)
