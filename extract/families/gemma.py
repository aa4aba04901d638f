"""Gemma 2 and 3: norms before and after each branch, gains of 1 + weight, sliding windows; Gemma 2 has softcaps.

The multimodal Gemma 3 is read through its language model, with text alone.
"""

from dataclasses import replace

from timecourse.extract.families.base import Family

GEMMA2 = Family(
    name="Gemma 2",
    model_types=("gemma2",),
    config_defaults={"num_key_value_heads": 4},
    norm_kind="RMSNorm",
    norms="sandwich",
    attention_norm="post_attention_layernorm",
    feed_forward_output="post_feedforward_layernorm",
    reads_stream_after_attention="pre_feedforward_layernorm",
    gain_offset=1.0,
    logits_softcap="final_logit_softcapping",
    examples=(
        {
            "num_hidden_layers": 3,
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "hidden_size": 40,
            "head_dim": 6,
            "sliding_window": 4,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
        {
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "hidden_size": 24,
            "head_dim": 4,
            "sliding_window": 3,
            "attention_bias": True,
            "final_logit_softcapping": None,
            "attn_logit_softcapping": None,
        },
    ),
)

GEMMA3 = replace(
    GEMMA2,
    name="Gemma 3",
    model_types=("gemma3_text",),
    examples=(
        {
            "num_hidden_layers": 3,
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "hidden_size": 40,
            "head_dim": 6,
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        {
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "hidden_size": 24,
            "head_dim": 4,
            "sliding_window": 3,
            "attention_bias": True,
            "final_logit_softcapping": 3.0,
        },
    ),
)

_TEXT, _VISION = GEMMA3.examples[0], {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}

GEMMA3_MULTIMODAL = replace(
    GEMMA3,
    name="Gemma 3 (multimodal)",
    model_types=("gemma3",),
    layers="model.language_model.layers",
    final_norm="model.language_model.norm",
    logits_softcap=None,  # transformers' multimodal class does not apply its text_config's
    examples=({"text_config": {"vocab_size": 61, "intermediate_size": 48, **_TEXT}, "vision_config": _VISION},),
    config_defaults={  # published text_configs leave these out
        **GEMMA3.config_defaults,
        "num_attention_heads": 8,
        "vocab_size": 262_208,
        "max_position_embeddings": 131_072,
    },
    not_verified=("images",),
)
