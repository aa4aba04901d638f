"""Contributions of the parts of a sum that the residual stream receives (Ferrando and Voita 2024, section 2).

For a sum y = Σ pᵢ of vectors, part i has

1. the proximity  max(‖y‖ − ‖y − pᵢ‖, ε)  in the l1 norm (l2 as a setting), ε = 1e-5,
2. the contribution  cᵢ  = its share of all proximities, the residual's included.

The parts of an attention sum are the residual before it and, for every key k and head h, `a[q,k,h] · v[k,h] W_O[h]`,
where the query may attend to k; what is left of the projection's bias is one more part. The parts of an FFN sum are the
residual before it and the FFN's output. A parallel block has one sum: the residual, the heads', the FFN's and the bias.
A norm between W_O and the stream is linear once its divisor is frozen at the value it has for the true output, so each
part passes it by itself. Everything is computed in float32, whatever the model's dtype.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from timecourse.extract.activations import LayerActivations
from timecourse.extract.proximities import Norm, head_proximities, norm_of, proximity
from timecourse.extract.reused_memory import ReusedMemory

EPSILON = 1e-5
"""Smallest proximity of a part (method: Ferrando and Voita 2024, section 2.1)."""

VALUE_ELEMENTS = 2**26
"""Largest number of float32 elements of values behind W_O that exist at once (256 MiB), but for one head's."""


@dataclass(frozen=True)
class SumContributions:
    """Contributions to one sum of one layer, for B prompts of n positions and H heads. Shares of 1, or all 0.

    residual [B, n]; heads [B, n, n, H] as [query, key, head], or None; feed_forward and bias [B, n], or None.
    degenerate [B, n]: no part comes closer to the sum than nothing does (every proximity ≤ 0): all contributions are 0.
    stream_norm [B, n]: ‖y‖. completeness_error [B, n]: ‖Σp − stream‖₁ / ‖stream‖₁ against what the model received.
    """

    residual: Tensor
    heads: Tensor | None
    feed_forward: Tensor | None
    bias: Tensor | None
    degenerate: Tensor
    stream_norm: Tensor
    completeness_error: Tensor

    def thresholded(self, tau: float) -> "SumContributions":
        """Contributions ≤ τ set to 0, the rest renormalised to 1 per position; degenerate where none survives."""
        kept = [None if part is None else torch.where(part > tau, part, 0) for part in self._parts()]
        total = sum(_per_position(part) for part in kept if part is not None)
        assert isinstance(total, Tensor)
        scale = torch.where(total > 0, 1 / total, 0)
        residual, heads, feed_forward, bias = (
            None if part is None else part * scale[(...,) + (None,) * (part.dim() - 2)] for part in kept
        )
        assert residual is not None
        return SumContributions(
            residual, heads, feed_forward, bias, total == 0, self.stream_norm, self.completeness_error
        )

    def with_each(self, change: Callable[..., Tensor], *others: "SumContributions") -> "SumContributions":
        """What `change` makes of each tensor, and of the same one of the others; what is None stays None."""
        changed: dict[str, Any] = {}
        for name in (one.name for one in fields(self)):
            tensors = [getattr(one, name) for one in (self, *others)]
            changed[name] = None if tensors[0] is None else change(*tensors)
        return SumContributions(**changed)

    def _parts(self) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        return self.residual, self.heads, self.feed_forward, self.bias


@dataclass(frozen=True)
class LayerContributions:
    """The sums of one block: the stream after attention and then after the FFN, or in a parallel block one of all.

    attention: residual, heads and bias; in a parallel block the FFN too, and then `feed_forward` is None.
    """

    attention: SumContributions
    feed_forward: SumContributions | None

    @property
    def sums(self) -> tuple[SumContributions, ...]:
        """The block's sums in the order in which the stream passes them."""
        return (self.attention,) if self.feed_forward is None else (self.attention, self.feed_forward)

    @property
    def feed_forward_part(self) -> Tensor:
        """The FFN's contribution [B, n], in whichever sum it is a part."""
        part = self.sums[-1].feed_forward
        assert part is not None
        return part

    def thresholded(self, tau: float) -> "LayerContributions":
        """Every sum cut at τ; see SumContributions.thresholded."""
        feed_forward = None if self.feed_forward is None else self.feed_forward.thresholded(tau)
        return LayerContributions(self.attention.thresholded(tau), feed_forward)

    def with_each(self, change: Callable[..., Tensor], *others: "LayerContributions") -> "LayerContributions":
        """The same of every sum; see SumContributions.with_each."""
        sums = zip(*(one.sums for one in (self, *others)), strict=True)
        attention, *feed_forward = (first.with_each(change, *rest) for first, *rest in sums)
        return LayerContributions(attention, *feed_forward or (None,))


class KeptContributions:
    """The contributions of all layers, in one tensor per kind.

    Kept one by one, they would lie between the larger blocks that every layer lets go of, and on a CPU these holes then
    stay with the process (docs/cost.md, memory).
    """

    def __init__(self, layer_count: int, device: torch.device) -> None:
        self.layers: list[LayerContributions] = []
        """Bottom to top."""
        self._layer_count = layer_count
        self._device = device

    def append(self, layer: LayerContributions) -> None:
        """Copy the next layer's."""
        if not self.layers:
            self._all = layer.with_each(lambda one: one.new_empty(self._layer_count, *one.shape, device=self._device))
        index = len(self.layers)
        self.layers.append(self._all.with_each(lambda stacked, one: stacked[index].copy_(one), layer))


@torch.no_grad()
def layer_contributions(
    layer: LayerActivations, norm: Norm = "l1", *, is_compiled: bool = False, memory: ReusedMemory | None = None
) -> LayerContributions:
    """Contributions of one block, before any threshold (method: section 2).

    is_compiled: whether the heads' proximities are worth a compiled loop; it changes rounding only. memory: where
    values behind W_O are computed, for calls one after another.
    """
    residual = layer.residual_before.float()
    pattern, weight, bias = _frozen(layer)
    written = layer.feed_forward.float()
    is_parallel = layer.residual_between is None
    between = layer.residual_after if layer.residual_between is None else layer.residual_between
    beside = residual if bias is None else residual + bias
    after_attention, by_head = _attended(
        layer.value,
        pattern,
        weight,
        beside + written if is_parallel else beside,
        norm,
        is_compiled,
        memory or ReusedMemory(),
    )
    # what the query cannot attend to is no part at all: it gets neither a share nor an ε
    by_head.masked_fill_(~layer.attendable[..., None], -torch.inf)
    attention = _shares(
        whole=after_attention,
        stream=between.float(),
        residual=residual,
        by_head=by_head,
        feed_forward=written if is_parallel else None,
        bias=bias,
        norm=norm,
    )
    if is_parallel:
        return LayerContributions(attention, None)
    feed_forward = _shares(
        whole=between.float() + written,
        stream=layer.residual_after.float(),
        residual=between.float(),
        by_head=None,
        feed_forward=written,
        bias=None,
        norm=norm,
    )
    return LayerContributions(attention, feed_forward)


def _attended(
    value: Tensor,
    pattern: Tensor,
    weight: Tensor,
    beside: Tensor,
    norm: Norm,
    is_compiled: bool,
    memory: ReusedMemory,
) -> tuple[Tensor, Tensor]:
    """The attention sum [B, n, d] and the heads' proximities to it [B, n, n, H].

    beside [B, n, d]: what the sum holds beside the heads' parts. Values behind W_O exist for as many prompts at once as
    VALUE_ELEMENTS allows; where a single prompt takes more, for as many heads.
    """
    batch, heads, positions, _ = pattern.shape
    width, size = beside.shape[-1], value.shape[-1]
    prompts = VALUE_ELEMENTS // (positions * heads * width)
    # Of the parts themselves, so that completeness is theirs; of long prompts of heads' outputs, where that takes less.
    is_long = 2 * positions * heads * width >= VALUE_ELEMENTS
    is_summed = prompts > 0 and (not is_long or positions * (heads - 1) < width)
    whole = beside.clone()
    by_head = beside.new_empty(batch, positions, positions, heads)
    for first in range(0, batch, max(1, prompts)):
        rows = slice(first, first + max(1, prompts))
        if not is_summed:
            values = value[rows].float().repeat_interleave(heads // value.shape[1], dim=1)
            whole[rows] += (pattern[rows] @ values).transpose(1, 2).flatten(2) @ weight.float().T
        if prompts:
            parts = value_outputs(value[rows], weight, heads, memory)
            if is_summed:
                whole[rows].baddbmm_(pattern[rows].permute(0, 2, 3, 1).flatten(2), parts.flatten(1, 2))
            by_head[rows] = head_proximities(whole[rows], pattern[rows], parts, norm, is_compiled=is_compiled)
            continue
        at_once = max(1, VALUE_ELEMENTS // (positions * width))
        for start in range(0, heads, at_once):
            some = slice(start, min(start + at_once, heads))
            columns = slice(some.start * size, some.stop * size)
            parts = value_outputs(values[:, some], weight[:, columns], some.stop - start, memory)
            by_head[rows, ..., some] = head_proximities(
                whole[rows], pattern[rows, some], parts, norm, is_compiled=is_compiled
            )
    return whole, by_head


def _frozen(layer: LayerActivations) -> tuple[Tensor, Tensor, Tensor | None]:
    """Pattern, W_O [d, H · d_head] and bias [B, n, d], with what stands between W_O and the stream folded in.

    In float32, but for a W_O into which nothing is folded: that is left as it is.

    gain ⊙ (a · v W_O) / divisor = (a / divisor) · v (gain ⊙ W_O): the gain belongs to the coordinate, the divisor to
    the query.
    """
    pattern, weight = layer.pattern.float(), layer.output_weight
    bias = None if layer.output_bias is None else layer.output_bias.float().expand_as(layer.residual_before)
    if layer.output_gain is not None:
        weight = weight * layer.output_gain[:, None]
        bias = None if bias is None else bias * layer.output_gain
    if layer.output_divisor is not None:
        pattern = pattern / layer.output_divisor[:, None, :, None]
        bias = None if bias is None else bias / layer.output_divisor[..., None]
    return pattern, weight, bias


def value_outputs(value: Tensor, output_weight: Tensor, heads: int, memory: ReusedMemory | None = None) -> Tensor:
    """What each head would write if it attended to one key only: `v[k,h] W_O[h]`.

    value [B, K, n, d_head] (K key-value heads, each shared by H/K query heads), output_weight [d, H · d_head];
    returns [B, n, H, d] in float32, in the memory given.
    """
    batch, groups, positions, size = value.shape
    found = (memory or ReusedMemory()).of((batch * positions, heads, len(output_weight)), value.device)
    are_bfloat16 = value.dtype == output_weight.dtype == torch.bfloat16
    with _bfloat16_factors() if are_bfloat16 else nullcontext():
        for head in range(heads):  # written where they belong: one product of all heads would have to be copied
            of_head = value[:, head * groups // heads].flatten(0, 1)
            weight = output_weight[:, head * size : (head + 1) * size]
            torch.mm(of_head.float(), weight.float().T, out=found[:, head])
    return found.view(batch, positions, heads, -1)


@contextmanager
def multiplying_in(precision: str) -> Iterator[None]:
    """While open, float32 factors are multiplied as torch's `precision` says: "highest" is as they are."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _bfloat16_factors() -> AbstractContextManager[None]:
    """While open, float32 factors that are bfloat16 numbers are multiplied as such, where the CPU can do it fast.

    The sums stay in float32: nothing is lost, and it takes a third less time.
    """
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.9 cannot tell
    return multiplying_in("medium") if capabilities.get("avx512_bf16") else nullcontext()


def _shares(
    *,
    whole: Tensor,
    stream: Tensor,
    residual: Tensor,
    by_head: Tensor | None,
    feed_forward: Tensor | None,
    bias: Tensor | None,
    norm: Norm,
) -> SumContributions:
    """Proximities as shares of 1; `by_head` [B, n, n, H] are proximities already, −∞ where there is no part."""

    def proximity_of(part: Tensor) -> Tensor:
        return proximity(whole, whole - part, norm)

    parts = [
        proximity_of(residual),
        by_head,
        None if feed_forward is None else proximity_of(feed_forward),
        None if bias is None else proximity_of(bias),
    ]
    degenerate = torch.stack([_largest(part) <= 0 for part in parts if part is not None]).all(dim=0)
    floored = [None if part is None else part.clamp(min=EPSILON).where(part > -torch.inf, 0) for part in parts]
    total = sum(_per_position(part) for part in floored if part is not None)
    scale = torch.where(degenerate, 0, 1 / total)
    shares = [None if part is None else part * scale[(...,) + (None,) * (part.dim() - 2)] for part in floored]
    assert shares[0] is not None
    return SumContributions(
        residual=shares[0],
        heads=shares[1],
        feed_forward=shares[2],
        bias=shares[3],
        degenerate=degenerate,
        stream_norm=norm_of(whole, norm),
        completeness_error=(whole - stream).abs().sum(-1) / stream.abs().sum(-1).clamp(min=EPSILON),
    )


def _per_position(part: Tensor) -> Tensor:
    return part.flatten(2).sum(-1) if part.dim() > 2 else part


def _largest(part: Tensor) -> Tensor:
    return part.flatten(2).amax(-1) if part.dim() > 2 else part
