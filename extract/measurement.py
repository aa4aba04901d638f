"""The measurement of one checkpoint, batch by batch: from tokens to the columns of the raw tables.

Per batch of prompts of like length: one forward pass, with contributions computed as each layer finishes, so that no
more than one layer's activations exist; then routes for every target and every τ; then the readouts of every answer
token. Before it a plain forward pass over the same prompts with mismatched subjects, for the answers' log-probability
there.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from timecourse.errors import UserError
from timecourse.extract.activations import LayerActivations, reading_layers, unread_attention
from timecourse.extract.contributions import LayerContributions, Norm, layer_contributions
from timecourse.extract.identity import ExtractionRequest
from timecourse.extract.loading import LoadedModel, load_tokenizer
from timecourse.extract.predictions import log_probabilities, read_out
from timecourse.extract.prompts import MismatchedPrompt, Prompt, answer_candidates, mismatched_prompts
from timecourse.extract.raw import write_table
from timecourse.extract.routes import KEY_GROUPS, ComponentScores, walk_routes

COMPLETENESS_BOUND = {"float32": 1e-4, "float16": 2e-3, "bfloat16": 2e-2}
"""Largest ‖Σp − stream‖₁ / ‖stream‖₁ that is accepted, by dtype (method: section 2)."""


@dataclass
class _Columns:
    """Columns of one raw table, collected batch by batch."""

    chunks: dict[str, list[np.ndarray[Any, Any]]] = field(default_factory=dict)

    def add(self, **columns: Any) -> None:
        for name, values in columns.items():
            self.chunks.setdefault(name, []).append(np.asarray(values))

    def joined(self, sorted_by: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
        """All columns, rows sorted by the named ones."""
        whole = {name: np.concatenate(parts) for name, parts in self.chunks.items()}
        order = np.lexsort([whole[name] for name in reversed(sorted_by)])
        return {name: values[order] for name, values in whole.items()}


class Measurement:
    """Collects the raw tables of one checkpoint, batch by batch."""

    def __init__(self, request: ExtractionRequest, model: LoadedModel, prompts: Sequence[Prompt]) -> None:
        self.request = request
        self.model = model
        self.prompts = prompts
        self.taus = request.taus
        self.candidates = answer_candidates(prompts)
        self.mismatched = mismatched_prompts(prompts, request.checkpoint.context_length)
        self.attributions, self.contributions, self.predictions = _Columns(), _Columns(), _Columns()
        self.completeness_error = 0.0
        self.lens_error = 0.0
        self.degenerate_sums = [0] * len(self.taus)
        self.sums = 0

    def add(self, batch: Sequence[Prompt]) -> None:
        """Measure prompts of like length; `batch` is one forward pass, and one more with mismatched subjects."""
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
        targets, key_groups = targets.to(device), key_groups.to(device)

        layers: list[LayerContributions] = []
        streams: list[Tensor] = []
        norm: Norm = "l2" if self.request.settings.norm == "l2" else "l1"

        def receive(index: int, activations: LayerActivations) -> None:
            layers.append(layer_contributions(activations, norm).to(device))
            if index == 0:
                streams.append(activations.residual_before.to(device)[rows, positions])
            streams.append(activations.residual_after.to(device)[rows, positions])

        with reading_layers(self.model.network, self.model.family, receive):
            logits = self.model.network(input_ids=ids, attention_mask=mask, use_cache=False).logits.to(device)
        self._check_completeness(layers, mask.bool())
        prompt_ids = np.array([prompt.prompt_id for prompt in batch])
        self._add_attributions(prompt_ids, layers, mask.bool(), targets, key_groups)
        self._add_contributions(prompt_ids, layers, rows, positions)
        self._add_predictions(batch, streams, logits[rows, positions], positions, log_probs_mismatched)

    def _log_probs_mismatched(self, batch: Sequence[Prompt]) -> Tensor:
        """Log-probability of every answer token after the mismatched subject, [P]; NaN where there is none."""
        has_one = [prompt.prompt_id in self.mismatched for prompt in batch for _ in prompt.answer_positions]
        found = torch.full((len(has_one),), torch.nan, device=self.model.device)
        mismatched = [self.mismatched[prompt.prompt_id] for prompt in batch if prompt.prompt_id in self.mismatched]
        if mismatched:
            ids, mask, rows, positions = _padded(mismatched, self.model.device)
            with unread_attention(self.model.network):
                logits = self.model.network(input_ids=ids, attention_mask=mask, use_cache=False).logits
            logits = logits.to(self.model.device)[rows, positions]
            found[torch.tensor(has_one, device=found.device)] = log_probabilities(logits, ids[rows, positions + 1])
        return found

    def _check_completeness(self, layers: Sequence[LayerContributions], present: Tensor) -> None:
        dtype = self.request.settings.dtype
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
                self.completeness_error = max(self.completeness_error, worst)

    def _add_attributions(
        self,
        prompt_ids: "np.ndarray[Any, Any]",
        layers: Sequence[LayerContributions],
        present: Tensor,
        targets: Tensor,
        key_groups: Tensor,
    ) -> None:
        self.sums += sum(len(layer.sums) for layer in layers) * int(present.sum())
        for tau_index, tau in enumerate(self.taus):
            routes = walk_routes(layers, tau, targets, key_groups)
            self.degenerate_sums[tau_index] += int(routes.degenerate_sums[present].sum())
            kinds = [_stacked([layer[kind] for layer in routes.layers]) for kind in (0, 1)]
            edges = torch.cat([kind.edges for kind in kinds], dim=-1)
            layer, row, target, part = edges.nonzero(as_tuple=True)
            is_head = part < self.model.head_count
            columns = {
                name: _numpy(torch.cat([getattr(kind, name) for kind in kinds], dim=-1)[layer, row, target, part])
                for name in ("score", "peak", "direct")
            }
            by_key = kinds[0].by_key
            assert by_key is not None
            split = torch.full((len(part), len(KEY_GROUPS)), torch.nan, device=by_key.device)
            split[is_head] = by_key[layer[is_head], row[is_head], target[is_head], part[is_head]]
            self.attributions.add(
                tau_id=np.full(len(part), tau_index),
                prompt_id=prompt_ids[_numpy(row)],
                position=_numpy(target),
                component_id=_numpy(layer * (self.model.head_count + 1) + part),
                score=columns["score"],
                peak=columns["peak"],
                edges=_numpy(edges[layer, row, target, part]),
                score_direct=columns["direct"],
                **{f"score_{group}": _numpy(split[:, index]) for index, group in enumerate(KEY_GROUPS)},
            )

    def _add_contributions(
        self, prompt_ids: "np.ndarray[Any, Any]", layers: Sequence[LayerContributions], rows: Tensor, positions: Tensor
    ) -> None:
        at = (rows, positions)
        shares: list[Tensor] = []
        norms: dict[int, Tensor] = {}
        for layer in layers:
            assert layer.attention.heads is not None
            shares += [*layer.attention.heads.sum(2)[at].unbind(1), layer.feed_forward_part[at]]
        for layer in layers:
            for part in layer.sums:
                norms[len(shares)] = part.stream_norm[at]
                shares.append(part.residual[at])
        shares += [layer.attention.bias[at] for layer in layers if layer.attention.bias is not None]
        direct = torch.stack(shares, 1)
        no_norm = torch.full_like(shares[0], torch.nan)
        stream_norm = torch.stack([norms.get(index, no_norm) for index in range(len(shares))], 1)
        predicting, part_count = direct.shape
        self.contributions.add(
            prompt_id=np.repeat(prompt_ids[_numpy(rows)], part_count),
            position=np.repeat(_numpy(positions), part_count),
            component_id=np.tile(np.arange(part_count), predicting),
            c_direct=_numpy(direct).ravel(),
            stream_norm=_numpy(stream_norm).ravel(),
        )

    def _add_predictions(
        self,
        batch: Sequence[Prompt],
        streams: list[Tensor],
        logits: Tensor,
        positions: Tensor,
        log_probs_mismatched: Tensor,
    ) -> None:
        answers = [
            (prompt, index, prompt.token_ids[position])
            for prompt in batch
            for index, position in enumerate(prompt.answer_positions)
        ]
        choices = [self.candidates[prompt.relation.relation_id, index] for prompt, index, _ in answers]
        widest = max(map(len, choices))
        token_ids = torch.tensor([token for _, _, token in answers], device=logits.device)
        candidates = torch.tensor(
            [choice + [token] * (widest - len(choice)) for choice, (_, _, token) in zip(choices, answers, strict=True)],
            device=logits.device,
        )
        unmeasured = torch.full_like(log_probs_mismatched, torch.nan)
        for readout in range(-1, self.model.layer_count + 1):
            is_own = readout == self.model.layer_count
            read_logits = logits if is_own else self.model.read_stream(streams[readout + 1])
            if readout == self.model.layer_count - 1:
                self._check_lens(read_logits, logits)
            read = read_out(read_logits, token_ids, candidates)
            self.predictions.add(
                prompt_id=[prompt.prompt_id for prompt, _, _ in answers],
                answer_token_index=[index for _, index, _ in answers],
                readout=np.full(len(answers), readout),
                position=_numpy(positions),
                rank=_numpy(read.rank),
                log_prob=_numpy(read.log_prob),
                log_prob_mismatched=_numpy(log_probs_mismatched if is_own else unmeasured),
                top1_token_id=_numpy(read.top1_token_id),
                entropy=_numpy(read.entropy),
                rank_in_relation=_numpy(read.rank_in_relation),
            )

    def _check_lens(self, lens: Tensor, own: Tensor) -> None:
        """The lens after the last block must be the model's own readout: otherwise it reads something else."""
        error = float((lens - own).float().abs().max() / own.float().abs().max().clamp(min=1e-6))
        bound = COMPLETENESS_BOUND[self.request.settings.dtype]
        if not error <= bound:
            raise UserError(
                f"checkpoint {self.request.checkpoint.name!r} is refused: the logit lens after the last block differs "
                f"from the model's logits by {error:.2g} (bound {bound:g})"
            )
        self.lens_error = max(self.lens_error, error)

    @property
    def degenerate_share(self) -> float:
        """Share of sums whose route ends there, at the τ where it is largest."""
        return max(self.degenerate_sums) / self.sums

    def write(self, directory: Path) -> dict[str, int]:
        """Write the five tables below the checkpoint's; returns rows by table."""
        extraction_id = self.request.extraction_id
        names = self.model.component_ids
        layers = range(self.model.layer_count)
        residuals = ("RA",) if self.model.is_parallel else ("RA", "RF")
        parts = (
            names + [f"L{layer}{kind}" for layer in layers for kind in residuals] + [f"L{layer}BA" for layer in layers]
        )
        attributions = self.attributions.joined(["tau_id", "prompt_id", "position", "component_id"])
        contributions = self.contributions.joined(["prompt_id", "position", "component_id"])
        predictions = self.predictions.joined(["prompt_id", "answer_token_index", "readout"])
        tokenizer = load_tokenizer(self.request.checkpoint)
        top1 = {int(token): tokenizer.decode([int(token)]) for token in np.unique(predictions["top1_token_id"])}
        tables: dict[str, dict[str, Any]] = {
            "prompts": _prompt_columns(self.prompts),
            "prompt_tokens": _prompt_token_columns(self.prompts),
            "attributions": {
                **attributions,
                "tau_id": _named(attributions["tau_id"], self.request.settings.taus),
                "component_id": _named(attributions["component_id"], names),
                **{f"score_{group}": _nullable(attributions[f"score_{group}"]) for group in KEY_GROUPS},
            },
            "contributions": {
                **contributions,
                "component_id": _named(contributions["component_id"], parts),
                "stream_norm": _nullable(contributions["stream_norm"]),
            },
            "predictions": {
                **predictions,
                "top1_token": [top1[int(token)] for token in predictions["top1_token_id"]],
                "log_prob_mismatched": _nullable(predictions["log_prob_mismatched"]),
            },
        }
        rows = {}
        for table, columns in tables.items():
            count = len(next(iter(columns.values())))
            everywhere = _named(np.zeros(count, dtype=np.int32), [extraction_id])
            rows[table] = write_table(directory, table, {"extraction_id": everywhere, **columns})
        return rows


def _prompt_columns(prompts: Sequence[Prompt]) -> dict[str, list[Any]]:
    return {
        "prompt_id": [prompt.prompt_id for prompt in prompts],
        "relation_id": [prompt.relation.relation_id for prompt in prompts],
        "relation_group": [prompt.relation.group for prompt in prompts],
        "template_id": [prompt.template_id for prompt in prompts],
        "template": [prompt.relation.prompt_templates[prompt.template_id] for prompt in prompts],
        "fact_id": [prompt.relation.fact_id(prompt.fact) for prompt in prompts],
        "subject": [prompt.fact.subject for prompt in prompts],
        "object": [prompt.fact.object for prompt in prompts],
        "covariates": [json.dumps(prompt.fact.covariates) if prompt.fact.covariates else None for prompt in prompts],
    }


def _prompt_token_columns(prompts: Sequence[Prompt]) -> dict[str, list[Any]]:
    rows = [
        (prompt.prompt_id, position, token_id, token, role, position in predicting, role == "special")
        for prompt in prompts
        for predicting in [set(prompt.predicting_positions)]
        for position, (token_id, token, role) in enumerate(
            zip(prompt.token_ids, prompt.tokens, prompt.roles, strict=True)
        )
    ]
    names = ("prompt_id", "position", "token_id", "token", "span_role", "is_answer_predicting", "is_special")
    return {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


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


def _named(codes: "np.ndarray[Any, Any]", names: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes, type=pa.int32()), pa.array(names, type=pa.string()))


def _nullable(values: "np.ndarray[Any, Any]") -> pa.Array:
    return pa.array(values, mask=np.isnan(values))


def _numpy(tensor: Tensor) -> "np.ndarray[Any, Any]":
    return tensor.cpu().numpy()
