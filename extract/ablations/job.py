"""One ablation: what silencing roles' sets, random sets like them, and single components does at one checkpoint.

1. number the sets: those of the roles, the random ones beside each, every component alone; 2. decide which prompts
each set is scored on; 3. load the model, and score part after part of these pairs; a part that an interrupted run left
behind is not scored again; 4. write the tables.

Sets of roles come from the warehouse, where SQL derived them from one half of the facts; they are scored on the other.
"""

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from timecourse.extract.ablations.replacements import Replacements, collect_replacements
from timecourse.extract.ablations.scoring import Method, method_name, score
from timecourse.extract.ablations.sets import AblationSet, SetKind, image, permutations
from timecourse.extract.ablations.silencing import PostNorm
from timecourse.extract.identity import ExtractionRequest
from timecourse.extract.job import Machine, loaded, prompts_of
from timecourse.extract.raw import ABLATION_TABLES, is_readable, write_table

ABLATOR_VERSION = 1
"""Raised whenever the same inputs would give other numbers than before."""

PAIRS_PER_PART = 60_000
"""Pairs of a set and a prompt between two files: what an interruption costs at most."""

BATCH = 32
"""Prompts per forward pass where no number is set."""

Pairs = NDArray[np.int64]
"""[P, 2]: set_id and prompt_id."""


@dataclass(frozen=True)
class RoleSet:
    """The components (by name) that hold a role, derived from half A or B of the facts.

    relation_id: of a role of one relation; None for a role of the whole model.
    """

    half: str
    role: str
    relation_id: str | None
    components: tuple[str, ...]


@dataclass(frozen=True)
class AblationRequest:
    """What is silenced at one checkpoint, and how. `tau_id` and `theta`: those of the roles.

    half_of_fact: fact_id -> the half that it is in. random_sets: how many stand beside each role's set.
    """

    extraction: ExtractionRequest
    tau_id: str
    theta: str
    role_sets: Sequence[RoleSet]
    half_of_fact: Mapping[str, str]
    methods: tuple[Method, ...] = ("mean", "resample")
    norm: PostNorm = "frozen"
    random_sets: int = 20
    seed: int = 0

    @property
    def inputs(self) -> dict[str, Any]:
        """Everything the numbers depend on."""
        return {
            "extraction": self.extraction.extraction_id,
            "tau_id": self.tau_id,
            "theta": self.theta,
            "role_sets": [asdict(one) for one in self.role_sets],
            "half_of_fact": dict(sorted(self.half_of_fact.items())),
            "methods": list(self.methods),
            "norm": self.norm,
            "random_sets": self.random_sets,
            "seed": self.seed,
            "ablator_version": ABLATOR_VERSION,
        }

    @property
    def ablation_id(self) -> str:
        """Hash of the inputs: the same inputs are the same ablation."""
        return hashlib.sha256(json.dumps(self.inputs, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def sets(self) -> list[AblationSet]:
        """Every set, numbered: each role's, then the random ones like it; then each component alone."""
        architecture = self.extraction.checkpoint.architecture
        layers, heads = int(architecture["layer_count"]), int(architecture["head_count"])
        number_of = {name: number for number, name in enumerate(component_names(layers, heads))}
        sets: list[AblationSet] = []
        drawn = permutations(layers, heads, self.random_sets, self.seed)
        for one in self.role_sets:
            own = tuple(sorted(number_of[name] for name in one.components))
            for index, components in [(None, own), *((index, image(own, each)) for index, each in enumerate(drawn))]:
                kind: SetKind = "role" if index is None else "random"
                sets.append(AblationSet(len(sets), kind, one.role, one.relation_id, one.half, index, components))
        for number in number_of.values():
            sets.append(AblationSet(len(sets), "single", None, None, None, None, (number,)))
        return sets

    @cached_property
    def pairs(self) -> Pairs:
        """Which prompts each set is scored on: [P, 2] of set_id and prompt_id, sorted.

        A role's set: the facts of the other half, of all relations. A random set: the same, but those of its relation
        only where its role has one. A single component: every prompt.
        """
        prompts = [
            (relation.relation_id, self.half_of_fact[relation.fact_id(fact)])
            for relation in self.extraction.relations
            for _ in relation.prompt_templates
            for fact in relation.samples
        ]
        relations, halves = (np.array(column) for column in zip(*prompts, strict=True))
        everywhere = np.ones(len(prompts), dtype=bool)
        chosen = []
        for one in self.sets:
            wanted = everywhere if one.half is None else halves != one.half
            if one.set_kind == "random" and one.relation_id is not None:
                wanted = wanted & (relations == one.relation_id)
            prompt_ids = np.flatnonzero(wanted)
            chosen.append(np.column_stack([np.full(len(prompt_ids), one.set_id), prompt_ids]))
        return np.concatenate(chosen)

    def pairs_of(self, method: Method) -> Pairs:
        """Those that are scored by a method: single components, which are most of the work, only by the first."""
        if method == self.methods[0]:
            return self.pairs
        singles = [one.set_id for one in self.sets if one.set_kind == "single"]
        return self.pairs[~np.isin(self.pairs[:, 0], singles)]

    @property
    def run_count(self) -> int:
        """How often a prompt is run with something silenced."""
        return sum(len(self.pairs_of(method)) for method in self.methods)


def component_names(layer_count: int, head_count: int) -> list[str]:
    """L0H0, L0H1, ..., L0F, L1H0, ...: in the order of their numbers."""
    return [
        f"L{layer}{'F' if part == head_count else f'H{part}'}"
        for layer in range(layer_count)
        for part in range(head_count + 1)
    ]


def ablate(
    request: AblationRequest,
    directory: Path,
    unfinished: Path,
    machine: Machine,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, int]:
    """Silence every set at one checkpoint and write `ablation_sets` and `ablations` into `directory`; rows by table.

    `unfinished` keeps finished parts until the caller removes it: a later call with the same request goes on from them.
    `progress` is called with the number of runs just finished. Raises UserError as `extract` does, and where a
    log-probability is not finite.
    """
    at_once = machine.batch_size or BATCH
    parts = list(_parts(request))
    missing = [(name, method, pairs) for name, method, pairs in parts if not is_readable(unfinished / name)]
    progress(request.run_count - sum(len(pairs) for _, _, pairs in missing))
    if missing:
        prompts = prompts_of(request.extraction)
        with loaded(request.extraction, _with_all_threads(machine)) as model, torch.inference_mode():
            replacements: Replacements | None = None
            for name, method, pairs in missing:
                if method != "zero" and replacements is None:
                    replacements = collect_replacements(model, prompts, request.seed, at_once)
                columns = score(
                    model,
                    prompts,
                    request.sets,
                    pairs,
                    method,
                    norm=request.norm,
                    replacements=None if method == "zero" else replacements,
                    batch_size=2 * at_once,  # a run keeps no activations, unlike an extraction
                    progress=progress,
                )
                full_name = method_name(method, request.norm, model.family)
                _write_part(unfinished / name, {"method": np.full(len(columns["set_id"]), full_name), **columns})
    return _write(request, directory, [unfinished / name for name, _, _ in parts])


def seconds_per_run(request: AblationRequest, machine: Machine) -> float:
    """About how long one run of a prompt takes here, by a few sets and prompts. Raises UserError as `ablate` does."""
    prompts = prompts_of(request.extraction)
    at_once = machine.batch_size or BATCH
    length = Counter(len(prompt.token_ids) for prompt in prompts).most_common(1)[0][0]
    sample = [prompt for prompt in prompts if len(prompt.token_ids) == length][:at_once]
    sets = request.sets[:: max(1, len(request.sets) // 8)][:8]
    pairs = [(one.set_id, prompt.prompt_id) for one in sets for prompt in sample]
    with loaded(request.extraction, _with_all_threads(machine)) as model, torch.inference_mode():
        seconds = math.inf
        for _ in range(2):  # the first run is slower
            start = time.perf_counter()
            score(model, sample, sets, pairs, "zero", norm=request.norm, batch_size=2 * at_once)
            seconds = min(seconds, time.perf_counter() - start)
    return seconds / len(pairs)


def _with_all_threads(machine: Machine) -> Machine:
    """Batches are large here, so that a second thread pays for small models too."""
    return replace(machine, threads=machine.threads or torch.get_num_threads())


def _parts(request: AblationRequest) -> Iterator[tuple[str, Method, Pairs]]:
    for method in request.methods:
        pairs = request.pairs_of(method)
        for number, start in enumerate(range(0, len(pairs), PAIRS_PER_PART)):
            yield f"{method}-{number:05}.parquet", method, pairs[start : start + PAIRS_PER_PART]


def _write_part(path: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    beside = path.with_suffix(".new")
    pq.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), beside)
    beside.replace(path)


def _write(request: AblationRequest, directory: Path, parts: Sequence[Path]) -> dict[str, int]:
    rows = pa.concat_tables([pq.read_table(path) for path in parts])
    rows = rows.sort_by([(name, "ascending") for name in ("method", "set_id", "prompt_id", "answer_token_index")])
    extraction_id = request.extraction.extraction_id
    changes = {name: rows.column(name).combine_chunks() for name in rows.column_names}
    template = changes["delta_template_log_prob"]
    changes["delta_template_log_prob"] = pa.array(template.to_numpy(), from_pandas=True)  # no template: NaN to null
    tables: dict[str, Mapping[str, Any]] = {"ablation_sets": _set_columns(request), "ablations": changes}
    return {
        name: write_table(
            directory, name, {"extraction_id": [extraction_id] * len(next(iter(columns.values()))), **columns}
        )
        for name, columns in tables.items()
    }


def _set_columns(request: AblationRequest) -> dict[str, list[Any]]:
    architecture = request.extraction.checkpoint.architecture
    names = component_names(int(architecture["layer_count"]), int(architecture["head_count"]))
    of_roles = {"tau_id": request.tau_id, "theta": request.theta}
    rows = [
        {
            **vars(one),
            **(dict.fromkeys(of_roles) if one.set_kind == "single" else of_roles),
            "component_id": names[component],
        }
        for one in request.sets
        for component in sorted(one.components, key=names.__getitem__)
    ]
    columns = [name for name in ABLATION_TABLES["ablation_sets"].names if name != "extraction_id"]
    return {name: [row[name] for row in rows] for name in columns}
