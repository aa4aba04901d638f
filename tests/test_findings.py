"""The findings document says what the marts say, row by row."""

import duckdb

from timecourse.findings import SMALL, write_findings


def test_every_claim_stands_in_the_document_with_its_numbers(run, small_release, tmp_path):
    file = tmp_path / "findings.md"
    done = run("findings", "--lake", small_release.parents[1], "--output", file)
    assert done.returncode == 0, done.stderr
    text = file.read_text()
    assert text == write_findings(small_release)
    with duckdb.connect(str(small_release / "warehouse.duckdb"), read_only=True) as connection:
        claims = connection.execute(
            "select statistic, series_id, estimate, estimate_low, statistic_verdict, verdict, reason from fct_claims"
        ).fetchall()
        (parameters,) = connection.execute("select max(parameter_count) from dim_series").fetchone()
    assert len(claims) == 9
    for statistic, series, estimate, low, own, verdict, reason in claims:
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {statistic} | {series} |")]
        cells = [cell.strip() for cell in line.split("|")]
        assert cells[-4:-1] == [own, f"**{verdict}**", " ".join(reason.split())]
        assert estimate is None or cells[4].startswith(f"{estimate:.3f}")
        assert low is None or f"({low:.3f} to " in cells[4]
    assert parameters < SMALL and f"{parameters:,} parameters" in text


def test_seeds_of_one_recipe_stand_side_by_side(staged_release):
    text = write_findings(staged_release)
    agreement = text.split("## Do seeds of one recipe agree?")[1].split("##")[0]
    with duckdb.connect(str(staged_release / "warehouse.duckdb"), read_only=True) as connection:
        (count,) = connection.execute("select count(*) from dim_series where recipe_id is not null").fetchone()
        distances = connection.execute(
            "select count(*) from fct_series_distances where distance is not null"
        ).fetchone()
    assert count > 1 and f"| {count} |" in agreement and agreement.count("\n| ") == 7  # a head and six claims
    assert ("## How far series differ" in text) == (distances[0] > 0)
