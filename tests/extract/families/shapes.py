"""The models that every family is verified on: its own examples, and odd ones."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch

from timecourse.extract.activations import reading_layers
from timecourse.extract.families import FAMILIES
from timecourse.extract.families.base import Family
from timecourse.extract.families.random_models import random_model
from timecourse.extract.loading import LoadedModel

VOCABULARY = 61


@dataclass(frozen=True, eq=False)
class Shape:
    """One small model of a family. gains: what the gains of all its norms are multiplied by.

    is_repeated: whether every family has one like it, and another family's stands for it where time is short.
    """

    family: Family
    name: str
    config: Mapping[str, Any]
    gains: float = 1.0
    is_repeated: bool = False

    def __str__(self) -> str:
        return f"{self.model_type}-{self.name}"

    @property
    def model_type(self) -> str:
        return self.family.model_types[0]

    def build(self, *, attention="eager", dtype=torch.float32, seed=0):
        """The model as transformers makes it."""
        model = random_model(self.model_type, self.config, attention=attention, dtype=dtype, seed=seed)
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 and name.endswith("weight"):
                parameter.mul_(self.gains)
        return model


_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
_DEFAULTS = {
    "olmo": {},
    "olmo2": {},
    "olmo3": {"sliding_window": 4},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "gpt_neox": {},
    "gpt2": {},
    "llama": {},
    "smollm3": {},
    "mistral": {"sliding_window": None},
    "qwen2": {},
    "qwen3": {},
    "gemma2": {"sliding_window": 4},
    "gemma3_text": {"sliding_window": 4, "layer_types": None},
    "gemma3": {"sliding_window": 4},
    "apertus": {"rope_parameters": _ROPE},
    "granite": {"residual_multiplier": 0.4},
}
_SPLIT_EVENLY = ("gpt2", "gpt_neox")
"""Families without grouped queries, and with d_head = d / H."""
_VISION = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def config_of(model_type: str, *, layers: int, heads: int, kv_heads: int, head_size: int, **more) -> dict[str, Any]:
    """A config of this shape in the family's own words."""
    shape = {"num_hidden_layers": layers, "num_attention_heads": heads, "hidden_size": heads * head_size}
    if model_type not in _SPLIT_EVENLY:
        shape |= {"num_key_value_heads": kv_heads}
    if model_type.startswith(("gemma", "qwen3")):  # their default is not d / H
        shape |= {"head_dim": head_size}
    whole = {**_DEFAULTS[model_type], **shape, **more}
    whole = {key: value for key, value in whole.items() if value is not None or key == "sliding_window"}
    if model_type == "gemma3":
        return {
            "text_config": {"vocab_size": VOCABULARY, "intermediate_size": 48, **whole},
            "vision_config": _VISION,
        }
    return whole


def _everywhere(model_type: str) -> dict[str, tuple[dict[str, Any], float]]:
    return {
        "one-head": (config_of(model_type, layers=1, heads=1, kv_heads=1, head_size=8), 1.0),
        "deep": (config_of(model_type, layers=5, heads=2, kv_heads=1, head_size=8), 1.0),
        "wide": (config_of(model_type, layers=1, heads=8, kv_heads=4, head_size=4), 1.0),
        "large-negative-gains": (config_of(model_type, layers=2, heads=4, kv_heads=2, head_size=6), -20.0),
    }


_BASE = {"layers": 2, "heads": 4, "kv_heads": 2, "head_size": 6}
_YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 16}
_OWN: dict[str, dict[str, dict[str, Any]]] = {
    "olmo": {
        "narrow-clip-bias": {"clip_qkv": 0.05, "attention_bias": True, "kv_heads": 1},
        "head-dim": {"head_dim": 10},
    },
    "olmo2": {
        "epsilon": {"rms_norm_eps": 0.3, "attention_bias": True},
        "head-dim": {"head_dim": 10, "rms_norm_eps": 0.0},
    },
    "olmo3": {
        "window-of-one": {"sliding_window": 1, "attention_bias": True, "rms_norm_eps": 0.3},
        "window-beyond": {"sliding_window": 50, "layer_types": ["sliding_attention"] * 2},
    },
    "olmoe": {
        "one-expert": {"num_experts": 1, "num_experts_per_tok": 1, "attention_bias": True},
        "all-experts": {"num_experts": 3, "num_experts_per_tok": 3, "norm_topk_prob": True, "clip_qkv": 0.05},
    },
    "gpt_neox": {
        "sequential": {"use_parallel_residual": False, "attention_bias": False},
        "all-rotary": {"rope_parameters": {**_ROPE, "partial_rotary_factor": 1.0}, "layer_norm_eps": 0.3},
        "old-keys": {"rotary_pct": 0.5, "rotary_emb_base": 500, "hidden_act": "relu"},
    },
    "gpt2": {
        "by-layer": {"scale_attn_by_inverse_layer_idx": True},
        "upcast": {"reorder_and_upcast_attn": True, "tie_word_embeddings": True},
        "unscaled": {"scale_attn_weights": False, "activation_function": "relu", "layer_norm_epsilon": 0.3},
    },
    "llama": {
        "attention-bias": {"attention_bias": True, "rope_parameters": _YARN},
        "mlp-bias": {"mlp_bias": True, "head_dim": 10, "kv_heads": 1},
    },
    "smollm3": {
        "no-rope": {"no_rope_layers": [0, 0], "use_sliding_window": True, "sliding_window": 50, "mlp_bias": True},
        "window-of-one": {"use_sliding_window": True, "sliding_window": 1, "layer_types": ["sliding_attention"] * 2},
    },
    "mistral": {
        "window-of-one": {"sliding_window": 1, "kv_heads": 1},
        "window-beyond": {"sliding_window": 50, "head_dim": 10},
    },
    "qwen2": {
        "window": {"use_sliding_window": True, "sliding_window": 2, "max_window_layers": 0, "kv_heads": 1},
        "window-beyond": {"use_sliding_window": True, "sliding_window": 50, "max_window_layers": 0},
    },
    "qwen3": {
        "window": {"use_sliding_window": True, "sliding_window": 2, "max_window_layers": 1, "head_dim": 10},
        "bias": {"attention_bias": True, "head_dim": 2, "kv_heads": 1},
    },
    "gemma2": {
        "softcaps": {"attn_logit_softcapping": 0.5, "final_logit_softcapping": 0.7, "attention_bias": True},
        "window-of-one": {"sliding_window": 1, "query_pre_attn_scalar": 3, "rms_norm_eps": 0.3, "head_dim": 10},
    },
    "gemma3_text": {
        "full": {"layer_types": ["full_attention"] * 2, "attention_bias": True, "rms_norm_eps": 0.3, "head_dim": 10},
        "window-beyond": {"sliding_window": 50, "layer_types": ["sliding_attention"] * 2, "kv_heads": 1},
    },
    "gemma3": {
        "bias": {"attention_bias": True, "rms_norm_eps": 0.3, "head_dim": 10},
        "softcap": {"final_logit_softcapping": 3.0, "layer_types": ["sliding_attention", "full_attention"]},
    },
    "apertus": {"epsilon": {"rms_norm_eps": 0.3, "head_dim": 10}, "yarn": {"rope_parameters": _YARN}},
    "granite": {
        "no-multiplier": {"residual_multiplier": 1.0, "attention_bias": True, "kv_heads": 1},
        "large": {"residual_multiplier": 12.0, "logits_scaling": 0.1, "mlp_bias": True, "head_dim": 10},
    },
}


def _own(model_type: str) -> dict[str, tuple[dict[str, Any], float]]:
    return {name: (config_of(model_type, **{**_BASE, **more}), 1.0) for name, more in _OWN[model_type].items()}


def odd_shapes(family: Family) -> list[Shape]:
    """Shapes beyond the family's own examples; KeyError for a family that nobody has thought about."""
    model_type = family.model_types[0]
    everywhere, own = _everywhere(model_type), _own(model_type)
    kept = list(everywhere)[FAMILIES.index(family) % len(everywhere)]
    return [
        *(Shape(family, name, config, gains, name != kept) for name, (config, gains) in everywhere.items()),
        *(Shape(family, name, config, gains) for name, (config, gains) in own.items()),
    ]


def each(shapes: Iterable[Shape]) -> list[Any]:
    """Parameters for a test of every shape; what other families' shapes show too is for the slow tests."""
    return [
        pytest.param(shape, id=str(shape), marks=[pytest.mark.slow] if shape.is_repeated else []) for shape in shapes
    ]


EXAMPLES = [
    Shape(family, f"example{index}", config) for family in FAMILIES for index, config in enumerate(family.examples)
]
SHAPES = EXAMPLES + [shape for family in FAMILIES if family.model_types[0] in _OWN for shape in odd_shapes(family)]


def prompts(lengths=(9, 5, 1), *, seed=3):
    """Random tokens of these lengths, padded on the right: ids and mask [B, n]."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(VOCABULARY, (len(lengths), max(lengths)), generator=generator)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return ids * mask, mask


def measure(model, family, ids, mask=None, **more):
    """Every layer's activations, and the logits, of a model that is read as the product reads it."""
    loaded = model if isinstance(model, LoadedModel) else LoadedModel(model, family, torch.device("cpu"))
    layers = []
    with torch.no_grad(), reading_layers(loaded.network, family, lambda _, layer: layers.append(layer)):
        logits = loaded.network(input_ids=ids, attention_mask=mask, use_cache=False, **more).logits
    return layers, logits


@cache
def measured(shape: Shape):
    """(activations, logits) of a shape's model in float32 for `prompts()`."""
    return measure(shape.build(), shape.family, *prompts())
