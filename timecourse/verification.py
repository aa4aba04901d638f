"""Reading the lake again: is every file there, whole, and as it was written, and is nothing else there?"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from timecourse.errors import UserError
from timecourse.lake import Commit, Lake
from timecourse.lake.commits import read_content
from timecourse.releases import list_releases

_FREE = ("build", "logs", ".locks", ".unfinished")
"""Folders whose content is a cache, or only says what happened."""


@dataclass
class Verification:
    """What was found: a line per problem, each naming a file."""

    problems: list[str] = field(default_factory=list)
    file_count: int = 0


def verify(lake: Lake) -> Verification:
    """Read all raw tables, commits, declarations and releases. Raises UserError where there is no lake.

    What a run is writing at the moment is foreign to it: verify when none is at work.
    """
    if not (lake.root / "commits").is_dir():
        raise UserError(f"there is no lake at {str(lake.root)!r}; name one with --lake")
    found = Verification()
    expected = {path for folder in _FREE for path in _files(lake.root / folder)}
    for kind in ("commits", "ablations"):
        for path in sorted((lake.root / kind).glob("*/*.json")):
            expected.add(path)
            try:
                commit = Commit(path, read_content(lake.root, path, "commit"))
            except UserError as error:
                found.problems.append(str(error))
                continue
            place = lake.root / commit.content["directory"]
            expected |= {place / file["path"] for file in commit.content["files"].values()}
            found.problems += [f"{path.relative_to(lake.root)}: {line}" for line in lake.damages(commit)]
    for folder, kind in (("series", "series"), ("quarantine", "quarantine")):
        for path in sorted((lake.root / folder).rglob("*.json")):
            expected.add(path)
            try:
                read_content(lake.root, path, kind)  # type: ignore[arg-type]
            except UserError as error:
                found.problems.append(str(error))
    readable = list_releases(lake)
    for release in readable:
        expected |= {release.path / "release.json", *(release.path / file for file in release.manifest["files"])}
        found.problems += release.damages()
    for path in sorted(lake.releases.iterdir()) if lake.releases.is_dir() else ():
        if path not in {release.path for release in readable}:
            expected |= set(_files(path))
            found.problems.append(f"releases/{path.name} is no whole release; `timecourse refresh` removes it")
    link = lake.root / "current"
    if link.is_symlink():
        expected.add(link)
        try:
            lake.current_release()
        except UserError as error:
            found.problems.append(str(error))
    foreign = sorted(set(_files(lake.root)) - expected)
    found.problems += [f"{path.relative_to(lake.root)} is foreign: nothing in the lake names it" for path in foreign]
    found.file_count = len(expected)
    return found


def _files(folder: Path) -> Iterator[Path]:
    """The files and links below a folder; links are not followed."""
    return (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
