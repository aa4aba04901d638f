"""Commands that keep a lake: what it holds, whether it is whole, and which release is current."""

from typing import Annotated

import typer
from rich.markup import escape

from timecourse.cli.options import IN_LAKE, Format, Output, OutputFormat, app, console, lake_of, takes
from timecourse.errors import GateError, UserError
from timecourse.telling import tell_checks


@app.command()
@takes(*IN_LAKE)
def status(context: typer.Context) -> None:
    """What the lake holds: committed checkpoints, those set aside, the current release and what it says."""
    from timecourse.executors.slurm import last_submission
    from timecourse.summary import summarise

    lake = lake_of(context)
    commits = lake.commits()
    console.print(
        f"lake {escape(str(lake.root))}: {len(commits)} committed checkpoint{'' if len(commits) == 1 else 's'}"
    )
    for commit in commits:
        console.print(
            f"  {escape(commit.checkpoint_id)}  {commit.extraction_id[:12]}  {commit.content['committed_at']}"
        )
    for one in lake.quarantined():
        console.print(
            escape(f"set aside: {one.checkpoint_id}, since {one.since}: {one.reason}; tried again when its weights or"),
            "the settings change, or with --only",
            soft_wrap=True,
        )
    for line in last_submission(lake):
        console.print(escape(line), soft_wrap=True)
    release = lake.current_release()
    console.print(f"current release: {escape(release.name)}")
    for line in summarise(release):
        console.print(escape(line), soft_wrap=True)


@app.command()
@takes(*IN_LAKE)
def check(context: typer.Context) -> None:
    """Run the gates again: over every committed extraction and over the current release."""
    from timecourse.refresh import check_again

    results = check_again(lake_of(context))
    tell_checks([result for result in results if result.result != "pass"], console)
    passed = sum(result.result == "pass" for result in results)
    console.print(f"{passed} of {len(results)} checks passed")
    if any(result.result == "fail" for result in results):
        raise typer.Exit(GateError.exit_code)


@app.command()
@takes(*IN_LAKE)
def verify(context: typer.Context) -> None:
    """Read every file of the lake again, and name those that are missing, torn, altered or foreign."""
    from timecourse.verification import verify

    lake = lake_of(context)
    found = verify(lake)
    for line in found.problems:
        console.print(escape(line), soft_wrap=True)
    console.print(f"{found.file_count:,} files read, {len(found.problems)} problems")
    if found.problems:
        raise typer.Exit(UserError.exit_code)


@app.command()
@takes(*IN_LAKE)
def withdraw(
    context: typer.Context,
    checkpoint: Annotated[str, typer.Argument(help="<series>/<checkpoint>, as `timecourse status` lists it.")],
) -> None:
    """Take a committed checkpoint out of the lake; the next build or refresh no longer holds it."""
    lake = lake_of(context)
    with lake.locked():
        lake.withdraw(checkpoint)
    console.print(f"withdrawn: {escape(checkpoint)}")


@app.command()
@takes(*IN_LAKE)
def releases(context: typer.Context, format: Format = OutputFormat.table, output: Output = None) -> None:
    """The releases that are kept, the newest first."""
    import polars

    from timecourse.query import show
    from timecourse.releases import current, list_releases

    lake = lake_of(context)
    now = current(lake)
    rows = [
        {
            "release": release.path.name,
            "current": "current" if now is not None and release.path == now.path else "",
            "created": release.manifest["created_at"],
            "checkpoints": len(release.manifest["extractions"]),
            "megabytes": round(release.bytes / 1e6, 1),
        }
        for release in list_releases(lake)
    ]
    if not rows:
        raise UserError(f"the lake {str(lake.root)!r} holds no release yet; run `timecourse refresh`")
    show(polars.DataFrame(rows), format.value, output)


@app.command()
@takes(*IN_LAKE)
def rollback(
    context: typer.Context,
    release: Annotated[
        str, typer.Argument(help="A release's id or how it begins; the one before the current by default.")
    ] = "previous",
) -> None:
    """Make an earlier release the current one; it stays that until there is something new to release."""
    from timecourse.releases import roll_back

    lake = lake_of(context)
    with lake.locked():
        back = roll_back(lake, release)
    console.print(f"current release: {escape(back.path.name)}")


@app.command()
@takes(*IN_LAKE)
def diff(
    context: typer.Context,
    earlier: Annotated[str, typer.Argument(help="A release's id or how it begins.")] = "previous",
    later: Annotated[str, typer.Argument(help="Another one.")] = "current",
) -> None:
    """What changed from one release to another: checkpoints, accuracies, and components with another primary role."""
    from timecourse.difference import differences
    from timecourse.releases import find_release

    lake = lake_of(context)
    before, after = find_release(lake, earlier), find_release(lake, later)
    console.print(escape(f"{before.path.name} → {after.path.name}"), soft_wrap=True)
    for line in differences(before.path, after.path):
        console.print(escape(line), soft_wrap=True)
