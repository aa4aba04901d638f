"""A series from real checkpoints: order over phases, names that serve the same weights, what cannot be used."""

import json
import re
import shutil

import pytest

from tests.conftest import save_checkpoint
from timecourse.errors import UsageError, UserError
from timecourse.extract.checkpoints.directory import DirectorySource
from timecourse.extract.checkpoints.selection import Selection
from timecourse.extract.checkpoints.series import Phase, Reading, declarations, read_series


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Four small checkpoints that differ, as folders to copy from."""
    root = tmp_path_factory.mktemp("weights")
    return [save_checkpoint(root / str(seed), seed=seed, num_hidden_layers=1) for seed in range(4)]


@pytest.fixture
def series(tmp_path, weights):
    """Lays checkpoints out: {"phase/name": index of the weights}; returns the phases."""

    def lay_out(**phases):
        for phase, names in phases.items():
            for name, index in names.items():
                shutil.copytree(weights[index], tmp_path / phase / name)
        return [Phase(phase, DirectorySource(tmp_path / phase)) for phase in phases]

    return lay_out


def found(entries):
    return {entry.name: (entry.status, entry.same_weights_as) for entry in entries}


def test_main_is_an_alias_of_the_last_step_and_is_used_once(series):
    entries = read_series(series(pretraining={"step0": 0, "step9": 1, "step10": 2, "main": 2}), Reading())
    assert found(entries) == {
        "step0": ("used", None),
        "step9": ("used", None),
        "step10": ("used", None),
        "main": ("alias", "step10"),
    }
    assert [row["position"] for row in declarations(entries, {})] == [0, 1, 2, 3]
    assert entries[-1].reason == "another name of step10"


def test_main_with_weights_of_its_own_is_the_end_of_the_phase(series):
    entries = read_series(series(pretraining={"main": 3, "step10": 2, "step0": 0}), Reading())
    assert [entry.name for entry in entries] == ["step0", "step10", "main"]
    assert {entry.status for entry in entries} == {"used"}


def test_an_early_step_with_late_weights_is_a_duplicate(series):
    """pythia-2.8b: final-era weights under early names. The late name is believed, also where main serves them too."""
    offered = {"step0": 0, "step1": 3, "step2": 3, "step1000": 1, "step143000": 3, "main": 3}
    entries = read_series(series(pretraining=offered), Reading())
    assert found(entries) == {
        "step0": ("used", None),
        "step1": ("duplicate", "step143000"),
        "step2": ("duplicate", "step143000"),
        "step1000": ("used", None),
        "step143000": ("used", None),
        "main": ("alias", "step143000"),
    }


def test_phases_follow_each_other_and_carry_their_name(series):
    phases = series(pretraining={"step0": 0, "step5": 1}, sft={"step0": 1, "step3": 2}, dpo={"main": 3})
    entries = read_series(phases, Reading())
    assert [(entry.name, entry.status) for entry in entries] == [
        ("pretraining/step0", "used"),
        ("pretraining/step5", "used"),
        ("sft/step0", "duplicate"),  # where SFT starts from: measured once, as the end of pretraining
        ("sft/step3", "used"),
        ("dpo/main", "used"),
    ]
    assert entries[2].same_weights_as == "pretraining/step5"
    assert [entry.place.phase_index for entry in entries] == [0, 0, 1, 1, 2]


def test_the_selection_is_made_of_what_can_be_used(series):
    phases = series(pretraining={"step0": 0, "step1": 3, "step2": 1, "step3": 2, "step4": 3})
    entries = read_series(phases, Reading(selection=Selection(every=3)))
    assert found(entries) == {
        "step0": ("used", None),
        "step1": ("duplicate", "step4"),
        "step2": ("left_out", None),
        "step3": ("left_out", None),
        "step4": ("used", None),
    }
    with pytest.raises(UsageError, match="no checkpoint is named 'step9'; the closest is 'step"):
        read_series(phases, Reading(selection=Selection(names=("step9",))))


def test_what_cannot_be_used_does_not_stop_the_rest(series, tmp_path):
    phases = series(pretraining={"step0": 0, "step1": 1, "step2": 2})
    (tmp_path / "pretraining" / "step1" / "config.json").unlink()
    entries = read_series(phases, Reading())
    assert [entry.status for entry in entries] == ["used", "unusable", "used"]
    assert entries[1].reason == "checkpoint 'step1' has no config.json"
    assert declarations(entries, {"step2": "cannot be loaded"})[2]["status"] == "failed"


def test_a_name_that_says_no_step_is_an_error_unless_it_is_left_out(series):
    phases = series(pretraining={"step0": 0, "best": 1})
    with pytest.raises(UserError, match=r"'best' does not say its training step; .* \(\[series\] leave_out\)"):
        read_series(phases, Reading())
    assert found(read_series(phases, Reading(leave_out=("best",)))) == {"step0": ("used", None)}
    own = re.compile(r"(?:step|best)(?P<step>\d*)")
    with pytest.raises(UserError, match="'best'"):
        read_series(phases, Reading(pattern=own))


def test_two_names_for_one_step_are_told(series):
    phases = series(pretraining={"step1": 0, "step_0001": 1})
    with pytest.raises(UserError, match="'step1' and 'step_0001' both claim step 1"):
        read_series(phases, Reading())
    assert list(found(read_series(phases, Reading(leave_out=("step_0001",))))) == ["step1"]


def test_tokens_are_computed_where_the_trainer_recorded_none(series, tmp_path):
    phases = series(pretraining={"step0": 0, "step10": 1, "step20-tokens7B": 2})
    state = {"global_step": 10, "num_input_tokens_seen": 123}
    (tmp_path / "pretraining" / "step10" / "trainer_state.json").write_text(json.dumps(state))
    rows = declarations(read_series(phases, Reading(tokens_per_step=100)), {})
    assert [row["tokens_computed"] for row in rows] == [0, 123, 2000]
    assert [row["tokens_reported"] for row in rows] == [None, None, 7 * 10**9]


def test_what_is_offered_no_more_keeps_its_place(series):
    before = declarations(read_series(series(pretraining={"step0": 0, "step5": 1, "main": 2}), Reading()), {})
    phases = series(later={"step0": 0, "step9": 3, "main": 2})
    entries = read_series([Phase("pretraining", phases[0].source)], Reading())
    merged = declarations(entries, {}, [row for row in before if row["name"] == "step5"])
    assert [(row["name"], row["status"], row["position"]) for row in merged] == [
        ("step0", "used", 0),
        ("step5", "gone", 1),
        ("step9", "used", 2),
        ("main", "used", 3),
    ]
    (duplicate,) = [row | {"status": "duplicate", "same_weights_as": "main"} for row in before if row["step"] == 5]
    assert declarations(entries, {}, [duplicate])[1]["status"] == "duplicate", "its weights are still another's"


def test_a_name_can_be_given_its_step(series):
    entries = read_series(series(pretraining={"main": 2, "step5": 1, "best": 3}), Reading(steps={"main": 3, "best": 9}))
    assert [(entry.name, entry.place.step) for entry in entries] == [("main", 3), ("step5", 5), ("best", 9)]


def test_a_step_for_a_name_that_no_checkpoint_has_is_refused(series):
    phases = series(pretraining={"main": 2, "step5": 1}, sft={"main": 3})
    assert len(read_series(phases, Reading(steps={"sft/main": 9}))) == 3
    with pytest.raises(UsageError, match="no checkpoint is named 'stf/main'; the closest is 'sft/main'"):
        read_series(phases, Reading(steps={"stf/main": 9}))
    with pytest.raises(UsageError, match="no checkpoint is named 'main'"):
        read_series(phases, Reading(steps={"main": 9}))
    left_out = Reading(steps={"sft/main": 9}, leave_out=("pretraining/main",))
    assert [entry.name for entry in read_series(phases, left_out)] == ["pretraining/step5", "sft/main"]


def test_a_renamed_checkpoint_counts_once(series):
    before = declarations(read_series(series(pretraining={"step1": 0, "step5": 1}), Reading()), {})
    (phase,) = series(later={"step1": 0, "step5-tokens2M": 1})
    entries = read_series([Phase("pretraining", phase.source)], Reading())
    merged = declarations(entries, {}, [row for row in before if row["name"] == "step5"])
    assert {row["name"]: (row["status"], row["same_weights_as"]) for row in merged} == {
        "step1": ("used", None),
        "step5": ("alias", "step5-tokens2M"),
        "step5-tokens2M": ("used", None),
    }
