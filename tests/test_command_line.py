"""Commands that read a release, settings by file and by flag, and errors in one line."""

import json
import shutil

import polars as pl
import pytest

from timecourse.config import load_settings
from timecourse.errors import UsageError


def lake_of(release):
    return release.parent.parent


def test_the_small_demo_goes_the_whole_way_and_then_has_nothing_to_do(run, pretrained, tmp_path):
    shutil.copytree(pretrained, tmp_path / "demo")
    done = run("demo", "--small", "--directory", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    assert "pre-training" not in done.stdout
    lake = tmp_path / "demo" / "lake"
    query = "select all_tokens_accuracy from fct_relation_accuracies where scope_kind = 'all' order by 1"
    shares = [
        row["all_tokens_accuracy"] for row in json.loads(run("sql", query, "--lake", lake, "--format", "json").stdout)
    ]
    assert len(shares) == 6 and shares[0] == 0 and shares[-1] >= 0.9
    assert str(lake / "current" / "site" / "index.html") in done.stdout and "facts known" in done.stdout
    assert "nothing to do" in run("demo", "--small", "--directory", tmp_path / "demo").stdout


def test_the_table_of_families(run):
    shown = run("families")
    assert shown.returncode == 0 and shown.stderr == ""
    assert "GPT-NeoX" in shown.stdout and "parallel or sequential" in shown.stdout
    assert "Not verified for any family:" in shown.stdout
    rows = json.loads(run("families", "--format", "json").stdout)
    assert {"olmo", "olmo2", "gpt_neox", "smollm3"} <= {row["model_type"] for row in rows}
    assert all(0 < row["error_float32"] < 1e-5 < row["error_bfloat16"] < 2e-2 for row in rows)
    refused = run("families", "--verify", "--device", "cuda:99")
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1


def test_sql_as_table_csv_json_and_parquet(run, small_release, tmp_path):
    lake = lake_of(small_release)
    query = "select component_id, layer from dim_components where component_kind = 'ffn' order by layer"
    table = run("sql", query, "--lake", lake)
    assert table.returncode == 0 and "L2F" in table.stdout and "3 rows" in table.stdout
    assert run("sql", query, "--lake", lake, "--format", "csv").stdout == "component_id,layer\nL0F,0\nL1F,1\nL2F,2\n"
    as_json = json.loads(run("sql", query, "--lake", lake, "--format", "json").stdout)
    assert as_json[1] == {"component_id": "L1F", "layer": 1}
    output = tmp_path / "rows.parquet"
    assert run("sql", query, "--lake", lake, "--format", "parquet", "--output", output).returncode == 0
    assert pl.read_parquet(output)["component_id"].to_list() == ["L0F", "L1F", "L2F"]


@pytest.mark.parametrize(
    "statement", ["select * from nowhere", "selec 1", "drop table dim_series", "create table x (y int)"]
)
def test_sql_errors_are_one_line(run, small_release, statement):
    done = run("sql", statement, "--lake", lake_of(small_release))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


_FILE = "file system operations are disabled"
_READ_ONLY = "read-only mode"
_LOCKED = "configuration has been locked"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("attach ':memory:' as other", _READ_ONLY),
        ("attach 'other.duckdb' as other", _FILE),
        ("copy (select 1) to 'out.csv'", _FILE),
        ("copy dim_components from 'secret.csv'", _FILE),
        ("export database 'out'", _FILE),
        ("import database 'out'", _FILE),
        ("select * from read_csv('/etc/passwd')", _FILE),
        ("select * from read_text('secret.csv')", _FILE),
        ("select * from read_blob('secret.csv')", _FILE),
        ("select * from read_json('secret.csv')", _FILE),
        ("select * from read_parquet('https://example.org/x.parquet')", "disabled"),
        ("select * from sniff_csv('secret.csv')", _FILE),
        ("select * from glob('/etc/*')", _FILE),
        ("select * from '/etc/hostname'", "does not exist"),
        ("select * from 'secret.csv'", _FILE),
        ("select * from query('from read_text(''secret.csv'')')", _FILE),
        ("install httpfs", "--unsafe allows it"),
        ("load httpfs", "--unsafe allows it"),
        ("load 'secret.duckdb_extension'", "--unsafe allows it"),
        ("create secret mine (type s3, secret 'x')", "httpfs extension"),
        ("pragma enable_external_access=true", _LOCKED),
        ("set enable_external_access=true", _LOCKED),
        ("set lock_configuration=false", _LOCKED),
        ("reset lock_configuration", _LOCKED),
        ("set python_enable_replacements=true", _LOCKED),
        ("set temp_directory='out'", _LOCKED),
        ("pragma profiling_output='out'", _LOCKED),
        ("select 1; set enable_external_access=true; select * from read_text('secret.csv')", _LOCKED),
        ("create table mine (x int)", _READ_ONLY),
        ("create view mine as select 1", _READ_ONLY),
        ("insert into dim_components from dim_components", _READ_ONLY),
        ("update dim_components set layer = 9", _READ_ONLY),
        ("delete from dim_components", _READ_ONLY),
        ("drop table dim_components", _READ_ONLY),
        ("select getenv('HOME')", "getenv does not exist"),
        ("select * from lake", "Table with name lake does not exist"),  # a variable where the statement is run
        ("select * from rows", "Table with name rows does not exist"),
        ("select interval 1 day", "type that is not supported; cast it"),
    ],
)
def test_a_statement_reaches_nothing_but_the_release(run, small_release, tmp_path, statement, message):
    (tmp_path / "secret.csv").write_text("hush\n")
    done = run("sql", statement, "--lake", lake_of(small_release), cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert message in done.stderr and "hush" not in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["secret.csv"]
    assert not list(small_release.glob("warehouse.duckdb?*"))


@pytest.mark.parametrize(
    "statement",
    [
        "describe dim_components",
        "show tables",
        "summarize dim_components",
        "from dim_components",
        "pivot dim_components on component_kind using count(*) group by layer",
        """select '{"a": [1, 2]}'::json ->> '$.a[1]', list_transform([1, 2], lambda x: x + 1), now()""",
        "explain from dim_components",
        "select md5(i::varchar) as a from range(100000) t(i) order by a",
    ],
)
def test_ordinary_statements_need_no_leave(run, small_release, statement):
    done = run("sql", statement, "--lake", lake_of(small_release), "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) and not list(small_release.glob("warehouse.duckdb?*"))


def test_unsafe_reaches_files_but_the_release_stays_read_only(run, small_release, tmp_path):
    flags = ["--lake", lake_of(small_release), "--unsafe", "--format", "json"]
    copied = run("sql", "copy dim_components to 'out.csv'", *flags, cwd=tmp_path)
    assert copied.returncode == 0, copied.stderr
    same = "select (select count(*) from 'out.csv') = count(*) as same from dim_components"
    assert json.loads(run("sql", same, *flags, cwd=tmp_path).stdout) == [{"same": True}]
    before = (small_release / "warehouse.duckdb").read_bytes()
    for statement in ("drop table dim_components", "select * from lake"):
        refused = run("sql", statement, *flags)
        assert refused.returncode == 1 and refused.stderr.count("\n") == 1
    assert (small_release / "warehouse.duckdb").read_bytes() == before


def test_history(run, small_release):
    done = run("history", "L1H3", "--lake", lake_of(small_release), "--format", "json")
    rows = json.loads(done.stdout)
    assert [row["checkpoint"] for row in rows] == ["step0", "step100-tokens1B", "main"]
    assert rows[0]["has_changed"] in (None, False)
    shown = run("history", "L1H3", "--lake", lake_of(small_release)).stdout
    assert "step100-tokens1B" in shown and "relation_answer_count" in shown  # nothing is cut off at 80 columns
    assert "no component 'L9H9'" in run("history", "L9H9", "--lake", lake_of(small_release)).stderr
    assert run("history", "head 3", "--lake", lake_of(small_release)).returncode == 2


def test_status_check_and_report(run, small_release, tmp_path):
    lake = lake_of(small_release)
    status = run("status", "--lake", lake)
    assert status.returncode == 0 and small_release.name in status.stdout and "tiny/step0" in status.stdout
    check = run("check", "--lake", lake)
    assert check.returncode == 0, check.stdout
    assert "checks passed" in check.stdout
    report = run("report", "--lake", lake, "--output", tmp_path / "site")
    assert report.returncode == 0 and (tmp_path / "site" / "index.html").is_file()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    refused = run("report", "--lake", lake, "--output", tmp_path / "other")
    assert refused.returncode == 1 and (tmp_path / "other" / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize("command", [["status"], ["sql", "select 1"], ["history", "L0H0"], ["check"], ["report"]])
def test_an_empty_lake_is_said(run, tmp_path, command):
    done = run(*command, "--lake", tmp_path / "lake")
    assert done.returncode == 1 and "no release yet" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ([], 2, "no checkpoints named"),
        (["--checkpoints", "nowhere"], 1, "does not exist"),
        (["--checkpoints", ".", "--tau", "two"], 2, "neither a number nor a multiple"),
        (["--checkpoints", ".", "--tau", "1.5"], 2, "must lie between 0 and 1"),
        (["--checkpoints", ".", "--tau", "0"], 2, "must lie between 0 and 1"),
        (["--checkpoints", ".", "--tau", "0.1", "--tau", "0.10"], 2, "each one once"),
        (["--checkpoints", ".", "--theta", "1"], 2, "roles.theta"),
        (["--checkpoints", ".", "--norm", "l3"], 2, "measurement.norm"),
        (["--checkpoints", ".", "--relation", "nothing"], 2, "unknown relation 'nothing'"),
        (["--settings", "none.toml"], 2, "does not exist"),
    ],
)
def test_wrong_usage_is_one_line_and_creates_no_lake(run, tmp_path, flags, code, message):
    done = run("refresh", *flags, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert message in done.stderr
    assert not (tmp_path / "lake").exists()


def test_settings_file_flags_and_relative_paths(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[series]\ncheckpoints = "runs"\n[measurement]\ntau = ["5x", 0.010]\n[roles]\ntheta = 0.1\n')
    settings = load_settings(file, {("roles", "theta"): "0.25"})
    assert settings.phases == [("pretraining", str(tmp_path / "runs"))] and settings.series_id == "runs"
    assert settings.measurement.tau == ("5x", "0.01") and settings.derivation["theta"] == "0.25"
    assert load_settings(file, {}).derivation["theta"] == "0.1"


def test_any_setting_can_be_said_on_the_command_line(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[series]\ncheckpoints = "runs"\n[series.select]\nevery = 3\n')
    said = ["series.select.to_step=400", "series.leave_out=['a', 'b']", "series.recipe=pythia 1.4b", "roles.theta=0.2"]
    settings = load_settings(file, {("roles", "theta"): "0.25"}, said)
    assert (settings.series.select.every, settings.series.select.to_step) == (3, 400)
    assert settings.series.leave_out == ("a", "b") and settings.series.recipe == "pythia 1.4b"
    assert settings.derivation["theta"] == "0.2"
    for nonsense in ("series", "=3", "series.select", ""):
        with pytest.raises(UsageError, match="sets nothing"):
            load_settings(file, {}, [nonsense])


def test_phases_are_named_once_and_the_series_too(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        '[[series.phases]]\nname = "pretraining"\ncheckpoints = "base"\n'
        '[[series.phases]]\nname = "sft"\ncheckpoints = "hf://owner/model-sft"\n'
    )
    settings = load_settings(file, {("series", "name"): "model"})
    assert settings.phases == [("pretraining", str(tmp_path / "base")), ("sft", "hf://owner/model-sft")]
    with pytest.raises(UsageError, match="needs a name"):
        _ = load_settings(file, {}).series_id
    with pytest.raises(UsageError, match="not both"):
        _ = load_settings(file, {("series", "checkpoints"): "x"}).phases
    assert load_settings(None, {("series", "checkpoints"): "hf://owner/model"}).series_id == "model"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[measurement]\ntaus = 1\n", "unknown setting 'measurement.taus'; known here: tau, norm, dtype"),
        ("[series.select]\nevry = 2\n", "unknown setting 'series.select.evry'; known here: every, log_spaced"),
        ("[[series.phases]]\nrepo = 'x'\n", "series.phases.0"),
        ("[mesurement]\n", "unknown setting 'mesurement'; known here: series, facts"),
        ("theta = 0.1\n", "unknown setting 'theta'"),
        ("[roles]\ntheta = 'a'\n", "roles.theta"),
        ("[machine]\nbatch_size = 0\n", "machine.batch_size"),
        ("[roles", "is not TOML"),
    ],
)
def test_wrong_settings_are_named(tmp_path, text, message):
    file = tmp_path / "timecourse.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as error:
        load_settings(file, {})
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--family", "bert"], "'bert' is not one of 'olmo', 'olmo2', 'gpt_neox'"),
        (["refresh", "--nope"], "No such option: --nope"),
        (["bogus"], "No such command 'bogus'"),
        (["sql"], "Missing argument 'statement'"),
        (["families", "--format", "xml"], "'xml' is not one of"),
    ],
)
def test_what_cannot_be_understood_is_one_line_too(run, arguments, message):
    done = run(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and message in done.stderr


def test_without_a_command_the_help_is_shown(run):
    done = run()
    assert done.returncode == 2 and "refresh" in done.stdout and done.stderr == ""


def test_ctrl_c_is_one_line(run, tmp_path, monkeypatch):
    def interrupted(context):
        raise KeyboardInterrupt

    monkeypatch.setattr("timecourse.cli.keeping.lake_of", interrupted)
    done = run("status", "--lake", tmp_path)
    assert done.returncode == 130 and done.stderr == "error: interrupted; run it again to go on\n"
