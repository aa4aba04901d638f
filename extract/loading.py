"""Loading one checkpoint: its network, ready to be read, and its tokenizer."""

import importlib.util
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from timecourse.errors import MachineError, UserError
from timecourse.extract.activations import use_capturing_attention
from timecourse.extract.checkpoints.checkpoint import Checkpoint
from timecourse.extract.families.base import Family
from timecourse.extract.out_of_memory import is_out_of_memory

SPLIT = "split"
"""The device's name for all GPUs together, each holding some of the layers."""


class LoadedModel:
    """A network of a family, with the modules that are read; its attention is replaced by one that shows its patterns.

    component_ids: L0H0, L0H1, ..., L0F, L1H0, ...: heads and FFN, layer by layer.
    """

    def __init__(self, network: Any, family: Family, device: torch.device) -> None:
        use_capturing_attention(network)
        self.network = network
        self.family = family
        self.device = device
        self.config = network.config.get_text_config()
        self.final_norm = network.get_submodule(family.final_norm)
        self.unembedding = network.get_output_embeddings()
        self.layer_count = int(self.config.num_hidden_layers)
        self.head_count = int(self.config.num_attention_heads)
        self.is_parallel = family.is_parallel(self.config.to_dict())
        self.component_ids = [
            f"L{layer}{'F' if part == self.head_count else f'H{part}'}"
            for layer in range(self.layer_count)
            for part in range(self.head_count + 1)
        ]

    def logits_at(self, rows: Tensor, positions: Tensor, **inputs: Tensor) -> Tensor:
        """The model's logits [P, V] at P positions of a batch, in a forward pass; only these pass the unembedding."""
        keep = self.unembedding.register_forward_pre_hook(
            lambda _, args: (args[0][rows.to(args[0].device), positions.to(args[0].device)][None],)
        )
        try:
            logits: Tensor = self.network(**inputs, use_cache=False).logits[0]
        finally:
            keep.remove()
        return logits.to(self.device)

    def read_stream(self, stream: Tensor) -> Tensor:
        """The logits that the model would give if the stream [..., d] were its last one (logit lens)."""
        logits: Tensor = self.unembedding(self.final_norm(stream)).to(stream.device)
        if self.family.logits_divisor is not None:
            logits = logits / getattr(self.config, self.family.logits_divisor)
        softcap = getattr(self.config, self.family.logits_softcap) if self.family.logits_softcap else None
        return logits if softcap is None else torch.tanh(logits / softcap) * softcap


def gpu_count() -> int:
    """How many CUDA devices this process sees."""
    return torch.cuda.device_count()


def available_device(wanted: str) -> str:
    """The device's name as torch writes it; `auto` is CUDA where there is one. Raises UserError for one not here."""
    if wanted == SPLIT:
        return wanted
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if torch.device(wanted).type not in ("cpu", "cuda"):  # on others it is unknown what memory is free
            raise MachineError(f"device {wanted!r} is none to measure on; say auto, cpu, cuda, cuda:1, ... or split")
        return str(torch.empty(0, device=wanted).device)
    except (RuntimeError, AssertionError) as error:
        raise MachineError(f"device {wanted!r} is not available here: {first_line(error)}") from error


def load_model(checkpoint: Checkpoint, dtype: str, device: str, attention: str) -> LoadedModel:
    """Load a checkpoint for reading.

    Raises UserError for weights that do not fit their config, by name; MachineError where they do not fit into memory.
    """
    if device == SPLIT and importlib.util.find_spec("accelerate") is None:
        raise MachineError("device 'split' needs accelerate: pip install 'timecourse[split]'")
    try:
        network = _load_network(checkpoint, dtype, attention, "auto" if device == SPLIT else None)
        if device != SPLIT:
            network = network.to(device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        where = "this machine" if device in ("cpu", SPLIT) else device
        raise MachineError(f"checkpoint {checkpoint.name!r} does not fit into the memory of {where}") from error
    if device == SPLIT:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return LoadedModel(network, checkpoint.family, torch.device(device))


def _load_network(checkpoint: Checkpoint, dtype: str, attention: str, device_map: str | None) -> Any:
    try:
        network, report = AutoModelForCausalLM.from_pretrained(
            checkpoint.folder,
            dtype=getattr(torch, dtype),
            attn_implementation=attention,
            device_map=device_map,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # refused below, by name
            output_loading_info=True,
        )
    except Exception as error:  # the library raises whatever the config's or the file's parser raised
        if is_out_of_memory(error) or (isinstance(error, OSError) and error.errno is not None):
            raise  # the machine's, the disk's or the system's own error, not the checkpoint's
        raise UserError(f"checkpoint {checkpoint.name!r} cannot be loaded: {first_line(error)}") from error
    for what in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        # a missing weight would be filled with random numbers, and every number after it would look right
        if names := sorted(name for name in map(str, report[what]) if not name.endswith(checkpoint.family.buffers)):
            raise UserError(
                f"checkpoint {checkpoint.name!r} does not fit its config: {len(names)} {what.replace('_', ' ')}, "
                f"such as {names[0]!r}"
            )
    return network.eval()


def load_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerFast:
    """The checkpoint's fast tokenizer. Raises UserError where there is none."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the library raises whatever the file's parser raised
        raise UserError(
            f"checkpoint {checkpoint.name!r}: the tokenizer cannot be loaded: {first_line(error)}"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"checkpoint {checkpoint.name!r}: the tokenizer gives no character offsets (not a fast one)")
    tokenizer.model_max_length = VERY_LARGE_INTEGER  # files say anything here; the model's own context is what counts
    return tokenizer


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
