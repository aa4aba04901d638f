"""Proximities of all heads' parts: every way to compute them, against the whole tensor of parts in float64."""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from timecourse.extract import proximities as module
from timecourse.extract.proximities import compiled, head_proximities

anything = settings(max_examples=25, deadline=None, derandomize=True)
sizes = {"batch": st.integers(1, 4), "positions": st.integers(1, 19), "heads": st.integers(1, 5)}


def drawn(batch, positions, heads, width, window, seed):
    """Sums, attention patterns over the last `window` keys, and values behind W_O."""
    generator = torch.Generator().manual_seed(seed)
    distance = torch.arange(positions)[:, None] - torch.arange(positions)
    scores = torch.randn(batch, heads, positions, positions, generator=generator)
    pattern = scores.masked_fill((distance < 0) | (distance >= window), -torch.inf).softmax(-1)
    parts = torch.randn(batch, positions, heads, width, generator=generator)
    whole = torch.einsum("bhqk,bkhd->bqd", pattern, parts) + torch.randn(batch, positions, width, generator=generator)
    return whole, pattern, parts


def plainly(whole, pattern, parts, norm):
    """[B, n, n, H] as the definition is written, in float64."""
    whole = whole.double()[:, :, None, None]
    left = whole - pattern.double().permute(0, 2, 3, 1)[..., None] * parts.double()[:, None]
    order = {"l1": 1, "l2": 2}[norm]
    return torch.linalg.vector_norm(whole, order, -1) - torch.linalg.vector_norm(left, order, -1)


def check(whole, pattern, parts, norm, is_compiled):
    found = head_proximities(whole, pattern, parts, norm, is_compiled=is_compiled)
    expected = plainly(whole, pattern, parts, norm)
    causal = torch.ones(whole.shape[1], whole.shape[1], dtype=torch.bool).tril()
    scale = torch.linalg.vector_norm(whole.double(), {"l1": 1, "l2": 2}[norm], -1)[..., None, None]
    assert float(((found - expected).abs() / scale)[:, causal].max()) < 2e-6


@anything
@given(
    **sizes, width=st.integers(1, 40), window=st.integers(1, 20), norm=st.sampled_from(["l1", "l2"]),
    block=st.sampled_from([1, 100, 2**20]), seed=st.integers(0, 99),
)  # fmt: skip
def test_as_it_stands(batch, positions, heads, width, window, norm, block, seed):
    before, module.BLOCK_ELEMENTS = module.BLOCK_ELEMENTS, block
    try:
        check(*drawn(batch, positions, heads, width, window, seed), norm, is_compiled=False)
    finally:
        module.BLOCK_ELEMENTS = before


@settings(anything, max_examples=8)
@given(**sizes, width=st.sampled_from([7, 40]), window=st.integers(1, 20), queries=st.sampled_from([2, 5, 100]))
def test_compiled(batch, positions, heads, width, window, queries):
    before, module.QUERY_ELEMENTS = module.QUERY_ELEMENTS, queries * width
    try:
        check(*drawn(batch, positions, heads, width, window, seed=0), "l1", is_compiled=True)
    finally:
        module.QUERY_ELEMENTS = before


def test_this_machine_compiles_once_for_all_lengths():
    """A machine with a compiler uses it, and new lengths compile nothing anew."""
    fast = compiled("cpu")
    if fast is module.proximities and "CI" not in os.environ:  # where the project is judged, it has to compile
        pytest.skip("no compiler here")
    assert fast is not module.proximities
    check(*drawn(2, 16, 3, 32, 16, 0), "l1", is_compiled=True)
    with torch.compiler.set_stance("fail_on_recompile"):
        for positions in (17, 23, 64):
            check(*drawn(2, positions, 3, 32, 16, 0), "l1", is_compiled=True)


def test_without_a_compiler_the_definition_stands_in(monkeypatch):
    def broken(*_arguments, **_options):
        def run(*_arguments):
            raise RuntimeError("no C++ compiler")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    compiled.cache_clear()
    try:
        assert compiled("cpu") is module.proximities
        check(*drawn(2, 9, 3, 16, 9, 0), "l1", is_compiled=True)
    finally:
        compiled.cache_clear()
