"""Mistral: the block of Llama, with a sliding window in some versions."""

from dataclasses import replace

from timecourse.extract.families.llama import LLAMA

MISTRAL = replace(
    LLAMA,
    name="Mistral",
    model_types=("mistral",),
    config_defaults={"num_key_value_heads": 8},
    examples=(
        {
            "num_hidden_layers": 3,
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "hidden_size": 40,
            "sliding_window": None,
        },
        {
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "hidden_size": 32,
            "head_dim": 4,
            "sliding_window": 3,
            "tie_word_embeddings": True,
        },
    ),
)
