"""The component map says what the marts say of every component, and a link leads back to what is shown."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from timecourse.reports.page import write_page
from timecourse.reports.pages import components
from timecourse.reports.pages.components import map_data
from timecourse.reports.partition import list_partitions, open_partition

from .browser import Window, needs_browser
from .conftest import HOSTILE, PageReader, Site, changed

ROLES = ["general", "entity", "relation_answer", "fact_answer", "inactive"]


@pytest.fixture
def page(small_release: Path, tmp_path: Path) -> Callable[..., PageReader]:
    """The page of the release after statements that change it."""

    def write(*statements: str) -> PageReader:
        with changed(small_release, tmp_path) as connection:
            for statement in statements:
                connection.execute(statement)
        with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as connection:
            partition = open_partition(connection, list_partitions(connection)[0], "a release")
            write_page(components.build(partition), partition, tmp_path, "", [])
        return PageReader(tmp_path / "components.html")

    return write


def data_of(site: Site) -> dict[str, Any]:
    return dict(site.page("components").json("component-data"))


def examples_of(data: dict[str, Any]) -> dict[str, list[tuple[str, str, str]]]:
    """By component, the text before, of and after the token of its examples."""
    return {
        component["name"]: [
            (text[:start], text[start:end], text[end:])
            for number, start, end, _ in component["examples"]
            for text in [data["prompts"][number][0]]
        ]
        for component in data["components"]
    }


# Numbers


def test_component_map_is_the_mart(site: Site) -> None:
    page = site.page("components")
    data = page.json("component-data")
    expected: dict[str, str] = {}
    for component, role in site.query(
        """select component_id, primary_role from fct_component_histories
        join dim_checkpoints using (checkpoint_id) order by component_id, checkpoint_index"""
    ):
        expected[component] = expected.get(component, "") + role[0]
    assert {component["name"]: component["roles"] for component in data["components"]} == expected
    cells = [element for element in page.elements if "data-component" in element.attributes]
    assert len(cells) == len(expected)
    for cell in cells:
        component = data["components"][int(cell.attributes["data-component"] or -1)]
        role = next(role for role in ROLES if role[0] == component["roles"][-1])
        assert cell.attributes["class"] == f"cell role-{role}"


def test_what_a_component_holds_and_how_surely_is_the_mart(site: Site) -> None:
    data = data_of(site)
    letters = {"core": "c", "contingent": "t", "noise": "n", None: "-"}
    rows = site.query(
        """select histories.component_id, current.checkpoint_index, since.checkpoint_index, change_count, confidence,
            robustness, list(distinct role) filter (where role is not null)
        from fct_component_histories as histories
        join dim_checkpoints as current using (checkpoint_id)
        join dim_checkpoints as since on since.checkpoint_id = role_since_checkpoint_id
        left join fct_role_memberships as memberships
            on memberships.checkpoint_id = histories.checkpoint_id
            and memberships.component_id = histories.component_id
        group by all"""
    )
    by_name = {component["name"]: component for component in data["components"]}
    assert len(rows) == sum(len(component["roles"]) for component in by_name.values())
    for name, index, since, changes, sure, robustness, held in rows:
        component = by_name[name]
        bits = int(component["held"][index], 16)
        assert [role for bit, role in enumerate(ROLES) if bits >> bit & 1] == sorted(held or [], key=ROLES.index)
        assert (component["since"][index], component["changes"][index]) == (since, changes)
        assert component["confidence"][index] == (None if sure is None else round(1000 * sure))
        assert component["robustness"][index] == letters[robustness]


def test_activity_by_relation_is_the_mart_at_every_checkpoint(site: Site) -> None:
    data = data_of(site)
    assert data["activityAt"] == list(range(len(data["checkpoints"])))
    expected = sorted(
        (
            name,
            index,
            relation,
            *(None if value is None else round(1000 * value) for value in rates),
            2 * specific + held,
        )
        for name, index, relation, *rates, held, specific in site.query(
            """select a.component_id, checkpoint_index, a.scope_id, rate, rate_low, rate_high,
                (a.component_id, a.checkpoint_id, a.scope_id) in (
                    select (component_id, checkpoint_id, scope_id) from fct_role_memberships
                    where role = 'relation_answer')::int,
                (a.component_id, a.checkpoint_id, a.scope_id) in (
                    select (component_id, checkpoint_id, scope_id) from fct_role_specificities
                    where scope_kind = 'relation' and is_specific)::int
            from fct_component_activities as a join dim_checkpoints using (checkpoint_id)
            where scope_kind = 'relation'"""
        )
    )
    shown = sorted(
        (component["name"], index, data["relations"][relation], *rest)
        for component in data["components"]
        for index, rows in zip(data["activityAt"], component["activity"], strict=True)
        for relation, *rest in rows
    )
    assert shown == expected


def test_examples_are_the_mart(site: Site, hostile_site: Site) -> None:
    for rendered in (site, hostile_site):
        shown = {name: found for name, found in examples_of(data_of(rendered)).items() if found}
        expected: dict[str, list[tuple[str, str, str]]] = {}
        for name, *parts in rendered.query(
            """select component_id, sentence_before, token, sentence_after from fct_component_examples
            order by component_id, example_rank"""
        ):
            expected.setdefault(name, []).append((parts[0], parts[1], parts[2]))
        assert shown == expected
    tokens = {token for found in examples_of(data_of(hostile_site)).values() for _, token, _ in found}
    assert HOSTILE[" capital"] in tokens


# Cases at the edge


def test_a_checkpoint_without_attributions_is_left_out(page: Callable[..., PageReader]) -> None:
    """The middle one: what follows it is counted by what was measured, and so is the last one's history."""
    first = "(select checkpoint_id from dim_checkpoints where checkpoint_index = 0)"
    missing = "(select checkpoint_id from dim_checkpoints where checkpoint_index = 1)"
    found = page(
        f"""update fct_component_histories set role_since_checkpoint_id = {first}
        where role_since_checkpoint_id = {missing}""",
        f"delete from fct_component_histories where checkpoint_id = {missing}",
    )
    data = found.json("component-data")
    assert data["names"] == ["step0", "main"]
    assert all(len(component["roles"]) == 2 and max(component["since"]) < 2 for component in data["components"])
    assert found.body("components-histories")


def test_the_last_checkpoint_may_lack_attributions(page: Callable[..., PageReader]) -> None:
    marts = ("fct_component_histories", "fct_component_activities", "fct_role_memberships", "fct_component_examples")
    last = "(select checkpoint_id from dim_checkpoints where checkpoint_index = 2)"
    found = page(*(f"delete from {mart} where checkpoint_id = {last}" for mart in marts))
    data = found.json("component-data")
    assert data["names"] == ["step0", "step100-tokens1B"]
    assert len(found.body("components-histories")) == len(data["components"])
    assert "step 100" in found.text and "0 examples of 0 components." in found.text


def test_a_model_of_heads_only_and_a_release_without_a_mart(page: Callable[..., PageReader]) -> None:
    found = page("delete from fct_component_histories where component_kind = 'ffn'")
    assert all("F" not in component["name"] for component in found.json("component-data")["components"])
    assert "holds no component histories" in page("delete from fct_component_histories").text
    assert "does not hold fct_component_examples." in page("drop table fct_component_examples").text


def test_too_many_activities_are_kept_for_the_last_checkpoint(
    page: Callable[..., PageReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(map_data, "_EVERY_CHECKPOINT_LIMIT", 10)
    data = page().json("component-data")
    assert data["activityAt"] == [2] and all(len(row["activity"]) == 1 for row in data["components"])
    monkeypatch.setattr(map_data, "_ONE_CHECKPOINT_LIMIT", 10)
    data = page().json("component-data")
    assert data["activityAt"] == [] and not any(row["activity"] for row in data["components"])
    monkeypatch.setattr(map_data, "_BYTE_LIMIT", 10)
    data = page().json("component-data")
    assert data["examplesPerComponent"] == 0 and all(row["rates"] is None for row in data["components"])


# In the browser


@needs_browser
def test_a_component_is_found_by_its_name(window: Window, site: Site) -> None:
    opened = window.open(site.folder / "components.html")
    message = opened.locator("#component-message")
    opened.fill("#component-search", " l1h2 ")
    opened.press("#component-search", "Enter")
    assert opened.locator("#component-detail h3").inner_text().startswith("L1H2:")
    assert "L1H2" in (opened.locator("td[aria-selected=true]").get_attribute("title") or "")
    assert message.inner_text() == "L1H2 is shown."
    opened.fill("#component-search", "L99<b>H1")
    opened.click("#component-show")
    assert "There is no component “L99<b>H1” here." in message.inner_text()
    assert opened.locator("#component-detail h3").inner_text().startswith("L1H2:"), "what was shown stays"


@needs_browser
@pytest.mark.parametrize("kind", ["site", "hostile_site"])
def test_a_link_leads_back_to_component_and_checkpoint(
    window: Window, kind: str, request: pytest.FixtureRequest
) -> None:
    """Names that try to break out of the address too; the back of the browser is not filled."""
    rendered: Site = request.getfixturevalue(kind)
    data = data_of(rendered)
    opened = window.open(rendered.folder / "components.html")
    entries = opened.evaluate("history.length")
    opened.locator("td[data-component]").nth(3).click()
    opened.locator("#map-checkpoint").focus()
    for _ in range(2):
        opened.keyboard.press("ArrowLeft")
    name = opened.locator("#component-detail h3").inner_text()
    address = opened.url
    assert opened.evaluate("history.length") == entries
    opened.keyboard.press("ArrowRight")
    assert opened.url != address
    opened.keyboard.press("ArrowRight")  # the last checkpoint, whose name is hostile
    last = opened.url
    for url, index in ((address, 0), (last, 2)):
        opened.goto("about:blank")
        opened.goto(url)
        assert opened.locator("#map-checkpoint").input_value() == str(index)
        assert opened.locator("#map-checkpoint-name").inner_text() == data["checkpoints"][index].strip()
        assert opened.locator("#component-detail h3").inner_text() == name
    assert opened.evaluate("window.pwned") is None


@needs_browser
def test_a_link_to_what_is_not_there_says_so(window: Window, site: Site) -> None:
    path = (site.folder / "components.html").as_uri()
    opened = window.page
    opened.goto(f"{path}#component=L77H7&checkpoint=main")
    assert "no component “L77H7” here" in opened.locator("#component-message").inner_text()
    opened.evaluate("location.hash = 'component=L0F&checkpoint=step9'")
    opened.wait_for_function("document.querySelector('#component-detail h3')?.textContent.startsWith('L0F:')")
    assert "no checkpoint “step9” here" in opened.locator("#component-message").inner_text()


@needs_browser
def test_the_detail_shows_activity_and_certainty_of_the_chosen_checkpoint(window: Window, site: Site) -> None:
    opened = window.open(site.folder / "components.html")
    data = data_of(site)
    number, component = next(
        (number, row) for number, row in enumerate(data["components"])
        if len({str(cells) for cells in row["activity"]}) == 3
    )  # fmt: skip
    opened.locator(f"td[data-component='{number}']").click()
    for index in range(3):
        opened.locator("#map-checkpoint").fill(str(index))
        rows = opened.locator("#component-detail .relations tbody tr").all_inner_texts()
        assert len(rows) == len(component["activity"][index]) == 2
        for text, (relation, rate, *_) in zip(rows, component["activity"][index], strict=True):
            assert data["relations"][relation] in text and f"{rate / 1000:.2f} (" in text
        sure = component["confidence"][index]
        assert sure is None or f"{sure / 10:.1f}" in opened.locator("#component-detail .rates").first.inner_text()
