"""Llama (Amber, TinyLlama, SmolLM 1 and 2, Llama 1 to 3)."""

from timecourse.extract.families.base import Family

LLAMA = Family(
    name="Llama",
    model_types=("llama",),
    norm_kind="RMSNorm",
    examples=(
        {"num_hidden_layers": 3, "num_attention_heads": 5, "hidden_size": 40},
        {
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "hidden_size": 36,
            "head_dim": 4,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
        },
    ),
)
