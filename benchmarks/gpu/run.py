"""Run on a GPU what this project has for GPUs, and write the figures as JSON.

    python benchmarks/gpu/run.py BUNDLE --out gpu.json [--seconds 520]
    python benchmarks/gpu/run.py BUNDLE --out gpu.json --rehearse      # without a GPU: shows that the script runs

* ``environment``: the GPU as our binding of the driver sees it; the error where no memory is left.
* ``engine``: the TensorRT engine on real CUDA.  Where TensorRT is installed its plans are built and verified; elsewhere
  torch computes them (``stand_in.py``), so their times are torch's, but memory, copies, stream, recordings are ours.
* ``copies``: 8 crops to the GPU and 8 features back, from pageable and from pinned memory.
* ``rewrites``: every exact rewrite, launched layer by layer and as one CUDA graph.
* ``training``: a step of every recipe but ``attributes`` in float32 and bfloat16, recorded or not.

A section that fails is written down with its traceback, and the next one runs; the file is complete after each.  After
``--seconds`` the last two leave out what is left.  Where the machine is lent for nine minutes, ``timeout 540`` ends it.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import statistics
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]

from reid_edge.system.threads import configure_openmp

configure_openmp()

import numpy as np
import stand_in
import torch
import training as training_steps
from pack import copy_onnx

from reid_edge.bundle import Bundle, open_bundle
from reid_edge.errors import GpuMemoryError
from reid_edge.export.tensorrt import build_into_bundle
from reid_edge.manifest import Precision
from reid_edge.osnet.rewrites import why_illegal
from reid_edge.osnet.shipped import find_checkpoint
from reid_edge.runtime import Extractor, cuda
from reid_edge.runtime.engines import EngineOptions
from reid_edge.runtime.engines.tensorrt import TensorRTEngine
from reid_edge.runtime.golden import verify_bundle
from reid_edge.training.recipes import RECIPES
from reid_edge.tune.candidates import REWRITES

BATCHES = (1, 8)
THREADS, CALLS_A_THREAD, LOADS = 4, 40, 20
MIB = 2**20


class Session:
    """The run: what is used, how long there is, and what was found.

    Args:
        options: Of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.rehearsal: bool = options.rehearse
        self.out: Path = options.out
        self.end = time.monotonic() + options.seconds
        self.device = torch.device("cpu" if self.rehearsal else "cuda")
        self.rounds = 1 if self.rehearsal else 60
        #: torch's kernels for float16 on a CPU take minutes.
        self.floats: tuple[Precision, ...] = ("fp32",) if self.rehearsal else ("fp32", "fp16")
        self.checkpoint = find_checkpoint(None, options.width, print)
        self.place = self._rehearse() if self.rehearsal else stand_in.Gpu()
        self.found: dict[str, Any] = {}
        with tempfile.TemporaryDirectory() as folder:
            self.bundle = copy_onnx(open_bundle(options.bundle), Path(folder) / "bundle")
            self.real = find_spec("tensorrt") is not None and not self.rehearsal
            if not self.real:
                stand_in.install(self.bundle, self.checkpoint, self.place)
            for section in (environment, engine, copies):
                self.run(section)
        if not self.real:
            del sys.modules["tensorrt"]  # torch looks for it
        for section in (rewrites, training):
            self.run(section)

    def _rehearse(self) -> stand_in.Gpu:
        """Take the tests' driver for the GPU's."""
        import rehearsal

        return rehearsal.place()

    def run(self, section: Callable[[Session], dict[str, Any]]) -> None:
        """Run a section and write all that was found so far."""
        start = time.monotonic()
        try:
            found = section(self)
        except Exception as error:
            found = {"failed": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()[-2000:]}
        self.found[section.__name__] = found
        print(
            f"{section.__name__} {time.monotonic() - start:.1f} s: {json.dumps(found, default=str)[:1500]}", flush=True
        )
        self.out.write_text(json.dumps(self.found, indent=1, default=str) + "\n", encoding="utf-8")

    def wait(self) -> None:
        """Wait for torch's work."""
        if not self.rehearsal:
            torch.cuda.synchronize()

    def median_ms(self, work: Callable[[], object]) -> float:
        """Return the median of some calls, milliseconds, after a few that warm up."""
        for _ in range(min(3, self.rounds)):
            work()
        samples = []
        for _ in range(self.rounds):
            start = time.perf_counter()
            work()
            samples.append(1e3 * (time.perf_counter() - start))
        return round(statistics.median(samples), 4)

    @property
    def is_late(self) -> bool:
        """True once the time is up: loops end, and say what they have left out."""
        return time.monotonic() > self.end


def environment(session: Session) -> dict[str, Any]:
    """Describe GPU and software."""
    stream = cuda.GpuStream()
    try:
        stream.workspace(1 << 50)
        no_memory = "none: memory was given"
    except GpuMemoryError as error:
        no_memory = str(error)
    finally:
        stream.close()
    return {
        "rehearsal": session.rehearsal,
        "gpu": str(cuda.open_gpu()),
        "driver": cuda.driver_version(),
        "torch": torch.__version__,
        "TensorRT": "real" if session.real else "torch stands in",
        "where no memory is left": no_memory,
    }


def engine(session: Session) -> dict[str, Any]:
    """Run the TensorRT engine: parity, threads, memory, waiting, recorded against unrecorded."""
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8") if session.real else session.floats
    max_batch = 4 if session.rehearsal else None
    bundle = build_into_bundle(session.bundle, precisions, max_batch=max_batch, on_step=lambda: None)
    verdicts = verify_bundle(bundle, "tensorrt", "auto", EngineOptions())
    extractor = Extractor(bundle, engine="tensorrt", precision=session.floats[-1])
    shape = (6 if session.rehearsal else 32, *bundle.manifest.input.size, 3)
    crops = list(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    return {
        "parity": {verdict.artifact.name: [verdict.outcome, verdict.detail] for verdict in verdicts},
        "wrong answers of threads": _wrong_answers(session, extractor, crops),
        "MiB lost in loads": _lost(session, bundle, crops),
        "share of a core while waiting": _waiting(session, extractor, crops),
        "ms of a call": dict(_engine_times(session, bundle)),
    }


def _wrong_answers(session: Session, extractor: Extractor, crops: list[Any]) -> int:
    expected, wrong = extractor(crops), []

    def many(seed: int) -> None:
        order = np.random.default_rng(seed)
        for _ in range(1 if session.rehearsal else CALLS_A_THREAD):
            some = order.permutation(len(crops))[: order.integers(1, len(crops))]
            if not np.allclose(extractor([crops[row] for row in some]), expected[some], atol=2e-3):
                wrong.append(some)

    threads = [threading.Thread(target=many, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(wrong)


def _lost(session: Session, bundle: Bundle, crops: list[Any]) -> float | None:
    if session.rehearsal:
        return None

    def free() -> int:
        gc.collect()
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info()[0])

    before = free()
    for _ in range(LOADS):
        Extractor(bundle, engine="tensorrt", precision="fp16")(crops[:3])
    return (before - free()) / MIB


def _waiting(session: Session, extractor: Extractor, crops: list[Any]) -> float:
    cpu, start = time.process_time(), time.perf_counter()
    for _ in range(session.rounds):
        extractor(crops)
    return round((time.process_time() - cpu) / (time.perf_counter() - start), 3)


def _engine_times(session: Session, bundle: Bundle) -> Iterator[tuple[str, float]]:
    recorded = TensorRTEngine._recorded
    try:
        for precision, way in itertools.product(session.floats, ("recorded", "unrecorded")):
            TensorRTEngine._recorded = recorded if way == "recorded" else _as_it_is
            extractor = Extractor(bundle, engine="tensorrt", precision=precision)
            for batch in BATCHES:
                crops = list(np.zeros((batch, *bundle.manifest.input.size, 3), np.uint8))
                yield f"{precision} {way}, batch {batch}", session.median_ms(partial(extractor, crops))
    finally:
        TensorRTEngine._recorded = recorded


def _as_it_is(engine: TensorRTEngine, run: Callable[[], None], size: int) -> Callable[[], None]:
    """Stand for the engine's recording: give the stream the work anew each time."""
    return run


def copies(session: Session) -> dict[str, Any]:
    """Time the way of 8 crops to the GPU and of 8 features back."""
    height, width = session.bundle.manifest.input.size
    there, back = 8 * height * width * 3, 8 * 4 * session.bundle.manifest.features.dim
    stream = cuda.GpuStream()
    try:
        buffer = stream.buffer(there)
        driver = cuda.CudaDriver(cuda.LIBRARY)

        def way(host: int) -> None:
            driver("cuMemcpyHtoDAsync_v2", buffer.address, host, there, stream.handle)
            driver("cuMemcpyDtoHAsync_v2", host, buffer.address, back, stream.handle)
            stream.wait()

        found = {
            "bytes there, back": [there, back],
            "pinned ms": session.median_ms(lambda: way(buffer.host.ctypes.data)),
        }
        if not session.rehearsal:  # the tests' driver takes pinned memory only
            pageable = np.ones(there, np.uint8)
            found["pageable ms"] = session.median_ms(lambda: way(pageable.ctypes.data))
        return found
    finally:
        stream.close()


def rewrites(session: Session) -> dict[str, Any]:
    """Time every exact rewrite by torch's kernels: launched one by one, and as one CUDA graph."""
    found: dict[str, Any] = {}
    variant = session.checkpoint.info.variant
    for wanted in (one for one in REWRITES if not why_illegal(variant, one)):
        for precision in session.floats:
            network = stand_in.Network(session.checkpoint, wanted, half=precision == "fp16").to(session.device)
            for batch in BATCHES:
                name = f"{'+'.join(wanted.names) or 'plain'}, {precision}, batch {batch}"
                if session.is_late:
                    found[name] = "left out: the time is up"
                    continue
                found[name] = _eager_and_graph(session, network, batch)
    return found


def _eager_and_graph(session: Session, network: torch.nn.Module, batch: int) -> dict[str, Any]:
    height, width = session.checkpoint.info.size
    crops = torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8, device=session.device)

    @torch.no_grad()
    def eager() -> None:
        network(crops)
        session.wait()

    times: dict[str, Any] = {"eager ms": session.median_ms(eager)}
    if session.rehearsal:
        return times
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        network(crops)

    def graphed() -> None:
        graph.replay()
        session.wait()

    times["graph ms"] = session.median_ms(graphed)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        eager()
    times["kernels"] = sum(event.count for event in profile.key_averages())
    return times


def training(session: Session) -> dict[str, Any]:
    """Time a training step of every recipe of one label, recorded and not."""
    found: dict[str, Any] = {}
    names = [name for name in RECIPES if name != "attributes"]
    for name in names[:1] if session.rehearsal else names:
        for precision in ("float32",) if session.rehearsal else ("float32", "bfloat16"):
            for graph in ("auto",) if session.rehearsal else ("off", "auto"):
                label = f"{name}, {precision}, graph {graph}"
                found[label] = "left out: the time is up" if session.is_late else _step(session, name, precision, graph)
    return found


def _step(session: Session, name: str, precision: str, graph: str) -> dict[str, Any]:
    base = RECIPES[name]  # type: ignore[index]
    batch, steps = (8, 1) if session.rehearsal else (64, 25)
    size = (64, 32) if session.rehearsal else (256, 128)
    settings = replace(
        base,
        model=replace(base.model, width=0.25, size=size),
        batch=replace(base.batch, size=batch),
        run=replace(base.run, precision=precision, graph=graph),
    )
    try:
        seconds, recorded = training_steps.measure_whole(settings, session.device, steps)
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}
    return {"step ms": round(1e3 * seconds, 3), "images a second": round(batch / seconds), "recorded": recorded}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="a bundle of the shipped checkpoint")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--seconds", type=float, default=520)
    parser.add_argument("--rehearse", action="store_true", help="without a GPU, on the tests' driver")
    Session(parser.parse_args())


if __name__ == "__main__":
    main()
