"""The releases of a lake: which there are, which one is current, and how many are kept."""

import json
from collections.abc import Collection, Mapping
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
    found = [release for path in lake.releases.glob("[!.]*") if (release := _readable(path)) is not None]
    return sorted(found, key=lambda release: release.order, reverse=True)


def current(lake: Lake) -> Release | None:
    """The release that `current` names; None where there is none, it is gone, or its manifest cannot be read."""
    with suppress(UserError):
        return _readable(lake.current_release())
    return None


def _readable(path: Path) -> Release | None:
    """The release in a folder; None where its manifest is missing, torn or says too little."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        release = Release(path)
        manifest = release.manifest
        _ = release.order, release.bytes, manifest["input_sha256"], dict(manifest["extractions"])
        _ = [Path(name, str(file["sha256"])) for name, file in manifest["files"].items()]
        return release
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


def prune_releases(lake: Lake, keep: int, damaged: Collection[Path] = ()) -> list[str]:
    """Remove all but the newest `keep` releases and the current one; returns the names removed.

    What is no release goes too, and what is `damaged` unless it is the current one. A release leaves its place at once
    and whole; whoever has a file of it open keeps that file.
    """
    releases = [release for release in list_releases(lake) if release.path not in damaged]
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
