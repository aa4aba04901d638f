"""What a family of decoder architectures must say about itself, and how its activations are read.

A family only names modules. Attention patterns and values are read in one place for all families: transformers hands
every layer's queries, keys and values to a registered attention function, after clipping, normalisation and rotation.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

ATTENTION_NAME = "timecourse_capture"


@dataclass(frozen=True)
class Family:
    """Where one architecture keeps its parts. Paths are attribute paths, the layer's own relative to the layer.

    Sequential pre-norm block: `stream = residual + attention(norm(residual))`, then `stream + ffn(norm(stream))`.
    """

    name: str
    model_types: tuple[str, ...]
    topology: str
    layers: str = "model.layers"
    attention_output: str = "self_attn.o_proj"
    feed_forward: str = "mlp"
    reads_stream_after_attention: str = "post_attention_layernorm"
    final_norm: str = "model.norm"
    unembedding: str = "lm_head"


@dataclass(frozen=True)
class LayerActivations:
    """What one layer read and wrote, for a batch of B prompts of n positions, in the model's dtype.

    residual_before [B, n, d]: the stream that enters the layer.
    pattern [B, H, n, n]: attention weights [query, key], as multiplied with the values; rows may sum to less than 1.
    value [B, K, n, d_head]: values as attention used them (bias and clipping included), K key-value heads.
    attendable [B, n, n]: which keys the query may attend to (boolean).
    output_weight [d, H · d_head], output_bias [d] or None: the projection W_O and its bias.
    residual_between [B, n, d]: the stream after attention. feed_forward [B, n, d]: the FFN's output.
    residual_after [B, n, d]: the stream that leaves the layer.
    """

    residual_before: "Tensor"
    pattern: "Tensor"
    value: "Tensor"
    attendable: "Tensor"
    output_weight: "Tensor"
    output_bias: "Tensor | None"
    residual_between: "Tensor"
    feed_forward: "Tensor"
    residual_after: "Tensor"


def module_at(root: "nn.Module", path: str) -> "nn.Module":
    """The submodule at an attribute path such as `self_attn.o_proj`."""
    return root.get_submodule(path)


def use_capturing_attention(model: "nn.Module") -> None:
    """Make the model compute attention eagerly through a function that keeps what it saw on the attention module.

    The family's own eager attention does the arithmetic, so logits equal those of the untouched eager model.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(ATTENTION_NAME, _attend_and_keep)
    AttentionMaskInterface.register(ATTENTION_NAME, eager_mask)
    model.set_attn_implementation(ATTENTION_NAME)  # type: ignore[operator]


def _attend_and_keep(
    module: "nn.Module",
    query: "Tensor",
    key: "Tensor",
    value: "Tensor",
    attention_mask: "Tensor | None",
    **options: Any,
) -> "tuple[Tensor, Tensor]":
    eager = sys.modules[type(module).__module__].eager_attention_forward
    output, pattern = eager(module, query, key, value, attention_mask, **options)
    module.timecourse_kept = (pattern, value, attention_mask)  # type: ignore[assignment]  # a tuple is no buffer
    return output, pattern


@contextmanager
def reading_layers(
    model: "nn.Module", family: Family, receive: Callable[[int, LayerActivations], None]
) -> Iterator[None]:
    """While open, every forward pass calls `receive(layer, activations)` as each layer finishes; nothing is kept."""
    with ExitStack() as hooks:
        for index, layer in enumerate(module_at(model, family.layers).children()):
            _hook_layer(hooks, family, index, layer, receive)
        yield


def _hook_layer(
    hooks: ExitStack,
    family: Family,
    index: int,
    layer: "nn.Module",
    receive: Callable[[int, LayerActivations], None],
) -> None:
    kept: dict[str, Tensor] = {}
    projection = module_at(layer, family.attention_output)

    def keep_input(name: str) -> Callable[..., None]:
        def hook(_module: "nn.Module", args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            kept[name] = args[0] if args else kwargs["hidden_states"]

        return hook

    def keep_feed_forward(_module: "nn.Module", _args: tuple[Any, ...], output: Any) -> None:
        kept["feed_forward"] = output[0] if isinstance(output, tuple) else output

    def finish(_module: "nn.Module", _args: tuple[Any, ...], output: Any) -> None:
        attention = next(module for module in layer.modules() if hasattr(module, "timecourse_kept"))
        pattern, value, mask = attention.timecourse_kept  # type: ignore[misc]
        del attention.timecourse_kept
        receive(
            index,
            LayerActivations(
                pattern=pattern,
                value=value,
                attendable=_attendable(pattern, mask),
                output_weight=projection.weight,  # type: ignore[arg-type]
                output_bias=projection.bias,  # type: ignore[arg-type]
                residual_after=output[0] if isinstance(output, tuple) else output,
                **kept,
            ),
        )
        kept.clear()

    stream_reader = module_at(layer, family.reads_stream_after_attention)
    for handle in (
        layer.register_forward_pre_hook(keep_input("residual_before"), with_kwargs=True),
        stream_reader.register_forward_pre_hook(keep_input("residual_between"), with_kwargs=True),
        module_at(layer, family.feed_forward).register_forward_hook(keep_feed_forward),
        layer.register_forward_hook(finish),
    ):
        hooks.callback(handle.remove)


def _attendable(pattern: "Tensor", mask: "Tensor | None") -> "Tensor":
    """[B, n, n] boolean from the additive mask [B, 1, n, n]; causal where the model passed none."""
    import torch

    batch, _, queries, keys = pattern.shape
    if mask is None:
        return torch.ones(queries, keys, dtype=torch.bool, device=pattern.device).tril().expand(batch, queries, keys)
    return (mask[:, 0, :, :keys] == 0).expand(batch, queries, keys)
