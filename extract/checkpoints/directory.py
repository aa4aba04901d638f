"""A local directory as a series: one subdirectory per checkpoint, each an ordinary Hugging Face checkpoint.

Everything here is known without loading a model: names, order, architecture, and whether the files are whole.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from timecourse.errors import UserError
from timecourse.extract.checkpoints.names import NamedStep, parse_name
from timecourse.extract.families import family_of
from timecourse.extract.families.base import Family

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_QUANTISED = ("quantization_config", "compression_config")
_QUANTISED_KINDS = {"F8_E4M3", "F8_E5M2", "F8_E8M0", "F6_E2M3", "F6_E3M2", "F4", "I8"}
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint on disk. Hashes are computed when first asked for, and then kept."""

    path: Path
    name: str
    named_step: NamedStep
    config: dict[str, Any]
    family: Family
    weight_files: tuple[Path, ...]

    @property
    def step(self) -> int | None:
        """Training step; None for `main`."""
        return self.named_step.step

    @cached_property
    def tokens_computed(self) -> int | None:
        """Training tokens as the trainer recorded them (`num_input_tokens_seen` of trainer_state.json)."""
        state = _read_json(self.path / "trainer_state.json", self.name) or {}
        tokens = state.get("num_input_tokens_seen")
        return tokens if isinstance(tokens, int) and (tokens > 0 or self.step == 0) else None

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of the weights' files and of the config that says how they are used."""
        return _sha256_of([self.path / "config.json", *self.weight_files])

    @cached_property
    def tokenizer_sha256(self) -> str:
        """Hash of the tokenizer's files."""
        return _sha256_of([self.path / name for name in _TOKENIZER_FILES if (self.path / name).is_file()])

    @property
    def head_count(self) -> int:
        """Query heads per layer."""
        return int(self._value("num_attention_heads"))

    @property
    def context_length(self) -> int:
        """The longest prompt, in tokens; 2³¹ where the config states none."""
        return int(self._value("max_position_embeddings", 2**31))

    @property
    def architecture(self) -> dict[str, Any]:
        """What all checkpoints of a series must share for their components to be the same ones; columns of raw."""
        return {
            "family": self.family.name,
            "topology": self.family.topology(text_config(self.config)),
            "layer_count": int(self._value("num_hidden_layers")),
            "head_count": self.head_count,
            "kv_head_count": int(self._value("num_key_value_heads", self.head_count)),
            "hidden_size": int(self._value("hidden_size")),
        }

    def _value(self, key: str, default: Any = None) -> Any:
        return self.family.config_value(text_config(self.config), key, default)

    def check_finite(self) -> None:
        """Raise UserError where a weight is NaN or infinite."""
        for file in self.weight_files:
            for name, array in _tensors(file):
                if not _is_finite(array):
                    raise UserError(
                        f"checkpoint {self.name!r}: the tensor {name!r} in {file.name} holds NaN or infinite weights"
                    )


def find_checkpoints(directory: Path) -> list[Checkpoint]:
    """The checkpoints of a directory in training order: by step, `main` last.

    Raises UserError, naming the checkpoint, for an empty directory, a name without a step, two checkpoints that claim
    the same step, missing, torn or pickled weights, a missing tokenizer or an unsupported architecture.
    """
    if not directory.is_dir():
        raise UserError(f"the checkpoints directory {str(directory)!r} does not exist")
    if (directory / "config.json").is_file():
        raise UserError(f"{str(directory)!r} is itself one checkpoint; name the directory that holds the series")
    folders = sorted(path for path in directory.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise UserError(f"the checkpoints directory {str(directory)!r} holds no checkpoint (one subdirectory each)")
    claimed: dict[int | None, str] = {}
    for folder in folders:
        step = parse_name(folder.name).step
        if step in claimed:
            what = "the end of training" if step is None else f"step {step}"
            raise UserError(
                f"checkpoints {claimed[step]!r} and {folder.name!r} both claim {what}; rename or remove one"
            )
        claimed[step] = folder.name
    checkpoints = [_open(folder) for folder in folders]
    return sorted(checkpoints, key=lambda one: (one.step is None, one.step or 0))


def _open(folder: Path) -> Checkpoint:
    weight_files = _weight_files(folder)
    config = _read_json(folder / "config.json", folder.name)
    if config is None:
        raise UserError(f"checkpoint {folder.name!r} has no config.json")
    family = family_of(config.get("model_type"), folder.name)
    for key in ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size"):
        value = family.config_value(text_config(config), key)
        if not isinstance(value, int) or value < 1:
            raise UserError(f"checkpoint {folder.name!r}: config.json states no {family.config_keys.get(key, key)}")
    is_quantised = any(one.get(key) for one in (config, text_config(config)) for key in _QUANTISED)
    for file in weight_files:
        try:
            with safe_open(file, framework="numpy") as opened:
                kinds = {opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118 (no mapping)
                is_quantised |= bool(kinds & _QUANTISED_KINDS)
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(
                f"checkpoint {folder.name!r}: {file.name} is torn or no safetensors file ({error})"
            ) from error
    if is_quantised:
        raise UserError(f"checkpoint {folder.name!r} is quantised; only unquantised weights are measured")
    if not (folder / "tokenizer.json").is_file():
        raise UserError(f"checkpoint {folder.name!r} has no tokenizer.json; save the fast tokenizer beside the weights")
    return Checkpoint(folder, folder.name, parse_name(folder.name), config, family, weight_files)


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that describes the language model: of a multimodal one its `text_config`."""
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) else config


def _weight_files(folder: Path) -> tuple[Path, ...]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        content = _read_json(index, folder.name) or {}
        names = sorted(set(content.get("weight_map", {}).values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing or not names:
            raise UserError(
                f"checkpoint {folder.name!r} lacks the weights file {missing[0] if missing else index.name!r}"
            )
        return tuple(folder / name for name in names)
    if (folder / "model.safetensors").is_file():
        return (folder / "model.safetensors",)
    if any(file for pattern in _PICKLED for file in folder.glob(pattern)):
        raise UserError(
            f"checkpoint {folder.name!r} has pickled weights only, which are never loaded; convert them to safetensors"
        )
    raise UserError(f"checkpoint {folder.name!r} has no weights (model.safetensors)")


def _read_json(file: Path, checkpoint: str) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"checkpoint {checkpoint!r}: {file.name} is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"checkpoint {checkpoint!r}: {file.name} holds no JSON object")
    return content


def _sha256_of(files: list[Path]) -> str:
    """Hash of the files' names and hashes, so that moving bytes from one file to the next is seen."""
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            total.update(f"{file.name}\0{hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def _tensors(file: Path) -> Iterator[tuple[str, "np.ndarray[Any, Any]"]]:
    """Every tensor of a safetensors file as a flat memory map, bfloat16 as its 16 bits."""
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
    with file.open("rb") as opened:
        header_size = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(header_size))
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] in kinds:
            start, end = entry["data_offsets"]
            kind = np.dtype(kinds[entry["dtype"]])
            if end > start:
                yield (
                    name,
                    np.memmap(
                        file, dtype=kind, mode="r", offset=8 + header_size + start, shape=(end - start) // kind.itemsize
                    ),
                )


def _is_finite(array: "np.ndarray[Any, Any]", block: int = 2**24) -> bool:
    """No NaN and no infinity; for bfloat16 bits: no exponent of all ones."""
    for start in range(0, len(array), block):
        part = array[start : start + block]
        finite = (part & 0x7F80) != 0x7F80 if array.dtype == np.uint16 else np.isfinite(part)
        if not finite.all():
            return False
    return True
