"""What tests of several rooms share: tiny real checkpoints, facts, and a release built from them."""

import contextlib
import gc
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported: the models are tiny, and workers share the cores

gc.set_threshold(100_000, 50, 50)  # dbt makes so many objects that looking for cycles takes a tenth of the whole suite

GOLDEN = Path(os.environ.get("TIMECOURSE_GOLDEN", Path(__file__).parent / "golden"))
"""Reference results of the published pipeline. The folder here holds one of the four checkpoints; TIMECOURSE_GOLDEN
names another folder of the same shape that holds all."""

FACTS = {
    "capital_of": (
        "location",
        ["The capital of {} is", "{} has the capital"],
        [("France", "Paris"), ("New Zealand", "Wellington City"), ("Peru", "Lima"), ("Chad", "N'Djamena")],
    ),
    "leader_of": ("name", ["The one who leads {} is"], [("Brontek & Sons", "Mara Ellquist"), ("Vexel", "Jon Tavish")]),
}


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of reference results: models/, facts/, tau_0.05/, tau_0.15/."""
    return GOLDEN


@pytest.fixture(scope="session")
def facts_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two relations of two groups, one with two templates; answers and subjects of several tokens."""
    directory = tmp_path_factory.mktemp("facts")
    for name, (group, templates, samples) in FACTS.items():
        content = {
            "name": name,
            "group": group,
            "prompt_templates": templates,
            "samples": [{"subject": subject, "object": answer} for subject, answer in samples],
        }
        (directory / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return directory


def train_tokenizer():
    """A byte-level BPE tokenizer of 320 tokens that writes any text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|padding|>"],
        show_progress=False,
    )
    text = [
        template.format(subject) + " " + answer
        for _, templates, samples in FACTS.values()
        for template in templates
        for subject, answer in samples
    ]
    tokenizer.train_from_iterator(text * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|padding|>",
        clean_up_tokenization_spaces=False,
    )


def save_checkpoint(directory: Path, *, seed: int = 0, scale: float = 6.0, **config) -> Path:
    """A random OLMo of 3 layers × 5 heads (d_head 8) with its tokenizer; weights large enough to matter."""
    import torch
    from transformers import OlmoConfig, OlmoForCausalLM

    tokenizer = train_tokenizer()
    options = {
        "vocab_size": len(tokenizer),
        "hidden_size": 40,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 5,
        "max_position_embeddings": 64,
        "pad_token_id": 1,
        "eos_token_id": 0,
        **config,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = OlmoForCausalLM(OlmoConfig(**options))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_().mul_(0.02 * scale)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def save_random_checkpoint(directory: Path, model_type: str, *, seed: int = 0, **config) -> Path:
    """A small random model of any family with its tokenizer; every parameter is random."""
    from timecourse.extract.families.random_models import random_model

    tokenizer = train_tokenizer()
    random_model(model_type, {"vocab_size": len(tokenizer), **config}, seed=seed).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def series_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three checkpoints of a random OLMo: step0, step100-tokens1B and main. Copy before changing."""
    directory = tmp_path_factory.mktemp("series") / "checkpoints"
    for seed, name in enumerate(("step0", "step100-tokens1B", "main")):
        save_checkpoint(directory / name, seed=seed, clip_qkv=0.8)
    return directory


@dataclass(frozen=True)
class Finished:
    """How a command ended and what it said."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def run() -> Callable[..., Finished]:
    """Runs the command line as a user types it, in this process: importing torch and dbt once is enough.

    Builds draw facts 50 times where a test does not say how often: what most of them are about is not the intervals.
    """
    from timecourse.cli import main

    def run_timecourse(*arguments: object, cwd: Path = Path()) -> Finished:
        said, complained = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        code: object = 0
        if arguments[:1] == ("refresh",) and not any("replicates" in str(one) for one in arguments):
            arguments = (*arguments, "--set", "statistics.replicates=50")
        with (
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(complained),
            contextlib.chdir(cwd),
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setenv("COLUMNS", "80")
            try:
                main([str(argument) for argument in arguments])
            except SystemExit as ended:
                code = ended.code or 0
        assert isinstance(code, int)
        return Finished(code, said.buffer.getvalue().decode(), complained.buffer.getvalue().decode())

    return run_timecourse


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Makes a folder that all workers of a run share: the first that asks for its name fills it, the others wait."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder, is_filled = root / f"shared-{name}", root / f"shared-{name}.filled"
        with FileLock(root / f"shared-{name}.lock"):
            if not is_filled.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                is_filled.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def pretrained(made_once) -> Path:
    """What `demo --small` pre-trains: `checkpoints/olmo`, and its `facts`. Copy before changing."""
    from timecourse.config import Facts
    from timecourse.extract.checkpoints.tiny_model import pretrain

    def fill(folder: Path) -> None:
        pretrain(folder / "checkpoints" / "olmo", Facts().directory, folder / "facts", small=True)

    return made_once("pretrained", fill)


@pytest.fixture(scope="session")
def small_release(made_once, series_directory: Path, facts_directory: Path, run) -> Path:
    """The folder of a release made by the real command from `series_directory`. Copy before changing."""

    def fill(folder: Path) -> None:
        flags = ["--checkpoints", series_directory, "--facts", facts_directory, "--series", "tiny"]
        done = run("refresh", *flags, "--lake", folder / "lake", "--tau", "5x", "--complete")
        assert done.returncode == 0, done.stderr

    return (made_once("release", fill) / "lake" / "current").resolve()


@pytest.fixture(scope="session")
def staged_release(made_once) -> Path:
    """The folder of a release with stages, siblings, phases, names that were not used, and seeds of a recipe."""
    from tests.warehouse.staged_lake import commit_staged
    from timecourse.build import build_warehouse
    from timecourse.lake import Lake
    from timecourse.release import publish

    def fill(folder: Path) -> None:
        lake = Lake(folder)
        lake.create()
        commit_staged(folder)
        contents = lake.contents()
        built = build_warehouse(
            folder, theta="0.3", complete_series=contents.complete_series, contents=contents, replicates=50
        )
        assert {check.result for check in built.checks} == {"pass"}
        publish(lake, contents, {"theta": "0.3"}, built.checks)

    return (made_once("staged", fill) / "current").resolve()
