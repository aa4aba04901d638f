"""The releases of a lake: which there are, which one is current, and how many are kept."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from timecourse.errors import UserError
from timecourse.lake import Lake
from timecourse.lake.files import damage, remove, sync


@dataclass(frozen=True)
class Release:
    """A folder that was published whole: an immutable warehouse, its parquet copies and its report."""

    path: Path

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """What release.json says."""
        content: dict[str, Any] = json.loads((self.path / "release.json").read_text(encoding="utf-8"))
        return content

    @property
    def order(self) -> tuple[int, str]:
        """Later releases are greater, whatever the clock said; releases of earlier versions have only the clock."""
        return int(self.manifest.get("sequence", 0)), str(self.manifest["created_at"])

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(int(file["bytes"]) for file in self.manifest["files"].values())

    def damages(self) -> list[str]:
        """The files that are missing, torn or altered, a line each: every file is read."""
        found = {
            path: damage(self.path / path, file["bytes"], file["sha256"])
            for path, file in self.manifest["files"].items()
        }
        place = Path(self.path.parent.name, self.path.name)
        return [f"{place / path} is {what}" for path, what in found.items() if what is not None]


def list_releases(lake: Lake) -> list[Release]:
    """Every release whose manifest can be read, the newest first."""
    found = []
    for path in lake.releases.glob("[!.]*"):
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            release = Release(path)
            _ = release.order, release.bytes, release.manifest["input_sha256"], release.manifest["extractions"]
            found.append(release)
    return sorted(found, key=lambda release: release.order, reverse=True)


def current(lake: Lake) -> Release | None:
    """The release that `current` names; None where there is none, or it is gone."""
    with suppress(UserError):
        return Release(lake.current_release())
    return None


def find_release(lake: Lake, name: str) -> Release:
    """A release by its id, or by a beginning of it that no other has; `current` and `previous` are names too.

    Raises UserError for a name that is none.
    """
    releases = list_releases(lake)
    now = current(lake)
    if name == "current" and now is not None:
        return now
    if name == "previous" and now is not None:
        earlier = [release for release in releases if release.order < now.order]
        if earlier:
            return earlier[0]
    found = [release for release in releases if name and release.path.name.startswith(name)]
    exact = [release for release in found if release.path.name == name]
    if len(exact or found) == 1:
        return (exact or found)[0]
    known = ", ".join(release.path.name for release in releases) or "none"
    raise UserError(f"{'several releases begin' if found else 'no release is called'} {name!r}; there are: {known}")


def point_current_at(lake: Lake, release: Path) -> None:
    """Let readers see this release from now on; those that resolved `current` before keep the one they have."""
    with lake.incoming() as folder:
        beside = folder / "current"
        beside.symlink_to(Path("releases", release.name))
        beside.replace(lake.root / "current")
    sync(lake.root)


def roll_back(lake: Lake, name: str) -> Release:
    """Make an earlier release the current one. It stays that until something new is released.

    Raises UserError for a name that is none, and for a release whose files are damaged.
    """
    release = find_release(lake, name)
    if damages := release.damages():
        raise UserError(f"{release.path.name} cannot be used: {damages[0]}; name another release")
    point_current_at(lake, release.path)
    return release


def prune_releases(lake: Lake, keep: int) -> list[str]:
    """Remove all but the newest `keep` releases, the current one and what is no release; returns the names removed.

    A release leaves its place at once and whole; whoever has a file of it open keeps that file.
    """
    releases = list_releases(lake)
    kept = {release.path.name for release in releases[:keep]}
    if (now := current(lake)) is not None:
        kept.add(now.path.name)
    removed = []
    for path in sorted(lake.releases.iterdir()):
        if path.name not in kept:
            with lake.incoming() as folder:
                path.rename(folder / path.name)
                sync(lake.releases)
                remove(folder / path.name)
            removed.append(path.name)
    return removed
