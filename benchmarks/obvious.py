"""The measurement against the obvious way to write it, at 8 layers × 8 heads × d 256 × a vocabulary of 50,304.

    python -m benchmarks.obvious

The obvious way takes one prompt at a time, makes the whole tensor [query, key, head, d] of the heads' parts, puts every
surviving edge into a networkx graph, searches it from each target, and reads each head of each layer through the
unembedding. Both ways run on the same model and prompts, in turn, one thread each; their results are compared before
anything is reported. Medians over rounds; seconds are per prompt, on the clock and of the processor.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import networkx
import torch
from torch import Tensor

from benchmarks.overhead import write
from benchmarks.shapes import save_facts, save_shape
from timecourse.extract.activations import LayerActivations, reading_layers
from timecourse.extract.checkpoints.directory import find_checkpoints
from timecourse.extract.facts import load_relations
from timecourse.extract.identity import ExtractionRequest, MeasurementSettings
from timecourse.extract.job import prompts_of
from timecourse.extract.loading import LoadedModel, load_model
from timecourse.extract.measurement import Measurement
from timecourse.extract.prompts import Prompt

TAU = "0.01"
Scores = dict[tuple[int, int, int], tuple[float, int]]
"""{(prompt, target, component): (score, edges)}."""


def main() -> None:
    """Measure, write `out/obvious.json` and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=160)
    parser.add_argument("--obvious-prompts", type=int, default=4, help="how many of them the obvious way takes a round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        series = Path(folder) / "series"
        save_shape(series / "main", "8x8x256", torch.float32)
        facts = load_relations(save_facts(Path(folder) / "facts", options.prompts, 16))
        request = ExtractionRequest("benchmark", find_checkpoints(series)[0], facts, MeasurementSettings(taus=(TAU,)))
        prompts = prompts_of(request)
        model = load_model(request.checkpoint, "float32", "cpu", "eager")
        seconds: dict[str, list[tuple[float, float]]] = {"obvious": [], "timecourse": []}
        with torch.inference_mode():
            for round_number in range(options.rounds + 1):
                first = round_number * options.obvious_prompts % len(prompts)
                some = prompts[first : first + options.obvious_prompts]
                plain_scores: Scores = {}

                def obviously(some: Sequence[Prompt] = some, scores: Scores = plain_scores) -> None:
                    for prompt in some:
                        scores.update(obvious(model, prompt, float(TAU)))

                spent = timed(obviously, len(some))
                measured = Measurement(request, model, prompts)

                def batched(measured: Measurement = measured) -> None:
                    for start in range(0, len(prompts), 32):
                        measured.add(prompts[start : start + 32])

                own_spent = timed(batched, len(prompts))
                compare(plain_scores, scores_of(measured), [prompt.prompt_id for prompt in some])
                if round_number:  # the first round warms up
                    seconds["obvious"].append(spent)
                    seconds["timecourse"].append(own_spent)
    medians = {
        way: [statistics.median(one[kind] for one in times) for kind in (0, 1)] for way, times in seconds.items()
    }
    ratios = [medians["obvious"][kind] / medians["timecourse"][kind] for kind in (0, 1)]
    lines = ["| way | ms per prompt | ms of processor | ratio | ratio of processor |", "|---|---|---|---|---|"]
    for way, (clock, processor) in medians.items():
        shown = [medians[way][kind] / medians["timecourse"][kind] for kind in (0, 1)]
        lines.append(f"| {way} | {clock * 1e3:.1f} | {processor * 1e3:.1f} | {shown[0]:.1f} | {shown[1]:.1f} |")
    write("obvious", {"seconds": seconds, "medians": medians, "ratios": ratios, "compared": "equal"}, lines)


def obvious(model: LoadedModel, prompt: Prompt, tau: float) -> Scores:
    """Scores and edges of one prompt's components for every target."""
    graph: Any = networkx.DiGraph()
    carried: dict[tuple[int, int], list[tuple[int, float]]] = {}  # {(block, query): [(component, contribution)]}
    written: dict[tuple[int, int], float] = {}
    head_count = model.head_count

    def receive(block: int, layer: LayerActivations) -> None:
        pattern, weight = layer.pattern[0], layer.output_weight
        value_output = torch.einsum("hke,dhe->khd", layer.value[0], weight.view(len(weight), head_count, -1))
        parts = torch.einsum("hqk,khd->qkhd", pattern, value_output)
        for head in range(head_count):  # what does each head write? read, and thrown away
            model.read_stream(parts[:, :, head].sum(1)).softmax(-1).topk(10)
        assert layer.residual_between is not None
        before, between, after = layer.residual_before[0], layer.residual_between[0], layer.residual_after[0]
        whole = before + parts.sum((1, 2))
        close = closeness(whole[:, None, None], parts)
        stays = closeness(whole, before)
        close = torch.where(layer.attendable[0][..., None], close.clamp(min=1e-5), 0)
        total = close.sum((1, 2)) + stays.clamp(min=1e-5)
        heads, residual = close / total[:, None, None], stays.clamp(min=1e-5) / total
        two = torch.stack([closeness(after, between), closeness(after, layer.feed_forward[0])]).clamp(min=1e-5)
        below, feed_forward = (two / two.sum(0)).where(two / two.sum(0) > tau, 0)
        feed_forward = feed_forward / (below + feed_forward)
        heads, residual = heads.where(heads > tau, 0), residual.where(residual > tau, 0)
        left = heads.sum((1, 2)) + residual
        heads = heads / left[:, None, None]
        for query in range(len(whole)):
            written[block, query] = float(feed_forward[query])
            if below[query] > 0 or feed_forward[query] > 0:
                graph.add_edge(("after", block, query), ("between", block, query))
            if residual[query] > 0:
                graph.add_edge(("between", block, query), ("after", block - 1, query))
            edges = carried[block, query] = []
            for key in range(query + 1):
                for head in range(head_count):
                    if (value := float(heads[query, key, head])) > 0:
                        graph.add_edge(("between", block, query), ("after", block - 1, key))
                        edges.append((head, value))

    with reading_layers(model.network, model.family, receive):
        model.network(input_ids=torch.tensor([prompt.token_ids]), use_cache=False)
    found: Scores = {}
    for target in range(len(prompt.token_ids)):
        top = ("after", model.layer_count - 1, target)
        for kind, block, query in [top, *networkx.descendants(graph, top)]:
            if block < 0:
                continue
            terms = carried[block, query] if kind == "between" else [(head_count, written[block, query])]
            for component, value in terms:
                if value > 0:
                    key = (prompt.prompt_id, target, block * (head_count + 1) + component)
                    score, count = found.get(key, (0.0, 0))
                    found[key] = (score + value, count + 1)
    return found


def closeness(whole: Tensor, part: Tensor) -> Tensor:
    """‖y‖ − ‖y − p‖ in the l1 norm."""
    return (whole.abs() - (whole - part).abs()).sum(-1)


def scores_of(measured: Measurement) -> Scores:
    """What the measurement found."""
    columns = measured.tables.attributions.joined(["tau_id", "prompt_id", "position", "component_id"])
    names = ("prompt_id", "position", "component_id", "score", "edges")
    return {
        (prompt, position, component): (score, edges)
        for prompt, position, component, score, edges in zip(*(columns[name].tolist() for name in names), strict=True)
    }


def compare(expected: Scores, found: Scores, prompts: Sequence[int]) -> None:
    """Stops where the two ways differ by more than an edge within rounding of τ may bring."""
    found = {key: value for key, value in found.items() if key[0] in set(prompts)}
    differing = set(expected) ^ set(found)
    differing |= {key for key in expected.keys() & found.keys() if expected[key][1] != found[key][1]}
    worst = max(abs(expected[key][0] - found[key][0]) for key in set(expected) - differing)
    if len(differing) > 1e-3 * len(expected) or worst > 1e-3:
        sys.exit(f"the two ways differ: {len(differing)} of {len(expected)} components, scores by {worst:.2g}")


def timed(run: Callable[[], None], prompts: int) -> tuple[float, float]:
    """Seconds per prompt on the clock and of the processor."""
    start, processor = time.perf_counter(), time.process_time()
    run()
    return (time.perf_counter() - start) / prompts, (time.process_time() - processor) / prompts


if __name__ == "__main__":
    main()
