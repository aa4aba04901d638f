"""What commands share: their flags, which setting each flag lays over the settings file, and where they print."""

import inspect
from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from timecourse.config import Settings
    from timecourse.lake import Lake

app = typer.Typer(
    help="How knowledge forms inside language models while they are trained.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


class OutputFormat(StrEnum):
    """How rows are printed."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


Format = Annotated[OutputFormat, typer.Option("--format", help="How rows are printed.")]
Output = Annotated[Path | None, typer.Option(help="File to write to.")]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", help="Extract only this checkpoint, also where it was set aside; may be said again."),
]
Full = Annotated[bool, typer.Option("--full", help="Extract every checkpoint and build everything anew.")]

_FLAGS: dict[str, Any] = {
    "settings": Annotated[
        Path | None, typer.Option("--settings", help="Settings file; timecourse.toml here by default.")
    ],
    "checkpoints": Annotated[
        str | None, typer.Option(help="Directory of checkpoints, one subdirectory each, or hf://owner/name.")
    ],
    "from_checkpoints": Annotated[
        str | None, typer.Option("--from", help="Where the series is: what refresh is given as --checkpoints.")
    ],
    "series": Annotated[
        str | None, typer.Option("--series", help="Name of the series; the directory's by default.")
    ],
    "complete": Annotated[
        bool | None, typer.Option("--complete/--growing", help="Whether the series has its last checkpoint.")
    ],
    "facts": Annotated[
        Path | None, typer.Option("--facts", help="Directory of relations (LRE JSON files).")
    ],
    "relation": Annotated[
        list[str] | None, typer.Option("--relation", help="Only this relation; may be said again.")
    ],
    "tau": Annotated[list[str] | None, typer.Option(help="Route threshold: a number or 5x; may be said again.")],
    "norm": Annotated[str | None, typer.Option(help="Norm of proximities: l1 or l2.")],
    "dtype": Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")],
    "attention": Annotated[str | None, typer.Option(help="The library's attention: eager or sdpa.")],
    "theta": Annotated[str | None, typer.Option(help="Role threshold on activity rates.")],
    "device": Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...; split: over all GPUs.")],
    "batch_size": Annotated[int | None, typer.Option(help="Prompts per forward pass; as many as fit by default.")],
    "threads": Annotated[int | None, typer.Option(help="CPU threads of the model; 0 chooses by the model's size.")],
    "executor": Annotated[str | None, typer.Option(help="Where checkpoints are worked on: local, slurm or ray.")],
    "workers": Annotated[int | None, typer.Option(help="How many at once; local: processes, by default one per GPU.")],
    "memory_gb": Annotated[float | None, typer.Option("--memory-gb", help="Gigabytes that a model may take.")],
    "lake": Annotated[Path | None, typer.Option("--lake", help="Directory of the lake.")],
    "assignments": Annotated[
        list[str] | None, typer.Option("--set", help="Any setting: section.key=value; may be said again.")
    ],
}  # fmt: skip

IN_LAKE = ("settings", "lake")
"""Flags of commands that only look at a lake."""
OF_SERIES = ("settings", "checkpoints", "series", "lake", "assignments")
"""Flags of commands that only look at what a series offers."""
MEASURING = (
    "settings", "checkpoints", "series", "complete", "facts", "relation", "tau", "norm", "dtype", "attention", "theta",
    "device", "batch_size", "threads", "memory_gb", "executor", "workers", "lake", "assignments",
)  # fmt: skip
"""Flags of commands that extract."""

_SETTINGS = {
    "checkpoints": ("series", "checkpoints"),
    "from_checkpoints": ("series", "checkpoints"),
    "series": ("series", "name"),
    "complete": ("series", "complete"),
    "facts": ("facts", "directory"),
    "relation": ("facts", "relations"),
    "tau": ("measurement", "tau"),
    "norm": ("measurement", "norm"),
    "dtype": ("measurement", "dtype"),
    "attention": ("measurement", "attention"),
    "theta": ("roles", "theta"),
    "device": ("machine", "device"),
    "batch_size": ("machine", "batch_size"),
    "threads": ("machine", "threads"),
    "executor": ("executor", "name"),
    "workers": ("executor", "workers"),
    "memory_gb": ("machine", "memory_gb"),
    "lake": ("lake", "directory"),
    "ablated": ("ablation", "checkpoints"),
    "roles": ("ablation", "roles"),
    "methods": ("ablation", "methods"),
    "random_sets": ("ablation", "random_sets"),
}
"""Which setting each flag overrides: (section, key)."""

_Command = Callable[..., None]


def takes(*flags: str) -> Callable[[_Command], _Command]:
    """Give a command these flags beside its own; it reads them through `settings_of` and `lake_of`."""

    def decorate(command: _Command) -> _Command:
        own = inspect.signature(command, eval_str=True)

        @wraps(command)
        def with_flags(**values: Any) -> None:
            command(**{name: value for name, value in values.items() if name in own.parameters})

        keyword = inspect.Parameter.KEYWORD_ONLY
        shared = [inspect.Parameter(flag, keyword, default=None, annotation=_FLAGS[flag]) for flag in flags]
        parameters = [one.replace(kind=keyword) for one in own.parameters.values()] + shared
        with_flags.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        return with_flags

    return decorate


def settings_of(context: typer.Context) -> "Settings":
    """The settings file with this command's flags laid over it."""
    from timecourse.config import load_settings

    file = context.params["settings"]
    flags = {_SETTINGS[name]: value for name, value in context.params.items() if name in _SETTINGS}
    for name in ("ablated", "roles", "methods"):
        if context.params.get(name) is not None:
            flags[_SETTINGS[name]] = [one.strip() for one in context.params[name].split(",")]
    return load_settings(None if file is None else Path(file), flags, context.params.get("assignments") or ())


def lake_of(context: typer.Context) -> "Lake":
    """The lake that this command is about."""
    from timecourse.lake import Lake

    return Lake(settings_of(context).lake.directory)
