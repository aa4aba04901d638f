"""The lake on disk: where things lie, and how an extraction is committed.

An extraction is written in `.incoming`, gated, renamed to its immutable place; it counts from the moment its one commit
file is replaced. Whatever no commit names does not exist for the warehouse, and a later run removes it. Commits are
made under the lock of their checkpoint; everything else but a series' declaration under the lock of the lake.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, fields
from datetime import UTC, datetime
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from timecourse.checks import CheckResult
from timecourse.errors import UserError
from timecourse.lake.commits import (
    COMMIT_VERSION,
    QUARANTINE_VERSION,
    SERIES_VERSION,
    Commit,
    Contents,
    NewerVersionError,
    Quarantined,
    read_content,
)
from timecourse.lake.files import damage, make_folder, remove, row_count, sha256_of, slug, sync, sync_tree
from timecourse.lake.locks import WRITER, LockedError, Locks

__all__ = ["Commit", "Contents", "Lake", "LockedError", "Quarantined"]

_PARTS = "parts"
"""The lock under which finished parts are put in their place and taken away, for moments only."""


class Lake:
    """A directory with raw extractions, commits, the build database and releases."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.locks = Locks(root)

    @cached_property
    def _folders(self) -> dict[str, Path]:
        names = (
            ".incoming", ".unfinished", "raw", "commits", "ablations", "series", "quarantine", "build", "releases",
            "logs",
        )  # fmt: skip
        return {name: self.root / name for name in names}

    @property
    def build(self) -> Path:
        """dbt's build database and logs: a cache."""
        return self._folders["build"]

    @property
    def releases(self) -> Path:
        """Published releases."""
        return self._folders["releases"]

    @property
    def logs(self) -> Path:
        """What runs did, as JSON lines: a file a month."""
        return self._folders["logs"]

    def create(self) -> None:
        """Make the lake's folders where they are missing."""
        for folder in self._folders.values():
            make_folder(folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lake for building and releasing. Raises LockedError at once where another run holds it."""
        self.create()
        with self.locks.writer(str(self.root)):
            self.locks.remove_leftovers()
            yield

    def claim(self, series_id: str, checkpoint_name: str, part: str = "") -> FileLock | None:
        """Hold a checkpoint or a part of its extraction until `release` is called; None where another process does."""
        return self.locks.take(_claim(series_id, checkpoint_name, part))

    def claimed_by(self, series_id: str, checkpoint_name: str, part: str = "") -> str:
        """Which process holds a checkpoint or a part, in words."""
        return self.locks.holder(_claim(series_id, checkpoint_name, part))

    def incoming_extraction(self, series_id: str, checkpoint_name: str, part: str = "") -> AbstractContextManager[Path]:
        """A new folder for what is measured at a checkpoint, for the process that holds its claim, or the part's."""
        return self.locks.incoming(_claim(series_id, checkpoint_name, part))

    def parts(self, series_id: str, checkpoint_name: str, extraction_id: str) -> Path:
        """Where the finished parts of an extraction wait for the others."""
        return self._folders[".unfinished"] / f"{_claim(series_id, checkpoint_name)}.{extraction_id}"

    def keep_part(self, incoming: Path, place: Path) -> None:
        """Move a finished part to its place among the others."""
        sync_tree(incoming)
        with self.locks.waiting(_PARTS):
            make_folder(place.parent)
            incoming.rename(place)
            sync(place.parent)

    def remove_parts(self, series_id: str, checkpoint_name: str, extraction_id: str, part: str = "") -> None:
        """Remove the parts of an extraction, or one of them, as the process that holds the checkpoint's claim."""
        place = self.parts(series_id, checkpoint_name, extraction_id) / part
        self._remove_parts(_claim(series_id, checkpoint_name), place)

    def _remove_parts(self, claim: str, place: Path) -> None:
        """Moved away first: a part is whole or not there, also after a crash."""
        if place.is_dir():
            with self.locks.incoming(claim) as aside, self.locks.waiting(_PARTS), suppress(FileNotFoundError):
                place.rename(aside / place.name)

    def incoming(self) -> AbstractContextManager[Path]:
        """A new folder for something else that is being written, for the process that holds the lake."""
        return self.locks.incoming(WRITER)

    @contextmanager
    def unfinished(self, name: str) -> Iterator[Path]:
        """A folder whose content outlives a run that is interrupted; gone once the block is done."""
        folder = self._folders[".unfinished"] / name
        make_folder(folder)
        yield folder
        remove(folder)

    def contents(self) -> Contents:
        """Everything that decides what a build gives. Raises UserError for a file that cannot be read."""
        commits = self.commits()
        return Contents(commits, self._ablations_of(commits), self.declarations(), self.quarantined())

    def commits(self) -> list[Commit]:
        """All extractions, sorted by file. Raises UserError for one that cannot be read or is of a newer version."""
        return [Commit(path, read_content(self.root, path, "commit")) for path in self._paths("commits")]

    def readable_commits(self) -> tuple[list[Commit], dict[Path, str]]:
        """The extractions whose commit file can be read, and why the others cannot.

        Raises NewerVersionError for one of a newer version, which nothing may take the place of.
        """
        found, damaged = [], {}
        for path in self._paths("commits"):
            try:
                found.append(Commit(path, read_content(self.root, path, "commit")))
            except NewerVersionError:
                raise
            except UserError as error:
                damaged[path] = str(error)
        return found, damaged

    def ablations(self) -> list[Commit]:
        """The ablations of committed extractions, at most one of each; raises as `commits` does."""
        return self._ablations_of(self.commits())

    def _ablations_of(self, commits: Sequence[Commit]) -> list[Commit]:
        committed = {commit.extraction_id for commit in commits}
        ablations = [Commit(path, read_content(self.root, path, "commit")) for path in self._paths("ablations")]
        return [ablation for ablation in ablations if ablation.extraction_id in committed]

    def _paths(self, kind: Literal["commits", "ablations", "quarantine"]) -> list[Path]:
        return sorted(self._folders[kind].glob("*/[!.]*.json"))

    def damages(self, commit: Commit) -> list[str]:
        """The files of a commit that are missing, torn or altered, a line each: every file is read."""
        place = Path(commit.content["directory"])
        if not place.name.startswith(commit.extraction_id):  # a folder is named after what it holds, see _keep
            return [f"{commit.path.relative_to(self.root)} is altered: its extraction is not that of its folder"]
        lines = []
        for file in commit.content["files"].values():
            path = place / file["path"]
            if what := damage(self.root / path, file["bytes"], file["sha256"]):
                lines.append(f"{path} is {what}")
            elif row_count(self.root / path) != file["rows"]:
                lines.append(f"{commit.path.relative_to(self.root)} is altered: it counts other rows than {path} has")
        return lines

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
        """Move a gated extraction to its place and make it the committed one of its checkpoint.

        The checkpoint is no longer set aside then.
        """
        content = {
            "schema_version": COMMIT_VERSION,
            "series_id": series_id,
            "checkpoint_id": f"{series_id}/{checkpoint_name}",
            "checkpoint_name": checkpoint_name,
            "extraction_id": extraction_id,
            **self._keep(incoming, self._place(series_id, checkpoint_name), extraction_id, rows),
            "inputs": inputs,
            "checks": [asdict(check) for check in checks],
        }
        self._replace(self.commit_path(series_id, checkpoint_name), content, _claim(series_id, checkpoint_name))
        self._quarantine_path(series_id, checkpoint_name).unlink(missing_ok=True)
        self.remove_parts(series_id, checkpoint_name, extraction_id)

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
        """Move what silencing components did to its place, and make it the committed ablation of its extraction.

        For the process that holds the checkpoint's claim.
        """
        names = {name: extraction.content[name] for name in ("series_id", "checkpoint_id", "checkpoint_name")}
        place = self._place(names["series_id"], names["checkpoint_name"])
        content = {
            "schema_version": COMMIT_VERSION,
            **names,
            "extraction_id": extraction.extraction_id,
            "ablation_id": ablation_id,
            **self._keep(incoming, place, f"{extraction.extraction_id}-{ablation_id}", rows),
            "inputs": inputs,
            "checks": [asdict(check) for check in checks],
        }
        self._replace(
            self._folders["ablations"] / extraction.path.relative_to(self._folders["commits"]),
            content,
            _claim(names["series_id"], names["checkpoint_name"]),
        )

    def _place(self, series_id: str, checkpoint_name: str) -> Path:
        return self._folders["raw"] / slug(series_id) / slug(checkpoint_name)

    def _keep(self, incoming: Path, folder: Path, name: str, rows: Mapping[str, int]) -> dict[str, Any]:
        """Move a folder of raw tables to its place; what a commit file says of them.

        Where something of the name is there already, it stays for who reads it, until it is pruned.
        """
        files = {
            table: {
                "path": f"{table}.parquet",
                "rows": row_count,
                "bytes": (incoming / f"{table}.parquet").stat().st_size,
                "sha256": sha256_of(incoming / f"{table}.parquet"),
            }
            for table, row_count in sorted(rows.items())
        }
        sync_tree(incoming)
        make_folder(folder)
        numbers = (name if number == 1 else f"{name}-{number}" for number in count(1))
        place = next(folder / one for one in numbers if not (folder / one).exists())
        incoming.rename(place)
        sync(folder)
        return {
            "committed_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "directory": str(place.relative_to(self.root)),
            "files": files,
        }

    def commit_path(self, series_id: str, checkpoint_name: str) -> Path:
        """The one file that says which extraction of a checkpoint counts."""
        return self._folders["commits"] / slug(series_id) / f"{slug(checkpoint_name)}.json"

    def _quarantine_path(self, series_id: str, checkpoint_name: str) -> Path:
        return self._folders["quarantine"] / slug(series_id) / f"{slug(checkpoint_name)}.json"

    def _replace(self, path: Path, content: Mapping[str, Any], lock: str) -> None:
        """Replace a file atomically: whoever opens it sees the old text or the new one, also after a crash."""
        make_folder(path.parent)
        with self.locks.incoming(lock) as folder:
            beside = folder / path.name
            beside.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
            sync(beside)
            beside.replace(path)
            sync(path.parent)

    def withdraw(self, checkpoint_id: str) -> None:
        """Remove a checkpoint's commit: the next build no longer holds it. Raises UserError where there is none."""
        for commit in self.readable_commits()[0]:
            if commit.checkpoint_id == checkpoint_id:
                claim = self.claim(commit.content["series_id"], commit.content["checkpoint_name"])
                if claim is None:
                    raise LockedError(f"{checkpoint_id!r} is being extracted; wait for that to end")
                commit.path.unlink()
                sync(commit.path.parent)
                claim.release()
                return
        raise UserError(f"no committed checkpoint is called {checkpoint_id!r}; see `timecourse status`")

    def set_aside(
        self, series_id: str, checkpoint_name: str, *, extraction_id: str, reason: str, is_gate: bool
    ) -> None:
        """Remember that a checkpoint cannot be measured with these inputs: it is not tried again until they change."""
        content = {
            "schema_version": QUARANTINE_VERSION,
            "series_id": series_id,
            "checkpoint_id": f"{series_id}/{checkpoint_name}",
            "checkpoint_name": checkpoint_name,
            "extraction_id": extraction_id,
            "is_gate": is_gate,
            "reason": reason,
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        path = self._quarantine_path(series_id, checkpoint_name)
        self._replace(path, content, _claim(series_id, checkpoint_name))
        self.remove_parts(series_id, checkpoint_name, extraction_id)

    def quarantined(self) -> list[Quarantined]:
        """The checkpoints that are set aside, by file. What is damaged sets nothing aside.

        Raises NewerVersionError for a file of a newer version.
        """
        found = []
        for path in self._paths("quarantine"):
            try:
                content = read_content(self.root, path, "quarantine")
            except NewerVersionError:
                raise
            except UserError:
                continue
            found.append(Quarantined(**{field.name: content[field.name] for field in fields(Quarantined)}))
        return found

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
        lock = f"series.{slug(series_id)}"
        with self.locks.waiting(lock):
            if self._declaration(self._series_path(series_id)) != content:
                self._replace(self._series_path(series_id), content, lock)

    def _series_path(self, series_id: str) -> Path:
        return self._folders["series"] / f"{slug(series_id)}.json"

    def _declaration(self, path: Path) -> dict[str, Any] | None:
        try:
            return read_content(self.root, path, "series")
        except NewerVersionError:
            raise
        except (UserError, FileNotFoundError):
            return None

    def damaged_declaration(self, series_id: str) -> str | None:
        """What is wrong with the file that says what a series' sources offered; None where it is whole or not there."""
        path = self._series_path(series_id)
        try:
            if path.is_file():
                read_content(self.root, path, "series")
        except UserError as error:
            return str(error)
        return None

    def declared_checkpoints(self, series_id: str) -> list[dict[str, Any]]:
        """What a series' sources offered at its last refresh; nothing where that cannot be read."""
        declaration = self._declaration(self._series_path(series_id)) or {}
        return list(declaration.get("checkpoints", ()))

    def declarations(self) -> list[dict[str, Any]]:
        """What every series' sources offered at its last refresh, by series; the checkpoints by their position.

        A file of an earlier version says only whether the series is complete. Raises UserError for one that cannot be
        read or is of a newer version.
        """
        found = []
        for path in self._folders["series"].glob("[!.]*.json"):
            content = read_content(self.root, path, "series")
            found.append(
                {
                    "series_id": content["series_id"],
                    "complete": content["complete"],
                    "recipe_id": content.get("recipe_id"),
                    "duplicates": content.get("duplicates", "warn"),
                    "checkpoints": sorted(content.get("checkpoints", ()), key=lambda one: one["position"]),
                }
            )
        return sorted(found, key=lambda series: str(series["series_id"]))

    def prune(self) -> None:
        """Remove extractions and ablations that no commit names and no process is about to commit, as the writer.

        With what tasks were writing that died since the lake was locked, and parts that are of no more use.
        """
        self.locks.remove_leftovers()
        self._prune_parts()
        ablated = {self.root / ablation.content["directory"] for ablation in self.ablations()}
        committed = {self.root / commit.content["directory"] for commit in self.commits()}
        for folder in sorted(self._folders["raw"].glob("*/*")):
            if folder.is_symlink() or folder.parent.is_symlink() or not folder.is_dir():
                continue  # not made by a commit
            if set(folder.iterdir()) <= committed | ablated:
                continue
            claim = self.locks.take(f"{folder.parent.name}.{folder.name}")
            if claim is None:
                continue
            try:
                named = self._named(folder)
                for place in folder.iterdir():
                    if place not in named:
                        remove(place)
                ablation = self._folders["ablations"] / folder.parent.name / f"{folder.name}.json"
                if (
                    ablation.is_file()
                    and self.root / read_content(self.root, ablation, "commit")["directory"] not in named
                ):
                    ablation.unlink()  # of an extraction that another has replaced
            finally:
                claim.release()

    def _named(self, folder: Path) -> set[Path]:
        """What the commit of a checkpoint, whose claim this process holds, and its ablation name in its folder."""
        paths = [self._folders[kind] / folder.parent.name / f"{folder.name}.json" for kind in ("commits", "ablations")]
        if not paths[0].is_file():
            return set()
        commit, *ablations = [read_content(self.root, path, "commit") for path in paths if path.is_file()]
        of_commit = [one for one in ablations if one["extraction_id"] == commit["extraction_id"]]
        return {self.root / one["directory"] for one in (commit, *of_commit)}

    def _prune_parts(self) -> None:
        """Remove the parts of what is committed or set aside, and those that are older than their checkpoint's commit.

        Where a process is on the checkpoint, or on a part of it, they stay.
        """
        ended = {one.extraction_id for one in self.commits()} | {one.extraction_id for one in self.quarantined()}
        for folder in sorted(self._folders[".unfinished"].glob("*.*.*")):
            series, checkpoint, extraction_id = folder.name.split(".", 2)
            commit = self._folders["commits"] / series / f"{checkpoint}.json"
            claim = self.locks.take(f"{series}.{checkpoint}")
            if claim is None:
                continue
            try:
                if self.locks.is_any_held(f"{series}.{checkpoint}.*-of-*") or not folder.is_dir():
                    continue
                is_older = commit.is_file() and folder.stat().st_mtime < commit.stat().st_mtime
                if is_older or extraction_id in ended:
                    self._remove_parts(f"{series}.{checkpoint}", folder)
            finally:
                claim.release()

    def current_release(self) -> Path:
        """The folder of the current release, resolved once. Raises UserError where nothing was released."""
        link = self.root / "current"
        if not link.is_symlink():
            raise UserError(f"the lake {str(self.root)!r} holds no release yet; run `timecourse refresh`")
        release = self.root / link.readlink()
        if not (release / "release.json").is_file() or release.resolve().parent != self.releases.resolve():
            raise UserError(
                f"the release that {str(link)!r} names is missing or torn; run `timecourse refresh` to publish it anew"
            )
        return release


def _claim(series_id: str, checkpoint_name: str, part: str = "") -> str:
    """The name of a checkpoint's lock, which is also where it lies below `raw`, with a point; or of a part's."""
    return f"{slug(series_id)}.{slug(checkpoint_name)}{part and f'.{part}'}"
