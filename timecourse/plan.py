"""What a run would do: what the series' sources offer, what the lake holds of it, and what is to be extracted."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from timecourse.config import HUB, Settings
from timecourse.errors import ChangedError, FetchError, SourceError, UsageError, UserError
from timecourse.extract.checkpoints.checkpoint import Checkpoint, Source, refusing_what_is_gone
from timecourse.extract.checkpoints.directory import DirectorySource
from timecourse.extract.checkpoints.names import Place, compile_pattern
from timecourse.extract.checkpoints.selection import Selection
from timecourse.extract.checkpoints.series import Entry, Phase, Reading, read_series
from timecourse.extract.facts import load_relations
from timecourse.extract.identity import ExtractionRequest
from timecourse.lake import Commit, Lake, Quarantined


@dataclass(frozen=True)
class Task:
    """A checkpoint that is to be extracted, and why."""

    request: ExtractionRequest
    reason: str


@dataclass(frozen=True)
class Plan:
    """What the sources offer, in the order of training, and the request for each checkpoint that is used."""

    entries: list[Entry]
    requests: dict[str, ExtractionRequest]

    def tasks(
        self,
        commits: Sequence[Commit],
        quarantined: Sequence[Quarantined] = (),
        *,
        only: Collection[str] = (),
        is_full: bool = False,
    ) -> list[Task]:
        """What is to be extracted: the requests whose extraction is not the committed one.

        A checkpoint that was set aside waits until its weights or the settings change. `only` names the checkpoints to
        look at, and tries those again that were set aside; `is_full` takes what is committed as well. Raises UsageError
        for a name that is not offered.
        """
        if unknown := [name for name in only if name not in self.requests]:
            raise UsageError(f"the series offers no checkpoint {unknown[0]!r} to extract; see `timecourse checkpoints`")
        committed = {commit.checkpoint_id: commit for commit in commits}
        aside = {(one.checkpoint_id, one.extraction_id) for one in quarantined}
        tasks = []
        for name, request in self.requests.items():
            reason = _reason(request, committed.get(request.checkpoint_id))
            if only and name not in only:
                continue
            if reason is None and is_full:
                reason = "anew, as asked for"
            if reason is not None and ((request.checkpoint_id, request.extraction_id) not in aside or only or is_full):
                tasks.append(Task(request, reason))
        return tasks

    def source_of(self, checkpoint: Checkpoint) -> Source:
        """Where a checkpoint comes from."""
        return next(entry.source for entry in self.entries if entry.name == checkpoint.name)

    def opening(self, request: ExtractionRequest, settings: Settings) -> "Opening":
        """What another process needs to open a checkpoint of this plan, with the settings that the plan was made by."""
        one = request.checkpoint
        return Opening(settings.absolute(), one.name, one.place, one.tokens_computed, request.extraction_id)

    def rows(self, commits: Sequence[Commit], quarantined: Sequence[Quarantined]) -> list[dict[str, Any]]:
        """One row per name that is offered: its place, its weights, and what was or will be done with it."""
        committed = {commit.checkpoint_id: commit for commit in commits}
        aside = {(one.checkpoint_id, one.extraction_id): one.reason for one in quarantined}
        return [_row(entry, self.requests.get(entry.name), committed, aside) for entry in self.entries]


@dataclass(frozen=True)
class Opening:
    """A checkpoint of a plan as it is named to other processes, which open it anew; it can be pickled.

    extraction_id: of the request that was planned. tokens_computed: as the checkpoint has it in the plan.
    """

    settings: Settings
    name: str
    place: Place
    tokens_computed: int | None
    extraction_id: str

    @property
    def checkpoint_id(self) -> str:
        """`<series>/<checkpoint name>`."""
        return f"{self.settings.series_id}/{self.name}"

    def open(self) -> tuple[Source, ExtractionRequest]:
        """The checkpoint's source and the request that was planned.

        Raises ChangedError where the weights or the facts are others now, FetchError where it cannot be opened this
        time, SourceError.
        """
        settings, phases = self.settings, self.settings.phases
        source = _source(phases[self.place.phase_index][1], settings)
        name = self.name if len(phases) == 1 else self.name.removeprefix(f"{self.place.phase}/")
        try:
            checkpoint = replace(source.open(name, self.name, self.place), tokens_computed=self.tokens_computed)
            relations = load_relations(settings.facts.directory, settings.facts.relations)
            request = ExtractionRequest(settings.series_id, checkpoint, relations, settings.measurement_settings)
            extraction_id = request.extraction_id
        except SourceError:
            raise
        except UserError as error:
            raise FetchError(str(error)) from error
        if extraction_id != self.extraction_id:
            raise ChangedError(
                f"checkpoint {self.name!r} or the facts were changed after the run began; the next refresh takes them "
                "as they are then"
            )
        return source, request


_CHANGES = {
    "weights": "weights",
    "tokenizer": "tokenizer",
    "facts": "facts",
    "settings": "settings",
    "extractor_version": "extractor",
    "schema_version": "extractor",
}
"""Inputs of an extraction, and what a change of each is called."""


def _reason(request: ExtractionRequest, commit: Commit | None) -> str | None:
    """Why a checkpoint is to be extracted; None where its extraction is the committed one."""
    if commit is None:
        return "new"
    if commit.extraction_id == request.extraction_id:
        return None
    before, now = commit.content["inputs"], request.inputs
    changes = dict.fromkeys(what for key, what in _CHANGES.items() if before.get(key) != json_value(now[key]))
    return f"changed {' and '.join(changes) or 'inputs'}"


def json_value(value: Any) -> Any:
    """A value as it is read back from JSON."""
    return json.loads(json.dumps(value))


def make_plan(settings: Settings) -> Plan:
    """Read the series' sources. Raises UserError where one cannot be reached or nothing in it can be used."""
    reading = _reading(settings)
    series_id = settings.series_id
    relations = load_relations(settings.facts.directory, settings.facts.relations)
    entries = read_series([Phase(name, _source(where, settings)) for name, where in settings.phases], reading)
    used = [entry.checkpoint for entry in entries if entry.status == "used" and entry.checkpoint is not None]
    if not used:
        raise UserError(next(entry.reason for entry in entries if entry.reason is not None))
    measurement = settings.measurement_settings
    requests = {one.name: ExtractionRequest(series_id, one, relations, measurement) for one in used}
    return Plan(entries, requests)


def _source(where: str, settings: Settings) -> Source:
    if not where.startswith(HUB):
        return DirectorySource(Path(where))
    from timecourse.extract.checkpoints.hub import HubSource

    limit = settings.machine.max_cache_gb
    return HubSource(where.removeprefix(HUB), max_cache_bytes=None if limit is None else round(limit * 1e9))


def _reading(settings: Settings) -> Reading:
    series = settings.series
    select = series.select
    return Reading(
        pattern=None if series.pattern is None else compile_pattern(series.pattern),
        leave_out=series.leave_out,
        steps=series.steps,
        selection=Selection(select.every, select.log_spaced, select.from_step, select.to_step, select.names),
        tokens_per_step=series.tokens_per_step,
    )


def _row(
    entry: Entry,
    request: ExtractionRequest | None,
    committed: Mapping[str, Commit],
    aside: Mapping[tuple[str, str], str],
) -> dict[str, Any]:
    place, one = entry.place, entry.checkpoint
    state: str = entry.status.replace("_", " ")
    reason = entry.reason
    if request is not None:
        change = _reason(request, committed.get(request.checkpoint_id))
        set_aside = aside.get((request.checkpoint_id, request.extraction_id))
        state = "extracted" if change is None else "set aside" if set_aside else change
        reason = set_aside if state == "set aside" else reason
    return {
        "name": entry.name,
        "state": state,
        "phase": place.phase,
        "stage": place.stage,
        "branch": place.branch,
        "step": place.step,
        "tokens": place.tokens_reported if one is None or one.tokens_computed is None else one.tokens_computed,
        "gigabytes": None if one is None else one.bytes / 1e9,
        "weights": None if one is None else one.tensors_sha256[:12],
        "commit": None if one is None or one.commit_sha is None else one.commit_sha[:12],
        "reason": reason,
    }


def refuse_early(lake: Lake, requests: Sequence[ExtractionRequest], settings: Settings) -> None:
    """Refuse what can be refused before anything is fetched or extracted, so that a mistake leaves all as it was."""
    if not requests:
        return
    _refuse_mixed_architectures(lake, requests)
    limit = settings.machine.max_cache_gb
    largest = max(requests, key=lambda one: one.checkpoint.bytes)
    if limit is not None and largest.checkpoint.bytes > limit * 1e9:
        raise UsageError(
            f"max_cache_gb is {limit:g}, but the weights of {largest.checkpoint.name!r} alone are "
            f"{largest.checkpoint.bytes / 1e9:.3g} GB; raise it"
        )
    from timecourse.extract.job import prompts_of

    seen = set()
    for request in requests:
        _ = request.taus  # raises for a multiple that this model has too few heads for
        if (tokenizer := request.checkpoint.tokenizer_sha256) not in seen:
            prompts_of(request)
            seen.add(tokenizer)


def _refuse_mixed_architectures(lake: Lake, requests: Sequence[ExtractionRequest]) -> None:
    """Refuse a series of two architectures: its checkpoints are compared component by component.

    Looks at the requests, and at what the lake holds of their series and they do not replace.
    """
    requested = {request.checkpoint_id: request.checkpoint.architecture for request in requests}
    (first_id, first), *others = requested.items()
    for commit in lake.readable_commits()[0]:
        if commit.content["series_id"] == requests[0].series_id and commit.checkpoint_id not in requested:
            others.append((f"{commit.checkpoint_id} (in the lake)", _committed_architecture(lake, commit, list(first))))
    for other_id, other in others:
        if differences := [f"{name} {first[name]} and {other[name]}" for name in first if first[name] != other[name]]:
            raise UserError(
                f"{first_id} and {other_id} differ in {', '.join(differences)}; the checkpoints of a series are of one "
                "architecture: make two series of them, or withdraw what the lake holds"
            )


def _committed_architecture(lake: Lake, commit: Commit, names: list[str]) -> dict[str, object]:
    path = lake.root / commit.content["directory"] / "checkpoint.parquet"
    try:
        (row,) = pq.read_table(path, columns=names).to_pylist()
    except (OSError, pa.ArrowException, ValueError) as error:
        raise UserError(
            f"what the lake holds of {commit.checkpoint_id} cannot be read ({path.name}); withdraw it to extract anew"
        ) from error
    return dict(row)


def stream(
    plan: Plan, requests: Iterable[ExtractionRequest], settings: Settings
) -> Iterator[tuple[ExtractionRequest, UserError | None]]:
    """Each request when its weights are on this machine and read, with the error where they cannot be.

    While one is worked on, the next one's weights come in, if both are within the limit on the cache; what is done is
    evicted. `requests` are taken one at a time, one ahead of what is worked on.
    """
    limit = settings.machine.max_cache_gb
    coming_requests = iter(requests)
    with ThreadPoolExecutor(1) as pool:

        def begin(request: ExtractionRequest) -> Future[UserError | None]:
            return pool.submit(fetch, plan.source_of(request.checkpoint), request.checkpoint)

        coming: Future[UserError | None] | None = None
        following = next(coming_requests, None)
        while (request := following) is not None:
            error = (coming or begin(request)).result()
            coming = None
            following = next(coming_requests, None)
            if following is not None:
                together = request.checkpoint.bytes + following.checkpoint.bytes
                if limit is None or together <= limit * 1e9:
                    coming = begin(following)
            yield request, error
            plan.source_of(request.checkpoint).evict(request.checkpoint)


def fetch(source: Source, checkpoint: Checkpoint) -> UserError | None:
    """Bring a checkpoint's weights here and read them; the error where they cannot be used.

    A FetchError where they could not be brought or are gone, a SourceError where that is so for every checkpoint of the
    source.
    """
    try:
        try:
            source.fetch(checkpoint)
        except SourceError:
            raise
        except UserError as error:
            raise FetchError(str(error)) from error
        with refusing_what_is_gone(checkpoint.name, checkpoint.folder):
            checkpoint.check_finite()
    except UserError as error:
        return error
    return None
