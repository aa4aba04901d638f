"""The data dictionary of a release: what one row of each table is, its key, columns, examples, and where it comes from.

It is read from the YAML and the SQL of the models, which dbt's contracts and the tests hold to what is built.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import timecourse

_PACKAGE = Path(timecourse.__file__).parent
_MARTS = _PACKAGE / "models" / "marts"
_MACRO = re.compile(r"{%-?\s*macro (\w+)\(.*?%}(.*?){%-?\s*endmacro", re.DOTALL)
_MODEL = re.compile(r"\bref\('(\w+)'\)")
_RAW = re.compile(r"\b(?:raw|declared)_rows\('(\w+)'\)")


def read_dictionary() -> list[dict[str, Any]]:
    """One entry per table of a release, by name: `name`, `description`, `key`, `columns` and `examples`.

    `columns` have `name`, `type` and `description`, `examples` have `question` and `sql`. Every text but the SQL is
    of one line.
    """
    tables = []
    for file in sorted(_MARTS.glob("*.yml")):
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        tables += [_entry(model) for model in content.get("models", [])]
        tables += [_entry(table) for source in content.get("sources", []) for table in source["tables"]]
    return sorted(tables, key=lambda table: str(table["name"]))


def read_lineage() -> list[dict[str, Any]]:
    """One entry per raw table and model, by name: `name`, `layer`, and `reads`, the names of what it reads directly.

    `layer` is `raw` for what was extracted, declared or drawn before any SQL ran, else the folder of the model below
    models/. Raw tables read nothing.
    """
    macros = {
        name: body
        for file in sorted((_PACKAGE / "dbt_project" / "macros").glob("*.sql"))
        for name, body in _MACRO.findall(file.read_text(encoding="utf-8"))
    }
    models = _PACKAGE / "models"
    entries: list[dict[str, Any]] = [
        {
            "name": file.stem,
            "layer": file.parent.relative_to(models).as_posix(),
            "reads": sorted(_inputs(file.read_text(encoding="utf-8"), macros)),
        }
        for file in models.rglob("*.sql")
    ]
    raw = {name for entry in entries for name in entry["reads"]} - {entry["name"] for entry in entries}
    entries += [{"name": name, "layer": "raw", "reads": []} for name in raw]
    return sorted(entries, key=lambda entry: str(entry["name"]))


def _inputs(sql: str, macros: Mapping[str, str]) -> set[str]:
    """What a model's SQL reads, by itself and through the macros that it calls."""
    found = {*_MODEL.findall(sql), *_RAW.findall(sql)}
    for name, body in macros.items():
        if re.search(rf"\b{name}\(", sql):
            others = {other: text for other, text in macros.items() if other != name}
            found |= _inputs(body, others)
    return found


def write_dictionary(file: Path) -> None:
    """Write the dictionary as JSON: `tables` and `lineage`."""
    content = {"tables": read_dictionary(), "lineage": read_lineage()}
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def _entry(table: Mapping[str, Any]) -> dict[str, Any]:
    meta = table.get("config", {}).get("meta", {})
    keys = [test["rows"]["arguments"]["key"] for test in table.get("data_tests", [])]
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
