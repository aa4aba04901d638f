"""Where the work on checkpoints is done: in processes of this machine, in jobs of Slurm, or in tasks of a Ray cluster.

One task is one checkpoint (or a part of one), and is called wherever an executor puts it. Tasks meet in the lake, where
each claims its checkpoint and commits it, so that an executor carries nothing but a task there and its answer back.
Queues, retries and the placing of tasks are the executor's own.
"""

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from timecourse.config import Settings
from timecourse.errors import MachineError, UserError
from timecourse.lake import Lake

PACKAGES = {"slurm": "submitit", "ray": "ray"}
"""What an executor needs that is installed only with the extra of its name."""


class Task(Protocol):
    """What is carried to where the work is done; it can be pickled. label: the checkpoint, in words."""

    @property
    def label(self) -> str: ...


TaskT = TypeVar("TaskT", bound=Task)
T = TypeVar("T")


@dataclass(frozen=True)
class Lost:
    """The answer of a task that gave none: its process ended before it did. `reason`: how, and where its log is."""

    reason: str


class Executor(Protocol):
    """Calls a module's function on every task, and gives back each answer as it comes."""

    def run(self, function: Callable[[TaskT], T], tasks: Sequence[TaskT]) -> Iterator[tuple[TaskT, T | Lost]]:
        """Every task with its answer, in the order in which they end. Raises what the function raised."""


def refuse_unusable(settings: Settings) -> None:
    """Say before anything is written that the executor cannot be used.

    Raises MachineError where its package is not installed or Slurm is not here, UsageError for settings of
    [executor.slurm] by which no job can be submitted.
    """
    name = settings.executor.name
    if name in PACKAGES and importlib.util.find_spec(PACKAGES[name]) is None:
        raise MachineError(
            f"--executor {name} needs the package {PACKAGES[name]}, which is not installed: "
            f"pip install 'timecourse[{name}]'"
        )
    if name == "slurm":
        from timecourse.executors.slurm import SlurmExecutor

        SlurmExecutor(settings.executor, Lake(settings.lake.directory)).check()


def executor_of(settings: Settings, lake: Lake, task_count: int) -> Executor | None:
    """The executor that is set; None for this very process: one task at a time, on at most one GPU."""
    match settings.executor.name:
        case "slurm":
            from timecourse.executors.slurm import SlurmExecutor

            return SlurmExecutor(settings.executor, lake)
        case "ray":
            from timecourse.executors.ray import RayExecutor

            return RayExecutor(settings.executor)
    from timecourse.executors.local import LocalExecutor, worker_count

    workers = min(worker_count(settings), task_count)
    return LocalExecutor(workers) if workers > 1 else None


def answered(
    executor: Executor, function: Callable[[TaskT], T], tasks: Sequence[TaskT]
) -> Iterator[tuple[TaskT, T | Lost]]:
    """Every task with its answer. Raises the first UserError or OSError that a task met: it then says nothing about a
    checkpoint, and would be met by the other tasks as well."""
    for task, answer in executor.run(_Caught(function, sys.argv[1:2]), tasks):
        if isinstance(answer, UserError | OSError):
            raise answer
        yield task, answer


@dataclass(frozen=True)
class _Caught:
    """A function that returns the errors which a user can mend: every executor passes on values, few pass on errors.

    command: of timecourse, as claims then say of who holds them.
    """

    function: Callable[[Any], Any]
    command: list[str]

    def __call__(self, task: Any) -> Any:
        sys.argv[1:] = self.command
        try:
            return self.function(task)
        except (UserError, OSError) as error:
            return error
