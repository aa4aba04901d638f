"""Information flow routes, and what each component carries on them (Ferrando and Voita 2024, section 2.3).

For every target position t, walk down from the residual after the last layer. `reached[t, p]` says which positions the
route holds at one depth. In a sequential block, from the top:

1. the FFN sum at a reached q keeps the route alive where its residual or its FFN part survives τ;
2. there the attention sum is entered: key k is reached below when some head's part k → q survives, and q itself when
   the residual's part does;
3. the FFN is active for t at every reached q where its part survives, a head at every q that entered the attention sum.

A parallel block has one sum, which every reached q enters: k is reached below when some head's part k → q survives, and
q itself when the residual's or the FFN's part does, because both read the stream at q.

All targets of all prompts walk at once: a step down is a boolean matrix product.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from timecourse.extract.contributions import LayerContributions

KEY_GROUPS = ("subject", "answer", "template", "first")
"""How a head's score is split by key; position 0 counts as first only, because attention sinks land there."""


@dataclass(frozen=True)
class ComponentScores:
    """What one layer's components of one kind (C = H heads, or 1 FFN) carry for every target of B prompts.

    score [B, n, C]: Σ of surviving contributions over reached queries (and keys), in (0, n]. peak [B, n, C]: largest
    single term. edges [B, n, C]: how many terms. direct [B, n, C]: the terms with query = target.
    by_key [B, n, C, 4]: score by KEY_GROUPS; None for FFNs. A component is active where edges > 0.
    """

    score: Tensor
    peak: Tensor
    edges: Tensor
    direct: Tensor
    by_key: Tensor | None


@dataclass(frozen=True)
class Routes:
    """What every target's route carries. layers: (heads, feed_forward) per layer, bottom to top.

    degenerate_sums [B, n]: how many of a position's sums (L in parallel blocks, else 2·L) have no part left at this τ.
    """

    layers: list[tuple[ComponentScores, ComponentScores]]
    degenerate_sums: Tensor


def walk_routes(layers: Sequence[LayerContributions], tau: float, targets: Tensor, key_groups: Tensor) -> Routes:
    """Scores of every layer's heads and FFN on the routes of every target.

    layers: contributions before τ, bottom to top. targets [B, n] boolean. key_groups [B, n]: index into KEY_GROUPS, or
    −1 for padding.
    """
    one_hot = torch.stack([key_groups == index for index in range(len(KEY_GROUPS))], dim=-1).float()
    reached = torch.diag_embed(targets).float()
    degenerate = torch.zeros_like(key_groups)
    scores = []
    for contributions in reversed(layers):
        layer = contributions.thresholded(tau)
        degenerate += sum(one.degenerate.int() for one in layer.sums)
        heads, written = layer.attention.heads, layer.feed_forward_part
        assert heads is not None
        feed_forward = _carried(reached, written[..., None], (written > 0).float()[..., None], written[..., None])
        stays = layer.attention.residual > 0
        if layer.feed_forward is None:
            entered = reached
            stays = stays | (written > 0)
        else:
            entered = reached * ((layer.feed_forward.residual > 0) | (written > 0))[:, None, :]
        scores.append((_carried_by_heads(entered, heads, one_hot), feed_forward))
        edges = (heads > 0).any(-1) | torch.diag_embed(stays)
        reached = ((entered @ edges.float()) > 0).float()
    return Routes(scores[::-1], degenerate)


def _carried_by_heads(entered: Tensor, heads: Tensor, one_hot: Tensor) -> ComponentScores:
    """entered [B, t, q]; heads [B, q, k, H] after τ; one_hot [B, k, 4]."""
    carried = _carried(entered, heads.sum(2), (heads > 0).sum(2).float(), heads.amax(2))
    by_key = torch.einsum("bqkh,bkg->bqhg", heads, one_hot)
    return ComponentScores(
        carried.score,
        carried.peak,
        carried.edges,
        carried.direct,
        (entered @ by_key.flatten(2)).view(*entered.shape[:2], *by_key.shape[2:]),
    )


def _carried(reached: Tensor, sums: Tensor, counts: Tensor, largest: Tensor) -> ComponentScores:
    """reached [B, t, q] as 0 and 1; sums, counts and largest terms per query [B, q, C]."""
    peak = (reached[..., None] * largest[:, None]).amax(2)
    on_itself = reached.diagonal(dim1=1, dim2=2)[..., None]
    return ComponentScores(reached @ sums, peak, reached @ counts, on_itself * sums, None)
