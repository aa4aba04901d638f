"""A driver of two workers that do nothing for long: `python -m tests.executors.sleeping FOLDER`; see test_local.py."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from timecourse.executors.local import LocalExecutor


@dataclass(frozen=True)
class Sleep:
    """A task that writes its process's number into a file and sleeps."""

    label: str
    folder: str


def sleep(task: Sleep) -> None:
    beside = Path(task.folder) / f"{task.label}.new"
    beside.write_text(str(os.getpid()))
    beside.rename(beside.with_suffix(".process"))
    time.sleep(3600)


if __name__ == "__main__":
    from tests.executors.sleeping import Sleep, sleep  # as the workers know them

    os.environ["CUDA_VISIBLE_DEVICES"] = "0,1"
    list(LocalExecutor(2).run(sleep, [Sleep(label, sys.argv[1]) for label in "abc"]))
