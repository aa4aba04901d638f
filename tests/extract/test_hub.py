"""The source that serves a repository's revisions: the real client against a little Hub, with real tiny models."""

import errno
import json
import os
import pty
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import HfApi, close_session, constants, get_session
from safetensors.torch import load_file
from tenacity import wait_fixed, wait_none
from transformers import AutoModelForCausalLM

from tests.conftest import save_checkpoint
from tests.hub_server import HubServer
from timecourse.errors import SourceError, UsageError, UserError
from timecourse.extract.checkpoints import hub
from timecourse.extract.checkpoints.checkpoint import SMALL_FILES, Checkpoint
from timecourse.extract.checkpoints.directory import DirectorySource
from timecourse.extract.checkpoints.hub import HubSource
from timecourse.extract.checkpoints.names import parse_name
from timecourse.extract.loading import load_model, load_tokenizer

NAME = "lab/model"
WEIGHTS = "model.safetensors"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of checkpoints: step0 in one file, step100 in two, main the same as step100; with other files."""
    root = tmp_path_factory.mktemp("models")
    for step in (0, 100):
        save_checkpoint(root / f"step{step}", seed=step)
        (root / f"step{step}" / "trainer_state.json").write_text(json.dumps({"num_input_tokens_seen": step * 7}))
    sharded = AutoModelForCausalLM.from_pretrained(root / "step100")
    (root / "step100" / WEIGHTS).unlink()
    sharded.save_pretrained(root / "step100", max_shard_size="180KB")
    assert sorted(path.name for path in (root / "step100").glob("*.safetensors")) == list(SHARDS)
    shutil.copytree(root / "step100", root / "main")
    for name in ("step0", "step100", "main"):
        (root / name / "onnx").mkdir()
        (root / name / "onnx" / WEIGHTS).write_bytes(b"other weights")
        (root / name / "pytorch_model.bin").write_bytes(os.urandom(1000))
        (root / name / "README.md").write_text(f"the model of {name}")
    return root


@pytest.fixture
def server(models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as server:
        server.isolate_client(monkeypatch)
        revisions = {path.name: path for path in models.iterdir()}
        server.add_repository(NAME, {**revisions, "refs/convert/x": models / "main", "refs/pr/1": models / "main"})
        yield server


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "WAIT", wait_none())
    for module in ("huggingface_hub.utils._http", "huggingface_hub.file_download"):
        monkeypatch.setattr(sys.modules[module], "time", SimpleNamespace(sleep=lambda seconds: None))


@pytest.fixture
def new_source(server: HubServer, tmp_path: Path) -> Callable[..., HubSource]:
    """Makes sources of one cache, as one run after another does."""

    def new(name: str = NAME, **options: object) -> HubSource:
        return HubSource(name, **{"endpoint": server.endpoint, "cache_dir": tmp_path, "token": False, **options})

    return new


@pytest.fixture
def source(new_source: Callable[..., HubSource]) -> HubSource:
    return new_source()


def opened(source: HubSource | DirectorySource, name: str) -> Checkpoint:
    place = parse_name(name)
    assert place is not None
    return source.open(name, name, place)


def fetched(source: HubSource, name: str) -> Checkpoint:
    checkpoint = opened(source, name)
    source.fetch(checkpoint)
    return checkpoint


def asked_for(server: HubServer, method: str | None = None) -> set[str]:
    """The files whose content was asked for or asked about."""
    return {request.path.split("/resolve/")[1].partition("/")[2] for request in server.matching("*/resolve/*", method)}


def assert_is_there(checkpoint: Checkpoint, directory: Path) -> None:
    """The checkpoint's folder holds what the directory holds, as far as it is needed."""
    there = {path.name for path in checkpoint.folder.iterdir()}
    needed = {*checkpoint.weight_files, *(name for name in SMALL_FILES if (directory / name).exists())}
    assert there == needed
    for name in needed:
        assert (checkpoint.folder / name).read_bytes() == (directory / name).read_bytes(), name


def leftovers(cache: Path) -> list[Path]:
    return list(cache.glob("*/blobs/*.incomplete"))


def weight_bytes(cache: Path) -> int:
    """What the files of weights take in the cache, each once."""
    return sum(path.stat().st_size for path in cache.glob("*/blobs/*") if path.stat().st_size > 50_000)


# What is there


def test_the_names_are_branches_and_tags(server: HubServer, models: Path, source: HubSource):
    server.add_repository(NAME, {}, tags={"v1": "main", "step0": "main"})
    assert source.names() == ["main", "step0", "step100", "v1"]
    assert opened(source, "step0").commit_sha == server.repositories[NAME].branches["step0"]
    assert source.open("v1", "v1", parse_name("main")).commit_sha == server.commit(NAME)
    assert str(source) == NAME


@pytest.mark.parametrize("lfs", [(".safetensors", ".bin"), (".json",)])
def test_a_checkpoint_is_the_one_that_a_directory_holds(
    server: HubServer, models: Path, new_source: Callable[..., HubSource], lfs: tuple[str, ...]
):
    server.add_repository("lab/other", {name: models / name for name in ("step0", "step100")}, lfs_suffixes=lfs)
    source, directory = new_source("lab/other"), DirectorySource(models)
    for name in ("step0", "step100"):
        here, there = opened(directory, name), opened(source, name)
        for value in ("weights_sha256", "tensors_sha256", "tokenizer_sha256", "architecture", "bytes", "config",
                      "weight_files", "tokenizer_files", "tokens_computed", "name", "place"):  # fmt: skip
            assert getattr(there, value) == getattr(here, value), value
        assert there.commit_sha == server.commit("lab/other", name)
        source.fetch(there)
        assert_is_there(there, models / name)


def test_opening_downloads_no_weights_and_fetching_only_them(server: HubServer, models: Path, source: HubSource):
    small = {"config.json", "tokenizer.json", "tokenizer_config.json", "trainer_state.json"}
    checkpoint = opened(source, "step100")
    _ = checkpoint.weights_sha256, checkpoint.tokenizer_sha256
    assert asked_for(server) == {*small, "model.safetensors.index.json"}
    server.clear_requests()
    source.fetch(checkpoint)
    assert asked_for(server) == set(SHARDS)
    assert server.bytes_sent() == checkpoint.bytes == sum((models / "step100" / name).stat().st_size for name in SHARDS)
    assert_is_there(checkpoint, models / "step100")


def test_what_is_there_is_not_downloaded_again(server: HubServer, new_source: Callable[..., HubSource]):
    checkpoint = fetched(source := new_source(), "step100")
    server.clear_requests()
    source.fetch(checkpoint)
    assert server.requests == []
    again = new_source()
    fetched(again, "step100")
    assert server.matching("*/resolve/*") == []
    fetched(again, "main")
    assert asked_for(server, "GET") == set()  # another commit of the same files


def test_a_fetched_checkpoint_is_loaded_from_its_folder(source: HubSource, models: Path):
    checkpoint = fetched(source, "step100")
    model = load_model(checkpoint, "float32", "cpu", "eager")
    stored = {name: value for shard in SHARDS for name, value in load_file(models / "step100" / shard).items()}
    weights = model.network.state_dict()
    assert stored and all(torch.equal(weights[name], value) for name, value in stored.items())
    assert len(load_tokenizer(checkpoint)) == 320


def test_repetitions_are_seen_without_their_weights(server: HubServer, source: HubSource):
    main, last, first = (opened(source, name) for name in ("main", "step100", "step0"))
    assert main.tensors_sha256 == last.tensors_sha256 != first.tensors_sha256
    assert main.commit_sha != last.commit_sha
    assert not any(name.endswith((".safetensors", ".bin")) for name in asked_for(server))


def test_a_branch_that_moves_after_it_was_listed(server: HubServer, models: Path, source: HubSource):
    source.names()
    listed = server.commit(NAME, "step0")
    server.add_repository(NAME, {"step0": models / "step100"})
    checkpoint = fetched(source, "step0")
    assert checkpoint.commit_sha == listed != server.commit(NAME, "step0")
    assert_is_there(checkpoint, models / "step0")


def test_checkpoints_are_opened_side_by_side(server: HubServer, models: Path, new_source: Callable[..., HubSource]):
    server.add_repository("lab/long", {f"step{step}": models / "step0" for step in range(40)})
    source = new_source("lab/long")
    names = source.names()
    with ThreadPoolExecutor(8) as pool:
        checkpoints = list(pool.map(lambda name: opened(source, name), names))
    assert [one.name for one in checkpoints] == names
    assert len({one.weights_sha256 for one in checkpoints}) == 1
    assert len({one.commit_sha for one in checkpoints}) == 40
    assert len(server.matching("*/tree/*")) == 40


# What cannot be used


def altered(models: Path, directory: Path, alter: Callable[[Path], object]) -> Path:
    shutil.copytree(models / "step100", directory)
    alter(directory)
    return directory


def leave_pickles(directory: Path) -> None:
    for path in directory.glob("model*"):
        path.unlink()


def quantise(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "quantization_config": {"bits": 4}}))


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (lambda directory: (directory / SHARDS[1]).unlink(), f"lacks the weights file '{SHARDS[1]}'"),
        (leave_pickles, "pickled weights only"),
        (quantise, "quantised"),
        (lambda directory: (directory / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda directory: (directory / "config.json").unlink(), "no config.json"),
        (lambda directory: [path.unlink() for path in directory.glob("*.*")], "no config.json"),
    ],
)
def test_a_checkpoint_that_cannot_be_used(
    server: HubServer, models: Path, new_source: Callable[..., HubSource], tmp_path: Path, alter, said: str
):
    directory = altered(models, tmp_path / "altered", alter)
    server.add_repository("lab/bad", {"step1": directory, "step0": models / "step0"})
    source = new_source("lab/bad")
    with pytest.raises(UserError, match=said) as raised:
        opened(source, "step1")
    assert not isinstance(raised.value, SourceError)
    assert not any(name.endswith((".safetensors", ".bin")) for name in asked_for(server))
    opened(source, "step0")


def test_a_model_of_no_family(server: HubServer, new_source: Callable[..., HubSource], models: Path, tmp_path: Path):
    config = {"model_type": "bert"}
    directory = altered(models, tmp_path / "bert", lambda path: (path / "config.json").write_text(json.dumps(config)))
    server.add_repository("lab/bert", {"step1": directory})
    with pytest.raises(UserError, match="'bert'"):
        opened(new_source("lab/bert"), "step1")


def test_a_file_that_is_listed_and_not_served(server: HubServer, source: HubSource):
    checkpoint = opened(source, "step100")
    server.hide(f"*/{SHARDS[1]}")
    with pytest.raises(UserError, match=f"{SHARDS[1]} of checkpoint 'step100' is missing") as raised:
        source.fetch(checkpoint)
    assert not isinstance(raised.value, SourceError)
    assert (checkpoint.folder / SHARDS[0]).exists()
    server.clear_faults()
    source.fetch(checkpoint)


def test_a_file_that_is_no_safetensors_file(
    server: HubServer, new_source: Callable[..., HubSource], models: Path, tmp_path: Path
):
    directory = altered(models, tmp_path / "torn", lambda path: (path / SHARDS[0]).write_bytes(b"torn" * 100))
    server.add_repository("lab/torn", {"step1": directory})
    with pytest.raises(UserError, match="torn"):
        fetched(new_source("lab/torn"), "step1")


# What goes wrong on the way

PASSING = {
    "429": lambda server, file: server.fail(file, 429, times=2, retry_after=0),
    "500": lambda server, file: server.fail(file, 500, times=4),
    "503": lambda server, file: server.fail(file, 503, times=2, method="GET"),
    "cut": lambda server, file: server.cut(file, after=5000, times=3),
    "reset": lambda server, file: server.cut(file, after=5000, times=3, reset=True),
    "dropped": lambda server, file: server.drop(file, times=2),
    "dropped by a reset": lambda server, file: server.drop(file, times=3, reset=True),
    "silent": lambda server, file: server.slow(file, delay=0.6, times=1, method="GET"),
    "slow": lambda server, file: server.slow(file, bytes_per_second=1_000_000, times=1, method="GET"),
}


@pytest.mark.parametrize("trouble", PASSING)
def test_trouble_that_passes(server: HubServer, models: Path, new_source, tmp_path: Path, monkeypatch, trouble: str):
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)
    monkeypatch.setattr(hub, "SILENCE", 0.3)
    patterns = ["*/refs", "*/tree/*", "*/config.json", f"*/{SHARDS[1]}"]
    needed = patterns[3:] if trouble in ("cut", "reset") else patterns  # the others are too short to be cut
    faults = [PASSING[trouble](server, pattern) for pattern in needed]
    checkpoint = fetched(new_source(), "step100")
    assert_is_there(checkpoint, models / "step100")
    assert all(fault.used == fault.times for fault in faults)
    assert trouble != "silent" or all(len(server.matching(pattern, "GET")) == 2 for pattern in needed)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("pattern", ["*/refs", "*/tree/*", "*/config.json", f"*/{WEIGHTS}"])
@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (lambda server, file: server.fail(file, 429, times=None), "limits the rate of requests: wait"),
        (
            lambda server, file: server.fail(file, 502, times=None),
            r"is in trouble \(status 502 for .*\): try again",
        ),
        (lambda server, file: server.drop(file, times=None, reset=True), "cannot be reached .*check the network"),
        (lambda server, file: server.fail(file, 403, times=None), r"refuses .* \(status 403\): log in again"),
        (lambda server, file: server.fail(file, 418, times=None), "lab/model: .* cannot be read: .*418"),
    ],
)
def test_trouble_that_stays(server: HubServer, source: HubSource, tmp_path: Path, pattern: str, trouble, said: str):
    fault = trouble(server, pattern)
    with pytest.raises(UserError, match=said) as raised:
        fetched(source, "step0")
    assert isinstance(raised.value, SourceError) == any(word in said for word in ("rate", "reached", "refuses"))
    assert "\n" not in str(raised.value)
    assert fault.used == 1 if "418" in said or "403" in said else fault.used >= hub.TRIES
    assert leftovers(tmp_path) == []


def test_a_client_that_another_thread_closed(source: HubSource, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hub, "WAIT", wait_fixed(0.1))
    get_session().close()
    threading.Timer(0.2, close_session).start()
    assert source.names()


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OSError("Consistency check failed: file should be of size 5 but has size 4"), True),
        (ConnectionError("Xet: the connection was lost"), True),
        (RuntimeError("Xet: data processing failed"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (ValueError("The file is too large"), False),
    ],
)
def test_errors_that_no_server_here_can_cause(source: HubSource, error: Exception, passes: bool):
    left = [error]

    def call() -> str:
        if left:
            raise left.pop()
        return "came through"

    if passes:
        assert source._ask("a file", call) == "came through"
    else:
        with pytest.raises(OSError if isinstance(error, OSError) else UserError):
            source._ask("a file", call)


def test_wrong_content_is_replaced(server: HubServer, models: Path, source: HubSource):
    checkpoint = opened(source, "step100")
    server.corrupt(f"*/{SHARDS[1]}", at=-8, count=2)
    server.clear_requests()
    source.fetch(checkpoint)
    assert_is_there(checkpoint, models / "step100")
    sizes = [(models / "step100" / name).stat().st_size for name in SHARDS]
    assert server.bytes_sent() == sizes[0] + 2 * sizes[1]


def test_wrong_content_that_stays_is_not_kept(server: HubServer, models: Path, source: HubSource, tmp_path: Path):
    other, checkpoint = fetched(source, "main"), opened(source, "step0")
    fault = server.corrupt(f"*/{WEIGHTS}", times=None)
    with pytest.raises(UserError, match=f"{WEIGHTS} of checkpoint 'step0' does not have the hash") as raised:
        source.fetch(checkpoint)
    assert not isinstance(raised.value, SourceError)
    assert fault.used == 2
    assert not (checkpoint.folder / WEIGHTS).is_symlink()
    assert weight_bytes(tmp_path) == other.bytes
    server.clear_faults()
    source.fetch(checkpoint)
    assert_is_there(checkpoint, models / "step0")


@pytest.mark.parametrize("file", [WEIGHTS, "tokenizer.json"])
def test_wrong_content_from_an_earlier_run(server: HubServer, models: Path, source: HubSource, tmp_path: Path, file):
    fault = server.corrupt(f"*/{file}", at=100)
    api = HfApi(endpoint=server.endpoint, token=False)
    api.snapshot_download(NAME, revision=server.commit(NAME, "step0"), allow_patterns=[file], cache_dir=tmp_path)
    assert fault.used == 1
    assert_is_there(fetched(source, "step0"), models / "step0")


def test_a_gated_repository(server: HubServer, models: Path, new_source: Callable[..., HubSource]):
    server.add_repository("lab/gated", {"step0": models / "step0"}, gated=True)
    for token in (False, "hf_wrong"):
        source = new_source("lab/gated", token=token)
        assert source.names() == ["step0"]
        with pytest.raises(
            SourceError, match=f"gated: accept its terms at {server.endpoint}/lab/gated .*hf auth login"
        ):
            opened(source, "step0")
    assert len(server.matching("*/resolve/*")) == 2
    fetched(new_source("lab/gated", token=server.token), "step0")


def test_a_repository_that_does_not_exist_or_hides(server: HubServer, models: Path, new_source):
    server.add_repository("lab/private", {"step0": models / "step0"}, private=True)
    for name in ("lab/no-such", "lab/private"):
        with pytest.raises(SourceError, match=f"has no {name}, or hides it: check the name, or log in: hf auth login"):
            new_source(name).names()
    assert len(server.requests) == 2
    fetched(new_source("lab/private", token=server.token), "step0")
    server.add_repository("lab/empty", {})
    with pytest.raises(UserError, match="holds no revision"):
        new_source("lab/empty").names()
    for name in ("a/b/c", "lab/mo del", ""):
        with pytest.raises(UsageError, match="owner/name"):
            new_source(name)


def test_a_revision_that_is_gone(server: HubServer, source: HubSource):
    source.names()
    del server.repositories[NAME].commits[server.commit(NAME, "step0")]
    with pytest.raises(UserError, match="'step0' is gone"):
        opened(source, "step0")
    with pytest.raises(UserError, match="no revision 'step7'"):
        opened(source, "step7")


def test_no_network(server: HubServer, source: HubSource, models: Path):
    checkpoint, complete = opened(source, "step0"), fetched(source, "step100")
    server.close()
    for call in (source.names, lambda: opened(source, "main"), lambda: source.fetch(checkpoint)):
        with pytest.raises(SourceError, match=r"cannot be reached .*refused.*check the network"):
            call()
    source.fetch(complete)
    assert_is_there(complete, models / "step100")


def test_offline(source: HubSource, monkeypatch: pytest.MonkeyPatch):
    checkpoint, complete = opened(source, "step0"), fetched(source, "step100")
    monkeypatch.setattr(hub, "WAIT", lambda state: pytest.fail("tried again"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for call in (source.names, lambda: opened(source, "main"), lambda: source.fetch(checkpoint)):
        with pytest.raises(SourceError, match="offline: unset HF_HUB_OFFLINE"):
            call()
    source.fetch(complete)


def test_what_is_no_hub(server: HubServer, new_source: Callable[..., HubSource], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hub, "WAIT", lambda state: pytest.fail("tried again"))
    with pytest.raises(UserError, match="lab/model: the list of revisions cannot be read"):
        new_source(endpoint=f"{server.endpoint}/no/hub").names()
    with pytest.raises(SourceError, match=r"cannot be reached .*check the network"):
        new_source(endpoint="no-protocol").names()


def test_a_full_disk_is_the_systems_own_error(source: HubSource, tmp_path: Path):
    checkpoint = opened(source, "step0")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError) as raised:
            source.fetch(checkpoint)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.errno == errno.EFBIG
    assert leftovers(tmp_path) == []


# Runs in a process of their own

RUN = """
import sys
from timecourse.extract.checkpoints.hub import HubSource, constants
from timecourse.extract.checkpoints.names import parse_name

constants.DOWNLOAD_CHUNK_SIZE = 4096
source = HubSource(sys.argv[1])
source.fetch(source.open("step100", "step100", parse_name("step100")))
"""


def start(server: HubServer, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN, NAME]
    return subprocess.Popen(command, env={**os.environ, **server.environment()}, text=True, stderr=stderr)


def test_nothing_is_said_on_a_terminal(server: HubServer):
    server.fail("*/tree/*", 503)
    server.cut(f"*/{SHARDS[0]}", after=50_000)
    screen, terminal = pty.openpty()
    with start(server, terminal) as process:
        assert process.wait(20) == 0
    os.write(terminal, b"the end")
    assert os.read(screen, 10_000) == b"the end"
    os.close(screen)
    os.close(terminal)


def test_a_killed_run_goes_on_with_the_next_file(server: HubServer, models: Path, new_source):
    cache = server.home / "hub"
    server.slow(f"*/{SHARDS[1]}", bytes_per_second=30_000, method="GET")
    with start(server) as process:
        deadline = time.monotonic() + 20
        while not (list(cache.glob(f"*/snapshots/*/{SHARDS[0]}")) and server.bytes_sent(f"*/{SHARDS[1]}")):
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    assert len(leftovers(cache)) == 1
    server.clear_faults()
    server.clear_requests()
    os.utime(leftovers(cache)[0], (0, time.time() - hub.ORPHANED - 60))
    with start(server) as process:
        assert process.communicate(timeout=20)[1] == ""
    assert process.returncode == 0
    assert asked_for(server) == {SHARDS[1]}
    assert server.bytes_sent() == (models / "step100" / SHARDS[1]).stat().st_size
    assert leftovers(cache) == []
    assert_is_there(opened(new_source(cache_dir=cache), "step100"), models / "step100")


def test_parts_that_may_still_grow_stay(source: HubSource, tmp_path: Path):
    checkpoint = opened(source, "step0")
    blobs, others = tmp_path / "models--lab--model" / "blobs", tmp_path / "models--lab--other" / "blobs"
    others.mkdir(parents=True)
    for folder in (blobs, others):
        for name, age in (("old", hub.ORPHANED + 60), ("young", hub.ORPHANED - 60)):
            (folder / f"{name}.incomplete").write_bytes(b"part")
            os.utime(folder / f"{name}.incomplete", (0, time.time() - age))
    source.fetch(checkpoint)
    assert {path.relative_to(tmp_path).as_posix() for path in leftovers(tmp_path)} == {
        "models--lab--model/blobs/young.incomplete",
        "models--lab--other/blobs/old.incomplete",
        "models--lab--other/blobs/young.incomplete",
    }


# The limit on the cache


def test_evicting_frees_the_weights_and_nothing_else(server: HubServer, models: Path, new_source, tmp_path: Path):
    source = new_source(max_cache_bytes=1)
    first, last = fetched(source, "step0"), fetched(source, "step100")
    assert weight_bytes(tmp_path) == first.bytes + last.bytes
    source.evict(first)
    assert weight_bytes(tmp_path) == last.bytes
    assert_is_there(last, models / "step100")
    assert {path.name for path in first.folder.iterdir()} == {
        *first.tokenizer_files,
        "config.json",
        "trainer_state.json",
    }
    server.clear_requests()
    again = fetched(source, "step0")
    assert asked_for(server) == {WEIGHTS}
    assert again.weights_sha256 == first.weights_sha256
    assert_is_there(again, models / "step0")


def test_evicting_spares_the_files_of_another_revision(server: HubServer, models: Path, new_source, tmp_path: Path):
    source = new_source(max_cache_bytes=1)
    main, last = fetched(source, "main"), fetched(source, "step100")
    source.evict(last)
    assert_is_there(main, models / "main")
    assert not (last.folder / SHARDS[0]).is_symlink()
    source.evict(main)
    assert weight_bytes(tmp_path) == 0
    source.evict(main)
    shutil.rmtree(tmp_path / "models--lab--model")
    source.evict(main)


def test_the_limit_is_kept_over_a_series(server: HubServer, models: Path, new_source, tmp_path: Path):
    revisions = {}
    for step in range(7):
        save_checkpoint(tmp_path / "models" / f"step{step}", seed=step)
        revisions[f"step{step}"] = tmp_path / "models" / f"step{step}"
    server.add_repository("lab/series", revisions)
    source = new_source("lab/series", cache_dir=tmp_path / "cache")
    checkpoints = [opened(source, name) for name in revisions]
    size = checkpoints[0].bytes
    for limit, peak, kept in ((None, 7, 7), (4.5 * size, 4, 3), (0, 2, 0)):
        cache = tmp_path / f"cache-{limit}"
        shutil.copytree(tmp_path / "cache", cache, symlinks=True)
        source = new_source("lab/series", cache_dir=cache, max_cache_bytes=limit)
        checkpoints = [opened(source, name) for name in revisions]
        taken = []
        source.fetch(checkpoints[0])
        for checkpoint, following in zip(checkpoints, [*checkpoints[1:], None], strict=True):
            if following:  # it comes in while the other one is worked on
                source.fetch(following)
            taken.append(weight_bytes(cache))
            source.evict(checkpoint)
        taken.append(weight_bytes(cache))
        assert max(taken) == peak * size
        assert taken[-1] == kept * size
        assert leftovers(cache) == []


def test_a_checkpoint_is_not_evicted_while_another_one_comes_in(
    server: HubServer, models: Path, new_source: Callable[..., HubSource]
):
    source = new_source(max_cache_bytes=1)
    main, last = fetched(source, "main"), opened(source, "step100")
    asked, go_on = threading.Event(), threading.Event()

    def download(*_: object, **__: object) -> str:
        asked.set()
        assert go_on.wait(10)
        return ask(*_, **__)

    ask, source._ask = source._ask, download
    with ThreadPoolExecutor(2) as pool:
        fetching = pool.submit(source.fetch, last)
        assert asked.wait(10)
        evicting = pool.submit(source.evict, main)
        time.sleep(0.1)
        assert not evicting.done()
        go_on.set()
        fetching.result()
        evicting.result()
    assert_is_there(last, models / "step100")
    assert not (main.folder / SHARDS[0]).is_symlink()


def test_a_damaged_cache_is_told(new_source: Callable[..., HubSource], tmp_path: Path):
    source = new_source(max_cache_bytes=1)
    checkpoint = fetched(source, "step0")
    (checkpoint.folder / "README.md").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"the cache of lab/model is damaged; delete .*models--lab--model"):
        source.evict(checkpoint)


def test_a_directory_is_read_without_the_client():
    code = "import sys, timecourse.extract.checkpoints.directory; sys.exit('huggingface_hub' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
