"""Commands that measure: from checkpoints to a release."""

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from timecourse.cli.options import (
    IN_LAKE,
    MEASURING,
    OF_SERIES,
    Format,
    Full,
    Only,
    Output,
    OutputFormat,
    app,
    console,
    lake_of,
    settings_of,
    takes,
)
from timecourse.telling import tell

if TYPE_CHECKING:
    from timecourse.config import Settings
    from timecourse.extract.identity import ExtractionRequest


class DemoFamily(StrEnum):
    """What the demo can pre-train, by the `model_type` of transformers."""

    olmo = "olmo"
    olmo2 = "olmo2"
    gpt_neox = "gpt_neox"


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
    from timecourse.ablate import Ablated
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
    ablated = Ablated() if small else ablate_checkpoints(settings, console)
    if ablated.names:
        console.print(escape(f"ablated {', '.join(ablated.names)}"))
        outcome.release = refresh(settings, console, do_extract=False).release
    tell(outcome, console)
    ablated.raise_if_left()


@app.command("refresh")
@takes(*MEASURING)
def refresh_command(
    context: typer.Context,
    only: Only = None,
    full: Full = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be extracted, and why; write nothing.")
    ] = False,
) -> None:
    """Extract what is new or changed, build, check and release; does nothing where nothing changed."""
    from timecourse.refresh import plan_refresh, refresh
    from timecourse.run_log import run_log

    settings = settings_of(context)
    if dry_run:
        tasks = plan_refresh(settings, only=only or (), is_full=full)
        for task in tasks:
            console.print(escape(f"would extract {task.request.checkpoint_id}: {task.reason}"), soft_wrap=True)
        console.print(f"{len(tasks)} of the series' checkpoints would be extracted; nothing was written")
        return
    with run_log(lake_of(context), "refresh"):
        tell(refresh(settings, console, only=only or (), is_full=full), console)


@app.command()
@takes(*MEASURING)
def extract(
    context: typer.Context,
    only: Only = None,
    full: Full = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what memory the extractions will take; extract nothing.")
    ] = False,
) -> None:
    """Extract, check and commit the checkpoints that are new or changed; build nothing.

    Several may run on one lake at once: each takes the checkpoints that no other is on.
    """
    from timecourse.refresh import plan_refresh, refresh
    from timecourse.run_log import run_log

    settings = settings_of(context)
    if plan:
        tell_memory([task.request for task in plan_refresh(settings, only=only or (), is_full=full)], settings)
        return
    with run_log(lake_of(context), "extract"):
        tell(refresh(settings, console, do_release=False, only=only or (), is_full=full), console)


def tell_memory(requests: "list[ExtractionRequest]", settings: "Settings") -> None:
    """What the extractions will take in memory, a row for all checkpoints of one shape."""
    import polars

    from timecourse.extract.job import memory_row
    from timecourse.extraction import machine_of
    from timecourse.query import show

    machine = machine_of(settings)
    of_shape: dict[tuple[object, ...], list[ExtractionRequest]] = {}
    for request in requests:
        checkpoint = request.checkpoint
        shape = (*checkpoint.architecture.values(), checkpoint.bytes, checkpoint.tokenizer_sha256)
        of_shape.setdefault(shape, []).append(request)
    rows = [{"checkpoints": len(alike)} | memory_row(alike[0], machine) for alike in of_shape.values()]
    if rows:
        show(polars.DataFrame(rows), "table", None)
    console.print(f"{len(requests)} of the series' checkpoints would be extracted; nothing was written")


@app.command()
@takes(*MEASURING)
def watch(
    context: typer.Context,
    every: Annotated[str, typer.Option(help="How often to look: 90s, 30m, 6h.")] = "30m",
) -> None:
    """Refresh now and again, and at once where something changes in a directory of checkpoints; until SIGTERM."""
    from timecourse.watch import parse_interval, watch

    interval: timedelta = parse_interval(every)
    watch(settings_of(context), interval, console)


@app.command()
@takes("from_checkpoints", *(flag for flag in MEASURING if flag not in ("checkpoints", "complete")))
def ablate(
    context: typer.Context,
    ablated: Annotated[
        str | None, typer.Option("--checkpoints", help="first, middle, last, all, or names; with commas between.")
    ] = None,
    roles: Annotated[str | None, typer.Option(help="Only these roles' sets; with commas between.")] = None,
    methods: Annotated[str | None, typer.Option(help="mean, resample, zero; with commas between.")] = None,
    random_sets: Annotated[int | None, typer.Option(help="Random sets beside each role's set; 20 or more.")] = None,
) -> None:
    """Silence roles' components at some extracted checkpoints, then build and release: do the roles matter?"""
    from timecourse.ablate import ablate
    from timecourse.refresh import refresh
    from timecourse.run_log import run_log

    wanted = settings_of(context)
    with run_log(lake_of(context), "ablate"):
        now = ablate(wanted, console)
        if now.names or not (now.failed or now.held):
            said = f"ablated {', '.join(now.names)}" if now.names else "every checkpoint was ablated so before"
            console.print(escape(said))
        tell(refresh(wanted, console, do_extract=False), console)
        now.raise_if_left()


@app.command()
@takes(*IN_LAKE, "theta", "assignments")
def build(context: typer.Context) -> None:
    """Build the warehouse from what is committed, check it and release it."""
    from timecourse.refresh import refresh
    from timecourse.run_log import run_log

    with run_log(lake_of(context), "build"):
        tell(refresh(settings_of(context), console, do_extract=False), console)


@app.command("checkpoints")
@takes(*OF_SERIES)
def list_checkpoints(context: typer.Context, format: Format = OutputFormat.table, output: Output = None) -> None:
    """What the series offers, in the order of training, and what is extracted; fetches no weights."""
    import polars

    from timecourse.plan import make_plan
    from timecourse.query import show

    lake = lake_of(context)
    rows = make_plan(settings_of(context)).rows(lake.commits(), lake.quarantined())
    show(polars.DataFrame(rows, infer_schema_length=None), format.value, output)


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
