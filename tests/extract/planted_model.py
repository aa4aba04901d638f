"""A model whose mechanism is known: weights written by hand, and what they do in closed form.

An ordinary Llama of two layers with four heads each. Its norms divide by a constant (their ε dwarfs every stream, their
gain is √ε), its attention is one-hot (scores differ by 64), so logits are a sum of what components write:

component        writes at the last word before an answer           elsewhere
L1H1             the capital of the subject, `strength`             nothing
L0H2             the language of the subject, `strength`            nothing
L0H0 and L1H3    the currency of the subject, half of it each       nothing
L0F              the same to every word, which no probability sees  the same
L1F              nothing                                            the template's next word
all others       nothing                                            nothing
the embedding    three wrong answers, `GUESS`                       nothing

So L1H1 alone is needed for capitals, L0H2 alone for languages, and for currencies either of two heads suffices to beat
the guesses, but not neither. The template's words need L1F alone. Each head attends to the subject from its own
relation's last word, and from everywhere else to the first token, whose values are zero.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from timecourse.extract.facts import Relation
from timecourse.extract.families.llama import LLAMA
from timecourse.extract.loading import LoadedModel
from timecourse.extract.prompts import Prompt, build_prompts

SUBJECTS = ("France", "Japan", "Poland", "Sweden", "Hungary", "Turkey", "Thailand", "Denmark")
ANSWERS = {
    "capital_of": ("Paris", "Tokyo", "Warsaw", "Stockholm", "Budapest", "Ankara", "Bangkok", "Copenhagen"),
    "language_of": ("French", "Japanese", "Polish", "Swedish", "Hungarian", "Turkish", "Thai", "Danish"),
    "currency_of": ("euro", "yen", "zloty", "krona", "forint", "lira", "baht", "krone"),
}
TEMPLATES = {
    "capital_of": ("The capital of {} is", "The capital city of {} is"),
    "language_of": ("The people of {} speak", "The people born across {} speak"),
    "currency_of": ("The people of {} pay with", "The shops across {} pay with"),
}
LAST_WORD = {"capital_of": "is", "language_of": "speak", "currency_of": "with"}
GUESSES = ("nothing", "something", "everything")

HEADS = {"capital_of": ("L1H1",), "language_of": ("L0H2",), "currency_of": ("L0H0", "L1H3")}
"""The heads that bring a relation's answers; each has an equal share of it."""
HARMLESS, TEMPLATE_WRITER, IDLE = "L0F", "L1F", "L1H2"

LAYERS, HEAD_COUNT, HEAD_SIZE = 2, 4, 16
STRENGTH, GUESS, EVERYWHERE, TEMPLATE = 6.0, 1.0, 0.5, 3.0

# words that follow one another in a template, where the next one does not depend on the subject
_NEXT_WORD = {"capital": "of", "city": "of", "people": "of", "born": "across", "shops": "across", "pay": "with"}

_WORDS = tuple(
    dict.fromkeys(
        word
        for words in (
            ("<unk>",),
            *(template.replace("{} ", "").split() for templates in TEMPLATES.values() for template in templates),
            SUBJECTS,
            *ANSWERS.values(),
            GUESSES,
        )
        for word in words
    )
)
TOKEN = {word: index for index, word in enumerate(_WORDS)}
"""Token id of every word."""


# what the components do, in closed form -----------------------------------------------------------------------------


def written(component: str, words: list[str], position: int, strength: float = STRENGTH) -> NDArray[np.float64]:
    """What a component (L1H1, L0F, ...) or the `embedding` adds to the logits at one position of a text, [V]."""
    logits = np.zeros(len(_WORDS))
    word = words[position]
    if component == "embedding":
        if word in LAST_WORD.values():
            logits[[TOKEN[guess] for guess in GUESSES]] = GUESS
    elif component == HARMLESS:
        logits[:] = EVERYWHERE
    elif component == TEMPLATE_WRITER:
        if word in _NEXT_WORD:
            logits[TOKEN[_NEXT_WORD[word]]] = TEMPLATE
    else:
        for relation, heads in HEADS.items():
            subjects = [one for one in words[: position + 1] if one in SUBJECTS]
            if component in heads and word == LAST_WORD[relation] and subjects:
                logits[TOKEN[ANSWERS[relation][SUBJECTS.index(subjects[0])]]] = strength / len(heads)
    return logits


COMPONENTS = tuple(
    f"L{layer}{'F' if part == HEAD_COUNT else f'H{part}'}" for layer in range(LAYERS) for part in range(HEAD_COUNT + 1)
)
"""All components, in the order of their indices."""


def expected_logits(
    prompt: Prompt,
    position: int,
    silenced: Collection[str] = (),
    instead: Callable[[str], NDArray[np.float64]] | None = None,
    strength: float = STRENGTH,
) -> NDArray[np.float64]:
    """[V]: what the model says at a position when components are silenced; `instead` says what each writes then."""
    words = [_WORDS[token] for token in prompt.token_ids]
    logits = written("embedding", words, position, strength)
    for component in COMPONENTS:
        if component not in silenced:
            logits = logits + written(component, words, position, strength)
        elif instead is not None:
            logits = logits + instead(component)
    return logits


def log_probs(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-softmax."""
    found: NDArray[np.float64] = logits - np.log(np.exp(logits).sum())
    return found


def written_at(component: str, prompt: Prompt, position: int, strength: float = STRENGTH) -> NDArray[np.float64]:
    """What a component adds to the logits at a position of a prompt, [V]."""
    return written(component, [_WORDS[token] for token in prompt.token_ids], position, strength)


# the model ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Planted:
    """The model, as it is read, and everything that is asked of it."""

    model: LoadedModel
    tokenizer: PreTrainedTokenizerFast
    relations: list[Relation]
    prompts: list[Prompt]

    def index(self, component: str) -> int:
        """A component's index."""
        return self.model.component_ids.index(component)


def planted(strength: float = STRENGTH) -> Planted:
    """The model with answers of this strength (0: it knows none), its tokenizer, three relations, and their prompts."""
    tokenizer = planted_tokenizer()
    relations = [Relation.model_validate(one) for one in planted_facts().values()]
    model = LoadedModel(planted_network(strength), LLAMA, torch.device("cpu"))
    return Planted(model, tokenizer, relations, build_prompts(relations, tokenizer, 64))


def planted_facts() -> Mapping[str, dict[str, Any]]:
    """{name: relation as JSON}."""
    return {
        name: {
            "name": name,
            "group": "location" if name == "capital_of" else "name",
            "prompt_templates": list(TEMPLATES[name]),
            "samples": [
                {"subject": subject, "object": answer} for subject, answer in zip(SUBJECTS, answers, strict=True)
            ],
        }
        for name, answers in ANSWERS.items()
    }


def planted_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word."""
    tokenizer = Tokenizer(models.WordLevel(TOKEN, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def planted_network(strength: float = STRENGTH) -> LlamaForCausalLM:
    """The stream has one coordinate per word for what stands at a position, and one per word for what comes next.

    Queries and keys use the two coordinates of a head that the rotation turns slowest, by 1e-27 per position.
    """
    words, half, slow = len(_WORDS), HEAD_SIZE // 2, HEAD_SIZE // 2 - 1
    epsilon = 2.0**26
    config = LlamaConfig(
        vocab_size=words,
        hidden_size=2 * words,
        intermediate_size=words,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEAD_COUNT,
        num_key_value_heads=HEAD_COUNT,
        head_dim=HEAD_SIZE,
        max_position_embeddings=64,
        rms_norm_eps=epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": 1e30},
        tie_word_embeddings=False,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    network = LlamaForCausalLM._from_config(config, attn_implementation="eager").eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        parameter.fill_(epsilon**0.5 if name.endswith("norm.weight") else 0.0)
    stands, comes = slice(0, words), slice(words, 2 * words)
    network.model.embed_tokens.weight[:, stands] = torch.eye(words)
    for last in LAST_WORD.values():
        for guess in GUESSES:
            network.model.embed_tokens.weight[TOKEN[last], words + TOKEN[guess]] = GUESS
    network.lm_head.weight[:, comes] = torch.eye(words)
    for relation, heads in HEADS.items():
        for head in heads:
            layer, number = int(head[1]), int(head[3])
            attention = network.model.layers[layer].self_attn
            first = number * HEAD_SIZE
            attention.q_proj.weight[first + slow, TOKEN[LAST_WORD[relation]]] = 32.0
            for index, (subject, answer) in enumerate(zip(SUBJECTS, ANSWERS[relation], strict=True)):
                attention.k_proj.weight[first + slow, TOKEN[subject]] = 16.0
                attention.v_proj.weight[first + index, TOKEN[subject]] = 1.0
                attention.o_proj.weight[words + TOKEN[answer], first + index] = strength / len(heads)
    for layer in network.model.layers:
        for number in range(HEAD_COUNT):
            first = number * HEAD_SIZE
            layer.self_attn.q_proj.weight[first + slow + half, stands] = 16.0
            layer.self_attn.k_proj.weight[first + slow + half, TOKEN["The"]] = 16.0
    everywhere, next_word = network.model.layers[0].mlp, network.model.layers[1].mlp
    # silu(32) = 32 in float32
    everywhere.gate_proj.weight[0, stands] = 32.0
    everywhere.up_proj.weight[0, stands] = 1 / 32
    everywhere.down_proj.weight[comes, 0] = EVERYWHERE
    next_word.gate_proj.weight[:, stands] = 32.0 * torch.eye(words)
    next_word.up_proj.weight[:, stands] = torch.eye(words) / 32
    for word, following in _NEXT_WORD.items():
        next_word.down_proj.weight[words + TOKEN[following], TOKEN[word]] = TEMPLATE
    return network


def save_planted_checkpoint(directory: Path, strength: float = STRENGTH) -> Path:
    """An ordinary Hugging Face checkpoint of the model: name its folder step1, step2, ... beside others of a series."""
    planted_network(strength).save_pretrained(directory)
    planted_tokenizer().save_pretrained(directory)
    return directory


def save_planted_facts(directory: Path) -> Path:
    """The relations as JSON files, one each."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in planted_facts().items():
        (directory / f"{name}.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    return directory
