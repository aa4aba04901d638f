"""Prompts and sets for any model, and scores: as they are measured, and as the planted mechanism predicts."""

import random

import numpy as np
import torch

from tests.extract.families.shapes import VOCABULARY
from tests.extract.planted_model import STRENGTH, expected_logits, log_probs
from timecourse.extract.ablations.scoring import score
from timecourse.extract.ablations.sets import AblationSet
from timecourse.extract.facts import Relation
from timecourse.extract.loading import LoadedModel
from timecourse.extract.prompts import Prompt

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


def by_key(columns):
    keys = zip(*(columns[name].tolist() for name in ("set_id", "prompt_id", "answer_token_index")), strict=True)
    values = zip(
        *(columns[f"delta_{name}"].tolist() for name in ("log_prob", "rank", "template_log_prob")), strict=True
    )
    return dict(zip(keys, values, strict=True))


# the planted mechanism ----------------------------------------------------------------------------------------------


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
