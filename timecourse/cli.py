"""The command line."""

import errno
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import duckdb
import typer
from rich.console import Console
from rich.markup import escape

from timecourse.errors import GateError, UsageError, UserError
from timecourse.telling import tell, tell_checks

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


class DemoFamily(StrEnum):
    """What the demo can pre-train, by the `model_type` of transformers."""

    olmo = "olmo"
    olmo2 = "olmo2"
    gpt_neox = "gpt_neox"


SettingsFile = Annotated[
    Path | None, typer.Option("--settings", help="Settings file; timecourse.toml here by default.")
]
Checkpoints = Annotated[
    str | None, typer.Option(help="Directory of checkpoints, one subdirectory each, or hf://owner/name.")
]
SeriesName = Annotated[str | None, typer.Option("--series", help="Name of the series; the directory's by default.")]
Complete = Annotated[
    bool | None, typer.Option("--complete/--growing", help="Whether the series has its last checkpoint.")
]
FactsDirectory = Annotated[Path | None, typer.Option("--facts", help="Directory of relations (LRE JSON files).")]
RelationNames = Annotated[list[str] | None, typer.Option("--relation", help="Only this relation; may be said again.")]
Tau = Annotated[list[str] | None, typer.Option(help="Route threshold: a number or 5x; may be said again.")]
Norm = Annotated[str | None, typer.Option(help="Norm of proximities: l1 or l2.")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")]
Attention = Annotated[str | None, typer.Option(help="The library's attention: eager or sdpa.")]
Theta = Annotated[str | None, typer.Option(help="Role threshold on activity rates.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...; split: over all GPUs.")]
BatchSize = Annotated[int | None, typer.Option(help="Prompts per forward pass.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads of the model; 0 chooses by the model's size.")]
LakeDirectory = Annotated[Path | None, typer.Option("--lake", help="Directory of the lake.")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", help="Any setting: section.key=value; may be said again.")
]
Format = Annotated[OutputFormat, typer.Option("--format", help="How rows are printed.")]
Output = Annotated[Path | None, typer.Option(help="File to write to.")]


_SETTINGS = {
    "checkpoints": ("series", "checkpoints"),
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
    "lake": ("lake", "directory"),
    "ablated": ("ablation", "checkpoints"),
    "roles": ("ablation", "roles"),
    "methods": ("ablation", "methods"),
    "random_sets": ("ablation", "random_sets"),
}
"""Which setting each flag overrides: (section, key)."""


def _settings(context: typer.Context) -> "Settings":
    """The settings file with this command's flags laid over it."""
    from timecourse.config import load_settings

    file = context.params["settings"]
    flags = {_SETTINGS[name]: value for name, value in context.params.items() if name in _SETTINGS}
    for name in ("ablated", "roles", "methods"):
        if context.params.get(name) is not None:
            flags[_SETTINGS[name]] = [one.strip() for one in context.params[name].split(",")]
    return load_settings(None if file is None else Path(file), flags, context.params.get("assignments") or ())


def _lake(context: typer.Context) -> "Lake":
    from timecourse.lake import Lake

    return Lake(_settings(context).lake.directory)


@app.command()
def demo(
    family: Annotated[
        DemoFamily, typer.Option(help="Architecture to pre-train; each becomes a series of the same lake.")
    ] = DemoFamily.olmo,
    small: Annotated[bool, typer.Option("--small", help="Fewer facts and training steps.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Draws the first weights; each seed is a series of one recipe.")] = 0,
    directory: Annotated[Path, typer.Option(help="Where checkpoints, facts and lake are written.")] = Path("demo"),
) -> None:
    """Pre-train a tiny OLMo, OLMo 2 or GPT-NeoX on real facts, and take its checkpoints the whole way to the report.

    At the first, the middle and the last one, roles are silenced as well (`timecourse ablate`); not with --small.
    """
    from timecourse.ablate import ablate as ablate_checkpoints
    from timecourse.config import Facts, Settings
    from timecourse.extract.checkpoints.tiny_model import ARCHITECTURES, is_pretrained, pretrain
    from timecourse.refresh import progress_bar, refresh

    run = family if seed == 0 else f"{family}-seed{seed}"
    checkpoints, facts, relations = directory / "checkpoints" / run, directory / "facts", Facts().directory
    if not is_pretrained(checkpoints, relations, facts, family=family, small=small, seed=seed):
        console.print(f"pre-training a tiny {ARCHITECTURES[family].title} on real facts")
        with progress_bar(console, "training steps") as at:
            pretrain(checkpoints, relations, facts, family=family, small=small, seed=seed, progress=at)
    settings = Settings.model_validate(
        {
            "series": {
                "checkpoints": str(checkpoints),
                "name": f"tiny-{run.replace('_', '-')}",
                "recipe": f"tiny-{family.replace('_', '-')}{'-small' if small else ''}",
                "complete": True,
            },
            "facts": {"directory": facts},
            "measurement": {"tau": "5x"},
            "ablation": {"methods": ["mean"]},
            "lake": {"directory": directory / "lake"},
        }
    )
    outcome = refresh(settings, console)
    if not small and (ablated := ablate_checkpoints(settings, console)):
        console.print(escape(f"ablated {', '.join(ablated)}"))
        outcome.release = refresh(settings, console, do_extract=False).release
    tell(outcome, console)


@app.command()
def findings(
    context: typer.Context,
    settings: SettingsFile = None,
    lake: LakeDirectory = None,
    output: Annotated[Path | None, typer.Option(help="Markdown file to write; printed without.")] = None,
) -> None:
    """Write what the current release says of the claims, series by series, as Markdown."""
    from timecourse.findings import write_findings

    text = write_findings(_lake(context).current_release())
    if output is None:
        console.print(text, markup=False, soft_wrap=True)
    else:
        output.write_text(text, encoding="utf-8")
        console.print(f"wrote {escape(str(output))}")


@app.command("refresh")
def refresh_command(
    context: typer.Context,
    settings: SettingsFile = None,
    checkpoints: Checkpoints = None,
    series: SeriesName = None,
    complete: Complete = None,
    facts: FactsDirectory = None,
    relation: RelationNames = None,
    tau: Tau = None,
    norm: Norm = None,
    dtype: Dtype = None,
    attention: Attention = None,
    theta: Theta = None,
    device: Device = None,
    batch_size: BatchSize = None,
    threads: Threads = None,
    lake: LakeDirectory = None,
    assignments: Assignments = None,
) -> None:
    """Extract what is new or changed, build, check and release; does nothing where nothing changed."""
    from timecourse.refresh import refresh

    tell(refresh(_settings(context), console), console)


@app.command()
def extract(
    context: typer.Context,
    settings: SettingsFile = None,
    checkpoints: Checkpoints = None,
    series: SeriesName = None,
    complete: Complete = None,
    facts: FactsDirectory = None,
    relation: RelationNames = None,
    tau: Tau = None,
    norm: Norm = None,
    dtype: Dtype = None,
    attention: Attention = None,
    device: Device = None,
    batch_size: BatchSize = None,
    threads: Threads = None,
    lake: LakeDirectory = None,
    assignments: Assignments = None,
) -> None:
    """Extract, check and commit the checkpoints that are new or changed; build nothing."""
    from timecourse.refresh import refresh

    tell(refresh(_settings(context), console, do_release=False), console)


@app.command()
def ablate(
    context: typer.Context,
    settings: SettingsFile = None,
    ablated: Annotated[
        str | None, typer.Option("--checkpoints", help="first, middle, last, all, or names; with commas between.")
    ] = None,
    roles: Annotated[str | None, typer.Option(help="Only these roles' sets; with commas between.")] = None,
    methods: Annotated[str | None, typer.Option(help="mean, resample, zero; with commas between.")] = None,
    random_sets: Annotated[int | None, typer.Option(help="Random sets beside each role's set; 20 or more.")] = None,
    checkpoints: Annotated[
        str | None, typer.Option("--from", help="Where the series is: what refresh is given as --checkpoints.")
    ] = None,
    series: SeriesName = None,
    facts: FactsDirectory = None,
    relation: RelationNames = None,
    tau: Tau = None,
    norm: Norm = None,
    dtype: Dtype = None,
    attention: Attention = None,
    theta: Theta = None,
    device: Device = None,
    batch_size: BatchSize = None,
    threads: Threads = None,
    lake: LakeDirectory = None,
    assignments: Assignments = None,
) -> None:
    """Silence roles' components at some extracted checkpoints, then build and release: do the roles matter?"""
    from timecourse.ablate import ablate
    from timecourse.refresh import refresh

    wanted = _settings(context)
    ablated_now = ablate(wanted, console)
    console.print(
        escape(f"ablated {', '.join(ablated_now)}" if ablated_now else "every checkpoint was ablated so before")
    )
    tell(refresh(wanted, console, do_extract=False), console)


@app.command("checkpoints")
def list_checkpoints(
    context: typer.Context,
    settings: SettingsFile = None,
    checkpoints: Checkpoints = None,
    series: SeriesName = None,
    lake: LakeDirectory = None,
    format: Format = OutputFormat.table,
    output: Output = None,
    assignments: Assignments = None,
) -> None:
    """What the series offers, in the order of training, and what is extracted; fetches no weights."""
    import polars

    from timecourse.plan import make_plan
    from timecourse.query import show

    wanted = _settings(context)
    rows = make_plan(wanted).rows(_lake(context).commits())
    show(polars.DataFrame(rows, infer_schema_length=None), format.value, output)


@app.command()
def build(
    context: typer.Context, settings: SettingsFile = None, theta: Theta = None, lake: LakeDirectory = None
) -> None:
    """Build the warehouse from what is committed, check it and release it."""
    from timecourse.refresh import refresh

    tell(refresh(_settings(context), console, do_extract=False), console)


@app.command()
def check(context: typer.Context, settings: SettingsFile = None, lake: LakeDirectory = None) -> None:
    """Run the gates again: over every committed extraction and over the current release."""
    from timecourse.refresh import check_again

    results = check_again(_lake(context))
    tell_checks([result for result in results if result.result != "pass"], console)
    passed = sum(result.result == "pass" for result in results)
    console.print(f"{passed} of {len(results)} checks passed")
    if any(result.result == "fail" for result in results):
        raise typer.Exit(GateError.exit_code)


@app.command()
def report(
    context: typer.Context,
    settings: SettingsFile = None,
    lake: LakeDirectory = None,
    output: Annotated[Path, typer.Option(help="Folder to write the report to.")] = Path("report"),
    figures: Annotated[
        Path | None, typer.Option(help="Folder to write every chart to, as SVG, instead of the report.")
    ] = None,
) -> None:
    """Render the report of the current release into a folder of its own, or its charts for a manuscript."""
    from timecourse.release import render_report, write_figures

    if figures is not None:
        count = len(write_figures(_lake(context), figures))
        console.print(f"{count} figures: {escape(str(figures))}")
        return
    render_report(_lake(context), output)
    console.print(f"report: {escape(str(output / 'index.html'))}")


@app.command()
def docs(
    context: typer.Context,
    settings: SettingsFile = None,
    lake: LakeDirectory = None,
    output: Annotated[Path, typer.Option(help="File to write to.")] = Path("models.html"),
) -> None:
    """Write dbt's documentation of the models as one page: lineage, columns, tests and SQL."""
    from timecourse.documentation import write_documentation

    opened = _lake(context)
    with opened.locked():
        write_documentation(opened, output)
    console.print(f"documentation: {escape(str(output))}")


@app.command()
def status(context: typer.Context, settings: SettingsFile = None, lake: LakeDirectory = None) -> None:
    """What the lake holds: committed checkpoints, the current release and what it says."""
    from timecourse.summary import summarise

    opened = _lake(context)
    commits = opened.commits()
    console.print(
        f"lake {escape(str(opened.root))}: {len(commits)} committed checkpoint{'' if len(commits) == 1 else 's'}"
    )
    for commit in commits:
        console.print(
            f"  {escape(commit.checkpoint_id)}  {commit.extraction_id[:12]}  {commit.content['committed_at']}"
        )
    release = opened.current_release()
    console.print(f"current release: {escape(release.name)}")
    for line in summarise(release):
        console.print(escape(line), soft_wrap=True)


@app.command()
def withdraw(
    context: typer.Context,
    checkpoint: Annotated[str, typer.Argument(help="<series>/<checkpoint>, as `timecourse status` lists it.")],
    settings: SettingsFile = None,
    lake: LakeDirectory = None,
) -> None:
    """Take a committed checkpoint out of the lake; the next build or refresh no longer holds it."""
    opened = _lake(context)
    with opened.locked():
        opened.withdraw(checkpoint)
    console.print(f"withdrawn: {escape(checkpoint)}")


@app.command()
def families(
    verify: Annotated[bool, typer.Option("--verify", help="Verify each family again, here and now.")] = False,
    device: Annotated[str, typer.Option(help="Where --verify runs: cpu, cuda, ...")] = "cpu",
    format: Format = OutputFormat.table,
    output: Output = None,
) -> None:
    """The supported architectures: block, norms, what was verified, and the largest completeness error seen."""
    import polars

    from timecourse.extract.families import FAMILIES
    from timecourse.extract.families.table import families_table, not_verified
    from timecourse.query import show

    rows = families_table()
    if verify:
        from timecourse.extract.families.verification import verify_all

        rows = families_table(verify_all(FAMILIES, device))
    show(polars.DataFrame(rows), format.value, output)
    if format == OutputFormat.table:
        console.print(not_verified(rows), soft_wrap=True)


@app.command()
def sql(
    context: typer.Context,
    statement: Annotated[str, typer.Argument(help="One SQL statement on the marts of the current release.")],
    settings: SettingsFile = None,
    lake: LakeDirectory = None,
    format: Format = OutputFormat.table,
    output: Output = None,
) -> None:
    """Query the current release, opened read-only."""
    from timecourse.query import query, show

    show(query(_lake(context), statement), format.value, output)


@app.command()
def history(
    context: typer.Context,
    component: Annotated[str, typer.Argument(help="L3H5 for layer 3's head 5, L3F for layer 3's FFN.")],
    settings: SettingsFile = None,
    lake: LakeDirectory = None,
    format: Format = OutputFormat.table,
    output: Output = None,
) -> None:
    """One component's roles at every checkpoint."""
    from timecourse.query import history as component_history
    from timecourse.query import show

    show(component_history(_lake(context), component), format.value, output)


def main(arguments: list[str] | None = None) -> None:
    """Entry point: errors that a user can mend are one line and an exit code; tracebacks are for bugs."""
    try:
        sys.exit(app(arguments, standalone_mode=False))
    except typer.TyperException as error:  # a flag, value or command that is none
        if not error.format_message():  # no command at all: the help was shown
            sys.exit(UsageError.exit_code)
        _fail(error.format_message(), UsageError.exit_code)
    except typer.Abort:
        _fail("interrupted", 130)
    except UserError as error:
        if isinstance(error, GateError):
            tell_checks(error.failed, errors)
        _fail(str(error), error.exit_code)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _fail(f"{error.strerror or error}{where}", UserError.exit_code)
    except duckdb.Error as error:
        if not isinstance(error, duckdb.IOException) and "Could not write file" not in str(error):
            raise
        _fail(str(error), UserError.exit_code)


def _fail(message: str, code: int) -> None:
    if os.strerror(errno.ENOSPC) in message:
        message += "; free some space, then run it again"
    errors.print(f"error: {escape(' '.join(message.split()))}", soft_wrap=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
