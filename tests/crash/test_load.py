"""Readers that query while releases are switched; for a few seconds; `make crash-test` does so for a minute."""

import pytest

from tests.crash.load import LONGEST_WAIT, under_load


@pytest.mark.slow
def test_readers_are_neither_disturbed_nor_kept_waiting(lakes, tmp_path):
    release = (lakes.after("first") / "current").resolve()
    alone, switching = under_load(release, tmp_path, seconds=5, readers=8, every=0.5)
    assert alone.problems == switching.problems == []
    assert len(switching.seconds) > 8
    assert switching.outlived > 0, "no release was removed while a reader had it open"
    assert max(switching.waited) < LONGEST_WAIT
