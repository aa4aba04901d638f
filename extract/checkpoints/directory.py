"""A local directory as a source: one subdirectory per checkpoint, each an ordinary Hugging Face checkpoint."""

from functools import cache
from pathlib import Path

from timecourse.errors import UserError
from timecourse.extract.checkpoints.checkpoint import Checkpoint, describe
from timecourse.extract.checkpoints.hashes import sha256_of
from timecourse.extract.checkpoints.names import Place, order, parse_name


class DirectorySource:
    """The subdirectories of a directory; hidden ones are none. Nothing is fetched and nothing evicted."""

    every_name_counts = True

    def __init__(self, root: Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def names(self) -> list[str]:
        """The subdirectories' names, sorted. Raises UserError where there is none."""
        if not self.root.is_dir():
            raise UserError(f"the checkpoints directory {str(self.root)!r} does not exist")
        if (self.root / "config.json").is_file():
            raise UserError(f"{str(self.root)!r} is itself one checkpoint; name the directory that holds the series")
        names = sorted(path.name for path in self.root.iterdir() if path.is_dir() and not path.name.startswith("."))
        if not names:
            raise UserError(f"the checkpoints directory {str(self.root)!r} holds no checkpoint (one subdirectory each)")
        return names

    def open(self, name: str, called: str, place: Place) -> Checkpoint:
        """See Source.open."""
        folder = self.root / name
        sizes = {file.name: file.stat().st_size for file in folder.iterdir() if file.is_file()}
        checkpoint = describe(called, place, folder, sizes, cache(lambda name: sha256_of(folder / name)))
        checkpoint.check_headers()
        return checkpoint

    def fetch(self, checkpoint: Checkpoint) -> None:
        """Nothing to do: the weights lie there."""

    def evict(self, checkpoint: Checkpoint) -> None:
        """Nothing to do: the files are the user's own."""


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
