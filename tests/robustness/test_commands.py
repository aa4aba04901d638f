"""Commands on hostile input, from end to end: one line that can be shown, an exit code, and nothing half-written."""

import json

import pytest

DEEP = "[" * 100_000


def refused(done, code=1):
    """What a command says that was refused as it should be."""
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("error: ") and done.stderr.endswith("\n") and done.stderr[:-1].isprintable()
    return done.stderr


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--settings", "deep.toml"], 2, "deep.toml is not TOML"),
        (["--settings", "hostile.toml"], 2, "lake.directory"),
        (["--settings", "a\nb\udcff"], 2, r"the settings file 'a\nb\udcff' does not exist"),
        (["--checkpoints", "series", "--facts", "facts"], 1, "deep.json is not JSON"),
        (["--checkpoints", "series", "--lake", "a\nb"], 2, "lake.directory"),
        (
            ["--checkpoints", "series", "--set", f"series.name={DEEP}", "--facts", "nowhere\x1b[31m"],
            2,
            "facts.directory",
        ),
        (["--checkpoints", "series", "--set", f"machine={DEEP}"], 2, "machine"),
        (["--checkpoints", "series"], 1, r"the name of checkpoint 'step1\nx' holds control characters"),
        (["--checkpoints", "hf://../../etc/passwd", "--series", "s"], 2, "is no repository of the Hub"),
        (["--\x1b[31m\nx"], 2, "No such option"),
    ],
)
def test_refresh_refuses_and_makes_no_lake(run, tmp_path, flags, code, message):
    (tmp_path / "deep.toml").write_text(f"a = {DEEP}")
    (tmp_path / "hostile.toml").write_text('[lake]\ndirectory = "a\\u0000b"')
    (tmp_path / "series" / "step1\nx").mkdir(parents=True)
    (tmp_path / "facts").mkdir()
    (tmp_path / "facts" / "deep.json").write_text(DEEP)
    before = set(tmp_path.iterdir())
    assert message in refused(run("refresh", *flags, cwd=tmp_path), code)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", ["status", "build"])
@pytest.mark.parametrize("content", [DEEP, "{}", json.dumps({"schema_version": 10**30}), '"\\ud800"', "9" * 5000])
def test_commands_refuse_a_commit_that_cannot_be_read(run, tmp_path, command, content):
    folder = tmp_path / "lake" / "commits" / "s"
    folder.mkdir(parents=True)
    (folder / "a\x1b[31m.json").write_text(content)
    assert "the commit file 'commits/s/a\\x1b[31m.json'" in refused(run(command, "--lake", tmp_path / "lake"))
    assert not (tmp_path / "lake" / "build" / "warehouse.duckdb").exists()
