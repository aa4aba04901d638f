"""OLMo 3: the block of OLMo 2, with a sliding window in three layers of four."""

from dataclasses import replace

from timecourse.extract.families.olmo2 import OLMO2

OLMO3 = replace(
    OLMO2,
    name="OLMo 3",
    model_types=("olmo3",),
    examples=(
        {"num_hidden_layers": 5, "num_attention_heads": 4, "hidden_size": 32, "sliding_window": 4},
        {
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "hidden_size": 24,
            "sliding_window": 3,
            "attention_bias": True,
            "layer_types": ["full_attention", "sliding_attention"],
        },
    ),
)
