"""Files of facts of any shape: relations whose prompts say what was written, or a refusal that names the file."""

import json
import math
from functools import cache
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import train_tokenizer
from tests.robustness.hostile import files_like, fuzzed, refusal
from timecourse.extract.facts import Relation, facts_sha256, load_relations
from timecourse.extract.prompts import build_prompts

VALID = {
    "name": "capital of",
    "group": "location",
    "prompt_templates": ["The capital of {} is", "{} has the capital"],
    "properties": {"relation_type": "factual"},
    "samples": [
        {"subject": "France", "object": "Paris", "frequency": 12},
        {"subject": "Peru", "object": "Lima", "frequency": 0.5},
        {"subject": "Peru", "object": "Cusco"},
    ],
}


def use(relations: list[Relation]) -> None:
    """What is done with relations before a tokenizer sees them."""
    assert len({relation.relation_id for relation in relations}) == len(relations) > 0
    assert len(facts_sha256(relations)) == 64
    for relation in relations:
        ids = [relation.fact_id(fact) for fact in relation.samples]
        assert len(set(ids)) == len(ids)
        for fact in relation.samples:
            assert all(math.isfinite(float(value)) for value in fact.covariates.values())
            for template in relation.prompt_templates:
                other = "x" * (len(template) + 1)  # occurs in no part of it
                assert template.format(fact.subject) == template.format(other).replace(other, fact.subject)


@fuzzed
@given(st.lists(files_like(VALID), min_size=1, max_size=2))
def test_files_of_any_content(tmp_path_factory, contents):
    directory = tmp_path_factory.mktemp("facts")
    for index, content in enumerate(contents):
        (directory / f"{index}.json").write_bytes(content)
    said = refusal(lambda: use(load_relations(directory)))
    assert said is None or ".json" in said


@pytest.mark.parametrize(
    "name",
    ["a\nb.json", "\x1b[31m.json", "-rf.json", "é" * 100 + ".json", b"\xff.json".decode(errors="surrogateescape")],
)
def test_a_file_of_any_name_is_named_in_one_line(tmp_path, name):
    (tmp_path / name).write_text("{")
    assert "is not JSON" in (refusal(lambda: load_relations(tmp_path)) or "")


@pytest.mark.parametrize("only", [["../capital_of"], [""], ["\0"], ["capital of", "\n"], ["x" * 10_000]])
def test_a_relation_that_is_not_there_is_named(tmp_path, only):
    (tmp_path / "0.json").write_text(json.dumps(VALID))
    said = refusal(lambda: load_relations(tmp_path, only))
    assert only == ["../capital_of"] or "unknown relation" in (said or "")


@pytest.mark.parametrize(
    "template",
    ["{:.2} is", "{:>20} is", "{!r} is", "{:d} is", "{:{}} is", "{0} is", "{a.b} is", "{[0]} is", "{{}} is", "} {"],
)
def test_a_placeholder_leaves_the_subject_as_it_is(tmp_path, template):
    (tmp_path / "0.json").write_text(json.dumps(VALID | {"prompt_templates": [template]}))
    assert "exactly one {}" in (refusal(lambda: load_relations(tmp_path)) or "")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400])
def test_a_covariate_is_a_finite_number(tmp_path, number):
    (tmp_path / "0.json").write_text(json.dumps(VALID).replace("12", number))
    assert "the covariate 'frequency' is not finite" in (refusal(lambda: load_relations(tmp_path)) or "")


def test_arrows_do_not_make_two_facts_one(tmp_path):
    samples = [{"subject": "a", "object": "b -> c"}, {"subject": "a -> b", "object": "c"}]
    (tmp_path / "0.json").write_text(json.dumps(VALID | {"samples": samples}))
    assert len(load_relations(tmp_path)[0].samples) == 2


tokenizer = cache(train_tokenizer)


@fuzzed
@given(st.text("{}a ", max_size=8), st.text("{}a ", max_size=6), st.text("bc{}", min_size=1, max_size=5))
def test_the_tokens_called_the_subjects_are_the_subjects(before, after, subject):
    """Whatever braces a template escapes: the subject is where it was put."""
    before, after = f"In {before}", f"{after} is"
    escaped = "{}".join(part.replace("{", "{{").replace("}", "}}") for part in (before, after))
    samples = [{"subject": subject, "object": "Lima"}]
    relation = Relation.model_validate({"name": "r", "prompt_templates": [escaped], "samples": samples})
    (prompt,) = build_prompts([relation], tokenizer(), 1000)
    assert prompt.text == "".join(prompt.tokens) == f"{before}{subject}{after} Lima"
    begin, end = len(before) - before.endswith(" "), len(before) + len(subject)
    ends = list(accumulate(map(len, prompt.tokens)))
    wanted = [at - len(token) < end and begin < at for token, at in zip(prompt.tokens, ends, strict=True)]
    assert [role == "subject" for role in prompt.roles] == wanted
