"""A local directory as a source: one subdirectory per checkpoint, each an ordinary Hugging Face checkpoint."""

import re
from functools import cache
from pathlib import Path

from timecourse.errors import ChangedError, UserError
from timecourse.extract.checkpoints.checkpoint import Checkpoint, describe, refusing_what_is_gone
from timecourse.extract.checkpoints.hashes import sha256_of
from timecourse.extract.checkpoints.names import Place, order, parse_name


class DirectorySource:
    """The subdirectories of a directory; hidden ones are none. Nothing is fetched and nothing evicted."""

    every_name_counts = True

    def __init__(self, root: Path) -> None:
        self.root = root
        self._marks: dict[str, _Marks] = {}

    def __str__(self) -> str:
        return str(self.root)

    def names(self) -> list[str]:
        """The subdirectories' names, sorted. Raises UserError where there is none, or one that cannot be shown."""
        if not self.root.is_dir():
            raise UserError(f"the checkpoints directory {str(self.root)!r} does not exist")
        if (self.root / "config.json").is_file():
            raise UserError(f"{str(self.root)!r} is itself one checkpoint; name the directory that holds the series")
        names = sorted(path.name for path in self.root.iterdir() if path.is_dir() and not path.name.startswith("."))
        if not names:
            raise UserError(f"the checkpoints directory {str(self.root)!r} holds no checkpoint (one subdirectory each)")
        for name in names:
            if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", name):
                raise UserError(f"the name of checkpoint {name!r} holds control characters or is not UTF-8; rename it")
        return names

    def open(self, name: str, called: str, place: Place) -> Checkpoint:
        """See Source.open."""
        folder = self.root / name

        @cache
        def hashed(name: str) -> str:
            with refusing_what_is_gone(called, folder):
                return sha256_of(folder / name)

        self._marks[called] = _marks(folder)  # before anything is read
        with refusing_what_is_gone(called, folder):
            sizes = {file.name: file.stat().st_size for file in folder.iterdir() if file.is_file()}
            checkpoint = describe(called, place, folder, sizes, hashed)
        checkpoint.check_headers()
        return checkpoint

    def fetch(self, checkpoint: Checkpoint) -> None:
        """Nothing to do: the weights lie there."""

    def check_unchanged(self, checkpoint: Checkpoint) -> None:
        """See Source.check_unchanged."""
        if _marks(checkpoint.folder) != self._marks[checkpoint.name]:
            raise ChangedError(
                f"checkpoint {checkpoint.name!r} was changed while it was read; the next refresh takes it as it is then"
            )

    def evict(self, checkpoint: Checkpoint) -> None:
        """Nothing to do: the files are the user's own."""


_Marks = dict[str, tuple[int, int, int]]
"""What tells a file from another that was put in its place: size, time of the last change, inode."""


def _marks(folder: Path) -> _Marks:
    try:
        stats = {file.name: file.stat() for file in folder.iterdir() if file.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {name: (stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in stats.items()}


def find_checkpoints(directory: Path) -> list[Checkpoint]:
    """The checkpoints of a directory, read by the table of names, in the order of training.

    Raises UserError for the first one that cannot be used.
    """
    source = DirectorySource(directory)
    places: dict[str, Place] = {}
    for name in source.names():
        place = parse_name(name)
        if place is None:
            raise UserError(unreadable_name(name))
        places[name] = place
    return [source.open(name, name, places[name]) for name in order(places)]


def unreadable_name(name: str) -> str:
    """What to say of a name that does not tell when in training the checkpoint was taken."""
    return (
        f"the name of checkpoint {name!r} does not say its training step; "
        "name it like step1000, step1000-tokens4B, checkpoint-1000 or main"
    )
