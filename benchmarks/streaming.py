"""What streaming a series from a hub costs: fetching alone, measuring alone, and both at once, in one run.

A local hub serves checkpoints of 200 MB at a limited rate; the cache may hold two and a half of them. While one is
measured, the next is fetched: the whole should take little longer than the longer of the two parts.
"""

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.watching import largest

if TYPE_CHECKING:
    from tests.hub_server import HubServer

CHECKPOINTS, MEGABYTES, RATE = 10, 200, 60_000_000
OUT = Path(__file__).parent / "out"


def main() -> None:
    """Measure, write `out/streaming.json` and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoints", type=int, default=CHECKPOINTS)
    parser.add_argument("--megabytes", type=int, default=MEGABYTES)
    parser.add_argument("--rate", type=int, default=RATE, help="bytes per second that the hub sends")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["HF_HOME"] = str(root / "home")
        from tests.hub_server import HubServer

        with HubServer() as server:
            os.environ.update(server.environment(home=root / "home"))  # read when the client is imported
            result = _measure(root, server, options)
    table = ["| way | seconds | ratio to the longer part |", "|---|---|---|"]
    longer = max(result["seconds"]["fetching alone"], result["seconds"]["measuring alone"])
    table += [f"| {way} | {spent:.1f} | {spent / longer:.2f} |" for way, spent in result["seconds"].items()]
    table.append(f"\nPeak of the cache: {result['peak'] / 1e6:.0f} MB of {result['limit'] / 1e6:.0f} MB allowed")
    OUT.mkdir(exist_ok=True)
    (OUT / "streaming.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    (OUT / "streaming.md").write_text("\n".join(table) + "\n", encoding="utf-8")
    sys.stdout.write("\n".join(table) + "\n")


def _measure(root: Path, server: "HubServer", options: argparse.Namespace) -> dict[str, object]:
    from rich.console import Console

    from tests.conftest import save_checkpoint
    from timecourse.config import Facts, load_settings
    from timecourse.extract.checkpoints.hub import HubSource
    from timecourse.extract.checkpoints.series import Phase, Reading, read_series
    from timecourse.refresh import refresh

    logging.getLogger("transformers").setLevel(logging.ERROR)
    series = root / "series"
    vocabulary = options.megabytes * 1_000_000 // (2 * 4 * 512)  # embedding and unembedding of width 512, float32
    for step in range(options.checkpoints):
        save_checkpoint(
            series / f"step{step}",
            seed=step,
            vocab_size=vocabulary,
            hidden_size=512,
            intermediate_size=512,
            num_attention_heads=8,
            num_hidden_layers=1,
            scale=1.0,
        )
    server.add_repository("lab/large", {folder.name: folder for folder in series.iterdir()})
    server.slow("*/resolve/*.safetensors", bytes_per_second=options.rate)
    size = (series / "step0" / "model.safetensors").stat().st_size
    limit = int(2.5 * size)

    def fetch_all() -> None:
        source = HubSource("lab/large", max_cache_bytes=1, cache_dir=root / "alone")
        for entry in read_series([Phase("pretraining", source)], Reading()):
            assert entry.checkpoint is not None
            source.fetch(entry.checkpoint)
            source.evict(entry.checkpoint)

    def extract(place: str, lake: str, **machine: float) -> Callable[[], object]:
        settings = load_settings(
            None,
            {
                ("series", "checkpoints"): place,
                ("facts", "directory"): str(Facts().directory),
                ("facts", "relations"): ["country_capital_city", "company_ceo"],
                ("lake", "directory"): str(root / lake),
                **{("machine", key): value for key, value in machine.items()},
            },
        )
        return lambda: refresh(settings, Console(quiet=True), do_release=False)

    seconds: dict[str, float] = {}
    ways = {
        "fetching alone": fetch_all,
        "measuring alone": extract(str(series), "local"),
        "streaming": extract("hf://lab/large", "streamed", max_cache_gb=limit / 1e9),
    }
    with largest(lambda: {"cache": _bytes_below(root / "home")}, every=0.05) as peak:
        for way, run in ways.items():
            start = time.perf_counter()
            run()
            seconds[way] = time.perf_counter() - start
    found = {"checkpoints": options.checkpoints, "bytes": size, "limit": limit}
    return found | {"peak": peak["cache"], "seconds": seconds}


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size if path.is_file() and not path.is_symlink() else 0
        except OSError:  # gone in the meantime
            continue
    return total


if __name__ == "__main__":
    main()
