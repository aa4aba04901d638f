"""Reading the answer out of the stream: ranks, log-probabilities and the logit lens (method: section 4).

The lens applies to the stream at any depth what the model applies at the end: final norm, unembedding.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from timecourse.extract.reused_memory import ReusedMemory


@dataclass(frozen=True)
class Readout:
    """What is read at P predicting positions. rank [P]: number of logits strictly greater than the answer token's.

    log_prob [P] and entropy [P] in nats; top1_token_id [P]; rank_in_relation [P]: number of the relation's answer
    tokens (same place in the answer) with a strictly greater logit.
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


def read_out(
    logits: Tensor, answer_token_ids: Tensor, candidates: Tensor, memory: ReusedMemory | None = None
) -> Readout:
    """Score the answers under `logits`.

    logits [P, V]; answer_token_ids [P]; candidates [P, C]: token ids of the relation's answers at the same place in the
    answer, padded with the answer's own id (which never outranks itself). memory: for what is made of the logits.
    """
    exact, log_probs, scratch = (memory or ReusedMemory()).of((3, *logits.shape), logits.device)
    logits = exact.copy_(logits)
    answers = logits.gather(1, answer_token_ids[:, None])
    torch.log_softmax(logits, -1, out=log_probs)
    log_prob = log_probs.gather(1, answer_token_ids[:, None])[:, 0]
    torch.exp(log_probs, out=scratch)
    # a token whose logit is -inf adds nothing; unclamped, 0 · -inf would be NaN
    entropy = scratch.mul_(log_probs.clamp_(min=torch.finfo(log_probs.dtype).min)).sum(-1).neg_()
    # as 0 and 1 in float32, which sums ten times faster than booleans, and exactly, up to 16 million tokens
    rank = torch.gt(logits, answers, out=scratch).sum(-1).long()
    return Readout(
        rank=rank,
        log_prob=log_prob,
        top1_token_id=logits.argmax(-1),
        entropy=entropy,
        rank_in_relation=(logits.gather(1, candidates) > answers).sum(-1),
    )


def log_probabilities(logits: Tensor, token_ids: Tensor) -> Tensor:
    """Log-probability in nats of one token per row, [P]: logits [P, V], token_ids [P]."""
    return logits.float().log_softmax(-1).gather(1, token_ids[:, None])[:, 0]
