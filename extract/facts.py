"""Relations and their facts, read from JSON files in the LRE format (`name, prompt_templates, properties, samples`).

A relation also has a `group`; a sample may carry numeric covariates (such as its frequency in a corpus) beside
`subject` and `object`. One file holds one relation.
"""

import hashlib
import json
import math
import string
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from slugify import slugify

from timecourse.errors import UsageError, UserError

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Fact(BaseModel):
    """One subject and its answer; every further numeric field is a covariate."""

    model_config = ConfigDict(extra="allow", frozen=True)

    subject: Text
    object: Text

    @model_validator(mode="after")
    def _check(self) -> "Fact":
        for name, value in self.covariates.items():
            if not _is_finite(value):
                raise ValueError(f"the covariate {name!r} is not finite")
        return self

    @property
    def covariates(self) -> dict[str, float]:
        """The numeric fields beside subject and object."""
        return {
            name: value
            for name, value in (self.model_extra or {}).items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }


class Relation(BaseModel):
    """One relation file. Unknown fields are allowed: LRE files carry more than is measured here."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: Text
    group: Text = "ungrouped"
    prompt_templates: Annotated[list[Text], Field(min_length=1)]
    samples: Annotated[list[Fact], Field(min_length=1)]

    @property
    def relation_id(self) -> str:
        """The name in lower case, words joined by underscores."""
        return slugify(self.name, separator="_", allow_unicode=True)

    @model_validator(mode="after")
    def _check(self) -> "Relation":
        if not self.relation_id:
            raise ValueError(f"the name {self.name!r} holds no letter or digit")
        for template in self.prompt_templates:
            holes = _holes(template)
            if holes != [("", "", None)]:  # a format would cut or pad the subject, whose tokens are then not found
                raise ValueError(f"the template {template!r} has {len(holes)} placeholders; it needs exactly one {{}}")
        for what, values in (
            ("template", Counter(self.prompt_templates)),
            ("fact", Counter((fact.subject, fact.object) for fact in self.samples)),
        ):
            value, times = values.most_common(1)[0]
            if times > 1:
                shown = value if isinstance(value, str) else " -> ".join(value)
                raise ValueError(f"the {what} {shown!r} occurs {times} times; keep one")
        return self

    def fact_id(self, fact: Fact) -> str:
        """A readable, stable and unique name: relation, subject's slug, 8 hex digits of subject and object."""
        digest = hashlib.sha256(json.dumps([self.relation_id, fact.subject, fact.object]).encode()).hexdigest()[:8]
        return "-".join(filter(None, [f"{self.relation_id}/{slugify(fact.subject, allow_unicode=True)}", digest]))


def _holes(template: str) -> list[tuple[str, str | None, str | None]]:
    """Name, format and conversion of every placeholder."""
    try:
        parsed = list(string.Formatter().parse(template))
        return [(name, how, conversion) for _, name, how, conversion in parsed if name is not None]
    except ValueError:  # unbalanced braces
        return []


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def load_relations(directory: Path, only: Sequence[str] = ()) -> list[Relation]:
    """The relations of every `*.json` in a directory, sorted by id; `only` selects some by name or id.

    Raises UserError (one line, with the file) for a file that is not a relation, UsageError for an unknown name.
    """
    if not directory.is_dir():
        raise UserError(f"the facts directory {str(directory)!r} does not exist")
    relations: dict[str, Relation] = {}
    for file in sorted(directory.glob("*.json")):
        relation = _load(file)
        if relation.relation_id in relations:
            raise UserError(f"{file.name}: a relation called {relation.relation_id!r} was already read; rename one")
        relations[relation.relation_id] = relation
    if not relations:
        raise UserError(f"the facts directory {str(directory)!r} holds no relation (*.json)")
    wanted = {slugify(name, separator="_", allow_unicode=True): name for name in only}
    if unknown := [name for key, name in wanted.items() if key not in relations]:
        raise UsageError(f"unknown relation {unknown[0]!r}; known: {', '.join(sorted(relations))}")
    return [relations[key] for key in sorted(relations) if not wanted or key in wanted]


def _load(file: Path) -> Relation:
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
        return Relation.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise UserError(f"{file.name}: {where + ': ' if where else ''}{_plain(first['msg'])}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, and brackets within brackets
        raise UserError(f"{file.name} is not JSON: {error}") from error


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ").replace("String should have at least 1 character", "must not be empty")


def facts_sha256(relations: Sequence[Relation]) -> str:
    """Hash of everything that the measurement depends on: groups, templates, subjects, answers and covariates."""
    content = [
        {
            "relation_id": relation.relation_id,
            "group": relation.group,
            "templates": relation.prompt_templates,
            "facts": [[fact.subject, fact.object, fact.covariates] for fact in relation.samples],
        }
        for relation in relations
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
