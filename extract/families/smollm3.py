"""SmolLM3: the block of Llama; every fourth layer has no positional encoding."""

from dataclasses import replace

from timecourse.extract.families.llama import LLAMA

SMOLLM3 = replace(
    LLAMA,
    name="SmolLM3",
    model_types=("smollm3",),
    config_defaults={"num_key_value_heads": 4},
    examples=(
        {"num_hidden_layers": 5, "num_attention_heads": 4, "num_key_value_heads": 4, "hidden_size": 32},
        {
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "hidden_size": 24,
            "no_rope_layers": [1, 0],
            "attention_bias": True,
            "tie_word_embeddings": False,
            "use_sliding_window": True,
            "sliding_window": 3,
        },
    ),
)
