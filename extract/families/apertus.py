"""Apertus: the block of Llama with other names, normalised queries and keys, and the xIELU activation."""

from dataclasses import replace

from timecourse.extract.families.llama import LLAMA

_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}

APERTUS = replace(
    LLAMA,
    name="Apertus",
    model_types=("apertus",),
    reads_stream_after_attention="feedforward_layernorm",
    examples=(
        {"num_hidden_layers": 3, "num_attention_heads": 5, "hidden_size": 40, "rope_parameters": _ROPE},
        {
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "hidden_size": 24,
            "attention_bias": True,
            "rope_parameters": _ROPE,
        },
    ),
)
