"""Processes of this machine: the lake is that of one process, a worker may be killed, and none outlives its driver."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from tests.crash.lakes import leftovers, other_commits
from tests.executors.conftest import UNUSABLE
from tests.executors.runs import ROOT, at_work, is_alive, start, wait_for
from timecourse import refresh
from timecourse.errors import GateError, MachineError, UserError
from timecourse.executors import Lost
from timecourse.executors.local import LocalExecutor
from timecourse.lake import Lake


@pytest.mark.slow
def test_the_same_lake_after_a_worker_was_killed(flags, run, undisturbed, tmp_path):
    lake = tmp_path / "lake"
    driver = start("extract", *flags(lake), "--workers", 2, said=tmp_path / "said")
    (lock, process), *_ = wait_for(lambda: list(at_work(lake).items()))
    os.kill(process, signal.SIGKILL)
    assert driver.wait() == 1
    said = (tmp_path / "said").read_text()
    name = lock.split(".")[1].rpartition("-")[0]
    assert f"s/{name}: the process that was at work on it died" in said and "Traceback" not in said
    assert "NaN or infinite" in said and "extracted 2 of 2" in said
    assert len(Lake(lake).commits()) == 2, "the others were not disturbed"
    again = run("extract", *flags(lake))
    assert "extracted 1 of 3" in again.stdout
    with Lake(lake).locked():  # whoever builds removes what was left behind
        assert not at_work(lake)
    assert other_commits(lake, undisturbed) == [] and leftovers(lake) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_driver(tmp_path, how):
    command = ["env", "--default-signal=INT", sys.executable, "-m", "tests.executors.sleeping", str(tmp_path)]
    driver = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    files = wait_for(lambda: found if len(found := list(tmp_path.glob("*.process"))) == 2 else None)
    driver.send_signal(how)
    assert driver.wait() != 0
    assert wait_for(lambda: not any(is_alive(int(file.read_text())) for file in files))
    assert len(list(tmp_path.glob("*.process"))) == 2, "the third task was not begun"


@pytest.mark.slow
def test_the_driver_is_killed_and_the_next_one_goes_on(flags, run, undisturbed, tmp_path):
    lake = tmp_path / "lake"
    driver = start("extract", *flags(lake), "--workers", 2, said=tmp_path / "said")
    workers = wait_for(lambda: at_work(lake))
    driver.kill()
    driver.wait()
    assert wait_for(lambda: not any(map(is_alive, workers.values())))
    assert wait_for(lambda: not Lake(lake).locks.is_any_held("s-*")), "of the worker that was not writing yet, too"
    again = run("extract", *flags(lake))
    assert again.returncode == 1 and "of 3 committed" in again.stdout and "is left to" not in again.stdout
    assert other_commits(lake, undisturbed) == []


@pytest.mark.parametrize(
    ("workers", "gone"),
    [(1, ""), (1, "model.safetensors"), pytest.param(2, "", marks=pytest.mark.slow)],
)
def test_a_checkpoint_that_is_gone_does_not_stop_the_others(flags, run, series, tmp_path, monkeypatch, workers, gone):
    """A trainer removes its old checkpoints when it likes; here after the plan was made."""
    checkpoints = shutil.copytree(series / "checkpoints", tmp_path / "checkpoints")
    refuse_early = refresh.refuse_early

    def and_then_it_is_removed(*arguments):
        refuse_early(*arguments)
        (checkpoints / "step1" / gone).rename(tmp_path / "removed")

    monkeypatch.setattr(refresh, "refuse_early", and_then_it_is_removed)
    lake = tmp_path / "lake"
    done = run("extract", *flags(lake), "--checkpoints", checkpoints, "--batch-size", 32, "--workers", workers)
    assert done.returncode == 1 and "extracted 2 of 2" in done.stdout, done.stderr
    assert "checkpoint 'step1' is gone" in done.stderr and done.stderr.count("\n") == 1
    assert [one.checkpoint_name for one in Lake(lake).quarantined()] == [UNUSABLE], "the next run may find it again"


class _Named:
    def __init__(self, label: str) -> None:
        self.label = label


def _pid_and_gpu(task: _Named) -> tuple[str, int, str | None]:
    if task.label == "dies":
        os._exit(3)
    return task.label, os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")


def test_each_worker_sees_one_gpu_and_a_dead_one_is_replaced(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    tasks = [_Named(label) for label in ("a", "b", "dies", "c", "d", "e")]
    answers = {task.label: answer for task, answer in LocalExecutor(2).run(_pid_and_gpu, tasks)}
    assert isinstance(answers.pop("dies"), Lost)
    assert {label: answer[0] for label, answer in answers.items()} == {label: label for label in "abcde"}
    gpus = {process: gpu for _, process, gpu in answers.values()}
    assert set(gpus.values()) <= {"4", "7"} and len(gpus) <= 3 and os.getpid() not in gpus


def test_errors_come_back_from_another_process_as_they_were():
    import pickle

    for error in (UserError("one\nline"), MachineError("no GPU"), GateError("refused", ["a check"])):
        back = pickle.loads(pickle.dumps(error))
        assert type(back) is type(error) and str(back) == str(error) and back.exit_code == error.exit_code
    assert back.failed == ["a check"]


@pytest.mark.parametrize(("name", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_an_executor_that_is_not_installed_says_what_to_install(flags, run, tmp_path, monkeypatch, name, package):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None)
    done = run("extract", *flags(tmp_path / "lake"), "--executor", name)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"pip install 'timecourse[{name}]'" in done.stderr and package in done.stderr
    assert not (tmp_path / "lake").exists()
