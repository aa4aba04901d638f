"""What stands in the place of a silenced component's contribution.

Clean forward passes over all prompts collect its mean over template positions (the method `mean`) and its values at a
sample of positions, the donors (`resample`).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from timecourse.errors import UserError
from timecourse.extract.ablations.sets import draw, generator_of
from timecourse.extract.activations import first_output, layers_of, root_mean_square, unread_attention
from timecourse.extract.families.base import Family
from timecourse.extract.loading import LoadedModel
from timecourse.extract.prompts import Prompt, batches_of_one_length

if TYPE_CHECKING:
    from torch import nn

DONORS_PER_ROLE = 64
"""How many positions of each span role are kept as donors."""


@dataclass(frozen=True)
class LayerReplacements:
    """What one layer's components are replaced by, on the layer's device; D donors.

    heads_mean [H · d_head]: mean of the heads' vectors before W_O. heads_over_rms_mean: the same of the vectors divided
    by the post-norm's root mean square at their position; None without such a norm. feed_forward_mean [d]. Means are
    float32. donor_heads [D, H · d_head], donor_feed_forward [D, d] in the model's dtype; donor_rms [D, 1] or None.
    """

    heads_mean: Tensor
    heads_over_rms_mean: Tensor | None
    feed_forward_mean: Tensor
    donor_heads: Tensor
    donor_rms: Tensor | None
    donor_feed_forward: Tensor


@dataclass(frozen=True)
class Donor:
    """A position of a prompt whose activations are kept. fact_id: of the prompt's fact; role: see Prompt.roles."""

    prompt_id: int
    position: int
    role: str
    fact_id: str


@dataclass(frozen=True)
class Replacements:
    """What components are replaced by, of one model and its prompts, and who gets which donor.

    layers: bottom to top. donors: in the order of the layers' donor dimension. seed: draws donors.
    """

    layers: list[LayerReplacements]
    donors: list[Donor]
    seed: int

    def donors_of(self, prompt: Prompt) -> NDArray[np.int64]:
        """Index of the donor of every position of a prompt, [n]: the same for every set, so that sets compare.

        Drawn from the donors with the position's span role and another fact; where there is none, from those of
        template positions of other facts; where there is none either, from all of other facts. Raises UserError where
        every donor is of the prompt's own fact.
        """
        fact_id = prompt.relation.fact_id(prompt.fact)
        others = [index for index, donor in enumerate(self.donors) if donor.fact_id != fact_id]
        if not others:
            raise UserError("resampling needs prompts of at least two facts; use the method mean or zero")
        by_role = {
            role: [index for index in others if self.donors[index].role == role] for role in {"template", *prompt.roles}
        }
        generator = generator_of(self.seed, "donors of", prompt.prompt_id)
        pools = [by_role[role] or by_role["template"] or others for role in prompt.roles]
        return np.array([pool[int(generator.random() * len(pool))] for pool in pools])


def collect_replacements(
    model: LoadedModel, prompts: Sequence[Prompt], seed: int = 0, batch_size: int = 64
) -> Replacements:
    """Run the model over all prompts as it is, and keep the means and up to DONORS_PER_ROLE donors of each span role.

    Donors are drawn uniformly from all positions of a role. Memory: that of 4 · DONORS_PER_ROLE positions of all
    components, and of one batch. Raises UserError where no prompt has a template token.
    """
    if not any("template" in prompt.roles for prompt in prompts):
        raise UserError("the prompts hold no template tokens to take means over; use the method zero")
    donors = _draw_donors(prompts, seed)
    places = {(donor.prompt_id, donor.position): index for index, donor in enumerate(donors)}
    layers = [_LayerCollector(model.family, layer, len(donors)) for layer in layers_of(model.network, model.family)]
    with torch.inference_mode(), unread_attention(model.network), ExitStack() as hooks:
        for layer in layers:
            for handle in layer.hooks():
                hooks.callback(handle.remove)
        for batch in batches_of_one_length(prompts, batch_size):
            kept = [
                (row, position, places[prompt.prompt_id, position])
                for row, prompt in enumerate(batch)
                for position in range(len(prompt.token_ids))
                if (prompt.prompt_id, position) in places
            ]
            is_template = torch.tensor([[role == "template" for role in prompt.roles] for prompt in batch])
            for layer in layers:
                layer.expect(is_template, torch.tensor(kept, dtype=torch.long).view(-1, 3))
            ids = torch.tensor([prompt.token_ids for prompt in batch], device=model.device)
            model.network(input_ids=ids, use_cache=False, logits_to_keep=1)
    return Replacements([layer.collected() for layer in layers], donors, seed)


def _draw_donors(prompts: Sequence[Prompt], seed: int) -> list[Donor]:
    by_role: dict[str, list[Donor]] = {}
    for prompt in prompts:
        fact_id = prompt.relation.fact_id(prompt.fact)
        for position, role in enumerate(prompt.roles):
            by_role.setdefault(role, []).append(Donor(prompt.prompt_id, position, role, fact_id))
    drawn = []
    for role, donors in sorted(by_role.items()):
        chosen = draw(generator_of(seed, "donors at", role), range(len(donors)), DONORS_PER_ROLE)
        drawn += [donors[index] for index in sorted(chosen)]
    return drawn


class _LayerCollector:
    """Sums over template positions, and donors, of one layer."""

    def __init__(self, family: Family, layer: "nn.Module", donor_count: int) -> None:
        self.family = family
        self.layer = layer
        self.donor_count = donor_count
        self.norm: Any = layer.get_submodule(family.attention_norm) if family.attention_norm else None
        self.seen: dict[str, Tensor] = {}
        self.sums: dict[str, Tensor] = {}
        self.donated: dict[str, Tensor] = {}
        self.positions = 0

    def expect(self, is_template: Tensor, kept: Tensor) -> None:
        """Say what the next forward pass shows. is_template [B, n]; kept: rows of row, position and donor's index."""
        self.is_template, self.kept = is_template, kept

    def hooks(self) -> "Iterator[torch.utils.hooks.RemovableHandle]":
        """Register the hooks, and yield their handles."""
        projection = self.layer.get_submodule(self.family.attention_output)
        feed_forward = self.layer.get_submodule(self.family.feed_forward_output)
        yield projection.register_forward_pre_hook(lambda _, args: self.seen.update(heads=args[0]))
        yield feed_forward.register_forward_hook(lambda _, _args, output: self.seen.update(ffn=first_output(output)))
        if self.norm is not None:
            yield self.norm.register_forward_pre_hook(
                lambda _, args: self.seen.update(rms=root_mean_square(self.norm, args[0]))
            )
        yield self.layer.register_forward_hook(lambda *_: self._finish())

    def _finish(self) -> None:
        shown = {name: one.view(*self.is_template.shape, -1) for name, one in self.seen.items()}
        self.seen = {}
        averaged = {name: one[self.is_template].float() for name, one in shown.items()}
        if "rms" in averaged:
            averaged["heads_over_rms"] = averaged["heads"] / averaged["rms"]
        for name, one in averaged.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(one[0])) + one.sum(0)
        self.positions += int(self.is_template.sum())
        rows, positions, donors = self.kept.unbind(1)
        for name, one in shown.items():
            bank = self.donated.setdefault(name, one.new_zeros(self.donor_count, one.shape[-1]))
            bank[donors.to(one.device)] = one[rows, positions]

    def collected(self) -> LayerReplacements:
        means = {name: one / self.positions for name, one in self.sums.items()}
        return LayerReplacements(
            heads_mean=means["heads"],
            heads_over_rms_mean=means.get("heads_over_rms"),
            feed_forward_mean=means["ffn"],
            donor_heads=self.donated["heads"],
            donor_rms=self.donated.get("rms"),
            donor_feed_forward=self.donated["ffn"],
        )
