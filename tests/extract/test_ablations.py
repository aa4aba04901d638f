"""Silencing components: exact on every family, as the planted mechanism predicts, and the same in any batch."""

import dataclasses
import random
from collections import defaultdict
from functools import cache

import numpy as np
import polars as pl
import pytest
import torch

from tests.extract.families.shapes import EXAMPLES, VOCABULARY, measure
from tests.extract.planted_model import (
    COMPONENTS,
    GUESSES,
    HARMLESS,
    HEADS,
    IDLE,
    LAYERS,
    STRENGTH,
    TEMPLATE_WRITER,
    expected_logits,
    log_probs,
    planted,
    planted_network,
    save_planted_checkpoint,
    save_planted_facts,
    written_at,
)
from timecourse.errors import UserError
from timecourse.extract.ablations import replacements as replacing
from timecourse.extract.ablations.replacements import DONORS_PER_ROLE, Replacements, collect_replacements
from timecourse.extract.ablations.scoring import method_name, score
from timecourse.extract.ablations.sets import AblationSet
from timecourse.extract.ablations.silencing import silencing
from timecourse.extract.activations import unread_attention
from timecourse.extract.checkpoints.directory import find_checkpoints
from timecourse.extract.contributions import value_outputs
from timecourse.extract.facts import Relation, load_relations
from timecourse.extract.families import FAMILIES
from timecourse.extract.families.gpt2 import GPT2
from timecourse.extract.families.llama import LLAMA
from timecourse.extract.families.olmo2 import OLMO2
from timecourse.extract.identity import ExtractionRequest, MeasurementSettings
from timecourse.extract.job import Machine, extract, prompts_of
from timecourse.extract.loading import LoadedModel, load_model
from timecourse.extract.prompts import Prompt

each_example = pytest.mark.parametrize("shape", EXAMPLES, ids=str)
each_example_and_norm = pytest.mark.parametrize(
    ("shape", "norm"),
    [
        pytest.param(shape, norm, id=f"{shape}-{norm}")
        for shape in EXAMPLES
        for norm in (("frozen", "live") if shape.family.attention_norm else ("frozen",))
    ],
)
METHODS = ("mean", "resample", "zero")
CPU = torch.device("cpu")


def random_prompts(lengths=(9, 9, 7, 9, 7), *, seed=0):
    """Random tokens, one of them special, two of the subject, one or two of the answer; one fact each.

    The first and the last are of one fact.
    """
    generator = random.Random(seed)
    samples = [{"subject": f"s{index}", "object": "o"} for index in range(len(lengths))]
    relation = Relation.model_validate({"name": "any", "prompt_templates": ["a {}", "b {}"], "samples": samples})
    prompts = []
    for index, length in enumerate(lengths):
        answers = 1 + index % 2
        roles = ("special", "template", "subject", "subject", *["template"] * (length - 4 - answers))
        prompts.append(
            Prompt(
                prompt_id=index,
                relation=relation,
                template_id=0,
                fact=relation.samples[index % (len(lengths) - 1)],
                text="",
                token_ids=tuple(generator.randrange(VOCABULARY) for _ in range(length)),
                tokens=("",) * length,
                roles=(*roles, *["answer"] * answers),
            )
        )
    return prompts


PROMPTS = random_prompts()


def loaded(shape, **how):
    return LoadedModel(shape.build(**how), shape.family, CPU)


def sets_of(*components):
    """Sets numbered from 0."""
    return [
        AblationSet(index, "random", None, None, None, None, tuple(sorted(one))) for index, one in enumerate(components)
    ]


def drawn_sets(model, count, seed=1):
    """Random sets of components, of any size; the first is empty, the second of the last layer alone."""
    generator = random.Random(seed)
    everything = range(model.layer_count * (model.head_count + 1))
    last = everything[-model.head_count - 1 :]
    drawn = [generator.sample(everything, generator.randint(1, len(everything))) for _ in range(count - 2)]
    return sets_of((), (last[0], last[-1]), *drawn)


def all_pairs(sets, prompts):
    return [(one.set_id, prompt.prompt_id) for one in sets for prompt in prompts]


def mask_of(model, components):
    mask = torch.zeros(model.layer_count * (model.head_count + 1), dtype=torch.bool)
    mask[list(components)] = True
    return mask.view(model.layer_count, -1)


def by_key(columns):
    keys = zip(*(columns[name].tolist() for name in ("set_id", "prompt_id", "answer_token_index")), strict=True)
    values = zip(
        *(columns[f"delta_{name}"].tolist() for name in ("log_prob", "rank", "template_log_prob")), strict=True
    )
    return dict(zip(keys, values, strict=True))


# every family -------------------------------------------------------------------------------------------------------


@each_example_and_norm
def test_a_row_that_silences_nothing_is_the_untouched_models(shape, norm):
    """To the bit, whatever the other rows of the batch silence."""
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
            assert torch.equal(logits[0], untouched[0])
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
    # of a mixture's experts each is given other tokens in every batch, in matrix products of another shape
    bound = 5e-6 if shape.model_type == "olmoe" else 1e-6
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


# the planted mechanism ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mechanism():
    return planted()


@pytest.fixture(scope="module")
def mechanism_replacements(mechanism):
    return collect_replacements(mechanism.model, mechanism.prompts)


def planted_scores(mechanism, components, method="zero", **how):
    """{(relation, prompt_id): (delta_log_prob, delta_rank, delta_template_log_prob)} of one set."""
    sets = sets_of([mechanism.index(one) for one in components])
    found = by_key(score(mechanism.model, mechanism.prompts, sets, all_pairs(sets, mechanism.prompts), method, **how))
    return {
        (prompt.relation.relation_id, prompt.prompt_id): found[0, prompt.prompt_id, 0] for prompt in mechanism.prompts
    }


def predicted(prompt, components, instead=lambda _prompt, _position: None, strength=STRENGTH):
    """The same of one prompt, in closed form; `instead(prompt, position)` gives a function of the component or None."""

    def change(position):
        token = prompt.token_ids[position + 1]
        before = expected_logits(prompt, position, strength=strength)
        after = expected_logits(prompt, position, components, instead(prompt, position), strength)
        ranks = [int((one > one[token] + 1e-6).sum()) for one in (before, after)]
        return log_probs(after)[token] - log_probs(before)[token], ranks[1] - ranks[0]

    (position,) = prompt.predicting_positions
    of_template = [change(at - 1)[0] for at, role in enumerate(prompt.roles) if at > 0 and role == "template"]
    return (*change(position), np.mean(of_template))


def test_the_planted_model_says_what_its_closed_form_says(mechanism):
    for prompt in mechanism.prompts:
        with torch.inference_mode():
            logits = mechanism.model.network(input_ids=torch.tensor([prompt.token_ids])).logits[0]
        wanted = np.stack([expected_logits(prompt, position) for position in range(len(prompt.token_ids))])
        np.testing.assert_allclose(logits.numpy(), wanted, atol=1e-6)
        (position,) = prompt.predicting_positions
        assert int(logits[position].argmax()) == prompt.token_ids[-1], "it knows every fact"


GUESSED = 3 * np.e
KNOWN, HALF_KNOWN, UNKNOWN = (one - np.log(np.exp(one) + GUESSED + 44) for one in (6.0, 3.0, 0.0))
"""Log-probability of the answer among 3 guesses of logit 1 and 44 other words of logit 0, by its own logit."""


def test_silencing_a_relations_head_destroys_its_answers_and_no_others(mechanism):
    for relation in ("capital_of", "language_of"):
        for (of, _), (log_prob, rank, template) in planted_scores(mechanism, HEADS[relation]).items():
            if of == relation:
                assert log_prob == pytest.approx(UNKNOWN - KNOWN, abs=2e-6) and log_prob < -3.8
                assert rank == 3
            else:
                assert abs(log_prob) <= 1e-6 and rank == 0
            assert abs(template) <= 1e-6


def test_of_two_redundant_heads_one_suffices(mechanism):
    """Which only silencing them jointly shows."""
    singly = [planted_scores(mechanism, [head]) for head in HEADS["currency_of"]]
    for key, (log_prob, rank, _) in planted_scores(mechanism, HEADS["currency_of"]).items():
        is_theirs = key[0] == "currency_of"
        assert log_prob == pytest.approx(UNKNOWN - KNOWN if is_theirs else 0.0, abs=2e-6)
        assert rank == (3 if is_theirs else 0)
        for single in singly:
            assert single[key][0] == pytest.approx(HALF_KNOWN - KNOWN if is_theirs else 0.0, abs=2e-6)
            assert single[key][1] == 0


@pytest.mark.parametrize("component", [IDLE, "L0H1", HARMLESS])
@pytest.mark.parametrize("method", METHODS)
def test_other_components_are_not_needed(mechanism, mechanism_replacements, component, method):
    for changes in planted_scores(mechanism, [component], method, replacements=mechanism_replacements).values():
        assert np.abs(changes).max() <= 1e-6


def test_the_templates_writer_is_needed_for_the_template_alone(mechanism):
    for log_prob, rank, template in planted_scores(mechanism, [TEMPLATE_WRITER]).values():
        assert abs(log_prob) <= 1e-6 and rank == 0
        assert abs(template) > 0.05


ALL_SETS = [
    *([component] for component in COMPONENTS),
    HEADS["currency_of"],
    [*HEADS["capital_of"], *HEADS["language_of"], TEMPLATE_WRITER],
    COMPONENTS,
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("batch_size", [5, 256])
def test_every_method_does_what_the_closed_form_predicts(mechanism, mechanism_replacements, method, batch_size):
    prompts = {prompt.prompt_id: prompt for prompt in mechanism.prompts}
    template = [
        (prompt, at) for prompt in prompts.values() for at, role in enumerate(prompt.roles) if role == "template"
    ]
    means = {one: np.mean([written_at(one, *place) for place in template], axis=0) for one in COMPONENTS}

    def instead(prompt, position):
        if method == "zero":
            return None
        if method == "mean":
            return means.__getitem__
        donor = mechanism_replacements.donors[mechanism_replacements.donors_of(prompt)[position]]
        return lambda component: written_at(component, prompts[donor.prompt_id], donor.position)

    sets = sets_of(*([mechanism.index(one) for one in components] for components in ALL_SETS))
    pairs = all_pairs(sets, mechanism.prompts)
    random.Random(3).shuffle(pairs)
    found = score(
        mechanism.model,
        mechanism.prompts,
        sets,
        pairs,
        method,
        replacements=mechanism_replacements,
        batch_size=batch_size,
    )
    keys = list(by_key(found))
    assert keys == sorted(keys) and len(keys) == len(pairs)
    largest = 0.0
    for (set_id, prompt_id, _), changes in by_key(found).items():
        wanted = predicted(prompts[prompt_id], ALL_SETS[set_id], instead)
        assert changes == pytest.approx(wanted, abs=2e-5)
        largest = max(largest, abs(changes[0]))
    assert largest > 3


def test_the_saved_model_is_measured_like_any_other(mechanism, tmp_path):
    save_planted_facts(tmp_path / "facts")
    for step, strength in ((1, 0.0), (2, STRENGTH)):
        save_planted_checkpoint(tmp_path / "series" / f"step{step}", strength)
    relations = load_relations(tmp_path / "facts")
    for checkpoint, strength in zip(find_checkpoints(tmp_path / "series"), (0.0, STRENGTH), strict=True):
        request = ExtractionRequest("planted", checkpoint, relations, MeasurementSettings())
        rows = extract(request, tmp_path, Machine("cpu"))
        assert rows["prompts"] == len(mechanism.prompts)
        own = pl.read_parquet(tmp_path / "predictions.parquet").filter(pl.col("readout") == LAYERS)
        assert own["rank"].to_list() == [0 if strength else len(GUESSES)] * len(mechanism.prompts)
        prompts = prompts_of(request)
        assert [prompt.text for prompt in prompts] != [prompt.text for prompt in mechanism.prompts], "sorted by name"
        loaded_again = load_model(checkpoint, "float32", "cpu", "eager")
        sets = sets_of([mechanism.index("L1H1")])
        found = by_key(score(loaded_again, prompts, sets, all_pairs(sets, prompts), "zero"))
        for prompt in prompts:
            wanted = predicted(prompt, ["L1H1"], strength=strength)
            assert found[0, prompt.prompt_id, 0] == pytest.approx(wanted, abs=2e-6)


def test_half_precision(mechanism):
    """The planted weights are exact in bfloat16, and so are most logits."""
    half = LoadedModel(planted_network().to(torch.bfloat16), LLAMA, CPU)
    replacements = collect_replacements(half, mechanism.prompts)
    assert replacements.layers[0].donor_heads.dtype == torch.bfloat16
    assert replacements.layers[0].heads_mean.dtype == torch.float32
    sets = sets_of(*([mechanism.index(one) for one in components] for components in ALL_SETS))
    pairs = all_pairs(sets, mechanism.prompts)
    for method in METHODS:
        found, whole = (
            score(
                model,
                mechanism.prompts,
                sets,
                pairs,
                method,
                replacements=collect_replacements(model, mechanism.prompts),
            )
            for model in (half, mechanism.model)
        )
        assert found["delta_log_prob"].dtype == np.float32
        assert np.abs(found["delta_log_prob"] - whole["delta_log_prob"]).max() <= 0.05


# batches, donors, errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["olmo2-example1", "gpt_neox-example0", "olmoe-example0", "gemma2-example0"])
@pytest.mark.parametrize("method", METHODS)
def test_a_pair_scores_the_same_alone_and_among_others(name, method):
    model = loaded(next(shape for shape in EXAMPLES if str(shape) == name))
    replacements = collect_replacements(model, PROMPTS)
    sets = drawn_sets(model, 5)
    pairs = all_pairs(sets, PROMPTS)
    finished = []
    whole = by_key(
        score(model, PROMPTS, sets, pairs, method, replacements=replacements, batch_size=8, progress=finished.append)
    )
    assert sum(finished) == len(pairs)
    for pair in pairs:
        alone = by_key(score(model, PROMPTS, sets, [pair], method, replacements=replacements))
        assert set(alone) == {key for key in whole if key[:2] == pair}
        for key, (log_prob, _, template) in alone.items():
            assert (log_prob, template) == pytest.approx((whole[key][0], whole[key][2]), abs=1e-5)


def test_clean_runs_may_take_several_batches(mechanism):
    """Five prompts and six pairs in batches of at most five: two of three pairs, and so two clean ones of three."""
    prompts = [prompt for prompt in mechanism.prompts if len(prompt.token_ids) == 6][:5]
    sets = sets_of([mechanism.index("L1H1")], [mechanism.index("L1F")])
    pairs = [*all_pairs(sets[:1], prompts), (1, prompts[0].prompt_id)]
    found = by_key(score(mechanism.model, prompts, sets, pairs, "zero", batch_size=5))
    for set_id, prompt_id in pairs:
        (prompt,) = (one for one in prompts if one.prompt_id == prompt_id)
        assert found[set_id, prompt_id, 0] == pytest.approx(
            predicted(prompt, ["L1H1", "L1F"][set_id : set_id + 1]), abs=2e-6
        )


def test_replacements_do_not_depend_on_the_batch_size():
    model = loaded(next(shape for shape in EXAMPLES if shape.family is OLMO2))
    one, other = (collect_replacements(model, PROMPTS, seed=1, batch_size=size) for size in (1, 64))
    assert one.donors == other.donors
    for first, second in zip(one.layers, other.layers, strict=True):
        for name in vars(first):
            torch.testing.assert_close(getattr(first, name), getattr(second, name), rtol=1e-5, atol=1e-6)


def test_the_seed_decides_and_nothing_else(mechanism):
    def scores(seed):
        replacements = collect_replacements(mechanism.model, mechanism.prompts, seed=seed)
        donors = [replacements.donors_of(prompt).tolist() for prompt in mechanism.prompts]
        found = planted_scores(mechanism, HEADS["capital_of"], "resample", replacements=replacements)
        return [replacements.donors[at] for one in donors for at in one], found

    first, again, other = scores(0), scores(0), scores(1)
    assert first == again
    assert first[0] != other[0] and first[1] != other[1]


def test_no_prompt_gets_a_donor_of_its_own_fact_or_of_another_role(mechanism, mechanism_replacements):
    donors = mechanism_replacements.donors
    by_role = defaultdict(list)
    for donor in donors:
        by_role[donor.role].append(donor)
    positions = defaultdict(set)
    for prompt in mechanism.prompts:
        for position, role in enumerate(prompt.roles):
            positions[role].add((prompt.prompt_id, position))
    for role, places in positions.items():
        assert len(by_role[role]) == min(DONORS_PER_ROLE, len(places)) == len(set(by_role[role]))
        assert {(donor.prompt_id, donor.position) for donor in by_role[role]} <= places
    assert len(positions["template"]) > DONORS_PER_ROLE, "not every position is a donor"
    for prompt in mechanism.prompts:
        chosen = [donors[index] for index in mechanism_replacements.donors_of(prompt)]
        assert [donor.role for donor in chosen] == list(prompt.roles)
        assert prompt.relation.fact_id(prompt.fact) not in {donor.fact_id for donor in chosen}


def test_donors_are_uniform(mechanism):
    """Over seeds, every position of a role is a donor about equally often."""
    counts = defaultdict(int)
    for seed in range(200):
        for donor in collect_donors(mechanism, seed):
            if donor.role == "template":
                counts[donor.prompt_id, donor.position] += 1
    places = sum(role == "template" for prompt in mechanism.prompts for role in prompt.roles)
    expected = 200 * DONORS_PER_ROLE / places
    observed = np.array([*counts.values(), *[0] * (places - len(counts))])
    deviation = ((observed - expected) ** 2 / expected / (1 - DONORS_PER_ROLE / places)).sum()
    assert abs(deviation - places) < 5 * np.sqrt(2 * places)


def collect_donors(mechanism, seed):
    return replacing._draw_donors(mechanism.prompts, seed)


def test_a_role_without_a_donor_of_another_fact_takes_a_template_position(mechanism, mechanism_replacements):
    first = mechanism.prompts[0]
    own = first.relation.fact_id(first.fact)
    kept = [one for one in mechanism_replacements.donors if one.role != "answer" or one.fact_id == own]
    fewer = Replacements(mechanism_replacements.layers, kept, seed=0)
    assert any(one.role == "answer" for one in kept)
    chosen = [fewer.donors[index] for index in fewer.donors_of(first)]
    assert [donor.role for donor in chosen] == [role.replace("answer", "template") for role in first.roles]
    assert own not in {donor.fact_id for donor in chosen}


def test_what_cannot_be_replaced_is_refused(mechanism):
    model, prompts = mechanism.model, mechanism.prompts
    alone = collect_replacements(model, prompts[:1])
    with pytest.raises(UserError, match="at least two facts"):
        score(model, prompts[:1], sets_of((0,)), [(0, 0)], "resample", replacements=alone)
    bare = dataclasses.replace(prompts[0], roles=("subject",) * 5 + ("answer",))
    with pytest.raises(UserError, match="no template tokens"):
        collect_replacements(model, [bare])
    with pytest.raises(ValueError, match="needs replacements"):
        score(model, prompts, sets_of((0,)), [(0, 0)], "mean")


def test_predictions_that_are_not_finite_are_refused(mechanism):
    network = planted_network()
    network.model.layers[1].mlp.down_proj.weight[0, 0] = torch.inf
    broken = LoadedModel(network, LLAMA, CPU)
    with pytest.raises(UserError, match="not finite"):
        score(broken, mechanism.prompts, sets_of(()), [(0, 0)], "zero")


def test_no_pairs_are_no_rows(mechanism):
    found = score(mechanism.model, mechanism.prompts, sets_of((0,)), [], "zero")
    assert {len(column) for column in found.values()} == {0}
    assert found["delta_rank"].dtype == np.int32 and found["answer_token_index"].dtype == np.int16


def test_a_prompt_without_predicted_template_tokens_has_no_change_of_them(mechanism):
    prompt = dataclasses.replace(mechanism.prompts[0], roles=("template", *["subject"] * 4, "answer"))
    found = score(mechanism.model, [prompt], sets_of((0,)), [(0, prompt.prompt_id)], "zero")
    assert np.isnan(found["delta_template_log_prob"]).all() and np.isfinite(found["delta_log_prob"]).all()


def test_the_name_says_when_a_norm_is_computed_anew():
    for family in FAMILIES:
        assert method_name("mean", "frozen", family) == "mean"
        live = "mean_live_norm" if family.norms in ("post", "sandwich") else "mean"
        assert method_name("mean", "live", family) == live
