"""One extraction: a checkpoint's weights in, six raw tables out.

1. load the tokenizer and lay the facts out as prompts; 2. load the model; 3. per batch of prompts of like length: one
forward pass, with contributions computed as each layer finishes, then routes for every target and every τ, then the
readouts; 4. check completeness and the lens against the model itself; 5. write the tables.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from timecourse.errors import UserError
from timecourse.extract.checkpoints.directory import Checkpoint
from timecourse.extract.contributions import LayerContributions, Norm, layer_contributions
from timecourse.extract.facts import facts_sha256
from timecourse.extract.families.base import (
    Family,
    LayerActivations,
    module_at,
    reading_layers,
    use_capturing_attention,
)
from timecourse.extract.identity import EXTRACTOR_VERSION, ExtractionRequest, tau_value
from timecourse.extract.predictions import read_out
from timecourse.extract.prompts import Prompt, answer_candidates, build_prompts
from timecourse.extract.raw import SCHEMA_VERSION, write_table
from timecourse.extract.routes import KEY_GROUPS, ComponentScores, walk_routes

COMPLETENESS_BOUND = {"float32": 1e-4, "float16": 2e-3, "bfloat16": 2e-2}
"""Largest ‖Σp − stream‖₁ / ‖stream‖₁ that is accepted, by dtype (method: section 2)."""
SMALL_MODEL_PARAMETERS = 20_000_000
"""Below this one thread is faster than several: the work per operation is too small to share."""


@dataclass(frozen=True)
class Machine:
    """How the job runs; nothing here changes what is measured. `device` is auto, cpu, cuda, ...; threads 0 = by size."""

    device: str = "auto"
    batch_size: int = 32
    threads: int = 0


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


class _Model:
    """A loaded checkpoint with the modules that are read."""

    def __init__(self, checkpoint: Checkpoint, dtype: str, device: str) -> None:
        self.family: Family = checkpoint.family
        self.device = torch.device(device)
        self.network = _load_network(checkpoint, dtype).to(self.device)
        self.config = self.network.config
        use_capturing_attention(self.network)
        self.final_norm = module_at(self.network, self.family.final_norm)
        self.unembedding = module_at(self.network, self.family.unembedding)
        self.layer_count = int(self.config.num_hidden_layers)
        self.head_count = int(self.config.num_attention_heads)
        self.component_ids = [
            f"L{layer}{'F' if part == self.head_count else f'H{part}'}"
            for layer in range(self.layer_count)
            for part in range(self.head_count + 1)
        ]


def _load_network(checkpoint: Checkpoint, dtype: str) -> nn.Module:
    try:
        network, report = AutoModelForCausalLM.from_pretrained(
            checkpoint.path,
            dtype=getattr(torch, dtype),
            attn_implementation="eager",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's or the system's own error, not the checkpoint's
        raise UserError(f"checkpoint {checkpoint.name!r} cannot be loaded: {_first_line(error)}") from error
    for what in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        # a missing weight would be filled with random numbers, and every number after it would look right
        if names := sorted(map(str, report[what])):
            raise UserError(
                f"checkpoint {checkpoint.name!r} does not fit its config: {len(names)} {what.replace('_', ' ')}, "
                f"such as {names[0]!r}"
            )
    assert isinstance(network, nn.Module)
    return network.eval()


def load_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerFast:
    """The checkpoint's fast tokenizer. Raises UserError where there is none."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the library raises whatever the file's parser raised
        raise UserError(f"checkpoint {checkpoint.name!r}: the tokenizer cannot be loaded: {_first_line(error)}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"checkpoint {checkpoint.name!r}: the tokenizer gives no character offsets (not a fast one)")
    return tokenizer


def prompts_of(request: ExtractionRequest) -> list[Prompt]:
    """The facts as this checkpoint's tokenizer writes them. Raises UserError; see build_prompts."""
    context_length = int(request.checkpoint.config.get("max_position_embeddings") or 2**31)
    return build_prompts(request.relations, load_tokenizer(request.checkpoint), context_length)


def extract(
    request: ExtractionRequest, directory: Path, machine: Machine, progress: Callable[[int], None] = lambda _: None
) -> dict[str, int]:
    """Measure one checkpoint and write its raw tables into `directory`; returns rows by table.

    `progress` is called with the number of prompts just finished. Raises UserError for what the user can mend: a prompt
    that does not fit, weights that do not fit their config, a checkpoint that misses the completeness bound.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    seconds: dict[str, float] = {}
    with _timed(seconds, "prompts"):
        prompts = prompts_of(request)
    device = _device(machine.device)
    with _timed(seconds, "load"):
        model = _Model(request.checkpoint, request.settings.dtype, device)
    parameter_count = sum(parameter.numel() for parameter in model.network.parameters())
    threads = machine.threads or (1 if parameter_count < SMALL_MODEL_PARAMETERS else os.cpu_count() or 1)
    with _timed(seconds, "measure"), _threads(threads), torch.inference_mode():
        measured = _Measurement(request, model, prompts)
        by_length = sorted(prompts, key=lambda prompt: len(prompt.token_ids))
        for start in range(0, len(by_length), machine.batch_size):
            batch = by_length[start : start + machine.batch_size]
            measured.add(batch)
            progress(len(batch))
    with _timed(seconds, "write"):
        rows = measured.write(directory)
    rows["checkpoint"] = write_table(
        directory, "checkpoint", _checkpoint_row(request, model, measured, parameter_count, device, seconds)
    )
    return rows


class _Measurement:
    """Collects the raw tables of one checkpoint, batch by batch."""

    def __init__(self, request: ExtractionRequest, model: _Model, prompts: Sequence[Prompt]) -> None:
        self.request = request
        self.model = model
        self.prompts = prompts
        self.taus = [tau_value(tau, model.head_count) for tau in request.settings.taus]
        self.candidates = answer_candidates(prompts)
        self.attributions, self.contributions, self.predictions = _Columns(), _Columns(), _Columns()
        self.completeness_error = 0.0
        self.lens_error = 0.0
        self.degenerate_sums = [0] * len(self.taus)
        self.sums = 0

    def add(self, batch: Sequence[Prompt]) -> None:
        """One forward pass over prompts of like length, padded on the right."""
        device = self.model.device
        length = max(len(prompt.token_ids) for prompt in batch)
        ids = torch.zeros(len(batch), length, dtype=torch.long)
        mask = torch.zeros(len(batch), length, dtype=torch.long)
        targets = torch.zeros(len(batch), length, dtype=torch.bool)
        key_groups = torch.full((len(batch), length), -1)
        for row, prompt in enumerate(batch):
            count = len(prompt.token_ids)
            ids[row, :count] = torch.tensor(prompt.token_ids)
            mask[row, :count] = 1
            targets[row, :count] = torch.tensor([role != "special" for role in prompt.roles])
            key_groups[row, :count] = torch.tensor([_key_group(role) for role in prompt.roles])
            key_groups[row, 0] = KEY_GROUPS.index("first")
        ids, mask, targets, key_groups = (tensor.to(device) for tensor in (ids, mask, targets, key_groups))
        rows = torch.tensor([row for row, prompt in enumerate(batch) for _ in prompt.predicting_positions], device=device)
        positions = torch.tensor([at for prompt in batch for at in prompt.predicting_positions], device=device)

        layers: list[LayerContributions] = []
        streams: list[Tensor] = []
        norm: Norm = "l2" if self.request.settings.norm == "l2" else "l1"

        def receive(index: int, activations: LayerActivations) -> None:
            layers.append(layer_contributions(activations, norm))
            if index == 0:
                streams.append(activations.residual_before[rows, positions])
            streams.append(activations.residual_after[rows, positions])

        with reading_layers(self.model.network, self.model.family, receive):
            logits = self.model.network(input_ids=ids, attention_mask=mask, use_cache=False).logits
        self._check_completeness(layers, mask.bool())
        prompt_ids = np.array([prompt.prompt_id for prompt in batch])
        self._add_attributions(prompt_ids, layers, mask.bool(), targets, key_groups)
        self._add_contributions(prompt_ids, layers, rows, positions)
        self._add_predictions(batch, streams, logits[rows, positions], positions)

    def _check_completeness(self, layers: Sequence[LayerContributions], present: Tensor) -> None:
        dtype = self.request.settings.dtype
        for index, layer in enumerate(layers):
            for name, part in (("attention", layer.attention), ("FFN", layer.feed_forward)):
                errors = part.completeness_error[present]
                worst = float(errors.max()) if bool(errors.isfinite().all()) else float("inf")
                if not worst <= COMPLETENESS_BOUND[dtype]:
                    raise UserError(
                        f"checkpoint {self.request.checkpoint.name!r} is refused: the parts of layer {index}'s {name} sum "
                        f"miss the stream by {worst:.2g} (bound for {dtype}: {COMPLETENESS_BOUND[dtype]:g})"
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
        self.sums += 2 * len(layers) * int(present.sum())
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
        width = len(self.model.component_ids)
        at = (rows, positions)
        values, norms = [], []
        for layer in layers:
            assert layer.attention.heads is not None and layer.feed_forward.feed_forward is not None
            values += [layer.attention.heads.sum(2)[at], layer.feed_forward.feed_forward[at][:, None]]
        for layer in layers:
            values += [layer.attention.residual[at][:, None], layer.feed_forward.residual[at][:, None]]
            norms += [layer.attention.stream_norm[at], layer.feed_forward.stream_norm[at]]
        direct = torch.cat(values, dim=1)
        stream_norm = torch.cat([torch.full((len(rows), width), torch.nan, device=direct.device), torch.stack(norms, 1)], 1)
        predicting, part_count = direct.shape
        self.contributions.add(
            prompt_id=np.repeat(prompt_ids[_numpy(rows)], part_count),
            position=np.repeat(_numpy(positions), part_count),
            component_id=np.tile(np.arange(part_count), predicting),
            c_direct=_numpy(direct).ravel(),
            stream_norm=_numpy(stream_norm).ravel(),
        )

    def _add_predictions(self, batch: Sequence[Prompt], streams: list[Tensor], logits: Tensor, positions: Tensor) -> None:
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
        for readout in range(-1, self.model.layer_count + 1):
            is_own = readout == self.model.layer_count
            read_logits = logits if is_own else self.model.unembedding(self.model.final_norm(streams[readout + 1]))
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
                f"checkpoint {self.request.checkpoint.name!r} is refused: the logit lens after the last block differs from "
                f"the model's logits by {error:.2g} (bound {bound:g})"
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
        with_residuals = names + [f"L{layer}{kind}" for layer in range(self.model.layer_count) for kind in ("RA", "RF")]
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
                "component_id": _named(contributions["component_id"], with_residuals),
                "stream_norm": _nullable(contributions["stream_norm"]),
            },
            "predictions": {**predictions, "top1_token": [top1[int(token)] for token in predictions["top1_token_id"]]},
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
        for position, (token_id, token, role) in enumerate(zip(prompt.token_ids, prompt.tokens, prompt.roles, strict=True))
    ]
    names = ("prompt_id", "position", "token_id", "token", "span_role", "is_answer_predicting", "is_special")
    return {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def _checkpoint_row(
    request: ExtractionRequest,
    model: _Model,
    measured: _Measurement,
    parameter_count: int,
    device: str,
    seconds: dict[str, float],
) -> dict[str, list[Any]]:
    checkpoint = request.checkpoint
    versions = {name: version(name) for name in ("timecourse", "torch", "transformers", "tokenizers", "numpy", "pyarrow")}
    row = {
        "extraction_id": request.extraction_id,
        "schema_version": SCHEMA_VERSION,
        "series_id": request.series_id,
        "checkpoint_id": request.checkpoint_id,
        "checkpoint_name": checkpoint.name,
        "model": request.series_id,
        "commit_sha": None,
        "phase": "pretraining",
        "stage": None,
        "branch": "main",
        "step": checkpoint.step,
        "tokens_reported": checkpoint.named_step.tokens_reported,
        "tokens_computed": checkpoint.tokens_computed,
        "weights_sha256": checkpoint.weights_sha256,
        "facts_sha256": facts_sha256(request.relations),
        "tokenizer_sha256": checkpoint.tokenizer_sha256,
        "family": model.family.name,
        "topology": model.family.topology,
        "layer_count": model.layer_count,
        "head_count": model.head_count,
        "kv_head_count": int(getattr(model.config, "num_key_value_heads", None) or model.head_count),
        "hidden_size": int(model.config.hidden_size),
        "vocabulary_size": int(model.config.vocab_size),
        "parameter_count": parameter_count,
        "setting_id": request.setting_id,
        "tau_ids": list(request.settings.taus),
        "taus": measured.taus,
        "norm": request.settings.norm,
        "dtype": request.settings.dtype,
        "device": device,
        "completeness_error_max": measured.completeness_error,
        "lens_error_max": measured.lens_error,
        "degenerate_share": measured.degenerate_share,
        "prompt_count": len(measured.prompts),
        "extractor_version": EXTRACTOR_VERSION,
        "versions": json.dumps({"python": platform.python_version(), **versions}),
        "seconds_by_phase": json.dumps({phase: round(spent, 3) for phase, spent in seconds.items()}),
    }
    return {name: [value] for name, value in row.items()}


def _stacked(scores: Sequence[ComponentScores]) -> ComponentScores:
    """One [L, B, n, C] tensor per field from L layers' scores."""
    by_key = [layer.by_key for layer in scores if layer.by_key is not None]
    return ComponentScores(
        **{name: torch.stack([getattr(layer, name) for layer in scores]) for name in ("score", "peak", "edges", "direct")},
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


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return str(torch.empty(0, device=wanted).device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {wanted!r} is not available here: {_first_line(error)}") from error


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[phase] = seconds.get(phase, 0.0) + time.perf_counter() - start


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
