"""What the lake's small files say: which extractions count, what series offer, and which checkpoints are set aside."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from timecourse.checks import CheckResult
from timecourse.errors import UserError
from timecourse.extract.raw import SCHEMA_VERSION

COMMIT_VERSION = SCHEMA_VERSION
"""A commit's version is that of the raw tables that it lists. All versions up to this one are read."""
SERIES_VERSION = 1
QUARANTINE_VERSION = 1

_VERSIONS = {"commit": COMMIT_VERSION, "series": SERIES_VERSION, "quarantine": QUARANTINE_VERSION}


def _inside(text: str) -> str:
    """A path of ordinary names below a folder: nothing that leads out of it."""
    if any(part in ("", ".", "..") or "\\" in part or not part.isprintable() for part in text.split("/")):
        raise ValueError("leads out of the lake")
    if any(len(part.encode()) > 255 for part in text.split("/")):
        raise ValueError("is no name of a file")
    return text


_Name = Annotated[str, StringConstraints(min_length=1)]
_Int32 = Annotated[int, Field(ge=0, lt=2**31)]
_Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
_Path = Annotated[str, AfterValidator(_inside)]
_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class NewerVersionError(UserError):
    """A file was written by a newer version of timecourse: it is neither read nor replaced."""


class _Content(BaseModel):
    model_config = ConfigDict(strict=True)
    schema_version: int = 1


class _File(_Content):
    path: Annotated[str, AfterValidator(_inside), StringConstraints(pattern=r"^[^/]+$")]
    rows: _Count
    bytes: _Count
    sha256: _Sha256


class _Check(_Content):
    model_config = ConfigDict(strict=True, extra="allow")


class _Commit(_Content):
    series_id: _Name
    checkpoint_id: _Name
    checkpoint_name: _Name
    extraction_id: Annotated[str, StringConstraints(pattern=r"^[^/\x00-\x1f]+$")]
    committed_at: str
    directory: Annotated[str, AfterValidator(_inside), StringConstraints(pattern=r"^raw/")]
    files: dict[_Name, _File]
    inputs: dict[str, JsonValue]
    checks: list[dict[str, JsonValue]]


class _Place(_Content):
    model_config = ConfigDict(strict=True, extra="allow")
    name: _Name
    position: _Int32
    status: str
    phase: str | None = None
    phase_index: _Int32 | None = None
    stage: str | None = None
    stage_index: _Int32 | None = None
    branch: str | None = None
    step: _Count | None = None
    tokens_reported: _Count | None = None
    tokens_computed: _Count | None = None
    commit_sha: str | None = None
    weights_sha256: str | None = None
    bytes: _Count | None = None
    same_weights_as: str | None = None
    reason: str | None = None


class _Series(_Content):
    series_id: _Name
    complete: bool
    recipe_id: str | None = None
    duplicates: Literal["warn", "fail"] = "warn"
    checkpoints: list[_Place] = []


class _Quarantine(_Content):
    series_id: _Name
    checkpoint_id: _Name
    checkpoint_name: _Name
    extraction_id: _Name
    is_gate: bool
    reason: str
    since: str


_CHECKS = TypeAdapter(list[CheckResult])
_MODELS: dict[str, type[_Content]] = {"commit": _Commit, "series": _Series, "quarantine": _Quarantine}


@dataclass(frozen=True)
class Commit:
    """One committed extraction, or what silencing components of one did (an ablation), as its commit file says."""

    path: Path
    content: Mapping[str, Any]

    @property
    def checkpoint_id(self) -> str:
        """`<series>/<checkpoint name>`."""
        return str(self.content["checkpoint_id"])

    @property
    def extraction_id(self) -> str:
        """Which extraction is the committed one."""
        return str(self.content["extraction_id"])

    @property
    def checks(self) -> list[CheckResult]:
        """What the gate said before the commit."""
        return _CHECKS.validate_python(self.content["checks"])


@dataclass(frozen=True)
class Quarantined:
    """A checkpoint that was set aside: with these inputs (`extraction_id`) it could not be measured, and why."""

    checkpoint_id: str
    checkpoint_name: str
    extraction_id: str
    is_gate: bool
    reason: str
    since: str


@dataclass(frozen=True)
class Contents:
    """What a lake holds at one moment: a build and the release made from it see the same."""

    commits: list[Commit]
    ablations: list[Commit]
    declarations: list[dict[str, Any]]
    quarantined: list[Quarantined]

    @property
    def complete_series(self) -> list[str]:
        """The series that were declared complete."""
        return [series["series_id"] for series in self.declarations if series["complete"]]


def read_content(root: Path, path: Path, kind: Literal["commit", "series", "quarantine"]) -> dict[str, Any]:
    """The content of one of the lake's JSON files. Raises UserError for one that is damaged, leads out of the lake or
    was written by a newer version."""
    what = f"the {kind} file {str(path.relative_to(root))!r}"
    mending = _MENDING["ablation" if path.is_relative_to(root / "ablations") else kind]
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(
            content, ensure_ascii=False
        ).encode()  # an escape may stand for half a character, which none can hold
        version = content.get("schema_version", 1 if kind == "series" else None)
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{what} is damaged; {mending}") from error
    if isinstance(version, int) and not isinstance(version, bool) and version > _VERSIONS[kind]:
        raise NewerVersionError(
            f"{what} has schema version {version}; this version of timecourse reads up to {_VERSIONS[kind]}"
        )
    try:
        if version not in range(1, _VERSIONS[kind] + 1):
            raise ValueError("no schema version")
        _MODELS[kind].model_validate(content)
        if kind == "commit":
            _ = Commit(path, content).checks
            folder, raw = root / content["directory"], (root / "raw").resolve()
            for place in (folder, *(folder / file["path"] for file in content["files"].values())):
                if not place.resolve().is_relative_to(raw):
                    raise ValueError("leads out of the lake")
    except (ValidationError, ValueError, TypeError, RuntimeError) as error:  # RuntimeError: a link to itself
        where = ".".join(map(str, error.errors()[0]["loc"])) if isinstance(error, ValidationError) else ""
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        detail = " ".join(f"{where} {reason}".split())[:200]
        raise UserError(f"{what} is damaged ({detail}); {mending}") from error
    return dict(content)


_MENDING = {
    "ablation": "remove the file, and ablate its checkpoint again",
    "commit": "refresh its series to extract anew, or remove the file",
    "series": "refresh the series, or remove the file",
    "quarantine": "remove the file",
}
