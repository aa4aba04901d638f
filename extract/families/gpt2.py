"""GPT-2, and the CRFM runs (`scale_attn_by_inverse_layer_idx`, `reorder_and_upcast_attn`): biases everywhere."""

from timecourse.extract.families.base import Family

GPT2 = Family(
    name="GPT-2",
    model_types=("gpt2",),
    norm_kind="LayerNorm",
    layers="transformer.h",
    attention_output="attn.c_proj",
    reads_stream_after_attention="ln_2",
    final_norm="transformer.ln_f",
    config_keys={
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
    },
    buffers=("attn.masked_bias",),
    examples=(
        {"num_hidden_layers": 3, "num_attention_heads": 5, "hidden_size": 40},
        {
            "num_attention_heads": 4,
            "hidden_size": 32,
            "scale_attn_by_inverse_layer_idx": True,
            "reorder_and_upcast_attn": True,
            "tie_word_embeddings": False,
        },
    ),
)
