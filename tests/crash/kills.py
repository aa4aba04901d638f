"""Runs that are killed, healed by a plain `refresh`, and compared with a run that was never disturbed."""

import os
import random
import re
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.crash.child import Fault, start
from tests.crash.lakes import Lakes, differences
from tests.crash.reader import Seen, reading

PHASES = ("start", "extract", "commit", "declare", "build", "release", "switch", "prune")


@dataclass(frozen=True)
class Kill:
    """A run that was killed and healed. how: the step or the moment; phase: what it was at.

    problems: what is wrong afterwards; empty: nothing. looks: how often a reader looked meanwhile.
    """

    scenario: str
    how: str
    phase: str
    seconds: float
    problems: tuple[str, ...]
    looks: int
    releases: int


def phase(steps: Sequence[str]) -> str:
    """What a run was at, from its steps so far: what it did last."""
    found = "start"
    for step in steps:
        now = _phase_of(step, found)
        found = now or found
    return found


def _phase_of(step: str, before: str) -> str | None:
    is_late = PHASES.index(before) >= PHASES.index("build")
    if re.search(r"os\.(remove|rmdir) (raw|releases)/", step) and is_late:
        return "prune"
    if re.search(r"current( in |\.new)", step):
        return "switch"
    if " series/" in step:
        return "declare"
    if " build/" in step and "-> build" not in step:
        return "build"
    if " releases/" in step or "-> releases/" in step:
        return "release"
    if " commits/" in step or " raw/" in step:
        return "commit"
    if " .incoming/" in step and before != "prune":
        return "release" if is_late else "extract"
    return None


def kill_at(lakes: Lakes, scenario: str, step: str, folder: Path) -> Kill:
    """Kill a run at a step, in a copy of the scenario's lake in `folder`; heal it and compare."""
    kill = _killed_and_healed(lakes, scenario, f"at `{step}`", folder, Fault(f"^{re.escape(step)}$"), None)
    assert kill is not None
    return kill


def kill_after(lakes: Lakes, scenario: str, seconds: float, folder: Path) -> Kill | None:
    """Kill a run some seconds after it first wrote to the lake; None where it was done before."""
    return _killed_and_healed(lakes, scenario, f"after {seconds:.3f} s", folder, None, seconds)


def _killed_and_healed(
    lakes: Lakes, scenario: str, how: str, folder: Path, fault: Fault | None, seconds: float | None
) -> Kill | None:
    begin = time.perf_counter()
    lake = lakes.copy(lakes.before(scenario), folder / "lake")
    record = folder / "steps"
    arguments = ["refresh", *lakes.flags(scenario, lake)]
    problems: list[str] = []
    with reading(lake) as seen:
        child = start(arguments, folder / "killed", record, fault)
        if seconds is not None:
            wait_for_steps(record)
            child.join(seconds)
            if child.exitcode is None and child.pid is not None:
                os.kill(child.pid, signal.SIGKILL)
        child.join()
        if seconds is not None and child.exitcode == 0:
            shutil.rmtree(folder)
            return None
        if child.exitcode != -signal.SIGKILL:
            problems.append(f"the run to be killed ended with {child.exitcode}: {said(folder / 'killed')}")
        problems += heal(lakes, scenario, lake, folder / "healed")
    problems += differences(lake, lakes.after(scenario)) + reader_problems(seen)
    kill = Kill(
        scenario=scenario,
        how=how,
        phase=phase(record.read_text(encoding="utf-8").splitlines()),
        seconds=time.perf_counter() - begin,
        problems=tuple(problems),
        looks=seen.looks,
        releases=len(seen.releases),
    )
    if not problems:
        shutil.rmtree(folder)
    return kill


def heal(lakes: Lakes, scenario: str, lake: Path, where: Path) -> list[str]:
    """A plain refresh; what is wrong with how it ended."""
    child = start(["refresh", *lakes.flags(scenario, lake)], where)
    child.join()
    return [] if child.exitcode == 0 else [f"the healing run ended with {child.exitcode}: {said(where)}"]


def reader_problems(seen: Seen) -> list[str]:
    """What a reader met, and whether it read at all."""
    problems = [f"reader: {problem}" for problem in seen.problems]
    return problems if seen.looks and seen.releases else [*problems, "reader: saw no release"]


def said(where: Path) -> str:
    """What a child said on stderr, in one line."""
    return " ".join(where.with_suffix(".err").read_text(encoding="utf-8").split()) or "(nothing)"


def wait_for_steps(record: Path) -> None:
    """Wait until a child has done its first step in the lake."""
    deadline = time.monotonic() + 120
    while not record.is_file() or record.stat().st_size == 0:
        if time.monotonic() > deadline:
            raise TimeoutError("the child does nothing")
        time.sleep(0.002)


def working_seconds(lakes: Lakes, scenario: str, folder: Path) -> float:
    """How long an undisturbed run works, from its first step in the lake to its end."""
    lake = lakes.copy(lakes.before(scenario), folder / "lake")
    child = start(["refresh", *lakes.flags(scenario, lake)], folder / "measured", folder / "steps")
    wait_for_steps(folder / "steps")
    begin = time.perf_counter()
    child.join()
    seconds = time.perf_counter() - begin
    shutil.rmtree(folder)
    return seconds


def chosen(steps: Sequence[str], which: str, choice: random.Random) -> list[str]:
    """The steps to kill at: "all"; "distinct": the first of each name; a number: so many of the distinct ones.

    Not at a sync: what other processes see is the same before and after it, so that the next step covers it.
    """
    steps = [step for step in steps if not step.startswith("os.fsync")]
    distinct = [step for step in steps if " #" not in step]
    if which == "all":
        return list(steps)
    if which == "distinct":
        return distinct
    picked = set(choice.sample(range(len(distinct)), min(int(which), len(distinct))))
    return [step for index, step in enumerate(distinct) if index in picked]
