"""dbt's own documentation of the models, as one static page: lineage, columns, tests and SQL of every model."""

import shutil
from pathlib import Path

from timecourse.build import PACKAGE, environment, one_line
from timecourse.errors import UserError
from timecourse.lake import Lake


def write_documentation(lake: Lake, output: Path) -> None:
    """Write the page of the lake's build database to `output`; it needs no network, now or when it is read.

    Models are shown as they are written, not as they were compiled: compiled SQL names this machine's files. Raises
    UserError where nothing was built yet, or dbt fails.
    """
    # dbt takes seconds to import, and is needed only here.
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner

    database = lake.build.resolve() / "warehouse.duckdb"
    if not database.is_file():
        raise UserError(f"the lake {str(lake.root)!r} holds no build database; run `timecourse build`")
    target = lake.build.resolve() / "docs"
    project = ["--project-dir", str(PACKAGE / "dbt_project"), "--profiles-dir", str(PACKAGE / "dbt_project")]
    folders = ["--target-path", str(target), "--log-path", str(target)]
    silence = ["--no-send-anonymous-usage-stats", "--quiet", "--log-level", "none", "--log-level-file", "none"]
    try:
        with environment(TIMECOURSE_BUILD_DATABASE=str(database)):
            for command in (["parse"], ["docs", "generate", "--static", "--no-compile"]):
                outcome = dbtRunner().invoke([*command, *project, *folders, *silence])
                if not outcome.success:
                    raise UserError(f"dbt {command[0]} failed: {one_line(str(outcome.exception))}")
    finally:
        DuckDBConnectionManager.close_all_connections()
    output.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(target / "static_index.html", output)
