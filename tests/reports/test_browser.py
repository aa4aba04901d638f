"""What the pages do in a real browser: charts are drawn, and every control does what it says."""

from typing import TYPE_CHECKING

import pytest

from .browser import Window, needs_browser
from .conftest import Site

if TYPE_CHECKING:
    from playwright import sync_api

PAGES = ("index", "knowledge", "roles", "stability", "transitions", "components", "causal", "data")

pytestmark = needs_browser


@pytest.mark.parametrize("slug", PAGES)
@pytest.mark.parametrize(
    ("kind", "width"), [("site", 1280), ("hostile_site", 400), pytest.param("small_site", 1280, marks=pytest.mark.slow)]
)
def test_all_charts_are_drawn(window: Window, kind: str, width: int, slug: str, request: pytest.FixtureRequest) -> None:
    rendered: Site = request.getfixturevalue(kind)
    window.page.set_viewport_size({"width": width, "height": 900})
    page = window.open(rendered.folder / f"{slug}.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    expected = len(rendered.page(slug).specifications())
    assert page.locator("[data-chart] svg").count() == expected
    assert page.locator("[data-chart][data-state=drawn]").count() == expected
    for svg in page.locator("[data-chart] svg").all():
        assert svg.locator("[aria-roledescription]:not([aria-roledescription*=container])").count(), (
            "a chart without marks"
        )
    assert page.evaluate("window.pwned") is None
    described = page.locator("[data-chart][role=graphics-document][aria-label]")
    assert described.count() == expected
    assert all(len(label.get_attribute("aria-label") or "") > 20 for label in described.all())


@pytest.mark.parametrize(("series", "slugs"), [("staged", PAGES), ("seed 1", ("stability",))])
def test_stages_siblings_and_seeds_are_drawn(
    window: Window, staged_site: dict[str, Site], series: str, slugs: tuple[str, ...]
) -> None:
    for slug in slugs:
        page = window.open(staged_site[series].folder / f"{slug}.html")
        expected = len(staged_site[series].page(slug).specifications())
        assert page.locator("[data-chart][data-state=drawn] svg").count() == expected
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert page.locator("#seeds svg").count() == (series == "seed 1")


def test_boundaries_stand_in_every_mode_and_panel(window: Window, staged_site: dict[str, Site]) -> None:
    page = window.open(staged_site["staged"].folder / "knowledge.html")
    modes = page.locator("#x-axis option").evaluate_all("options => options.map(option => option.value)")
    assert modes == ["step", "step_log", "tokens", "tokens_log", "order"]
    places = set()
    for mode in modes:
        page.select_option("#x-axis", mode)
        window.wait()
        for figure, panels in (("group-accuracy", 2), ("relation-accuracy", 2), ("convergence", 1)):
            texts = page.locator(f"#{figure} .chart svg text").all_text_contents()
            assert [texts.count(name) for name in ("stage2", "sft", "dpo")] == [panels] * 3, figure
        label = page.locator("#convergence svg text", has_text="stage2").first
        places.add(label.evaluate("text => text.getBoundingClientRect().x"))
    assert len(places) == len(modes)


def test_several_reports_open_from_their_folders(window: Window, many_site: Site) -> None:
    page = window.open(many_site.folder / "index.html")
    for number in range(2):
        page.goto((many_site.folder / "index.html").as_uri())
        page.locator("tbody a").nth(number).click()
        window.wait()
        assert page.locator("h1").inner_text() == "Overview"
        assert page.locator("[data-chart] svg").count() == 2
        page.get_by_role("link", name="Roles").click()
        window.wait()
        assert page.locator("h1").inner_text() == "Roles"


def test_axis_switch_redraws_every_chart_over_training(window: Window, site: Site) -> None:
    page = window.open(site.folder / "knowledge.html")
    modes = page.locator("#x-axis option").evaluate_all("options => options.map(option => option.value)")
    titles = set()
    for mode in modes:
        page.select_option("#x-axis", mode)
        window.wait()
        text = page.locator("#relation-accuracy .chart").text_content() or ""
        title = site.page("knowledge").json("x-axes")[mode]["encoding"]["title"]
        assert title in text
        assert title in (page.locator("#convergence .chart").text_content() or "")
        titles.add(title)
        assert page.locator("[data-chart] svg").count() == 8
    assert {"training step", "training step (log)", "checkpoint"} <= titles
    assert "step100-tokens1B" not in (page.locator("#relation-accuracy .chart").text_content() or "")
    assert "main" in (page.locator("#relation-accuracy .chart").text_content() or "")


def _accuracy(description: str) -> str:
    """The share of facts in the text description of a point."""
    return description.split("share of facts: ")[1].split(";")[0]


def test_measure_switch_moves_the_lines(window: Window, site: Site) -> None:
    page = window.open(site.folder / "knowledge.html")
    rows = site.page("knowledge").chart_rows("group-accuracy")
    assert any(row["top1_accuracy"] != row["top10_accuracy"] for row in rows), "the release cannot show a difference"

    def lines() -> list[str]:
        return page.locator("#group-accuracy .mark-symbol [aria-label]").evaluate_all(
            "marks => marks.map(mark => mark.getAttribute('aria-label'))"
        )

    first = lines()
    page.select_option("#measure", "top10")
    page.wait_for_function(
        """before => JSON.stringify([...document.querySelectorAll('#group-accuracy .mark-symbol [aria-label]')]
        .map(mark => mark.getAttribute('aria-label'))) !== JSON.stringify(before)""",
        arg=first,
    )
    moved = [_accuracy(line) for line in lines()]
    assert len(moved) == len(first)
    assert moved != [_accuracy(line) for line in first]
    page.select_option("#x-axis", "order")
    window.wait()
    assert page.locator("#measure").input_value() == "top10", "the measure is kept when the axis changes"
    assert [_accuracy(line) for line in lines()] == moved


def test_transition_switch_changes_matrix_and_tables(window: Window, site: Site) -> None:
    page = window.open(site.folder / "transitions.html")
    pairs = page.locator("#pair option").evaluate_all("options => options.map(option => option.value)")
    assert pairs[0] == "-1" and len(pairs) == 3, "all together, then each"
    expected = {}
    for pair in pairs[1:]:
        page.select_option("#pair", pair)
        expected[pair] = [
            f"{count:,}"
            for (count,) in site.query(
                f"""select component_count from fct_role_transitions
                join dim_checkpoints on checkpoint_id = to_checkpoint_id
                where component_kind = 'head' and checkpoint_index = {pair}"""
            )
        ]
        page.wait_for_function(
            """expected => JSON.stringify([...document.querySelectorAll('#matrix-head .mark-text.role-mark text')]
            .map(text => text.textContent).sort()) === JSON.stringify(expected)""",
            arg=sorted(expected[pair]),
        )
        visible = page.locator("#transitions-switches-head tbody tr:visible")
        assert visible.count() == 4
        name = site.query(f"select checkpoint_name from dim_checkpoints where checkpoint_index = {pair}")[0][0]
        assert all(name in row for row in visible.all_inner_texts())
    assert sorted(expected[pairs[1]]) != sorted(expected[pairs[2]]), "the release cannot show a difference"


@pytest.mark.parametrize(
    ("kind", "width"), [("ablated_site", 1280), ("ablated_site", 400), ("hostile_ablated_site", 400)]
)
def test_what_silencing_does_is_drawn(window: Window, kind: str, width: int, request: pytest.FixtureRequest) -> None:
    rendered: Site = request.getfixturevalue(kind)
    window.page.set_viewport_size({"width": width, "height": 900})
    page = window.open(rendered.folder / "causal.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("[data-chart][data-state=drawn] svg").count() == 5
    assert all(
        chart.evaluate("chart => chart.scrollWidth <= chart.clientWidth")
        for chart in page.locator("[data-chart]").all()
    )
    assert page.locator("#effects .mark-symbol [aria-label]").count() == 7  # of one method: entity has no set at first
    assert (
        page.locator("#matrix-relation-answer .mark-rect [aria-label]").count() == 4 + 2 * 2
    )  # cells, and the diagonal
    assert page.evaluate("window.pwned") is None


def test_method_and_checkpoint_are_chosen_for_all_that_was_silenced(window: Window, ablated_site: Site) -> None:
    page = window.open(ablated_site.folder / "causal.html")
    assert page.locator("#method").input_value() == "mean"
    assert page.locator("#matrix_checkpoint").input_value() == "2"
    for method in ("mean", "resample"):
        page.select_option("#method", method)
        page.select_option("#single_method", method)
        for index in (0, 2):
            page.select_option("#matrix_checkpoint", str(index))
            for role in ("relation_answer", "fact_answer"):
                effects = ablated_site.query(
                    f"""select effect from fct_relation_specificities join dim_checkpoints using (checkpoint_id)
                    where role = '{role}' and method = '{method}' and checkpoint_index = {index}"""
                )
                page.wait_for_function(
                    """([figure, expected]) => JSON.stringify([...document.querySelectorAll(
                        `#${figure} .mark-text.role-mark text`)].map(text => text.textContent).sort())
                        === JSON.stringify(expected)""",
                    arg=[
                        f"matrix-{role.replace('_', '-')}",
                        sorted(f"{effect:.2f}".replace("-", "−") for (effect,) in effects),
                    ],
                )
        expected = ablated_site.query(
            f"""select effect from fct_role_effects
            where role = 'general' and scope_kind = 'all' and method = '{method}' order by effect"""
        )
        described = page.locator("#effects .mark-symbol [aria-label*='silenced: general']").evaluate_all(
            "marks => marks.map(mark => mark.getAttribute('aria-label'))"
        )
        drawn = [text.split("effect: ")[1].split(";")[0].replace("−", "-") for text in described]
        assert sorted(map(float, drawn)) == pytest.approx([effect for (effect,) in expected], abs=5e-4)
        for table, count in (("causal-effects", 7), ("causal-excess", 7), ("causal-scores", 12)):
            shown = page.locator(f"#{table} tbody tr:not([hidden])").all_text_contents()
            assert len(shown) == count and all(text.endswith(method) for text in shown)


def test_slider_repaints_the_component_map(window: Window, site: Site) -> None:
    page = window.open(site.folder / "components.html")
    names = [name for (name,) in site.query("select checkpoint_name from dim_checkpoints order by checkpoint_index")]
    painted = []
    for index in range(len(names)):
        page.locator("#map-checkpoint").fill(str(index))
        counts = site.query(
            f"""select primary_role, count_if(component_kind = 'head'), count_if(component_kind = 'ffn')
            from fct_component_histories join dim_checkpoints using (checkpoint_id)
            where checkpoint_index = {index} group by all"""
        )
        for role, heads, ffns in counts:
            assert page.locator(f"td.cell.role-{role}").count() == heads + ffns
            words = f"({heads} head{'' if heads == 1 else 's'}, {ffns} FFN{'' if ffns == 1 else 's'})"
            assert page.locator(f"[data-role-count={role}]").inner_text() == words
        painted.append(page.locator("table.map").inner_text())
    assert len(set(painted)) > 1, "the release cannot show a difference"
    assert page.locator("#map-checkpoint-name").inner_text() == "main"


def test_a_component_shows_its_history_and_examples(window: Window, site: Site) -> None:
    page = window.open(site.folder / "components.html")
    data = site.page("components").json("component-data")
    number = next(n for n, c in enumerate(data["components"]) if len(set(c["roles"])) > 1 and c["examples"])
    component = data["components"][number]
    detail = page.locator("#component-detail")
    assert component["title"] not in detail.inner_text()
    page.locator(f"td[data-component='{number}']").click()
    assert detail.locator("h3").inner_text() == component["title"]
    letters = "".join(detail.locator(".strip button").all_text_contents())
    assert letters == component["roles"].replace("i", "·")
    ((before, token, after),) = site.query(
        f"""select sentence_before, token, sentence_after from fct_component_examples
        where component_id = '{component["name"]}' and example_rank = 1"""
    )
    assert detail.locator("mark").first.text_content() == token
    assert detail.locator(".sentence").first.text_content() == before + token + after
    first = detail.locator(".status").inner_text()
    detail.locator(".strip button").first.click()
    assert page.locator("#map-checkpoint").input_value() == "0"
    assert detail.locator(".status").inner_text() != first


def test_the_map_works_from_the_keyboard(window: Window, site: Site) -> None:
    page = window.open(site.folder / "components.html")
    page.locator("td[data-component]").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.locator("#component-detail h3").inner_text().startswith("L1H1:")
    assert page.locator("td[data-component][tabindex='0']").count() == 1
    assert page.locator("td[aria-selected=true]").count() == 1


def test_the_fact_search_filters(window: Window, site: Site) -> None:
    page = window.open(site.folder / "knowledge.html")
    rows = page.locator("#knowledge-facts tbody tr")
    total = rows.count()
    page.locator("[data-search=knowledge-facts]").fill("zealand WELLINGTON")
    assert page.locator("#knowledge-facts tbody tr:visible").count() == 1
    assert page.locator("[data-search-count=knowledge-facts]").inner_text() == f"1 of {total} rows"
    page.locator("[data-search=knowledge-facts]").fill("")
    assert page.locator("#knowledge-facts tbody tr:visible").count() == total


def test_tooltips_show_names_as_text(window: Window, hostile_site: Site) -> None:
    page = window.open(hostile_site.folder / "knowledge.html")
    page.locator("#relation-accuracy .mark-symbol path[aria-label]").first.hover(force=True)
    tooltip = page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    assert "<script>window.pwned = 1</script>" in tooltip.inner_text()
    assert page.evaluate("window.pwned") is None


def test_without_scripts_the_numbers_are_still_there(browser: "sync_api.Browser", site: Site) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site.folder / "components.html").as_uri())
    assert page.locator("td.cell").count() == len(site.query("from dim_components"))
    page.goto((site.folder / "roles.html").as_uri())
    page.locator("#counts-head details.data summary").click()
    assert page.locator("#roles-counts-head tbody tr").first.is_visible()
    assert "Charts need JavaScript" in page.locator("main").inner_text()
    context.close()
