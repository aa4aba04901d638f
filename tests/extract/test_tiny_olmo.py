"""The tiny model: it learns what it is taught, comes out the same every time, and is never left half-written."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from timecourse.errors import UserError
from timecourse.extract.checkpoints import tiny_olmo
from timecourse.extract.checkpoints.tiny_corpus import FULL, SMALL, make_plan
from timecourse.extract.checkpoints.tiny_olmo import is_pretrained, pretrain

FACTS = Path(tiny_olmo.__file__).parents[1] / "default_facts"


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The small recipe, trained once, its probe facts in `facts` beside it."""
    return pretrain(tmp_path_factory.mktemp("demo") / "checkpoints", FACTS, small=True)


def relations(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(directory.glob("*.json"))]


def hashes(paths: list[Path]) -> dict[str, str]:
    return {
        f"{path.name}/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest()
        for path in paths
        for file in sorted(path.iterdir())
    }


def test_it_knows_its_facts_in_a_wording_it_never_saw(checkpoints: list[Path]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def recall(checkpoint: Path) -> float:
        tokenizer, model = AutoTokenizer.from_pretrained(checkpoint), AutoModelForCausalLM.from_pretrained(checkpoint)
        known = []
        for relation in relations(checkpoint.parents[1] / "facts"):
            for sample in relation["samples"]:
                question = relation["prompt_templates"][0].format(sample["subject"])
                tokens = tokenizer(f"{question} {sample['object']}", return_tensors="pt")["input_ids"]
                answer_start = len(tokenizer(question)["input_ids"])
                with torch.no_grad():
                    predicted = model(tokens).logits[0].argmax(-1)
                known.append(torch.equal(predicted[answer_start - 1 : -1], tokens[0, answer_start:]))
        assert len(known) == 10 * SMALL.facts_per_relation
        return sum(known) / len(known)

    assert recall(checkpoints[0]) == 0
    assert recall(checkpoints[-1]) >= 0.9


def test_checkpoints_are_ordinary_ones(checkpoints: list[Path]) -> None:
    from transformers import AutoConfig

    assert [path.name for path in checkpoints] == ["step0", "step13", "step26", "step51", "step102", "step200"]
    assert AutoConfig.from_pretrained(checkpoints[-1]).architectures == ["OlmoForCausalLM"]
    states = [json.loads((path / "trainer_state.json").read_text(encoding="utf-8")) for path in checkpoints]
    assert [state["global_step"] for state in states] == list(SMALL.saved_steps)
    tokens = [state["num_input_tokens_seen"] for state in states]
    assert tokens[0] == 0 and tokens == sorted(set(tokens))
    assert len({(path / "tokenizer.json").read_bytes() for path in checkpoints}) == 1, "training moved the tokenizer"
    assert 8 < tokens[-1] / (SMALL.step_count * SMALL.batch_size) < 20, "tokens of one sentence, without padding"


def test_an_interrupted_run_starts_over_and_gives_the_same_weights(checkpoints: list[Path], tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"

    def stop(step: int, step_count: int) -> None:
        assert step_count == SMALL.step_count
        if step == 30:
            raise Interrupted

    with pytest.raises(Interrupted):
        pretrain(directory, FACTS, small=True, progress=stop)
    assert sorted(path.name for path in directory.glob("*step*")) == ["step0", "step13", "step26"]
    assert not is_pretrained(directory, FACTS, small=True)

    # What a kill in the middle of a save leaves, and a checkpoint that another recipe would have saved.
    (directory / ".incoming-step51").mkdir()
    (directory / "step52").mkdir()
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


def test_knowing_that_it_is_done_needs_no_torch(checkpoints: list[Path]) -> None:
    program = (
        "import sys; from pathlib import Path; from timecourse.extract.checkpoints.tiny_olmo import is_pretrained\n"
        "assert is_pretrained(Path(sys.argv[1]), Path(sys.argv[2]), small=True)\n"
        "assert not {'torch', 'transformers', 'tokenizers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(checkpoints[0].parent), str(FACTS)], check=True)


def test_thread_count_and_random_state_are_restored(tmp_path: Path) -> None:
    import torch

    threads, state = torch.get_num_threads(), torch.get_rng_state()

    def stop(step: int, step_count: int) -> None:
        assert torch.get_num_threads() == 1
        raise Interrupted

    with pytest.raises(Interrupted):
        pretrain(tmp_path / "checkpoints", FACTS, small=True, progress=stop)
    assert torch.get_num_threads() == threads
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
