"""Tasks of a Ray cluster that is there already; Ray places them, and tries again what died with a worker or a node."""

import logging
import socket
from collections.abc import Callable, Iterator, Sequence

from timecourse.config import ExecutorSettings
from timecourse.errors import MachineError
from timecourse.executors import Lost, T, TaskT


class RayExecutor:
    """One Ray task for each task. They end with the process that started them."""

    def __init__(self, settings: ExecutorSettings) -> None:
        self.settings = settings

    def run(self, function: Callable[[TaskT], T], tasks: Sequence[TaskT]) -> Iterator[tuple[TaskT, T | Lost]]:
        """See Executor.run. Raises MachineError where there is no cluster."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            _reach(self.settings.address)
            ray.init(self.settings.address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            raise MachineError(
                f"no Ray cluster at {self.settings.address!r}: {' '.join(str(error).split())[:300]}; start one with "
                "`ray start --head`, or set executor.address"
            ) from error
        try:
            gpus = self.settings.gpus_per_task
            if gpus is None:
                gpus = min(1, ray.cluster_resources().get("GPU", 0))
            remote = ray.remote(num_cpus=1, num_gpus=gpus)(_call)
            waiting = {remote.remote(function, task): task for task in tasks}
            while waiting:
                for done in ray.wait(list(waiting))[0]:
                    task = waiting.pop(done)
                    try:
                        yield task, ray.get(done)
                    except RayTaskError:
                        raise
                    except RayError as error:
                        yield (
                            task,
                            Lost(f"{task.label}: Ray lost it ({type(error).__name__}); the next run tries again"),
                        )
        finally:
            ray.shutdown()


def _reach(address: str) -> None:
    """Raise OSError where nothing listens at host:port; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in address:
        socket.create_connection((host, int(port)), timeout=10).close()


def _call(function: Callable[[TaskT], T], task: TaskT) -> T:
    return function(task)
