"""What a family of decoder architectures must say about itself; the shape shared by most is the default."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Norms = Literal["pre", "post", "sandwich"]


def _never(_config: Mapping[str, Any]) -> bool:
    return False


@dataclass(frozen=True)
class Family:
    """Where one architecture reads and writes the residual stream. Paths are attribute paths of modules; those of a
    layer's own modules are relative to the layer. Values that a model's config holds are named by their key.

    name, norm_kind: as the field writes them. model_types: of config.json.
    norms: "pre" on what a branch reads, "post" on what it writes, "sandwich" on both.
    is_parallel(config): whether attention and FFN read the same stream and are added to it together.
    attention_output: the projection W_O. attention_norm: the norm between it and the stream, where there is one.
    feed_forward_output: the module whose output is added to the stream; behind the FFN's post-norm where it has one.
    reads_stream_after_attention: the module whose input is the stream after attention (sequential blocks).
    gain_offset: what an attention_norm adds to its weight before it multiplies with it.
    residual_multiplier, logits_divisor, logits_softcap: config keys, where the family has such a thing.
    config_keys: how its config.json names num_hidden_layers, num_attention_heads, hidden_size, ..., where differently.
    config_defaults: what the library takes where a config.json leaves one of these out, if that is not what their
    meaning suggests (as many key-value heads as heads).
    buffers: ends of the names of tensors in old checkpoints that are no weights.
    examples: config values of small models on which the family is verified (random_models.py).
    not_verified: what is beyond those examples, in words for the user.
    """

    name: str
    model_types: tuple[str, ...]
    norm_kind: str
    examples: tuple[Mapping[str, Any], ...]
    norms: Norms = "pre"
    is_parallel: Callable[[Mapping[str, Any]], bool] = _never
    layers: str = "model.layers"
    attention_output: str = "self_attn.o_proj"
    attention_norm: str | None = None
    feed_forward_output: str = "mlp"
    reads_stream_after_attention: str = "post_attention_layernorm"
    final_norm: str = "model.norm"
    gain_offset: float = 0.0
    residual_multiplier: str | None = None
    logits_divisor: str | None = None
    logits_softcap: str | None = None
    config_keys: Mapping[str, str] = field(default_factory=dict)
    config_defaults: Mapping[str, int] = field(default_factory=dict)
    buffers: tuple[str, ...] = ()
    not_verified: tuple[str, ...] = ()

    def block(self, config: Mapping[str, Any]) -> str:
        """How a model with this config is wired: `sequential` or `parallel`."""
        return "parallel" if self.is_parallel(config) else "sequential"

    def topology(self, config: Mapping[str, Any]) -> str:
        """Block and norms as one word: `sequential_pre_norm`, `parallel_pre_norm`, `sequential_post_norm`, ..."""
        return f"{self.block(config)}_{self.norms}_norm"

    def config_value(self, config: Mapping[str, Any], key: str, default: Any = None) -> Any:
        """The value of a standard key in a config that may name it in its family's own way, or leave it out."""
        named = self.config_keys.get(key, key)
        value = config[named] if named in config else self.config_defaults.get(key)
        return default if value is None else value
