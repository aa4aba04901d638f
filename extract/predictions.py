"""Reading the answer out of the stream: ranks, log-probabilities and the logit lens (method: section 4).

The lens applies to the stream at any depth what the model applies at the end: final norm, unembedding.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

READ_ELEMENTS = 2**20
"""Largest number of logits that are read at once, but for those of one position (three times 4 MiB in float32: what is
done to each of them should stay in a cache)."""


@dataclass(frozen=True)
class Readout:
    """What is read at P predicting positions. rank [P]: number of logits strictly greater than the answer token's.

    log_prob [P] and entropy [P] in nats; top1_token_id [P]: the first of equals; rank_in_relation [P]: number of the
    relation's answer tokens (same place in the answer) with a strictly greater logit.
    """

    rank: Tensor
    log_prob: Tensor
    top1_token_id: Tensor
    entropy: Tensor
    rank_in_relation: Tensor

    @classmethod
    def empty(cls, positions: int, device: torch.device) -> "Readout":
        """Room for what is read at so many positions, block by block.

        Made first: numbers kept between blocks of logits would keep these blocks' memory from being used again.
        """
        counts, reals = torch.long, torch.float32
        kinds = (counts, reals, counts, reals, counts)
        return cls(*(torch.empty(positions, dtype=kind, device=device) for kind in kinds))

    def put(self, at: slice, block: "Readout") -> None:
        """Copy a block's numbers to these places."""
        for one in fields(self):
            getattr(self, one.name)[at] = getattr(block, one.name)


def read_out(logits: Tensor, answer_token_ids: Tensor, candidates: Tensor) -> Readout:
    """Score the answers under `logits`.

    logits [P, V]; answer_token_ids [P]; candidates [P, C]: token ids of the relation's answers at the same place in the
    answer, padded with the answer's own id (which never outranks itself).
    """
    found = Readout.empty(len(logits), logits.device)
    rows = max(1, READ_ELEMENTS // logits.shape[1])
    made = torch.empty(3, min(rows, len(logits)), logits.shape[1], device=logits.device)
    # what finds the first of equals: a token's distance from the end, which float32 holds up to 16 million tokens
    from_end = torch.arange(logits.shape[1], 0, -1, dtype=torch.float32, device=logits.device)
    for start in range(0, len(logits), rows):
        at = slice(start, start + rows)
        found.put(at, _read(logits[at], answer_token_ids[at, None], candidates[at], from_end, *made))
    return found


def _read(
    logits: Tensor, answers: Tensor, candidates: Tensor, from_end: Tensor, exact: Tensor, below: Tensor, scratch: Tensor
) -> Readout:
    """A block of `read_out`; answers [P, 1]. exact, below and scratch [≥ P, V] in float32 are overwritten.

    Written out, because every pass over the vocabulary counts: torch's argmax and its sum of booleans are ten times
    slower than those of floats, and a softmax beside a log-softmax is a second exponential.
    """
    exact, below, scratch = (one[: len(logits)] for one in (exact, below, scratch))
    exact.copy_(logits)
    largest = exact.amax(-1, keepdim=True)
    answer = exact.gather(1, answers)
    # a token whose logit is -inf adds nothing to the entropy; unclamped, 0 · -inf would be NaN
    torch.sub(exact, largest, out=below).clamp_(min=torch.finfo(below.dtype).min)
    total = torch.exp(below, out=scratch).sum(-1)
    entropy = total.log() - scratch.mul_(below).sum(-1) / total
    top1_token_id = logits.shape[1] - torch.eq(exact, largest, out=scratch).mul_(from_end).amax(-1).long()
    return Readout(
        rank=torch.gt(exact, answer, out=scratch).sum(-1).long(),
        log_prob=(answer - largest)[:, 0] - total.log(),
        top1_token_id=top1_token_id,
        entropy=entropy,
        rank_in_relation=(exact.gather(1, candidates) > answer).sum(-1),
    )


def log_probabilities(logits: Tensor, token_ids: Tensor) -> Tensor:
    """Log-probability in nats of one token per row, [P]: logits [P, V], token_ids [P]."""
    return logits.float().log_softmax(-1).gather(1, token_ids[:, None])[:, 0]
