"""Silencing components does what the planted mechanism predicts."""

import random

import numpy as np
import polars as pl
import pytest
import torch

from tests.extract.ablation_scores import CPU, METHODS, all_pairs, by_key, planted_scores, predicted, sets_of
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
    planted_network,
    save_planted_checkpoint,
    save_planted_facts,
    written_at,
)
from timecourse.extract.ablations.replacements import collect_replacements
from timecourse.extract.ablations.scoring import score
from timecourse.extract.checkpoints.directory import find_checkpoints
from timecourse.extract.facts import load_relations
from timecourse.extract.families.llama import LLAMA
from timecourse.extract.identity import ExtractionRequest, MeasurementSettings
from timecourse.extract.job import Machine, extract, prompts_of
from timecourse.extract.loading import LoadedModel, load_model


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
