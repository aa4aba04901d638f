"""What attribution costs beside the model's own forward pass, and what batching brings, in one run.

Three ways to treat the same prompts with the same tiny OLMo: the forward pass alone, the measurement one prompt at a
time, and the measurement in padded batches. Ways alternate, so that a busy machine slows all of them; medians are
compared.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from timecourse.config import Facts
from timecourse.extract.checkpoints.directory import find_checkpoints
from timecourse.extract.checkpoints.tiny_model import pretrain
from timecourse.extract.facts import load_relations
from timecourse.extract.identity import ExtractionRequest, MeasurementSettings
from timecourse.extract.job import prompts_of
from timecourse.extract.loading import load_model
from timecourse.extract.measurement import Measurement

ROUNDS = 5
BATCH = 32
OUT = Path(__file__).parent / "out"


def main() -> None:
    """Measure, write `out/attribution.json` and print the table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Path(folder) / "checkpoints"
        pretrain(checkpoints, Facts().directory, small=True)
        request = ExtractionRequest(
            "benchmark",
            find_checkpoints(checkpoints)[-1],
            load_relations(Path(folder) / "facts"),
            MeasurementSettings(("5x",)),
        )
        model = load_model(request.checkpoint, "float32", "cpu", "eager")
        prompts = sorted(prompts_of(request), key=lambda prompt: len(prompt.token_ids))
        batches = [prompts[start : start + BATCH] for start in range(0, len(prompts), BATCH)]

        def forward() -> None:
            for batch in batches:
                length = max(len(prompt.token_ids) for prompt in batch)
                ids = torch.tensor([[*prompt.token_ids, *[0] * (length - len(prompt.token_ids))] for prompt in batch])
                model.network(input_ids=ids, use_cache=False)

        def one_by_one() -> None:
            measurement = Measurement(request, model, prompts)
            for prompt in prompts:
                measurement.add([prompt])

        def batched() -> None:
            measurement = Measurement(request, model, prompts)
            for batch in batches:
                measurement.add(batch)

        with torch.inference_mode():
            medians = side_by_side({"forward pass": forward, "one by one": one_by_one, "batched": batched})
    table = ["| way | seconds (median) | ratio to the forward pass |", "|---|---|---|"]
    table += [f"| {way} | {spent:.3f} | {spent / medians['forward pass']:.1f} |" for way, spent in medians.items()]
    OUT.mkdir(exist_ok=True)
    result = {"prompts": len(prompts), "rounds": ROUNDS, "seconds": medians}
    (OUT / "attribution.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    (OUT / "attribution.md").write_text("\n".join(table) + "\n", encoding="utf-8")
    sys.stdout.write("\n".join(table) + "\n")


def side_by_side(ways: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Median seconds of each way over alternating rounds, after one round that is not counted."""
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for round_number in range(ROUNDS + 1):
        for way, run in ways.items():
            start = time.perf_counter()
            run()
            if round_number:
                spent[way].append(time.perf_counter() - start)
    return {way: statistics.median(times) for way, times in spent.items()}


if __name__ == "__main__":
    main()
