"""The settings: one TOML file, every key of which can also be said by a flag. Validated before anything is done."""

import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from timecourse.errors import UsageError
from timecourse.extract.identity import MeasurementSettings, tau_id

SETTINGS_FILE = "timecourse.toml"
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, pattern=r"^[^\x00-\x1f]+$")]


def _tau_ids(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    identifiers = tuple(tau_id(str(one)) for one in values)
    if not identifiers or len(set(identifiers)) < len(identifiers):
        raise UsageError("tau: name at least one threshold, and each one once")
    return identifiers


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Series(_Section):
    """Which checkpoints form the time course."""

    checkpoints: Path | None = None
    name: Text | None = None
    complete: bool = False


class Facts(_Section):
    """What is asked of every checkpoint."""

    directory: Path = Path(__file__).parent / "extract" / "default_facts"
    relations: tuple[Text, ...] = ()


class Measurement(_Section):
    """How contributions and routes are measured; a change means new extractions."""

    tau: Annotated[tuple[str, ...], BeforeValidator(_tau_ids)] = ("0.01",)
    norm: Literal["l1", "l2"] = "l1"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attention: Literal["eager", "sdpa"] = "eager"


class Roles(_Section):
    """How roles are decided from activities; a change means a new build, not new extractions."""

    theta: Annotated[Decimal, Field(gt=0, lt=1, max_digits=12, decimal_places=9)] = Decimal("0.1")


class MachineSettings(_Section):
    """How the job runs; nothing here changes what is measured."""

    device: Text = "auto"
    batch_size: Annotated[int, Field(ge=1)] = 32
    threads: Annotated[int, Field(ge=0)] = 0


class LakeSettings(_Section):
    """Where the results are kept."""

    directory: Path = Path("lake")


class Settings(_Section):
    """All sections of the settings file."""

    series: Series = Series()
    facts: Facts = Facts()
    measurement: Measurement = Measurement()
    roles: Roles = Roles()
    machine: MachineSettings = MachineSettings()
    lake: LakeSettings = LakeSettings()

    @property
    def checkpoints(self) -> Path:
        """The directory of checkpoints. Raises UsageError where none is set."""
        if self.series.checkpoints is None:
            raise UsageError(f"no checkpoints named; say --checkpoints DIR, or [series] checkpoints in {SETTINGS_FILE}")
        return self.series.checkpoints

    @property
    def series_id(self) -> str:
        """The series' name; the checkpoints directory's own name where none is set."""
        return self.series.name or self.checkpoints.resolve().name

    @property
    def measurement_settings(self) -> MeasurementSettings:
        """What changes the numbers."""
        measurement = self.measurement
        return MeasurementSettings(measurement.tau, measurement.norm, measurement.dtype, measurement.attention)

    @property
    def theta(self) -> str:
        """The role threshold as decimal text, so that no rounding flips a role."""
        return f"{self.roles.theta.normalize():f}"


def load_settings(file: Path | None, flags: Mapping[tuple[str, str], Any]) -> Settings:
    """Settings from `file` (or `timecourse.toml` here, if there is one), overridden by flags {(section, key): value}.

    Paths in the file are relative to the file. Flags that are None or empty were not given. Raises UsageError.
    """
    if file is None and Path(SETTINGS_FILE).is_file():
        file = Path(SETTINGS_FILE)
    content = {} if file is None else _read(file)
    for (section, key), value in flags.items():
        if value not in (None, [], ()) and isinstance(content.setdefault(section, {}), dict):
            content[section][key] = value
    try:
        return Settings.model_validate(content)
    except ValidationError as error:
        raise UsageError(_one_line(error)) from error


def _read(file: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"the settings file {str(file)!r} does not exist") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file.name} is not TOML: {error}") from error
    for section, key in (("series", "checkpoints"), ("facts", "directory"), ("lake", "directory")):
        values = content.get(section)
        if isinstance(values, dict) and isinstance(values.get(key), str):
            values[key] = file.parent / Path(values[key]).expanduser()
    return content


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(step) for step in first["loc"])
    if first["type"] == "extra_forbidden":
        section = Settings.model_fields.get(str(first["loc"][0]))
        known = Settings.model_fields if len(first["loc"]) == 1 else section.annotation.model_fields  # type: ignore[union-attr]
        return f"unknown setting {where!r}; known here: {', '.join(known)}"
    return f"setting {where}: {first['msg']} (it is {first['input']!r})"
