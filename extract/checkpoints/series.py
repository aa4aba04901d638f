"""A series: what its sources offer, in the order of training, and what becomes of every name.

1. Every source's names are read and ordered; a name that says no step, or two that claim one place, are told.
2. Every checkpoint is opened: its config, its architecture and its hashes are known, no weights are fetched.
3. Names that serve the same weights are found: `main` for the last step is an alias; an early step with the weights of
   a later one is a duplicate, whose own weights are not published. Either is used once.
4. Of the rest, the selection chooses.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from timecourse.errors import SourceError, UserError
from timecourse.extract.checkpoints.checkpoint import Checkpoint, Source
from timecourse.extract.checkpoints.directory import unreadable_name
from timecourse.extract.checkpoints.names import Place, order, parse_name
from timecourse.extract.checkpoints.selection import Selection, existing_names, select

Status = Literal["used", "left_out", "alias", "duplicate", "unusable"]

OPENED_AT_ONCE = 8
"""Checkpoints that are opened side by side: most of the time is spent waiting for a hub."""


@dataclass(frozen=True)
class Phase:
    """One phase of training, such as pretraining or sft, and where its checkpoints come from."""

    name: str
    source: Source


@dataclass(frozen=True)
class Reading:
    """How names are read and chosen.

    pattern: instead of the table of names. leave_out: names that are not looked at. steps: of names whose step is known
    otherwise, such as main's. tokens_per_step: of training, where the trainer recorded no tokens.
    """

    pattern: re.Pattern[str] | None = None
    leave_out: tuple[str, ...] = ()
    steps: Mapping[str, int] = field(default_factory=dict)
    selection: Selection = field(default_factory=Selection)
    tokens_per_step: int | None = None


@dataclass(frozen=True)
class Entry:
    """A name that a series' sources offer, and what becomes of it.

    name: as the series calls it: with its phase in front where there are several. checkpoint: None where it cannot be
    used, and `reason` says why. same_weights_as: the name under which the weights of an alias or a duplicate are used.
    """

    name: str
    place: Place
    source: Source
    checkpoint: Checkpoint | None
    status: Status = "used"
    same_weights_as: str | None = None
    reason: str | None = None

    @property
    def declaration(self) -> dict[str, Any]:
        """The entry as the lake keeps it."""
        one = self.checkpoint
        return {
            "name": self.name,
            "phase": self.place.phase,
            "phase_index": self.place.phase_index,
            "stage": self.place.stage,
            "stage_index": self.place.stage_index,
            "branch": self.place.branch,
            "step": self.place.step,
            "tokens_reported": self.place.tokens_reported,
            "tokens_computed": None if one is None else one.tokens_computed,
            "commit_sha": None if one is None else one.commit_sha,
            "weights_sha256": None if one is None else one.tensors_sha256,
            "bytes": None if one is None else one.bytes,
            "status": self.status,
            "same_weights_as": self.same_weights_as,
            "reason": self.reason,
        }


def read_series(phases: Sequence[Phase], reading: Reading) -> list[Entry]:
    """Every name of the phases' sources, in the order of training.

    Raises UserError where a source cannot be reached, no name of a phase says a step, two names claim one place, or the
    selection or `steps` names what does not exist.
    """
    offered: dict[str, tuple[str, Place, Source]] = {}
    unread: list[tuple[str, Place, Source]] = []
    all_names: list[str] = []
    for index, phase in enumerate(phases):
        names = phase.source.names()
        called_names = names if len(phases) == 1 else [f"{phase.name}/{name}" for name in names]
        all_names += called_names
        places = {}
        for name, called in zip(names, called_names, strict=True):
            if called in reading.leave_out:
                continue
            place = parse_name(name, reading.pattern)
            if called in reading.steps:
                place = replace(place or Place(None, 1, "main", None, None), step=reading.steps[called])
            if place is None and phase.source.every_name_counts:
                raise UserError(f"{unreadable_name(name)}, or leave it out ([series] leave_out)")
            if place is None:
                unread.append((called, Place(None, 0, "main", None, None, phase.name, index), phase.source))
            else:
                places[called] = (name, replace(place, phase=phase.name, phase_index=index), phase.source)
        if not places:
            raise UserError(
                f"{unreadable_name(names[0])}, or say [series] pattern (none of {len(names)} names in "
                f"{str(phase.source)!r} says one)"
            )
        offered |= places
    if repeated := [name for name, times in Counter(all_names).items() if times > 1]:
        raise UserError(f"two phases offer a checkpoint that is then called {repeated[0]!r}; rename a phase")
    existing_names(all_names, reading.steps)
    ordered = order({called: place for called, (_, place, _) in offered.items()})
    with ThreadPoolExecutor(OPENED_AT_ONCE) as pool:
        entries = list(pool.map(lambda called: _opened(called, *offered[called], reading), ordered))
    entries = _without_repetitions(entries)
    usable = [(one.name, one.place) for one in entries if one.status == "used"]
    chosen = set(select(usable, reading.selection))
    entries = [
        one if one.status != "used" or one.name in chosen else replace(one, status="left_out", reason="not selected")
        for one in entries
    ]
    return entries + [
        Entry(name, place, source, None, "left_out", reason="the name says no step") for name, place, source in unread
    ]


def _opened(called: str, name: str, place: Place, source: Source, reading: Reading) -> Entry:
    try:
        checkpoint = source.open(name, called, place)
        if checkpoint.tokens_computed is None and reading.tokens_per_step is not None and place.step is not None:
            tokens = place.step * reading.tokens_per_step
            if tokens >= 2**63:
                raise UserError(f"checkpoint {called!r}: step {place.step} times tokens_per_step is 2⁶³ tokens or more")
            checkpoint = replace(checkpoint, tokens_computed=tokens)
        _ = checkpoint.tensors_sha256  # hashed here, side by side
        return Entry(called, place, source, checkpoint)
    except SourceError:
        raise
    except UserError as error:
        return Entry(called, place, source, None, "unusable", reason=str(error))


def _without_repetitions(entries: Sequence[Entry]) -> list[Entry]:
    """Of names that serve the same weights, one is used: the last step of the earliest phase among them.

    An early step that equals a late one is the usual mistake of public series (final weights under every name), so the
    late one is believed. A name without a step, such as `main`, is an alias.
    """
    groups: defaultdict[str, list[Entry]] = defaultdict(list)
    for one in entries:
        if one.checkpoint is not None:
            groups[one.checkpoint.tensors_sha256].append(one)
    changed: dict[str, Entry] = {}
    for group in groups.values():
        earliest = [one for one in group if one.place.phase_index == group[0].place.phase_index]
        used = next((one for one in reversed(earliest) if one.place.step is not None), earliest[0])
        for one in group:
            if one is used:
                continue
            is_alias = one.place.step is None
            what = "another name of" if is_alias else "has the weights of"
            changed[one.name] = replace(
                one,
                status="alias" if is_alias else "duplicate",
                same_weights_as=used.name,
                reason=f"{what} {used.name}" + ("" if is_alias else "; its own are not published"),
            )
    return [changed.get(one.name, one) for one in entries]


def declarations(
    entries: Sequence[Entry], failed: Mapping[str, str], gone: Sequence[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """The entries as the lake keeps them, by position in training; `failed` says why one was not extracted.

    gone: earlier declarations of checkpoints that are offered no more; they keep their place.
    """
    rows = [one.declaration for one in entries]
    for row in rows:
        if row["name"] in failed:
            row |= {"status": "failed", "reason": failed[row["name"]]}
    for earlier in gone:
        row = dict(earlier)
        renamed = next((one.name for one in entries if _serves(one, earlier["weights_sha256"])), None)
        if renamed is not None:
            row |= {"status": "alias", "same_weights_as": renamed, "reason": f"is offered as {renamed} now"}
        elif earlier["status"] not in ("alias", "duplicate"):  # another checkpoint's weights stay that
            row |= {"status": "gone", "reason": "no longer offered"}
        later = (at for at, other in enumerate(rows) if _key(other) > _key(row))
        rows.insert(next(later, len(rows)), row)
    return [{**row, "position": position} for position, row in enumerate(rows)]


def _serves(entry: Entry, weights_sha256: str | None) -> bool:
    one = entry.checkpoint
    return entry.status == "used" and one is not None and one.tensors_sha256 == weights_sha256


def _key(row: Mapping[str, Any]) -> Any:
    names = ("stage", "stage_index", "branch", "step", "tokens_reported", "phase", "phase_index")
    return Place(**{name: row[name] for name in names}).key
