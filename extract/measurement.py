"""The measurement of one checkpoint, batch by batch: from tokens to the columns of the raw tables.

Per batch of prompts of like length: one forward pass, with contributions computed as each layer finishes, so that no
more than one layer's activations exist; then routes for every target and every τ; then the readouts of every answer
token. Before it a plain forward pass over the same prompts with mismatched subjects, for the answers' log-probability
there.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from timecourse.errors import UserError
from timecourse.extract.activations import LayerActivations, reading_layers, unread_attention
from timecourse.extract.contributions import KeptContributions, LayerContributions, layer_contributions
from timecourse.extract.identity import ExtractionRequest
from timecourse.extract.loading import LoadedModel
from timecourse.extract.predictions import Readout, log_probabilities, read_out
from timecourse.extract.prompts import MismatchedPrompt, Prompt, answer_candidates, mismatched_prompts
from timecourse.extract.proximities import Norm
from timecourse.extract.reused_memory import ReusedMemory
from timecourse.extract.routes import KEY_GROUPS, ComponentScores, walk_routes
from timecourse.extract.tables import MeasuredTables

COMPLETENESS_BOUND = {"float32": 1e-4, "float16": 2e-3, "bfloat16": 2e-2}
"""Largest ‖Σp − stream‖₁ / ‖stream‖₁ that is accepted, by dtype (method: section 2)."""

LOGIT_ELEMENTS = 2**23
"""Largest number of logits of the lens that exist at once, but for those of one answer token (16 MiB in bfloat16)."""

COMPILED_ELEMENTS = 2**33
"""Coordinates of all head parts of an extraction from which compiling the loop over them takes less than it saves."""


class Measurement:
    """Collects the raw tables of one checkpoint, batch by batch."""

    def __init__(self, request: ExtractionRequest, model: LoadedModel, prompts: Sequence[Prompt]) -> None:
        self.request = request
        self.model = model
        self.prompts = prompts
        self.taus = request.taus
        self.candidates = answer_candidates(prompts)
        self.mismatched = mismatched_prompts(prompts, request.checkpoint.context_length)
        self.tables = MeasuredTables(request, prompts, model.component_ids, _residual_ids(model))
        self.is_compiled = _part_elements(request, prompts) >= COMPILED_ELEMENTS
        self.completeness_error = 0.0
        self.lens_error = 0.0
        self.degenerate_sums = [0] * len(self.taus)
        self.sums = 0

    def add(self, batch: Sequence[Prompt]) -> None:
        """Measure prompts of like length; `batch` is one forward pass, and one more with mismatched subjects.

        Where it raises, nothing of the batch was added.
        """
        log_probs_mismatched = self._log_probs_mismatched(batch)
        device = self.model.device
        ids, mask, rows, positions = _padded(batch, device)
        targets = torch.zeros(ids.shape, dtype=torch.bool)
        key_groups = torch.full(ids.shape, -1)
        for row, prompt in enumerate(batch):
            count = len(prompt.token_ids)
            targets[row, :count] = torch.tensor([role != "special" for role in prompt.roles])
            key_groups[row, :count] = torch.tensor([_key_group(role) for role in prompt.roles])
            key_groups[row, 0] = KEY_GROUPS.index("first")
        targets, key_groups, present = targets.to(device), key_groups.to(device), mask.bool()

        layers, streams, logits = self._passed_through(ids, mask, rows, positions)
        completeness_error = self._completeness_error(layers, present)
        prompt_ids = np.array([prompt.prompt_id for prompt in batch])
        contributions = self._contributions(prompt_ids, layers, rows, positions)
        predictions, lens_error = self._predictions(batch, streams, logits, positions, log_probs_mismatched)
        attributions = [
            self._attributions(index, tau, prompt_ids, layers, present, targets, key_groups)
            for index, tau in enumerate(self.taus)
        ]
        sums = sum(len(layer.sums) for layer in layers) * int(present.sum())
        for index, (columns, degenerate_sums) in enumerate(attributions):
            self.tables.attributions.add(columns)
            self.degenerate_sums[index] += degenerate_sums
        self.sums += sums
        self.tables.contributions.add(contributions)
        self.tables.predictions.add(predictions)
        self.completeness_error = max(self.completeness_error, completeness_error)
        self.lens_error = max(self.lens_error, lens_error)

    def _passed_through(
        self, ids: Tensor, mask: Tensor, rows: Tensor, positions: Tensor
    ) -> tuple[list[LayerContributions], Tensor, Tensor]:
        """One forward pass: contributions of every layer, bottom to top; streams [P, L + 1, d] and logits [P, V]."""
        device = self.model.device
        kept = KeptContributions(self.model.layer_count, device)
        streams = torch.empty(0)
        memory = ReusedMemory()
        norm: Norm = "l2" if self.request.settings.norm == "l2" else "l1"

        def receive(index: int, activations: LayerActivations) -> None:
            nonlocal streams
            kept.append(layer_contributions(activations, norm, is_compiled=self.is_compiled, memory=memory))
            if index == 0:
                before = activations.residual_before
                streams = before.new_empty(len(rows), self.model.layer_count + 1, before.shape[-1], device=device)
                streams[:, 0] = before.to(device)[rows, positions]
            streams[:, index + 1] = activations.residual_after.to(device)[rows, positions]

        with reading_layers(self.model.network, self.model.family, receive):
            logits = self.model.logits_at(rows, positions, input_ids=ids, attention_mask=mask)
        return kept.layers, streams, logits

    def _log_probs_mismatched(self, batch: Sequence[Prompt]) -> Tensor:
        """Log-probability of every answer token after the mismatched subject, [P]; NaN where there is none."""
        has_one = [prompt.prompt_id in self.mismatched for prompt in batch for _ in prompt.answer_positions]
        found = torch.full((len(has_one),), torch.nan, device=self.model.device)
        mismatched = [self.mismatched[prompt.prompt_id] for prompt in batch if prompt.prompt_id in self.mismatched]
        if mismatched:
            ids, mask, rows, positions = _padded(mismatched, self.model.device)
            with unread_attention(self.model.network):  # the last token of all predicts nothing that is read
                logits = self.model.logits_at(rows, positions, input_ids=ids[:, :-1], attention_mask=mask[:, :-1])
            found[torch.tensor(has_one, device=found.device)] = log_probabilities(logits, ids[rows, positions + 1])
        return found

    def _completeness_error(self, layers: Sequence[LayerContributions], present: Tensor) -> float:
        """The largest of any sum. Raises UserError where one is beyond its bound."""
        dtype, largest = self.request.settings.dtype, 0.0
        for index, layer in enumerate(layers):
            names = ("attention + FFN",) if self.model.is_parallel else ("attention", "FFN")
            for name, part in zip(names, layer.sums, strict=True):
                errors = part.completeness_error[present]
                worst = float(errors.max()) if bool(errors.isfinite().all()) else float("inf")
                if not worst <= COMPLETENESS_BOUND[dtype]:
                    raise UserError(
                        f"checkpoint {self.request.checkpoint.name!r} is refused: the parts of layer {index}'s {name} "
                        f"sum miss the stream by {worst:.2g} (bound for {dtype}: {COMPLETENESS_BOUND[dtype]:g})"
                    )
                largest = max(largest, worst)
        return largest

    def _attributions(
        self,
        tau_index: int,
        tau: float,
        prompt_ids: "np.ndarray[Any, Any]",
        layers: Sequence[LayerContributions],
        present: Tensor,
        targets: Tensor,
        key_groups: Tensor,
    ) -> tuple[dict[str, Any], int]:
        """Rows of every active component of every target, and how many of the prompts' sums have no part left."""
        routes = walk_routes(layers, tau, targets, key_groups)
        kinds = [_stacked([layer[kind] for layer in routes.layers]) for kind in (0, 1)]
        edges = torch.cat([kind.edges for kind in kinds], dim=-1)
        layer, row, target, part = edges.nonzero(as_tuple=True)
        is_head = part < self.model.head_count
        scores = {
            name: _numpy(torch.cat([getattr(kind, name) for kind in kinds], dim=-1)[layer, row, target, part])
            for name in ("score", "peak", "direct")
        }
        by_key = kinds[0].by_key
        assert by_key is not None
        split = torch.full((len(part), len(KEY_GROUPS)), torch.nan, device=by_key.device)
        split[is_head] = by_key[layer[is_head], row[is_head], target[is_head], part[is_head]]
        columns = {
            "tau_id": np.full(len(part), tau_index),
            "prompt_id": prompt_ids[_numpy(row)],
            "position": _numpy(target),
            "component_id": _numpy(layer * (self.model.head_count + 1) + part),
            "score": scores["score"],
            "peak": scores["peak"],
            "edges": _numpy(edges[layer, row, target, part]),
            "score_direct": scores["direct"],
            **{f"score_{group}": _numpy(split[:, index]) for index, group in enumerate(KEY_GROUPS)},
        }
        return columns, int(routes.degenerate_sums[present].sum())

    def _contributions(
        self, prompt_ids: "np.ndarray[Any, Any]", layers: Sequence[LayerContributions], rows: Tensor, positions: Tensor
    ) -> dict[str, Any]:
        at = (rows, positions)
        shares: list[Tensor] = []
        norms: dict[int, Tensor] = {}
        for layer in layers:
            assert layer.attention.heads is not None
            shares += [*layer.attention.heads[at].sum(1).unbind(1), layer.feed_forward_part[at]]
        for layer in layers:
            for part in layer.sums:
                norms[len(shares)] = part.stream_norm[at]
                shares.append(part.residual[at])
        shares += [layer.attention.bias[at] for layer in layers if layer.attention.bias is not None]
        direct = torch.stack(shares, 1)
        no_norm = torch.full_like(shares[0], torch.nan)
        stream_norm = torch.stack([norms.get(index, no_norm) for index in range(len(shares))], 1)
        predicting, part_count = direct.shape
        return {
            "prompt_id": np.repeat(prompt_ids[_numpy(rows)], part_count),
            "position": np.repeat(_numpy(positions), part_count),
            "component_id": np.tile(np.arange(part_count), predicting),
            "c_direct": _numpy(direct).ravel(),
            "stream_norm": _numpy(stream_norm).ravel(),
        }

    def _predictions(
        self,
        batch: Sequence[Prompt],
        streams: Tensor,
        own: Tensor,
        positions: Tensor,
        log_probs_mismatched: Tensor,
    ) -> tuple[dict[str, Any], float]:
        """Rows of every answer token at every depth, and the lens's largest error. Raises UserError; see _lens_error.

        streams [P, L + 1, d], bottom to top; own [P, V]: the model's logits.
        """
        answers = [
            (prompt, index, prompt.token_ids[position])
            for prompt in batch
            for index, position in enumerate(prompt.answer_positions)
        ]
        choices = [self.candidates[prompt.relation.relation_id, index] for prompt, index, _ in answers]
        widest = max(map(len, choices))
        token_ids = torch.tensor([token for _, _, token in answers], device=own.device)
        candidates = torch.tensor(
            [choice + [token] * (widest - len(choice)) for choice, (_, _, token) in zip(choices, answers, strict=True)],
            device=own.device,
        )
        depths = streams.shape[1] + 1
        found = Readout.empty(len(own) * depths, own.device)
        error = torch.zeros((), device=own.device)
        # The unembedding is read once for many streams; blocks go over rows, because a rank compares a row's logits,
        # which only one product of the whole row makes comparable to the last digit.
        at_once = max(1, LOGIT_ELEMENTS // (own.shape[1] * depths))
        for start in range(0, len(own), at_once):
            some = slice(start, start + at_once)
            lens = self.model.read_stream(streams[some])
            error = torch.maximum(error, (lens[:, -1] - own[some]).float().abs().max())
            logits = torch.cat([lens, own[some, None]], 1).flatten(0, 1)
            read = read_out(
                logits, token_ids[some].repeat_interleave(depths), candidates[some].repeat_interleave(depths, 0)
            )
            found.put(slice(start * depths, start * depths + len(logits)), read)
        mismatched = torch.full((len(own), depths), torch.nan, device=own.device)
        mismatched[:, -1] = log_probs_mismatched
        columns = {
            "prompt_id": np.repeat([prompt.prompt_id for prompt, _, _ in answers], depths),
            "answer_token_index": np.repeat([index for _, index, _ in answers], depths),
            "readout": np.tile(np.arange(-1, depths - 1), len(answers)),
            "position": np.repeat(_numpy(positions), depths),
            "log_prob_mismatched": _numpy(mismatched).ravel(),
            **{one.name: _numpy(getattr(found, one.name)) for one in fields(found)},
        }
        return columns, self._lens_error(error, own)

    def _lens_error(self, difference: Tensor, own: Tensor) -> float:
        """The lens after the last block must be the model's own readout: otherwise it reads something else."""
        error = float(difference / own.float().abs().max().clamp(min=1e-6))
        bound = COMPLETENESS_BOUND[self.request.settings.dtype]
        if not error <= bound:
            raise UserError(
                f"checkpoint {self.request.checkpoint.name!r} is refused: the logit lens after the last block differs "
                f"from the model's logits by {error:.2g} (bound {bound:g})"
            )
        return error

    @property
    def degenerate_share(self) -> float:
        """Share of sums whose route ends there, at the τ where it is largest."""
        return max(self.degenerate_sums) / self.sums


def _residual_ids(model: LoadedModel) -> list[str]:
    """The residual parts of each sum, then the attention's biases, as `Measurement._contributions` numbers them."""
    residuals = ("RA",) if model.is_parallel else ("RA", "RF")
    layers = range(model.layer_count)
    return [f"L{layer}{kind}" for layer in layers for kind in residuals] + [f"L{layer}BA" for layer in layers]


def _part_elements(request: ExtractionRequest, prompts: Sequence[Prompt]) -> int:
    """Coordinates of every head's part for every query and key, in all layers of all prompts."""
    shape = request.checkpoint.architecture
    pairs = sum(len(prompt.token_ids) * (len(prompt.token_ids) + 1) // 2 for prompt in prompts)
    return pairs * int(shape["layer_count"] * shape["head_count"] * shape["hidden_size"])


def _padded(
    prompts: Sequence[Prompt | MismatchedPrompt], device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Token ids and attention mask [B, n], padded on the right; row and position [P] of what predicts the answers."""
    length = max(len(prompt.token_ids) for prompt in prompts)
    ids = torch.zeros(len(prompts), length, dtype=torch.long)
    mask = torch.zeros(len(prompts), length, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt.token_ids)] = torch.tensor(prompt.token_ids)
        mask[row, : len(prompt.token_ids)] = 1
    rows = torch.tensor([row for row, prompt in enumerate(prompts) for _ in prompt.predicting_positions])
    positions = torch.tensor([position for prompt in prompts for position in prompt.predicting_positions])
    return ids.to(device), mask.to(device), rows.to(device), positions.to(device)


def _stacked(scores: Sequence[ComponentScores]) -> ComponentScores:
    """One [L, B, n, C] tensor per field from L layers' scores."""
    by_key = [layer.by_key for layer in scores if layer.by_key is not None]
    return ComponentScores(
        **{
            name: torch.stack([getattr(layer, name) for layer in scores])
            for name in ("score", "peak", "edges", "direct")
        },
        by_key=torch.stack(by_key) if by_key else None,
    )


def _key_group(role: str) -> int:
    return KEY_GROUPS.index(role) if role in KEY_GROUPS else KEY_GROUPS.index("template")


def _numpy(tensor: Tensor) -> "np.ndarray[Any, Any]":
    return tensor.cpu().numpy()
