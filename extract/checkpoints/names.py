"""What a checkpoint's name says: its training step and the tokens seen. A table of patterns, tried from the top."""

import re
from dataclasses import dataclass

from timecourse.errors import UserError

_TOKENS = r"(?:-tokens(?P<tokens>\d+(?:\.\d+)?)(?P<unit>[KMBT]))?"
PATTERNS: tuple[re.Pattern[str], ...] = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"step[-_]?(?P<step>\d+){_TOKENS}",  # OLMo: step5000-tokens20B; Pythia: step1000; step_0025
        r"(?:global[-_]?step|checkpoint|ckpt)[-_]?(?P<step>\d+)",  # trainers: checkpoint-500, ckpt_000, global_step100
        r"(?P<step>\d+)",
        r"main|final|last",  # the end of training; no step is stated
    )
)
_UNITS = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


@dataclass(frozen=True)
class NamedStep:
    """`step` is None for a name such as `main`, which is the end of its branch; tokens as the name reports them."""

    step: int | None
    tokens_reported: int | None


def parse_name(name: str) -> NamedStep:
    """Read a checkpoint's name. Raises UserError where it does not say when in training the checkpoint was taken."""
    for pattern in PATTERNS:
        if match := pattern.fullmatch(name):
            groups = match.groupdict()
            tokens = groups.get("tokens")
            return NamedStep(
                step=None if groups.get("step") is None else int(groups["step"]),
                tokens_reported=None if tokens is None else round(float(tokens) * _UNITS[groups["unit"].upper()]),
            )
    raise UserError(
        f"the name of checkpoint {name!r} does not say its training step; "
        "name it like step1000, step1000-tokens4B, checkpoint-1000 or main"
    )
