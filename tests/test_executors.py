"""Executors: wherever a checkpoint is extracted, the lake is the same, and processes may die."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import save_checkpoint
from tests.crash.lakes import differences

ROOT = Path(__file__).parents[1]
MODEL = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 32}


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> Path:
    """Four checkpoints, one of which cannot be measured: a weight is not finite."""
    import torch
    from safetensors.torch import load_file, save_file

    directory = tmp_path_factory.mktemp("many") / "checkpoints"
    for seed in range(4):
        save_checkpoint(directory / f"step{seed}", seed=seed, **MODEL)
    file = directory / "step2" / "model.safetensors"
    weights = load_file(file)
    next(iter(weights.values())).view(-1)[0] = torch.nan
    save_file(weights, file, metadata={"format": "pt"})
    return directory


@pytest.fixture
def flags(series, facts_directory):
    def flags_for(lake: Path) -> list[str]:
        named = ["--checkpoints", series, "--facts", facts_directory, "--series", "s", "--tau", "5x"]
        return [*map(str, named), "--set", "statistics.replicates=50", "--lake", str(lake)]

    return flags_for


@pytest.fixture(scope="module")
def undisturbed(made_once, series, facts_directory, run) -> Path:
    """The lake that a run in one process makes of the series."""

    def fill(folder: Path) -> None:
        named = ["--checkpoints", series, "--facts", facts_directory, "--series", "s", "--tau", "5x"]
        done = run("refresh", *named, "--set", "statistics.replicates=50", "--lake", folder / "lake")
        assert done.returncode == 1 and "step2" in done.stderr, done.stderr

    return made_once("in-one-process", fill) / "lake"


def test_local_processes_make_the_same_lake(run, flags, undisturbed, tmp_path):
    done = run("refresh", *flags(tmp_path / "lake"), "--workers", 2)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "NaN or infinite" in done.stderr and "extracted 3 of 3" in done.stdout
    assert differences(tmp_path / "lake", undisturbed) == []
