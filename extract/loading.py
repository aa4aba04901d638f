"""Loading one checkpoint: its network, ready to be read, and its tokenizer."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from timecourse.errors import UserError
from timecourse.extract.checkpoints.directory import Checkpoint
from timecourse.extract.families.base import Family, module_at, use_capturing_attention


class LoadedModel:
    """A checkpoint's network, with the modules that are read.

    component_ids: L0H0, L0H1, ..., L0F, L1H0, ...: heads and FFN, layer by layer.
    """

    def __init__(self, checkpoint: Checkpoint, dtype: str, device: str) -> None:
        self.family: Family = checkpoint.family
        self.device = torch.device(device)
        self.network: Any = _load_network(checkpoint, dtype).to(self.device)
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


def _load_network(checkpoint: Checkpoint, dtype: str) -> Any:
    try:
        network, report = AutoModelForCausalLM.from_pretrained(
            checkpoint.path,
            dtype=getattr(torch, dtype),
            attn_implementation="eager",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # refused below, by name
            output_loading_info=True,
        )
    except Exception as error:  # the library raises whatever the config's or the file's parser raised
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's or the system's own error, not the checkpoint's
        raise UserError(f"checkpoint {checkpoint.name!r} cannot be loaded: {first_line(error)}") from error
    for what in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        # a missing weight would be filled with random numbers, and every number after it would look right
        if names := sorted(map(str, report[what])):
            raise UserError(
                f"checkpoint {checkpoint.name!r} does not fit its config: {len(names)} {what.replace('_', ' ')}, "
                f"such as {names[0]!r}"
            )
    return network.eval()


def load_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerFast:
    """The checkpoint's fast tokenizer. Raises UserError where there is none."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the library raises whatever the file's parser raised
        raise UserError(
            f"checkpoint {checkpoint.name!r}: the tokenizer cannot be loaded: {first_line(error)}"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"checkpoint {checkpoint.name!r}: the tokenizer gives no character offsets (not a fast one)")
    return tokenizer


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
