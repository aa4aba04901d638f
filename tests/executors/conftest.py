"""A series of four small checkpoints, one of which cannot be measured, and the lakes that one process makes of it."""

import json
from pathlib import Path

import pytest

from tests.conftest import FACTS, save_checkpoint

MODEL = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 32}
NAMES = ("step0", "step1", "step2", "step3")
UNUSABLE = "step2"


@pytest.fixture(scope="session")
def series(made_once) -> Path:
    """A folder with `checkpoints` and `facts`; step2 has a weight that is not a number."""

    def fill(folder: Path) -> None:
        import torch
        from safetensors.torch import load_file, save_file

        for seed, name in enumerate(NAMES):
            save_checkpoint(folder / "checkpoints" / name, seed=seed, **MODEL)
        file = folder / "checkpoints" / UNUSABLE / "model.safetensors"
        weights = load_file(file)
        next(iter(weights.values())).view(-1)[0] = torch.nan
        save_file(weights, file, metadata={"format": "pt"})
        (folder / "facts").mkdir()
        for name, (group, templates, samples) in FACTS.items():
            content = {
                "name": name,
                "group": group,
                "prompt_templates": templates,
                "samples": [
                    {"subject": f"{subject}{number}", "object": answer}
                    for number in range(12)
                    for subject, answer in samples
                ],
            }
            (folder / "facts" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")

    return made_once("series-for-executors", fill)


@pytest.fixture(scope="session")
def flags(series):
    """The flags of every run, for a lake; one prompt at a time, so that a checkpoint takes a moment."""

    def of(lake: Path) -> list[object]:
        places = ["--checkpoints", series / "checkpoints", "--facts", series / "facts", "--lake", lake]
        return [*places, "--series", "s", "--tau", "5x", "--batch-size", 1]

    return of


@pytest.fixture(scope="session")
def undisturbed(made_once, flags, run) -> Path:
    """The lake that one process makes of the series, without a release."""

    def fill(folder: Path) -> None:
        done = run("extract", *flags(folder / "lake"))
        assert done.returncode == 1 and UNUSABLE in done.stderr, done.stderr

    return made_once("in-one-process", fill) / "lake"
