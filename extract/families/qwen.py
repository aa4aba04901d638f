"""Qwen 2 and 2.5 (biases on queries, keys and values) and Qwen 3 (normalised queries and keys)."""

from dataclasses import replace

from timecourse.extract.families.llama import LLAMA

QWEN2 = replace(
    LLAMA,
    name="Qwen 2",
    model_types=("qwen2",),
    config_defaults={"num_key_value_heads": 32},
    examples=(
        {"num_hidden_layers": 3, "num_attention_heads": 5, "num_key_value_heads": 5, "hidden_size": 40},
        {
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "hidden_size": 24,
            "use_sliding_window": True,
            "sliding_window": 3,
            "max_window_layers": 1,
            "tie_word_embeddings": True,
        },
    ),
)

QWEN3 = replace(
    LLAMA,
    name="Qwen 3",
    model_types=("qwen3",),
    config_defaults={"num_key_value_heads": 32},
    examples=(
        {
            "num_hidden_layers": 3,
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "hidden_size": 40,
            "head_dim": 6,
        },
        {
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "hidden_size": 32,
            "head_dim": 4,
            "attention_bias": True,
            "tie_word_embeddings": True,
        },
    ),
)
