"""Random checkpoints of real shapes, with a tokenizer and facts whose prompts have exactly as many tokens as wanted."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import OlmoConfig, OlmoForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 50_304
SHAPES: dict[str, dict[str, Any]] = {
    "OLMo-7B": {
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "tie_word_embeddings": False,
    },
    "OLMo-1B": {
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "tie_word_embeddings": True,
    },
    "8x8x256": {
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "hidden_size": 256,
        "intermediate_size": 1024,
        "tie_word_embeddings": False,
    },
}
SUBJECT_TOKENS, ANSWER_TOKENS = 3, 2


def save_shape(directory: Path, shape: str, dtype: torch.dtype, layers: int | None = None) -> Path:
    """A checkpoint of a shape, one safetensors file per layer; weights are drawn from N(0, 0.02)."""
    directory.mkdir(parents=True, exist_ok=True)
    values = SHAPES[shape] | ({} if layers is None else {"num_hidden_layers": layers})
    config = OlmoConfig(vocab_size=VOCABULARY, max_position_embeddings=2048, dtype=dtype, pad_token_id=1, **values)
    config.architectures = ["OlmoForCausalLM"]
    config.save_pretrained(directory)
    with torch.device("meta"):
        network = OlmoForCausalLM(config)
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    pool = (torch.randn(2**26, generator=torch.Generator().manual_seed(0)) * 0.02).to(dtype)
    files: dict[str, dict[str, torch.Tensor]] = {}
    for index, (name, size) in enumerate(shapes.items()):
        count, start = size.numel(), 7_919 * index % 1_000_000
        copies = -(-(start + count) // len(pool))
        drawn = pool if copies == 1 else pool.repeat(copies)
        part = name.split(".")[2] if ".layers." in name else "ends"
        files.setdefault(part, {})[name] = drawn[start : start + count].reshape(size).clone()
        if part != "ends" and len(files[part]) == sum(f".layers.{part}." in other for other in shapes):
            save_file(files.pop(part), directory / f"model-{part}.safetensors", metadata={"format": "pt"})
    save_file(files.pop("ends"), directory / "model-ends.safetensors", metadata={"format": "pt"})
    parts = {name: f"model-{name.split('.')[2] if '.layers.' in name else 'ends'}.safetensors" for name in shapes}
    index_file = {"metadata": {}, "weight_map": parts}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index_file), encoding="utf-8")
    words = {"<unk>": 0, "<pad>": 1} | {f"w{number}": number for number in range(2, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>").save_pretrained(directory)
    return directory


def save_facts(directory: Path, prompts: int, tokens: int, seed: int = 0) -> Path:
    """One relation of as many facts; every prompt has exactly `tokens` tokens, the last two of them the answer."""
    directory.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)

    def drawn(count: int) -> str:
        return " ".join(f"w{number}" for number in torch.randint(2, VOCABULARY, (count,), generator=generator).tolist())

    before = (tokens - SUBJECT_TOKENS - ANSWER_TOKENS) // 2
    after = tokens - SUBJECT_TOKENS - ANSWER_TOKENS - before
    relation = {
        "name": "random relation",
        "properties": {"relation_type": "factual"},
        "prompt_templates": [f"{drawn(before)} {{}} {drawn(after)}"],
        "samples": [{"subject": drawn(SUBJECT_TOKENS), "object": drawn(ANSWER_TOKENS)} for _ in range(prompts)],
    }
    (directory / "random_relation.json").write_text(json.dumps(relation), encoding="utf-8")
    return directory
