"""`refresh` killed at one step of each kind, run after run in one lake; `make crash-test` kills at every step."""

import signal

from tests.crash.child import Fault, start
from tests.crash.kills import heal, reader_problems, said
from tests.crash.lakes import differences, leftovers, read_json
from tests.crash.reader import reading

STEPS = {
    "while raw tables are written": r"^pyarrow\.write_table \.incoming/<id>/<table>\.parquet .* #2$",
    "before an extraction is moved": r"^os\.rename \.incoming/<id> -> raw/",
    "while a commit is written": r"^torn open .*/\.?<checkpoint>\.json",
    "before a commit counts": r"^os\.rename .* -> commits/",
    "before the build": r"^duckdb\.connect build/.* in _write_inputs",
    "before the release is moved": r"^os\.rename .* -> releases/",
    "before it is the current one": r"^os\.rename .* -> current ",
    "while what no commit names is removed": r"^os\.remove raw/.*\.parquet",
}
"""Where a run is killed, and at which step. In the order of a run: each one goes on where the last one was killed, so
that hardly anything is done twice; what the last step removes, the third one left behind."""


LEFT_TO_THE_CRASH_TEST = (
    "while raw tables are written",
    "before an extraction is moved",
    "before a commit counts",
    "before the release is moved",
)
"""Stages whose neighbours are killed here too."""


def test_a_refresh_killed_at_every_stage_ends_as_if_it_had_not_been(lakes, tmp_path):
    lake = lakes.copy(lakes.before("first"), tmp_path / "lake")
    committed: set[str] = set()
    with reading(lake) as seen:
        for number, (when, step) in enumerate(STEPS.items()):
            if when in LEFT_TO_THE_CRASH_TEST:
                continue
            child = start(["refresh", *lakes.flags("first", lake)], tmp_path / str(number), fault=Fault(step))
            child.join()
            assert child.exitcode == -signal.SIGKILL, f"not killed {when}: {said(tmp_path / str(number))}"
            now = {read_json(file)["extraction_id"] for file in lake.glob("commits/*/[!.]*.json")}
            assert committed <= now, f"lost {when}"
            assert not [problem for problem in leftovers(lake) if "not as committed" in problem], when
            committed = now
        assert heal(lakes, "first", lake, tmp_path / "healed") == []
    assert differences(lake, lakes.after("first")) == []
    assert reader_problems(seen) == []
