"""What `timecourse families` says of each family is measured again here."""

import dataclasses

import pytest
import torch

from timecourse.errors import MachineError, UserError
from timecourse.extract.families import FAMILIES, verification
from timecourse.extract.families.olmo2 import OLMO2
from timecourse.extract.families.table import families_table, not_verified
from timecourse.extract.families.verification import verify, verify_all
from timecourse.extract.loading import available_device
from timecourse.extract.measurement import COMPLETENESS_BOUND

RECORDED = {row["family"]: row for row in families_table()}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_types[0])
def test_the_record_is_what_is_measured(family):
    row, recorded = verify(family, "cpu"), RECORDED[family.name]
    assert row["attention"] == recorded["attention"]
    for dtype, bound in COMPLETENESS_BOUND.items():
        measured = row[f"error_{dtype}"]
        assert measured < bound and measured == pytest.approx(recorded[f"error_{dtype}"], rel=1.0)
    assert row["error_float32"] <= 1e-6


def test_a_family_that_is_described_wrongly_is_found_out():
    without_norm = dataclasses.replace(OLMO2, attention_norm=None)
    with pytest.raises(UserError, match=r"OLMo 2: the parts miss the stream by .* in float32 on cpu"):
        verify_all([without_norm], "cpu")


def test_an_error_that_is_no_number_is_not_overlooked(monkeypatch):
    measured = verification.layer_contributions

    def not_a_number(layer):
        found = measured(layer)
        return dataclasses.replace(
            found, attention=dataclasses.replace(found.attention, completeness_error=torch.full((2, 9), torch.nan))
        )

    monkeypatch.setattr(verification, "layer_contributions", not_a_number)
    with pytest.raises(UserError, match="miss the stream by nan"):
        verify(OLMO2, "cpu")


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(UserError, match="device 'cuda:99' is not available here"):
        verify_all(FAMILIES, "cuda:99")


@pytest.mark.parametrize("device", ["meta", "mps", "hpu"])
def test_a_device_of_another_kind_is_refused(device):
    with pytest.raises(MachineError, match=f"device '{device}' is none to measure on"):
        available_device(device)


def test_the_table_describes_every_family():
    assert list(RECORDED) == [family.name for family in FAMILIES]
    neox, gemma = RECORDED["GPT-NeoX"], RECORDED["Gemma 2"]
    assert (neox["block"], neox["norms"]) == ("parallel or sequential", "pre (LayerNorm)")
    assert (gemma["block"], gemma["norms"], gemma["attention"]) == ("sequential", "sandwich (RMSNorm)", "eager")
    assert "CUDA" in not_verified([neox]) and "CUDA" not in not_verified([neox | {"verified_with": "cuda, torch"}])
