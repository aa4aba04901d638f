"""The data dictionary of a release: what one row of each table is, its key, columns and examples.

It is read from the YAML beside the models, which dbt's contracts and the tests hold to what is built.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import timecourse

_MARTS = Path(timecourse.__file__).parent / "models" / "marts"


def read_dictionary() -> list[dict[str, Any]]:
    """One entry per table of a release, by name: `name`, `description`, `key`, `columns` and `examples`.

    `columns` have `name`, `type` and `description`, `examples` have `question` and `sql`. Every text but the SQL is
    of one line.
    """
    tables = []
    for file in sorted(_MARTS.glob("*.yml")):
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        tables += [_entry(model) for model in content.get("models", [])]
        tables += [_entry(table) for source in content.get("sources", []) for table in source["tables"]]
    return sorted(tables, key=lambda table: str(table["name"]))


def write_dictionary(file: Path) -> None:
    """Write the dictionary as JSON."""
    content = {"tables": read_dictionary()}
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def _entry(table: Mapping[str, Any]) -> dict[str, Any]:
    meta = table.get("config", {}).get("meta", {})
    keys = [test["unique_key"]["arguments"]["columns"] for test in table.get("data_tests", []) if "unique_key" in test]
    return {
        "name": table["name"],
        "description": _one_line(table["description"]),
        "key": keys[0] if keys else meta["key"],
        "columns": [
            {"name": column["name"], "type": column["data_type"], "description": _one_line(column["description"])}
            for column in table["columns"]
        ],
        "examples": [
            {"question": _one_line(example["question"]), "sql": example["sql"].strip()}
            for example in meta.get("examples", [])
        ],
    }


def _one_line(text: str) -> str:
    return " ".join(text.split())
