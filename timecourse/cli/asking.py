"""Commands that ask a lake: queries, histories, the report and the findings."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from timecourse.cli.options import IN_LAKE, Format, Output, OutputFormat, app, console, lake_of, takes


@app.command()
@takes(*IN_LAKE)
def sql(
    context: typer.Context,
    statement: Annotated[str, typer.Argument(help="One SQL statement on the marts of the current release.")],
    format: Format = OutputFormat.table,
    output: Output = None,
    unsafe: Annotated[
        bool,
        typer.Option("--unsafe", help="Let the statement read and write files, attach databases, load extensions."),
    ] = False,
) -> None:
    """Query the current release, opened read-only; the statement reaches nothing else, unless with --unsafe."""
    from timecourse.query import query, show

    show(query(lake_of(context), statement, is_unsafe=unsafe), format.value, output)


@app.command()
@takes(*IN_LAKE)
def history(
    context: typer.Context,
    component: Annotated[str, typer.Argument(help="L3H5 for layer 3's head 5, L3F for layer 3's FFN.")],
    format: Format = OutputFormat.table,
    output: Output = None,
) -> None:
    """One component's roles at every checkpoint."""
    from timecourse.query import history as component_history
    from timecourse.query import show

    show(component_history(lake_of(context), component), format.value, output)


@app.command()
@takes(*IN_LAKE)
def report(
    context: typer.Context,
    output: Annotated[Path, typer.Option(help="Folder to write the report to.")] = Path("report"),
    figures: Annotated[
        Path | None, typer.Option(help="Folder to write every chart to, as SVG, instead of the report.")
    ] = None,
) -> None:
    """Render the report of the current release into a folder of its own, or its charts for a manuscript."""
    from timecourse.release import render_report, write_figures

    if figures is not None:
        count = len(write_figures(lake_of(context), figures))
        console.print(f"{count} figures: {escape(str(figures))}")
        return
    render_report(lake_of(context), output)
    console.print(f"report: {escape(str(output / 'index.html'))}")


@app.command()
@takes(*IN_LAKE)
def docs(
    context: typer.Context,
    output: Annotated[Path, typer.Option(help="File to write to.")] = Path("models.html"),
) -> None:
    """Write dbt's documentation of the models as one page: lineage, columns, tests and SQL."""
    from timecourse.documentation import write_documentation

    opened = lake_of(context)
    with opened.locked():
        write_documentation(opened, output)
    console.print(f"documentation: {escape(str(output))}")


@app.command()
@takes(*IN_LAKE)
def findings(
    context: typer.Context,
    output: Annotated[Path | None, typer.Option(help="Markdown file to write; printed without.")] = None,
) -> None:
    """Write what the current release says of the claims, series by series, as Markdown."""
    from timecourse.findings import write_findings

    text = write_findings(lake_of(context).current_release())
    if output is None:
        console.print(text, markup=False, soft_wrap=True)
    else:
        output.write_text(text, encoding="utf-8")
        console.print(f"wrote {escape(str(output))}")
