"""Granite: the block of Llama, with multipliers on embeddings, attention, residual branches and logits."""

from dataclasses import replace

from timecourse.extract.families.llama import LLAMA

GRANITE = replace(
    LLAMA,
    name="Granite",
    model_types=("granite",),
    residual_multiplier="residual_multiplier",
    logits_divisor="logits_scaling",
    examples=(
        {
            "num_hidden_layers": 3,
            "num_attention_heads": 5,
            "hidden_size": 40,
            "residual_multiplier": 0.22,
            "embedding_multiplier": 6.0,
            "attention_multiplier": 0.3,
            "logits_scaling": 4.0,
        },
        {
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "hidden_size": 24,
            "residual_multiplier": 1.7,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
        },
    ),
)
