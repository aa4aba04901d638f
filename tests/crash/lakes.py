"""Tiny series, the lakes that undisturbed runs make of them, and what may differ between one of these and another lake.

first: three checkpoints come into an empty lake
next:  step1 has other weights, step2 was withdrawn, step0 is offered no more and stays committed, step3 is new
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from tests.conftest import FACTS, save_checkpoint

SERIES = "s"
SCENARIOS = ("first", "next")
ROOT = Path(__file__).parents[2]

VARYING_COLUMNS: dict[str, dict[str, str]] = {}
"""Mart -> column -> why two undisturbed runs differ in it."""

NEEDS_NO_RELEASE_BEFORE = "check_id <> 'release.dim_checkpoints.nothing_is_lost'"
"""Leaves out the check that a first release has not; one that takes a damaged one's place has it."""

MODEL = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 32}


@dataclass(frozen=True)
class Lakes:
    """A folder with what crash tests start from and compare with. Copy before changing.

    checkpoints/<scenario>, facts; before/<scenario>: the lake that a run starts from; after/<scenario>: the one that an
    undisturbed run leaves behind, and after/<scenario>.steps: its steps.
    """

    folder: Path

    def flags(self, scenario: str, lake: Path) -> list[str]:
        """How timecourse is called; `refresh` with these is the whole of a scenario."""
        return [
            *("--checkpoints", str(self.folder / "checkpoints" / scenario), "--facts", str(self.folder / "facts")),
            *("--series", SERIES, "--tau", "0.1", "--lake", str(lake)),
            *("--set", "roles.theta=0.3", "--set", "statistics.replicates=50"),
        ]

    def before(self, scenario: str) -> Path:
        """The lake that the scenario's run starts from."""
        return self.folder / "before" / scenario

    def after(self, scenario: str) -> Path:
        """The lake that an undisturbed run leaves behind."""
        return self.folder / "after" / scenario

    def steps(self, scenario: str) -> list[str]:
        """The names of an undisturbed run's steps (tests.crash.child), in order."""
        return self.after(scenario).with_suffix(".steps").read_text(encoding="utf-8").splitlines()

    def copy(self, lake: Path, into: Path) -> Path:
        """A copy of a lake that may be changed."""
        return Path(shutil.copytree(lake, into, symlinks=True))


def timecourse(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, started as a user starts it."""
    return subprocess.run(
        [sys.executable, "-m", "timecourse.cli", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
    )


def make_lakes(folder: Path, scenarios: Sequence[str] = SCENARIOS) -> Lakes:
    """Save the checkpoints, and run the scenarios once undisturbed, in a child that records its steps."""
    from tests.crash.child import start

    lakes = Lakes(folder)
    _save_series(folder)
    for scenario in scenarios:
        before, after = lakes.before(scenario), lakes.after(scenario)
        after.parent.mkdir(exist_ok=True)
        if scenario == "first":
            before.mkdir(parents=True)
        else:
            lakes.copy(lakes.after("first"), before)
            withdrawn = start(["withdraw", f"{SERIES}/step2", "--lake", before], before.with_suffix(".withdrawn"))
            withdrawn.join()
            assert withdrawn.exitcode == 0, before.with_suffix(".err").read_text(encoding="utf-8")
        lakes.copy(before, after)
        child = start(["refresh", *lakes.flags(scenario, after)], after, after.with_suffix(".steps"))
        child.join()
        assert child.exitcode == 0, after.with_suffix(".err").read_text(encoding="utf-8")
    return lakes


def _save_series(folder: Path) -> None:
    first, following = folder / "checkpoints" / "first", folder / "checkpoints" / "next"
    for seed in range(3):
        save_checkpoint(first / f"step{seed}", seed=seed, **MODEL)
    save_checkpoint(following / "step1", seed=11, **MODEL)
    save_checkpoint(following / "step3", seed=13, **MODEL)
    (folder / "facts").mkdir()
    for name, (group, templates, samples) in FACTS.items():
        content = {
            "name": name,
            "group": group,
            "prompt_templates": templates[:1],
            "samples": [{"subject": subject, "object": answer} for subject, answer in samples[:3]],
        }
        (folder / "facts" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def differences(lake: Path, undisturbed: Path) -> list[str]:
    """In what a lake after a disturbed and a healing run is not as the one that was never disturbed; empty: in nothing.

    Compared are the marts of the current releases, row by row; what is committed; what the series' sources offered; and
    that nothing lies about that neither a commit nor a release names.
    """
    found = [*other_commits(lake, undisturbed), *leftovers(lake)]
    if {path.name for path in lake.iterdir()} != (names := {path.name for path in undisturbed.iterdir()}):
        found.append(f"the lake holds {sorted(path.name for path in lake.iterdir())}, not {sorted(names)}")
    if not (lake / "current").is_symlink():
        return [*found, "there is no current release"]
    mine, other = ((one / "current").resolve() for one in (lake, undisturbed))
    found += [f"current release: {problem}" for problem in release_problems(mine)]
    this, that = (read_json(one / "release.json") for one in (mine, other))
    for one in (this, that):
        del one["rows"]["fct_check_results"]  # compared below
    found += [
        f"release.json: {key} is {this.get(key)}, not {that.get(key)}"
        for key in ("rows", "extractions", "settings", "reference_checkpoints")
        if this.get(key) != that.get(key)
    ]
    return [*found, *_other_rows(mine / "warehouse.duckdb", other / "warehouse.duckdb")]


def lost(lake: Path, before: Path, after: Path) -> list[str]:
    """Which checkpoints that were committed before a disturbed run no longer are, as they were or as they shall be."""
    found = []
    then, aim, now = _committed(before), _committed(after), _committed(lake)
    for name in then:
        if name not in now or now[name] not in (then[name], aim.get(name)):
            found.append(f"{name} is {'lost' if name not in now else 'another one'}")
    return [*found, *(problem for problem in leftovers(lake) if problem.startswith("not as committed"))]


def other_commits(lake: Path, undisturbed: Path) -> list[str]:
    """In what the committed extractions and the series' declarations of two lakes differ."""
    mine, other = _committed(lake), _committed(undisturbed)
    found = [f"{name} is committed in one lake only" for name in sorted(mine.keys() ^ other.keys())]
    found += [f"{name}: another extraction" for name in sorted(mine.keys() & other.keys()) if mine[name] != other[name]]
    declared = [
        sorted(path.read_text(encoding="utf-8") for path in one.glob("series/*")) for one in (lake, undisturbed)
    ]
    return [*found, *(["the series' declarations differ"] if declared[0] != declared[1] else [])]


def _committed(lake: Path) -> dict[str, Any]:
    """{checkpoint: (extraction, hashes of its files)}; the table `checkpoint` says how long the extraction took."""
    return {
        content["checkpoint_id"]: (
            content["extraction_id"],
            {name: file["sha256"] for name, file in content["files"].items() if name != "checkpoint"},
        )
        for content in map(read_json, lake.glob("commits/*/*.json"))
    }


def leftovers(lake: Path) -> list[str]:
    """What lies in a lake and should not; which committed files are not as their commit says; broken releases."""
    found = [f"left over: {path.relative_to(lake)}" for path in lake.glob("**/.*.new")]
    for folder in (".incoming", ".unfinished"):
        found += [f"left over: {path.relative_to(lake)}" for path in (lake / folder).glob("*")]
    named: set[Path] = set()
    for content in map(read_json, lake.glob("commits/*/*.json")):
        for file in content["files"].values():
            path = lake / content["directory"] / file["path"]
            named.add(path)
            if not path.is_file() or sha256_of(path) != file["sha256"]:
                found.append(f"not as committed: {path.relative_to(lake)}")
    folders = {path.parent for path in named}
    raw = lake / "raw"
    found += [f"left over: {path.relative_to(lake)}" for path in raw.glob("*/*/*") if path not in folders]
    found += [f"left over: {path.relative_to(lake)}" for path in raw.rglob("*") if path.is_file() and path not in named]
    for release in (lake / "releases").glob("*"):
        found += [f"{release.relative_to(lake)}: {problem}" for problem in release_problems(release)]
    return found


def release_problems(release: Path) -> list[str]:
    """In what a release is not whole: files that release.json does not name, or that are not as it says."""
    if not (release / "release.json").is_file():
        return ["there is no release.json"]
    files = read_json(release / "release.json")["files"]
    there = {str(path.relative_to(release)) for path in release.rglob("*") if path.is_file()} - {"release.json"}
    found = [f"{name} is in only one of folder and release.json" for name in sorted(there ^ files.keys())]
    changed = [name for name in sorted(there & files.keys()) if sha256_of(release / name) != files[name]["sha256"]]
    return [*found, *(f"{name} is not as release.json says" for name in changed)]


def _other_rows(warehouse: Path, undisturbed: Path) -> list[str]:
    """Which marts differ in a row, and in how many; rows that are there twice count twice."""
    found = []
    with duckdb.connect() as connection:
        for name, path in (("mine", warehouse), ("other", undisturbed)):
            connection.execute(f"attach '{path}' as {name} (read_only)")
        columns: dict[str, dict[str, list[str]]] = {"mine": {}, "other": {}}
        query = "select database_name, table_name, column_name from duckdb_columns() where not internal order by all"
        for database, mart, column in connection.execute(query).fetchall():
            if column not in VARYING_COLUMNS.get(mart, {}):
                columns[database].setdefault(mart, []).append(f'"{column}"')
        if columns["mine"] != columns["other"]:
            return ["the marts' names or columns differ"]
        for mart, names in columns["mine"].items():
            where = f"where {NEEDS_NO_RELEASE_BEFORE}" if mart == "fct_check_results" else ""
            mine, other = (f"select {', '.join(names)} from {one}.main.{mart} {where}" for one in ("mine", "other"))
            for those, others, what in ((mine, other, "rows too many"), (other, mine, "rows missing")):
                rows = connection.execute(f"select count(*) from ({those} except all {others})").fetchone()
                if rows != (0,):
                    found.append(f"{mart}: {rows[0] if rows else '?'} {what}")
    return found


def sha256_of(file: Path) -> str:
    """Hash of a file's content."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def read_json(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8")))
