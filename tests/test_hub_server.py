"""The real `huggingface_hub` against the little Hub: every route it uses, and what it does when things go wrong."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx2
import huggingface_hub
import numpy
import pytest
from huggingface_hub import HfApi, RepoFile, RepoFolder, constants, scan_cache_dir
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.numpy import load_file, save_file

from tests.hub_server import HubServer, git_blob_oid

NAME = "lab/model"
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
PATHS = ["config.json", *SHARDS, "model.safetensors.index.json", "notes/deep/history.txt", "notes/read me.txt"]
MIB = 1 << 20


def save_model(directory: Path, seed: int) -> Path:
    """A sharded model of some files; the second shard and the notes are the same for every seed."""
    (directory / "notes" / "deep").mkdir(parents=True)
    (directory / "config.json").write_text(f'{{"seed": {seed}}}')
    (directory / "notes" / "read me.txt").write_text("the same everywhere")
    (directory / "notes" / "deep" / "history.txt").write_text("long ago")
    (directory / "model.safetensors.index.json").write_text("{}")
    weights = numpy.random.default_rng(seed).normal(size=50_000).astype(numpy.float32)
    save_file({"changing": weights}, directory / SHARDS[0])
    save_file({"constant": numpy.arange(10_000, dtype=numpy.float32)}, directory / SHARDS[1])
    return directory


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {branch: save_model(root / str(seed), seed) for seed, branch in enumerate(("main", "step/1000"))}


@pytest.fixture
def server(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer(page_size=3) as server:
        server.isolate_client(monkeypatch)
        server.add_repository(NAME, models, tags={"v1.0": "step/1000"})
        yield server


@pytest.fixture
def api(server: HubServer) -> HfApi:
    return HfApi(endpoint=server.endpoint, token=False)


@pytest.fixture
def commit(server: HubServer) -> str:
    return server.commit(NAME, "step/1000")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client meant to wait before it tried again; it does not wait."""
    waits: list[float] = []
    for module in ("huggingface_hub.utils._http", "huggingface_hub.file_download"):
        monkeypatch.setattr(sys.modules[module], "time", SimpleNamespace(sleep=waits.append))
    return waits


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one file that is longer than the client's chunk of 10 MiB."""
    directory = tmp_path_factory.mktemp("large")
    (directory / "large.bin").write_bytes(os.urandom(11 * MIB))
    return directory


def content(directory: Path | str) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in Path(directory).rglob("*")
        if path.is_file()
    }


def leftovers(cache: Path) -> list[Path]:
    return list(cache.glob("*/blobs/*.incomplete"))


# Routes


def test_references_name_the_commits_of_branches_and_tags(api: HfApi, server: HubServer, commit: str):
    references = api.list_repo_refs(NAME, include_pull_requests=True)
    assert {(one.name, one.ref, one.target_commit) for one in references.branches} == {
        ("main", "refs/heads/main", server.commit(NAME)),
        ("step/1000", "refs/heads/step/1000", commit),
    }
    assert [(one.name, one.target_commit) for one in references.tags] == [("v1.0", commit)]
    assert (references.converts, references.pull_requests) == ([], [])


def test_commits_are_stable_and_differ_between_names(models: dict[str, Path]):
    with HubServer() as first, HubServer() as second:
        for server in (first, second):
            server.add_repository(NAME, {"one": models["main"], "two": models["main"]})
        assert first.commit(NAME, "one") == second.commit(NAME, "one") != first.commit(NAME, "two")


def test_a_branch_that_moves_leaves_its_old_commit(api: HfApi, server: HubServer, models, tmp_path: Path):
    old = server.commit(NAME)
    server.add_repository(NAME, {"main": models["step/1000"]})
    assert api.repo_info(NAME).sha == server.commit(NAME) != old
    for revision, branch in (("main", "step/1000"), (old, "main")):
        path = api.hf_hub_download(NAME, "config.json", revision=revision, cache_dir=tmp_path)
        assert Path(path).read_bytes() == (models[branch] / "config.json").read_bytes()


@pytest.mark.parametrize("revision", ["step/1000", "v1.0", "commit"])
def test_the_tree_tells_sizes_and_checksums(api: HfApi, server: HubServer, commit: str, models, revision: str):
    revision = commit if revision == "commit" else revision
    entries = {entry.path: entry for entry in api.list_repo_tree(NAME, recursive=True, revision=revision)}
    assert [path for path, entry in entries.items() if isinstance(entry, RepoFile)] == PATHS
    assert [path for path, entry in entries.items() if isinstance(entry, RepoFolder)] == ["notes", "notes/deep"]
    assert len(server.matching("*/tree/*")) == 3  # 8 entries, 3 on a page
    for path in PATHS:
        data = (models["step/1000"] / path).read_bytes()
        entry = entries[path]
        assert entry.size == len(data)
        if path in SHARDS:
            assert (entry.lfs.sha256, entry.lfs.size) == (hashlib.sha256(data).hexdigest(), len(data))
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{entry.lfs.sha256}\nsize {len(data)}\n"
            assert (entry.blob_id, entry.lfs.pointer_size) == (git_blob_oid(pointer.encode()), len(pointer))
        else:
            assert (entry.blob_id, entry.lfs) == (git_blob_oid(data), None)
        assert entry.xet_hash is None


def test_the_tree_of_one_folder(api: HfApi):
    assert [entry.path for entry in api.list_repo_tree(NAME)] == [*PATHS[:4], "notes"]
    below = list(api.list_repo_tree(NAME, "notes", expand=True))
    assert [entry.path for entry in below] == ["notes/deep", "notes/read me.txt"]
    assert all(entry.last_commit for entry in below)
    assert [entry.path for entry in api.list_repo_tree(NAME, "notes/deep")] == ["notes/deep/history.txt"]
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree(NAME, "no/such"))


def test_git_names_a_blob_as_the_server_does():
    assert git_blob_oid(b"Hello, World!") == "b45ef6fec89518d314f546fd6c3025367b721684"


def test_paths_information_tells_only_of_what_exists(api: HfApi):
    found = api.get_paths_info(NAME, ["notes", SHARDS[0], "no-such"], revision="step/1000")
    assert [(type(one), one.path) for one in found] == [(RepoFolder, "notes"), (RepoFile, SHARDS[0])]
    assert found[1].lfs is not None


def test_information(api: HfApi, server: HubServer, commit: str):
    assert (api.repo_info(NAME).sha, api.model_info(NAME).id) == (server.commit(NAME), NAME)
    info = api.repo_info(NAME, revision="step/1000", files_metadata=True)
    assert (info.sha, info.gated, info.private) == (commit, False, False)
    assert [one.rfilename for one in info.siblings] == PATHS
    assert [one.rfilename for one in info.siblings if one.lfs] == SHARDS
    assert api.list_repo_files(NAME, revision=commit) == PATHS
    assert api.repo_exists(NAME)
    assert not api.revision_exists(NAME, "no-such")


def test_a_repository_may_have_no_owner_and_other_lfs_files(api: HfApi, server: HubServer, models, tmp_path: Path):
    server.add_repository("gpt", {"main": models["main"]}, lfs_suffixes=(".txt",))
    path = api.hf_hub_download("gpt", "notes/read me.txt", cache_dir=tmp_path)
    assert Path(path).read_text() == "the same everywhere"
    assert Path(path).resolve().name == hashlib.sha256(b"the same everywhere").hexdigest()


@pytest.mark.parametrize("path", ["notes/read me.txt", SHARDS[0]])
def test_one_file(api: HfApi, server: HubServer, commit: str, models, tmp_path: Path, path: str):
    local = Path(api.hf_hub_download(NAME, path, revision="step/1000", cache_dir=tmp_path))
    assert local.read_bytes() == (models["step/1000"] / path).read_bytes()
    assert local == tmp_path / "models--lab--model" / "snapshots" / commit / path
    stored = server.file(NAME, commit, path)
    assert local.resolve().name == stored.etag
    assert server.bytes_sent() == server.bytes_sent(f"*/{path}") == stored.size
    metadata = api.get_hf_file_metadata(url=f"{server.endpoint}/{NAME}/resolve/step%2F1000/{path}")
    assert (metadata.commit_hash, metadata.etag, metadata.size) == (commit, stored.etag, stored.size)
    assert metadata.xet_file_data is None


def test_headers_of_shards_are_read_with_ranges(api: HfApi, server: HubServer):
    metadata = api.parse_safetensors_file_metadata(NAME, SHARDS[0])
    assert metadata.tensors["changing"].shape == [50_000]
    assert server.matching("*.safetensors")[-1].status == 206
    assert server.bytes_sent() < server.file(NAME, "main", SHARDS[0]).size


@pytest.mark.parametrize(
    ("asked", "status", "start", "stop"),
    [
        ("bytes=0-", 200, 0, 19),
        ("bytes=4-", 206, 4, 19),
        ("bytes=4-6", 206, 4, 7),
        ("bytes=4-600", 206, 4, 19),
        ("bytes=-5", 206, 14, 19),
        ("bytes=19-", 416, 0, 0),
    ],
)
def test_ranges(server: HubServer, asked: str, status: int, start: int, stop: int):
    url = f"{server.endpoint}/{NAME}/resolve/main/notes/read%20me.txt"
    answer = httpx2.get(url, headers={"Range": asked}, trust_env=False)
    assert answer.status_code == status
    assert server.requests[-1].range == asked
    if status == 206:
        assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/19"
    if status != 416:
        assert answer.content == b"the same everywhere"[start:stop]


# Snapshots


def test_a_snapshot_holds_the_files_that_match(api: HfApi, server: HubServer, commit: str, models, tmp_path: Path):
    folder = api.snapshot_download(
        NAME, revision=commit, allow_patterns=["*.json", "*.safetensors"], cache_dir=tmp_path
    )
    assert sorted(content(folder)) == [path for path in PATHS if not path.startswith("notes")]
    for path, data in content(folder).items():
        assert data == (models["step/1000"] / path).read_bytes()
    assert load_file(Path(folder) / SHARDS[1])["constant"][-1] == 9999
    assert server.bytes_sent() == sum(map(len, content(folder).values()))
    assert server.bytes_sent("*/notes/*") == 0


def test_a_second_snapshot_downloads_nothing(api: HfApi, server: HubServer, commit: str, tmp_path: Path):
    first = api.snapshot_download(NAME, revision=commit, cache_dir=tmp_path)
    server.clear_requests()
    assert api.snapshot_download(NAME, revision=commit, cache_dir=tmp_path) == first
    assert server.requests == []
    assert api.snapshot_download(NAME, revision="step/1000", cache_dir=tmp_path) == first
    assert [request.path for request in server.requests] == [f"/api/models/{NAME}/revision/step/1000"]
    assert server.bytes_sent() == 0


def test_revisions_share_blobs_and_deleting_one_spares_the_other(
    api: HfApi, server: HubServer, commit: str, models, tmp_path: Path
):
    api.snapshot_download(NAME, revision=commit, cache_dir=tmp_path)
    server.clear_requests()
    other = api.snapshot_download(NAME, revision=server.commit(NAME), cache_dir=tmp_path)
    changed = {"config.json", SHARDS[0]}
    assert {
        request.path.partition("/resolve/")[2].partition("/")[2] for request in server.matching(method="GET")
    } >= changed
    assert server.bytes_sent() == sum(len(data) for path, data in content(other).items() if path in changed)

    strategy = scan_cache_dir(tmp_path).delete_revisions(commit)
    assert strategy.expected_freed_size == sum((models["step/1000"] / path).stat().st_size for path in changed)
    strategy.execute()
    assert content(other) == content(models["main"])
    assert len(list((tmp_path / "models--lab--model" / "blobs").iterdir())) == len(PATHS)
    scan_cache_dir(tmp_path).delete_revisions(server.commit(NAME)).execute()
    assert not (tmp_path / "models--lab--model").exists()


def test_a_reference_without_a_snapshot_keeps_the_cache_from_being_scanned(
    api: HfApi, server: HubServer, commit: str, tmp_path: Path
):
    api.snapshot_download(NAME, revision=commit, cache_dir=tmp_path)
    assert api.resolve_revision(NAME, revision="main", cache_dir=tmp_path).resolved == server.commit(NAME)
    scan = scan_cache_dir(tmp_path)
    assert (scan.repos, len(scan.warnings)) == (frozenset(), 1)
    scan.delete_revisions(commit).execute()
    assert (tmp_path / "models--lab--model" / "snapshots" / commit).exists()


# Errors


@pytest.mark.parametrize(
    ("name", "revision", "path", "error"),
    [
        ("lab/no-such", "main", "config.json", RepositoryNotFoundError),
        (NAME, "no-such", "config.json", RevisionNotFoundError),
        (NAME, "0" * 40, "config.json", RevisionNotFoundError),
        (NAME, "main", "no-such.json", RemoteEntryNotFoundError),
    ],
)
def test_what_does_not_exist(api: HfApi, tmp_path: Path, waits, name: str, revision: str, path: str, error):
    with pytest.raises(error):
        api.hf_hub_download(name, path, revision=revision, cache_dir=tmp_path)
    if error is not RemoteEntryNotFoundError:
        with pytest.raises(error):
            api.snapshot_download(name, revision=revision, cache_dir=tmp_path)
        with pytest.raises(error):
            list(api.list_repo_tree(name, revision=revision))
    assert issubclass(RemoteEntryNotFoundError, EntryNotFoundError)
    assert waits == []


@pytest.mark.parametrize(("token", "status"), [(False, 401), ("hf_wrong", 403)])
def test_a_gated_repository_lists_its_files_and_keeps_them(
    api: HfApi, server: HubServer, models, tmp_path: Path, token: str | bool, status: int
):
    server.add_repository("lab/gated", models, gated=True)
    assert api.repo_info("lab/gated").gated == "auto"
    assert api.list_repo_files("lab/gated") == PATHS
    for download in (
        api.snapshot_download,
        lambda name, **options: api.hf_hub_download(name, "config.json", **options),
    ):
        with pytest.raises(GatedRepoError) as raised:
            download("lab/gated", cache_dir=tmp_path, token=token)
        assert raised.value.response.status_code == status
    assert server.bytes_sent() == 0
    folder = api.snapshot_download("lab/gated", cache_dir=tmp_path, token=server.token)
    assert content(folder) == content(models["main"])


def test_a_private_repository_hides(api: HfApi, server: HubServer, models):
    server.add_repository("lab/private", models, private=True)
    for token in (False, "hf_wrong"):
        with pytest.raises(RepositoryNotFoundError):
            api.list_repo_refs("lab/private", token=token)
    assert api.list_repo_refs("lab/private", token=server.token).branches


def test_a_missing_shard_leaves_the_other_files(api: HfApi, server: HubServer, commit: str, models, tmp_path: Path):
    server.hide(f"*/resolve/*/{SHARDS[1]}")
    with pytest.raises(RemoteEntryNotFoundError, match=SHARDS[1]):
        api.snapshot_download(NAME, revision=commit, cache_dir=tmp_path, max_workers=1)
    with pytest.raises(IncompleteSnapshotError):
        api.snapshot_download(NAME, revision=commit, cache_dir=tmp_path, local_files_only=True)
    server.clear_faults()
    folder = api.snapshot_download(NAME, revision=commit, cache_dir=tmp_path)
    assert content(folder) == content(models["step/1000"])
    assert server.bytes_sent() == sum(map(len, content(folder).values()))


def test_wrong_content_goes_unnoticed_until_checked(api: HfApi, server: HubServer, commit: str, models, tmp_path: Path):
    fault = server.corrupt(f"*/{SHARDS[0]}", at=-8, count=2)
    folder = Path(api.snapshot_download(NAME, revision=commit, cache_dir=tmp_path))
    assert fault.used == 1
    right, wrong = (models["step/1000"] / SHARDS[0]).read_bytes(), (folder / SHARDS[0]).read_bytes()
    assert [at - len(right) for at in range(len(right)) if right[at] != wrong[at]] == [-8, -7]
    checked = api.verify_repo_checksums(NAME, revision=commit, cache_dir=tmp_path)
    assert [one["path"] for one in checked.mismatches] == [SHARDS[0]]
    api.hf_hub_download(NAME, SHARDS[0], revision=commit, cache_dir=tmp_path)
    assert (folder / SHARDS[0]).read_bytes() == wrong
    api.hf_hub_download(NAME, SHARDS[0], revision=commit, cache_dir=tmp_path, force_download=True)
    assert api.verify_repo_checksums(NAME, revision=commit, cache_dir=tmp_path).mismatches == []


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_file_is_asked_about_again(api: HfApi, server: HubServer, tmp_path: Path, waits, status: int):
    fault = server.fail("*/config.json", status, method="HEAD", times=3)
    api.hf_hub_download(NAME, "config.json", cache_dir=tmp_path)
    assert fault.used == 3
    assert waits == [1, 2]  # the second attempt comes at once


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_content_is_asked_for_again_only_after_some_errors(
    api: HfApi, server: HubServer, tmp_path: Path, waits, status: int
):
    server.fail("*/config.json", status, method="GET", times=2)
    if status < 500:
        api.hf_hub_download(NAME, "config.json", cache_dir=tmp_path)
        assert waits == [1, 2]
    else:
        with pytest.raises(HfHubHTTPError) as raised:
            api.hf_hub_download(NAME, "config.json", cache_dir=tmp_path)
        assert raised.value.response.status_code == status
        assert waits == []
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "waited"),
    [
        ({"retry_after": 0}, 1),
        ({"retry_after": 7}, 8),
        ({"headers": {"ratelimit": '"resolvers";r=0;t=55'}}, 56),
        ({"headers": {"ratelimit": '"resolvers";r=9;t=55'}}, 1),
    ],
)
def test_a_rate_limit_says_how_long_to_wait(api: HfApi, server: HubServer, tmp_path: Path, waits, options, waited: int):
    server.fail("*/config.json", 429, method="GET", **options)
    api.hf_hub_download(NAME, "config.json", cache_dir=tmp_path)
    assert waits == [waited]


def test_a_rate_limit_that_stays(api: HfApi, server: HubServer, tmp_path: Path, waits):
    fault = server.fail("*/resolve/*", 429, times=None)
    with pytest.raises(LocalEntryNotFoundError) as raised:
        api.hf_hub_download(NAME, "config.json", cache_dir=tmp_path)
    assert isinstance(raised.value.__cause__, HfHubHTTPError)
    assert raised.value.__cause__.response.status_code == 429
    assert (fault.used, waits) == (7, [1, 2, 4, 8, 8])


def test_the_tree_is_asked_for_again_but_references_and_information_are_not(api: HfApi, server: HubServer, waits):
    server.fail("/api/*", 503)
    server.fail("/api/*", 429, retry_after=0)
    assert len(list(api.list_repo_tree(NAME))) == 5
    assert waits == [1, 1]
    for call in (api.list_repo_refs, api.repo_info, lambda name: api.get_paths_info(name, "config.json")):
        server.fail("/api/*", 429, retry_after=0)
        with pytest.raises(HfHubHTTPError, match="429"):
            call(NAME)
    assert waits == [1, 1]


def test_a_branch_falls_back_to_its_old_snapshot_without_a_word(api: HfApi, server: HubServer, models, tmp_path: Path):
    old = api.snapshot_download(NAME, cache_dir=tmp_path)
    server.add_repository(NAME, {"main": models["step/1000"]})
    server.fail("/api/*", 429)
    assert api.snapshot_download(NAME, cache_dir=tmp_path) == old
    assert api.snapshot_download(NAME, cache_dir=tmp_path) != old


# Connections


def test_a_cut_download_goes_on_where_it_stopped(
    api: HfApi, server: HubServer, models, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, waits
):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)
    server.cut(f"*/{SHARDS[0]}", after=20 * 4096)
    server.cut(f"*/{SHARDS[0]}", after=10 * 4096)
    path = api.hf_hub_download(NAME, SHARDS[0], cache_dir=tmp_path)
    assert Path(path).read_bytes() == (models["main"] / SHARDS[0]).read_bytes()
    gets = server.matching(method="GET")
    assert [request.range for request in gets] == [None, f"bytes={20 * 4096}-", f"bytes={30 * 4096}-"]
    assert [request.status for request in gets] == [200, 206, 206]
    assert server.bytes_sent() == Path(path).stat().st_size
    assert waits == [1, 1]
    assert leftovers(tmp_path) == []


def test_what_a_cut_download_loses(api: HfApi, server: HubServer, large: Path, tmp_path: Path, waits):
    server.add_repository("lab/large", {"main": large})
    server.cut("*/large.bin", after=5 * MIB)
    server.cut("*/large.bin", after=10 * MIB + 1000)
    path = api.hf_hub_download("lab/large", "large.bin", cache_dir=tmp_path)
    assert Path(path).read_bytes() == (large / "large.bin").read_bytes()
    assert [request.range for request in server.matching(method="GET")] == [None, None, f"bytes={10 * MIB}-"]
    assert server.bytes_sent() == 16 * MIB + 1000


def test_a_download_that_is_always_cut_gives_up(api: HfApi, server: HubServer, tmp_path: Path, waits):
    fault = server.cut(f"*/{SHARDS[0]}", after=1000, times=None)
    with pytest.raises(httpx2.RemoteProtocolError):
        api.hf_hub_download(NAME, SHARDS[0], cache_dir=tmp_path)
    assert (fault.used, waits) == (6, [1] * 5)
    assert leftovers(tmp_path) == []


def test_a_reset_connection_is_not_tried_again(api: HfApi, server: HubServer, tmp_path: Path, waits):
    server.cut(f"*/{SHARDS[0]}", after=1000, reset=True)
    with pytest.raises(httpx2.ReadError):
        api.hf_hub_download(NAME, SHARDS[0], cache_dir=tmp_path)
    assert waits == []
    assert leftovers(tmp_path) == []
    api.hf_hub_download(NAME, SHARDS[0], cache_dir=tmp_path)


def test_no_answer_at_all(api: HfApi, server: HubServer, tmp_path: Path, waits):
    server.drop("*/config.json", method="GET")
    api.hf_hub_download(NAME, "config.json", cache_dir=tmp_path / "content")
    assert waits == [1]
    for reset, error in ((False, httpx2.RemoteProtocolError), (True, httpx2.ReadError)):
        server.drop("*/config.json", method="HEAD", reset=reset)
        with pytest.raises(error):
            api.hf_hub_download(NAME, "config.json", cache_dir=tmp_path / "question")
    server.drop("*/tree/*", times=2, reset=True)
    assert len(list(api.list_repo_tree(NAME))) == 5
    assert waits == [1, 1, 2]


def test_a_slow_server(
    api: HfApi, server: HubServer, commit: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, waits
):
    server.slow(f"*/{SHARDS[1]}", bytes_per_second=200_000)
    started = time.monotonic()
    api.hf_hub_download(NAME, SHARDS[1], cache_dir=tmp_path)
    assert time.monotonic() - started > 0.9 * server.file(NAME, "main", SHARDS[1]).size / 200_000
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    server.slow("*/config.json", delay=0.6, times=1, method="GET")
    api.hf_hub_download(NAME, "config.json", cache_dir=tmp_path)
    assert waits == [1]
    assert len(server.matching("*/config.json", "GET")) == 2


def test_no_network(models, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, waits):
    with HubServer() as server:
        server.isolate_client(monkeypatch)
        server.add_repository(NAME, models)
        api = HfApi(endpoint=server.endpoint, token=False)
        folder = api.snapshot_download(NAME, revision=server.commit(NAME), cache_dir=tmp_path)
    assert api.snapshot_download(NAME, revision=server.commit(NAME), cache_dir=tmp_path) == folder
    assert waits == []
    for call in (api.hf_hub_download, lambda name, _, **options: api.snapshot_download(name, **options)):
        with pytest.raises(LocalEntryNotFoundError) as raised:
            call(NAME, "config.json", revision="0" * 40, cache_dir=tmp_path)
        assert isinstance(raised.value.__cause__, httpx2.ConnectError)
    assert waits == [1, 2, 4, 8, 8] * 2
    with pytest.raises(httpx2.ConnectError):
        api.list_repo_refs(NAME)


def test_offline(api: HfApi, server: HubServer, commit: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, waits):
    folder = api.snapshot_download(NAME, revision=commit, cache_dir=tmp_path)
    server.clear_requests()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert api.snapshot_download(NAME, revision=commit, cache_dir=tmp_path) == folder
    for call in (api.hf_hub_download, lambda name, _, **options: api.snapshot_download(name, **options)):
        with pytest.raises(LocalEntryNotFoundError) as raised:
            call(NAME, "config.json", revision="main", cache_dir=tmp_path)
        assert isinstance(raised.value.__cause__, OfflineModeIsEnabled)
    for call in (api.list_repo_refs, api.repo_info, lambda name: list(api.list_repo_tree(name))):
        with pytest.raises(OfflineModeIsEnabled):
            call(NAME)
    assert (server.requests, waits) == ([], [])


# Other processes

DOWNLOAD = """
import sys
from huggingface_hub import constants, snapshot_download

constants.DOWNLOAD_CHUNK_SIZE = 4096
print(snapshot_download(sys.argv[1], max_workers=1))
"""


def start(server: HubServer) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DOWNLOAD, NAME]
    environment = {**os.environ, **server.environment()}
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_process_that_is_killed_leaves_a_part_that_nobody_uses(server: HubServer, models):
    server.slow(f"*/{SHARDS[0]}", bytes_per_second=100_000, method="GET")
    cache = server.home / "hub"
    with start(server) as process:
        deadline = time.monotonic() + 20
        while not any(part.stat().st_size for part in leftovers(cache)):
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    assert len(leftovers(cache)) == 1
    server.clear_faults()
    server.clear_requests()
    with start(server) as process:
        said, complained = process.communicate(timeout=20)
    assert process.returncode == 0, complained
    assert content(said.strip()) == content(models["main"])
    assert [request.range for request in server.matching(f"*/{SHARDS[0]}", "GET")] == [None]
    assert server.bytes_sent(f"*/{SHARDS[0]}") == server.file(NAME, "main", SHARDS[0]).size
    assert {one.file_path for one in scan_cache_dir(cache).incomplete_files} == set(leftovers(cache))
    assert len(leftovers(cache)) == 1


def test_code_that_names_neither_endpoint_nor_cache(models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with HubServer() as server, pytest.MonkeyPatch.context() as patch:
        server.add_repository(NAME, models)
        server.redirect_client(patch, tmp_path)
        folder = huggingface_hub.snapshot_download(NAME)
        path = huggingface_hub.hf_hub_download(NAME, "config.json", revision="step/1000")
        assert len(huggingface_hub.list_repo_refs(NAME).branches) == 2
        assert len(scan_cache_dir().repos) == 1
    assert content(folder) == content(models["main"])
    assert Path(path).is_relative_to(tmp_path)
    assert server.endpoint != constants.ENDPOINT


def test_the_end_cuts_what_still_runs():
    with HubServer() as server, ThreadPoolExecutor() as pool:
        server.slow("*", delay=60)
        waiting = pool.submit(httpx2.get, server.endpoint, trust_env=False, timeout=60)
        while not server.requests:
            time.sleep(0.01)
        started = time.monotonic()
        server.close()
        with pytest.raises(httpx2.TransportError):
            waiting.result()
    assert time.monotonic() - started < 5
    assert not server.home.exists()
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(server.endpoint, trust_env=False)
