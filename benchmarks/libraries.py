"""What libraries that show a model's activations take for the same ones: TransformerLens and nnsight, where installed.

    python -m benchmarks.libraries --shape OLMo-1B --layers 4

For each layer of the same random model: the streams before, between and after, the attention pattern, the values and
the FFN's output, for a batch of 32 prompts of 16 tokens. `timecourse` hands each layer on as it finishes, and is shown
twice: as it is used, with contributions computed and activations dropped, and with all activations kept, as the others
keep them. Each way runs in a process of its own, for the sake of its peak of memory; the streams after the last layer
must agree. None of the libraries is needed by timecourse: where one is missing or does not go with the installed
transformers, its row says so.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.overhead import write
from benchmarks.shapes import SHAPES, VOCABULARY, save_shape
from benchmarks.watching import largest, memory

Way = Callable[[Any, Tensor], Tensor]
ROUNDS = 5


def main() -> None:
    """Measure, write `out/libraries.json` and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="8x8x256")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--checkpoint", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=list(WAYS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only is not None:
        sys.stdout.write(json.dumps(measure(options.only, options.checkpoint)) + "\n")
        return
    lines = [
        "| way | ms per batch | ms of processor | ratio of processor | peak beyond the model, MB |",
        "|" + "---|" * 5,
    ]
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        save_shape(Path(folder) / "main", options.shape, torch.float32, options.layers)
        command = [sys.executable, "-m", "benchmarks.libraries", "--checkpoint", f"{folder}/main", "--only"]
        for way in WAYS:
            done = subprocess.run([*command, way], capture_output=True, text=True)
            if done.returncode == 0:
                results[way] = json.loads(done.stdout.splitlines()[-1])
            else:
                said = done.stderr.strip().splitlines()
                results[way] = {"skipped": said[-1] if said else f"ended with {done.returncode}"}
    checksums = {way: found["checksum"] for way, found in results.items() if "checksum" in found}
    expected = checksums["forward pass"]
    if wrong := [way for way, one in checksums.items() if abs(one - expected) > 1e-3 * abs(expected)]:
        sys.exit(f"other activations than the forward pass's: {', '.join(wrong)}")
    for way, found in results.items():
        if "skipped" in found:
            lines.append(f"| {way} | skipped: {found['skipped']} | | | |")
            continue
        ratio = found["processor"] / results["forward pass"]["processor"]
        lines.append(
            f"| {way} | {found['clock'] * 1e3:.0f} | {found['processor'] * 1e3:.0f} | {ratio:.2f} "
            f"| {found['peak'] / 1e6:.0f} |"
        )
    write("libraries", {"shape": options.shape, "layers": options.layers, "ways": results}, lines)


def measure(way: str, checkpoint: Path) -> dict[str, float]:
    """Median seconds per batch, the peak of memory beyond the loaded model, and a sum to compare by."""
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    network = AutoModelForCausalLM.from_pretrained(checkpoint, attn_implementation="eager").eval()
    ids = torch.randint(2, VOCABULARY, (32, 16), generator=torch.Generator().manual_seed(0))
    prepare, run = WAYS[way]
    with torch.no_grad():
        model = prepare(network, checkpoint)
        before = memory()["own"]
        times = []
        with largest(memory, every=0.01) as peak:
            for _ in range(ROUNDS + 1):
                start, processor = time.perf_counter(), time.process_time()
                stream = run(model, ids)
                times.append((time.perf_counter() - start, time.process_time() - processor))
    clock, processor_time = (statistics.median(one[kind] for one in times[1:]) for kind in (0, 1))
    return {
        "clock": clock,
        "processor": processor_time,
        "peak": peak["own"] - before,
        "checksum": float(stream.abs().double().sum()),
    }


def _as_it_is(network: Any, _checkpoint: Path) -> Any:
    return network


def _forward(network: Any, ids: Tensor) -> Tensor:
    kept = []
    hook = network.model.layers[-1].register_forward_hook(lambda *call: kept.append(call[2]))
    network(input_ids=ids, use_cache=False)
    hook.remove()
    stream: Tensor = kept[0][0] if isinstance(kept[0], tuple) else kept[0]
    return stream


def _with_timecourse(network: Any, _checkpoint: Path) -> Any:
    from timecourse.extract.activations import use_capturing_attention

    use_capturing_attention(network)
    return network


def _keeping(network: Any, ids: Tensor) -> Tensor:
    from timecourse.extract.activations import LayerActivations, reading_layers
    from timecourse.extract.families import family_of

    kept: list[LayerActivations] = []
    with reading_layers(network, family_of("olmo", "benchmark"), lambda _, layer: kept.append(layer)):
        network(input_ids=ids, use_cache=False)
    return kept[-1].residual_after


def _attributing(network: Any, ids: Tensor) -> Tensor:
    from timecourse.extract.activations import LayerActivations, reading_layers
    from timecourse.extract.contributions import layer_contributions
    from timecourse.extract.families import family_of

    kept, last = [], []

    def receive(_index: int, layer: LayerActivations) -> None:
        kept.append(layer_contributions(layer))
        last[:] = [layer.residual_after]

    with reading_layers(network, family_of("olmo", "benchmark"), receive):
        network(input_ids=ids, use_cache=False)
    stream: Tensor = last[0]
    return stream


def _with_nnsight(network: Any, _checkpoint: Path) -> Any:
    from nnsight import NNsight

    return NNsight(network)


def _nnsight(model: Any, ids: Tensor) -> Tensor:
    with model.trace(input_ids=ids, use_cache=False):
        kept = list().save()
        for layer in model.model.layers:
            kept.append(layer.input.save())
            kept.append(layer.self_attn.v_proj.output.save())
            kept.append(layer.self_attn.output.save())
            kept.append(layer.post_attention_layernorm.input.save())
            kept.append(layer.mlp.output.save())
            kept.append(layer.output.save())
    stream: Tensor = kept[-1][0] if isinstance(kept[-1], tuple) else kept[-1]
    return stream


def _with_transformer_lens(network: Any, checkpoint: Path) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_transformers(str(checkpoint), hf_model=network, device="cpu")


def _transformer_lens(model: Any, ids: Tensor) -> Tensor:
    _, cache = model.run_with_cache(ids)
    layers = len([name for name in cache if name.endswith("hook_resid_post") or name.endswith("hook_out")])
    stream: Tensor = cache[f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"] if layers else cache["resid_post", -1]
    return stream


WAYS: dict[str, tuple[Callable[[Any, Path], Any], Way]] = {
    "forward pass": (_as_it_is, _forward),
    "timecourse, all kept": (_with_timecourse, _keeping),
    "timecourse, contributions": (_with_timecourse, _attributing),
    "nnsight trace": (_with_nnsight, _nnsight),
    "TransformerLens run_with_cache": (_with_transformer_lens, _transformer_lens),
}
"""Name: (how the model is made ready, what a batch is)."""


if __name__ == "__main__":
    main()
