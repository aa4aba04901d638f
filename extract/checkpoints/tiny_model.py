"""The default series: a very small OLMo, OLMo 2 or GPT-NeoX, pre-trained on the spot on sentences about real facts.

1. The corpus is written (tiny_corpus.py), and a byte-level BPE tokenizer trained on it.
2. The model sees the corpus once, one sentence per row: Muon on the matrices, AdamW on embeddings, gains and biases.
3. At the recipe's steps an ordinary Hugging Face checkpoint is saved, and the facts beside them as probes.

Corpus, tokenizer and recipe are the same for every family, so that series differ by their architecture alone. Seed and
thread count are fixed: on one machine the same weights come out every time. This module imports neither torch nor
transformers until a model has to be trained.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timecourse.errors import UsageError, UserError
from timecourse.extract.checkpoints.tiny_corpus import Plan, Recipe, make_plan

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

MANIFEST = "pretraining.json"
"""Name of the file beside the checkpoints that says which recipe they come from and whether they are all there."""


# families -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Architecture:
    """One family: its name in a sentence, and the function that makes an untrained model of the recipe's shape."""

    title: str
    new_model: Callable[["PreTrainedTokenizerFast", Recipe], "PreTrainedModel"]


def _new_olmo(tokenizer: "PreTrainedTokenizerFast", recipe: Recipe) -> "PreTrainedModel":
    """Pre-norm; its norms have no parameters."""
    from transformers import OlmoConfig, OlmoForCausalLM

    config = OlmoConfig(
        **_shape(tokenizer, recipe), intermediate_size=recipe.intermediate_size, tie_word_embeddings=True
    )
    return OlmoForCausalLM(config)


def _new_olmo2(tokenizer: "PreTrainedTokenizerFast", recipe: Recipe) -> "PreTrainedModel":
    """Post-norm, and norms on queries and keys, all with gains."""
    from transformers import Olmo2Config, Olmo2ForCausalLM

    config = Olmo2Config(
        **_shape(tokenizer, recipe), intermediate_size=recipe.intermediate_size, tie_word_embeddings=True
    )
    return Olmo2ForCausalLM(config)


def _new_gpt_neox(tokenizer: "PreTrainedTokenizerFast", recipe: Recipe) -> "PreTrainedModel":
    """As Pythia: attention and FFN side by side, rotation of a quarter of a head, biases, separate unembedding."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        **_shape(tokenizer, recipe),
        intermediate_size=4 * recipe.hidden_size,  # Pythia's: its FFN has two matrices, a gated one has three
        hidden_act="gelu",
        rotary_pct=0.25,
        use_parallel_residual=True,
        attention_bias=True,
        attention_dropout=0.0,
        hidden_dropout=0.0,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.eos_token_id,
    )
    return GPTNeoXForCausalLM(config)


def _shape(tokenizer: "PreTrainedTokenizerFast", recipe: Recipe) -> dict[str, Any]:
    """What the configurations of all families have in common."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": recipe.hidden_size,
        "num_hidden_layers": recipe.layer_count,
        "num_attention_heads": recipe.head_count,
        "max_position_embeddings": 64,  # the longest sentence has fewer than 30 tokens
        "initializer_range": 0.02,
        "use_cache": False,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


ARCHITECTURES = {
    "olmo": Architecture("OLMo", _new_olmo),
    "olmo2": Architecture("OLMo 2", _new_olmo2),
    "gpt_neox": Architecture("GPT-NeoX", _new_gpt_neox),
}
"""What can be pre-trained, by the `model_type` of transformers. One recipe serves all; none needs values of its own."""


def _architecture(family: str) -> Architecture:
    if family not in ARCHITECTURES:
        raise UsageError(f"no tiny model of the family {family!r}; there are: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[family]


# pre-training -------------------------------------------------------------------------------------------------------


def pretrain(
    directory: Path,
    facts_directory: Path,
    probe_directory: Path | None = None,
    *,
    family: str = "olmo",
    small: bool = False,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Pre-train a tiny model of `family` and return its checkpoint directories in the order of training.

    `directory` receives `step0`, `step13`, ... (model.safetensors, config.json, tokenizer files, trainer_state.json
    with `global_step` and `num_input_tokens_seen`, padding not counted) and the manifest. `facts_directory` holds
    relations as JSON with `training_templates`. The facts that were used are written to `probe_directory`, by default
    `facts` beside `directory`, each with its `corpus_frequency` (sentences that state it). `progress(step, step_count)`
    is called after every step.

    A finished pre-training is recognised and left alone; an unfinished one, or one by another recipe or of another
    family, starts over. Raises UserError where the facts do not suffice or `directory` holds something else, UsageError
    for a family that is not in ARCHITECTURES.
    """
    architecture = _architecture(family)
    plan = make_plan(facts_directory, small, seed)
    directory, probe_directory = directory.absolute(), _probe_directory(directory, probe_directory)
    _write_probes(probe_directory, plan.probes)
    paths = [directory / f"step{step}" for step in plan.recipe.saved_steps]
    if _is_finished(directory, family, plan.recipe_sha256):
        return paths
    _clear(directory)
    manifest = {"family": family, "recipe_sha256": plan.recipe_sha256, "recipe": asdict(plan.recipe), "seed": seed}
    _replace_json(directory / MANIFEST, manifest)
    _train(directory, architecture, plan, seed, progress)
    _replace_json(directory / MANIFEST, manifest | {"weights_sha256": {path.name: _weights(path) for path in paths}})
    return paths


def is_pretrained(
    directory: Path,
    facts_directory: Path,
    probe_directory: Path | None = None,
    *,
    family: str = "olmo",
    small: bool = False,
    seed: int = 0,
) -> bool:
    """Whether `pretrain` with these arguments would find everything done: the weights intact, the probe facts in place.

    Imports no torch; takes 0.2 s, most of it to write the corpus again. Raises UserError as `pretrain` does.
    """
    _architecture(family)
    plan = make_plan(facts_directory, small, seed)
    probe_directory = _probe_directory(directory, probe_directory)
    return _is_finished(directory, family, plan.recipe_sha256) and all(
        _read_json(probe_directory / name) == probe for name, probe in plan.probes.items()
    )


def _write_probes(probe_directory: Path, probes: Mapping[str, object]) -> None:
    """Write the facts that the run is to ask for; the folder may hold no other facts, since a run reads all of it."""
    probe_directory.mkdir(parents=True, exist_ok=True)
    for path in probe_directory.glob("*.json"):
        if path.name not in probes:
            raise UserError(f"{path} is not part of the tiny model's corpus: move it away or name another directory")
    for name, probe in probes.items():
        _replace_json(probe_directory / name, probe)


# training -----------------------------------------------------------------------------------------------------------


def _train(
    directory: Path, architecture: Architecture, plan: Plan, seed: int, progress: Callable[[int, int], None] | None
) -> None:
    """Train the model and save its checkpoints; global random state and thread count are as before when it returns."""
    import torch

    recipe, sentences = plan.recipe, plan.sentences
    thread_count = torch.get_num_threads()
    torch.set_num_threads(1)  # small matrices: more threads are slower, and sums would depend on their number
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            tokenizer = _train_tokenizer(sentences, recipe)
            model = architecture.new_model(tokenizer, recipe)
            model.train()
            tokens_seen = 0
            _save(directory, 0, tokens_seen, model, tokenizer)
            optimizers = _optimizers(model, recipe)
            for step in range(1, recipe.step_count + 1):
                rows = sentences[(step - 1) * recipe.batch_size : step * recipe.batch_size]
                tokens_seen += _train_step(model, tokenizer, optimizers, rows, _learning_rate(step, recipe), recipe)
                if step in recipe.saved_steps:
                    _save(directory, step, tokens_seen, model, tokenizer)
                if progress is not None:
                    progress(step, recipe.step_count)
    finally:
        torch.set_num_threads(thread_count)


def _train_tokenizer(sentences: Sequence[str], recipe: Recipe) -> "PreTrainedTokenizerFast":
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary_size,
        special_tokens=["<|endoftext|>", "<|padding|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|padding|>", padding_side="right"
    )


def _optimizers(model: "PreTrainedModel", recipe: Recipe) -> list[tuple["torch.optim.Optimizer", float]]:
    """Each optimizer with its peak learning rate: Muon for the hidden matrices, AdamW for all other parameters."""
    import torch

    embeddings = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}

    def is_hidden_matrix(parameter: "torch.nn.Parameter") -> bool:
        return parameter.ndim == 2 and id(parameter) not in embeddings

    matrices = [parameter for parameter in model.parameters() if is_hidden_matrix(parameter)]
    others = [parameter for parameter in model.parameters() if not is_hidden_matrix(parameter)]
    return [
        (
            torch.optim.Muon(matrices, lr=recipe.matrix_learning_rate, weight_decay=recipe.weight_decay),
            recipe.matrix_learning_rate,
        ),
        (
            torch.optim.AdamW(
                others, lr=recipe.embedding_learning_rate, betas=(0.9, 0.95), weight_decay=0.0, foreach=False
            ),
            recipe.embedding_learning_rate,
        ),
    ]


def _learning_rate(step: int, recipe: Recipe) -> float:
    """Share of the peak learning rate at `step` (from 1): linear warm-up, then linear decay to `final_rate`."""
    if step <= recipe.warmup_steps:
        return step / recipe.warmup_steps
    decayed = (step - recipe.warmup_steps) / (recipe.step_count - recipe.warmup_steps)
    return 1 - (1 - recipe.final_rate) * decayed


def _train_step(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerFast",
    optimizers: Sequence[tuple["torch.optim.Optimizer", float]],
    rows: Sequence[str],
    rate: float,
    recipe: Recipe,
) -> int:
    """One update on one batch; returns the number of its tokens without padding."""
    import torch

    batch = tokenizer(list(rows), padding=True, return_tensors="pt")
    is_text = batch["attention_mask"].bool()
    # Padding stands on the right and is no target: under the causal mask no text position ever sees it.
    labels = batch["input_ids"].masked_fill(~is_text, -100)
    model(input_ids=batch["input_ids"], labels=labels).loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip)
    for optimizer, peak in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = peak * rate
        optimizer.step()
        optimizer.zero_grad()
    return int(is_text.sum())


def _save(
    directory: Path, step: int, tokens_seen: int, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast"
) -> None:
    """Write one checkpoint beside its place and rename it, so that it is there in full or not at all."""
    from transformers.utils import logging

    incoming = directory / f".incoming-step{step}"
    has_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model.save_pretrained(incoming)
        tokenizer.backend_tokenizer.no_padding()  # training's padding is no part of the tokenizer
        tokenizer.save_pretrained(incoming)
    finally:
        if has_bars:
            logging.enable_progress_bar()
    state = {"global_step": step, "num_input_tokens_seen": tokens_seen}
    (incoming / "trainer_state.json").write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    incoming.rename(directory / f"step{step}")


# what is there already ----------------------------------------------------------------------------------------------


def _probe_directory(directory: Path, probe_directory: Path | None) -> Path:
    return probe_directory if probe_directory is not None else directory.absolute().parent / "facts"


def _is_finished(directory: Path, family: str, recipe_sha256: str) -> bool:
    """Whether the manifest names this family and recipe, and its checkpoints have the weights they were saved with."""
    manifest = _read_json(directory / MANIFEST)
    if not isinstance(manifest, dict):
        return False
    if (manifest.get("family"), manifest.get("recipe_sha256")) != (family, recipe_sha256):
        return False
    if "weights_sha256" not in manifest:  # written last
        return False
    return all(_weights(directory / name) == sha256 for name, sha256 in manifest["weights_sha256"].items())


def _weights(checkpoint: Path) -> str | None:
    """sha256 of a checkpoint's weights; None where there are none."""
    file = checkpoint / "model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def _clear(directory: Path) -> None:
    """Make `directory` ready for a new start: only checkpoints that an earlier pre-training left are removed."""
    if directory.is_dir() and any(directory.iterdir()) and not (directory / MANIFEST).is_file():
        raise UserError(f"{directory} is not empty and holds no pre-training of ours: name another directory")
    directory.mkdir(parents=True, exist_ok=True)
    for pattern in ("step*", ".incoming-step*"):
        for path in directory.glob(pattern):
            shutil.rmtree(path)


def _read_json(path: Path) -> Any:
    """The file's content; None where it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _replace_json(path: Path, content: object) -> None:
    """Write JSON beside its place and rename it."""
    incoming = path.with_name(f".incoming-{path.name}")
    incoming.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    incoming.replace(path)
