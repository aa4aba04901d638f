"""Jobs of Slurm: through submitit's local cluster, and, where Slurm is installed, through one of a single node."""

import json
import os
import platform
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.crash.lakes import leftovers, other_commits
from tests.executors.runs import at_work, start, wait_for
from timecourse.executors.slurm import last_submission
from timecourse.lake import Lake

pytest.importorskip("submitit")

LOCAL = ["--executor", "slurm", "--set", "executor.slurm.cluster=local"]


@pytest.mark.slow
def test_a_preempted_job_is_queued_again(flags, run, undisturbed, tmp_path):
    """On the signal that Slurm sends before it preempts a job, submitit has it queued again; then it is done."""
    lake = tmp_path / "lake"
    only = ["--only", "step0", "--only", "step2"]
    driver = start("extract", *flags(lake), *LOCAL, *only, said=tmp_path / "said")
    process = wait_for(lambda: [process for lock, process in at_work(lake).items() if "step0" in lock])[0]
    os.kill(process, signal.SIGUSR2)
    assert driver.wait() == 1
    said = (tmp_path / "said").read_text()
    assert "NaN or infinite" in said and "extracted 1 of 1" in said and "Traceback" not in said
    (step0,), (undisturbed_step0, *_) = Lake(lake).commits(), Lake(undisturbed).commits()
    assert step0.extraction_id == undisturbed_step0.extraction_id
    for name, file in step0.content["files"].items():
        assert name == "checkpoint" or file["sha256"] == undisturbed_step0.content["files"][name]["sha256"]
    lines = run("status", "--lake", lake).stdout.splitlines()
    (line,) = [line for line in lines if "s/step0  committed  " in line]
    log = lake / "logs" / "slurm" / line.split()[-1]
    assert log.read_text().count("Starting with JobEnvironment") == 2 and "Requeued job" in log.read_text()
    assert any("s/step2  not committed" in line for line in lines)
    assert not list((lake / "logs" / "slurm").glob("*.pkl")), "nothing pickled stays"


@pytest.mark.slow  # submitit waits for its answer for a while
def test_a_job_that_dies_is_told_with_its_log(flags, tmp_path):
    lake = tmp_path / "lake"
    driver = start("extract", *flags(lake), *LOCAL, "--only", "step0", said=tmp_path / "said")
    ((_, process),) = wait_for(lambda: list(at_work(lake).items()))
    os.kill(process, signal.SIGKILL)
    assert driver.wait() == 1
    said = (tmp_path / "said").read_text()
    (log,) = (lake / "logs" / "slurm").glob("*_log.out")
    assert "s/step0: its Slurm job" in said and str(log) in "".join(said.split("\n")) and "Traceback" not in said
    assert not Lake(lake).quarantined(), "that says nothing about the checkpoint"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("executor.slurm.partitions=gpu", "partitions"),
        ("executor.slurm.cluster=nonsense", "nonsense"),
        ("executor.slurm.timeout_min=abc", "timeout_min"),
        ("executor.slurm.mem_gb=lots", "mem_gb"),
        ("executor.slurm.slurm_mem_gb=inf", "infinity"),
        ("executor.slurm.slurm_python=5", "slurm_python must be str, not 5"),
        ("executor.slurm.slurm_array_parallelism=few", "slurm_array_parallelism must be int, not 'few'"),
        ("executor.slurm.nodes=2", "leave nodes out"),
        ("executor.slurm.tasks_per_node=2", "leave tasks_per_node out"),
        ("executor.slurm.slurm_ntasks_per_node=2", "leave slurm_ntasks_per_node out"),
        ("executor.slurm.slurm_nodes=0", "leave slurm_nodes out"),
        ("executor.gpus_per_task=0.5", "only ray shares a GPU"),
    ],
)
def test_a_wrong_setting_is_one_line_and_leaves_nothing(flags, run, tmp_path, slurm_that, setting, said):
    slurm_that("exit 1")
    for command in ("extract", "refresh"):
        done = run(command, *flags(tmp_path / "lake"), "--executor", "slurm", "--set", setting)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and said in done.stderr, done.stderr
    assert not (tmp_path / "lake").exists()


def test_no_slurm_here_is_one_line_and_leaves_nothing(flags, run, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run("extract", *flags(tmp_path / "lake"), "--executor", "slurm")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "slurm" in done.stderr
    assert not (tmp_path / "lake").exists()


def test_a_build_needs_no_slurm(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run("build", "--lake", tmp_path / "lake", "--set", "executor.name=slurm")
    assert done.returncode == 1 and "no checkpoint is committed" in done.stderr


def test_a_lake_whose_path_is_a_pattern_to_slurm_is_refused(flags, run, tmp_path):
    done = run("extract", *flags(tmp_path / "la%j" / "lake"), *LOCAL)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Slurm takes % in" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture
def slurm_that(tmp_path_factory, monkeypatch):
    """Puts an srun, and an sbatch of these lines, before every other on PATH."""

    def make(lines: str) -> None:
        folder = tmp_path_factory.mktemp("bin")
        for name in ("sbatch", "srun"):
            (folder / name).write_text(f"#!/bin/sh\n{lines}\n")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    return make


@pytest.mark.parametrize(
    ("refusal", "hint"),
    [
        ("Invalid job array specification", "MaxArraySize tasks (scontrol show config): extract in turns, by"),
        ("invalid partition specified: gpus", "change [executor.slurm], or run it again"),
    ],
)
def test_what_slurm_refuses_is_one_line_and_leaves_nothing_pickled(flags, run, tmp_path, slurm_that, refusal, hint):
    slurm_that(f"echo 'sbatch: error: {refusal}' >&2; echo 'sbatch: error: failed' >&2; exit 1")
    logs = tmp_path / "lake" / "logs" / "slurm"
    logs.mkdir(parents=True)
    (logs / f"{'0' * 32}.pkl").write_bytes(b"of another driver, which is submitting as well")
    for only in ([], ["--only", "step0"]):  # an array, and a job of its own
        done = run("extract", *flags(tmp_path / "lake"), "--executor", "slurm", *only)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert refusal in done.stderr and hint in done.stderr, done.stderr
        assert [file.name for file in logs.iterdir()] == [f"{'0' * 32}.pkl"]


def test_ctrl_c_says_that_the_jobs_go_on(flags, run, tmp_path, slurm_that, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    slurm_that("echo Submitted batch job 17")
    monkeypatch.setattr("submitit.helpers.as_completed", interrupted)
    done = run("extract", *flags(tmp_path / "lake"), "--executor", "slurm")
    assert done.returncode == 130 and done.stderr.count("\n") == 1
    assert "the Slurm jobs go on" in done.stderr and "`scancel 17`" in done.stderr
    assert (tmp_path / "lake" / "logs" / "slurm" / "17.json").is_file()


def test_the_last_submission_is_told_beside_a_link_that_leads_nowhere(tmp_path):
    logs = tmp_path / "logs" / "slurm"
    logs.mkdir(parents=True)
    (logs / "1.json").symlink_to(tmp_path / "nowhere")
    assert last_submission(Lake(tmp_path)) == []
    job = {"job": "2_0", "label": "s/step0", "log": "2_0_0_log.out"}
    (logs / "2.json").write_text(json.dumps({"submitted_at": "2026-01-01T00:00:00+00:00", "jobs": [job]}))
    assert [line.split()[:2] for line in last_submission(Lake(tmp_path))[1:]] == [["job", "2_0"]]


def test_submitits_debug_cluster(flags, run, tmp_path):
    done = run("extract", *flags(tmp_path / "lake"), *LOCAL, "--set", "executor.slurm.cluster=debug", "--only", "step0")
    assert done.returncode == 0, done.stderr
    assert "extracted 1 of 1" in done.stdout


CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobRequeue=1
KillWait=2
ReturnToService=2
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={processors} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
"""A cluster of this machine alone. cred_expire: for how many seconds a job that was queued again has to wait."""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Slurm's daemons and munge, as Debian has them, for one test; in a folder of their own."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("munged", "slurmctld", "slurmd", "sbatch"))):
        pytest.skip("needs root, and Debian's packages slurmctld, slurmd and munge")
    folder = tmp_path / "slurm"
    (folder / "state").mkdir(parents=True)
    (folder / "spool").mkdir()
    configuration = folder / "slurm.conf"
    host = platform.node().split(".")[0]
    configuration.write_text(CONFIGURATION.format(host=host, folder=folder, processors=os.cpu_count()))
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    monkeypatch.setenv("SLURM_CONF", str(configuration))
    munge = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
    options = [f"--{option}={folder / file}" for option, file in munge.items()]
    try:
        subprocess.run(["munged", "--force", *options, f"--seed-file={folder / 'munge.seed'}"], check=True)
        for daemon in ("slurmctld", "slurmd"):
            subprocess.run([daemon, "-f", configuration], check=True)
        wait_for(lambda: "idle" in said_by("sinfo", "--noheader", "--format=%T"))
        yield folder
    finally:
        for daemon in ("slurmd", "slurmctld", "munged"):
            if (folder / f"{daemon}.pid").is_file():
                os.kill(int((folder / f"{daemon}.pid").read_text()), signal.SIGTERM)


def said_by(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def array_index(process: int) -> str:
    variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    return next(one for one in variables if one.startswith(b"SLURM_ARRAY_TASK_ID=")).decode().partition("=")[2]


@pytest.mark.slow
def test_a_real_slurm(flags, run, undisturbed, tmp_path, cluster):
    """An array of four jobs; one is queued again by its owner, one by submitit on the signal; then the driver dies and
    another one is started while jobs of the first are still at work."""
    lake = tmp_path / "lake"
    series = flags(lake)
    driver = start("extract", *series, "--executor", "slurm", "--workers", 2, said=tmp_path / "said")
    one, other = wait_for(lambda: list(at_work(lake).values()) if len(at_work(lake)) == 2 else None)
    driver.kill()
    driver.wait()
    indices = [array_index(one), array_index(other)]
    logs = [lake / "logs" / "slurm" / f"1_{index}_0_log.out" for index in indices]
    subprocess.run(["scontrol", "requeue", f"1_{indices[0]}"], check=True)
    os.kill(other, signal.SIGUSR2)
    for log in logs:
        wait_for(lambda log=log: log.read_text().count("Starting with JobEnvironment") >= 2)
    again = start("extract", *series, "--executor", "slurm", said=tmp_path / "again")
    assert again.wait() == 1
    said = (tmp_path / "again").read_text()
    assert "NaN or infinite" in said and "Traceback" not in said, said
    wait_for(lambda: not said_by("squeue", "--noheader").strip())  # the first array ends as well
    assert other_commits(lake, undisturbed) == [], said
    with Lake(lake).locked():
        pass
    # a job that was killed just before its commit leaves files that no commit names, until the next build
    assert run("build", "--lake", lake, "--set", "statistics.replicates=50").returncode == 0
    assert leftovers(lake) == []
    assert run("refresh", *series).returncode == 0
    logged = [json.loads(line) for file in (lake / "logs").glob("*.jsonl") for line in file.read_text().splitlines()]
    committed = [line["checkpoint"] for line in logged if line["event"] == "committed"]
    assert sorted(committed) == ["s/step0", "s/step1", "s/step3"], "each is extracted to its end once"
    assert Path(lake / "current").is_symlink()
