"""One checkpoint of OLMo-7B's shape, from files to raw tables: seconds by phase, peak of memory, share of loading.

    python -m benchmarks.seven_billion --directory /somewhere/with/14/GB

Writes a checkpoint of random bfloat16 weights (13.8 GB; kept in --directory if it is named), reads its files plainly
once for comparison, and extracts it for 160 prompts of 16 tokens. Files are dropped from the system's cache before each
of the two. What is known so far is written after every batch, so that a run that is cut short still says something.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from benchmarks.overhead import timed_phases, write
from benchmarks.shapes import SHAPES, save_facts, save_shape
from benchmarks.watching import largest, memory
from timecourse.extract.checkpoints.directory import find_checkpoints
from timecourse.extract.facts import load_relations
from timecourse.extract.identity import ExtractionRequest, MeasurementSettings
from timecourse.extract.job import Machine, measure, memory_row

NAME = "seven_billion"


def main() -> None:
    """Measure, write `out/seven_billion.json` and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="OLMo-7B")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--prompts", type=int, default=160)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        series = options.directory or Path(folder) / "series"
        if not (series / "main" / "tokenizer.json").is_file():
            save_shape(series / "main", options.shape, torch.bfloat16, options.layers)
        facts = save_facts(Path(folder) / "facts", options.prompts, options.tokens)
        checkpoint = find_checkpoints(series)[0]
        request = ExtractionRequest(
            "benchmark", checkpoint, load_relations(facts), MeasurementSettings(dtype="bfloat16")
        )
        machine = Machine("cpu", options.batch, options.threads)
        files = [checkpoint.folder / name for name in checkpoint.weight_files]
        result: dict[str, Any] = {
            "shape": options.shape,
            "layers": checkpoint.architecture["layer_count"],
            "prompts": options.prompts,
            "tokens": options.tokens,
            "threads": options.threads,
            "bytes": checkpoint.bytes,
            "planned": memory_row(request, machine),
        }
        drop_from_cache(files)
        result["plain_read_seconds"] = read(files)
        drop_from_cache(files)
        start = time.perf_counter()
        checkpoint.check_finite()  # the stage before: while another checkpoint is measured
        result["check_seconds"] = time.perf_counter() - start
        drop_from_cache(files)
        result["batches"] = []
        out = Path(folder) / "out"
        out.mkdir()
        with timed_phases() as phases, largest(memory, every=0.05) as result["peak"]:

            def progress(prompts: int) -> None:
                elapsed = time.perf_counter() - start
                result["batches"].append(
                    {"prompts": prompts, "elapsed": elapsed, **{k: v.clock for k, v in phases.items()}}
                )
                result["phases"] = {phase: spent.clock for phase, spent in phases.items()}
                write(NAME, result, table(result))

            start = time.perf_counter()
            measure(request, machine, progress).write(out)
            result["seconds"] = time.perf_counter() - start
        (row,) = pq.read_table(out / "checkpoint.parquet").to_pylist()
        result["seconds_by_phase"] = json.loads(row["seconds_by_phase"])
        result["completeness_error_max"] = row["completeness_error_max"]
    write(NAME, result, table(result))


def drop_from_cache(files: list[Path]) -> None:
    """Ask the system to forget what it holds of these files."""
    for file in files:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(files: list[Path]) -> float:
    """Seconds of reading files from beginning to end, and doing nothing with them."""
    block = bytearray(2**24)
    start = time.perf_counter()
    for file in files:
        with file.open("rb", buffering=0) as opened:
            while opened.readinto(block):
                pass
    return time.perf_counter() - start


def table(result: dict[str, Any]) -> list[str]:
    """Markdown: what took how long, and the peak of memory."""
    done = sum(batch["prompts"] for batch in result["batches"])
    lines = ["| what | |", "|---|---|", f"| prompts measured | {done} of {result['prompts']} |"]
    lines.append(f"| weights | {result['bytes'] / 1e9:.1f} GB |")
    lines.append(f"| plain read of the files | {result['plain_read_seconds']:.1f} s, {_rate(result, 'plain_read')} |")
    lines.append(f"| check for NaN (before, beside) | {result['check_seconds']:.1f} s, {_rate(result, 'check')} |")
    for phase, seconds in result.get("seconds_by_phase", {}).items():
        rate = f", {result['bytes'] / 1e9 / seconds:.2f} GB/s" if phase == "load" else ""
        share = f", {seconds / result['seconds']:.1%} of all" if "seconds" in result else ""
        lines.append(f"| {phase} | {seconds:.1f} s{share}{rate} |")
    lines += [f"| measure: {phase} | {seconds:.1f} s |" for phase, seconds in result.get("phases", {}).items()]
    lines.append(f"| peak of memory | {result['peak']['own'] / 2**30:.2f} GiB |")
    lines.append(f"| with mapped files | {result['peak']['with_files'] / 2**30:.2f} GiB |")
    lines.append(f"| planned peak | {result['planned']['peak_gb'] * 1e9 / 2**30:.2f} GiB |")
    return lines


def _rate(result: dict[str, Any], what: str) -> str:
    return f"{result['bytes'] / 1e9 / result[f'{what}_seconds']:.2f} GB/s"


if __name__ == "__main__":
    main()
