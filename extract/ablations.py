"""Silencing components in the running model, and what that does to its predictions: the causal check.

1. Clean forward passes over all prompts collect what stands in the place of a silenced component's contribution: its
   mean over template positions (`mean`), or its value at another prompt's position (`resample`); with `zero` nothing
   does.
2. `silencing` puts that in its place while the model runs, at every position: a head's vector before W_O is replaced on
   its way into W_O, an FFN's output behind its norm. Every row of a batch may hold another set.
3. `score` runs many pairs of a set and a prompt, from the first layer that the set touches, and compares them with the
   clean run of the prompt.

A norm between W_O and the stream (post, sandwich) is `live` where it is computed anew from the changed output, `frozen`
where the head's part of the stream alone is replaced, gain ⊙ W_O z_h / rms, with the rms of the run's own output of W_O
at that layer, this layer's heads untouched. Without such a norm the two are the same.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from timecourse.errors import UserError
from timecourse.extract.ablation_sets import AblationSet, draw, generator_of
from timecourse.extract.activations import (
    first_output,
    is_transposed,
    post_norm_gain,
    root_mean_square,
    unread_attention,
    weights_here,
)
from timecourse.extract.families.base import Family
from timecourse.extract.loading import LoadedModel
from timecourse.extract.prompts import Prompt

if TYPE_CHECKING:
    from torch import nn

Method = Literal["mean", "resample", "zero"]
PostNorm = Literal["frozen", "live"]

DONORS_PER_ROLE = 64
"""How many positions of each span role are kept as donors."""


def method_name(method: Method, norm: PostNorm, family: Family) -> str:
    """The intervention's full name: `mean`; `mean_live_norm` where a norm after W_O is computed anew."""
    return f"{method}_live_norm" if norm == "live" and family.attention_norm is not None else method


# what stands in the place of silenced components --------------------------------------------------------------------


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
    layers = [_LayerCollector(model.family, layer, len(donors)) for layer in _layers(model.network, model.family)]
    with torch.inference_mode(), unread_attention(model.network), ExitStack() as hooks:
        for layer in layers:
            for handle in layer.hooks():
                hooks.callback(handle.remove)
        for batch in _batches_of_one_length(prompts, batch_size):
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


def _batches_of_one_length(prompts: Sequence[Prompt], batch_size: int) -> Iterator[list[Prompt]]:
    by_length: dict[int, list[Prompt]] = {}
    for prompt in prompts:
        by_length.setdefault(len(prompt.token_ids), []).append(prompt)
    for _, alike in sorted(by_length.items()):
        for start in range(0, len(alike), batch_size):
            yield alike[start : start + batch_size]


def _layers(network: "nn.Module", family: Family) -> "list[nn.Module]":
    return list(network.get_submodule(family.layers).children())


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


# silencing ----------------------------------------------------------------------------------------------------------


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
        for index, layer in enumerate(_layers(network, family)):
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


# scoring ------------------------------------------------------------------------------------------------------------


def score(
    model: LoadedModel,
    prompts: Sequence[Prompt],
    sets: Sequence[AblationSet],
    pairs: ArrayLike,
    method: Method,
    *,
    norm: PostNorm = "frozen",
    replacements: Replacements | None = None,
    batch_size: int = 256,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, NDArray[Any]]:
    """What silencing a set changes of a prompt's predictions, for P pairs of the two.

    pairs [P, 2]: set_id and prompt_id. replacements: see collect_replacements; needed but for `zero`. batch_size: pairs
    per forward pass. `progress` is called with the number of pairs just finished. Returns the columns set_id,
    prompt_id, answer_token_index, delta_log_prob, delta_rank and delta_template_log_prob of the raw table `ablations`,
    sorted by the first three; the last is NaN where a prompt has no template token that a position predicts. Raises
    UserError where a log-probability is not finite.
    """
    if method != "zero" and replacements is None:
        raise ValueError(f"the method {method!r} needs replacements")
    wanted = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    set_ids = np.array([one.set_id for one in sets], dtype=np.int32)
    set_index = {int(set_id): index for index, set_id in enumerate(set_ids)}
    set_of_pair = np.array([set_index[one] for one in wanted[:, 0].tolist()], dtype=np.int64)
    masks = _masks(sets, model.layer_count, model.head_count)
    first_layers = _first_layers(masks)
    asked = set(wanted[:, 1].tolist())
    by_id = sorted((prompt for prompt in prompts if prompt.prompt_id in asked), key=lambda prompt: prompt.prompt_id)
    chunks: list[dict[str, NDArray[Any]]] = []
    with torch.inference_mode(), unread_attention(model.network):
        for alike in _batches_of_one_length(by_id, batch_size):
            prompt_ids = np.array([prompt.prompt_id for prompt in alike], dtype=np.int32)
            chosen = np.flatnonzero(np.isin(wanted[:, 1], prompt_ids))
            set_of_row, prompt_of_row = set_of_pair[chosen], np.searchsorted(prompt_ids, wanted[chosen, 1])
            # together what runs through the same layers
            order = np.lexsort([prompt_of_row, set_of_row, first_layers[set_of_row]])
            set_of_row, prompt_of_row = set_of_row[order], prompt_of_row[order]
            size = math.ceil(len(order) / math.ceil(len(order) / batch_size))
            entered = set(first_layers[set_of_row].tolist())
            scored = _PromptsOfOneLength(model, alike, size, entered, method, norm, replacements)
            for rows, count in _equal_batches(len(order), size):
                first = int(first_layers[set_of_row[rows]].min())
                found = scored.score(prompt_of_row[rows], masks[set_of_row[rows]], first)
                found = {name: column[found["row"] < count] for name, column in found.items()}
                pair = rows[found.pop("row")]
                names = {"set_id": set_ids[set_of_row[pair]], "prompt_id": prompt_ids[prompt_of_row[pair]]}
                chunks.append({**names, **found})
                progress(count)
    columns = {
        name: np.concatenate([np.empty(0, kind), *(chunk[name] for chunk in chunks)]) for name, kind in _COLUMNS.items()
    }
    by_key = np.lexsort([columns[name] for name in ("answer_token_index", "prompt_id", "set_id")])
    return {name: column[by_key] for name, column in columns.items()}


_COLUMNS: dict[str, type[np.generic]] = {
    "set_id": np.int32,
    "prompt_id": np.int32,
    "answer_token_index": np.int16,
    "delta_log_prob": np.float32,
    "delta_rank": np.int32,
    "delta_template_log_prob": np.float32,
}


def _masks(sets: Sequence[AblationSet], layer_count: int, head_count: int) -> Tensor:
    """[S, L, H + 1] boolean."""
    masks = torch.zeros(len(sets), layer_count * (head_count + 1), dtype=torch.bool)
    for index, one in enumerate(sets):
        masks[index, list(one.components)] = True
    return masks.view(len(sets), layer_count, head_count + 1)


def _first_layers(masks: Tensor) -> NDArray[np.int64]:
    """[S]: the first layer in which a set silences anything; the last one where it silences nothing."""
    touched = masks.any(2)
    touched[:, -1] = True
    first: NDArray[np.int64] = touched.int().argmax(1).numpy()
    return first


def _equal_batches(count: int, size: int) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Batches of exactly `size` of `count` things, and how many of each are new; the last is filled up with the last.

    What a matrix product gives for one row may depend, in the last bit, on how many rows there are: clean and silenced
    runs of one prompt have the same shape.
    """
    for start in range(0, count, size):
        yield np.minimum(np.arange(start, start + size), count - 1), min(size, count - start)


@contextmanager
def _starting_at(network: "nn.Module", family: Family, first: int, stream: Tensor) -> Iterator[None]:
    """While open, `stream` [R, n, d] enters layer `first`, and the layers below it are not run."""

    def enter(_module: "nn.Module", args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        before = args[0] if args else kwargs["hidden_states"]
        entering = stream.to(before.device)
        return ((entering, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": entering})

    layers: list[Any] = _layers(network, family)
    with ExitStack() as restored:
        for layer in layers[:first]:
            own = vars(layer).get("forward")  # accelerate gives a layer a forward of its own
            restored.callback(partial(setattr, layer, "forward", own) if own else partial(delattr, layer, "forward"))
            layer.forward = lambda hidden_states, *_, **__: hidden_states
        restored.callback(layers[first].register_forward_pre_hook(enter, with_kwargs=True).remove)
        yield


class _PromptsOfOneLength:
    """Q prompts of n tokens and what the untouched model says of them. The last token predicts nothing that is read.

    entered: the layers at which silenced runs may start; the stream that enters them is kept.
    """

    def __init__(
        self,
        model: LoadedModel,
        prompts: Sequence[Prompt],
        batch_size: int,
        entered: Collection[int],
        method: Method,
        norm: PostNorm,
        replacements: Replacements | None,
    ) -> None:
        self.model = model
        self.norm = norm
        self.replacements = None if method == "zero" else replacements
        token_ids = torch.tensor([prompt.token_ids for prompt in prompts], device=model.device)
        self.token_ids, self.next_ids = token_ids[:, :-1], token_ids[:, 1:]
        self.is_template = self._tensor([[role == "template" for role in prompt.roles[1:]] for prompt in prompts])
        self.is_answer = self._tensor([[role == "answer" for role in prompt.roles[1:]] for prompt in prompts])
        self.is_read = self.is_template | self.is_answer
        self.donors: Tensor | None = None
        if method == "resample" and replacements is not None:
            self.donors = self._tensor(np.stack([replacements.donors_of(prompt)[:-1] for prompt in prompts]))
        self.clean_log_prob = torch.zeros(self.token_ids.shape, device=model.device)
        self.clean_rank = torch.zeros(self.token_ids.shape, dtype=torch.long, device=model.device)
        self.streams: dict[int, Tensor] = {}
        for batch, _ in _equal_batches(len(prompts), batch_size):
            rows = self._tensor(batch)
            with self._keeping_streams(rows, entered):
                log_prob, rank = self._read(rows)
            self.clean_log_prob[rows] = _spread(log_prob, self.is_read[rows])
            self.clean_rank[rows] = _spread(rank, self.is_answer[rows])

    def _tensor(self, values: Any) -> Tensor:
        return torch.as_tensor(values, device=self.model.device)

    @contextmanager
    def _keeping_streams(self, rows: Tensor, entered: Collection[int]) -> Iterator[None]:
        """While open, a forward pass over these prompts keeps the stream that enters each of these layers."""

        def keep(index: int, _module: "nn.Module", args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            stream = args[0] if args else kwargs["hidden_states"]
            kept = self.streams.setdefault(index, stream.new_empty(len(self.token_ids), *stream.shape[1:]))
            kept[rows.to(kept.device)] = stream

        with ExitStack() as hooks:
            for index, layer in enumerate(_layers(self.model.network, self.model.family)):
                if index in entered:
                    hook = layer.register_forward_pre_hook(partial(keep, index), with_kwargs=True)
                    hooks.callback(hook.remove)
            yield

    def score(self, prompts: NDArray[np.int64], masks: Tensor, first: int) -> dict[str, NDArray[Any]]:
        """One row per answer token of R pairs: `row` (of R), and the columns of `score` that do not name the pair.

        prompts [R]: which of the Q; masks [R, L, H + 1]: what is silenced, in no layer below `first`.
        """
        rows = self._tensor(prompts)
        donors = None if self.donors is None else self.donors[rows]
        network, family = self.model.network, self.model.family
        stream = self.streams[first]
        with (
            silencing(network, family, masks, norm=self.norm, replacements=self.replacements, donors=donors),
            _starting_at(network, family, first, stream[rows.to(stream.device)]),
        ):
            log_prob, rank = self._read(rows)
        is_template, is_answer = self.is_template[rows], self.is_answer[rows]
        change = _spread(log_prob, self.is_read[rows]) - self.clean_log_prob[rows]
        of_template = (change * is_template).sum(1) / is_template.sum(1)
        row, position = is_answer.nonzero(as_tuple=True)
        return {
            "row": _numpy(row, np.int64),
            "answer_token_index": _numpy(is_answer.cumsum(1)[row, position] - 1, np.int16),
            "delta_log_prob": _numpy(change[row, position], np.float32),
            "delta_rank": _numpy(rank - self.clean_rank[rows][row, position], np.int32),
            "delta_template_log_prob": _numpy(of_template[row], np.float32),
        }

    def _read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of every token that is read, and rank of every answer token, row by row.

        Only positions that are read pass the unembedding. Rank as in predictions.read_out.
        """
        is_read = self.is_read[rows]
        next_ids, is_answer = self.next_ids[rows][is_read], self.is_answer[rows][is_read]
        network = self.model.network
        handle = self.model.unembedding.register_forward_pre_hook(
            lambda _, args: (args[0][is_read.to(args[0].device)][None],)
        )
        try:
            logits = network(input_ids=self.token_ids[rows], use_cache=False).logits[0].to(rows.device).float()
        finally:
            handle.remove()
        log_prob = -cross_entropy(logits, next_ids, reduction="none")
        if not bool(log_prob.isfinite().all()):
            raise UserError("silencing components gives predictions that are not finite; measure in float32")
        answers = logits[is_answer]
        rank = (answers > answers.gather(1, next_ids[is_answer][:, None])).sum(1)
        return log_prob, rank


def _spread(values: Tensor, places: Tensor) -> Tensor:
    """Values in the places of a boolean tensor, in its order, and 0 elsewhere."""
    return values.new_zeros(places.shape).masked_scatter(places, values)


def _numpy(tensor: Tensor, kind: type[np.generic]) -> NDArray[Any]:
    return tensor.cpu().numpy().astype(kind)
