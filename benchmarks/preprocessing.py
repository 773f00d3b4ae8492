"""Compares the cost of normalisation and layout change on the host with that inside the graph.

    python benchmarks/preprocessing.py [--rounds 5]

Exports the shipped x0.25 both ways (`--input pixels`, `--input tensor`), then times, each in a process of its own and
in turn: the raw engine on a prepared batch, and the extractor from a frame and boxes.  Prints medians over the rounds
and the extractor's cost over the raw engine.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ENGINES = ("openvino", "onnxruntime")
COUNTS = (1, 8, 32)
SECONDS = 3.0


def alternate(calls: dict) -> dict[str, float]:
    """Median milliseconds of each call; the calls take turns, so that a slow moment of the machine hits them all."""
    times = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(5):
            call()
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(taken) for name, taken in times.items()}


def worker(bundle: str, engine: str, count: int) -> dict[str, float]:
    """Raw and end-to-end time in this process."""
    from reid_edge.runtime import Extractor
    from reid_edge.runtime.extractor import as_input

    extractor = Extractor(bundle, engine=engine, precision="fp32")
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
    corners = rng.integers(0, [1800, 800], (count, 2))
    boxes = np.hstack([corners, np.add(corners, (90, 220))])
    height, width = extractor.bundle.manifest.input.size
    pixels = rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    batch = as_input(pixels, extractor.bundle.manifest.input)
    return alternate({"raw": lambda: extractor._engine.infer(batch), "whole": lambda: extractor(frame, boxes)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", nargs=3)
    arguments = parser.parse_args()
    if arguments.worker:
        bundle, engine, count = arguments.worker
        print(json.dumps(worker(bundle, engine, int(count))))
        return
    with tempfile.TemporaryDirectory() as folder:
        for form in ("pixels", "tensor"):
            export = ["export", "--width", "0.25", "--precision", "fp32", "--formats", "onnx,openvino", "--no-latency"]
            command = [
                "-c",
                "from reid_edge.__main__ import main; main()",
                *export,
                "--input",
                form,
                "--out",
                f"{folder}/{form}",
            ]
            subprocess.run([sys.executable, *command], check=True, capture_output=True)
        cells = {(e, n, f): [] for e in ENGINES for n in COUNTS for f in ("pixels", "tensor")}
        for _ in range(arguments.rounds):
            for (engine, count, form), results in cells.items():
                command = [sys.executable, str(Path(__file__)), "--worker", f"{folder}/{form}", engine, str(count)]
                results.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    print("| engine | crops | input | raw engine, ms | frame + boxes → features, ms | over the raw engine |")
    print("|---|---|---|---|---|---|")
    for (engine, count, form), results in cells.items():
        raw, whole = (statistics.median(result[key] for result in results) for key in ("raw", "whole"))
        over = statistics.median(result["whole"] / result["raw"] - 1 for result in results)
        print(f"| {engine} | {count} | {form} | {raw:.2f} | {whole:.2f} | {100 * over:+.1f} % |")


if __name__ == "__main__":
    main()
