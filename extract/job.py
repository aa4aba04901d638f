"""One extraction: a checkpoint's weights in, six raw tables out.

1. load the tokenizer and lay the facts out as prompts; 2. load the model; 3. per batch of prompts of like length: a
plain forward pass with mismatched subjects, and one with contributions computed as each layer finishes, then routes for
every target and every τ, then the readouts; 4. check completeness and the lens against the model itself; 5. write the
tables. While the tables of one checkpoint are written, the next one can be measured.
"""

import json
import logging
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from timecourse.errors import MachineError, UserError
from timecourse.extract.activations import unread_attention
from timecourse.extract.contributions import multiplying_in
from timecourse.extract.facts import facts_sha256
from timecourse.extract.identity import EXTRACTOR_VERSION, ExtractionRequest
from timecourse.extract.loading import LoadedModel, available_device, first_line, load_model, load_tokenizer
from timecourse.extract.measurement import Measurement
from timecourse.extract.memory import MemoryPlan, free_memory, memory_limit, memory_plan, plan_row
from timecourse.extract.out_of_memory import is_out_of_memory
from timecourse.extract.parts import WHOLE, Part, prompts_of_part, write_counts
from timecourse.extract.prompts import Prompt, build_prompts
from timecourse.extract.raw import SCHEMA_VERSION, write_table
from timecourse.extract.tables import MeasuredTables

SMALL_MODEL_PARAMETERS = 20_000_000
"""Below this one thread is faster than several: the work per operation is too small to share."""


@dataclass(frozen=True)
class Machine:
    """How the job runs; nothing here changes what is measured.

    device: auto, cpu, cuda, split. batch_size: prompts per forward pass; None for as many as fit into memory_gb.
    threads: 0 for as many as suit the model's size. memory_gb: None for most of what is free.
    """

    device: str = "auto"
    batch_size: int | None = None
    threads: int = 0
    memory_gb: float | None = None


def prompts_of(request: ExtractionRequest) -> list[Prompt]:
    """The facts as this checkpoint's tokenizer writes them. Raises UserError; see build_prompts."""
    checkpoint, chat_template = request.checkpoint, request.settings.chat_template
    return build_prompts(request.relations, load_tokenizer(checkpoint), checkpoint.context_length, chat_template)


@dataclass(frozen=True)
class Measured:
    """What was measured of a checkpoint, or of a part of its prompts; its model is not held."""

    tables: MeasuredTables
    checkpoint: dict[str, Any]
    seconds: dict[str, float]
    degenerate_sums: Sequence[int]
    sums: int
    part: Part

    def write(self, directory: Path) -> dict[str, int]:
        """Write the raw tables into `directory`; rows by table."""
        with _timed(self.seconds, "write"):
            rows = self.tables.write(directory)
        spent = json.dumps({phase: round(seconds, 3) for phase, seconds in self.seconds.items()})
        row = {name: [value] for name, value in (self.checkpoint | {"seconds_by_phase": spent}).items()}
        rows["checkpoint"] = write_table(directory, "checkpoint", row)
        if self.part != WHOLE:
            write_counts(directory, self.degenerate_sums, self.sums)
        return rows


def measure(
    request: ExtractionRequest,
    machine: Machine,
    progress: Callable[[int], None] = lambda _: None,
    part: Part = WHOLE,
) -> Measured:
    """Measure one checkpoint, or a part of its prompts.

    `progress` is called with the number of prompts just finished. Raises UserError for what the user can mend: a prompt
    that does not fit, weights that do not fit their config, a checkpoint that misses the completeness bound.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    seconds: dict[str, float] = {}
    with _timed(seconds, "prompts"):
        prompts = prompts_of(request)
    device = available_device(machine.device)
    free = free_memory(device)
    with _timed(seconds, "load"):
        model = load_model(request.checkpoint, request.settings.dtype, device, request.settings.attention)
    threads = machine.threads or _threads_for(model)
    # factors as they are, also where the environment lets a GPU shorten them (TF32)
    with _timed(seconds, "measure"), _threads(threads), multiplying_in("highest"), torch.inference_mode():
        _run_once(request, model, prompts)
        measurement = Measurement(request, model, prompts)
        plan = _plan(request, machine, free, _bytes(model))
        taken = plan_row(plan, prompts, machine.batch_size)
        if machine.memory_gb is not None and taken["peak_gb"] > machine.memory_gb:
            raise MachineError(
                f"memory_gb is {machine.memory_gb:g}, but {request.checkpoint.name!r} with {taken['batch']} prompts of "
                f"{taken['tokens']} tokens takes {taken['peak_gb']:.3g} GB; raise it"
            )
        _measure(measurement, plan.batches(prompts_of_part(prompts, part), machine.batch_size), progress)
    return Measured(
        measurement.tables,
        _checkpoint_row(request, model, measurement, device),
        seconds,
        measurement.degenerate_sums,
        measurement.sums,
        part,
    )


def extract(request: ExtractionRequest, directory: Path, machine: Machine) -> dict[str, int]:
    """Measure one checkpoint and write its raw tables into `directory`; rows by table. Raises what `measure` does."""
    return measure(request, machine).write(directory)


def memory_row(request: ExtractionRequest, machine: Machine) -> dict[str, Any]:
    """What an extraction will take, as far as the config says, in gigabytes. Raises UserError as `extract` does."""
    plan = _plan(request, machine, free_memory(available_device(machine.device)))
    return plan_row(plan, prompts_of(request), machine.batch_size)


def _run_once(request: ExtractionRequest, model: LoadedModel, prompts: Sequence[Prompt]) -> None:
    """The shortest prompt through the model alone. Raises UserError where the library itself cannot run it."""
    ids = torch.tensor([min((prompt.token_ids for prompt in prompts), key=len)], device=model.device)
    try:
        with unread_attention(model.network):
            model.network(input_ids=ids, use_cache=False)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise _too_long(request, ids.shape[1]) from error
        raise UserError(
            f"checkpoint {request.checkpoint.name!r} cannot be run: transformers says {first_line(error)!r}"
        ) from error


def _plan(request: ExtractionRequest, machine: Machine, free: int, weights: int | None = None) -> MemoryPlan:
    plan = memory_plan(request.checkpoint, request.settings.dtype, weights)
    return replace(plan, limit=memory_limit(machine.memory_gb, free, plan.weights))


def _measure(measured: Measurement, batches: Iterable[list[Prompt]], progress: Callable[[int], None]) -> None:
    """Measure every batch; one that does not fit into memory is halved, and so are those after it.

    Raises MachineError where a single prompt does not fit.
    """
    coming = list(batches)[::-1]
    while coming:
        batch = coming.pop()
        try:
            measured.add(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise _too_long(measured.request, len(batch[0].token_ids)) from error
            logging.getLogger("timecourse.run").info(
                "out of memory", extra={"checkpoint": measured.request.checkpoint_id, "prompts": len(batch)}
            )
        else:
            progress(len(batch))
            continue
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        at_most = (len(batch) + 1) // 2
        again = [one[at : at + at_most] for one in [batch, *coming[::-1]] for at in range(0, len(one), at_most)]
        coming = again[::-1]


def _too_long(request: ExtractionRequest, tokens: int) -> MachineError:
    return MachineError(
        f"a prompt of {tokens} tokens does not fit into memory beside the weights of {request.checkpoint.name!r}"
    )


@contextmanager
def loaded(request: ExtractionRequest, machine: Machine) -> Iterator[LoadedModel]:
    """The checkpoint's model, with as many threads as suit it. Raises UserError; see load_model."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    device = available_device(machine.device)
    model = load_model(request.checkpoint, request.settings.dtype, device, request.settings.attention)
    with _threads(machine.threads or _threads_for(model)), multiplying_in("highest"):
        yield model


def _parameter_count(model: LoadedModel) -> int:
    return sum(parameter.numel() for parameter in model.network.parameters())


def _bytes(model: LoadedModel) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.network.parameters())


def _threads_for(model: LoadedModel) -> int:
    return 1 if _parameter_count(model) < SMALL_MODEL_PARAMETERS else torch.get_num_threads()


def _checkpoint_row(
    request: ExtractionRequest,
    model: LoadedModel,
    measured: Measurement,
    device: str,
) -> dict[str, Any]:
    checkpoint = request.checkpoint
    versions = {
        name: version(name) for name in ("timecourse", "torch", "transformers", "tokenizers", "numpy", "pyarrow")
    }
    return {
        "extraction_id": request.extraction_id,
        "schema_version": SCHEMA_VERSION,
        "series_id": request.series_id,
        "checkpoint_id": request.checkpoint_id,
        "checkpoint_name": checkpoint.name,
        "model": request.series_id,
        "commit_sha": checkpoint.commit_sha,
        "phase": checkpoint.place.phase,
        "stage": checkpoint.place.stage,
        "branch": checkpoint.place.branch,
        "step": checkpoint.place.step,
        "tokens_reported": checkpoint.place.tokens_reported,
        "tokens_computed": checkpoint.tokens_computed,
        "weights_sha256": checkpoint.weights_sha256,
        "facts_sha256": facts_sha256(request.relations),
        "tokenizer_sha256": checkpoint.tokenizer_sha256,
        **checkpoint.architecture,
        "vocabulary_size": int(model.config.vocab_size),
        "parameter_count": _parameter_count(model),
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
    }


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
