"""Processes of this machine, one for each GPU."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import SimpleQueue

from timecourse.config import Settings
from timecourse.executors import Lost, T, TaskT

_SPAWN = get_context("spawn")  # CUDA does not survive a fork


def worker_count(settings: Settings) -> int:
    """As many processes as are set; else one for each GPU that the device leaves to choose from."""
    if settings.executor.workers is not None:
        return settings.executor.workers
    if settings.machine.device not in ("auto", "cuda"):
        return 1
    from timecourse.extract.loading import gpu_count

    return max(1, gpu_count())


class LocalExecutor:
    """Each worker is a process of its own that sees one GPU, where there are any; they end with this process.

    A worker that dies loses its task only: the next task gets a new process.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(self, function: Callable[[TaskT], T], tasks: Sequence[TaskT]) -> Iterator[tuple[TaskT, T | Lost]]:
        """See Executor.run."""
        places: SimpleQueue[_Worker] = SimpleQueue()
        threads = max(1, (os.cpu_count() or 1) // self.workers)
        workers = [_Worker(gpu, threads) for gpu in _gpus(self.workers)]
        for worker in workers:
            places.put(worker)

        def call(task: TaskT) -> T | Lost:
            worker = places.get()  # there is one for each thread
            try:
                return worker.call(function, task)
            finally:
                places.put(worker)

        with ThreadPoolExecutor(self.workers) as pool:
            futures = {pool.submit(call, task): task for task in tasks}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
                for worker in workers:
                    worker.close(wait=True)
            finally:
                for future in futures:
                    future.cancel()
                for worker in workers:
                    worker.close(wait=False)


class _Worker:
    """A place for one process at a time. gpu: what CUDA_VISIBLE_DEVICES says there; threads: of torch."""

    def __init__(self, gpu: str | None, threads: int) -> None:
        self._begin = (gpu, threads)
        self._lock = threading.Lock()
        self._is_closed = False
        self._process: ProcessPoolExecutor | None = None
        self._lifeline: Connection | None = None

    def call(self, function: Callable[[TaskT], T], task: TaskT) -> T | Lost:
        """What the function says of the task, in the process that is here, or in a new one."""
        try:
            with self._lock:
                if self._is_closed:
                    return Lost(f"{task.label}: not begun")
                if self._process is None:
                    end, self._lifeline = _SPAWN.Pipe(duplex=False)
                    self._process = ProcessPoolExecutor(1, _SPAWN, _begin, (end, *self._begin))
                future = self._process.submit(function, task)
            return future.result()
        except BrokenProcessPool:
            self._end(wait=False)
            return Lost(
                f"{task.label}: the process that was at work on it died, perhaps for want of memory; "
                "the next run tries again"
            )

    def close(self, *, wait: bool) -> None:
        """End the process: once it has done what it is doing, or now, letting go of its claims."""
        self._is_closed = True
        self._end(wait)

    def _end(self, wait: bool) -> None:
        with self._lock:
            if self._lifeline is not None and not wait:
                self._lifeline.close()
            if self._process is not None:
                self._process.shutdown(wait=wait, cancel_futures=True)
            if self._lifeline is not None:
                self._lifeline.close()
            self._process = self._lifeline = None


def _gpus(workers: int) -> list[str | None]:
    """What each worker sees of the GPUs: one each, in turn; None where there are none."""
    gpus = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
    if not gpus:
        from timecourse.extract.loading import gpu_count

        gpus = [str(index) for index in range(gpu_count())]
    return [gpus[index % len(gpus)] if gpus else None for index in range(workers)]


def _begin(lifeline: Connection, gpu: str | None, threads: int) -> None:
    """What a worker does first. It ends when its driver is gone, or lets go of the other end of the lifeline."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's: it ends its workers
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # read when torch is imported, which it is not yet
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu

    def watch() -> None:
        lifeline.poll(None)  # nothing is ever sent: this returns when the other end is closed
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
