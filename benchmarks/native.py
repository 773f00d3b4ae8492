"""Compares the native engine with OpenVINO: every precision, all instructions and AVX2 alone, 1 and 8 crops.

    python benchmarks/native.py BUNDLES --out native.json [--widths 0.25,0.5,1] [--rounds 6] [--seconds 0.5]

BUNDLES is a folder; what it lacks is exported into it first: x0.25 with the shipped weights, the other widths with
random ones (their times count, their features do not).  Each variant runs in a process of its own, which is stopped
while others are timed; in each round every query of every variant has one turn, in shuffled order.  Features of the
golden crops are compared with the checkpoint's before anything is timed.  The JSON holds every sample; the tables are
printed, and written again from a JSON by --show FILE.

AVX2 alone: OpenVINO by ONEDNN_MAX_CPU_ISA=AVX2, the native engine by its AVX2 kernels.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import sys
import time
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

PRECISIONS = ("fp32", "bf16", "int8")
QUERIES = ("1 crop", "8 crops", "frame + 8 boxes")
#: Targets of the ratio OpenVINO / native, by width.
INT8_TARGETS = {0.25: 2.2, 0.5: 1.7, 1.0: 1.4}
FP32_TARGETS = {0.25: 1.4, 0.5: 1.2, 1.0: 1.05}
FRAME_TARGET = 1.10
WARM_UP_SECONDS = 1.0


@dataclass(frozen=True)
class Variant:
    """An engine, and how it runs a bundle of a width."""

    width: float
    engine: str
    precision: str
    threads: int
    avx2: bool

    def __str__(self) -> str:
        limit = ", AVX2" if self.avx2 else ""
        return f"x{self.width:g} {self.engine} {self.precision}{limit}, {self.threads} threads"


# ---- in a worker ----


class Worker:
    """Answers requests; see the methods for what each takes."""

    def load(self, *, bundle: str, engine: str, precision: str, threads: int, avx2: bool) -> dict[str, Any]:
        """Load a variant; the kernels, and the lowest cosine to the checkpoint's features."""
        from reid_edge.bundle import open_bundle
        from reid_edge.crops import crop_boxes
        from reid_edge.features import l2_normalised, row_cosines

        opened = open_bundle(bundle)
        infer, infer_crops, kernels = _engine(opened, engine, precision, threads, avx2)

        def whole(frame, boxes):
            return l2_normalised(infer_crops(crop_boxes(frame, boxes)[0]))

        self._queries = _queries(opened.manifest.input.size, infer, whole)
        crops, expected = opened.golden()
        got = np.concatenate([infer(crop[None]) for crop in crops])
        return {"kernels": kernels, "cosine": float(row_cosines(got, expected).min())}

    def prepare(self) -> dict[str, Any]:
        """Warm up every query."""
        from reid_edge.benchmark.worker import warm_up_until_settled

        for query in self._queries.values():
            warm_up_until_settled(lambda query=query: _time(query), WARM_UP_SECONDS)
        return {}

    def turn(self, *, query: str, seconds: float) -> dict[str, Any]:
        """Time a query for so many seconds: milliseconds of each call; three calls before them wake the process."""
        call = self._queries[query]
        for _ in range(3):
            call()
        samples, end = [], time.perf_counter() + seconds
        while not samples or time.perf_counter() < end:
            samples.append(round(_time(call), 4))
        return {"samples_ms": samples}


def _engine(bundle, engine, precision, threads, avx2):
    """Return functions that compute features of a batch and of crops of any size, and the name of the kernels."""
    from reid_edge.crops import resize_into
    from reid_edge.runtime.engines import EngineOptions, load_engine
    from reid_edge.runtime.native.library import NativeNetwork, available_kernels
    from reid_edge.tuning_record import Execution

    artifact = bundle.artifact(engine, "int8" if precision == "int8" else "fp32")
    if engine == "native":
        names = [name for name in available_kernels(precision) if name.startswith("avx2") or not avx2]
        if not names:
            raise SystemExit(f"no kernels of AVX2 in {precision}")
        plan = bundle.read(artifact.files[0])
        network = NativeNetwork(plan, precision=precision, threads=threads, kernels=names[0])
        return network.run, network.run_crops, names[0]
    if precision == "bf16":
        artifact = replace(artifact, precision="tuned", execution=Execution(threads=threads, float_type="bf16"))
    loaded = load_engine(bundle, artifact, EngineOptions(threads=threads))
    buffer = np.empty((8, *bundle.manifest.input.size, 3), np.uint8)

    def crops_by_opencv(crops):
        for crop, out in zip(crops, buffer, strict=False):
            resize_into(crop, out)
        return loaded.infer(buffer[: len(crops)])

    return loaded.infer, crops_by_opencv, loaded.description


def _queries(size, infer, whole):
    from reid_edge.benchmark.worker import SEED, person_boxes, street_frame

    rng = np.random.default_rng(SEED)
    batch = rng.integers(0, 256, (8, *size, 3), dtype=np.uint8)
    frame, boxes = street_frame(rng), person_boxes(rng, 8)
    return {
        "1 crop": lambda: infer(batch[:1]),
        "8 crops": lambda: infer(batch),
        "frame + 8 boxes": lambda: whole(frame, boxes),
    }


def _time(call) -> float:
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def work(parent: int) -> None:
    from reid_edge.benchmark.worker import die_with

    die_with(parent)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(getattr(worker, request.pop("do"))(**request)), file=replies, flush=True)


# ---- the comparison ----


def make_bundle(folder: Path, width: float) -> Path:
    """Export what a width's bundle lacks: native and OpenVINO files in FP32 and INT8."""
    from reid_edge.export.exporter import ExportOptions, export_bundle
    from reid_edge.export.table6 import random_checkpoint
    from reid_edge.osnet.checkpoint import load_checkpoint

    out = folder / f"x{width:g}".replace(".", "_")
    if (out / "manifest.json").exists():
        return out
    print(f"exporting {out}", flush=True)
    shipped = Path(__file__).parent.parent / "models" / "osnet_x0_25_market1501.safetensors"
    checkpoint = load_checkpoint(shipped) if width == 0.25 else random_checkpoint(width, (256, 128))
    options = ExportOptions(
        out=out, formats=("native", "openvino"), precisions=("fp32", "int8"), keep_rejected=True, time_files=False
    )
    export_bundle(checkpoint, options)
    return out


def verdicts_of(bundle: Path) -> dict[str, Any]:
    """The verdicts of export on the INT8 files, by artifact."""
    from reid_edge.bundle import open_bundle

    artifacts = open_bundle(bundle).manifest.artifacts
    return {one.name: msgspec.to_builtins(one.verdict) for one in artifacts if one.verdict is not None}


def variants_of(width: float, threads: list[int]) -> list[Variant]:
    wanted = [(precision, False) for precision in PRECISIONS] + [("fp32", True), ("int8", True)]
    return [
        Variant(width, engine, precision, count, avx2)
        for engine in ("native", "openvino")
        for precision, avx2 in wanted
        for count in threads
    ]


def measure(bundle: Path, variants: list[Variant], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Time the variants of one bundle; those that cannot run say why."""
    from reid_edge.benchmark.process import WorkerProcess, interrupts_deferred
    from reid_edge.errors import EngineError

    runs, workers = [], {}
    with contextlib.ExitStack() as running:
        for variant in variants:
            with interrupts_deferred():
                environment = {"ONEDNN_MAX_CPU_ISA": "AVX2"} if variant.avx2 else {}
                command = [sys.executable, "-W", "ignore", __file__, "--worker"]
                worker = WorkerProcess(environment, command=command, replies=dict[str, Any])
                running.callback(worker.close)
            request = {name: value for name, value in asdict(variant).items() if name != "width"}
            run = {**asdict(variant), "samples_ms": {query: [] for query in QUERIES}}
            runs.append(run)
            try:
                run |= worker.ask({"do": "load", "bundle": str(bundle), **request}, dict)
                worker.ask({"do": "prepare"}, dict)
                workers[len(runs) - 1] = worker
                print(f"{variant}: {run['kernels']}, cosine {run['cosine']:.6f}", flush=True)
            except EngineError as error:
                run["not_run"] = str(error).splitlines()[-1].strip()
                print(f"{variant}: not run: {run['not_run']}", flush=True)
        order = random.Random(20261128)
        for _ in range(rounds):
            turns = [(index, query) for index in workers for query in QUERIES]
            order.shuffle(turns)
            for index, query in turns:
                reply = workers[index].ask({"do": "turn", "query": query, "seconds": seconds}, dict)
                runs[index]["samples_ms"][query].append(reply["samples_ms"])
    return runs


# ---- the tables ----


def median_of(run: dict[str, Any], query: str) -> float:
    return statistics.median(sample for samples in run["samples_ms"][query] for sample in samples)


class Results:
    """Medians of a result, milliseconds."""

    def __init__(self, runs: list[dict[str, Any]]) -> None:
        self.runs = [run for run in runs if "not_run" not in run]

    def best(self, query: str, **wanted: object) -> float | None:
        """The lowest median of the runs that are as wanted; None where there is none."""
        fitting = [run for run in self.runs if all(run[name] == value for name, value in wanted.items())]
        return min((median_of(run, query) for run in fitting), default=None)


def show(result: dict[str, Any]) -> None:
    """Print medians, and OpenVINO's time over the native engine's beside its target."""
    results = Results(result["runs"])
    widths = sorted({run["width"] for run in results.runs})
    for width in widths:
        print(f"\nx{width:g}, ms: {', '.join(QUERIES)}")
        for run in results.runs:
            if run["width"] == width:
                times = "".join(f"{median_of(run, query):9.3f}" for query in QUERIES)
                print(f"  {Variant(**{name: run[name] for name in Variant.__annotations__})!s:44}{times}")
    print(f"\n{'OpenVINO / native':46}{'width':>6}{'1 crop':>9}{'8 crops':>9}{'target':>8}")
    for width in widths:
        any_openvino = {"width": width, "engine": "openvino", "avx2": False}
        native = {"width": width, "engine": "native"}
        _row("INT8 / the best of any precision", width, any_openvino, {**native, "avx2": False, "precision": "int8"},
             INT8_TARGETS, results)  # fmt: skip
        for avx2 in (False, True):
            for threads in sorted({run["threads"] for run in results.runs}):
                same = {"avx2": avx2, "precision": "fp32", "threads": threads}
                name = f"FP32{', AVX2' if avx2 else ''}, {threads} threads"
                _row(name, width, {"width": width, "engine": "openvino", **same}, {**native, **same}, FP32_TARGETS,
                     results)  # fmt: skip
        wide = {"width": width, "engine": "openvino", "avx2": True}
        _row("INT8, AVX2 / the best of any precision", width, wide, {**native, "avx2": True, "precision": "int8"}, {},
             results)  # fmt: skip
    print(f"\n{'frame + 8 boxes over 8 crops, native':46}{'width':>6}{'ratio':>9}{'target':>17}")
    for run in results.runs:
        if run["engine"] == "native" and not run["avx2"]:
            ratio = median_of(run, QUERIES[2]) / median_of(run, QUERIES[1])
            name = f"{run['precision']}, {run['threads']} threads"
            print(f"{name:46}{run['width']:6g}{ratio:9.3f}{'≤ ' + format(FRAME_TARGET, '.2f'):>17}")
    print(f"\nVerdicts on INT8{'' if 'verdicts' in result else ': none, the result is older'}")
    for width, verdicts in result.get("verdicts", {}).items():
        for name, verdict in verdicts.items():
            print(f"  x{width} {name}: {', '.join(verdict['reasons']) or 'accepted'}; ranking {verdict['ranking']:.4f}")


def _row(
    name: str, width: float, openvino: dict[str, Any], native: dict[str, Any], targets: dict[float, float],
    results: Results,
) -> None:  # fmt: skip
    pairs = [(results.best(query, **openvino), results.best(query, **native)) for query in QUERIES[:2]]
    if any(None in pair for pair in pairs):
        return
    target = f"≥ {targets[width]:g}" if width in targets else ""
    print(f"{name:46}{width:6g}" + "".join(f"{one / other:8.2f}x" for one, other in pairs) + f"{target:>8}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="?")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the tables of a result, and time nothing")
    parser.add_argument("--widths", default="0.25,0.5,1")
    parser.add_argument("--threads", default=",".join(map(str, sorted({1, len(os.sched_getaffinity(0))}))))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a turn")
    options = parser.parse_args()
    if options.show:
        show(json.loads(options.show.read_bytes()))
        return
    if not options.bundles or not options.out:
        parser.error("a folder for the bundles and --out FILE are needed")
    from reid_edge.system.device import describe_device

    result: dict[str, Any] = {
        "command": " ".join(sys.argv),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": msgspec.to_builtins(describe_device()),
        "load_before": os.getloadavg(),
        "verdicts": {},
        "runs": [],
    }
    for width in map(float, options.widths.split(",")):
        variants = variants_of(width, [int(count) for count in options.threads.split(",")])
        bundle = make_bundle(options.bundles, width)
        result["verdicts"][f"{width:g}"] = verdicts_of(bundle)
        result["runs"] += measure(bundle, variants, options.rounds, options.seconds)
    result["load_after"] = os.getloadavg()
    options.out.write_text(json.dumps(result) + "\n")
    show(result)


if __name__ == "__main__":
    if "--worker" in sys.argv:
        work(int(sys.argv[-1]))
    else:
        main()
