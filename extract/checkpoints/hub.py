"""A repository of the Hugging Face Hub as a source: one branch or tag per checkpoint."""

import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from huggingface_hub import CachedFileInfo, HfApi, HFCacheInfo, RepoFile, constants, get_session, scan_cache_dir
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import logging as client_logging
from huggingface_hub.utils.sha import git_hash
from huggingface_hub.utils.tqdm import tqdm
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from timecourse.errors import SourceError, UsageError, UserError
from timecourse.extract.checkpoints.checkpoint import SMALL_FILES, Checkpoint, describe
from timecourse.extract.checkpoints.names import Place

TRIES = 5
WAIT = wait_exponential_jitter(initial=1, max=60, jitter=1)
"""How often something is asked for while the Hub or the network is in trouble, and how long to wait in between.

The client tries some requests again by itself, but neither the list of revisions nor a download that ends in a server
error or a reset connection.
"""

SILENCE = 30.0
"""Seconds without a sign of life after which a listing has failed; the client itself would wait for ever."""

PARALLEL = 8
"""Shards of one checkpoint that are downloaded at a time."""

ORPHANED = 3600.0
"""Seconds after which a partial file that nobody writes to is taken for what a killed process left."""

T = TypeVar("T")


class HubSource:
    """The branches and tags of a repository; weights are downloaded when they are fetched, into the client's cache.

    Everything is asked for by commit, never by a branch's name: a branch may move while a run goes on, and of a branch
    the client serves an old snapshot without a word when the Hub cannot be reached. A file that is there is not
    downloaded again, also by a later run; of a file that was cut off in the middle the client can use nothing.

    repository: owner/name. max_cache_bytes: what the repository's part of the cache may take; None for no limit.
    endpoint, cache_dir, token: where None, what the client finds in the environment.
    """

    every_name_counts = False

    def __init__(
        self,
        repository: str,
        *,
        max_cache_bytes: int | None = None,
        endpoint: str | None = None,
        cache_dir: Path | None = None,
        token: str | bool | None = None,
    ) -> None:
        if "HF_HUB_VERBOSITY" not in os.environ:
            client_logging.set_verbosity(logging.ERROR)  # the client warns of every attempt that failed
        self.repository = repository
        self.max_cache_bytes = max_cache_bytes
        self._api = HfApi(endpoint=endpoint, token=token)
        self._cache = Path(cache_dir or constants.HF_HUB_CACHE).expanduser().resolve()
        try:
            self._folder = self._cache / repo_folder_name(repo_id=repository, repo_type="model")
        except HFValidationError as error:
            raise UsageError(f"{repository!r} is no repository of the Hub; write it like owner/name") from error
        self._commits: dict[str, str] = {}
        self._files: dict[str, dict[str, RepoFile]] = {}
        self._weights_lock = threading.Lock()

    def __str__(self) -> str:
        return self.repository

    def names(self) -> list[str]:
        """The names of branches and tags, sorted; a tag that is called like a branch is left out. See Source.names."""
        refs = self._ask("the list of revisions", lambda: self._api.list_repo_refs(self.repository))
        self._commits = {ref.name: ref.target_commit for ref in (*refs.tags, *refs.branches)}
        if not self._commits:
            raise UserError(f"{self.repository} holds no revision")
        return sorted(self._commits)

    def open(self, name: str, called: str, place: Place) -> Checkpoint:
        """See Source.open. May be called from several threads; downloads the small files that are not there yet."""
        if name not in self._commits and name not in self.names():
            raise UserError(f"{self.repository} has no revision {name!r}")
        commit = self._commits[name]
        files = self._files[commit] = self._list(commit, called)
        hashes = {small: self._bring(commit, files[small], called) for small in SMALL_FILES if small in files}

        def sha256_of(file: str) -> str:
            if file not in hashes:
                lfs = files[file].lfs
                hashes[file] = lfs.sha256 if lfs else self._bring(commit, files[file], called)
            return hashes[file]

        sizes = {path: file.size for path, file in files.items()}
        return describe(called, place, self._folder / "snapshots" / commit, sizes, sha256_of, commit)

    def fetch(self, checkpoint: Checkpoint) -> None:
        """See Source.fetch. Every file's hash is computed and compared, also of those that were there before."""
        commit = str(checkpoint.commit_sha)
        files = self._files[commit]
        names = [*checkpoint.weight_files, *(name for name in SMALL_FILES if name in files)]
        with self._weights_lock:
            self._remove_orphans()
            with ThreadPoolExecutor(PARALLEL) as pool:
                list(pool.map(lambda name: self._bring(commit, files[name], checkpoint.name), names))
        checkpoint.check_headers()

    def check_unchanged(self, checkpoint: Checkpoint) -> None:
        """Nothing to do: the files are those of one commit."""

    def evict(self, checkpoint: Checkpoint) -> None:
        """Where the limit leaves no room for another checkpoint of this size, remove this one's weights.

        Files that another revision in the cache has too stay. Waits until a running `fetch` has ended.
        """
        if self.max_cache_bytes is None or not checkpoint.folder.is_dir():
            return
        weights = {checkpoint.folder / name for name in checkpoint.weight_files}
        with self._weights_lock:
            cache, files = self._cached()
            taken = sum({file.blob_path: file.size_on_disk for file in files}.values())
            if taken + checkpoint.bytes > self.max_cache_bytes:
                cache.delete_files(*(file for file in files if file.file_path in weights)).execute()

    def _list(self, commit: str, called: str) -> dict[str, RepoFile]:
        """The files of a commit that lie at the root, by name."""

        def listed() -> dict[str, RepoFile]:
            entries = self._api.list_repo_tree(self.repository, revision=commit)
            return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

        return self._ask(f"the file list of checkpoint {called!r}", listed)

    def _bring(self, commit: str, file: RepoFile, called: str, is_second: bool = False) -> str:
        """Have a file of a commit in the cache, as the repository states it; returns its sha256.

        The client compares lengths only, and would keep a wrong file under the right name for ever.
        """
        what = f"{file.path} of checkpoint {called!r}"
        path = Path(
            self._ask(
                what,
                lambda: self._api.hf_hub_download(
                    self.repository,
                    file.path,
                    revision=commit,
                    cache_dir=self._cache,
                    force_download=is_second,  # replaces the file at once: another thread may hold it open
                    tqdm_class=_NoBar,
                ),
            )
        )
        with path.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        if sha256 == file.lfs.sha256 if file.lfs else git_hash(path.read_bytes()) == file.blob_id:
            return sha256
        if not is_second:
            return self._bring(commit, file, called, is_second=True)
        cache, files = self._cached()
        blobs = {one.blob_path for one in files if one.file_path == path}
        cache.delete_files(*(one for one in files if one.blob_path in blobs)).execute()
        raise UserError(
            f"{what} does not have the hash that {self.repository} states, also when downloaded again; "
            "try another network, or tell the owner of the repository"
        )

    def _cached(self) -> tuple[HFCacheInfo, list[CachedFileInfo]]:
        """The cache, and the repository's files in it, one for each revision that has the file."""
        cache = scan_cache_dir(self._cache)
        for repository in cache.repos:
            if repository.repo_path == self._folder:
                return cache, [file for revision in repository.revisions for file in revision.files]
        raise UserError(f"the cache of {self.repository} is damaged; delete {self._folder}")

    def _remove_orphans(self) -> None:
        """Remove what killed processes left of files they were downloading; nobody will use it."""
        for part in (self._folder / "blobs").glob("*.incomplete"):
            with contextlib.suppress(OSError):  # another process may be faster, or own the cache
                if time.time() - part.stat().st_mtime > ORPHANED:
                    part.unlink()

    def _ask(self, what: str, call: Callable[[], T]) -> T:
        """What a call of the client gives, tried again while the trouble may pass. Raises UserError about `what`;
        SourceError where it would be the same for everything.

        Errors of the disk and the system are passed on.
        """
        retrying = Retrying(
            before=_limit_silence,
            stop=stop_after_attempt(TRIES),
            wait=WAIT,
            retry=retry_if_exception(_may_pass),
            reraise=True,
        )
        try:
            return retrying(call)
        except Exception as error:  # the library raises whatever its HTTP or Xet client raised
            cause = _cause(error)
            if isinstance(cause, OSError) and cause.errno is not None:
                raise
            raise self._error(cause, what) from error

    def _error(self, cause: BaseException, what: str) -> UserError:
        repository, endpoint = self.repository, self._api.endpoint
        status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else 0
        match cause:
            case RevisionNotFoundError():
                return UserError(f"{what} is gone from {repository}: its revision was deleted or moved; start again")
            case RemoteEntryNotFoundError():
                return UserError(f"{what} is missing from {repository} although it is listed; leave the checkpoint out")
            case GatedRepoError():
                said = f"{repository} is gated: accept its terms at {endpoint}/{repository} and log in: hf auth login"
            case RepositoryNotFoundError():
                said = f"{endpoint} has no {repository}, or hides it: check the name, or log in: hf auth login"
            case OfflineModeIsEnabled():
                said = f"{repository} cannot be read offline: unset HF_HUB_OFFLINE, or name a directory of checkpoints"
            case httpx2.TransportError():
                said = f"{endpoint} cannot be reached ({_first_line(cause)}): check the network"
            case _ if status in (401, 403):
                said = f"{endpoint} refuses {what} of {repository} (status {status}): log in again: hf auth login"
            case _ if status == 429:
                said = f"{endpoint} limits the rate of requests: wait some minutes, or log in: hf auth login"
            case _ if status >= 500:
                return UserError(
                    f"{endpoint} is in trouble (status {status} for {what} of {repository}): try again later"
                )
            case _:
                return UserError(f"{repository}: {what} cannot be read: {_first_line(cause)}")
        return SourceError(said)


class _NoBar(tqdm):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]


def _limit_silence(_: RetryCallState) -> None:
    """Give the client's session, a new one after every failed connection, a timeout where a call sets none."""
    hooks = get_session().event_hooks["request"]
    if _set_timeout not in hooks:
        hooks.append(_set_timeout)


def _set_timeout(request: httpx2.Request) -> None:
    for kind, seconds in request.extensions["timeout"].items():
        request.extensions["timeout"][kind] = SILENCE if seconds is None else seconds


def _may_pass(error: BaseException) -> bool:
    """Whether it makes sense to try again."""
    error = _cause(error)
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    if isinstance(error, OfflineModeIsEnabled | FileMetadataError | httpx2.UnsupportedProtocol):
        return False
    # a RuntimeError comes from Xet, and from a connection pool that another thread closed; an OSError without a number
    # is the client's own, such as a file of the wrong length
    return isinstance(error, httpx2.TransportError | RuntimeError) or (isinstance(error, OSError) and not error.errno)


def _cause(error: BaseException) -> BaseException:
    """What is behind the errors that the client raises when it finds neither the Hub nor a local file."""
    behind = error.__cause__
    return behind if behind and isinstance(error, LocalEntryNotFoundError | ValueError) else error


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
