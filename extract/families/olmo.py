"""OLMo 1 (and 0424, 0724): LayerNorm without parameters, `clip_qkv` in some versions."""

from timecourse.extract.families.base import Family

OLMO = Family(
    name="OLMo",
    model_types=("olmo",),
    norm_kind="LayerNorm",
    examples=(
        {"num_hidden_layers": 3, "num_attention_heads": 5, "hidden_size": 40, "clip_qkv": 0.3},
        {"num_attention_heads": 6, "num_key_value_heads": 2, "hidden_size": 24, "attention_bias": True},
        {"num_attention_heads": 4, "hidden_size": 32, "tie_word_embeddings": True},
    ),
)
