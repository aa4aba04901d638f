"""A lake whose small files were written by anyone: what they say can be used and lies inside, or they are refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.robustness.hostile import files_like, fuzzed, refusal
from tests.warehouse.raw_lake import CHECKPOINT, entry
from timecourse.build import build_warehouse
from timecourse.checks import CheckResult
from timecourse.extract.raw import TABLES, write_table
from timecourse.lake import Lake

EXTRACTION = "e" * 32
CHECK = CheckResult("unique", "great_expectations", "raw", "prompts", "unique", "fail", "pass", "none", 0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A lake that the real writer made: one committed extraction without prompts, one ablation, one series.

    Beside it lies `outside`, which holds the same tables as the extraction.
    """
    root = tmp_path_factory.mktemp("whole") / "lake"
    lake = Lake(root)
    with lake.locked():
        for is_ablation in (False, True):
            with lake.incoming() as folder:
                names = {"series_id": "s", "checkpoint_id": "s/step0", "checkpoint_name": "step0"}
                row = {**CHECKPOINT, **names, "extraction_id": EXTRACTION, "weights_sha256": "w", "prompt_count": 0}
                tables = {name: TABLES[name] for name in (["checkpoint"] if is_ablation else TABLES)}
                rows = {
                    name: write_table(
                        folder, name, {key: [row[key]] if name == "checkpoint" else [] for key in one.names}
                    )
                    for name, one in tables.items()
                }
                inputs: dict[str, Any] = {"settings": {"taus": ["0.05"]}, "extractor_version": 1}
                told: dict[str, Any] = {"inputs": inputs, "rows": rows, "checks": [CHECK]}
                if is_ablation:
                    lake.commit_ablation(folder, lake.commits()[0], ablation_id="a", **told)
                else:
                    lake.commit(folder, series_id="s", checkpoint_name="step0", extraction_id=EXTRACTION, **told)
        lake.declare_series("s", complete=False, checkpoints=[entry(0, "step0", step=0)])
    shutil.copytree(root / lake.commits()[0].content["directory"], root.parent / "outside")
    return root


@pytest.fixture
def lake(whole, tmp_path) -> Path:
    """A copy of the lake, with `outside` beside it."""
    shutil.copytree(whole.parent, tmp_path / "place")
    return tmp_path / "place" / "lake"


def only_file(folder: Path) -> Path:
    (path,) = folder.rglob("*.json")
    return path


COMMIT_KINDS = ("commits", "ablations")


def use(root: Path) -> None:
    """What is read of a lake before any table of it is."""
    lake = Lake(root)
    for commit in [*lake.commits(), *lake.ablations()]:
        assert commit.checkpoint_id and commit.extraction_id
        for check in commit.checks:
            assert isinstance(check.check_id, str) and isinstance(check.observed, str)
            assert isinstance(check.failing_row_count, int) and check.result in ("pass", "warn", "fail")
        json.dumps(commit.content, ensure_ascii=False).encode()
        for file in commit.content["files"].values():
            place = root / commit.content["directory"] / file["path"]
            assert place.resolve().is_relative_to((root / "raw").resolve())
            assert 0 <= file["rows"] < 2**63 and 0 <= file["bytes"] < 2**63
        lake.damages(commit)
    for series in lake.declarations():
        assert isinstance(series["series_id"], str) and isinstance(series["complete"], bool)
        assert all(isinstance(one["name"], str) for one in series["checkpoints"])


def test_the_whole_lake_can_be_used(whole):
    use(whole)
    assert len(Lake(whole).commits()) == len(Lake(whole).ablations()) == len(Lake(whole).declarations()) == 1


@fuzzed
@given(st.data())
def test_files_of_any_content(lake, data):
    path = only_file(lake / data.draw(st.sampled_from([*COMMIT_KINDS, "series"])))
    before = path.read_bytes()
    path.write_bytes(data.draw(files_like(json.loads(before))))
    try:
        said = refusal(lambda: use(lake))
    finally:
        path.write_bytes(before)
    assert said is None or " file " in said


def changed(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def relocated(lake: Path, kind: str, **changes: Any) -> None:
    """Give the first file of a commit another path."""
    path = only_file(lake / kind)
    files = json.loads(path.read_text())["files"]
    files["checkpoint"] |= changes
    changed(path, files=files)


def link_folder(lake: Path, kind: str) -> None:
    place = lake / json.loads(only_file(lake / kind).read_text())["directory"]
    shutil.rmtree(place)
    place.symlink_to(lake.parent / "outside")


def link_file(lake: Path, kind: str, target: str = "") -> None:
    file = lake / json.loads(only_file(lake / kind).read_text())["directory"] / "checkpoint.parquet"
    file.unlink()
    file.symlink_to(target or lake.parent / "outside" / "checkpoint.parquet")


LEADS_OUT = {
    "absolute": lambda lake, kind: changed(only_file(lake / kind), directory=str(lake.parent / "outside")),
    "parent": lambda lake, kind: changed(only_file(lake / kind), directory="../outside"),
    "parent below raw": lambda lake, kind: changed(only_file(lake / kind), directory="raw/../../outside"),
    "the lake itself": lambda lake, kind: changed(only_file(lake / kind), directory="."),
    "NUL": lambda lake, kind: changed(only_file(lake / kind), directory="raw/a\0b"),
    "a file's parent": lambda lake, kind: relocated(lake, kind, path="../../../../../outside/checkpoint.parquet"),
    "a file's absolute path": lambda lake, kind: relocated(
        lake, kind, path=str(lake.parent / "outside/prompts.parquet")
    ),
    "a file's name too long": lambda lake, kind: relocated(lake, kind, path="x" * 300),
    "a link to a folder": link_folder,
    "a link to a file": link_file,
    "a link to itself": lambda lake, kind: link_file(lake, kind, "checkpoint.parquet"),
}


@pytest.mark.parametrize("kind", COMMIT_KINDS)
@pytest.mark.parametrize("how", LEADS_OUT)
def test_a_commit_that_leads_out_of_the_lake_is_refused(lake, how, kind):
    LEADS_OUT[how](lake, kind)
    said = refusal(lambda: build_warehouse(lake, theta="0.1", complete_series=[]))
    assert said is not None and only_file(lake / kind).name in said
    assert not (lake / "build" / "warehouse.duckdb").exists()
    assert {file.name for file in (lake.parent / "outside").iterdir()} == {f"{name}.parquet" for name in TABLES}


def test_a_lake_whose_raw_tables_lie_on_another_disk_is_whole(lake):
    (lake / "raw").rename(lake.parent / "disk")
    (lake / "raw").symlink_to(lake.parent / "disk")
    use(lake)
    assert Lake(lake).commits()


def test_what_lies_outside_is_not_pruned(lake):
    (lake.parent / "outside" / "checkpoint" / "extraction").mkdir(parents=True)
    (lake / "raw" / "linked").symlink_to(lake.parent / "outside")
    opened = Lake(lake)
    with opened.locked():
        opened.prune()
    assert (lake.parent / "outside" / "checkpoint" / "extraction").is_dir()
    assert (lake.parent / "outside" / "checkpoint.parquet").is_file()


def test_a_release_lies_in_the_lake(lake):
    (lake.parent / "outside" / "release.json").write_text("{}")
    for place in (
        "../outside",
        str(lake.parent / "outside"),
        "current",
        "releases",
        "releases/../../outside",
        "nowhere",
    ):
        (lake / "current").unlink(missing_ok=True)
        (lake / "current").symlink_to(place)
        assert refusal(Lake(lake).current_release), place


@pytest.mark.parametrize(
    ("field", "value"),
    [("step", 2**70), ("step", "x"), ("position", 2**40), ("bytes", 1.5), ("stage", "\ud800"), ("reason", {"a": 1})],
)
def test_a_declaration_that_no_column_holds_is_refused(lake, field, value):
    path = only_file(lake / "series")
    changed(path, checkpoints=[entry(0, "step0") | {field: value}])
    said = refusal(lambda: build_warehouse(lake, theta="0.1", complete_series=[]))
    assert said is not None and "series file" in said


@pytest.mark.parametrize("kind", [*COMMIT_KINDS, "series"])
@pytest.mark.parametrize("version", [0, -1, 99, 10**30, 1.5, True, "1", None, [], {}, float("nan")])
def test_a_schema_version_of_any_type(lake, kind, version):
    changed(only_file(lake / kind), schema_version=version)
    assert "file" in (refusal(lambda: use(lake)) or "")
