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

from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

from timecourse.extract.activations import LayerActivations

EPSILON = 1e-5
"""Smallest proximity of a part (method: Ferrando and Voita 2024, section 2.1)."""

BLOCK_ELEMENTS = 2**20
"""Largest number of float32 elements of one block of head parts (4 MiB: it should stay in a cache)."""

Norm = Literal["l1", "l2"]


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

    def to(self, device: torch.device) -> "SumContributions":
        """The same on another device."""
        parts = {one.name: getattr(self, one.name) for one in fields(self)}
        moved: dict[str, Any] = {name: None if one is None else one.to(device) for name, one in parts.items()}
        return SumContributions(**moved)

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

    def to(self, device: torch.device) -> "LayerContributions":
        """The same on another device."""
        feed_forward = None if self.feed_forward is None else self.feed_forward.to(device)
        return LayerContributions(self.attention.to(device), feed_forward)


def layer_contributions(layer: LayerActivations, norm: Norm = "l1") -> LayerContributions:
    """Contributions of one block, before any threshold (method: section 2)."""
    residual = layer.residual_before.float()
    pattern, output_weight, bias = _frozen(layer)
    value_output = value_outputs(layer.value, output_weight, heads=pattern.shape[1])
    attended = torch.einsum("bhqk,bkhd->bqd", pattern, value_output)
    after_attention = residual + attended if bias is None else residual + attended + bias
    written = layer.feed_forward.float()
    is_parallel = layer.residual_between is None
    between = layer.residual_after if layer.residual_between is None else layer.residual_between
    attention = _shares(
        whole=after_attention + written if is_parallel else after_attention,
        stream=between.float(),
        residual=residual,
        heads=(pattern, value_output, layer.attendable),
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
        heads=None,
        feed_forward=written,
        bias=None,
        norm=norm,
    )
    return LayerContributions(attention, feed_forward)


def _frozen(layer: LayerActivations) -> tuple[Tensor, Tensor, Tensor | None]:
    """Pattern, W_O and bias [B, n, d] in float32, what stands between W_O and the stream folded in.

    gain ⊙ (a · v W_O) / divisor = (a / divisor) · v (gain ⊙ W_O): the gain belongs to the coordinate, the divisor to
    the query.
    """
    pattern, weight = layer.pattern.float(), layer.output_weight.float()
    bias = None if layer.output_bias is None else layer.output_bias.float().expand_as(layer.residual_before)
    if layer.output_gain is not None:
        weight = weight * layer.output_gain[:, None]
        bias = None if bias is None else bias * layer.output_gain
    if layer.output_divisor is not None:
        pattern = pattern / layer.output_divisor[:, None, :, None]
        bias = None if bias is None else bias / layer.output_divisor[..., None]
    return pattern, weight, bias


def value_outputs(value: Tensor, output_weight: Tensor, heads: int) -> Tensor:
    """What each head would write if it attended to one key only: `v[k,h] W_O[h]`.

    value [B, K, n, d_head] (K key-value heads, each shared by H/K query heads), output_weight [d, H · d_head];
    returns [B, n, H, d] in float32.
    """
    value = value.float().repeat_interleave(heads // value.shape[1], dim=1)
    weight = output_weight.float().view(output_weight.shape[0], heads, -1)
    return torch.einsum("bhke,dhe->bkhd", value, weight)


def _shares(
    *,
    whole: Tensor,
    stream: Tensor,
    residual: Tensor,
    heads: tuple[Tensor, Tensor, Tensor] | None,
    feed_forward: Tensor | None,
    bias: Tensor | None,
    norm: Norm,
) -> SumContributions:
    whole_norm = _norm(whole, norm)

    def proximity(part: Tensor) -> Tensor:
        return _proximity(whole, whole - part, norm)

    by_head = None
    if heads is not None:
        pattern, value_output, attendable = heads
        # what the query cannot attend to is no part at all: it gets neither a share nor an ε
        by_head = _head_proximities(whole, pattern, value_output, norm)
        by_head = by_head.masked_fill(~attendable[..., None], -torch.inf)
    parts = [
        proximity(residual),
        by_head,
        None if feed_forward is None else proximity(feed_forward),
        None if bias is None else proximity(bias),
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
        stream_norm=whole_norm,
        completeness_error=(whole - stream).abs().sum(-1) / stream.abs().sum(-1).clamp(min=EPSILON),
    )


def _head_proximities(whole: Tensor, pattern: Tensor, value_output: Tensor, norm: Norm) -> Tensor:
    """‖y‖ − ‖y − a·vW_O‖ for every [query, key, head]: [B, n, n, H]. Keys after the query are left at −∞.

    The parts [B, query, key, H, d] exist one block of queries at a time, for keys up to the block's last query.
    """
    batch, positions, head_count, width = value_output.shape
    proximities = whole.new_full((batch, positions, positions, head_count), -torch.inf)
    rows = min(positions, max(1, BLOCK_ELEMENTS // (positions * head_count * width)))
    prompts = max(1, BLOCK_ELEMENTS // (rows * positions * head_count * width))
    by_query = pattern.permute(0, 2, 3, 1)
    for start in range(0, batch, prompts):
        block = slice(start, start + prompts)
        for first in range(0, positions, rows):
            last = min(first + rows, positions)
            left = torch.addcmul(  # y − a·vW_O in one pass over memory
                whole[block, first:last, None, None],
                by_query[block, first:last, :last, :, None],
                value_output[block, None, :last],
                value=-1,
            )
            proximities[block, first:last, :last] = _proximity(whole[block, first:last, None, None], left, norm)
    return proximities


def _proximity(whole: Tensor, left: Tensor, norm: Norm) -> Tensor:
    """‖y‖ − ‖y − p‖, given y and what is left of it without the part, y − p; overwrites `left`.

    Subtracted coordinate by coordinate, because the difference of two float32 norms keeps few digits. The published
    pipeline adds 1e-6 to every coordinate of y − p, its library's default; that is not done here.
    """
    if norm == "l1":
        return left.abs_().neg_().add_(whole.abs()).sum(-1)
    squares = ((whole - left) * (whole + left)).sum(-1)
    return squares / (_norm(whole, norm) + _norm(left, norm)).clamp(min=torch.finfo(squares.dtype).tiny)


def _norm(vectors: Tensor, norm: Norm) -> Tensor:
    # on a CPU the sum of absolute values is four times faster than vector_norm(ord=1) over short rows
    return vectors.abs().sum(-1) if norm == "l1" else torch.linalg.vector_norm(vectors, dim=-1)


def _per_position(part: Tensor) -> Tensor:
    return part.flatten(2).sum(-1) if part.dim() > 2 else part


def _largest(part: Tensor) -> Tensor:
    return part.flatten(2).amax(-1) if part.dim() > 2 else part
