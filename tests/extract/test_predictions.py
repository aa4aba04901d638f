"""Ranks, log-probabilities and entropy of the answer, against their definitions in float64."""

import pytest
import torch

from timecourse.extract import predictions
from timecourse.extract.predictions import read_out


@pytest.fixture(params=["as they come", "with ties", "some tokens impossible"])
def logits(request):
    drawn = 4 * torch.randn(5, 211, generator=torch.Generator().manual_seed(3))
    if request.param == "with ties":
        return drawn.round()
    if request.param == "some tokens impossible":  # a model may mask the ids that pad its vocabulary
        drawn[:, 200:] = -torch.inf
    return drawn


@pytest.mark.parametrize("positions_at_once", [1, 2, 100])
def test_the_readout_is_what_it_says(logits, positions_at_once, monkeypatch):
    monkeypatch.setattr(predictions, "READ_ELEMENTS", positions_at_once * logits.shape[1])
    answers = torch.tensor([0, 7, 42, 99, 199])
    candidates = torch.tensor([[1, 2, 3], [7, 7, 0], [41, 43, 42], [5, 99, 99], [0, 100, 198]])
    found = read_out(logits.clone(), answers, candidates)
    exact = logits.double()
    of_answer = exact.gather(1, answers[:, None])
    assert found.rank.tolist() == (exact > of_answer).sum(1).tolist()
    assert found.rank_in_relation.tolist() == (exact.gather(1, candidates) > of_answer).sum(1).tolist()
    assert found.top1_token_id.tolist() == exact.argmax(1).tolist()
    assert found.log_prob.tolist() == pytest.approx((of_answer[:, 0] - exact.logsumexp(1)).tolist(), abs=1e-5)
    assert found.entropy.tolist() == pytest.approx(torch.special.entr(exact.softmax(1)).sum(1).tolist(), abs=1e-5)
