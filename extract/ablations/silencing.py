"""Silencing components in the running model: something else stands in the place of what they contribute.

At every position a head's vector before W_O is replaced on its way into W_O, an FFN's output behind its norm. Every row
of a batch may hold another set.

A norm between W_O and the stream (post, sandwich) is `live` where it is computed anew from the changed output, `frozen`
where the head's part of the stream alone is replaced, gain ⊙ W_O z_h / rms, with the rms of the run's own output of W_O
at that layer, this layer's heads untouched. Without such a norm the two are the same.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import linear

from timecourse.extract.ablations.replacements import LayerReplacements, Replacements
from timecourse.extract.activations import (
    first_output,
    is_transposed,
    layers_of,
    post_norm_gain,
    root_mean_square,
    weights_here,
)
from timecourse.extract.families.base import Family

if TYPE_CHECKING:
    from torch import nn

PostNorm = Literal["frozen", "live"]


@contextmanager
def silencing(
    network: "nn.Module",
    family: Family,
    masks: Tensor,
    *,
    norm: PostNorm = "frozen",
    replacements: Replacements | None = None,
    donors: Tensor | None = None,
) -> Iterator[None]:
    """While open, components are silenced in every forward pass of a batch of R prompts of n positions, at all of them.

    masks [R, L, H + 1] boolean: what is silenced in each row, FFNs last. replacements: what stands in its place; None:
    nothing. donors [R, n]: index of every position's donor in `replacements`; None: means. Layers in which no row
    silences anything run as they are, and a row that silences nothing has the logits that it has without this.
    """
    with ExitStack() as hooks:
        for index, layer in enumerate(layers_of(network, family)):
            if bool(masks[:, index].any()):
                instead = None if replacements is None else replacements.layers[index]
                silencer = _LayerSilencer(family, layer, masks[:, index], norm, instead, donors)
                for handle in silencer.hooks():
                    hooks.callback(handle.remove)
        yield


class _LayerSilencer:
    """Puts replacements in the place of what one layer's silenced components write."""

    def __init__(
        self,
        family: Family,
        layer: "nn.Module",
        mask: Tensor,
        norm: PostNorm,
        instead: LayerReplacements | None,
        donors: Tensor | None,
    ) -> None:
        self.family = family
        self.heads, self.feed_forward = mask[:, :-1], mask[:, -1]
        self.instead = instead
        self.donors = donors
        self.is_frozen = norm == "frozen" and family.attention_norm is not None
        self.projection: Any = layer.get_submodule(family.attention_output)
        self.norm: Any = layer.get_submodule(family.attention_norm) if family.attention_norm else None
        self.feed_forward_output = layer.get_submodule(family.feed_forward_output)
        self.written_by_heads: Tensor | None = None

    def hooks(self) -> "Iterator[torch.utils.hooks.RemovableHandle]":
        """Register the hooks, and yield their handles."""
        if bool(self.heads.any()):
            if self.is_frozen:
                yield self.projection.register_forward_pre_hook(self._keep_heads)
                yield self.norm.register_forward_hook(self._change_norms_output)
            else:
                yield self.projection.register_forward_pre_hook(self._change_heads)
        if bool(self.feed_forward.any()):
            yield self.feed_forward_output.register_forward_hook(self._change_feed_forward)

    def _change_heads(self, _module: "nn.Module", args: tuple[Any, ...]) -> tuple[Any, ...]:
        heads = args[0]
        if self.instead is None:
            changed = heads.masked_fill(self._wide_mask(heads), 0)
        else:
            instead = self.instead.heads_mean if self.donors is None else self._donated(self.instead.donor_heads)
            changed = torch.where(self._wide_mask(heads), instead.to(heads.dtype), heads)
        return (changed, *args[1:])

    def _keep_heads(self, _module: "nn.Module", args: tuple[Any, ...]) -> None:
        self.written_by_heads = args[0]

    def _change_norms_output(self, norm: Any, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """The norm's output, with the silenced heads' part of it replaced: gain ⊙ W_O (z' − z) / rms is added.

        z' is what stands in the place of z, brought to this position's rms from that of its own.
        """
        heads, self.written_by_heads = self.written_by_heads, None
        assert heads is not None
        rms = root_mean_square(norm, args[0])[..., None]
        if self.instead is None:
            change = -heads
        elif self.donors is None:
            assert self.instead.heads_over_rms_mean is not None
            change = self.instead.heads_over_rms_mean * rms - heads
        else:
            assert self.instead.donor_rms is not None
            scale = rms / self._donated(self.instead.donor_rms)
            change = self._donated(self.instead.donor_heads) * scale - heads
        change = change.to(heads.dtype).masked_fill(~self._wide_mask(heads), 0)
        with weights_here(self.projection):
            weight = self.projection.weight
            projected = linear(change, weight.T if is_transposed(self.projection) else weight)
        added = post_norm_gain(norm, self.family) * projected.float() / rms
        return (output.float() + added).to(output.dtype)

    def _change_feed_forward(self, _module: "nn.Module", _args: tuple[Any, ...], output: Any) -> Any:
        written = first_output(output)
        by_row = written.view(len(self.feed_forward), -1, written.shape[-1])
        mask = self.feed_forward.to(written.device)[:, None, None]
        if self.instead is None:
            changed = by_row.masked_fill(mask, 0)
        else:
            means, donated = self.instead.feed_forward_mean, self.instead.donor_feed_forward
            instead = means if self.donors is None else self._donated(donated)
            changed = torch.where(mask, instead.to(by_row.dtype), by_row)
        changed = changed.view_as(written)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    def _wide_mask(self, heads: Tensor) -> Tensor:
        """[R, 1, H · d_head]: the mask of the heads over what they write, `heads` [R, n, H · d_head]."""
        wide = self.heads.to(heads.device).repeat_interleave(heads.shape[-1] // self.heads.shape[1], dim=1)
        return wide[:, None]

    def _donated(self, bank: Tensor) -> Tensor:
        """[R, n, ...]: every position's donor's rows of a bank [D, ...]."""
        assert self.donors is not None
        return bank[self.donors.to(bank.device)]
