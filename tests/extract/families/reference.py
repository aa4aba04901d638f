"""What a model's blocks write, from an untouched eager transformers model and from nothing of the product.

Patterns are the model's own `attentions`, values come from hooks on the projections, weights from the state dict by
name, windows and multipliers from the config; norms are computed by hand. Everything is float64.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from tests.extract import slow_reference


@dataclass(frozen=True)
class Source:
    """Where a model of one type shows what its blocks write; names within a block, `norms`: after attention and FFN."""

    blocks: str = "model.layers"
    value: str = "self_attn.v_proj"
    value_layout: str = "alone"
    output: str = "self_attn.o_proj"
    output_is_transposed: bool = False
    feed_forward: str = "mlp"
    norms: tuple[str, str] | None = None
    gain_offset: float = 0.0
    reads_after_attention: str = "post_attention_layernorm"
    multiplier: str | None = None
    can_be_parallel: bool = False


_BLOCK_OF_OLMO2 = {
    "norms": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "reads_after_attention": "mlp",
}
_BLOCK_OF_GEMMA = {
    "norms": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gain_offset": 1.0,
    "reads_after_attention": "pre_feedforward_layernorm",
}
SOURCES = {
    "olmo": Source(),
    "olmo2": Source(**_BLOCK_OF_OLMO2),
    "olmo3": Source(**_BLOCK_OF_OLMO2),
    "olmoe": Source(),
    "gpt_neox": Source(
        blocks="gpt_neox.layers",
        value="attention.query_key_value",
        value_layout="last third of every head",
        output="attention.dense",
        can_be_parallel=True,
    ),
    "gpt2": Source(
        blocks="transformer.h",
        value="attn.c_attn",
        value_layout="last third",
        output="attn.c_proj",
        output_is_transposed=True,
        reads_after_attention="ln_2",
    ),
    "llama": Source(),
    "smollm3": Source(),
    "mistral": Source(),
    "qwen2": Source(),
    "qwen3": Source(),
    "gemma2": Source(**_BLOCK_OF_GEMMA),
    "gemma3_text": Source(**_BLOCK_OF_GEMMA),
    "gemma3": Source(blocks="model.language_model.layers", **_BLOCK_OF_GEMMA),
    "apertus": Source(reads_after_attention="feedforward_layernorm"),
    "granite": Source(multiplier="residual_multiplier"),
}


@dataclass
class ReferenceBlock:
    """One block on a batch of prompts, as float64 arrays; parts of the attention sum by name (see slow_reference)."""

    before: np.ndarray
    after: np.ndarray
    pattern: np.ndarray
    value: np.ndarray
    output: np.ndarray
    bias: np.ndarray | None
    written: np.ndarray
    attends: np.ndarray
    is_parallel: bool
    multiplier: float
    attention_norm: tuple[np.ndarray, float] | None
    attention_parts: list[list[dict]] = field(default_factory=list)

    def __post_init__(self):
        batch, positions, _ = self.before.shape
        self.attention_parts = [[self._parts(row, at) for at in range(positions)] for row in range(batch)]

    def _parts(self, row, query):
        """{name: vector} of what attention adds at one query: every key and head, and the bias."""
        head_count, size = self.pattern.shape[1], self.value.shape[-1]
        parts = {}
        for key in np.flatnonzero(self.attends[row, query]):
            for head in range(head_count):
                vector = self.value[row, head * self.value.shape[1] // head_count, key]
                projected = self.output[:, head * size : (head + 1) * size] @ vector
                parts["head", int(key), head] = self.pattern[row, head, query, key] * projected
        if self.bias is not None:
            parts["bias"] = self.bias
        if self.attention_norm is not None and parts:
            gain, epsilon = self.attention_norm
            raw = sum(parts.values())
            scale = gain / math.sqrt(np.mean(raw**2) + epsilon)
            parts = {name: scale * part for name, part in parts.items()}
        return {name: self.multiplier * part for name, part in parts.items()}

    def sums(self, row, query):
        """The block's sums at one position, in the order in which the stream passes them: {name: part} each."""
        attention = {"residual": self.before[row, query], **self.attention_parts[row][query]}
        written = self.written[row, query]
        if self.is_parallel:
            return ({**attention, "ffn": written},)
        return attention, {"residual": sum(attention.values()), "ffn": written}


def reference(model, model_type, ids, mask):
    """The blocks of an untouched eager model on right-padded prompts."""
    source, config = SOURCES[model_type], model.config.get_text_config()
    blocks = list(model.get_submodule(source.blocks))
    seen, handles = {}, []
    for index, block in enumerate(blocks):
        for what, path in (("value", source.value), ("written", source.feed_forward), ("after", "")):
            keep = _keeper(seen, (index, what))
            handles.append(block.get_submodule(path).register_forward_hook(keep))
    with torch.no_grad():
        shown = model(
            input_ids=ids, attention_mask=mask, output_attentions=True, output_hidden_states=True, use_cache=False
        )
    for handle in handles:
        handle.remove()
    state = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    found = []
    for index in range(len(blocks)):
        name = f"{source.blocks}.{index}"
        output = state[f"{name}.{source.output}.weight"]
        written = seen[index, "written"].reshape(shown.hidden_states[index].shape)
        multiplier = getattr(config, source.multiplier) if source.multiplier else 1.0
        norms = [_norm(state, f"{name}.{norm}", source, config) for norm in source.norms or ()]
        pattern = shown.attentions[index].double().numpy()
        found.append(
            ReferenceBlock(
                before=shown.hidden_states[index].double().numpy(),
                after=seen[index, "after"],  # hidden_states holds the last one behind the final norm
                pattern=pattern,
                value=_values(seen[index, "value"], source.value_layout, config),
                output=output.T if source.output_is_transposed else output,
                bias=state.get(f"{name}.{source.output}.bias"),
                written=multiplier * (_normalised(written, *norms[1]) if norms else written),
                attends=_attends(mask, window(config, index)),
                is_parallel=source.can_be_parallel and config.use_parallel_residual,
                multiplier=multiplier,
                attention_norm=norms[0] if norms else None,
            )
        )
    return found


def _keeper(seen, name):
    def keep(_module, _inputs, output):
        first = output[0] if isinstance(output, tuple) else output
        seen[name] = first.detach().double().numpy().copy()  # clip_qkv overwrites what the projection gave

    return keep


def _norm(state, name, source, config):
    return source.gain_offset + state[f"{name}.weight"], config.rms_norm_eps


def _normalised(vectors, gain, epsilon):
    return gain * vectors / np.sqrt(np.mean(vectors**2, axis=-1, keepdims=True) + epsilon)


def _values(projected, layout, config):
    """[B, K, n, d_head] from what the projection gave."""
    batch, positions, width = projected.shape
    heads = config.num_attention_heads
    if layout == "last third":
        split = projected[..., 2 * width // 3 :].reshape(batch, positions, heads, -1)
    elif layout == "last third of every head":
        by_head = projected.reshape(batch, positions, heads, -1)
        split = by_head[..., 2 * by_head.shape[-1] // 3 :]
    else:
        split = projected.reshape(batch, positions, config.num_key_value_heads, -1)
    clip = getattr(config, "clip_qkv", None)
    return (split if clip is None else split.clip(-clip, clip)).transpose(0, 2, 1, 3)


def window(config, layer):
    """How many keys a query of this layer sees at most, itself included."""
    size = getattr(config, "sliding_window", None)
    if size is None or config.model_type == "mistral":
        return size
    types = getattr(config, "layer_types", None)
    return size if types is not None and types[layer] == "sliding_attention" else None


def _attends(mask, size):
    """[B, n, n] boolean: the keys that are parts of a query's sum."""
    positions = mask.shape[1]
    query, key = np.arange(positions)[:, None], np.arange(positions)[None]
    seen = (key <= query) & (True if size is None else query - key < size)
    return seen[None] & mask.bool().numpy()[:, None, :] & mask.bool().numpy()[:, :, None]


CLOSE = 1e-6
"""How far a contribution may lie from the reference's, where the parts come as close to the sum as the sum is long."""


def contributions(blocks, lengths, order=1):
    """([prompt][block][position]: a tuple of {name: contribution}, one for each of the block's sums; the same of what
    float32 may change of them: a proximity is rounded as ‖y‖ is, and divided by the sum of all proximities).
    """
    shares, rounding = [], []
    for row, length in enumerate(lengths):
        weighed = [[_weighed(block.sums(row, query), order) for query in range(length)] for block in blocks]
        shares.append([[one for one, _ in block] for block in weighed])
        rounding.append([[one for _, one in block] for block in weighed])
    return shares, rounding


def _weighed(sums, order):
    shares, rounding = [], []
    for parts in sums:
        whole = sum(parts.values())
        closer = slow_reference.proximities(whole, parts, order)
        total = sum(closer.values()) if closer else np.inf
        shares.append({name: closer[name] / total if closer else 0.0 for name in parts})
        rounding.append(CLOSE * max(1.0, np.linalg.norm(whole, ord=order) / total))
    return tuple(shares), tuple(rounding)


def completeness_error(blocks, lengths):
    """How far the reference's own parts miss the stream that leaves a block: ‖Σp − stream‖₁ / ‖stream‖₁, the worst."""
    return max(
        np.abs(sum(block.sums(row, query)[-1].values()) - block.after[row, query]).sum()
        / np.abs(block.after[row, query]).sum()
        for block in blocks
        for row, length in enumerate(lengths)
        for query in range(length)
    )
