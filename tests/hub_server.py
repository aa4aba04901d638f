"""A small Hugging Face Hub on localhost that the real `huggingface_hub` talks to, with faults on demand.

    with HubServer() as server:
        server.add_repository("owner/name", {"main": directory, "step1000": other_directory})
        server.cut("*model-00001*", after=1000)
        api = HfApi(endpoint=server.endpoint, token=False)
        api.snapshot_download("owner/name", revision=server.commit("owner/name", "step1000"), cache_dir=tmp_path)
        assert server.bytes_sent("*model-00001*") == ...

A subprocess is pointed here with `env={**os.environ, **server.environment()}`. `huggingface_hub` reads HF_ENDPOINT,
HF_HOME, HF_HUB_CACHE and its other settings once, when it is imported, so in this process setting them is too late. A
test in this process calls `server.isolate_client(monkeypatch)`, which among other things keeps the first call from
asking huggingface.co for what telemetry needs, and passes `endpoint=server.endpoint` and `cache_dir=...` to every call
that takes them: `HfApi` takes the endpoint; its `hf_hub_download` and `snapshot_download`, `scan_cache_dir` and
`from_pretrained` take the cache. When the code under test does not let them through,
`server.redirect_client(monkeypatch, cache_dir)` patches what was read.
"""

import contextlib
import dataclasses
import hashlib
import importlib
import json
import os
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

if TYPE_CHECKING:
    import pytest

LFS_SUFFIXES = (".safetensors", ".bin")
DATE = "2024-01-01T00:00:00.000Z"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
PIECE = 1 << 18


@dataclasses.dataclass(frozen=True)
class StoredFile:
    """One file of one commit. `oid` is the git blob's: of the content, or of the pointer when the file is in LFS."""

    path: str
    source: Path
    size: int
    oid: str
    sha256: str | None
    pointer_size: int = 0

    @classmethod
    def read(cls, path: str, source: Path, lfs: bool) -> "StoredFile":
        size = source.stat().st_size
        if not lfs:
            return cls(path, source, size, git_blob_oid(source.read_bytes()), None)
        with source.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        return cls(path, source, size, git_blob_oid(pointer), sha256, len(pointer))

    @property
    def etag(self) -> str:
        """What names the blob in the client's cache."""
        return self.sha256 or self.oid

    def entry(self, expand: bool) -> dict[str, Any]:
        """The file as the tree lists it."""
        entry: dict[str, Any] = {"type": "file", "oid": self.oid, "size": self.size, "path": self.path}
        if self.sha256:
            entry["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": self.pointer_size}
        if expand:
            entry["lastCommit"] = {"id": self.oid, "title": "Upload", "date": DATE}
            entry["securityFileStatus"] = {"status": "safe", "avScan": None, "pickleImportScan": None}
        return entry

    def sibling(self, blobs: bool) -> dict[str, Any]:
        """The file as the model's information lists it."""
        if not blobs:
            return {"rfilename": self.path}
        sibling: dict[str, Any] = {"rfilename": self.path, "size": self.size, "blobId": self.oid}
        if self.sha256:
            sibling["lfs"] = {"sha256": self.sha256, "size": self.size, "pointerSize": self.pointer_size}
        return sibling


@dataclasses.dataclass
class Repository:
    """Branches and tags name commits; a commit keeps its files after its branch has moved on."""

    name: str
    gated: bool = False
    private: bool = False
    branches: dict[str, str] = dataclasses.field(default_factory=dict)
    tags: dict[str, str] = dataclasses.field(default_factory=dict)
    commits: dict[str, dict[str, StoredFile]] = dataclasses.field(default_factory=dict)

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, a tag or a commit's own sha names."""
        return (
            self.branches.get(revision) or self.tags.get(revision) or (revision if revision in self.commits else None)
        )


@dataclasses.dataclass
class Request:
    """One request and what it got. `path` is unquoted and without the query; `bytes_sent` counts the body only."""

    method: str
    path: str
    query: dict[str, list[str]]
    range: str | None
    authorization: str | None
    status: int = 0
    bytes_sent: int = 0


@dataclasses.dataclass
class Fault:
    """Something that goes wrong for the requests whose path matches; `used` counts how often it did."""

    pattern: str
    method: str | None
    times: int | None
    status: int = 0
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    error_code: str | None = None
    dropped: bool = False
    reset: bool = False
    after: int | None = None
    flipped: range = range(0)
    from_end: bool = False
    delay: float = 0.0
    bytes_per_second: float | None = None
    used: int = 0

    @property
    def is_answer(self) -> bool:
        """Whether the fault takes the place of the whole answer."""
        return bool(self.status) or self.dropped

    def meets(self, request: Request) -> bool:
        return (
            (self.times is None or self.used < self.times)
            and self.method in (None, request.method)
            and fnmatchcase(request.path, self.pattern)
        )


class HubServer:
    """Serves repositories from plain directories over the routes of the Hub's API.

    Directories are hashed when they are added and served from where they are, so they must not change afterwards. Files
    go out directly: no redirect to a CDN and no Xet. As on the real Hub a gated repository lists its files to everybody
    and gates only their content; a private one hides everything. `token` opens both.
    """

    def __init__(self, *, page_size: int = 1000, token: str = "hf_right") -> None:
        self.page_size = page_size
        self.token = token
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._http = _Server(self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), name="hub-server", daemon=True)
        self._directory = tempfile.TemporaryDirectory(prefix="hub-server-", ignore_cleanup_errors=True)

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop, and cut every open connection: from now on the endpoint refuses connections."""
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._http.cut_connections()
        self._thread.join()
        self._directory.cleanup()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    @property
    def home(self) -> Path:
        """The HF_HOME of subprocesses, empty at first and deleted with the server."""
        return Path(self._directory.name)

    # What is served

    def add_repository(
        self,
        name: str,
        revisions: Mapping[str, str | os.PathLike[str]],
        *,
        tags: Mapping[str, str] | None = None,
        gated: bool = False,
        private: bool = False,
        lfs_suffixes: tuple[str, ...] = LFS_SUFFIXES,
    ) -> Repository:
        """Serve each directory as the branch of that name; `tags` maps a tag's name to a branch.

        Adding to a known repository adds branches or moves them: earlier commits stay. Names like refs/convert/parquet
        and refs/pr/1 are listed apart, as conversions and pull requests.
        """
        repository = self.repositories.get(name) or Repository(name)
        repository.gated, repository.private = gated, private
        for revision, directory in revisions.items():
            files = {
                path: StoredFile.read(path, source, path.endswith(lfs_suffixes))
                for path, source in walk(Path(directory))
            }
            content = json.dumps([name, revision, [(path, file.etag) for path, file in files.items()]])
            commit = hashlib.sha1(content.encode()).hexdigest()
            repository.commits[commit] = files
            repository.branches[revision] = commit
        repository.tags |= {tag: repository.branches[revision] for tag, revision in (tags or {}).items()}
        self.repositories[name] = repository
        return repository

    def commit(self, name: str, revision: str = "main") -> str:
        """The commit's sha that a revision of a repository stands for."""
        commit = self.repositories[name].resolve(revision)
        if commit is None:
            raise KeyError(revision)
        return commit

    def file(self, name: str, revision: str, path: str) -> StoredFile:
        """What is served at a path of a revision."""
        return self.repositories[name].commits[self.commit(name, revision)][path]

    # What goes wrong. A pattern is a glob over a request's path, such as "*/resolve/*/model-00001*", and `*` matches
    # slashes too; `times=None` is for ever. Faults are used in the order in which they were added.

    def fail(
        self,
        pattern: str,
        status: int,
        *,
        times: int | None = 1,
        method: str | None = None,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Fault:
        """Answer with an HTTP error."""
        extra = {**(headers or {}), **({} if retry_after is None else {"Retry-After": str(retry_after)})}
        return self._add(Fault(pattern, method, times, status=status, headers=extra))

    def hide(self, pattern: str, *, times: int | None = None, method: str | None = None) -> Fault:
        """Answer 404 EntryNotFound where a file's content is asked for; the tree still lists the file."""
        return self._add(Fault(pattern, method, times, status=404, error_code="EntryNotFound"))

    def drop(self, pattern: str, *, times: int | None = 1, method: str | None = None, reset: bool = False) -> Fault:
        """Close the connection without an answer."""
        return self._add(Fault(pattern, method, times, dropped=True, reset=reset))

    def cut(self, pattern: str, *, after: int, times: int | None = 1, reset: bool = False) -> Fault:
        """Close the connection after so many bytes of a body that has more; `reset` sends RST, and may lose bytes."""
        return self._add(Fault(pattern, "GET", times, after=after, reset=reset))

    def corrupt(self, pattern: str, *, at: int = -1, count: int = 1, times: int | None = 1) -> Fault:
        """Flip `count` bytes of the file from offset `at`, counted from the end when negative."""
        return self._add(Fault(pattern, "GET", times, flipped=range(at, at + count), from_end=at < 0))

    def slow(
        self,
        pattern: str,
        *,
        delay: float = 0.0,
        bytes_per_second: float | None = None,
        times: int | None = None,
        method: str | None = None,
    ) -> Fault:
        """Wait before the answer, or send its body at a rate, or both."""
        return self._add(Fault(pattern, method, times, delay=delay, bytes_per_second=bytes_per_second))

    def clear_faults(self) -> None:
        with self.lock:
            self.faults.clear()

    def _add(self, fault: Fault) -> Fault:
        with self.lock:
            self.faults.append(fault)
        return fault

    def take_faults(self, request: Request, *, body: int | None = None) -> list[Fault]:
        """What goes wrong before an answer (waits, and the first fault that is the answer) or with a body so long."""
        with self.lock:
            met = [fault for fault in self.faults if fault.meets(request)]
            if body is None:
                taken = [fault for fault in met if fault.delay or fault.bytes_per_second]
                taken += [fault for fault in met if fault.is_answer][:1]
            else:
                taken = [fault for fault in met if fault.flipped]
                taken += [fault for fault in met if fault.after is not None and fault.after < body][:1]
            for fault in taken:
                fault.used += 1
        return taken

    # What happened

    def bytes_sent(self, pattern: str = "*/resolve/*") -> int:
        """Bytes of bodies sent with success for the paths that match."""
        return sum(request.bytes_sent for request in self.matching(pattern) if request.status in (200, 206))

    def matching(self, pattern: str = "*", method: str | None = None) -> list[Request]:
        """The requests so far whose path matches, oldest first."""
        with self.lock:
            requests = list(self.requests)
        return [one for one in requests if fnmatchcase(one.path, pattern) and method in (None, one.method)]

    def clear_requests(self) -> None:
        """Forget the requests so far."""
        with self.lock:
            self.requests.clear()

    # How clients are pointed here

    def environment(self, home: str | os.PathLike[str] | None = None) -> dict[str, str]:
        """What to add to the environment of a subprocess: this endpoint, a home of its own, no token and no proxy."""
        home = Path(home or self.home)
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_ASSETS_CACHE": str(home / "assets"),
            "HF_XET_CACHE": str(home / "xet"),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_TOKEN": "",
            "HF_HUB_OFFLINE": "0",
            "TRANSFORMERS_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            **{name: "" for proxy in PROXIES for name in (proxy, proxy.lower())},
        }

    def isolate_client(self, patch: "pytest.MonkeyPatch") -> None:
        """Keep the `huggingface_hub` of this process from proxies, tokens, Xet, offline mode and telemetry."""
        if any(os.environ.get(name) for proxy in PROXIES for name in (proxy, proxy.lower())):
            for name, value in self.environment().items():
                if name.lower().endswith("_proxy"):
                    patch.setenv(name, value)
            importlib.import_module("huggingface_hub.utils._http").close_session()  # it read them when it began
        patch.delenv("HF_TOKEN", raising=False)
        constants = importlib.import_module("huggingface_hub.constants")
        patch.setattr(constants, "HF_TOKEN_PATH", str(self.home / "token"))
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)

    def redirect_client(self, patch: "pytest.MonkeyPatch", cache_dir: str | os.PathLike[str]) -> None:
        """Isolate, and point the `huggingface_hub` and `transformers` of this process here until `patch` is undone.

        For code that passes neither `endpoint` nor `cache_dir`. An `HfApi` that already exists keeps its endpoint,
        except for the one behind the module's functions and that of `transformers`.
        """
        self.isolate_client(patch)
        constants = importlib.import_module("huggingface_hub.constants")
        patch.setattr(constants, "ENDPOINT", self.endpoint)
        template = self.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache_dir))
        patch.setattr(importlib.import_module("huggingface_hub.utils._cache_manager"), "HF_HUB_CACHE", str(cache_dir))
        patch.setattr(importlib.import_module("huggingface_hub.hf_api").api, "endpoint", self.endpoint)
        if "transformers.utils.hub" in sys.modules:
            patch.setattr(sys.modules["transformers.utils.hub"], "_hf_api", None)


def git_blob_oid(content: bytes) -> str:
    """The name that git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def walk(directory: Path) -> Iterator[tuple[str, Path]]:
    """Every file under a directory, with its path inside."""
    if not directory.is_dir():
        raise NotADirectoryError(directory)
    for source in sorted(directory.rglob("*")):
        if source.is_file():
            yield source.relative_to(directory).as_posix(), source


def listing(files: Mapping[str, StoredFile], folder: str, recursive: bool, expand: bool) -> list[dict[str, Any]]:
    """The tree's entries below a folder: files and folders, by path."""
    prefix = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, Any]] = {}
    for path, file in files.items():
        if not path.startswith(prefix):
            continue
        parts = path.removeprefix(prefix).split("/")
        for depth in range(1, len(parts)):
            if depth == 1 or recursive:
                inner = prefix + "/".join(parts[:depth])
                entries[inner] = folder_entry(files, inner, expand)
        if recursive or len(parts) == 1:
            entries[path] = file.entry(expand)
    return [entries[path] for path in sorted(entries)]


def folder_entry(files: Mapping[str, StoredFile], folder: str, expand: bool) -> dict[str, Any]:
    """A folder as the tree lists it."""
    content = sorted((path, file.oid) for path, file in files.items() if path.startswith(f"{folder}/"))
    oid = hashlib.sha1(json.dumps(content).encode()).hexdigest()
    entry: dict[str, Any] = {"type": "directory", "oid": oid, "size": 0, "path": folder}
    return entry | ({"lastCommit": {"id": oid, "title": "Upload", "date": DATE}} if expand else {})


def parse_range(header: str | None, size: int) -> range | None:
    """The bytes that a Range header asks for; None when they lie past the end."""
    unit, _, wanted = (header or "").partition("=")
    first, dash, last = wanted.partition("-")
    if unit.strip() != "bytes" or not dash or "," in wanted:
        return range(size)
    if not first:
        return range(max(0, size - int(last)), size)
    found = range(int(first), min(int(last) + 1, size) if last else size)
    return found if found else None


class Refusal(Exception):
    """An error that the Hub answers with."""

    def __init__(self, status: int, code: str | None, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})


class _Server(ThreadingHTTPServer):
    """Knows its open connections, so that closing the server ends them."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, hub: HubServer) -> None:
        self.hub = hub
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error; anything else is told as usual."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def cut_connections(self) -> None:
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        hub = self.server.hub
        url = urlsplit(self.path)
        self.raw_path = url.path
        self.segments = [unquote(segment) for segment in url.path.strip("/").split("/")]
        self.query = parse_qs(url.query)
        self.content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = "/" + "/".join(self.segments)
        header = self.headers.get
        self.request_log = Request(self.command, path, self.query, header("Range"), header("Authorization"))
        with hub.lock:
            hub.requests.append(self.request_log)
        try:
            rate = self.go_wrong()
            if rate is not None:
                self.answer(rate)
        except Refusal as refusal:
            headers = {"X-Error-Message": str(refusal), **refusal.headers}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            self.send_json({"error": str(refusal)}, status=refusal.status, headers=headers)

    do_HEAD = do_POST = do_GET

    def go_wrong(self) -> float | None:
        """Act on the faults that come before an answer; the rate at which to send its body, or None for no answer."""
        rate = float("inf")
        for fault in self.server.hub.take_faults(self.request_log):
            if fault.delay and self.server.hub.closing.wait(fault.delay):
                self.hang_up(reset=False)
                return None
            if fault.bytes_per_second:
                rate = min(rate, fault.bytes_per_second)
            if fault.dropped:
                self.hang_up(fault.reset)
                return None
            if fault.status:
                message = "Entry not found" if fault.error_code else f"Injected {fault.status}"
                headers = {**self.commit_header(), **fault.headers}
                raise Refusal(fault.status, fault.error_code, message, headers)
        return rate

    def answer(self, rate: float) -> None:
        segments = self.segments
        if segments[:2] == ["api", "models"]:
            for count in (2, 1):
                repository = self.server.hub.repositories.get("/".join(segments[2 : 2 + count]))
                if repository:
                    return self.answer_api(repository, segments[2 + count :])
            raise Refusal(404, "RepoNotFound", "Repository not found")
        for count in (2, 1):
            if segments[count : count + 1] == ["resolve"] and len(segments) > count + 2:
                repository = self.server.hub.repositories.get("/".join(segments[:count]))
                if repository is None:
                    raise Refusal(404, "RepoNotFound", "Repository not found")
                self.check_access(repository, content=True)
                revision, path = segments[count + 1], "/".join(segments[count + 2 :])
                return self.send_file(repository, revision, path, rate)
        raise Refusal(404, None, "Not Found")

    def answer_api(self, repository: Repository, rest: list[str]) -> None:
        self.check_access(repository, content=False)
        match rest:
            case []:
                self.send_information(repository, "main")
            case ["revision", *revision]:
                self.send_information(repository, "/".join(revision))
            case ["refs"]:
                self.send_references(repository)
            case ["tree", revision, *folder]:
                self.send_tree(repository, revision, "/".join(folder).strip("/"))
            case ["paths-info", revision]:
                self.send_paths(repository, revision)
            case _:
                raise Refusal(404, None, "Not Found")

    def check_access(self, repository: Repository, *, content: bool) -> None:
        given = self.request_log.authorization
        if given == f"Bearer {self.server.hub.token}" or not (repository.private or (repository.gated and content)):
            return
        if repository.private:
            raise Refusal(404 if given else 401, "RepoNotFound", "Repository not found")
        message = f"Access to model {repository.name} is restricted"
        raise Refusal(403 if given else 401, "GatedRepo", message, self.commit_header())

    def files_of(self, repository: Repository, revision: str) -> tuple[str, dict[str, StoredFile]]:
        commit = repository.resolve(revision)
        if commit is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, repository.commits[commit]

    def commit_header(self) -> dict[str, str]:
        """The header that tells the commit, also with an error, where the path names a file of a known revision."""
        match self.segments:
            case [owner, name, "resolve", revision, *_] if repository := self.server.hub.repositories.get(
                f"{owner}/{name}"
            ):
                commit = repository.resolve(revision)
                return {"X-Repo-Commit": commit} if commit else {}
        return {}

    # Answers

    def send_information(self, repository: Repository, revision: str) -> None:
        commit, files = self.files_of(repository, revision)
        blobs = self.flag("blobs")
        self.send_json(
            {
                "_id": hashlib.sha1(repository.name.encode()).hexdigest()[:24],
                "id": repository.name,
                "modelId": repository.name,
                "author": repository.name.rpartition("/")[0],
                "sha": commit,
                "lastModified": DATE,
                "createdAt": DATE,
                "private": repository.private,
                "gated": "auto" if repository.gated else False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": [file.sibling(blobs) for file in files.values()],
            }
        )

    def send_references(self, repository: Repository) -> None:
        def told(kind: str, references: Mapping[str, str]) -> list[dict[str, str]]:
            return [
                {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit}
                for name, commit in references.items()
                if not name.startswith("refs/")
            ]

        def told_apart(kind: str) -> list[dict[str, str]]:
            found = {name: commit for name, commit in repository.branches.items() if name.startswith(f"refs/{kind}/")}
            return [
                {"name": name.rpartition("/")[2], "ref": name, "targetCommit": commit} for name, commit in found.items()
            ]

        answer = {
            "tags": told("tags", repository.tags),
            "branches": told("heads", repository.branches),
            "converts": told_apart("convert"),
        }
        self.send_json(answer | ({"pullRequests": told_apart("pr")} if "include_prs" in self.query else {}))

    def send_tree(self, repository: Repository, revision: str, folder: str) -> None:
        _, files = self.files_of(repository, revision)
        entries = listing(files, folder, self.flag("recursive"), self.flag("expand"))
        if folder and not entries:
            raise Refusal(404, "EntryNotFound", f"{folder} does not exist on {revision}")
        limit = min(self.server.hub.page_size, int(self.query.get("limit", ["1000"])[0]))
        first = int(self.query.get("cursor", ["0"])[0])
        headers = {}
        if first + limit < len(entries):
            query = urlencode({**self.query, "cursor": [str(first + limit)]}, doseq=True)
            headers["Link"] = f'<{self.server.hub.endpoint}{self.raw_path}?{query}>; rel="next"'
        self.send_json(entries[first : first + limit], headers=headers)

    def send_paths(self, repository: Repository, revision: str) -> None:
        _, files = self.files_of(repository, revision)
        if "json" in self.headers.get("Content-Type", ""):
            form = json.loads(self.content)
            paths, expand = form["paths"], bool(form.get("expand"))
        else:
            form = parse_qs(self.content.decode())
            paths, expand = form.get("paths", []), form.get("expand", [""])[0].lower() == "true"
        folders = {path.rpartition("/")[0] for path in files}
        folders |= {"/".join(parts[:n]) for parts in (one.split("/") for one in folders) for n in range(1, len(parts))}
        found = [
            files[path].entry(expand) if path in files else folder_entry(files, path, expand)
            for path in paths
            if path in files or (path and path in folders)
        ]
        self.send_json(found)

    def send_file(self, repository: Repository, revision: str, path: str, rate: float) -> None:
        commit, files = self.files_of(repository, revision)
        if path not in files:
            raise Refusal(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        file = files[path]
        headers = {
            "ETag": f'"{file.etag}"',
            "X-Repo-Commit": commit,
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        if file.sha256:
            headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
        wanted = parse_range(self.request_log.range, file.size)
        if wanted is None:
            raise Refusal(416, None, "Range not satisfiable", {"Content-Range": f"bytes */{file.size}"})
        partial = self.request_log.range is not None and len(wanted) < file.size
        if partial:
            headers["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{file.size}"
        self.start_answer(206 if partial else 200, len(wanted), headers)
        if self.command != "HEAD":
            self.send_content(file, wanted, rate)

    def send_content(self, file: StoredFile, wanted: range, rate: float) -> None:
        flips: set[int] = set()
        stop, reset = wanted.stop, None
        for fault in self.server.hub.take_faults(self.request_log, body=len(wanted)):
            if fault.after is not None:
                stop, reset = wanted.start + fault.after, fault.reset
            flips |= {at + file.size if fault.from_end else at for at in fault.flipped}
        with file.source.open("rb") as stream:
            stream.seek(wanted.start)
            position = wanted.start
            while position < stop:
                piece = bytearray(stream.read(min(PIECE, stop - position)))
                if not piece:
                    break
                for at in flips:
                    if position <= at < position + len(piece):
                        piece[at - position] ^= 0xFF
                if not self.send_body(piece, rate):
                    return
                position += len(piece)
        if reset is not None:
            self.hang_up(reset)

    def send_json(self, value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.start_answer(status, len(body), {"Content-Type": "application/json; charset=utf-8", **(headers or {})})
        if self.command != "HEAD":
            self.send_body(body)

    def start_answer(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        self.request_log.status = status
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def send_body(self, body: bytes | bytearray, rate: float = float("inf")) -> bool:
        """Send, at a rate when there is one; whether the client took it and the server still runs."""
        step = len(body) if rate == float("inf") else max(1, int(rate / 20))
        for start in range(0, len(body), max(1, step)):
            piece = body[start : start + step]
            self.request_log.bytes_sent += len(piece)  # before: the client may look as soon as it has the last byte
            try:
                self.wfile.write(piece)
            except OSError:
                self.request_log.bytes_sent -= len(piece)
                self.close_connection = True
                return False
            if rate != float("inf") and self.server.hub.closing.wait(len(piece) / rate):
                self.close_connection = True
                return False
        return True

    def hang_up(self, reset: bool) -> None:
        """Close the connection, in order or with a reset."""
        self.close_connection = True
        if reset:
            self.server.connections.discard(self.connection)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())

    def flag(self, name: str) -> bool:
        return self.query.get(name, [""])[0].lower() in ("true", "1")
