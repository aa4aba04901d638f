"""Proximities of all heads' parts: every way to compute them, against the whole tensor of parts in float64."""

import os
import subprocess
import sys

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
@given(
    **sizes, width=st.sampled_from([7, 40]), window=st.integers(1, 20), norm=st.sampled_from(["l1", "l2"]),
    queries=st.sampled_from([2, 5, 100]),
)  # fmt: skip
def test_compiled(batch, positions, heads, width, window, norm, queries):
    could = compiled("cpu") is not None
    before, module.QUERY_ELEMENTS = module.QUERY_ELEMENTS, queries * width
    try:
        check(*drawn(batch, positions, heads, width, window, seed=0), norm, is_compiled=True)
        assert (compiled("cpu") is not None) == could, "the compiled loop broke"
    finally:
        module.QUERY_ELEMENTS = before


def test_this_machine_compiles_once_for_all_lengths():
    """A machine with a compiler uses it, and new lengths compile nothing anew; nor do few prompts beside many."""
    if compiled("cpu") is None and "CI" not in os.environ:  # where the project is judged, it has to compile
        pytest.skip("no compiler here")
    assert compiled("cpu") is not None
    for batch in (1, 2):
        check(*drawn(batch, 16, 3, 32, 16, 0), "l1", is_compiled=True)
    with torch.compiler.set_stance("fail_on_recompile"):
        for batch, positions in ((2, 17), (3, 23), (1, 64), (5, 7), (1, 9), (2, 12), (4, 2)):
            check(*drawn(batch, positions, 3, 32, 16, 0), "l1", is_compiled=True)
    assert compiled("cpu") is not None, "a length was compiled anew, or not at all"


@pytest.fixture
def forgotten(monkeypatch):
    """What is known of this machine's compiler is forgotten before and after."""
    monkeypatch.setattr(module, "_compiled", {})


@pytest.fixture
def largest_block(monkeypatch):
    """Elements of the largest block that the definition was given."""
    seen = [0]

    def watched(whole, weights, parts, norm):
        seen.append(weights.numel() * whole.shape[-1])
        return defined(whole, weights, parts, norm)

    defined = module.proximities
    monkeypatch.setattr(module, "proximities", watched)
    return lambda: max(seen)


def none_at_all(*_arguments, **_options):
    raise FileNotFoundError("no folder for compiled loops")


def broken(*_arguments, **_options):
    def run(*_arguments):
        raise RuntimeError("no C++ compiler")

    return run


@pytest.mark.parametrize("compiler", [none_at_all, broken])
def test_without_a_compiler_the_definition_stands_in(monkeypatch, forgotten, largest_block, compiler):
    monkeypatch.setattr(torch, "compile", compiler)
    assert compiled("cpu") is None
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 3 * 16)
    check(*drawn(2, 9, 3, 16, 9, 0), "l1", is_compiled=True)
    assert largest_block() == 3 * 16, "in its own small blocks"


def test_where_compiling_is_turned_off_the_definition_stands_in():
    """torch then runs the very function, which says nothing against it but that its blocks are large."""
    code = "from timecourse.extract.proximities import compiled; print(compiled('cpu'))"
    for variable in ("TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE"):
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {variable: "1"}, capture_output=True, text=True, check=True
        )
        assert done.stdout == "None\n"


def test_a_compiler_that_breaks_later_is_done_without(monkeypatch, forgotten, caplog):
    def breaks(*_arguments):
        raise FileNotFoundError("the folder of compiled loops is gone")

    monkeypatch.setitem(module._compiled, "cpu", breaks)
    with caplog.at_level("INFO", "timecourse.run"):
        for _ in range(2):
            check(*drawn(2, 9, 3, 16, 9, 0), "l1", is_compiled=True)
    assert [record.reason for record in caplog.records] == ["the folder of compiled loops is gone"]


def test_too_little_memory_is_not_the_compilers_fault(monkeypatch, forgotten):
    def fills(*_arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setitem(module._compiled, "cpu", fills)
    with pytest.raises(torch.OutOfMemoryError):
        check(*drawn(2, 9, 3, 16, 9, 0), "l1", is_compiled=True)
    assert compiled("cpu") is fills
