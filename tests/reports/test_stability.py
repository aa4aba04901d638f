"""The page on stability says what the marts say: overlaps beside chance and noise, turnover, drift and seeds."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from timecourse.reports.pages import stability

from .browser import Window, needs_browser
from .conftest import Site
from .one_page import render_page

if TYPE_CHECKING:
    from playwright import sync_api

ROLES = ["all", "general", "entity", "relation_answer", "fact_answer"]
MEASURES = {
    "iou": "iou_reference", "low": "iou_reference_low", "high": "iou_reference_high",
    "chance": "iou_reference_chance", "corrected": "iou_reference_corrected", "floor": "iou_noise_floor",
    "noise": "iou_reference_noise_corrected",
}  # fmt: skip


def close(drawn: float | None, expected: float | None) -> bool:
    return drawn is None if expected is None else drawn == pytest.approx(expected, abs=1e-5)


def decimal(value: float | None) -> str:
    return "n/a" if value is None else f"{value:,.3f}"


def test_overlaps_are_the_mart_and_null_is_not_zero(site: Site) -> None:
    page = site.page("stability")
    nulls = 0
    for overlap in ("reference", "previous"):
        for kind in ("head", "ffn"):
            columns = f"iou_{overlap}, iou_{overlap}_low, iou_{overlap}_high, iou_{overlap}_chance, iou_noise_floor"
            expected = site.query(
                f"""select checkpoint_index, role, {columns}, iou_{overlap}_corrected, iou_{overlap}_noise_corrected
                from fct_role_stabilities join dim_checkpoints using (checkpoint_id)
                where component_kind = '{kind}' and role in ('general', 'entity')
                order by role desc, checkpoint_index"""
            )
            cells = [line[-7:] for line in page.body(f"stability-{overlap}-{kind}")]
            assert cells == [[decimal(value) for value in row[2:]] for row in expected]
            nulls += sum(line[0] == "n/a" for line in cells)
            if any(row[2] is not None for row in expected):
                names = ("iou", "low", "high", "chance", "floor", "corrected", "noise")
                for row, values in zip(page.chart_rows(f"iou-{overlap}-{kind}"), expected, strict=True):
                    assert (row["checkpoint_index"], row["role"]) == values[:2]
                    assert all(close(row.get(name), value) for name, value in zip(names, values[2:], strict=True))
    assert nulls, "the release has no null overlap: this test cannot tell null from zero"


def test_overlaps_by_relation_are_the_mart(site: Site) -> None:
    drawn = {
        (row["kind"], row["panel"], row["role"], row["checkpoint_index"]): row
        for row in site.page("stability").chart_rows("iou-relations")
    }
    expected = site.query(
        f"""select component_kind, scope_id, role, checkpoint_index, {", ".join(MEASURES.values())}, iou_previous
        from fct_role_stabilities join dim_checkpoints using (checkpoint_id)
        where role in ('relation_answer', 'fact_answer')"""
    )
    assert len(drawn) == len(expected) > 0
    for row in expected:
        point = drawn[row[:4]]
        assert all(close(point.get(f"reference_{name}"), value) for name, value in zip(MEASURES, row[4:], strict=False))
        assert close(point.get("previous_iou"), row[-1])


def test_the_axis_holds_every_overlap_of_every_measure(site: Site) -> None:
    specification = site.page("stability").specifications()["iou-relations"]
    limits = next(parameter["value"] for parameter in specification["params"] if parameter["name"] == "overlap_limits")
    assert limits["iou"] == [0, 1]
    ((lowest, highest),) = site.query(
        """select least(0, min(iou_reference_corrected), min(iou_previous_corrected)),
            greatest(1, max(iou_reference_corrected), max(iou_previous_corrected))
        from fct_role_stabilities where role in ('relation_answer', 'fact_answer')"""
    )
    assert limits["corrected"] == pytest.approx([lowest, highest], abs=1e-5)


def test_turnover_is_the_mart_with_its_interval(site: Site) -> None:
    page = site.page("stability")
    for kind in ("head", "ffn"):
        expected = site.query(
            f"""select checkpoint_index, role, turnover, turnover_low, turnover_high, changed_count, component_count
            from fct_turnovers join dim_checkpoints on checkpoint_id = to_checkpoint_id
            where component_kind = '{kind}' and role <> 'inactive'
            order by list_position({ROLES}, role), checkpoint_index"""
        )
        drawn = page.chart_rows(f"turnover-{kind}")
        for row, (index, role, *values) in zip(drawn, expected, strict=True):
            assert (row["checkpoint_index"], row["role"]) == (index, role)
            assert all(
                close(row[name], value)
                for name, value in zip(("value", "low", "high", "changed", "of"), values, strict=True)
            )
        least = min(row[2] for row in expected if row[1] == "all" and row[2] is not None)
        assert f"transitions: between {100 * least:.1f}\u00a0%" in page.text


def test_drift_is_the_mart_and_names_what_looks_broken(site: Site, small_release: Path, tmp_path: Path) -> None:
    expected = site.query(
        """select component_kind, checkpoint_index, contribution_distance, typical_distance, rank_correlation
        from fct_checkpoint_drifts join dim_checkpoints using (checkpoint_id)
        order by list_position(['head', 'ffn', 'all'], component_kind), checkpoint_index"""
    )
    page = site.page("stability")
    assert [line[3] for line in page.body("stability-drift")] == [decimal(row[2]) for row in expected]
    drawn = page.chart_rows("drift")
    assert all(row["flag"] == "as usual" for row in drawn) and "no checkpoint looks broken" in page.text
    for row, (kind, index, *values) in zip(drawn, [row for row in expected if row[0] != "all"], strict=True):
        assert (row["kind"], row["checkpoint_index"]) == (kind, index)
        names = ("contribution_distance", "typical", "rank_correlation")
        assert all(close(row[name], value) for name, value in zip(names, values, strict=True))
    ((name,),) = site.query("select step from dim_checkpoints where checkpoint_index = 1")
    broken, _ = render_page(
        stability,
        small_release,
        tmp_path,
        """update fct_checkpoint_drifts set is_suspect = true, is_outlier = true
        where checkpoint_id = (select checkpoint_id from dim_checkpoints where checkpoint_index = 1)""",
    )
    assert {row["flag"] for row in broken.chart_rows("drift") if row["checkpoint_index"] == 1} == {"looks broken"}
    assert f"Over all components, looks broken: step {name:,}." in broken.text


def test_seeds_of_the_same_recipe_are_the_floor(staged_site: dict[str, Site]) -> None:
    site = staged_site["seed 1"]
    expected = site.query(
        """select checkpoint_index, component_kind, avg(differing_share) from fct_recipe_overlaps
        join dim_checkpoints using (series_id, setting_id, checkpoint_id)
        where series_id = 'seed 1' and role = 'all' and differing_share is not null group by all order by all"""
    )
    page = site.page("stability")
    drawn = sorted((row["checkpoint_index"], row["series"], row["value"]) for row in page.chart_rows("seeds"))
    assert [row[:2] for row in drawn] == [row[:2] for row in expected] and len(drawn) > 3
    assert [row[2] for row in drawn] == pytest.approx([row[2] for row in expected], abs=1e-5)
    assert "3 checkpoints with a counterpart in seed 2." in page.text
    for other in ("seed 3", "staged"):
        assert "Other seeds" not in staged_site[other].page("stability").text


def test_one_checkpoint_has_no_previous_one(small_site: Site) -> None:
    page = small_site.page("stability")
    assert "it has no previous one" in page.text and "no neighbour to compare it with" in page.text
    assert not {"iou-previous-head", "turnover-head", "drift"} & page.specifications().keys()


def test_a_release_without_drifts_and_roles_renders_in_words(small_release: Path, tmp_path: Path) -> None:
    page, _ = render_page(
        stability,
        small_release,
        tmp_path,
        "drop table fct_checkpoint_drifts",
        "update fct_role_stabilities set iou_reference = null, iou_previous = null",
        "update fct_turnovers set turnover = null, component_count = 0",
    )
    assert page.specifications() == {}
    assert "Drift" not in page.text
    assert "No heads hold these roles at any checkpoint" in page.text
    assert "No FFNs hold a role at any checkpoint: turnover is n/a throughout." in page.text


def _overlaps(page: "sync_api.Page") -> list[float]:
    """What the points of the first chart say."""
    return [
        float(label.split("overlap: ")[1].split(";")[0].replace("−", "-"))
        for label in page.locator("#iou-reference-head .mark-symbol [aria-label]").evaluate_all(
            "marks => marks.map(mark => mark.getAttribute('aria-label'))"
        )
    ]


@needs_browser
def test_measure_switch_draws_the_corrected_overlaps(window: Window, site: Site) -> None:
    page = window.open(site.folder / "stability.html")
    rows = site.page("stability").chart_rows("iou-reference-head")
    for measure in ("corrected", "noise", "iou"):
        page.select_option("#overlap_measure", measure)
        expected = sorted(row[measure] for row in rows if measure in row)
        page.wait_for_function(
            "count => document.querySelectorAll('#iou-reference-head .mark-symbol [aria-label]').length === count",
            arg=len(expected),
        )
        assert sorted(_overlaps(page)) == pytest.approx(expected, abs=1e-3)
    page.select_option("#overlap_role", "fact_answer")
    page.wait_for_function(
        """() => [...document.querySelectorAll('#iou-relations .mark-symbol [aria-label]')]
        .every(mark => mark.getAttribute('aria-label').includes('role: fact_answer'))"""
    )
