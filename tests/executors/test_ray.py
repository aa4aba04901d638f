"""Tasks of a Ray cluster of two workers here: workers, nodes and drivers are killed, and the marts are the same."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.crash.lakes import differences, other_commits
from tests.executors.runs import ROOT, at_work, is_alive, start, wait_for
from timecourse.lake import Lake

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes with one processor each: two tasks at a time."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        memory = {"object_store_memory": 80_000_000, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **memory})
        cluster.add_node(num_cpus=1, **memory)
        yield cluster
        cluster.shutdown()


@pytest.fixture
def on_ray(cluster, flags):
    def flags_for(lake: Path) -> list[object]:
        place = ["--executor", "ray", "--set", f'executor.address="{cluster.address}"']
        return [*flags(lake), *place]

    return flags_for


@pytest.fixture(scope="module")
def released(made_once, flags, run) -> Path:
    """The lake and the release that one process makes of the series."""

    def fill(folder: Path) -> None:
        done = run("refresh", *flags(folder / "lake"), "--set", "statistics.replicates=50")
        assert done.returncode == 1 and "released" in done.stdout, done.stderr

    return made_once("released-in-one-process", fill) / "lake"


def committed(lake: Path) -> list[str]:
    """The checkpoints as often as an extraction of them was committed."""
    logged = [json.loads(line) for file in (lake / "logs").glob("*.jsonl") for line in file.read_text().splitlines()]
    return sorted(line["checkpoint"] for line in logged if line["event"] == "committed")


def test_a_worker_is_killed_in_the_middle_of_a_checkpoint(on_ray, released, tmp_path):
    lake = tmp_path / "lake"
    driver = start("refresh", *on_ray(lake), "--set", "statistics.replicates=50", said=tmp_path / "said")
    process = wait_for(lambda: list(at_work(lake).values()))[0]
    os.kill(process, signal.SIGKILL)
    assert driver.wait() == 1
    said = (tmp_path / "said").read_text()
    assert "extracted 3 of 3" in said and "NaN or infinite" in said and "Traceback" not in said, said
    assert differences(lake, released) == []
    assert committed(lake) == ["s/step0", "s/step1", "s/step3"]


def test_the_driver_is_killed_and_started_again(on_ray, undisturbed, tmp_path):
    lake = tmp_path / "lake"
    driver = start("extract", *on_ray(lake), said=tmp_path / "said")
    workers = wait_for(lambda: at_work(lake) if Lake(lake).commits() else None)
    driver.kill()
    driver.wait()
    assert wait_for(lambda: not any(map(is_alive, workers.values()))), "Ray ends what a driver leaves behind"
    before = len(Lake(lake).commits())
    again = start("extract", *on_ray(lake), said=tmp_path / "again")
    assert again.wait() == 1
    said = (tmp_path / "again").read_text()
    assert f"extracted {3 - before} of 3" in said and "NaN or infinite" in said, said
    assert other_commits(lake, undisturbed) == []


def test_two_drivers_at_once(on_ray, undisturbed, tmp_path):
    lake = tmp_path / "lake"
    drivers = [start("extract", *on_ray(lake), said=tmp_path / f"said{number}") for number in range(2)]
    assert {driver.wait() for driver in drivers} <= {0, 1}
    said = [(tmp_path / f"said{number}").read_text() for number in range(2)]
    assert "Traceback" not in "".join(said)
    assert committed(lake) == ["s/step0", "s/step1", "s/step3"], "no checkpoint twice"
    assert other_commits(lake, undisturbed) == [], said


def test_a_node_is_lost(cluster, on_ray, undisturbed, tmp_path):
    lake = tmp_path / "lake"
    driver = start("extract", *on_ray(lake), said=tmp_path / "said")
    wait_for(lambda: at_work(lake))
    cluster.remove_node(list(cluster.worker_nodes)[-1], allow_graceful=False)
    cluster.add_node(num_cpus=1, object_store_memory=80_000_000, include_dashboard=False)
    assert driver.wait() == 1
    assert "extracted 3 of 3" in (tmp_path / "said").read_text()
    assert other_commits(lake, undisturbed) == []


def test_no_cluster_is_one_line(flags, run, tmp_path):
    nowhere = ["--executor", "ray", "--set", 'executor.address="127.0.0.1:1"']
    done = run("extract", *flags(tmp_path / "lake"), *nowhere)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "ray start --head" in done.stderr
