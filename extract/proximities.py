"""How close the parts of a sum come to it, for every head at every key, without a tensor of all parts.

For a sum y and a part p the proximity is ‖y‖ − ‖y − p‖. A head's part is `a[q,k,h] · v[k,h] W_O[h]`: the tensor
[query, key, head, d] of all of them (8 GiB per layer and prompt of 128 tokens in a 7B model) is never made. Blocks of
keys and of the queries that may attend to them are reduced over d at once.

There is one definition, `proximities`. Small work runs it as it stands; large work runs it compiled by torch.compile
into one loop that streams d and keeps no part at all (docs/cost.md has the measurements). Both compute in float32.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor

from timecourse.extract.out_of_memory import is_out_of_memory

BLOCK_ELEMENTS = 2**18
"""Largest number of float32 elements of one block of head parts (1 MiB: it should stay in L2)."""

QUERY_ELEMENTS = 2**18
"""Largest number of float32 elements of one prompt's sums in a compiled loop (1 MiB: they should stay in L2)."""

KEY_BLOCKS = 8
"""Into how many blocks a prompt's keys are cut, where it has as many: more waste less above the diagonal."""

Norm = Literal["l1", "l2"]
Proximities = Callable[[Tensor, Tensor, Tensor, Norm], Tensor]


def proximities(whole: Tensor, weights: Tensor, parts: Tensor, norm: Norm) -> Tensor:
    """‖y‖ − ‖y − w·p‖ for R parts and q sums: [..., R, q].

    whole [..., q, d]: the sums; weights [..., R, q]: by what each part is multiplied in each sum; parts [..., R, d].
    """
    whole = whole.unsqueeze(-3)
    return proximity(whole, torch.addcmul(whole, weights.unsqueeze(-1), parts.unsqueeze(-2), value=-1), norm)


def proximity(whole: Tensor, left: Tensor, norm: Norm) -> Tensor:
    """‖y‖ − ‖y − p‖, given y and what is left of it without the part, y − p; overwrites `left`.

    Subtracted coordinate by coordinate, because the difference of two float32 norms keeps few digits. The published
    pipeline adds 1e-6 to every coordinate of y − p, its library's default; that is not done here.
    """
    if norm == "l1":
        return left.abs_().sub_(whole.abs()).sum(-1).neg_()
    squares = ((whole - left) * (whole + left)).sum(-1)
    return squares / (norm_of(whole, norm) + norm_of(left, norm)).clamp(min=torch.finfo(squares.dtype).tiny)


def norm_of(vectors: Tensor, norm: Norm) -> Tensor:
    """The norm over the last dimension."""
    # on a CPU the sum of absolute values is four times faster than vector_norm(ord=1) over short rows
    return vectors.abs().sum(-1) if norm == "l1" else torch.linalg.vector_norm(vectors, dim=-1)


def head_proximities(whole: Tensor, pattern: Tensor, value_output: Tensor, norm: Norm, *, is_compiled: bool) -> Tensor:
    """‖y‖ − ‖y − a·vW_O‖ for every [query, key, head]: [B, n, n, H]. Keys after the query are −∞, or of no meaning.

    whole [B, n, d]; pattern [B, H, n, n] as [query, key]; value_output [B, n, H, d]. All in float32.
    """
    device_type = whole.device.type
    if is_compiled and (fast := compiled(device_type)) is not None:
        try:
            return _in_blocks(whole, pattern, value_output, norm, fast)
        except Exception as error:  # a compiler may break at any time, and raises whatever it likes
            if is_out_of_memory(error):
                raise
            _not_compiled(device_type, error)
    return _in_blocks(whole, pattern, value_output, norm, None)


def _in_blocks(whole: Tensor, pattern: Tensor, value_output: Tensor, norm: Norm, fast: Proximities | None) -> Tensor:
    """See head_proximities. fast: the compiled loop, to which more is given at once; None for the definition."""
    batch, positions, heads, width = value_output.shape
    found = whole.new_full((batch, positions, heads, positions), -torch.inf)  # [key, head, query]: as it is computed
    keys = max(1, positions // KEY_BLOCKS)
    if fast is not None:
        prompts, queries = batch, max(2, QUERY_ELEMENTS // width)
    else:
        queries = max(1, min(positions, BLOCK_ELEMENTS // (heads * width)))
        keys = max(1, min(keys, BLOCK_ELEMENTS // (queries * heads * width)))
        prompts = max(1, BLOCK_ELEMENTS // (queries * keys * heads * width))
    for rows in _blocks(0, batch, prompts):
        for at in _blocks(0, positions, keys):
            parts = value_output[rows, at].flatten(1, 2)
            for to in _blocks(at.start, positions, queries):
                weights = pattern[rows, :, to, at].permute(0, 3, 1, 2).flatten(1, 2)
                if fast is None or min(weights.shape[1:]) == 1:  # a size of 1 would be compiled for its own sake
                    block = proximities(whole[rows, to], weights, parts, norm)
                elif batch == 1:
                    block = fast(whole[0, to], weights[0].contiguous(), parts[0], norm)[None]
                else:  # other strides would be compiled for their own sake
                    block = fast(whole[rows, to].contiguous(), weights.contiguous(), parts, norm)
                found[rows, at, :, to] = block.view(len(block), -1, heads, block.shape[-1])
    return found.permute(0, 3, 1, 2)


def _blocks(first: int, last: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, last)) for start in range(first, last, size))


_compiled: dict[str, Proximities | None] = {}


def compiled(device_type: str) -> Proximities | None:
    """`proximities` as one compiled loop; None where this machine cannot compile, or compiles it wrongly."""
    if device_type not in _compiled:
        try:
            _compiled[device_type] = _tried(device_type)
        except Exception as error:  # a compiler that is missing or broken raises whatever it likes
            _not_compiled(device_type, error)
    return _compiled[device_type]


def _tried(device_type: str) -> Proximities:
    """The compiled loop, tried on random numbers. Raises whatever torch raises, RuntimeError where it is wrong."""
    if not torch.compile(lambda: torch.compiler.is_compiling(), backend="eager")():
        raise RuntimeError("torch.compile is turned off")  # torch would run the definition instead, in large blocks
    # one thread compiles one loop; more would be processes of their own that import torch first
    fast: Proximities = torch.compile(proximities, dynamic=True, fullgraph=True, options={"compile_threads": 1})
    generator = torch.Generator().manual_seed(0)
    sizes = ((16, 4096), (64, 16), (64, 4096))  # typical ones, because how the loop is cut into threads follows them
    whole, weights, parts = (torch.randn(size, generator=generator).to(device_type) for size in sizes)
    found, expected = fast(whole, weights, parts, "l1"), proximities(whole, weights, parts, "l1")
    if not bool(((found - expected).abs() <= 1e-5 * norm_of(whole, "l1")).all()):
        raise RuntimeError("the compiled loop gives other numbers")
    return fast


def _not_compiled(device_type: str, error: Exception) -> None:
    """From now on the definition is run as it stands."""
    _compiled[device_type] = None
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    logging.getLogger("timecourse.run").info("contributions are not compiled", extra={"reason": reason})
