"""Verifying that a family is read rightly, on the small random models it names as examples.

For every example, attention implementation and dtype: the logits must be those of the untouched model to the bit, and
the parts must sum to what the stream received.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from timecourse.errors import UserError
from timecourse.extract.activations import ATTENTIONS, LayerActivations, reading_layers
from timecourse.extract.contributions import layer_contributions
from timecourse.extract.families.base import Family
from timecourse.extract.families.random_models import random_model
from timecourse.extract.loading import LoadedModel, available_device
from timecourse.extract.measurement import COMPLETENESS_BOUND


def verify(family: Family, device: str) -> dict[str, Any]:
    """What was verified of a family, as one row: attention implementations, largest completeness error by dtype.

    Takes a second. Raises UserError where logits differ from the untouched model's, or parts miss the stream.
    """
    attentions = [one for one in ATTENTIONS if _has_attention(family, one)]
    errors = {
        dtype: max(_measure(family, example, one, dtype, device) for example in family.examples for one in attentions)
        for dtype in COMPLETENESS_BOUND
    }
    for dtype, error in errors.items():
        if not error <= COMPLETENESS_BOUND[dtype]:
            raise UserError(f"{family.name}: the parts miss the stream by {error:.2g} in {dtype} on {device}")
    versions = f"torch {version('torch')}, transformers {version('transformers')}"
    return {
        "family": family.name,
        "attention": " and ".join(attentions),
        **{f"error_{dtype}": float(f"{error:.2g}") for dtype, error in errors.items()},
        "verified_with": f"{torch.device(device).type}, {versions}",
    }


def _has_attention(family: Family, attention: str) -> bool:
    try:
        random_model(family.model_types[0], family.examples[0], attention=attention)
    except ValueError:  # the library's: "does not support an attention implementation ..."
        return False
    return True


def _measure(family: Family, example: Any, attention: str, dtype: str, device: str) -> float:
    """The largest completeness error of one example; UserError where its logits are not the untouched model's."""
    tokens, mask = _two_prompts(device)

    def fresh() -> Any:
        model = random_model(family.model_types[0], example, dtype=getattr(torch, dtype), attention=attention)
        return model.to(device)

    errors: list[float] = []

    def receive(_index: int, layer: LayerActivations) -> None:
        sums = layer_contributions(layer).sums
        errors.extend(float(one.completeness_error[mask.bool()].max()) for one in sums)

    with torch.inference_mode():
        expected = fresh()(input_ids=tokens, attention_mask=mask, use_cache=False).logits
        model = LoadedModel(fresh(), family, torch.device(device))
        with reading_layers(model.network, family, receive):
            logits = model.network(input_ids=tokens, attention_mask=mask, use_cache=False).logits
    if not torch.equal(logits, expected):
        raise UserError(f"{family.name}: reading the model changes its logits ({attention}, {dtype}, {device})")
    return float(torch.tensor(errors).max())  # NaN where one is, unlike max()


def _two_prompts(device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and mask of two prompts, nine and six tokens long."""
    tokens = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(tokens)
    mask[1, 6:] = 0
    return tokens.to(device), mask.to(device)


def verify_all(families: Sequence[Family], device: str) -> list[dict[str, Any]]:
    """One row per family; see verify. One thread: the models are tiny."""
    device = available_device(device)
    transformers_logging.set_verbosity_error()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [verify(family, device) for family in families]
    finally:
        torch.set_num_threads(before)
