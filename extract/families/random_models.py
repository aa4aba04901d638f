"""Small random models of a family, to verify that it is read rightly: every parameter is random, and large enough to
matter, norm gains and biases included."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

_SMALL = {
    "vocab_size": 61,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "n_inner": 48,
    "moe_intermediate_size": 20,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
    "tie_word_embeddings": False,
}


def random_model(
    model_type: str,
    config: Mapping[str, Any],
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    attention: str = "eager",
    scale: float = 0.2,
) -> Any:
    """A random causal language model of `model_type` with these config values over those of a small model.

    Parameters are drawn from N(0, scale), the gains of norms from 1 + N(0, 0.5): the same for one seed in every dtype.
    """
    values = AutoConfig.for_model(model_type, **{**_SMALL, **config})
    model = AutoModelForCausalLM.from_config(values, attn_implementation=attention).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            is_gain = parameter.dim() == 1 and name.endswith("weight")
            parameter.copy_(1 + 0.5 * drawn if is_gain else scale * drawn)
    return model.to(dtype).requires_grad_(False)
