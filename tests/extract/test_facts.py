"""Relation files: what is read, what makes a fact the same fact, and what is refused in one line."""

import json

import pytest

from timecourse.config import Facts
from timecourse.errors import UsageError, UserError
from timecourse.extract.facts import facts_sha256, load_relations


def content(**changes):
    return {
        "name": "capital of",
        "group": "location",
        "prompt_templates": ["The capital of {} is"],
        "properties": {"relation_type": "factual"},
        "samples": [{"subject": "France", "object": "Paris", "frequency": 3}, {"subject": "Peru", "object": "Lima"}],
    } | changes


def written(directory, *contents):
    for index, one in enumerate(contents):
        (directory / f"{index}.json").write_text(one if isinstance(one, str) else json.dumps(one), encoding="utf-8")
    return directory


def test_ids_covariates_and_selection(tmp_path):
    directory = written(tmp_path, content(), content(name="plays Sport"))
    relations = load_relations(directory)
    assert [relation.relation_id for relation in relations] == ["capital_of", "plays_sport"]
    assert relations[0].samples[0].covariates == {"frequency": 3}
    assert [relation.relation_id for relation in load_relations(directory, ["plays sport"])] == ["plays_sport"]
    ids = {relation.fact_id(fact) for relation in relations for fact in relation.samples}
    assert len(ids) == 4
    assert all(one.startswith(("capital_of/", "plays_sport/")) for one in ids)


def test_the_hash_changes_with_what_is_measured_only(tmp_path):
    def hash_of(name, **changes):
        (tmp_path / name).mkdir()
        return facts_sha256(load_relations(written(tmp_path / name, content(**changes))))

    plain = hash_of("plain")
    assert hash_of("properties", properties={"other": 1}) == plain
    assert hash_of("group", group="name") != plain
    assert hash_of("template", prompt_templates=["{} has the capital"]) != plain
    assert hash_of("samples", samples=[{"subject": "France", "object": "Paris"}]) != plain


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_templates": ["no placeholder"]}, "has 0 placeholders"),
        ({"prompt_templates": ["{} and {}"]}, "has 2 placeholders"),
        ({"prompt_templates": ["{name} is"]}, "exactly one {}"),
        ({"prompt_templates": ["{ is"]}, "exactly one {}"),
        ({"prompt_templates": []}, "prompt_templates"),
        ({"samples": []}, "samples"),
        ({"samples": [{"subject": " ", "object": "Paris"}]}, "samples.0.subject: must not be empty"),
        ({"samples": [{"subject": "France", "object": ""}]}, "samples.0.object: must not be empty"),
        ({"samples": [{"subject": "France"}]}, "samples.0.object"),
        ({"samples": [{"subject": "A", "object": "B"}] * 2}, "the fact 'A -> B' occurs 2 times"),
        ({"prompt_templates": ["{} is"] * 2}, "the template '{} is' occurs 2 times"),
        ({"name": "!?"}, "holds no letter or digit"),
    ],
)
def test_refused_in_one_line_that_names_the_file(tmp_path, changes, message):
    with pytest.raises(UserError) as error:
        load_relations(written(tmp_path, content(**changes)))
    assert message in str(error.value)
    assert str(error.value).startswith("0.json") and "\n" not in str(error.value)


def test_other_refusals(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_relations(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no relation"):
        load_relations(tmp_path)
    with pytest.raises(UserError, match="not JSON"):
        load_relations(written(tmp_path, "{"))
    with pytest.raises(UserError, match="already read"):
        load_relations(written(tmp_path, content(), content(name="Capital  of")))
    with pytest.raises(UsageError, match="unknown relation 'sport'; known: capital_of"):
        load_relations(written(tmp_path, content(), content(name="other")), ["sport"])


def test_the_facts_that_come_with_timecourse():
    """10 relations × 50 facts in the paper's two groups; no subject twice in a relation."""
    relations = load_relations(Facts().directory)
    assert len(relations) == 10
    assert {relation.group for relation in relations} == {"location", "name"}
    for relation in relations:
        assert len(relation.samples) >= 50
        assert len({fact.subject for fact in relation.samples}) == len(relation.samples)
