"""The gate before a commit: a valid extraction passes, and every rule finds the one defect that breaks it."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.expectations.extractions import LAYERS, PREDICTING, Tables, valid_extraction, write_extraction
from timecourse.checks import CheckResult
from timecourse.expectations import gate
from timecourse.expectations.gate import gate_extraction

Row = dict[str, Any]


def set_in(table: str, index: int = 0, **values: Any) -> Callable[[Tables], Row]:
    """A defect: other values in one row. Returns the row as it is then."""

    def spoil(tables: Tables) -> Row:
        tables[table][index].update(values)
        return tables[table][index]

    return spoil


def set_where(table: str, is_meant: Callable[[Row], bool], **values: Any) -> Callable[[Tables], Row]:
    """A defect: other values in the first row of a kind."""

    def spoil(tables: Tables) -> Row:
        row = next(row for row in tables[table] if is_meant(row))
        row.update(values)
        return row

    return spoil


def repeat(table: str, index: int, **values: Any) -> Callable[[Tables], Row]:
    """A defect: a row that is there twice, the second time with other values."""

    def spoil(tables: Tables) -> Row:
        tables[table].append({**tables[table][index], **values})
        return tables[table][-1]

    return spoil


def drop(table: str, is_meant: Callable[[Row], bool]) -> Callable[[Tables], Row]:
    """A defect: missing rows. Returns the first of them."""

    def spoil(tables: Tables) -> Row:
        missing = [row for row in tables[table] if is_meant(row)]
        tables[table] = [row for row in tables[table] if row not in missing]
        return missing[0]

    return spoil


def is_head(row: Row) -> bool:
    return "H" in row["component_id"]


def is_ffn(row: Row) -> bool:
    return not is_head(row)


def is_wrong(row: Row) -> bool:
    return bool(row["rank"] > 0)


def is_right(row: Row) -> bool:
    return bool(row["rank"] == 0)


def is_own(row: Row) -> bool:
    """Whether a row of predictions is about the model's own logits."""
    return bool(row["readout"] == LAYERS)


def leave_unmatched(prompt_ids: set[int]) -> Callable[[Tables], Row]:
    """A defect: some prompts have no mismatched subject."""

    def spoil(tables: Tables) -> Row:
        rows = [row for row in tables["predictions"] if row["prompt_id"] in prompt_ids and is_own(row)]
        for row in rows:
            row["log_prob_mismatched"] = None
        return rows[0]

    return spoil


def share_the_answer(tables: Tables) -> Row:
    """A defect: both facts of a relation have one object, so that no subject of it is mismatched."""
    tables["prompts"][0]["object"] = tables["prompts"][1]["object"]
    return tables["prompts"][0]


CHECKPOINT = ("checkpoint_id",)
PROMPT = ("prompt_id",)
TOKEN = ("prompt_id", "position")
ACTIVE = ("tau_id", "prompt_id", "position", "component_id")
PART = ("prompt_id", "position", "component_id")
READ = ("prompt_id", "answer_token_index", "readout")

# rule, defect, and the columns by which the failing row must be the spoiled one
DEFECTS: list[tuple[str, Callable[[Tables], Row], tuple[str, ...]]] = [
    ("checkpoint.has_one_row", repeat("checkpoint", 0), ()),
    ("checkpoint.id_is_series_and_name", set_in("checkpoint", checkpoint_name="step2"), ("checkpoint_name",)),
    ("checkpoint.extraction_is_one", set_in("predictions", 5, extraction_id="e1"), ("extraction_id",)),
    ("checkpoint.sizes_are_positive", set_in("checkpoint", kv_head_count=0), ("kv_head_count",)),
    ("checkpoint.block_is_known", set_in("checkpoint", topology="woven_pre_norm"), ("topology",)),
    ("checkpoint.taus_are_named_shares", set_in("checkpoint", taus=[0.01, 1.0]), CHECKPOINT),
    ("checkpoint.prompts_are_all_there", set_in("checkpoint", prompt_count=7), ("prompt_count",)),
    ("checkpoint.completeness", set_in("checkpoint", completeness_error_max=2e-4), CHECKPOINT),
    ("checkpoint.completeness", set_in("checkpoint", completeness_error_max=math.nan), CHECKPOINT),
    ("checkpoint.completeness", set_in("checkpoint", dtype="float8"), ("dtype",)),
    ("checkpoint.lens_reads_the_model", set_in("checkpoint", lens_error_max=2e-4), CHECKPOINT),
    ("checkpoint.degenerate_share", set_in("checkpoint", degenerate_share=0.6), ("degenerate_share",)),
    ("checkpoint.degenerate_share_is_small", set_in("checkpoint", degenerate_share=0.2), ("degenerate_share",)),
    ("prompts.key_is_unique", repeat("prompts", 3), PROMPT),
    ("prompts.numbers_are_contiguous", set_in("prompts", 5, prompt_id=9), PROMPT),
    ("prompts.texts_are_filled", set_in("prompts", 1, subject=" "), PROMPT),
    ("prompts.template_has_one_hole", set_in("prompts", 1, template="{} and {}"), ("prompt_id", "template")),
    ("prompts.fact_is_one_thing", set_in("prompts", 2, object="chess"), ("fact_id",)),
    ("prompts.fact_is_asked_in_every_template", drop("prompts", lambda row: row["prompt_id"] == 4), ("fact_id",)),
    ("prompts.prompt_is_asked_once", repeat("prompts", 3, prompt_id=6), ("fact_id", "template_id")),
    ("prompt_tokens.key_is_unique", repeat("prompt_tokens", 8), TOKEN),
    ("prompt_tokens.prompt_is_known", repeat("prompt_tokens", 0, prompt_id=77), TOKEN),
    ("prompt_tokens.positions_are_contiguous", set_in("prompt_tokens", 5, position=6), TOKEN),
    ("prompt_tokens.token_is_in_vocabulary", set_in("prompt_tokens", 7, token_id=20), (*TOKEN, "token_id")),
    ("prompt_tokens.span_role_is_known", set_in("prompt_tokens", 7, span_role="object"), (*TOKEN, "span_role")),
    ("prompt_tokens.special_is_special", set_in("prompt_tokens", 7, is_special=True), TOKEN),
    ("prompt_tokens.answers_are_predicted", set_in("prompt_tokens", 3, is_answer_predicting=False), TOKEN),
    ("prompt_tokens.prompt_has_a_subject", set_in("prompt_tokens", 2, span_role="template"), PROMPT),
    (
        "prompt_tokens.prompt_has_an_answer",
        drop("prompt_tokens", lambda row: row["prompt_id"] == 2 and row["span_role"] == "answer"),
        PROMPT,
    ),
    ("prompt_tokens.prompt_has_an_answer", drop("prompt_tokens", lambda row: row["prompt_id"] == 2), PROMPT),
    ("prompt_tokens.prompt_predicts_its_answer", set_in("prompt_tokens", 4, is_answer_predicting=False), PROMPT),
    ("attributions.key_is_unique", repeat("attributions", 11), ACTIVE),
    ("attributions.position_is_known", set_in("attributions", 11, position=6), ACTIVE),
    ("attributions.position_is_known", set_in("attributions", 11, prompt_id=6), ACTIVE),
    ("attributions.target_is_not_special", set_in("attributions", 11, position=0), ACTIVE),
    ("attributions.component_is_known", set_in("attributions", 11, component_id="L0H2"), ACTIVE),
    ("attributions.component_is_known", set_in("attributions", 11, component_id="L2F"), ACTIVE),
    ("attributions.tau_is_known", set_in("attributions", 11, tau_id="0.1"), ACTIVE),
    ("attributions.numbers_are_finite", set_in("attributions", 11, score=math.nan), ACTIVE),
    ("attributions.numbers_are_finite", set_in("attributions", 11, score=math.inf), ACTIVE),
    ("attributions.score_is_positive", set_in("attributions", 11, score=0.0), ACTIVE),
    ("attributions.score_is_bounded", set_in("attributions", 11, score=7.0), ACTIVE),
    ("attributions.peak_is_a_share", set_in("attributions", 11, peak=0.0), ACTIVE),
    ("attributions.peak_is_a_share", set_in("attributions", 11, peak=1.001, score=1.001), ACTIVE),
    ("attributions.edges_are_counted", set_in("attributions", 11, edges=0), ACTIVE),
    ("attributions.peak_is_the_largest_term", set_in("attributions", 11, peak=0.6, score=0.5), ACTIVE),
    ("attributions.peak_is_the_largest_term", set_in("attributions", 11, peak=0.2, edges=2, score=0.5), ACTIVE),
    ("attributions.direct_is_not_negative", set_in("attributions", 11, score_direct=-0.1), ACTIVE),
    ("attributions.direct_is_part_of_score", set_in("attributions", 11, score_direct=1.5), ACTIVE),
    ("attributions.heads_split_by_key", set_where("attributions", is_head, score_first=0.9), ACTIVE),
    ("attributions.heads_split_by_key", set_where("attributions", is_head, score_first=None), ACTIVE),
    ("attributions.split_is_not_negative", set_where("attributions", is_head, score_first=-0.1), ACTIVE),
    ("attributions.ffns_are_not_split", set_where("attributions", is_ffn, score_first=0.1), ACTIVE),
    ("contributions.key_is_unique", repeat("contributions", 9), PART),
    ("contributions.component_is_known", set_in("contributions", 9, component_id="L0RH"), PART),
    ("contributions.position_predicts_an_answer", set_in("contributions", 9, position=1), PART),
    ("contributions.rows_are_complete", drop("contributions", lambda row: row["prompt_id"] == 3), ("prompt_id",)),
    (
        "contributions.rows_are_complete",
        drop("contributions", lambda row: row["prompt_id"] == 3 and row["component_id"] == "L1RF"),
        ("prompt_id", "position"),
    ),
    ("contributions.contribution_is_a_share", set_in("contributions", 15, c_direct=-0.01), PART),
    ("contributions.contribution_is_a_share", set_in("contributions", 15, c_direct=math.nan), PART),
    ("contributions.shares_add_up", set_in("contributions", 15, c_direct=0.0), ("prompt_id", "position")),
    ("contributions.residuals_carry_the_norm", set_in("contributions", 0, stream_norm=1.0), PART),
    (
        "contributions.residuals_carry_the_norm",
        set_where("contributions", lambda row: row["component_id"] == "L1RA", stream_norm=None),
        PART,
    ),
    ("predictions.key_is_unique", repeat("predictions", 6), READ),
    ("predictions.readouts_are_complete", drop("predictions", lambda row: row["prompt_id"] == 1), PROMPT),
    (
        "predictions.readouts_are_complete",
        drop("predictions", lambda row: row["readout"] == 0 and row["prompt_id"] == 2),
        ("prompt_id", "answer_token_index"),
    ),
    ("predictions.answer_token_is_known", set_in("predictions", 6, answer_token_index=2), READ),
    ("predictions.readout_is_known", set_in("predictions", 6, readout=3), READ),
    ("predictions.position_predicts_the_token", set_in("predictions", 6, position=5), READ),
    ("predictions.rank_is_in_vocabulary", set_in("predictions", 6, rank=20), READ),
    ("predictions.rank_is_in_vocabulary", set_in("predictions", 6, rank=-1), READ),
    ("predictions.rank_in_relation_is_part_of_rank", set_where("predictions", is_right, rank_in_relation=1), READ),
    ("predictions.numbers_are_finite", set_in("predictions", 6, log_prob=-math.inf), READ),
    ("predictions.numbers_are_finite", set_in("predictions", 6, entropy=math.nan), READ),
    ("predictions.log_prob_is_not_positive", set_in("predictions", 6, log_prob=0.01), READ),
    ("predictions.log_prob_fits_rank", set_where("predictions", is_wrong, log_prob=-0.5), READ),
    (
        "predictions.log_prob_mismatched_is_not_positive",
        set_where("predictions", is_own, log_prob_mismatched=0.1),
        READ,
    ),
    (
        "predictions.log_prob_mismatched_is_not_positive",
        set_where("predictions", is_own, log_prob_mismatched=math.nan),
        READ,
    ),
    (
        "predictions.log_prob_mismatched_is_not_positive",
        set_where("predictions", is_own, log_prob_mismatched=-math.inf),
        READ,
    ),
    ("predictions.mismatched_is_the_models_own", set_in("predictions", 6, log_prob_mismatched=-1.0), READ),
    ("predictions.mismatched_is_a_whole_answer", set_where("predictions", is_own, log_prob_mismatched=None), PROMPT),
    ("predictions.mismatched_where_a_subject_is", leave_unmatched({3}), PROMPT),
    ("predictions.mismatched_where_a_subject_is", share_the_answer, PROMPT),
    ("predictions.rank_0_is_top_1", set_where("predictions", is_wrong, rank=0), READ),
    ("predictions.rank_0_is_top_1", set_where("predictions", is_right, rank=1), READ),
    ("predictions.top_1_is_in_vocabulary", set_in("predictions", 6, top1_token_id=20), READ),
    ("predictions.entropy_is_not_negative", set_in("predictions", 6, entropy=-0.1), READ),
    ("predictions.entropy_is_bounded", set_in("predictions", 6, entropy=3.1), READ),
]


def by_rule(results: list[CheckResult]) -> dict[str, CheckResult]:
    return {result.check_id.removeprefix("raw."): result for result in results}


TOPOLOGIES = ("sequential_pre_norm", "sequential_post_norm", "sequential_sandwich_norm", "parallel_pre_norm")


@pytest.mark.parametrize("has_attention_bias", [False, True])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_valid_extraction_passes(tmp_path: Path, topology: str, has_attention_bias: bool) -> None:
    tables = valid_extraction(topology, has_attention_bias)
    assert ("L1BA" in {row["component_id"] for row in tables["contributions"]}) == has_attention_bias
    results = gate_extraction(write_extraction(tmp_path / "a=b [1]*", tables))
    assert [result for result in results if result.result != "pass"] == []
    assert {result.checkpoint_id for result in results} == {"tiny/step1"}
    assert {result.stage for result in results} == {"raw"}
    found = by_rule(results)
    assert len(found) == len(results)
    assert found["predictions.log_prob_is_not_positive"].observed.startswith("-")
    assert "no rows" not in {result.observed for result in results}


def test_every_rule_has_a_defect() -> None:
    rules = {f"{table}.{rule.rule_id}" for table, rules in gate._RAW_TABLES.items() for rule in rules}
    assert rules == {rule for rule, _, _ in DEFECTS}


@pytest.mark.parametrize(
    ("rule", "spoil", "columns"), DEFECTS, ids=[f"{i}-{rule[0]}" for i, rule in enumerate(DEFECTS)]
)
def test_a_rule_finds_its_defect(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rule: str,
    spoil: Callable[[Tables], Row],
    columns: tuple[str, ...],
) -> None:
    # only the suite of its own table runs: all six for every defect would take a minute
    own = {table: rules if rule.startswith(f"{table}.") else () for table, rules in gate._RAW_TABLES.items()}
    monkeypatch.setattr(gate, "_RAW_TABLES", own)
    tables = valid_extraction()
    spoiled = spoil(tables)
    result = by_rule(gate_extraction(write_extraction(tmp_path, tables)))[rule]
    assert result.result == result.severity
    failing = json.loads(result.failing_rows)
    assert result.failing_row_count >= 1
    assert len(failing) == min(result.failing_row_count, 20)
    meant = {column: spoiled[column] for column in columns}
    assert any(all(row[column] == value for column, value in meant.items()) for row in failing), (meant, failing)


def test_only_warnings_do_not_stop(tmp_path: Path) -> None:
    tables = valid_extraction()
    tables["checkpoint"][0]["degenerate_share"] = 0.2
    found = {result.result for result in gate_extraction(write_extraction(tmp_path, tables))}
    assert found == {"pass", "warn"}


def test_failing_rows_are_counted_in_full_and_listed_up_to_twenty(tmp_path: Path) -> None:
    tables = valid_extraction()
    for row in tables["attributions"]:
        row["peak"] = -1.0
    result = by_rule(gate_extraction(write_extraction(tmp_path, tables)))["attributions.peak_is_a_share"]
    assert result.failing_row_count == len(tables["attributions"]) > 20
    assert len(json.loads(result.failing_rows)) == 20
    assert result.observed == "-1"


def test_an_empty_route_is_no_defect(tmp_path: Path) -> None:
    tables = valid_extraction()
    tables["attributions"] = []
    results = gate_extraction(write_extraction(tmp_path, tables))
    assert {(result.result, result.failing_row_count) for result in results} == {("pass", 0)}
    assert by_rule(results)["attributions.score_is_positive"].observed == "no rows"


def in_one_place(component_id: str) -> Callable[[Row], bool]:
    """Whether a row is this component's at one certain position of one prompt."""
    return lambda row: all(row[key] == value for key, value in zip(PART, (1, PREDICTING[0], component_id), strict=True))


def one_layer(tables: Tables) -> dict[str, Row]:
    """The contributions of one layer in that place, by component."""
    parts = {row["component_id"] for row in tables["contributions"] if row["component_id"].startswith("L1")}
    return {part: next(filter(in_one_place(part), tables["contributions"])) for part in parts}


def add_residual_after_attention(tables: Tables) -> Row:
    """A defect: a residual in an FFN sum, which a parallel block does not have."""
    tables["contributions"].append({**one_layer(tables)["L1RA"], "component_id": "L1RF", "c_direct": 0.0})
    return tables["contributions"][-1]


def split_in_two_sums(tables: Tables) -> Row:
    """A defect: the parts of a parallel layer but for the FFN are 1 together, as in a sequential one."""
    layer = one_layer(tables)
    for row in layer.values():
        row["c_direct"] /= 1 - layer["L1F"]["c_direct"]
    return layer["L1F"]


def join_in_one_sum(tables: Tables) -> Row:
    """A defect: the two sums of a sequential layer are 1 together, as in a parallel one."""
    layer = one_layer(tables)
    for row in layer.values():
        row["c_direct"] /= 2
    return layer["L1F"]


# block, defect, and the rules that it breaks: these and no others
BLOCK_DEFECTS: list[tuple[str, Callable[[Tables], Row], set[str]]] = [
    (
        "parallel_pre_norm",
        add_residual_after_attention,
        {"component_is_known", "rows_are_complete", "residuals_carry_the_norm"},
    ),
    ("parallel_pre_norm", drop("contributions", in_one_place("L1RA")), {"rows_are_complete", "shares_add_up"}),
    ("parallel_pre_norm", drop("contributions", in_one_place("L1F")), {"rows_are_complete", "shares_add_up"}),
    ("parallel_pre_norm", split_in_two_sums, {"shares_add_up"}),
    ("sequential_pre_norm", drop("contributions", in_one_place("L1RF")), {"rows_are_complete", "shares_add_up"}),
    ("sequential_post_norm", join_in_one_sum, {"shares_add_up"}),
]


@pytest.mark.parametrize("has_attention_bias", [False, True])
@pytest.mark.parametrize(("topology", "spoil", "rules"), BLOCK_DEFECTS)
def test_a_block_has_its_own_sums(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    topology: str,
    spoil: Callable[[Tables], Row],
    rules: set[str],
    has_attention_bias: bool,
) -> None:
    own = {table: known if table == "contributions" else () for table, known in gate._RAW_TABLES.items()}
    monkeypatch.setattr(gate, "_RAW_TABLES", own)
    tables = valid_extraction(topology, has_attention_bias)
    spoil(tables)
    results = by_rule(gate_extraction(write_extraction(tmp_path, tables)))
    assert {rule for rule, result in results.items() if result.result == "fail"} == {
        f"contributions.{rule}" for rule in rules
    }


@pytest.mark.parametrize(
    ("written", "named"), [("parallel_pre_norm", "sequential"), ("sequential_pre_norm", "parallel")]
)
def test_rows_of_the_other_block_fail(tmp_path: Path, written: str, named: str) -> None:
    tables = valid_extraction(written)
    tables["checkpoint"][0]["topology"] = f"{named}_pre_norm"
    assert "fail" in {result.result for result in gate_extraction(write_extraction(tmp_path, tables))}


@pytest.mark.parametrize("topology", ["sequential_post_norm", "parallel_pre_norm"])
def test_a_bias_has_a_row_at_every_position_or_at_none(tmp_path: Path, topology: str) -> None:
    tables = valid_extraction(topology, has_attention_bias=True)
    missing = drop("contributions", in_one_place("L1BA"))(tables)
    result = by_rule(gate_extraction(write_extraction(tmp_path, tables)))["contributions.rows_are_complete"]
    assert result.result == "fail"
    assert json.loads(result.failing_rows)[0]["position"] == missing["position"]


def test_half_precision_may_tie(tmp_path: Path) -> None:
    tables = valid_extraction()
    row = next(row for row in tables["predictions"] if is_right(row))
    row.update(top1_token_id=(row["top1_token_id"] + 1) % 20, log_prob=math.log(0.4), rank_in_relation=0)
    rule = "predictions.rank_0_is_top_1"
    assert by_rule(gate_extraction(write_extraction(tmp_path / "float32", tables)))[rule].result == "fail"
    tables["checkpoint"][0]["dtype"] = "bfloat16"
    assert by_rule(gate_extraction(write_extraction(tmp_path / "bfloat16", tables)))[rule].result == "pass"


def test_no_subject_is_mismatched_where_all_have_the_answer(tmp_path: Path) -> None:
    """Prompts 0 and 1 then have the one object of their relation, and are asked after no other subject."""
    tables = valid_extraction()
    share_the_answer(tables)
    leave_unmatched({0, 1})(tables)
    assert {result.result for result in gate_extraction(write_extraction(tmp_path, tables))} == {"pass"}


def test_a_mismatched_subject_may_be_too_long(tmp_path: Path) -> None:
    """Prompt 3 has a subject to be asked after, that of prompt 5: with one token more it would make 3 the longest."""
    rule = "predictions.mismatched_where_a_subject_is"
    tables = valid_extraction()
    leave_unmatched({3})(tables)
    assert by_rule(gate_extraction(write_extraction(tmp_path / "fits", tables)))[rule].result == "fail"
    answer = (5, PREDICTING[0] + 1)
    set_where("prompt_tokens", lambda row: (row["prompt_id"], row["position"]) == answer, span_role="subject")(tables)
    assert by_rule(gate_extraction(write_extraction(tmp_path / "too long", tables)))[rule].result == "pass"


def test_an_extraction_of_the_first_schema_version_passes(tmp_path: Path) -> None:
    """It has no column of mismatched subjects, and need not have one; one of the second version does."""
    tables = valid_extraction()
    for version, verdict in ((1, "pass"), (2, "fail")):
        tables["checkpoint"][0]["schema_version"] = version
        file = write_extraction(tmp_path / str(version), tables) / "predictions.parquet"
        pq.write_table(pq.read_table(file).drop_columns(["log_prob_mismatched"]), file)
        results = by_rule(gate_extraction(file.parent))
        assert results["predictions.mismatched_where_a_subject_is"].result == verdict
        assert {result.result for result in results.values()} == {"pass", verdict}


@pytest.mark.parametrize("damage", ["missing", "torn"])
def test_a_file_that_cannot_be_read_fails(tmp_path: Path, damage: str) -> None:
    file = write_extraction(tmp_path, valid_extraction()) / "contributions.parquet"
    content = file.read_bytes()
    file.unlink()
    if damage == "torn":
        file.write_bytes(content[: len(content) // 2])
    results = gate_extraction(tmp_path)
    assert {result.table_name: result.result for result in results if result.result != "pass"} == {
        "contributions": "fail"
    }
    failed = next(result for result in results if result.result == "fail")
    assert json.loads(failed.failing_rows)[0]["file"] == "contributions.parquet"


def test_a_missing_column_fails_instead_of_raising(tmp_path: Path) -> None:
    file = write_extraction(tmp_path, valid_extraction()) / "predictions.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["rank"]), file)
    result = by_rule(gate_extraction(tmp_path))["predictions.rank_is_in_vocabulary"]
    assert result.result == "fail"
    assert "rank" in result.observed


def test_it_is_silent_and_leaves_nothing_behind(tmp_path: Path) -> None:
    extraction = write_extraction(tmp_path / "extraction", valid_extraction())
    (tmp_path / "home").mkdir()
    program = (
        "import sys; from pathlib import Path; from timecourse.expectations.gate import gate_extraction\n"
        "assert 'great_expectations' not in sys.modules, 'imported before it is needed'\n"
        "assert {result.result for result in gate_extraction(Path(sys.argv[1]))} == {'pass'}"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program, str(extraction)],
        cwd=tmp_path / "home",
        env={"HOME": str(tmp_path / "home"), "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")
    assert list((tmp_path / "home").iterdir()) == []
