"""What makes one extraction that extraction and no other: its inputs, hashed. Needs no torch, so planning is quick."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from timecourse.errors import UsageError
from timecourse.extract.checkpoints.checkpoint import Checkpoint
from timecourse.extract.facts import Relation, facts_sha256
from timecourse.extract.raw import SCHEMA_VERSION

EXTRACTOR_VERSION = 1
"""Raised whenever the same inputs would give other numbers than before."""


@dataclass(frozen=True)
class MeasurementSettings:
    """What changes the numbers. `taus` as text: a number, or a multiple such as `5x` (see tau_value).

    attention: which of the library's implementations the model runs with, eager or sdpa; they differ by rounding.
    chat_template: whether a prompt is a user's turn in the tokenizer's chat template, and its answer the model's.
    """

    taus: tuple[str, ...] = ("0.01",)
    norm: str = "l1"
    dtype: str = "float32"
    attention: str = "eager"
    chat_template: bool = False


def tau_id(text: str) -> str:
    """Canonical text of a route threshold: `0.050` and `.05` are both `0.05`. Raises UsageError for anything else."""
    number = text.strip().removesuffix("x")
    try:
        value = Decimal(number)
    except InvalidOperation as error:
        raise UsageError(f"tau {text!r} is neither a number nor a multiple such as 5x") from error
    if not value.is_finite() or value <= 0 or (not text.strip().endswith("x") and value >= 1):
        raise UsageError(f"tau {text!r} must lie between 0 and 1, or be a multiple such as 5x")
    canonical = f"{value.normalize():f}"
    return canonical + ("x" if text.strip().endswith("x") else "")


def tau_value(identifier: str, head_count: int) -> float:
    """τ for a model with H heads: `5x` is 5 / (1 + 16·H), a constant of the model and never of a prompt (method: 2).

    Raises UsageError for a multiple that leaves nothing of this model's parts.
    """
    if not identifier.endswith("x"):
        return float(identifier)
    value = float(identifier[:-1]) / (1 + 16 * head_count)
    if value >= 1:
        raise UsageError(f"tau {identifier!r} is {value:.3g} for a model of {head_count} heads; it must be below 1")
    return value


def setting_id(settings: MeasurementSettings, facts_hash: str) -> str:
    """Names what may be compared: the same measurement of the same facts."""
    attention = "" if settings.attention == "eager" else f"-{settings.attention}"
    chat = "-chat" if settings.chat_template else ""
    readable = f"{settings.norm}-{settings.dtype}{attention}{chat}-{'-'.join(settings.taus)}"
    return f"{readable}-{_sha256({**asdict(settings), 'facts': facts_hash})[:8]}"


@dataclass(frozen=True)
class ExtractionRequest:
    """One checkpoint to be measured with these facts and settings, as part of a series."""

    series_id: str
    checkpoint: Checkpoint
    relations: Sequence[Relation]
    settings: MeasurementSettings

    @property
    def checkpoint_id(self) -> str:
        """`<series>/<checkpoint name>`."""
        return f"{self.series_id}/{self.checkpoint.name}"

    @property
    def prompt_count(self) -> int:
        """Every template with every fact."""
        return sum(len(relation.prompt_templates) * len(relation.samples) for relation in self.relations)

    @property
    def taus(self) -> list[float]:
        """The route thresholds' values for this model, in the order of the settings."""
        return [tau_value(tau, self.checkpoint.head_count) for tau in self.settings.taus]

    @property
    def inputs(self) -> dict[str, Any]:
        """Everything the numbers depend on; kept in the commit file, so that a change can be named."""
        return {
            "series": self.series_id,
            "checkpoint": self.checkpoint.name,
            "weights": self.checkpoint.weights_sha256,
            "tokenizer": self.checkpoint.tokenizer_sha256,
            "facts": facts_sha256(self.relations),
            "settings": asdict(self.settings),
            "extractor_version": EXTRACTOR_VERSION,
            "schema_version": SCHEMA_VERSION,
        }

    @property
    def extraction_id(self) -> str:
        """Hash of the inputs: the same inputs are the same extraction."""
        return _sha256(self.inputs)[:32]

    @property
    def setting_id(self) -> str:
        """See setting_id."""
        return setting_id(self.settings, facts_sha256(self.relations))


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
