"""How the cost of extraction grows with prompts and with checkpoints, at 8 layers × 8 heads × d 256 × 50,304 words.

    python -m benchmarks.growth

Seconds of the processor with one thread, which a busy machine does not change much; the median of a few rounds.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.overhead import write
from benchmarks.shapes import save_facts, save_shape
from timecourse.extract.checkpoints.directory import find_checkpoints
from timecourse.extract.facts import load_relations
from timecourse.extract.identity import ExtractionRequest, MeasurementSettings
from timecourse.extract.job import Machine, extract


def main() -> None:
    """Measure, write `out/growth.json` and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, nargs="+", default=[40, 80, 160, 320])
    parser.add_argument("--checkpoints", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        series = Path(folder) / "series"
        for step in range(max(options.checkpoints)):
            save_shape(series / f"step{step}", "8x8x256", torch.float32)
        checkpoints = find_checkpoints(series)

        def spent(prompts: int, count: int) -> float:
            facts = load_relations(save_facts(Path(folder) / f"facts{prompts}", prompts, 16))
            start = time.process_time()
            for number, checkpoint in enumerate(checkpoints[:count]):
                out = Path(folder) / f"out{number}"
                out.mkdir(exist_ok=True)
                extract(
                    ExtractionRequest("growth", checkpoint, facts, MeasurementSettings()), out, Machine("cpu", 32, 1)
                )
            return time.process_time() - start

        cases = [(prompts, 1) for prompts in options.prompts] + [
            (options.prompts[0], count) for count in options.checkpoints if count > 1
        ]
        spent(options.prompts[0], 1)  # warms up
        times: dict[tuple[int, int], list[float]] = {case: [] for case in cases}
        for _ in range(options.rounds):
            for case in cases:
                times[case].append(spent(*case))
    medians = {case: statistics.median(all_of) for case, all_of in times.items()}
    lines = ["| prompts | checkpoints | seconds | ms per prompt and checkpoint |", "|---|---|---|---|"]
    for (prompts, count), seconds in medians.items():
        lines.append(f"| {prompts} | {count} | {seconds:.2f} | {seconds / prompts / count * 1e3:.1f} |")
    rows = [{"prompts": case[0], "checkpoints": case[1], "seconds": all_of} for case, all_of in times.items()]
    write("growth", {"rows": rows}, lines)


if __name__ == "__main__":
    main()
