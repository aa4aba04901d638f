"""OLMo 2: norms on what attention and FFN write, none on what they read; queries and keys are normalised too."""

from timecourse.extract.families.base import Family

OLMO2 = Family(
    name="OLMo 2",
    model_types=("olmo2",),
    norm_kind="RMSNorm",
    norms="post",
    attention_norm="post_attention_layernorm",
    feed_forward_output="post_feedforward_layernorm",
    reads_stream_after_attention="mlp",
    examples=(
        {"num_hidden_layers": 3, "num_attention_heads": 5, "hidden_size": 40},
        {"num_attention_heads": 6, "num_key_value_heads": 2, "hidden_size": 24, "attention_bias": True},
        {"num_attention_heads": 4, "hidden_size": 32, "tie_word_embeddings": True},
    ),
)
