"""The worker's end of a session: load one variant in a process of its own, warm it up, and time it on request.

``python -m reid_edge.benchmark.worker PARENT`` reads requests on stdin and writes replies on stdout
(:mod:`reid_edge.benchmark.protocol`).  Engines keep pools of spinning threads, and two of them in one process halve
each other's speed; hence the process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from reid_edge.benchmark.protocol import (
    Failed,
    Load,
    Loaded,
    Prepare,
    Prepared,
    Profile,
    Profiled,
    Reply,
    Request,
    Round,
    Timed,
)
from reid_edge.benchmark.result import LayerTime, Scenario, total_ms
from reid_edge.runtime import Extractor
from reid_edge.runtime.extractor import as_input
from reid_edge.runtime.golden import check_extractor
from reid_edge.runtime.native.library import LayerKind
from reid_edge.system.limits import peak_memory_mib
from reid_edge.types import Image

#: Warmed up when the medians of two windows of so many queries, one after the other, differ by at most this share.
WARM_UP_WINDOW = 8
WARM_UP_TOLERANCE = 0.02
#: A process that has slept finds cold caches and sleeping threads: untimed queries before each round, at most this
#: share of its time.
WAKING_QUERIES = 3
WAKING_SHARE = 0.25
#: Height and width of the frame that boxes are cut from: what most network cameras send.
FRAME_SIZE = (1080, 1920)
#: Heights of people in the frame, pixels, from far away to close; a person is about 0.41 times as wide.
PERSON_HEIGHTS = (120, 520)
PERSON_ASPECT = 0.41
SEED = 0
#: From linux/prctl.h: the signal that this process gets when its parent dies.
_PR_SET_PDEATHSIG = 1


class Worker:
    """Answers requests about one variant."""

    def __init__(self) -> None:
        self._extractor: Extractor | None = None
        self._queries: dict[tuple[Scenario, int], Callable[[], object]] = {}

    def answer(self, request: Request) -> Reply:
        """Do what is asked, and return the reply."""
        if isinstance(request, Load):
            return self._load(request)
        if isinstance(request, Prepare):
            return self._prepare(request)
        return self._time(request) if isinstance(request, Round) else self._profile(request)

    def _load(self, request: Load) -> Loaded:
        start = time.perf_counter()
        self._extractor = Extractor(
            Path(request.bundle),
            engine=request.engine,
            precision=request.precision,
            threads=request.threads,
            device=request.device,
            trusted_keys=request.trusted_keys,
            cache_dir=None,
        )
        load_ms = _ms_since(start)
        if self._extractor.on_other_device:
            check_extractor(self._extractor)
        execution = self._extractor.artifact.execution
        device = "" if request.device == "CPU" else f"on {request.device}"
        return Loaded(
            load_ms=load_ms,
            description=self._extractor.engine_description,
            execution=", ".join(part for part in (str(execution or ""), device) if part),
        )

    def _prepare(self, request: Prepare) -> Prepared:
        assert self._extractor is not None
        query = make_query(self._extractor, request.scenario, request.crops)
        self._queries[request.scenario, request.crops] = query
        first_ms = _time_once(query)
        warm_up, settled = warm_up_until_settled(lambda: _time_once(query), request.seconds)
        return Prepared(first_ms=first_ms, warm_up=1 + warm_up, settled=settled, peak_rss_mb=peak_memory_mib())

    def _time(self, request: Round) -> Timed:
        query = self._queries[request.scenario, request.crops]
        waking = 0
        limit = time.perf_counter() + WAKING_SHARE * request.seconds
        while waking < WAKING_QUERIES and (waking == 0 or time.perf_counter() < limit):
            query()
            waking += 1
        samples: list[float] = []
        end = time.perf_counter() + request.seconds
        while not samples or time.perf_counter() < end:
            samples.append(_time_once(query))
        return Timed(samples_ms=tuple(round(sample, 4) for sample in samples), queries=waking + len(samples))

    def _profile(self, request: Profile) -> Profiled:
        assert self._extractor is not None
        query = self._queries[request.scenario, request.crops]
        end = time.perf_counter() + request.seconds
        found = [layers_of(self._extractor, query)]
        while found[0] and time.perf_counter() < end:
            found.append(layers_of(self._extractor, query))
        return Profiled(layers=min(found, key=total_ms))


def layers_of(extractor: Extractor, query: Callable[[], object]) -> tuple[LayerTime, ...]:
    """Run a query, and return where its time went, the measurement itself left out; nothing if the engine cannot tell.

    Args:
        extractor: That the query uses.
        query: Of :func:`make_query`.
    """
    times: list[float] = []
    measured = extractor.time_layers(lambda: times.append(_time_once(query)))
    if measured is None:
        return ()
    between: LayerKind = "between layers"
    ms: dict[str, float] = {kind: 1000 * seconds for kind, seconds in measured.seconds.items() if kind != between}
    ms["the rest"] = max(0.0, times[0] - 1000 * measured.clock - sum(ms.values()))
    return tuple(LayerTime(kind=kind, ms=round(value, 4)) for kind, value in ms.items())


def make_query(extractor: Extractor, scenario: Scenario, crops: int) -> Callable[[], object]:
    """Prepare a query's input and return the call to time.

    single-stream, multi-stream and offline run the engine on a ready batch, in the batch sizes that the extractor
    uses: the cost of the model file alone.  end-to-end calls the extractor with a frame and boxes.

    Args:
        extractor: A loaded variant.
        scenario: See :data:`~reid_edge.benchmark.result.Scenario`.
        crops: Number of crops, or of boxes in the frame.
    """
    rng = np.random.default_rng(SEED)
    if scenario == "end-to-end":
        frame, boxes = street_frame(rng), person_boxes(rng, crops)
        return lambda: extractor(frame, boxes)
    spec = extractor.bundle.manifest.input
    batch = as_input(rng.integers(0, 256, (crops, *spec.size, 3), dtype=np.uint8), spec)
    return lambda: extractor.infer(batch)


def street_frame(rng: np.random.Generator) -> Image:
    """Return a frame of noise, 1080×1920×3 uint8; its content does not change what it costs."""
    return rng.integers(0, 256, (*FRAME_SIZE, 3), dtype=np.uint8)


def person_boxes(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Return boxes of people, N×4 x1 y1 x2 y2 in pixels, all within the frame."""
    height, width = FRAME_SIZE
    heights = rng.uniform(*PERSON_HEIGHTS, count)
    widths = heights * PERSON_ASPECT
    left = rng.uniform(0, width - widths)
    top = rng.uniform(0, height - heights)
    return np.stack([left, top, left + widths, top + heights], axis=1)


def warm_up_until_settled(time_query: Callable[[], float], seconds: float) -> tuple[int, bool]:
    """Run queries until their times have settled, for at most so many seconds.

    Args:
        time_query: Runs one and returns its time.
        seconds: The limit; times that have not settled by then show it in the spread of their rounds.

    Returns:
        How many ran, and whether they settled.
    """
    end = time.perf_counter() + seconds
    count, before = 0, 0.0
    window: list[float] = []
    while time.perf_counter() < end:
        window.append(time_query())
        count += 1
        if len(window) == WARM_UP_WINDOW:
            now = statistics.median(window)
            if abs(now - before) <= WARM_UP_TOLERANCE * before:
                return count, True
            before, window = now, []
    return count, False


def _time_once(query: Callable[[], object]) -> float:
    start = time.perf_counter()
    query()
    return _ms_since(start)


def _ms_since(start: float) -> float:
    return 1000 * (time.perf_counter() - start)


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer until there is no more to read, or until a request fails."""
    worker = Worker()
    for line in requests:
        try:
            reply = worker.answer(msgspec.json.decode(line, type=Request))
        except Exception as error:
            reply = Failed(reason=f"{type(error).__name__}: {error}")
        replies.write(msgspec.json.encode(reply) + b"\n")
        replies.flush()
        if isinstance(reply, Failed):
            return


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends: a stopped process would stay for ever."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that was set
        os._exit(1)


def own_stdout() -> BinaryIO:
    """Return stdout for replies alone; whatever engines print then goes to stderr."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return replies


if __name__ == "__main__":
    die_with(int(sys.argv[1]))
    serve(sys.stdin.buffer, own_stdout())
