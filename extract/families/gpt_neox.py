"""GPT-NeoX (Pythia, PolyPythias): attention and FFN read the same stream; LayerNorm and projections have biases."""

from timecourse.extract.families.base import Family

GPT_NEOX = Family(
    name="GPT-NeoX",
    model_types=("gpt_neox",),
    norm_kind="LayerNorm",
    is_parallel=lambda config: bool(config.get("use_parallel_residual", True)),
    layers="gpt_neox.layers",
    attention_output="attention.dense",
    final_norm="gpt_neox.final_layer_norm",
    examples=(
        {"num_hidden_layers": 3, "num_attention_heads": 5, "hidden_size": 40},
        {"num_attention_heads": 4, "hidden_size": 32, "attention_bias": False, "tie_word_embeddings": True},
        {"num_attention_heads": 4, "hidden_size": 32, "use_parallel_residual": False},
    ),
)
