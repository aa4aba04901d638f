"""The settings: one TOML file, every key of which can also be said by a flag. Validated before anything is done."""

import json
import re
import reprlib
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from timecourse.errors import UsageError
from timecourse.extract.identity import MeasurementSettings, tau_id

SETTINGS_FILE = "timecourse.toml"
HUB = "hf://"
"""What the place of checkpoints starts with where it is a Hugging Face repository."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, pattern=r"^[^\x00-\x1f]+$")]


_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 200


def _plain(path: Path) -> Path:
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", str(path)):
        raise ValueError("a path holds no control characters and is valid UTF-8")
    return path


Directory = Annotated[Path, AfterValidator(_plain)]
Step = Annotated[int, Field(ge=0, lt=2**63)]
Gigabytes = Annotated[float, Field(le=1e6, allow_inf_nan=False)]


def _tau_ids(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    texts = [str(one) for one in values]
    for text in texts:
        if len(text) > 40 or re.search(r"e[-+]?0*[1-9]\d{2}", text.replace("_", ""), re.IGNORECASE):
            raise UsageError(f"tau {_SHOWN.repr(text)} is no threshold of a model; write it like 0.01 or 5x")
    identifiers = tuple(tau_id(text) for text in texts)
    if not identifiers or len(set(identifiers)) < len(identifiers):
        raise UsageError("tau: name at least one threshold, and each one once")
    return identifiers


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PhaseSettings(_Section):
    """One phase of training and where its checkpoints are: a directory, or hf://owner/name."""

    name: Text
    checkpoints: Text


class Select(_Section):
    """Which checkpoints are taken; the last of each phase always is."""

    every: Annotated[int, Field(ge=1)] | None = None
    log_spaced: Annotated[int, Field(ge=2)] | None = None
    from_step: Step | None = None
    to_step: Step | None = None
    names: tuple[Text, ...] = ()


class Series(_Section):
    """Which checkpoints form the time course."""

    checkpoints: Text | None = None
    phases: tuple[PhaseSettings, ...] = ()
    name: Text | None = None
    complete: bool = False
    pattern: str | None = None
    leave_out: tuple[Text, ...] = ()
    steps: dict[Text, Step] = {}
    select: Select = Select()
    tokens_per_step: Annotated[int, Field(ge=1, lt=2**63)] | None = None
    recipe: Text | None = None
    duplicates: Literal["warn", "fail"] = "warn"


class Facts(_Section):
    """What is asked of every checkpoint."""

    directory: Directory = Path(__file__).parent / "extract" / "default_facts"
    relations: tuple[Text, ...] = ()


class Measurement(_Section):
    """How contributions and routes are measured; a change means new extractions."""

    tau: Annotated[tuple[str, ...], BeforeValidator(_tau_ids)] = ("0.01",)
    norm: Literal["l1", "l2"] = "l1"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attention: Literal["eager", "sdpa"] = "eager"
    chat_template: bool = False


class Roles(_Section):
    """How roles are decided from activities; a change means a new build, not new extractions."""

    theta: Annotated[Decimal, Field(gt=0, lt=1, max_digits=12, decimal_places=9)] = Decimal("0.1")


class Statistics(_Section):
    """How intervals are made; a change means a new build, not new extractions."""

    replicates: Annotated[int, Field(ge=50, le=10_000)] = 1000
    seed: Annotated[int, Field(ge=0)] = 0


class Ablation(_Section):
    """What `timecourse ablate` silences, and how; see docs/method.md."""

    checkpoints: tuple[Text, ...] = ("first", "middle", "last")
    roles: tuple[Literal["general", "entity", "relation_answer", "fact_answer"], ...] = ()
    methods: Annotated[tuple[Literal["mean", "resample", "zero"], ...], Field(min_length=1)] = ("mean", "resample")
    norm: Literal["frozen", "live"] = "frozen"
    random_sets: Annotated[int, Field(ge=20, le=1000)] = 20
    seed: Annotated[int, Field(ge=0)] = 0


class MachineSettings(_Section):
    """How the job runs; nothing here changes what is measured."""

    device: Text = "auto"
    batch_size: Annotated[int, Field(ge=1)] | None = None
    threads: Annotated[int, Field(ge=0, le=4096)] = 0
    memory_gb: Annotated[Gigabytes, Field(gt=0)] | None = None
    max_cache_gb: Annotated[Gigabytes, Field(gt=0)] | None = None
    build_memory_gb: Annotated[Gigabytes, Field(ge=0.5)] = 4


class ExecutorSettings(_Section):
    """Where checkpoints are extracted and ablated; nothing here changes what is measured."""

    name: Literal["local", "slurm", "ray"] = "local"
    workers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    gpus_per_task: Annotated[float, Field(ge=0, le=1024)] | None = None
    prompts_per_task: Annotated[int, Field(ge=1)] | None = None
    address: Text = "auto"
    slurm: dict[Text, Any] = {}


class LakeSettings(_Section):
    """Where the results are kept."""

    directory: Directory = Path("lake")
    keep_releases: Annotated[int, Field(ge=2)] = 5


class Settings(_Section):
    """All sections of the settings file."""

    series: Series = Series()
    facts: Facts = Facts()
    measurement: Measurement = Measurement()
    roles: Roles = Roles()
    statistics: Statistics = Statistics()
    ablation: Ablation = Ablation()
    machine: MachineSettings = MachineSettings()
    executor: ExecutorSettings = ExecutorSettings()
    lake: LakeSettings = LakeSettings()

    @property
    def phases(self) -> list[tuple[str, str]]:
        """Every phase's name and where its checkpoints are. Raises UsageError where none, or both kinds, are set."""
        series = self.series
        if series.checkpoints is not None and series.phases:
            raise UsageError("name either [series] checkpoints or [[series.phases]], not both")
        if series.checkpoints is not None:
            return [("pretraining", series.checkpoints)]
        if not series.phases:
            raise UsageError(f"no checkpoints named; say --checkpoints DIR, or [series] checkpoints in {SETTINGS_FILE}")
        names = [phase.name for phase in series.phases]
        if len(set(names)) < len(names):
            raise UsageError(f"[[series.phases]]: every phase needs a name of its own, not {', '.join(names)}")
        return [(phase.name, phase.checkpoints) for phase in series.phases]

    @property
    def series_id(self) -> str:
        """The series' name; that of its one directory or repository where none is set."""
        if self.series.name is not None:
            return self.series.name
        if len(self.phases) > 1:
            raise UsageError("a series of several phases needs a name; say --series NAME")
        where = self.phases[0][1]
        try:
            name = where.rsplit("/", 1)[-1] if where.startswith(HUB) else Path(where).resolve().name
        except RuntimeError as error:
            raise UsageError(f"{where!r} is a link that leads to itself") from error
        if not name:
            raise UsageError(f"{where!r} gives a series no name; say --series NAME")
        return name

    @property
    def measurement_settings(self) -> MeasurementSettings:
        """What changes the numbers."""
        measurement = self.measurement
        return MeasurementSettings(
            measurement.tau, measurement.norm, measurement.dtype, measurement.attention, measurement.chat_template
        )

    def absolute(self) -> "Settings":
        """The same settings for a process in another directory: every path is absolute."""

        def placed(where: str | None) -> str | None:
            return where if where is None or where.startswith(HUB) else str(Path(where).absolute())

        series, facts, lake = self.series, self.facts, self.lake
        phases = tuple(one.model_copy(update={"checkpoints": placed(one.checkpoints)}) for one in series.phases)
        changed = {"name": self.series_id, "checkpoints": placed(series.checkpoints), "phases": phases}
        return self.model_copy(
            update={
                "series": series.model_copy(update=changed),
                "facts": facts.model_copy(update={"directory": facts.directory.absolute()}),
                "lake": lake.model_copy(update={"directory": lake.directory.absolute()}),
            }
        )

    @property
    def derivation(self) -> dict[str, Any]:
        """How marts are derived from what is committed: the arguments of build_warehouse.

        The role threshold is decimal text, so that no rounding flips a role.
        """
        statistics = self.statistics
        return {
            "theta": f"{self.roles.theta.normalize():f}",
            "replicates": statistics.replicates,
            "seed": statistics.seed,
        }


def load_settings(file: Path | None, flags: Mapping[tuple[str, str], Any], assignments: Sequence[str] = ()) -> Settings:
    """Settings from `file` (or `timecourse.toml` here, if there is one), overridden by flags {(section, key): value}
    and by assignments such as `series.select.every=10`.

    Paths in the file are relative to the file. Flags that are None or empty were not given. Raises UsageError.
    """
    if file is None and Path(SETTINGS_FILE).is_file():
        file = Path(SETTINGS_FILE)
    content = {} if file is None else _read(file)
    for (section, key), value in flags.items():
        if value not in (None, [], ()) and isinstance(content.setdefault(section, {}), dict):
            content[section][key] = str(value) if isinstance(value, Path) else value
    for assignment in assignments:
        _lay_over(content, _parsed(assignment))
    try:
        return Settings.model_validate(content)
    except ValidationError as error:
        raise UsageError(_one_line(error)) from error


def _parsed(assignment: str) -> dict[str, Any]:
    """`section.key=value` as TOML; a value that is none is text."""
    key, separator, value = assignment.partition("=")
    for text in (assignment, f"{key}={json.dumps(value.strip())}"):
        with suppress(ValueError, RecursionError):
            if separator and (parsed := tomllib.loads(text)):
                return parsed
    raise UsageError(f"{assignment!r} sets nothing; write --set section.key=value")


def _lay_over(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _lay_over(below[key], value)
        else:
            below[key] = value


def _read(file: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"the settings file {str(file)!r} does not exist") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, and brackets within brackets
        raise UsageError(f"{file.name} is not TOML: {error}") from error
    series = content.get("series")
    phases = series.get("phases") if isinstance(series, dict) else None
    for values, key in (
        (series, "checkpoints"),
        (content.get("facts"), "directory"),
        (content.get("lake"), "directory"),
        *((phase, "checkpoints") for phase in (phases if isinstance(phases, list) else [])),
    ):
        if isinstance(values, dict) and isinstance(values.get(key), str) and not values[key].startswith(HUB):
            values[key] = str(file.parent / _expanded(values[key]))
    return content


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{path!r} names the home of a user who is not known here") from error


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(step) for step in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown setting {where!r}; known here: {', '.join(_known_beside(first['loc']))}"
    return f"setting {where}: {first['msg']} (it is {_SHOWN.repr(first['input'])})"


def _known_beside(location: tuple[int | str, ...]) -> list[str]:
    """The settings that exist where an unknown one was set."""
    model: type[BaseModel] = Settings
    for step in location[:-1]:
        if isinstance(step, str):
            annotation = model.model_fields[step].annotation
            model = next(one for one in (annotation, *get_args(annotation)) if _is_model(one))
    return list(model.model_fields)


def _is_model(one: Any) -> bool:
    return isinstance(one, type) and issubclass(one, BaseModel)
