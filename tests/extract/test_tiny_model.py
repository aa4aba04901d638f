"""The tiny models: they learn what they are taught, come out the same every time, and are never left half-written."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from timecourse.cli.measuring import DemoFamily
from timecourse.config import Settings
from timecourse.errors import UsageError, UserError
from timecourse.extract.checkpoints import tiny_corpus, tiny_model
from timecourse.extract.checkpoints.tiny_corpus import FULL, SMALL, make_plan
from timecourse.extract.checkpoints.tiny_model import ARCHITECTURES, is_pretrained, pretrain

FACTS = Path(tiny_model.__file__).parents[1] / "default_facts"
BRIEF = replace(SMALL, saved_steps=(0, 3, 6, 12, 18, 24))
"""The small recipe, stopped long before the model knows its facts: enough where only the files matter."""


class Interrupted(Exception):
    pass


@pytest.fixture(autouse=True, scope="module")
def brief() -> Iterator[None]:
    """Has the brief recipe stand for the small one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_corpus, "SMALL", BRIEF)
        yield


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The brief recipe of OLMo, trained once, its probe facts in `facts` beside it."""
    return pretrain(tmp_path_factory.mktemp("demo") / "checkpoints", FACTS, small=True)


@pytest.fixture(scope="module", params=["olmo2", "gpt_neox"])
def other_family(request: pytest.FixtureRequest) -> str:
    """Another family than OLMo."""
    return str(request.param)


@pytest.fixture(scope="module")
def other_checkpoints(other_family: str, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The brief recipe of another family, trained once, its probe facts in `facts` beside it."""
    directory = tmp_path_factory.mktemp(f"demo_{other_family}") / "checkpoints"
    return pretrain(directory, FACTS, family=other_family, small=True)


def relations(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(directory.glob("*.json"))]


def hashes(paths: list[Path]) -> dict[str, str]:
    return {
        f"{path.name}/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest()
        for path in paths
        for file in sorted(path.iterdir())
    }


def recall(checkpoint: Path, facts: Path) -> float:
    """Share of the probe facts whose every answer token is the model's first choice."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(checkpoint), AutoModelForCausalLM.from_pretrained(checkpoint)
    known = []
    for relation in relations(facts):
        for sample in relation["samples"]:
            question = relation["prompt_templates"][0].format(sample["subject"])
            tokens = tokenizer(f"{question} {sample['object']}", return_tensors="pt")["input_ids"]
            answer_start = len(tokenizer(question)["input_ids"])
            with torch.no_grad():
                predicted = model(tokens).logits[0].argmax(-1)
            known.append(torch.equal(predicted[answer_start - 1 : -1], tokens[0, answer_start:]))
    assert len(known) == 10 * SMALL.facts_per_relation
    return sum(known) / len(known)


def test_it_knows_its_facts_in_a_wording_it_never_saw(pretrained: Path) -> None:
    checkpoints, facts = pretrained / "checkpoints" / "olmo", pretrained / "facts"
    assert recall(checkpoints / "step0", facts) == 0
    assert recall(checkpoints / "step200", facts) >= 0.9


@pytest.mark.slow
def test_other_families_know_their_facts_by_the_same_recipe(
    other_family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_corpus, "SMALL", SMALL)
    checkpoints = pretrain(tmp_path / "checkpoints", FACTS, family=other_family, small=True)
    assert recall(checkpoints[0], tmp_path / "facts") == 0
    assert recall(checkpoints[-1], tmp_path / "facts") >= 0.87  # measured 0.93 to 1, 0.52 at most with frozen matrices


def test_checkpoints_are_ordinary_ones(checkpoints: list[Path]) -> None:
    from transformers import AutoConfig

    assert [path.name for path in checkpoints] == ["step0", "step3", "step6", "step12", "step18", "step24"]
    assert AutoConfig.from_pretrained(checkpoints[-1]).architectures == ["OlmoForCausalLM"]
    states = [json.loads((path / "trainer_state.json").read_text(encoding="utf-8")) for path in checkpoints]
    assert [state["global_step"] for state in states] == list(BRIEF.saved_steps)
    tokens = [state["num_input_tokens_seen"] for state in states]
    assert tokens[0] == 0 and tokens == sorted(set(tokens))
    assert len({(path / "tokenizer.json").read_bytes() for path in checkpoints}) == 1, "training moved the tokenizer"
    assert 8 < tokens[-1] / (BRIEF.step_count * BRIEF.batch_size) < 20, "tokens of one sentence, without padding"


def test_checkpoints_of_other_families_are_ordinary_ones(
    other_family: str, other_checkpoints: list[Path], checkpoints: list[Path]
) -> None:
    from safetensors.numpy import load_file
    from transformers import AutoConfig

    for path, olmo_path in zip(other_checkpoints, checkpoints, strict=True):
        assert path.name == olmo_path.name
        for name in ("tokenizer.json", "trainer_state.json"):
            assert (path / name).read_bytes() == (olmo_path / name).read_bytes(), "the families see the same tokens"
    assert relations(other_checkpoints[0].parents[1] / "facts") == relations(checkpoints[0].parents[1] / "facts")

    config = AutoConfig.from_pretrained(other_checkpoints[-1])
    shape = (config.num_hidden_layers, config.num_attention_heads, config.hidden_size)
    assert config.model_type == other_family
    assert shape == (SMALL.layer_count, SMALL.head_count, SMALL.hidden_size)
    if other_family == "olmo2":
        architecture = "Olmo2ForCausalLM"
        parameters = {"model.layers.0.post_feedforward_layernorm.weight", "model.layers.0.self_attn.q_norm.weight"}
        assert config.tie_word_embeddings
    else:
        architecture = "GPTNeoXForCausalLM"
        parameters = {"embed_out.weight", "gpt_neox.layers.0.attention.dense.bias", "gpt_neox.final_layer_norm.bias"}
        assert not config.tie_word_embeddings and config.use_parallel_residual
        assert config.rope_parameters["partial_rotary_factor"] == 0.25
    assert config.architectures == [architecture]

    before, after = (load_file(other_checkpoints[at] / "model.safetensors") for at in (0, -1))
    assert parameters <= set(after)
    assert not [name for name in after if (after[name] == before[name]).all()], "parameters that no optimizer moved"


def test_an_interrupted_run_starts_over_and_gives_the_same_weights(checkpoints: list[Path], tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"

    def stop(step: int, step_count: int) -> None:
        assert step_count == BRIEF.step_count
        if step == 7:
            raise Interrupted

    with pytest.raises(Interrupted):
        pretrain(directory, FACTS, small=True, progress=stop)
    assert sorted(path.name for path in directory.glob("*step*")) == ["step0", "step3", "step6"]
    assert not is_pretrained(directory, FACTS, small=True)

    # What a kill in the middle of a save leaves, and a checkpoint that another recipe would have saved.
    (directory / ".incoming-step12").mkdir()
    (directory / "step13").mkdir()
    again = pretrain(directory, FACTS, small=True)
    assert hashes(again) == hashes(checkpoints)
    assert sorted(directory.glob("*step*")) == sorted(again)
    assert relations(tmp_path / "facts") == relations(checkpoints[0].parents[1] / "facts")


def test_a_finished_run_is_recognised(checkpoints: list[Path]) -> None:
    directory = checkpoints[0].parent
    changed_before = (checkpoints[-1] / "model.safetensors").stat().st_mtime_ns
    assert is_pretrained(directory, FACTS, small=True)
    assert pretrain(directory, FACTS, small=True) == checkpoints
    assert (checkpoints[-1] / "model.safetensors").stat().st_mtime_ns == changed_before
    assert not is_pretrained(directory, FACTS, small=True, seed=1)
    assert not is_pretrained(directory, FACTS)


def test_families_are_not_taken_for_each_other(
    other_family: str, other_checkpoints: list[Path], tmp_path: Path
) -> None:
    trained = other_checkpoints[0].parent
    assert is_pretrained(trained, FACTS, family=other_family, small=True)
    for family in set(ARCHITECTURES) - {other_family}:
        assert not is_pretrained(trained, FACTS, family=family, small=True)

    directory = tmp_path / "checkpoints"
    shutil.copytree(trained, directory)

    def stop(step: int, step_count: int) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        pretrain(directory, FACTS, small=True, progress=stop)
    assert [path.name for path in directory.glob("*step*")] == ["step0"], "checkpoints of two families in one series"
    assert json.loads((directory / "step0" / "config.json").read_text(encoding="utf-8"))["model_type"] == "olmo"
    assert not is_pretrained(directory, FACTS, family=other_family, small=True)


def test_other_families_give_the_same_weights_again(
    other_family: str, other_checkpoints: list[Path], tmp_path: Path
) -> None:
    def stop(step: int, step_count: int) -> None:
        if step == 6:
            raise Interrupted

    with pytest.raises(Interrupted):
        pretrain(tmp_path / "checkpoints", FACTS, family=other_family, small=True, progress=stop)
    again = [tmp_path / "checkpoints" / name for name in ("step0", "step3", "step6")]
    assert hashes(again) == hashes(other_checkpoints[:3])


def test_an_unknown_family_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for function in (pretrain, is_pretrained):
        with pytest.raises(UsageError, match=r"'bert'; there are: olmo, olmo2, gpt_neox$"):
            function(tmp_path / "checkpoints", FACTS, family="bert", small=True)
    assert not list(tmp_path.iterdir())


def test_the_demo_offers_every_family_and_gives_each_its_own_series(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(DemoFamily) == list(ARCHITECTURES)
    trained, refreshed = [], []

    def note_training(*directories: Path, family: str, **_options: object) -> None:
        trained.append((*directories, family))

    def note_refresh(settings: Settings, _console: object) -> None:
        refreshed.append((settings.series_id, settings.phases, settings.facts.directory, settings.lake.directory))
        raise UserError("no further")

    monkeypatch.setattr(tiny_model, "pretrain", note_training)
    monkeypatch.setattr("timecourse.refresh.refresh", note_refresh)
    facts, lake = tmp_path / "facts", tmp_path / "lake"
    for family, title, series in (
        ("olmo", "OLMo", "tiny-olmo"),
        ("olmo2", "OLMo 2", "tiny-olmo2"),
        ("gpt_neox", "GPT-NeoX", "tiny-gpt-neox"),
    ):
        flags = [] if family == "olmo" else ["--family", family]
        done = run("demo", *flags, "--directory", tmp_path)
        assert (done.stdout, done.stderr) == (f"pre-training a tiny {title} on real facts\n", "error: no further\n")
        checkpoints = tmp_path / "checkpoints" / family
        assert trained.pop() == (checkpoints, FACTS, facts, family)
        assert refreshed.pop() == (series, [("pretraining", str(checkpoints))], facts, lake)
    assert run("demo", "--family", "bert", "--directory", tmp_path).returncode == 2 and not trained


def test_damaged_weights_and_changed_facts_are_noticed(checkpoints: list[Path], tmp_path: Path) -> None:
    directory = checkpoints[0].parent
    facts = tmp_path / "facts"
    facts.mkdir()
    for path in FACTS.glob("*.json"):
        (facts / path.name).write_text(path.read_text(encoding="utf-8").replace("Paris", "Lyon"), encoding="utf-8")
    assert not is_pretrained(directory, facts, small=True)

    weights = checkpoints[2] / "model.safetensors"
    intact = weights.read_bytes()
    weights.write_bytes(intact[:-1])
    try:
        assert not is_pretrained(directory, FACTS, small=True)
    finally:
        weights.write_bytes(intact)
    assert is_pretrained(directory, FACTS, small=True)


def test_missing_probe_facts_are_written_again_without_training(checkpoints: list[Path]) -> None:
    directory = checkpoints[0].parent
    probe = directory.parent / "facts" / "plays_sport.json"
    content = probe.read_text(encoding="utf-8")
    probe.unlink()
    assert not is_pretrained(directory, FACTS, small=True)
    pretrain(directory, FACTS, small=True, progress=lambda step, step_count: pytest.fail("trained again"))
    assert probe.read_text(encoding="utf-8") == content


def test_someone_elses_files_are_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "checkpoints" / "step0" / "model.safetensors"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    with pytest.raises(UserError, match="not empty"):
        pretrain(tmp_path / "checkpoints", FACTS, small=True)
    assert mine.read_text() == "precious"

    (tmp_path / "facts" / "other.json").write_text("{}")
    with pytest.raises(UserError, match=r"other\.json"):
        pretrain(tmp_path / "new", FACTS, small=True)


def test_knowing_that_it_is_done_needs_no_torch(pretrained: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from timecourse.extract.checkpoints.tiny_model import is_pretrained\n"
        "assert is_pretrained(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), small=True)\n"
        "assert not {'torch', 'transformers', 'tokenizers'} & set(sys.modules)"
    )
    places = [pretrained / "checkpoints" / "olmo", FACTS, pretrained / "facts"]
    subprocess.run([sys.executable, "-c", program, *map(str, places)], check=True)


def test_thread_count_and_random_state_are_restored(tmp_path: Path) -> None:
    import torch

    before, state = torch.get_num_threads(), torch.get_rng_state()

    def stop(step: int, step_count: int) -> None:
        assert torch.get_num_threads() == 1
        raise Interrupted

    torch.set_num_threads(2)
    try:
        with pytest.raises(Interrupted):
            pretrain(tmp_path / "checkpoints", FACTS, small=True, progress=stop)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.get_rng_state(), state)


def test_held_out_wordings_never_occur_in_training() -> None:
    plan = make_plan(FACTS, small=False, seed=0)
    wordings = [
        relation["prompt_templates"][0].format(sample["subject"]).lower()
        for relation in plan.probes.values()
        for sample in relation["samples"]
    ]
    assert len(wordings) == 320
    corpus = "\n".join(plan.sentences).lower()
    assert not [wording for wording in wordings if wording in corpus]
    for relation in plan.probes.values():
        held_out = relation["prompt_templates"][0].replace("{}", "{subject}") + " {object}"
        assert held_out not in relation["training_templates"]


def test_corpus_frequency_counts_the_sentences_that_state_the_fact() -> None:
    plan = make_plan(FACTS, small=False, seed=0)
    assert len(plan.sentences) == FULL.step_count * FULL.batch_size
    total = 0
    for relation in plan.probes.values():
        frequencies = []
        for sample in relation["samples"]:
            stated = {template.format(**sample) for template in relation["training_templates"]}
            assert sample["corpus_frequency"] == sum(sentence in stated for sentence in plan.sentences)
            frequencies.append(sample["corpus_frequency"])
        total += sum(frequencies)
        assert min(frequencies) >= 5 and max(frequencies) > 8 * min(frequencies), "frequent and rare facts"
    assert total / len(plan.sentences) == pytest.approx(1 - FULL.filler_share, abs=0.01)


def test_default_facts_are_well_formed() -> None:
    found = relations(FACTS)
    assert len(found) == 10
    for relation in found:
        subjects = [sample["subject"] for sample in relation["samples"]]
        assert len(subjects) == 50 == len(set(subjects)), relation["name"]
        assert relation["group"] in ("location", "name")
        assert len(relation["training_templates"]) == 12
        assert all("{subject}" in text and "{object}" in text for text in relation["training_templates"])
        if relation["name"] != "official_language":  # Japan - Japanese cannot be avoided
            leaks = [sample for sample in relation["samples"] if sample["object"].lower() in sample["subject"].lower()]
            assert not leaks
        if relation["name"].startswith("company"):
            assert relation["as_of"] == "2024-12-31"


def test_facts_that_do_not_suffice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no facts"):
        pretrain(tmp_path / "checkpoints", tmp_path, small=True)
    relation = {"name": "r", "prompt_templates": ["{} is"], "training_templates": [], "samples": []}
    (tmp_path / "r.json").write_text(json.dumps(relation))
    with pytest.raises(UserError, match="training_templates"):
        pretrain(tmp_path / "checkpoints", tmp_path, small=True)
    (tmp_path / "r.json").write_text(json.dumps(relation | {"training_templates": ["{subject} {object}"]}))
    with pytest.raises(UserError, match="needs 6"):
        pretrain(tmp_path / "checkpoints", tmp_path, small=True)
