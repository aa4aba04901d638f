"""What a checkpoint's name says about its place in training, and the order that follows for a series.

Names are read by a table of patterns, one per way in which public series name their checkpoints, or by a regular
expression of the user's own. The order comes from phase, stage, branch and step, never from the tokens: a later stage
may count its tokens and its steps from zero again.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from timecourse.errors import UsageError, UserError


@dataclass(frozen=True)
class Place:
    """Where in training a checkpoint was taken, as its name says.

    stage: as named (`stage1`, `lc-4k-to-32k`); None where the name states none, which is the first stage.
    stage_index: sorts the stages: n for `stage<n>`, and more than that for stages without a number.
    branch: `main`, or a run beside others of the same stage (`ingredient2`): siblings, none of which follows another.
    step: None for a name such as `main`, the end of its phase (where a stage is named: the end of that stage).
    tokens_reported: training tokens as the name states them; some series count them from zero in every stage.
    """

    stage: str | None
    stage_index: int
    branch: str
    step: int | None
    tokens_reported: int | None
    phase: str = "pretraining"
    phase_index: int = 0

    @property
    def run(self) -> tuple[int, bool, int, str, str]:
        """What the checkpoints of one run share: phase, stage and branch. The end of a phase is a run of its own."""
        ends_phase = self.step is None and self.stage is None
        stage = _natural(self.stage or "") if self.stage_index >= _UNNUMBERED else ""
        branch = "" if self.branch == "main" else _natural(self.branch)
        return (self.phase_index, ends_phase, self.stage_index, stage, branch)

    @property
    def key(self) -> tuple[tuple[int, bool, int, str, str], bool, int]:
        """Orders the checkpoints of a series: by run, then by step; an unstated step comes last."""
        return (self.run, self.step is None, self.step or 0)


@dataclass(frozen=True)
class Pattern:
    """One way to name checkpoints, with a real name and the series that are named so."""

    regex: re.Pattern[str]
    example: str
    series: str


def _pattern(expression: str, example: str, series: str) -> Pattern:
    return Pattern(re.compile(expression, re.IGNORECASE | re.ASCII), example, series)


_STEP = r"step[-_]?(?P<step>\d+)"
_COUNTED = r"(?P<tokens>\d+(?:\.\d+)?)(?P<unit>[KMBT])"
_TOKENS = rf"(?:-tokens{_COUNTED})?"

# Tried from the top; the whole name must match, in upper or lower case.
PATTERNS: tuple[Pattern, ...] = (
    _pattern(
        rf"{_STEP}{_TOKENS}",
        "step5000-tokens20B",
        "OLMo, OLMoE, Pythia, PolyPythias, SmolLM2, Apertus, Lucie, post-training of OLMo 3",
    ),
    _pattern(
        rf"(?P<stage>stage\d+)(?:-(?P<branch>ingredient\d+))?-{_STEP}{_TOKENS}",
        "stage2-ingredient2-step11931-tokens50B",
        "OLMo 2, OLMo 3, OLMoE-0125, SmolLM3",
    ),
    _pattern(
        rf"(?P<stage>stage\d+)-{_STEP}-(?P<branch>mix-[a-z0-9-]+)",
        "stage2-step47684-mix-round5-from-2T-ckpt",
        "OLMo 3: other mixtures tried beside stage 2",
    ),
    _pattern(rf"(?P<stage>lc-\d+k-to-\d+k)-{_STEP}", "lc-4k-to-32k-step-20000", "SmolLM3"),
    _pattern(rf"(?P<stage>longctx|extension)[-_]{_STEP}", "longctx-step1700", "Apertus, Lucie (extension_step0001220)"),
    _pattern(rf"{_STEP}-(?P<branch>seed-[a-z0-9-]+)", "step1250-seed-default", "DataDecide"),
    _pattern(
        r"CrystalCoder_(?P<stage>phase\d+)_checkpoint_(?P<step>\d+)",
        "CrystalCoder_phase1_checkpoint_055500",
        "LLM360 Crystal",
    ),
    _pattern(
        rf"(?:TinyLlama-1\.1B-)?(?:intermediate-)?step-(?P<step>\d+K)-(?:token-)?{_COUNTED}",
        "TinyLlama-1.1B-intermediate-step-955k-token-2T",
        "TinyLlama (one repository per checkpoint)",
    ),
    _pattern(
        r"(?:global[-_]?step|checkpoint|ckpt|iter)[-_]?(?P<step>\d+)",
        "ckpt_356",
        "Amber; stanford-crfm GPT-2 (checkpoint-1000), BLOOM (global_step1000), MAP-Neo (iter_0002384), trainers",
    ),
    _pattern(r"(?P<step>\d+)", "1000", "folders that are numbered"),
    _pattern(r"main|final|last", "main", "the end of training, in every series"),
)

_GROUPS = ("step", "tokens", "unit", "stage", "branch")
_COUNT = re.compile(r"([0-9]{1,30})(?:\.([0-9]{1,30}))?([KMBT]?)", re.IGNORECASE)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_INT64 = 2**63
_NUMBERED_STAGE = re.compile(r"(?:stage|phase)?[-_ ]?0*([0-9]{1,6})", re.IGNORECASE)
_LONGER_CONTEXT = re.compile(r"lc-\d+k-to-0*(\d{1,6})k", re.IGNORECASE | re.ASCII)
_UNNUMBERED = 10**6
"""The stage_index of stages without a number; a stage that extends the context adds its target length in thousands."""


def parse_name(name: str, own: re.Pattern[str] | None = None) -> Place | None:
    """Read a checkpoint's name by the table, or by the user's own expression instead; None where nothing fits.

    Numbers are whole and below 2⁶³, written in digits or with a unit (`50k`, `1.5T`, taken exactly); a name with any
    other number fits nothing.
    """
    for regex in [pattern.regex for pattern in PATTERNS] if own is None else [own]:
        if match := regex.fullmatch(name):
            place = _place(match.groupdict())
            if place is not None:
                return place
    return None


def compile_pattern(text: str) -> re.Pattern[str]:
    """The user's own expression for names, with the group `step` and perhaps tokens, unit, stage and branch.

    The whole name must match it, in upper or lower case. Raises UsageError for an expression that is not valid, has no
    group `step`, or has named groups besides these.
    """
    try:
        pattern = re.compile(text, re.IGNORECASE)
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        raise UsageError(f"the name pattern {text!r} is no valid regular expression: {error}") from error
    if unknown := [group for group in pattern.groupindex if group not in _GROUPS]:
        raise UsageError(f"the name pattern {text!r} has an unknown group {unknown[0]!r}; known: {', '.join(_GROUPS)}")
    if "step" not in pattern.groupindex:
        raise UsageError(f"the name pattern {text!r} has no group for the step; write it like step(?P<step>[0-9]+)")
    return pattern


def order(places: Mapping[str, Place]) -> list[str]:
    """The names of a series in the order of training. Raises UserError where two names claim the same place."""
    names = sorted(places, key=lambda name: (places[name].key, name))
    for before, after in pairwise(names):
        if places[before].key == places[after].key:
            raise UserError(
                f"checkpoints {before!r} and {after!r} both claim {_described(places[before])}; rename or leave out one"
            )
    return names


def _place(groups: Mapping[str, str | None]) -> Place | None:
    """The place that a match states; None where a number in it is no number."""
    step_text, tokens_text, stage = groups.get("step"), groups.get("tokens"), groups.get("stage")
    step = None if step_text is None else _count(step_text)
    tokens = None if tokens_text is None else _count(tokens_text + (groups.get("unit") or ""))
    if (step_text is not None and step is None) or (tokens_text is not None and tokens is None):
        return None
    return Place(stage or None, _stage_index(stage or None), groups.get("branch") or "main", step, tokens)


def _count(text: str) -> int | None:
    """`20`, `50k` or `1.5T` as an exact whole number; None for anything else."""
    match = _COUNT.fullmatch(text)
    if match is None:
        return None
    whole, fraction, unit = match[1], match[2] or "", match[3].upper()
    count, rest = divmod(int(whole + fraction) * _UNITS[unit], 10 ** len(fraction))
    return count if rest == 0 and count < _INT64 else None


def _stage_index(stage: str | None) -> int:
    if stage is None:
        return 1
    if match := _NUMBERED_STAGE.fullmatch(stage):
        return int(match[1])
    match = _LONGER_CONTEXT.fullmatch(stage)
    return _UNNUMBERED + (int(match[1]) if match else 0)


def _natural(text: str) -> str:
    """Sorts numbers inside a text by size: 4k before 32k."""
    return re.sub(r"[0-9]+", lambda digits: digits[0].lstrip("0").zfill(20), text.casefold())


def _described(place: Place) -> str:
    what = "the end of training" if place.step is None else f"step {place.step}"
    where = [
        text
        for text, is_usual in (
            (place.phase, place.phase_index == 0),
            (place.stage, place.stage is None),
            (f"branch {place.branch}", place.branch == "main"),
        )
        if text is not None and not is_usual
    ]
    return f"{what} of {', '.join(where)}" if where else what
