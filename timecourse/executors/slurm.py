"""Jobs of Slurm: one array, submitted by submitit, which also queues a job again that was preempted or ran out of time.

Jobs outlive the process that submitted them. Their logs, and what submitit carries to them and back, lie in the lake's
`logs/slurm`; a file beside them says which job is on which checkpoint.
"""

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from timecourse.config import ExecutorSettings
from timecourse.errors import MachineError, UsageError
from timecourse.executors import Lost, T, Task, TaskT
from timecourse.lake import Lake

TIMEOUT_MINUTES = 240
"""What a job asks for where [executor.slurm] says no timeout_min; submitit's own five are little for a checkpoint."""


class SlurmExecutor:
    """One job of an array for each task."""

    def __init__(self, settings: ExecutorSettings, lake: Lake) -> None:
        self.settings = settings
        self.lake = lake

    def run(self, function: Callable[[TaskT], T], tasks: Sequence[TaskT]) -> Iterator[tuple[TaskT, T | Lost]]:
        """See Executor.run. Raises MachineError where there is no Slurm here, UsageError for an unknown parameter."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError, UncompletedJobError
        from submitit.helpers import as_completed

        logging.getLogger("submitit").setLevel(logging.ERROR)  # it warns whenever Slurm does not answer at once
        folder = self.lake.logs / "slurm"
        try:
            jobs = self._executor(str(folder.resolve())).map_array(_Again(function), tasks)
        except FailedSubmissionError as error:
            raise MachineError(f"Slurm refuses the job: {_last_line(error)}") from error
        _remember(self.lake, jobs, tasks)
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

    def _executor(self, folder: str) -> Any:
        import submitit

        parameters = dict(self.settings.slurm)
        shared: dict[str, Any] = {"name": "timecourse", "stderr_to_stdout": True, "timeout_min": TIMEOUT_MINUTES}
        if self.settings.gpus_per_task is not None:
            shared["gpus_per_node"] = int(self.settings.gpus_per_task)
        if self.settings.workers is not None:
            shared["slurm_array_parallelism"] = self.settings.workers
        own = {name: parameters.pop(name) for name in ("slurm_max_num_timeout", "slurm_python") if name in parameters}
        try:
            executor = submitit.AutoExecutor(folder, cluster=str(parameters.pop("cluster", "slurm")), **own)
            executor.update_parameters(**shared | parameters)
        except RuntimeError as error:
            raise MachineError(f"--executor slurm: {error}") from error
        except (NameError, TypeError, ValueError) as error:
            raise UsageError(f"[executor.slurm]: {' '.join(str(error).split())}") from error
        return executor


@dataclass(frozen=True)
class _Again:
    """A function of a task that submitit may queue again: it is then called as it was the first time."""

    function: Callable[[Any], Any]

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


def _remember(lake: Lake, jobs: Sequence[Any], tasks: Sequence[Task]) -> None:
    """Write down which job is on what, and where its log is."""
    submitted = {
        "submitted_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "jobs": [
            {"job": job.job_id, "label": task.label, "log": job.paths.stdout.name}
            for job, task in zip(jobs, tasks, strict=True)
        ],
    }
    path = lake.logs / "slurm" / f"{jobs[0].job_id.split('_')[0]}.json"
    path.write_text(json.dumps(submitted, indent=1, ensure_ascii=False), encoding="utf-8")


def last_submission(lake: Lake) -> list[str]:
    """The jobs that were submitted last, a line each: on what, whether that was committed since, the log."""
    folder = lake.logs / "slurm"
    committed = {commit.checkpoint_id: commit.content["committed_at"] for commit in lake.readable_commits()[0]}
    files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    if not files:
        return []
    with suppress(OSError, ValueError, KeyError, TypeError):  # only words
        submitted = json.loads(files[-1].read_text(encoding="utf-8"))
        at = submitted["submitted_at"]
        return [f"submitted to Slurm at {at}, logs in {folder}:"] + [
            f"  job {job['job']}  {job['label']}  "
            f"{'committed' if committed.get(job['label'], '') >= at else 'not committed'}  {job['log']}"
            for job in submitted["jobs"]
        ]
    return []


def _last_line(error: BaseException) -> str:
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
