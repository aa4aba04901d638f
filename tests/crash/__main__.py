"""The whole crash test: kills runs at every step and at random moments, and prints what came of it as Markdown.

Exits 1 where a run that was healed differs from one that was never disturbed, or a reader saw something broken; then
the lakes are kept, and the summary says how to kill at the same place again.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from tests.crash.kills import PHASES, Kill, chosen, kill_after, kill_at, working_seconds
from tests.crash.lakes import SCENARIOS, Lakes, differences, make_lakes, timecourse


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="how many at random moments of runs that are working")
    parser.add_argument("--failpoints", default="distinct", metavar="all|distinct|NUMBER", help="the steps to kill at")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments")
    parser.add_argument("--workers", type=int, default=2, help="runs at the same time")
    parser.add_argument(
        "--again", action="append", default=[], metavar="SCENARIO:STEP|SCENARIO:SECONDS", help="only this"
    )
    parser.add_argument("--output", type=Path, help="JSON file to write every kill to")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="timecourse-crash-"))
    begin = time.perf_counter()
    lakes = make_lakes(folder / "lakes")
    problems = _undisturbed_again(lakes, folder / "again")
    choice = random.Random(given.seed)
    with ThreadPoolExecutor(given.workers) as pool:
        measured = pool.map(lambda one: working_seconds(lakes, one, folder / one), SCENARIOS)
        working = dict(zip(SCENARIOS, measured, strict=True))
        wanted: list[tuple[str, str | float | None]] = [_wanted(one) for one in given.again]
        if not wanted:
            for scenario in SCENARIOS:
                wanted += [(scenario, step) for step in chosen(lakes.steps(scenario), given.failpoints, choice)]
            wanted += [(SCENARIOS[index % len(SCENARIOS)], None) for index in range(given.kills)]
        jobs = [
            pool.submit(
                _kill, lakes, scenario, at, working[scenario], choice.randrange(2**32), folder / f"kill-{index}"
            )
            for index, (scenario, at) in enumerate(wanted)
        ]
        for done, job in enumerate(as_completed(jobs), start=1):
            kill = job.result()
            state = "; ".join(kill.problems) or "healed"
            sys.stderr.write(f"{done}/{len(jobs)} {kill.scenario} {kill.how} ({kill.phase}): {state}\n")
        kills = [job.result() for job in jobs]
    seconds = time.perf_counter() - begin
    sys.stdout.write(_summary(kills, problems, working, seconds))
    if given.output is not None:
        content = {"seed": given.seed, "seconds": seconds, "working_seconds": working, "problems": problems}
        content |= {"kills": [asdict(kill) for kill in kills]}
        given.output.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    if problems or any(kill.problems for kill in kills):
        sys.stdout.write(f"\nthe lakes are kept in {folder}\n")
        sys.exit(1)
    shutil.rmtree(folder)


def _undisturbed_again(lakes: Lakes, folder: Path) -> list[str]:
    """Whether a second undisturbed run, started as a user starts it, gives the same: else nothing can be compared."""
    lake = folder / "lake"
    found = []
    for scenario in SCENARIOS:
        if scenario == "next":
            found.append(timecourse("withdraw", "s/step2", "--lake", lake))
        found.append(timecourse("refresh", *lakes.flags(scenario, lake)))
        if any(one.returncode for one in found):
            return [f"an undisturbed run ended with {found[-1].returncode}: {found[-1].stderr}"]
        if other := differences(lake, lakes.after(scenario)):
            return [f"two undisturbed runs of the scenario {scenario!r} differ: {one}" for one in other]
    return []


def _wanted(again: str) -> tuple[str, str | float]:
    scenario, _, at = again.partition(":")
    return scenario, float(at) if at.replace(".", "", 1).isdigit() else at


def _kill(lakes: Lakes, scenario: str, at: str | float | None, working: float, seed: int, folder: Path) -> Kill:
    """Kill at a step, after some seconds, or at a moment drawn from all of the time that the run works."""
    if isinstance(at, str):
        return kill_at(lakes, scenario, at, folder)
    choice = random.Random(seed)
    for _ in range(20):
        if kill := kill_after(lakes, scenario, choice.uniform(0, working) if at is None else at, folder):
            return kill
    raise RuntimeError(f"the runs of {scenario!r} are done before they can be killed")


def _summary(kills: Sequence[Kill], problems: Sequence[str], working: dict[str, float], seconds: float) -> str:
    at_steps = Counter((kill.scenario, kill.phase) for kill in kills if kill.how.startswith("at"))
    at_moments = Counter((kill.scenario, kill.phase) for kill in kills if kill.how.startswith("after"))
    lines = ["| scenario | killed in | at a step | at a random moment | healed |", "|---|---|---|---|---|"]
    for scenario in SCENARIOS:
        for phase in PHASES:
            key = (scenario, phase)
            healed = sum((kill.scenario, kill.phase) == key and not kill.problems for kill in kills)
            if at_steps[key] + at_moments[key]:
                lines.append(f"| {scenario} | {phase} | {at_steps[key]} | {at_moments[key]} | {healed} |")
    healed = sum(not kill.problems for kill in kills)
    lines += [
        f"| all | | {at_steps.total()} | {at_moments.total()} | {healed} |",
        "",
        f"An undisturbed run works {', '.join(f'{spent:.1f} s ({name})' for name, spent in working.items())}; all took "
        f"{seconds:.0f} s. Readers looked {sum(kill.looks for kill in kills)} times.",
    ]
    lines += [f"- {problem}" for problem in problems]
    for kill in kills:
        if kill.problems:
            at = kill.how.removeprefix("at `").removesuffix("`").removeprefix("after ").removesuffix(" s")
            lines += ["", f"{kill.scenario}, killed {kill.how} ({kill.phase}):"]
            lines += [*(f"- {problem}" for problem in kill.problems)]
            lines += [f"- again: `python -m tests.crash --again '{kill.scenario}:{at}'`"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
