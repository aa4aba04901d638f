"""`refresh` killed at one step of each kind, run after run in one lake; `make crash-test` kills at every step."""

import re
import signal

from tests.crash.child import Fault, start
from tests.crash.kills import heal, reader_problems, said
from tests.crash.lakes import differences, lost, release_problems
from tests.crash.reader import reading

STEPS = {
    "while raw tables are written": r"pyarrow\.write_table \.incoming/<id>/<table>\.parquet .* #2$",
    "before the extraction is moved": r"os\.rename \.incoming/<id> -> raw/",
    "while the commit is written": r"torn open commits/",
    "before the commit counts": r"os\.rename commits/.* -> commits/",
    "before the build": r"duckdb\.connect build/",
    "while release.json is written": r"torn open .*/release\.json",
    "before the release is moved": r"os\.rename \.incoming/<id> -> releases/",
    "before it is the current one": r"os\.rename .* -> current ",
    "while what is withdrawn is removed": r"os\.remove raw/.*\.parquet",
}
"""Where a run is killed -> what the step's name holds. In the order of a run: each run goes on where the last one was
killed, so that nothing is done twice."""


def test_a_refresh_killed_at_every_stage_ends_as_if_it_had_not_been(lakes, tmp_path):
    lake = lakes.copy(lakes.before("next"), tmp_path / "lake")
    arguments = ["refresh", *lakes.flags("next", lake)]
    with reading(lake) as seen:
        for number, (when, pattern) in enumerate(STEPS.items()):
            step = next((step for step in lakes.steps("next") if re.search(pattern, step)), None)
            assert step is not None, f"no step is {when}"
            child = start(arguments, tmp_path / str(number), fault=Fault(step))
            child.join()
            assert child.exitcode == -signal.SIGKILL, f"{when}: {said(tmp_path / str(number))}"
            assert lost(lake, lakes.before("next"), lakes.after("next")) == [], when
            assert release_problems((lake / "current").resolve()) == [], when
        assert heal(lakes, "next", lake, tmp_path / "healed") == []
    assert differences(lake, lakes.after("next")) == []
    assert reader_problems(seen) == []
    assert len(seen.releases) == 2
