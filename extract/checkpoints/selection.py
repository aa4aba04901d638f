"""Which checkpoints of a series to take: every n-th, about n spread over training, a range of steps, or a list."""

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from timecourse.errors import UsageError
from timecourse.extract.checkpoints.names import Place

Placed = tuple[str, Place]


@dataclass(frozen=True)
class Selection:
    """What to take of a series; everything where nothing is set. Raises UsageError where it contradicts itself.

    every: every n-th checkpoint, counted anew in each run (phase, stage and branch).
    log_spaced: about n checkpoints per phase, spaced evenly in the logarithm of the step.
    from_step, to_step: the range of steps, as named and inclusive, that the others choose from.
    names: these checkpoints; together with the others, these as well.
    """

    every: int | None = None
    log_spaced: int | None = None
    from_step: int | None = None
    to_step: int | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 1:
            raise UsageError(f"every must be 1 or more, not {self.every}")
        if self.log_spaced is not None and self.log_spaced < 2:
            raise UsageError(f"log-spaced must be 2 or more (the first and the last), not {self.log_spaced}")
        if self.every is not None and self.log_spaced is not None:
            raise UsageError("every and log-spaced exclude each other; set one of them")
        if self.from_step is not None and self.to_step is not None and self.from_step > self.to_step:
            raise UsageError(f"the range of steps from {self.from_step} to {self.to_step} is empty")

    @property
    def has_rule(self) -> bool:
        """Whether checkpoints are chosen by more than a list of names."""
        return any(rule is not None for rule in (self.every, self.log_spaced, self.from_step, self.to_step))


def select(ordered: Sequence[Placed], selection: Selection) -> list[str]:
    """The chosen names of a series that is in the order of training, in that order.

    The last checkpoint of each phase is always among them, for it is what the others are compared with; `every` and
    `log_spaced` also take the first (of those in the range). Raises UsageError for a name that does not exist and for
    a range that holds no step.
    """
    if not selection.has_rule and not selection.names:
        return [name for name, _ in ordered]
    chosen = set(existing_names([name for name, _ in ordered], selection.names))
    phases = [list(phase) for _, phase in groupby(ordered, key=lambda placed: placed[1].phase_index)]
    chosen |= {phase[-1][0] for phase in phases}
    if selection.has_rule:
        in_range = [[placed for placed in phase if _is_in_range(placed[1], selection)] for phase in phases]
        if phases and not any(in_range):
            raise UsageError(f"no checkpoint has a step {_range_text(selection)}")
        for phase in in_range:
            if selection.every is not None:
                chosen |= _every(phase, selection.every)
            elif selection.log_spaced is not None:
                chosen |= _log_spaced(phase, selection.log_spaced)
            else:
                chosen |= {name for name, _ in phase}
    return [name for name, _ in ordered if name in chosen]


def existing_names(available: Sequence[str], wanted: Iterable[str]) -> list[str]:
    """The wanted names. Raises UsageError, naming the closest that exists, where one does not exist."""
    wanted = list(wanted)
    known = set(available)
    missing = next((name for name in wanted if name not in known), None)
    if missing is not None:
        closest = difflib.get_close_matches(missing, available, n=1, cutoff=0.0)
        hint = f"; the closest is {closest[0]!r}" if closest else ""
        raise UsageError(f"no checkpoint is named {missing!r}{hint}")
    return wanted


def _is_in_range(place: Place, selection: Selection) -> bool:
    if selection.from_step is None and selection.to_step is None:
        return True
    return (
        place.step is not None
        and (selection.from_step is None or place.step >= selection.from_step)
        and (selection.to_step is None or place.step <= selection.to_step)
    )


def _range_text(selection: Selection) -> str:
    bounds = (("from", selection.from_step), ("to", selection.to_step))
    return " ".join(f"{word} {step}" for word, step in bounds if step is not None)


def _every(phase: Sequence[Placed], n: int) -> set[str]:
    seen: Counter[tuple[int, bool, int, str, str]] = Counter()
    chosen = set()
    for name, place in phase:
        if seen[place.run] % n == 0:
            chosen.add(name)
        seen[place.run] += 1
    return chosen


def _log_spaced(phase: Sequence[Placed], n: int) -> set[str]:
    """About n names. From each chosen checkpoint on, the rest is spaced anew, so that gaps early on cost none of the n.

    Step 0 counts as step 1. Where there are no more than n checkpoints, all are taken.
    """
    if len(phase) <= n:
        return {name for name, _ in phase}
    line = sorted(zip(_steps_of_phase(phase), range(len(phase)), strict=True))
    logs = [math.log(max(step, 1)) for step, _ in line]
    at = 0
    picked = {at, len(line) - 1}
    for left in range(n - 1, 1, -1):
        if at + 2 >= len(line):
            break
        at = _nearest(logs, logs[at] + (logs[-1] - logs[at]) / left, range(at + 1, len(line) - 1))
        picked.add(at)
    return {phase[0][0], *(phase[line[index][1]][0] for index in picked)}


def _nearest(values: Sequence[float], target: float, among: range) -> int:
    return min(among, key=lambda index: abs(values[index] - target))


def _steps_of_phase(phase: Sequence[Placed]) -> list[int]:
    """Steps since the phase began. A stage that counts from zero again goes on where the stage before it ended.

    Branches of one stage lie side by side; a checkpoint without a step lies at the end of what came before it.
    """
    steps = []
    end = 0
    for _, stage in groupby(phase, key=lambda placed: placed[1].run[:-1]):
        members = [place.step for _, place in stage]
        stated = [step for step in members if step is not None]
        start = end if stated and min(stated) <= end else 0
        end = max([end, *(start + step for step in stated)])
        steps += [end if step is None else start + step for step in members]
    return steps
