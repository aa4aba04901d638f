"""The largest of some numbers while something runs, such as the memory that this process takes."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Numbers = dict[str, int]


@contextmanager
def largest(look: Callable[[], Numbers], every: float) -> Iterator[Numbers]:
    """The largest of each number that `look` has given so far, which a thread of its own asks every so many seconds."""
    found: Numbers = {}
    done = threading.Event()

    def watch() -> None:
        while True:
            for name, number in look().items():
                found[name] = max(found.get(name, 0), number)
            if done.wait(every):
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def memory() -> Numbers:
    """Bytes that this process takes now: its own, and with the files that it maps (weights), which the system may drop.

    Linux only. A peak kept by the system (ru_maxrss) would count mapped files, and begin with the parent's.
    """
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return {name: int(status[key].split()[0]) * 1024 for name, key in (("own", "RssAnon"), ("with_files", "VmRSS"))}
