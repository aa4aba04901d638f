"""What silencing components does to the model's predictions: the causal check.

Many pairs of a set and a prompt run in one batch, from the first layer that the set touches, and are compared with the
clean run of the prompt.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from timecourse.errors import UserError
from timecourse.extract.ablations.replacements import Replacements
from timecourse.extract.ablations.sets import AblationSet
from timecourse.extract.ablations.silencing import PostNorm, silencing
from timecourse.extract.activations import layers_of, unread_attention
from timecourse.extract.families.base import Family
from timecourse.extract.loading import LoadedModel
from timecourse.extract.prompts import Prompt, batches_of_one_length

if TYPE_CHECKING:
    from torch import nn

Method = Literal["mean", "resample", "zero"]
"""What stands in the place of a silenced component: see replacements.py; nothing with `zero`."""


def method_name(method: Method, norm: PostNorm, family: Family) -> str:
    """The intervention's full name: `mean`; `mean_live_norm` where a norm after W_O is computed anew."""
    return f"{method}_live_norm" if norm == "live" and family.attention_norm is not None else method


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
        for alike in batches_of_one_length(by_id, batch_size):
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

    layers: list[Any] = layers_of(network, family)
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
            for index, layer in enumerate(layers_of(self.model.network, self.model.family)):
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
