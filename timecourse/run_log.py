"""What runs did, as JSON lines beside what they say to people: one file a month in the lake's `logs`."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from timecourse.lake import Lake

_LOGGER = logging.getLogger("timecourse.run")
_LOGGER.propagate = False


def log(event: str, **values: Any) -> None:
    """Write one line: the event with its values, the time, the process. Nothing where no log is open."""
    _LOGGER.info(event, extra=values)


@contextmanager
def run_log(lake: Lake, command: str) -> Iterator[None]:
    """Keep a log of a command in the lake, with how it ended. A log that cannot be written stops nothing."""
    handler: logging.Handler = logging.NullHandler()
    if lake.root.is_dir():
        with suppress(OSError):
            lake.logs.mkdir(exist_ok=True)
            handler = logging.FileHandler(lake.logs / f"{datetime.now(UTC):%Y-%m}.jsonl", encoding="utf-8")
    handler.setFormatter(
        JsonFormatter(
            "{asctime}{process}{levelname}{message}", style="{", rename_fields={"asctime": "time", "message": "event"}
        )
    )
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk is met where it matters
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.addHandler(handler)
    try:
        log("started", command=command)
        yield
    except BaseException as error:
        _LOGGER.error("failed", extra={"command": command, "reason": str(error)})
        raise
    finally:
        _LOGGER.removeHandler(handler)
        handler.close()
