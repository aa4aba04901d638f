"""Jobs of Slurm: one array, submitted by submitit, which also queues a job again that was preempted or ran out of time.

Jobs outlive the process that submitted them. Their logs, and what submitit carries to them and back, lie in the lake's
`logs/slurm`; a file beside them says which job is on which checkpoint.
"""

import io
import json
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any
from uuid import uuid4

from timecourse.config import ExecutorSettings
from timecourse.errors import Interrupted, MachineError, UsageError
from timecourse.executors import Lost, T, Task, TaskT
from timecourse.lake import Lake

TIMEOUT_MINUTES = 240
"""What a job asks for where [executor.slurm] says no timeout_min; submitit's own five are little for a checkpoint."""

_TYPES = {"slurm_python": str, "slurm_max_num_timeout": int, "slurm_array_parallelism": int}
"""Parameters that submitit uses itself, and looks at only when it submits."""


class SlurmExecutor:
    """One job of an array for each task."""

    def __init__(self, settings: ExecutorSettings, lake: Lake) -> None:
        self.settings = settings
        self.lake = lake

    def run(self, function: Callable[[TaskT], T], tasks: Sequence[TaskT]) -> Iterator[tuple[TaskT, T | Lost]]:
        """See Executor.run. Raises MachineError where Slurm refuses the jobs, and what `check` raises; Interrupted on
        Ctrl-C once they are submitted."""
        from submitit import SlurmJob
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        logging.getLogger("submitit").setLevel(logging.ERROR)  # it warns whenever Slurm does not answer at once
        folder = self._folder()
        executor, call = self._executor(folder), _Again(function)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with redirect_stderr(io.StringIO()):  # submitit prints there what the error says as well
                jobs = executor.map_array(call, tasks)
        except (FailedJobError, FailedSubmissionError) as error:
            _remove_refused(folder, call, error)
            raise MachineError(_refusal(str(error))) from error
        _remember(self.lake, jobs, tasks)
        try:
            yield from _answers(jobs, tasks)
        except KeyboardInterrupt as error:
            if not isinstance(jobs[0], SlurmJob):
                raise
            ends = f"`scancel {_number(jobs)}` ends them"
            raise Interrupted(f"interrupted; the Slurm jobs go on and commit; {ends}") from error

    def check(self) -> None:
        """What can be said before anything is written.

        Raises MachineError where there is no Slurm here, UsageError for settings by which no job can be submitted.
        """
        self._folder()
        self._executor(Path(tempfile.gettempdir()))  # submitit's local executor makes the folder that it is given

    def _folder(self) -> Path:
        folder = self.lake.logs.absolute() / "slurm"
        if "%" in str(folder):
            raise UsageError(f"Slurm takes % in {str(folder)!r} for a pattern; put the lake where its path has none")
        return folder

    def _executor(self, folder: Path) -> Any:
        import submitit

        parameters = dict(self.settings.slurm)
        for name, value in parameters.items():
            if name in _TYPES and type(value) is not _TYPES[name]:
                raise UsageError(f"[executor.slurm]: {name} must be {_TYPES[name].__name__}, not {value!r}")
            if name.removeprefix("slurm_") in ("nodes", "tasks_per_node", "ntasks_per_node") and value != 1:
                raise UsageError(f"[executor.slurm]: {name} = {value!r}, but a task is one process; leave {name} out")
        shared: dict[str, Any] = {"name": "timecourse", "stderr_to_stdout": True, "timeout_min": TIMEOUT_MINUTES}
        if (gpus := self.settings.gpus_per_task) is not None:
            if not gpus.is_integer():
                raise UsageError(f"executor.gpus_per_task = {gpus}: only ray shares a GPU; slurm needs a whole number")
            shared["gpus_per_node"] = int(gpus)
        if self.settings.workers is not None:
            shared["slurm_array_parallelism"] = self.settings.workers
        own = {name: parameters.pop(name) for name in ("slurm_max_num_timeout", "slurm_python") if name in parameters}
        try:
            executor = submitit.AutoExecutor(folder, cluster=str(parameters.pop("cluster", "slurm")), **own)
            executor.update_parameters(**shared | parameters)
        except RuntimeError as error:
            raise MachineError(f"--executor slurm: {error}") from error
        except (ArithmeticError, AssertionError, NameError, TypeError, ValueError) as error:
            raise UsageError(f"[executor.slurm]: {' '.join(str(error).split())}") from error
        return executor


@dataclass(frozen=True)
class _Again:
    """A function of a task that submitit may queue again: it is then called as it was the first time.

    mark: by which the files that submitit writes for one run are known.
    """

    function: Callable[[Any], Any]
    mark: str = field(default_factory=lambda: uuid4().hex)

    def __call__(self, task: Any) -> Any:
        """The function's answer, from a thread of its own.

        On a signal submitit raises errors in the main thread, wherever that is: a library would take them for errors of
        the file that it reads, and we for the checkpoint's. Here they end the process, and the thread with it.
        """
        answer: Future[Any] = Future()

        def work() -> None:
            try:
                answer.set_result(self.function(task))
            except BaseException as error:
                answer.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        try:
            return answer.result()
        except SystemExit as leaving:  # at once: C++ that the thread is in would abort where the interpreter ends
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(leaving.code or 0) & 0xFF)

    def checkpoint(self, task: Any) -> Any:
        """What submitit calls where Slurm preempts a job, or its time runs out."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, task)


def _answers(jobs: Sequence[Any], tasks: Sequence[TaskT]) -> Iterator[tuple[TaskT, Any]]:
    from submitit.core.utils import FailedJobError, UncompletedJobError
    from submitit.helpers import as_completed

    task_of = dict(zip((job.job_id for job in jobs), tasks, strict=True))
    for job in as_completed(jobs, poll_frequency=2):
        task, log = task_of[job.job_id], job.paths.stdout
        try:
            answer = job.result()
        except FailedJobError:  # an error that is no user's; out of time for the last time
            yield task, Lost(f"{task.label}: its Slurm job {job.job_id} failed; its log: {log}")
        except UncompletedJobError:
            yield task, Lost(f"{task.label}: its Slurm job {job.job_id} ended ({job.state}); its log: {log}")
        else:
            for carried in (job.paths.submitted_pickle, job.paths.result_pickle):
                carried.unlink(missing_ok=True)
            yield task, answer


def _remove_refused(folder: Path, call: _Again, error: Exception) -> None:
    """Remove what submitit wrote for jobs that were refused; other drivers may be submitting at the same time."""
    for pickled in folder.glob("*.pkl"):
        with suppress(FileNotFoundError):  # another driver's, which was submitted meanwhile
            if call.mark.encode() in pickled.read_bytes():
                pickled.unlink()
    if isinstance(error.__cause__, CalledProcessError):  # sbatch's: it was given a script
        Path(error.__cause__.cmd[-1]).unlink(missing_ok=True)


def _refusal(said: str) -> str:
    if "array" in said.lower():
        hint = "an array holds at most MaxArraySize tasks (scontrol show config): extract in turns, by [series.select]"
    else:
        hint = "change [executor.slurm], or run it again when Slurm answers"
    return f"Slurm refuses the jobs: {said or 'sbatch says nothing'}; {hint}"


def _remember(lake: Lake, jobs: Sequence[Any], tasks: Sequence[Task]) -> None:
    """Write down which job is on what, and where its log is."""
    submitted = {
        "submitted_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "jobs": [
            {"job": job.job_id, "label": task.label, "log": job.paths.stdout.name}
            for job, task in zip(jobs, tasks, strict=True)
        ],
    }
    path = lake.logs / "slurm" / f"{_number(jobs)}.json"
    path.write_text(json.dumps(submitted, indent=1, ensure_ascii=False), encoding="utf-8")


def _number(jobs: Sequence[Any]) -> str:
    """Slurm's number of a job, or of the array of several."""
    return str(jobs[0].job_id).split("_")[0]


def last_submission(lake: Lake) -> list[str]:
    """The jobs that were submitted last, a line each: on what, whether that was committed since, the log."""
    folder = lake.logs / "slurm"
    committed = {commit.checkpoint_id: commit.content["committed_at"] for commit in lake.readable_commits()[0]}
    with suppress(OSError, ValueError, KeyError, TypeError):  # only words
        files = sorted(filter(Path.is_file, folder.glob("*.json")), key=lambda path: path.stat().st_mtime)
        if not files:
            return []
        submitted = json.loads(files[-1].read_text(encoding="utf-8"))
        at = submitted["submitted_at"]
        return [f"submitted to Slurm at {at}, logs in {folder}:"] + [
            f"  job {job['job']}  {job['label']}  "
            f"{'committed' if committed.get(job['label'], '') >= at else 'not committed'}  {job['log']}"
            for job in submitted["jobs"]
        ]
    return []
