"""The rules of the house: stages meet in data and never import each other, and only extract/ imports torch."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = ("extract", "expectations", "reports")


def imports(file: Path) -> set[str]:
    """Every module that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_imports_no_other_stage_and_not_the_front_door(stage):
    allowed = (f"timecourse.{stage}", "timecourse.errors", "timecourse.checks")
    files = sorted((ROOT / stage).rglob("*.py"))
    assert len(files) > 5
    for file in files:
        for module in imports(file):
            if module.startswith("timecourse."):
                assert module.startswith(allowed), (file, module)


def test_only_extract_imports_torch_and_transformers():
    files = [file for room in ("timecourse", "expectations", "reports") for file in sorted((ROOT / room).glob("*.py"))]
    assert len(files) > 20
    for file in files:
        assert not {module.split(".")[0] for module in imports(file)} & {"torch", "transformers", "huggingface_hub"}, (
            file
        )


def test_nobody_loads_pickles_or_strangers_code():
    for room in ("timecourse", *STAGES):
        for file in (ROOT / room).rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            assert not imports(file) & {"pickle", "dill", "joblib", "cloudpickle"}, file
            assert "torch.load(" not in text and "trust_remote_code=True" not in text, file
