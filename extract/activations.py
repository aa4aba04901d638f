"""What each layer of a network reads and writes, taken from the running forward pass.

Attention patterns and values are read in one place for all families: transformers hands every layer's queries, keys and
values to a registered attention function, after clipping, normalisation and rotation. A family only names modules.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from timecourse.errors import UserError
from timecourse.extract.families.base import Family

if TYPE_CHECKING:
    from torch import nn

ATTENTIONS = ("eager", "sdpa")
"""The attention implementations that can be read."""


@dataclass(frozen=True)
class LayerActivations:
    """What one layer read and wrote, for a batch of B prompts of n positions, in the model's dtype.

    residual_before [B, n, d]: the stream that enters the layer.
    pattern [B, H, n, n]: attention weights [query, key], as multiplied with the values; rows may sum to less than 1.
    value [B, K, n, d_head]: values as attention used them (bias and clipping included), K key-value heads.
    attendable [B, n, n]: which keys the query may attend to (boolean).
    output_weight [d, H · d_head], output_bias [d] or None: the projection W_O and its bias.
    output_gain [d] or None: what every coordinate of W_O's output is multiplied by on its way to the stream (a
    post-norm's gain, a residual multiplier). output_divisor [B, n] or None: the post-norm's root mean square, at its
    value on the true output.
    residual_between [B, n, d]: the stream after attention; None in a parallel block.
    feed_forward [B, n, d]: what the FFN adds to the stream, its post-norm and multiplier included.
    residual_after [B, n, d]: the stream that leaves the layer.
    """

    residual_before: Tensor
    pattern: Tensor
    value: Tensor
    attendable: Tensor
    output_weight: Tensor
    output_bias: Tensor | None
    output_gain: Tensor | None
    output_divisor: Tensor | None
    residual_between: Tensor | None
    feed_forward: Tensor
    residual_after: Tensor

    def to(self, device: torch.device) -> "LayerActivations":
        """The same on one device: a layer of a model that is split over devices reads and writes on several."""
        parts = {one.name: getattr(self, one.name) for one in fields(self)}
        moved: dict[str, Any] = {name: None if one is None else one.to(device) for name, one in parts.items()}
        return LayerActivations(**moved)


def use_capturing_attention(model: Any) -> None:
    """Make the model keep, on each attention module, the pattern and values that its own attention works with.

    The model's own implementation (eager or sdpa) does the arithmetic, so logits equal those of the untouched model.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    own: str = model.config._attn_implementation
    if own.startswith(_CAPTURING):
        return
    name = f"{_CAPTURING}{own}"
    AttentionInterface.register(name, {"eager": _attend_eagerly, "sdpa": _attend_with_sdpa}[own])
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[own])
    model.set_attn_implementation(name)


@contextmanager
def unread_attention(model: Any) -> Iterator[None]:
    """While open, a model with capturing attention attends as before it had it: nothing is kept, nothing done twice.

    On a CPU eager attention over fewer than 16 keys is given masked ones besides, because torch's softmax is 15 times
    slower on rows that are shorter than its vectors; that changes rounding only.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    capturing: str = model.config._attn_implementation
    own = capturing.removeprefix(_CAPTURING)
    if own == "eager":
        AttentionInterface.register(_UNREAD, _attend_unread)
        AttentionMaskInterface.register(_UNREAD, ALL_MASK_ATTENTION_FUNCTIONS[own])
    model.set_attn_implementation(_UNREAD if own == "eager" else own)
    try:
        yield
    finally:
        model.set_attn_implementation(capturing)


_CAPTURING = "timecourse_"
_UNREAD = "timecourse_unread_eager"
_SHORTEST_ROW = 16


def _attend_eagerly(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor]:
    output, pattern = _own_eager(module, query, key, value, mask, **options)
    attendable = _causal(query, key) if mask is None else mask == 0
    module.timecourse_kept = (pattern, value, attendable)
    return output, pattern


def _own_eager(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor]:
    """The family's eager attention: output and pattern."""
    found: tuple[Tensor, Tensor]
    if getattr(module, "reorder_and_upcast_attn", False):  # GPT-2's second eager attention
        found = module._upcast_and_reordered_attn(query, key, value, mask)
    else:
        found = sys.modules[type(module).__module__].eager_attention_forward(module, query, key, value, mask, **options)
    return found


def _attend_unread(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    missing = _SHORTEST_ROW - key.shape[-2]
    if missing > 0 and mask is not None and key.device.type == "cpu":
        key, value = (pad(one, (0, 0, 0, missing)) for one in (key, value))
        mask = pad(mask, (0, missing), value=torch.finfo(mask.dtype).min)
    return _own_eager(module, query, key, value, mask, **options)[0], None


def _attend_with_sdpa(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """As sdpa does it; the pattern, which sdpa never shows, is computed once more by the family's eager attention."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    output, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
    attendable = _causal(query, key) if mask is None else mask
    additive = torch.zeros_like(attendable, dtype=query.dtype).masked_fill_(~attendable, torch.finfo(query.dtype).min)
    _attend_eagerly(module, query, key, value, additive, **options)
    return output, None


def _causal(query: Tensor, key: Tensor) -> Tensor:
    """[1, 1, queries, keys] boolean: where a model passed no mask, attention is causal."""
    return torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()[None, None]


def layers_of(network: "nn.Module", family: Family) -> "list[nn.Module]":
    """The blocks, bottom to top."""
    return list(network.get_submodule(family.layers).children())


@contextmanager
def reading_layers(
    model: "nn.Module", family: Family, receive: Callable[[int, LayerActivations], None]
) -> Iterator[None]:
    """While open, every forward pass calls `receive(layer, activations)` as each layer finishes; nothing is kept.

    Raises UserError where a layer lets a position attend to later ones.
    """
    with ExitStack() as hooks:
        for index, layer in enumerate(layers_of(model, family)):
            reader = _LayerReader(model.config, family, layer, partial(receive, index))
            for handle in reader.hooks():
                hooks.callback(handle.remove)
        yield


class _LayerReader:
    """Keeps what one layer's modules show during a forward pass, and hands it on when the layer has finished."""

    def __init__(
        self, config: Any, family: Family, layer: "nn.Module", receive: Callable[[LayerActivations], None]
    ) -> None:
        text_config = config.get_text_config()
        self.layer = layer
        self.receive = receive
        self.family = family
        self.is_parallel = family.is_parallel(text_config.to_dict())
        self.multiplier = float(getattr(text_config, family.residual_multiplier)) if family.residual_multiplier else 1.0
        self.projection: Any = layer.get_submodule(family.attention_output)
        self.norm: Any = layer.get_submodule(family.attention_norm) if family.attention_norm else None
        self.kept: dict[str, Tensor] = {}

    def hooks(self) -> "Iterator[torch.utils.hooks.RemovableHandle]":
        """Register the hooks, and yield their handles."""
        feed_forward = self.layer.get_submodule(self.family.feed_forward_output)
        yield self.layer.register_forward_pre_hook(self._keep_input("residual_before"), with_kwargs=True)
        yield feed_forward.register_forward_hook(self._keep_output("feed_forward"))
        if not self.is_parallel:
            reader = self.layer.get_submodule(self.family.reads_stream_after_attention)
            yield reader.register_forward_pre_hook(self._keep_input("residual_between"), with_kwargs=True)
        if self.norm is not None:
            yield self.norm.register_forward_pre_hook(self._keep_input("norm_input"), with_kwargs=True)
        yield self.layer.register_forward_hook(self._finish)

    def _keep_input(self, name: str) -> Callable[..., None]:
        def hook(_module: "nn.Module", args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.kept[name] = args[0] if args else kwargs["hidden_states"]

        return hook

    def _keep_output(self, name: str) -> Callable[..., None]:
        def hook(_module: "nn.Module", _args: tuple[Any, ...], output: Any) -> None:
            self.kept[name] = first_output(output)

        return hook

    def _finish(self, _module: "nn.Module", _args: tuple[Any, ...], output: Any) -> None:
        residual_after = first_output(output)
        attention: Any = next(module for module in self.layer.modules() if hasattr(module, "timecourse_kept"))
        pattern, value, attendable = attention.timecourse_kept
        del attention.timecourse_kept
        batch, _, queries, keys = pattern.shape
        attendable = attendable[:, 0].expand(batch, queries, keys)
        if bool(attendable.triu(1).any()):
            raise UserError("this model lets a position attend to later ones; only causal attention is measured")
        kept, self.kept = self.kept, {}
        feed_forward = kept["feed_forward"].view_as(residual_after)
        divisor = None if self.norm is None else root_mean_square(self.norm, kept["norm_input"])
        with weights_here(self.projection):
            weight, bias = self.projection.weight, self.projection.bias
            activations = LayerActivations(
                residual_before=kept["residual_before"],
                pattern=pattern,
                value=value,
                attendable=attendable,
                output_weight=weight.T if is_transposed(self.projection) else weight,
                output_bias=bias,
                output_gain=self._gain(residual_after),
                output_divisor=divisor,
                residual_between=kept.get("residual_between"),
                feed_forward=feed_forward if self.multiplier == 1.0 else feed_forward.float() * self.multiplier,
                residual_after=residual_after,
            )
            self.receive(activations.to(residual_after.device))

    def _gain(self, stream: Tensor) -> Tensor | None:
        if self.norm is None:
            return None if self.multiplier == 1.0 else stream.new_full(stream.shape[-1:], self.multiplier).float()
        return post_norm_gain(self.norm, self.family) * self.multiplier


def first_output(output: Any) -> Tensor:
    """A module's output, or the first of several."""
    first: Tensor = output[0] if isinstance(output, tuple) else output
    return first


def root_mean_square(norm: Any, written: Tensor) -> Tensor:
    """What an RMSNorm divides by at every position: [B, n] in float32."""
    epsilon: float = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
    return (written.float().pow(2).mean(-1) + epsilon).sqrt()


def post_norm_gain(norm: Any, family: Family) -> Tensor:
    """What a family's `attention_norm` multiplies every coordinate by: [d] in float32."""
    with weights_here(norm):
        weight: Tensor = norm.weight
        return family.gain_offset + weight.float()


def is_transposed(projection: "nn.Module") -> bool:
    """GPT-2's projections are written as [input, output]."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(projection, Conv1D)


def weights_here(module: "nn.Module") -> AbstractContextManager[Any]:
    """While open, the module's weights are in memory: accelerate may have put them aside (CPU or disk offload)."""
    if not hasattr(module, "_hf_hook"):
        return nullcontext()
    from accelerate.utils import align_module_device

    here: AbstractContextManager[Any] = align_module_device(module)
    return here
