"""Memory that large tensors use in turn: on a CPU, taking it anew from the system costs about as much as filling it."""

import math

import torch
from torch import Tensor


class ReusedMemory:
    """One block of memory per device, for large tensors that are needed one after another."""

    def __init__(self) -> None:
        self._blocks: dict[torch.device, Tensor] = {}

    def of(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """A float32 tensor of any values, whose memory is that of the one before on this device."""
        elements = math.prod(shape)
        if device not in self._blocks or self._blocks[device].numel() < elements:
            self._blocks.pop(device, None)  # before the next is made
            self._blocks[device] = torch.empty(elements, device=device)
        return self._blocks[device][:elements].view(shape)
