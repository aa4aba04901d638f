"""Scores of silenced components are the same in any batch; what cannot be scored is refused or left empty."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.extract.ablation_scores import (
    CPU,
    METHODS,
    PROMPTS,
    all_pairs,
    by_key,
    drawn_sets,
    loaded,
    predicted,
    sets_of,
)
from tests.extract.families.shapes import EXAMPLES
from tests.extract.planted_model import planted_network
from timecourse.errors import UserError
from timecourse.extract.ablations.replacements import collect_replacements
from timecourse.extract.ablations.scoring import method_name, score
from timecourse.extract.families import FAMILIES
from timecourse.extract.families.llama import LLAMA
from timecourse.extract.loading import LoadedModel


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
