"""Telling an allocation that failed from other errors: torch and its libraries say it in several ways."""

import torch

_SAID = ("can't allocate memory", "out of memory", "alloc_failed")
"""By torch's CPU allocator; by CUDA's runtime and by Triton; by cuBLAS and cuDNN. In lower case."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was too little memory, on whichever device."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _SAID)
    )
