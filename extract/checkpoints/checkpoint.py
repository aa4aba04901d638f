"""One checkpoint, as it is known before a model is loaded: its place in training, its architecture, its files."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeGuard

import numpy as np
from safetensors import SafetensorError, safe_open

from timecourse.errors import FetchError, UserError
from timecourse.extract.checkpoints.names import Place
from timecourse.extract.families import family_of
from timecourse.extract.families.base import Family

SMALL_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
    "trainer_state.json",
)
"""The files beside the weights that are read, where they exist."""

_TOKENIZER_FILES = SMALL_FILES[1:6]
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_QUANTISED = ("quantization_config", "compression_config")
_COUNTS = {
    "num_hidden_layers": 2**15,
    "num_attention_heads": 2**15,
    "num_key_value_heads": 2**15,
    "hidden_size": 2**31,
    "vocab_size": 2**31,
    "max_position_embeddings": 2**63,
}
"""Whole numbers of a config.json, and what they lie below: the types of the raw tables' columns."""

_MAY_BE_LEFT_OUT = ("num_key_value_heads", "max_position_embeddings")
_QUANTISED_KINDS = {"F8_E4M3", "F8_E5M2", "F8_E8M0", "F6_E2M3", "F6_E3M2", "F4", "I8"}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint of a series.

    name: unique in its series. folder: where its files lie; the weights, where they come from elsewhere, once its
    source has fetched them. sha256_of: the hash of one of its files. bytes: of the weights. tokens_computed: training
    tokens as the trainer recorded them, or as the series' tokens per step say. commit_sha: of a repository's revision.
    """

    name: str
    place: Place
    folder: Path
    config: dict[str, Any]
    family: Family
    weight_files: tuple[str, ...]
    tokenizer_files: tuple[str, ...]
    bytes: int
    sha256_of: Callable[[str], str]
    tokens_computed: int | None = None
    commit_sha: str | None = None

    @cached_property
    def tensors_sha256(self) -> str:
        """Hash of the weights' files alone: equal for two names that serve the same weights."""
        return _sha256_of_lines(sorted(self.sha256_of(name) for name in self.weight_files))

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of the weights' files and of the config that says how they are used."""
        return _sha256_of_lines([f"{name}\0{self.sha256_of(name)}" for name in ("config.json", *self.weight_files)])

    @cached_property
    def tokenizer_sha256(self) -> str:
        """Hash of the tokenizer's files."""
        return _sha256_of_lines([f"{name}\0{self.sha256_of(name)}" for name in self.tokenizer_files])

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

    def check_headers(self) -> None:
        """Read the headers of the weights' files. Raises UserError for torn and for quantised ones."""
        for name in self.weight_files:
            try:
                with safe_open(self.folder / name, framework="numpy") as opened:
                    kinds = {opened.get_slice(key).get_dtype() for key in opened.keys()}  # noqa: SIM118 (no mapping)
            except (SafetensorError, OSError, ValueError) as error:
                raise UserError(f"checkpoint {self.name!r}: {name} is torn or no safetensors file ({error})") from error
            if kinds & _QUANTISED_KINDS:
                raise UserError(_quantised(self.name))

    def check_finite(self) -> None:
        """Read all weights. Raises UserError where one is NaN or infinite."""
        for name in self.weight_files:
            for key, array in _tensors(self.folder / name):
                if not _is_finite(array):
                    raise UserError(
                        f"checkpoint {self.name!r}: the tensor {key!r} in {name} holds NaN or infinite weights"
                    )


@contextmanager
def refusing_what_is_gone(called: str, folder: Path) -> Iterator[None]:
    """Raises FetchError where a file of a checkpoint's folder is read that is there no more: trainers remove theirs."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        if error.filename is None or not Path(error.filename).is_relative_to(folder):
            raise
        raise FetchError(
            f"checkpoint {called!r} is gone, or a part of it: {error.filename} was removed; the next run takes what is "
            "there then"
        ) from error


class Source(Protocol):
    """Where the checkpoints of one phase come from. A new kind of source is one class with these methods.

    every_name_counts: whether a name that says no step is an error; elsewhere it is none of the series.
    """

    every_name_counts: bool

    def names(self) -> list[str]:
        """Every name that may be a checkpoint. Raises UserError where the source cannot be reached."""

    def open(self, name: str, called: str, place: Place) -> Checkpoint:
        """The checkpoint behind a name, called so in its series: everything but the weights is there, and hashes are
        known. Raises UserError where it cannot be used, saying why."""

    def fetch(self, checkpoint: Checkpoint) -> None:
        """Bring the weights into the checkpoint's folder, whole. Raises UserError where that fails."""

    def check_unchanged(self, checkpoint: Checkpoint) -> None:
        """Raises ChangedError where the files are others than when the checkpoint was opened."""

    def evict(self, checkpoint: Checkpoint) -> None:
        """Give back the disk space that `fetch` took, where a limit asks for it."""


def describe(
    called: str,
    place: Place,
    folder: Path,
    sizes: Mapping[str, int],
    sha256_of: Callable[[str], str],
    commit_sha: str | None = None,
) -> Checkpoint:
    """A checkpoint from its files' names and sizes; those of SMALL_FILES that exist lie in `folder`.

    Raises UserError for missing or pickled weights, a missing tokenizer or config, an unsupported or quantised model.
    """
    config = read_json(folder / "config.json", called)
    if config is None:
        raise UserError(f"checkpoint {called!r} has no config.json")
    weight_files = _weight_files(called, folder, sizes)
    family = family_of(config.get("model_type"), called)
    for key, limit in _COUNTS.items():
        value, named = family.config_value(text_config(config), key), family.config_keys.get(key, key)
        if value is None and key in _MAY_BE_LEFT_OUT:
            continue
        if not _is_whole(value) or value < 1:
            raise UserError(f"checkpoint {called!r}: config.json states no {named}")
        if value >= limit:
            raise UserError(f"checkpoint {called!r}: config.json states a {named} of {limit} or more")
    if any(one.get(key) for one in (config, text_config(config)) for key in _QUANTISED):
        raise UserError(_quantised(called))
    if "tokenizer.json" not in sizes:
        raise UserError(f"checkpoint {called!r} has no tokenizer.json; save the fast tokenizer beside the weights")
    state = read_json(folder / "trainer_state.json", called) or {}
    tokens = state.get("num_input_tokens_seen")
    return Checkpoint(
        name=called,
        place=place,
        folder=folder,
        config=config,
        family=family,
        weight_files=weight_files,
        tokenizer_files=tuple(name for name in _TOKENIZER_FILES if name in sizes),
        bytes=sum(sizes[name] for name in weight_files),
        sha256_of=sha256_of,
        tokens_computed=tokens if _is_whole(tokens) and (0 < tokens < 2**63 or tokens == place.step == 0) else None,
        commit_sha=commit_sha,
    )


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that describes the language model: of a multimodal one its `text_config`."""
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) else config


def read_json(file: Path, checkpoint: str) -> dict[str, Any] | None:
    """The object that a JSON file holds; None where there is no file. Raises UserError for anything else."""
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, and brackets within brackets
        raise UserError(f"checkpoint {checkpoint!r}: {file.name} is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"checkpoint {checkpoint!r}: {file.name} holds no JSON object")
    return content


def _weight_files(called: str, folder: Path, sizes: Mapping[str, int]) -> tuple[str, ...]:
    index = "model.safetensors.index.json"
    if index in sizes:
        content = read_json(folder / index, called) or {}
        weight_map = content.get("weight_map")
        names = sorted({str(name) for name in weight_map.values()}) if isinstance(weight_map, dict) else []
        missing = [name for name in names if name not in sizes]
        if missing or not names:
            raise UserError(f"checkpoint {called!r} lacks the weights file {missing[0] if missing else index!r}")
        return tuple(names)
    if "model.safetensors" in sizes:
        return ("model.safetensors",)
    if any(name.endswith(_PICKLED) for name in sizes):
        raise UserError(
            f"checkpoint {called!r} has pickled weights only, which are never loaded; convert them to safetensors"
        )
    raise UserError(f"checkpoint {called!r} has no weights (model.safetensors)")


def _quantised(called: str) -> str:
    return f"checkpoint {called!r} is quantised; only unquantised weights are measured"


def _sha256_of_lines(lines: list[str]) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


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
