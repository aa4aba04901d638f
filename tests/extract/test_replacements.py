"""What takes the place of silenced components: donors of other facts, by the seed alone, or an error."""

import dataclasses
from collections import defaultdict

import numpy as np
import pytest
import torch

from tests.extract.ablation_scores import PROMPTS, loaded, planted_scores, sets_of
from tests.extract.families.shapes import EXAMPLES
from tests.extract.planted_model import HEADS
from timecourse.errors import UserError
from timecourse.extract.ablations import replacements as replacing
from timecourse.extract.ablations.replacements import DONORS_PER_ROLE, Replacements, collect_replacements
from timecourse.extract.ablations.scoring import score
from timecourse.extract.families.olmo2 import OLMO2


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
