"""Checkpoints measured once, and the planted model, for the tests of this room."""

from pathlib import Path

import polars as pl
import pytest

from tests.extract.planted_model import Planted, planted
from timecourse.extract.ablations.replacements import Replacements, collect_replacements
from timecourse.extract.checkpoints.directory import find_checkpoints
from timecourse.extract.facts import load_relations
from timecourse.extract.identity import ExtractionRequest, MeasurementSettings
from timecourse.extract.job import Machine, extract


@pytest.fixture(scope="session")
def golden_extractions(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, pl.DataFrame]]:
    """{revision: {table: rows}} of every golden checkpoint that is there, at both thresholds; keys as plain text."""
    tables = {}
    for checkpoint in find_checkpoints(golden / "models"):
        directory = tmp_path_factory.mktemp(checkpoint.name)
        settings = MeasurementSettings(taus=("0.05", "0.15"))
        extract(
            ExtractionRequest("golden", checkpoint, load_relations(golden / "facts"), settings), directory, Machine()
        )
        tables[checkpoint.name] = {
            file.stem: pl.read_parquet(file).with_columns(pl.col(pl.Categorical).cast(pl.String))
            for file in directory.glob("*.parquet")
        }
    return tables


@pytest.fixture(scope="session")
def mechanism() -> Planted:
    return planted()


@pytest.fixture(scope="session")
def mechanism_replacements(mechanism: Planted) -> Replacements:
    return collect_replacements(mechanism.model, mechanism.prompts)
