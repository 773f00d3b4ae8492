"""One contender in a process of its own.

``python worker.py PARENT`` reads requests, one JSON object a line, and answers on stdout; what libraries print goes to
stderr.  An error ends the process: its last words are the reason.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from contenders import Contender, Loaded, load
from inputs import Features, as_channels_last, as_pixels, as_tensor, make_scene

from reid_edge.benchmark.worker import die_with, warm_up_until_settled
from reid_edge.system.limits import peak_memory_mib

#: Untimed queries before each turn, at most this share of its time but at least one: a process that slept finds cold
#: caches and sleeping threads.
WAKING_QUERIES = 3
WAKING_SHARE = 0.25


class Worker:
    """Answers requests; see the methods for what each takes."""

    def __init__(self) -> None:
        self._loaded: Loaded | None = None
        self._photographs: Path | None = None
        self._queries: dict[tuple[str, int], Callable[[], Features]] = {}

    def load(self, *, contender: dict[str, Any], threads: int, photographs: str | None) -> dict[str, Any]:
        """Import and load; seconds that it took, and whether it takes frames and boxes."""
        start = time.perf_counter()
        self._loaded = load(Contender(**contender), threads)
        self._photographs = Path(photographs) if photographs else None
        return {"load_s": time.perf_counter() - start, "whole": self._loaded.whole is not None}

    def prepare(self, *, part: str, crops: int, seconds: float, features: str) -> dict[str, Any]:
        """Run a query once, keep its features in a file, warm up."""
        query = self._queries[part, crops] = self._query(part, crops)
        start = time.perf_counter()
        found = query()
        first_s = time.perf_counter() - start
        np.save(features, found)
        warm_up, settled = warm_up_until_settled(lambda: _time(query), seconds)
        return {"first_s": first_s, "warm_up": 1 + warm_up, "settled": settled}

    def turn(self, *, part: str, crops: int, seconds: float) -> dict[str, Any]:
        """Time a prepared query for so many seconds, at least once: raw samples, milliseconds."""
        query = self._queries[part, crops]
        limit = time.perf_counter() + WAKING_SHARE * seconds
        for waking in range(WAKING_QUERIES):
            if waking == 0 or time.perf_counter() < limit:
                query()
        samples: list[float] = []
        end = time.perf_counter() + seconds
        while not samples or time.perf_counter() < end:
            samples.append(round(_time(query), 4))
        return {"samples_ms": samples}

    def memory(self) -> dict[str, Any]:
        """Largest resident memory so far."""
        return {"peak_rss_mb": peak_memory_mib()}

    def _query(self, part: str, crops: int) -> Callable[[], Features]:
        assert self._loaded is not None
        scene = make_scene(crops, self._photographs)
        if part == "whole":
            whole = self._loaded.whole
            assert whole is not None
            return lambda: whole(scene.frame, scene.boxes)
        network = self._loaded.network
        makers = {"tensor": as_tensor, "channels last": as_channels_last, "pixels": as_pixels}
        batch = makers[self._loaded.takes](scene)
        return lambda: network(batch)


def _time(query: Callable[[], object]) -> float:
    start = time.perf_counter()
    query()
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    die_with(int(sys.argv[1]))
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        reply = getattr(worker, request.pop("do"))(**request)
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
