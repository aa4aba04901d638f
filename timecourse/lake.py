"""The lake on disk: where things lie, and how an extraction is committed.

An extraction is written in `.incoming`, gated, renamed to its immutable place; it counts from the moment its one commit
file is replaced. Whatever no commit names does not exist for the warehouse, and a later run removes it.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from slugify import slugify

from timecourse.checks import CheckResult
from timecourse.errors import UserError
from timecourse.extract.raw import SCHEMA_VERSION

COMMIT_VERSION = SCHEMA_VERSION
"""A commit's version is that of the raw tables that it lists. All versions up to this one are read."""
SERIES_VERSION = 1


class LockedError(UserError):
    """Another run holds the lake."""

    exit_code = 75


@dataclass(frozen=True)
class Commit:
    """One committed extraction, or what silencing components of one did (an ablation), as its commit file says."""

    path: Path
    content: Mapping[str, Any]

    @property
    def checkpoint_id(self) -> str:
        """`<series>/<checkpoint name>`."""
        return str(self.content["checkpoint_id"])

    @property
    def extraction_id(self) -> str:
        """Which extraction is the committed one."""
        return str(self.content["extraction_id"])

    @property
    def checks(self) -> list[CheckResult]:
        """What the gate said before the commit."""
        return [CheckResult(**check) for check in self.content["checks"]]


class Lake:
    """A directory with raw extractions, commits, the build database and releases."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def _folders(self) -> dict[str, Path]:
        names = (".incoming", ".unfinished", "raw", "commits", "ablations", "series", "build", "releases")
        return {name: self.root / name for name in names}

    @property
    def build(self) -> Path:
        """dbt's build database and logs: a cache."""
        return self._folders["build"]

    @property
    def releases(self) -> Path:
        """Published releases."""
        return self._folders["releases"]

    def create(self) -> None:
        """Make the lake's folders where they are missing."""
        for folder in self._folders.values():
            folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lake for writing. Raises LockedError at once where another run holds it."""
        self.create()
        try:
            with FileLock(self.root / ".lock", timeout=0):
                self._remove(self._folders[".incoming"].iterdir())
                yield
        except Timeout as error:
            raise LockedError(f"another run is writing to the lake {str(self.root)!r}; wait for it to end") from error

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """A new folder for something that is being written; gone afterwards unless it was moved away."""
        folder = self._folders[".incoming"] / uuid.uuid4().hex
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def unfinished(self, name: str) -> Iterator[Path]:
        """A folder whose content outlives a run that is interrupted; gone once the block is done."""
        folder = self._folders[".unfinished"] / name
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        shutil.rmtree(folder)

    def commits(self) -> list[Commit]:
        """All extractions, sorted by file. Raises UserError for one that cannot be read or is of a newer version."""
        return self._read("commits")

    def ablations(self) -> list[Commit]:
        """The ablations of committed extractions, at most one of each; raises as `commits` does."""
        committed = {commit.extraction_id for commit in self.commits()}
        return [ablation for ablation in self._read("ablations") if ablation.extraction_id in committed]

    def _read(self, kind: Literal["commits", "ablations"]) -> list[Commit]:
        found = []
        for path in sorted(self._folders[kind].glob("*/*.json")):
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                version = content["schema_version"]
            except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
                raise UserError(
                    f"the commit file {path.relative_to(self.root)} is damaged; remove it to extract anew"
                ) from error
            if version not in range(1, COMMIT_VERSION + 1):
                raise UserError(
                    f"the commit file {path.relative_to(self.root)} has schema version {version}; this version of "
                    f"timecourse reads up to {COMMIT_VERSION}"
                )
            found.append(Commit(path, content))
        return found

    def commit(
        self,
        incoming: Path,
        *,
        series_id: str,
        checkpoint_name: str,
        extraction_id: str,
        inputs: Mapping[str, Any],
        rows: Mapping[str, int],
        checks: list[CheckResult],
    ) -> None:
        """Move a gated extraction to its place and make it the committed one of its checkpoint."""
        content = {
            "schema_version": COMMIT_VERSION,
            "series_id": series_id,
            "checkpoint_id": f"{series_id}/{checkpoint_name}",
            "checkpoint_name": checkpoint_name,
            "extraction_id": extraction_id,
            **self._keep(incoming, self._place(series_id, checkpoint_name) / extraction_id, rows),
            "inputs": inputs,
            "checks": [asdict(check) for check in checks],
        }
        replace_text(self.commit_path(series_id, checkpoint_name), json.dumps(content, indent=1, ensure_ascii=False))

    def commit_ablation(
        self,
        incoming: Path,
        extraction: Commit,
        *,
        ablation_id: str,
        inputs: Mapping[str, Any],
        rows: Mapping[str, int],
        checks: list[CheckResult],
    ) -> None:
        """Move what silencing components did to its place, and make it the committed ablation of its extraction."""
        names = {name: extraction.content[name] for name in ("series_id", "checkpoint_id", "checkpoint_name")}
        place = self._place(names["series_id"], names["checkpoint_name"])
        content = {
            "schema_version": COMMIT_VERSION,
            **names,
            "extraction_id": extraction.extraction_id,
            "ablation_id": ablation_id,
            **self._keep(incoming, place / f"{extraction.extraction_id}-{ablation_id}", rows),
            "inputs": inputs,
            "checks": [asdict(check) for check in checks],
        }
        path = self._folders["ablations"] / extraction.path.relative_to(self._folders["commits"])
        replace_text(path, json.dumps(content, indent=1, ensure_ascii=False))

    def _place(self, series_id: str, checkpoint_name: str) -> Path:
        return self._folders["raw"] / slug(series_id) / slug(checkpoint_name)

    def _keep(self, incoming: Path, place: Path, rows: Mapping[str, int]) -> dict[str, Any]:
        """Move a folder of raw tables to its place; what a commit file says of them."""
        files = {
            name: {
                "path": f"{name}.parquet",
                "rows": count,
                "bytes": (incoming / f"{name}.parquet").stat().st_size,
                "sha256": sha256_of(incoming / f"{name}.parquet"),
            }
            for name, count in sorted(rows.items())
        }
        sync_tree(incoming)
        if place.exists():  # left by a run that was killed between the move and the commit
            shutil.rmtree(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        incoming.rename(place)
        sync(place.parent)
        return {
            "committed_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "directory": str(place.relative_to(self.root)),
            "files": files,
        }

    def commit_path(self, series_id: str, checkpoint_name: str) -> Path:
        """The one file that says which extraction of a checkpoint counts."""
        return self._folders["commits"] / slug(series_id) / f"{slug(checkpoint_name)}.json"

    def withdraw(self, checkpoint_id: str) -> None:
        """Remove a checkpoint's commit: the next build no longer holds it."""
        for commit in self.commits():
            if commit.checkpoint_id == checkpoint_id:
                commit.path.unlink()
                sync(commit.path.parent)
                return
        raise UserError(f"no committed checkpoint is called {checkpoint_id!r}; see `timecourse status`")

    def declare_series(
        self,
        series_id: str,
        *,
        complete: bool,
        recipe_id: str | None = None,
        duplicates: Literal["warn", "fail"] = "warn",
        checkpoints: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Remember what a series' sources offer, and whether more is to come: until then its reference is provisional.

        `recipe_id` is shared by runs of one recipe with other seeds; `duplicates` says what names that serve another
        checkpoint's weights do to a release. `checkpoints`: one mapping per name, in the order of training (the fields:
        docs/warehouse.md).
        """
        content = {
            "schema_version": SERIES_VERSION,
            "series_id": series_id,
            "complete": complete,
            "recipe_id": recipe_id,
            "duplicates": duplicates,
            "checkpoints": [dict(checkpoint) for checkpoint in checkpoints],
        }
        path = self._folders["series"] / f"{slug(series_id)}.json"
        text = json.dumps(content, indent=1, ensure_ascii=False)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            replace_text(path, text)

    def declarations(self) -> list[dict[str, Any]]:
        """What every series' sources offered at its last refresh, by series; the checkpoints by their position.

        A file of an earlier version says only whether the series is complete. Raises UserError for one that cannot be
        read or is of a newer version.
        """
        found = []
        for path in self._folders["series"].glob("*.json"):
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                version = content.get("schema_version", SERIES_VERSION)
                found.append(
                    {
                        "series_id": content["series_id"],
                        "complete": content["complete"],
                        "recipe_id": content.get("recipe_id"),
                        "duplicates": content.get("duplicates", "warn"),
                        "checkpoints": sorted(content.get("checkpoints", ()), key=lambda one: one["position"]),
                    }
                )
            except (json.JSONDecodeError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
                raise UserError(
                    f"the series file {path.relative_to(self.root)} is damaged; remove it and refresh the series"
                ) from error
            if version != SERIES_VERSION:
                raise UserError(
                    f"the series file {path.relative_to(self.root)} has schema version {version}; this version of "
                    f"timecourse reads {SERIES_VERSION}"
                )
        return sorted(found, key=lambda series: str(series["series_id"]))

    def complete_series(self) -> list[str]:
        """The series that were declared complete."""
        return [series["series_id"] for series in self.declarations() if series["complete"]]

    def prune(self) -> None:
        """Remove extractions and ablations that no commit names."""
        commits = [*self._read("commits"), *self._read("ablations")]
        named = {self.root / commit.content["directory"] for commit in commits}
        self._remove(path for path in self._folders["raw"].glob("*/*/*") if path not in named)

    def current_release(self) -> Path:
        """The folder of the current release, resolved once. Raises UserError where nothing was released."""
        link = self.root / "current"
        if not link.is_symlink():
            raise UserError(f"the lake {str(self.root)!r} holds no release yet; run `timecourse refresh`")
        return self.root / link.readlink()

    @staticmethod
    def _remove(paths: Iterator[Path]) -> None:
        for path in list(paths):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def slug(name: str) -> str:
    """A safe folder name that stays unique: the sanitised name and 8 hex digits of its hash."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{slugify(name, max_length=60, lowercase=False) or 'name'}-{digest}"


def sha256_of(file: Path) -> str:
    """Hash of a file's content."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Ask the system to put a file or a folder's entries on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Sync every file and folder below `folder`, and itself."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def replace_text(path: Path, text: str) -> None:
    """Replace a file atomically: whoever opens it sees the old text or the new one, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    sync(beside)
    beside.replace(path)
    sync(path.parent)
