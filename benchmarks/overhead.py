"""What measuring costs beside the model's own forward pass, for models of real shapes with random weights.

    python -m benchmarks.overhead --shape OLMo-1B --tokens 16 64 256 1024
    python -m benchmarks.overhead --shape OLMo-7B

Batch by batch, the plain forward pass and the measurement run one after the other on the same model, so that a busy
machine slows both; ratios are taken within a batch, and their median is reported. The measurement runs a second forward
pass, over the prompts with mismatched subjects: it is timed apart, and both ways of counting it are shown. Writing the
tables is shared out among the batches. Every length runs in a process of its own, for the sake of its peak of memory.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.shapes import SHAPES, save_facts, save_shape
from benchmarks.watching import largest, memory
from timecourse.extract import measurement
from timecourse.extract.activations import unread_attention
from timecourse.extract.checkpoints.directory import find_checkpoints
from timecourse.extract.facts import load_relations
from timecourse.extract.identity import ExtractionRequest, MeasurementSettings
from timecourse.extract.job import prompts_of
from timecourse.extract.loading import LoadedModel, load_model
from timecourse.extract.measurement import Measurement
from timecourse.extract.memory import memory_plan
from timecourse.extract.prompts import Prompt

OUT = Path(__file__).parent / "out"
PHASES = {
    "contributions": (measurement, "layer_contributions"),
    "routes": (measurement, "walk_routes"),
    "logit lens": (Measurement, "_predictions"),
    "mismatched pass": (Measurement, "_log_probs_mismatched"),
}
"""Parts of the measurement that are timed apart, by the function that does each."""


def main() -> None:
    """Measure, write `out/overhead-<shape>.json` and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="OLMo-1B")
    parser.add_argument("--layers", type=int, help="fewer layers than the shape has, for a quick look")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--tokens", type=int, nargs="+", default=[16])
    parser.add_argument("--prompts", type=int, default=160, help="of 16 tokens; as many fewer as they are longer")
    parser.add_argument("--batch", type=int, default=32, help="of 16 tokens; as many fewer as they are longer")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoint", type=Path, help="where the checkpoint is kept; made where it is missing")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        series = options.checkpoint or Path(folder) / "series"
        if not (series / "main" / "config.json").is_file():
            save_shape(series / "main", options.shape, getattr(torch, options.dtype), options.layers)
        if options.only is not None:
            prompts = max(2, options.prompts * 16 // options.only)
            batch = max(1, options.batch * 16 // options.only)
            facts = save_facts(Path(folder) / "facts", prompts, options.only)
            sys.stdout.write(json.dumps(measure(series, facts, options.dtype, batch, options.threads)) + "\n")
            return
        command = [sys.executable, "-m", "benchmarks.overhead", *sys.argv[1:], "--checkpoint", str(series)]
        rows = []
        for tokens in options.tokens:
            done = subprocess.run([*command, "--only", str(tokens)], check=True, stdout=subprocess.PIPE, text=True)
            rows.append({"tokens": tokens} | json.loads(done.stdout.splitlines()[-1]))
    layers = f"-{options.layers}-layers" if options.layers else ""
    name = f"overhead-{options.shape}{layers}-{options.dtype}"
    write(name, {"shape": options.shape, "layers": options.layers, "dtype": options.dtype, "rows": rows}, table(rows))


def measure(series: Path, facts: Path, dtype: str, batch_size: int, threads: int) -> dict[str, Any]:
    """Seconds by batch of each way and part, medians of ratios, and peaks of the process's own memory in bytes."""
    torch.set_num_threads(threads)
    settings = MeasurementSettings(dtype=dtype)
    request = ExtractionRequest("benchmark", find_checkpoints(series)[0], load_relations(facts), settings)
    prompts = prompts_of(request)
    assert request.extraction_id  # the weights' hash is read with the weights, and kept: it is no part of what follows
    model = load_model(request.checkpoint, dtype, "cpu", settings.attention)
    batches = [prompts[start : start + batch_size] for start in range(0, len(prompts), batch_size)]
    with torch.inference_mode(), largest(memory, every=0.005) as peak_of_plain:
        plain(model, batches[0])
    with torch.inference_mode(), timed_phases() as seconds, largest(memory, every=0.02) as peak_of_all:
        Measurement(request, model, prompts).add(batches[0][:2])  # compiles what is to be compiled
        measured = Measurement(request, model, prompts)
        spent: dict[str, list[Seconds]] = {"plain": [], "measurement": []} | {phase: [] for phase in PHASES}
        for batch in batches:
            spent["plain"].append(seconds_of(lambda batch=batch: plain(model, batch)))
            seconds.clear()
            spent["measurement"].append(seconds_of(lambda batch=batch: measured.add(batch)))
            for phase in PHASES:
                spent[phase].append(seconds.get(phase, Seconds(0, 0)))
        with tempfile.TemporaryDirectory() as out:
            writing = seconds_of(lambda: measured.tables.write(Path(out))).shared(len(batches))

    answers = sum(len(prompt.answer_positions) for prompt in batches[0])
    plan = memory_plan(request.checkpoint, dtype)
    size = (len(batches[0]), len(batches[0][0].token_ids))
    return {
        "prompts": len(prompts),
        "batch": batch_size,
        "threads": threads,
        "seconds": spent | {"writing": [writing]},
        "clock": ratios({name: [one.clock for one in all_of] for name, all_of in spent.items()}, writing.clock),
        "processor": ratios(
            {name: [one.processor for one in all_of] for name, all_of in spent.items()}, writing.processor
        ),
        "peak": {"plain": peak_of_plain["own"], "all": peak_of_all["own"]},
        "planned": {
            "weights": plan.weights,
            "activations": plan.activations(*size),
            "attribution": plan.attribution(*size, answers),
        },
    }


def ratios(spent: dict[str, list[float]], writing: float) -> dict[str, float]:
    """Medians over batches: seconds of each part, and the measurement over the forward passes beside it."""

    def median_of(*parts: Callable[[int], float]) -> float:
        over, under = parts
        return statistics.median(over(batch) / under(batch) for batch in range(len(spent["plain"])))

    def whole(batch: int) -> float:
        return spent["measurement"][batch] + writing

    def mismatched(batch: int) -> float:
        return spent["mismatched pass"][batch]

    def plain_pass(batch: int) -> float:
        return spent["plain"][batch]

    return {name: statistics.median(times) for name, times in spent.items()} | {
        "writing": writing,
        "over_plain": median_of(lambda batch: whole(batch) - mismatched(batch), plain_pass),
        "over_both_passes": median_of(whole, lambda batch: plain_pass(batch) + mismatched(batch)),
        "total_over_plain": median_of(whole, plain_pass),
    }


def plain(model: LoadedModel, batch: list[Prompt]) -> None:
    """The model's forward pass as anyone runs it, with its own attention and the logits of every position."""
    ids = torch.tensor([prompt.token_ids for prompt in batch])
    with unread_attention(model.network):
        model.network(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)


@contextmanager
def timed_phases() -> "Iterator[dict[str, Seconds]]":
    """Seconds spent in each of PHASES since the dictionary was last emptied."""
    seconds: dict[str, Seconds] = {}
    before = {phase: getattr(owner, name) for phase, (owner, name) in PHASES.items()}

    def timing(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            start = Seconds.now()
            try:
                return function(*arguments, **options)
            finally:
                so_far, spent = seconds.get(phase, Seconds(0, 0)), Seconds.now()
                clock, processor = spent.clock - start.clock, spent.processor - start.processor
                seconds[phase] = Seconds(so_far.clock + clock, so_far.processor + processor)

        return run

    for phase, (owner, name) in PHASES.items():
        setattr(owner, name, timing(phase, before[phase]))
    try:
        yield seconds
    finally:
        for phase, (owner, name) in PHASES.items():
            setattr(owner, name, before[phase])


class Seconds(NamedTuple):
    """On the clock and of the processor: with one thread, the second is what the clock says on a quiet machine."""

    clock: float
    processor: float

    @classmethod
    def now(cls) -> "Seconds":
        """Both clocks."""
        return cls(time.perf_counter(), time.process_time())

    def shared(self, among: int) -> "Seconds":
        """Each one's part."""
        return Seconds(self.clock / among, self.processor / among)


def seconds_of(run: Callable[[], object]) -> Seconds:
    """Seconds of one call."""
    start = Seconds.now()
    run()
    end = Seconds.now()
    return Seconds(end.clock - start.clock, end.processor - start.processor)


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown: two rows per length, by the clock and by the processor."""
    lines = [
        "| tokens | prompts | threads | seconds | plain pass | contributions | routes | lens | writing "
        "| mismatched pass | measurement ÷ plain | ÷ both passes | with mismatched ÷ plain "
        "| peak beyond plain, MB | planned, MB |",
        "|" + "---|" * 15,
    ]
    parts = ("plain", "contributions", "routes", "logit lens", "writing", "mismatched pass")
    for row in rows:
        for kind in ("clock", "processor"):
            numbers = [row[kind][name] for name in (*parts, "over_plain", "over_both_passes", "total_over_plain")]
            lines.append(
                f"| {row['tokens']} | {row['prompts']} in {row['batch']}s | {row['threads']} | {kind} | "
                + " | ".join(f"{one:.2f}" for one in numbers)
                + f" | {(row['peak']['all'] - row['peak']['plain']) / 1e6:.0f}"
                + f" | {row['planned']['attribution'] / 1e6:.0f} |"
            )
    return lines


def write(name: str, result: dict[str, Any], lines: list[str]) -> None:
    """Write `out/<name>.json` and `out/<name>.md`, and print the table."""
    OUT.mkdir(exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    (OUT / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
