"""OLMoE: a mixture of experts; the FFN component is the sum of what the routed experts write."""

from timecourse.extract.families.base import Family

OLMOE = Family(
    name="OLMoE",
    model_types=("olmoe",),
    norm_kind="RMSNorm",
    examples=(
        {
            "num_hidden_layers": 3,
            "num_attention_heads": 5,
            "hidden_size": 40,
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "clip_qkv": 0.3,
        },
        {
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "hidden_size": 32,
            "num_experts": 4,
            "num_experts_per_tok": 3,
            "norm_topk_prob": True,
            "attention_bias": True,
        },
    ),
    not_verified=("single experts (the component is their sum)",),
)
