"""Silencing components is exact on every family."""

import random
from collections import defaultdict
from functools import cache

import numpy as np
import pytest
import torch

from tests.extract.ablation_scores import CPU, METHODS, PROMPTS, all_pairs, by_key, drawn_sets, loaded
from tests.extract.families.shapes import EXAMPLES, measure
from timecourse.extract.ablations.replacements import collect_replacements
from timecourse.extract.ablations.scoring import score
from timecourse.extract.ablations.silencing import silencing
from timecourse.extract.activations import unread_attention
from timecourse.extract.contributions import value_outputs
from timecourse.extract.families.gpt2 import GPT2
from timecourse.extract.families.olmo2 import OLMO2
from timecourse.extract.loading import LoadedModel

each_example = pytest.mark.parametrize("shape", EXAMPLES, ids=str)
each_example_and_norm = pytest.mark.parametrize(
    ("shape", "norm"),
    [
        pytest.param(shape, norm, id=f"{shape}-{norm}")
        for shape in EXAMPLES
        for norm in (("frozen", "live") if shape.family.attention_norm else ("frozen",))
    ],
)

MIXTURE_ROUNDING = 5e-6
"""Each of a mixture's experts is given other tokens in every batch, in matrix products of another shape."""


def mask_of(model, components):
    mask = torch.zeros(model.layer_count * (model.head_count + 1), dtype=torch.bool)
    mask[list(components)] = True
    return mask.view(model.layer_count, -1)


@each_example_and_norm
def test_a_row_that_silences_nothing_is_the_untouched_models(shape, norm):
    """To the bit, whatever the other rows of the batch silence; but for a mixture's rounding (MIXTURE_ROUNDING)."""
    bound = MIXTURE_ROUNDING if shape.model_type == "olmoe" else 0
    alike = [prompt for prompt in PROMPTS if len(prompt.token_ids) == 9]
    ids = torch.tensor([prompt.token_ids for prompt in alike])
    with torch.inference_mode():
        untouched = shape.build()(input_ids=ids, use_cache=False).logits
    model = loaded(shape)
    replacements = collect_replacements(model, PROMPTS)
    masks = torch.stack([mask_of(model, one.components) for one in drawn_sets(model, len(alike), seed=4)])
    donors = torch.from_numpy(np.stack([replacements.donors_of(prompt) for prompt in alike]))
    for how in ({}, {"replacements": replacements}, {"replacements": replacements, "donors": donors}):
        with torch.inference_mode():
            with silencing(model.network, model.family, masks, norm=norm, **how):
                logits = model.network(input_ids=ids, use_cache=False).logits
            assert float((logits[0] - untouched[0]).abs().max()) <= bound
            assert all(float((logits[row] - untouched[row]).abs().max()) > 1e-3 for row in range(1, len(alike)))
            assert torch.equal(model.network(input_ids=ids, use_cache=False).logits, untouched), "a hook was left"


@each_example
def test_the_empty_set_changes_no_score(shape):
    model = loaded(shape)
    replacements = collect_replacements(model, PROMPTS)
    sets = drawn_sets(model, 6)
    found = score(model, PROMPTS, sets, all_pairs(sets, PROMPTS), "resample", replacements=replacements, batch_size=4)
    of_empty = found["set_id"] == 0
    assert of_empty.sum() == sum(len(prompt.answer_positions) for prompt in PROMPTS)
    bound = MIXTURE_ROUNDING if shape.model_type == "olmoe" else 1e-6
    for name in ("delta_log_prob", "delta_rank", "delta_template_log_prob"):
        assert np.abs(found[name][of_empty]).max() <= bound
        assert np.abs(found[name][~of_empty]).max() > 1e-2


DOWN = {"gpt2": "mlp.c_proj", "gpt_neox": "mlp.dense_4h_to_h", "olmoe": "mlp.experts"}
"""Where an FFN's last weights stand, where it is not mlp.down_proj."""


def without(shape, components):
    """An untouched model whose weights are edited: these components write nothing."""
    network = shape.build()
    heads = network.config.get_text_config().num_attention_heads
    for index, layer in enumerate(network.get_submodule(shape.family.layers)):
        for one in components:
            if one // (heads + 1) == index and one % (heads + 1) < heads:
                weight = layer.get_submodule(shape.family.attention_output).weight
                by_input = weight if shape.model_type == "gpt2" else weight.T
                size = by_input.shape[0] // heads
                by_input[one % (heads + 1) * size : (one % (heads + 1) + 1) * size] = 0
            elif one // (heads + 1) == index:
                down = layer.get_submodule(DOWN.get(shape.model_type, "mlp.down_proj"))
                assert any(name in ("weight", "down_proj") for name, _ in down.named_parameters())
                for name, parameter in down.named_parameters():
                    if name in ("weight", "bias", "down_proj"):
                        parameter.zero_()
    return network


@each_example
def test_zero_ablation_is_what_editing_the_weights_does(shape):
    """With the norms computed anew; every column of the scores."""
    model = loaded(shape)
    sets = drawn_sets(model, 5)
    found = by_key(score(model, PROMPTS, sets, all_pairs(sets, PROMPTS), "zero", norm="live", batch_size=7))
    untouched = shape.build()
    for one in sets:
        edited = without(shape, one.components)
        for prompt in PROMPTS:
            ids = torch.tensor([prompt.token_ids])
            with torch.inference_mode():
                before, after = (network(input_ids=ids, use_cache=False).logits[0] for network in (untouched, edited))
            change = (after.double().log_softmax(-1) - before.double().log_softmax(-1))[:-1]
            change = change.gather(1, ids[0, 1:, None])[:, 0]
            of_template = [float(change[at - 1]) for at in range(1, ids.shape[1]) if prompt.roles[at] == "template"]
            tolerance = 2e-6 * float(max(before.abs().max(), after.abs().max()))
            for index, position in enumerate(prompt.predicting_positions):
                log_prob, rank, template = found[one.set_id, prompt.prompt_id, index]
                assert log_prob == pytest.approx(float(change[position]), abs=5 * tolerance)
                assert template == pytest.approx(np.mean(of_template), abs=5 * tolerance)
                answer = prompt.token_ids[position + 1]
                margins = [logits[position] - logits[position, answer] for logits in (before, after)]
                if all(float(margin.abs().topk(2, largest=False).values[1]) > tolerance for margin in margins):
                    assert rank == int((margins[1] > 0).sum()) - int((margins[0] > 0).sum())


def written_by_heads(layer, *, behind_norm):
    """[B, n, H, d]: the heads' parts of what attention adds, from their patterns and values."""
    gain = 1.0 if layer.output_gain is None or not behind_norm else layer.output_gain[:, None]
    divisor = 1.0 if layer.output_divisor is None or not behind_norm else layer.output_divisor[:, None, :, None]
    values = value_outputs(layer.value, layer.output_weight * gain, heads=layer.pattern.shape[1])
    return torch.einsum("bhqk,bkhd->bqhd", layer.pattern / divisor, values)


@cache
def clean_layers(shape):
    """{prompt_id: every layer's activations}, each prompt alone."""
    model = loaded(shape)
    return {prompt.prompt_id: measure(model, shape.family, torch.tensor([prompt.token_ids]))[0] for prompt in PROMPTS}


class Expected:
    """What stands in the place of components, from their parts of the stream in clean runs of each prompt alone."""

    def __init__(self, shape, method, norm, replacements):
        self.method = method
        self.replacements = replacements
        # a norm that is computed anew is given what stands before it
        self.is_live = norm == "live" and shape.family.attention_norm is not None
        self.layers = clean_layers(shape)

    def parts(self, index, prompt_id):
        """Heads [n, H, d] and FFN [n, d] of one layer in the clean run of a prompt."""
        layer = self.layers[prompt_id][index]
        return written_by_heads(layer, behind_norm=not self.is_live)[0], layer.feed_forward[0]

    def instead(self, index, prompt):
        """The same of what stands in their place in a prompt."""
        heads, feed_forward = self.parts(index, prompt.prompt_id)
        if self.method == "zero":
            return torch.zeros_like(heads), torch.zeros_like(feed_forward)
        if self.method == "mean":
            of_template = defaultdict(list)
            for other in PROMPTS:
                for position, role in enumerate(other.roles):
                    if role == "template":
                        for kind, one in enumerate(self.parts(index, other.prompt_id)):
                            of_template[kind].append(one[position])
            return tuple(
                torch.stack(of_template[kind]).mean(0).expand_as(one) for kind, one in enumerate((heads, feed_forward))
            )
        donors = [self.replacements.donors[at] for at in self.replacements.donors_of(prompt)]
        given = [[one[donor.position] for one in self.parts(index, donor.prompt_id)] for donor in donors]
        return tuple(torch.stack(kind) for kind in zip(*given, strict=True))


@each_example_and_norm
@pytest.mark.parametrize("method", METHODS)
def test_exactly_the_silenced_components_part_of_the_stream_is_replaced(shape, method, norm):
    """Layer by layer: the stream that leaves it is the clean one, less the parts, plus what stands in their place."""
    model = loaded(shape)
    replacements = collect_replacements(model, PROMPTS, seed=2)
    expected = Expected(shape, method, norm, replacements)
    alike = [prompt for prompt in PROMPTS if len(prompt.token_ids) == 9]
    ids = torch.tensor([prompt.token_ids for prompt in alike])
    donors = torch.from_numpy(np.stack([replacements.donors_of(prompt) for prompt in alike]))
    how = {
        "zero": {},
        "mean": {"replacements": replacements},
        "resample": {"replacements": replacements, "donors": donors},
    }[method]
    heads = model.head_count
    for index, layer in enumerate(model.network.get_submodule(model.family.layers)):
        # other heads in every row; the FFN too, because it would else answer to what the heads no longer write
        masks = torch.zeros(len(alike), model.layer_count, heads + 1, dtype=torch.bool)
        masks[:, index, heads] = True
        for row in range(len(alike)):
            masks[row, index, random.Random(row).sample(range(heads), min(heads, row + 1))] = True
        seen = {}
        handle = layer.register_forward_hook(lambda _module, _args, output, seen=seen: seen.update(after=output))
        with torch.inference_mode(), silencing(model.network, model.family, masks, norm=norm, **how):
            model.network(input_ids=ids, use_cache=False)
        handle.remove()
        for row, prompt in enumerate(alike):
            clean = expected.layers[prompt.prompt_id][index]
            written, feed_forward = expected.parts(index, prompt.prompt_id)
            heads_instead, feed_forward_instead = expected.instead(index, prompt)
            chosen = masks[row, index, :heads]
            change = (heads_instead - written)[:, chosen].sum(1)
            if expected.is_live:
                raw = written.sum(1) if clean.output_bias is None else written.sum(1) + clean.output_bias
                anew = layer.get_submodule(shape.family.attention_norm)
                with torch.inference_mode():
                    change = anew(raw + change) - anew(raw)
            wanted = clean.residual_after[0] + change - feed_forward + feed_forward_instead
            size = max(1.0, float(clean.residual_after.abs().max()), float(wanted.abs().max()))
            assert float((seen["after"][row] - wanted).abs().max()) <= 1e-5 * size
            assert float((seen["after"][row] - clean.residual_after[0]).abs().max()) > 1e-3 * size


@each_example_and_norm
def test_without_any_component_the_stream_is_the_embedding_and_the_biases_of_the_projections(shape, norm):
    model = loaded(shape)
    network, family = model.network, model.family
    ids = torch.tensor([PROMPTS[0].token_ids])
    seen, handles = {}, []
    layers = list(network.get_submodule(family.layers))
    handles.append(layers[0].register_forward_pre_hook(lambda _, args: seen.update(first=args[0])))
    handles.append(model.final_norm.register_forward_pre_hook(lambda _, args: seen.update(last=args[0])))
    for index, layer in enumerate(layers):
        handles.append(
            layer.get_submodule(family.attention_output).register_forward_pre_hook(
                lambda _, args, index=index: seen.update({index: args[0]})
            )
        )
    masks = torch.ones(1, model.layer_count, model.head_count + 1, dtype=torch.bool)
    with torch.inference_mode():
        with silencing(network, family, masks, norm=norm):
            network(input_ids=ids, use_cache=False)
        wanted = seen["first"].double()
        for index, layer in enumerate(layers):
            projection = layer.get_submodule(family.attention_output)
            if projection.bias is None:
                continue
            bias = projection.bias.double()
            if family.attention_norm is not None:
                written = bias if norm == "live" else projection(seen[index]).double()
                module = layer.get_submodule(family.attention_norm)
                epsilon = model.config.rms_norm_eps
                gain = module.weight.double() + (1.0 if shape.model_type.startswith("gemma") else 0.0)
                bias = gain * bias / (written.pow(2).mean(-1, keepdim=True) + epsilon).sqrt()
            wanted = wanted + bias * (model.config.residual_multiplier if shape.model_type == "granite" else 1.0)
    for handle in handles:
        handle.remove()
    bound = 1e-6 * max(1.0, float(wanted.abs().max()))
    assert float((seen["last"].double() - wanted).abs().max()) <= bound
    is_replaced_before_its_norm = norm == "live" or family.attention_norm is None
    if is_replaced_before_its_norm and layers[0].get_submodule(family.attention_output).bias is None:
        assert torch.equal(seen["last"], seen["first"])


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "gemma3"])
def test_attention_that_is_not_read_gives_the_same_logits_and_keeps_nothing(model_type):
    shape = next(shape for shape in EXAMPLES if shape.model_type == model_type)
    model = loaded(shape)
    ids = torch.tensor([PROMPTS[0].token_ids])
    with torch.inference_mode():
        read = model.network(input_ids=ids, use_cache=False).logits
        for module in model.network.modules():
            if hasattr(module, "timecourse_kept"):
                del module.timecourse_kept
        with unread_attention(model.network):
            unread = model.network(input_ids=ids, use_cache=False).logits
            assert not any(hasattr(module, "timecourse_kept") for module in model.network.modules())
        torch.testing.assert_close(unread, read, rtol=1e-5, atol=1e-5)
        assert torch.equal(model.network(input_ids=ids, use_cache=False).logits, read)
    assert any(hasattr(module, "timecourse_kept") for module in model.network.modules()), "it is read again"


@pytest.mark.parametrize("family", [OLMO2, GPT2], ids=lambda family: family.name)
@pytest.mark.parametrize("method", METHODS)
def test_layers_whose_weights_are_offloaded_are_silenced(family, method, tmp_path):
    """Weights that accelerate keeps on disk, and loads for the moment of their use."""
    from accelerate import dispatch_model

    shape = next(shape for shape in EXAMPLES if shape.family is family)
    network = shape.build()
    names = [name for name, module in network.named_modules() if name and not list(module.children())]
    chosen = {name: "disk" if name.startswith(f"{family.layers}.1.") else "cpu" for name in names}
    aside = LoadedModel(
        dispatch_model(network, chosen, main_device="cpu", offload_dir=str(tmp_path / "aside")), family, CPU
    )
    assert aside.network.get_submodule(f"{family.layers}.1.{family.attention_output}").weight.device.type == "meta"
    sets = drawn_sets(aside, 4)
    found = [
        score(model, PROMPTS, sets, all_pairs(sets, PROMPTS), method, replacements=collect_replacements(model, PROMPTS))
        for model in (aside, loaded(shape))
    ]
    for name in found[0]:
        np.testing.assert_allclose(found[0][name], found[1][name], atol=1e-5)
