"""Where a form's time goes, by block of the network, as OpenVINO's own per-layer clock tells.

Runs in a process of its own: ``python -m reid_edge.tune.profile BUNDLE CROPS``.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from reid_edge.benchmark.process import run_module
from reid_edge.benchmark.worker import SEED
from reid_edge.bundle import Artifact, Bundle, open_bundle
from reid_edge.errors import EngineError
from reid_edge.runtime.engines import Batch
from reid_edge.runtime.engines.openvino import compile_network, read_network
from reid_edge.runtime.extractor import as_input
from reid_edge.tune.forms import place_of
from reid_edge.tuning_record import Execution

SECONDS = 0.7
WARM_UP_CALLS = 5
MIN_CALLS = 7
#: Node types that only change the layout or the number format between layers.
_REORDERS = ("Reorder", "Transpose", "Convert")
#: What stands between the blocks: pools, and the input's preparation.
_BETWEEN = ("network/", "/")
ELSEWHERE = "elsewhere"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Milliseconds of one call: medians over calls, summed.

    Attributes:
        places: By block, and by layer outside the blocks; ``elsewhere``: pools and the input's preparation.
        reorders: Of all, what only changes layout or number format between layers.
    """

    places: dict[str, float]
    reorders: float

    @property
    def total(self) -> float:
        """Of the whole call."""
        return sum(self.places.values())

    def least(self, other: Profile) -> Profile:
        """The smaller time of every place."""
        places = {place: min(time, other.places.get(place, time)) for place, time in self.places.items()}
        return Profile(places=places, reorders=min(self.reorders, other.reorders))

    def __str__(self) -> str:
        share = self.reorders / self.total if self.total else 0.0
        return f"layers {self.total:.2f} ms, of which reorders {100 * share:.0f} %"


def profile(bundle: Bundle, crops: int) -> Profile:
    """Time the layers of a bundle's one OpenVINO file.

    Raises:
        EngineError: It does not run here; with what it said.
    """
    run = run_module(__name__, bundle.path, crops)
    if run.returncode != 0:
        said = run.stderr.strip().splitlines() or [f"exit code {run.returncode}"]
        raise EngineError(f"the profile of {bundle.path.name} failed: {said[-1]}")
    return msgspec.json.decode(run.stdout.splitlines()[-1], type=Profile)


def summed(layers: Iterable[tuple[str, str, float]]) -> Profile:
    """Put layers' times together.

    Args:
        layers: Name, type and milliseconds of each, in the order in which they run.  One whose name tells nothing, such
            as a split that the engine made, belongs to the place before it.
    """
    places: Counter[str] = Counter()
    reorders, place = 0.0, ELSEWHERE
    for name, kind, milliseconds in layers:
        place = place_of(name) or (ELSEWHERE if name.startswith(_BETWEEN) else place)
        places[place] += milliseconds  # type: ignore[assignment]
        if kind in _REORDERS:
            reorders += milliseconds
    return Profile(places=dict(places), reorders=reorders)


def _profile_here(path: Path, crops: int) -> Profile:
    bundle = open_bundle(path)
    artifact = bundle.manifest.artifacts[0]
    spec = bundle.manifest.input
    pixels = np.random.default_rng(SEED).integers(0, 256, (crops, *spec.size, 3), dtype=np.uint8)
    return summed(_layers(bundle.checked_path(artifact.files[0]), artifact, as_input(pixels, spec)))


def _layers(path: Path, artifact: Artifact, batch: Batch) -> list[tuple[str, str, float]]:
    request = _request(path, artifact, batch)
    for _ in range(WARM_UP_CALLS):
        request.infer([batch], share_inputs=True)
    times: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    calls, end = 0, time.perf_counter() + SECONDS
    while calls < MIN_CALLS or time.perf_counter() < end:
        request.infer([batch], share_inputs=True)
        calls += 1
        for layer in request.profiling_info:
            times[layer.node_name, layer.node_type].append(layer.real_time.total_seconds() * 1e3)
    return [(name, kind, statistics.median(taken)) for (name, kind), taken in times.items()]


def _request(path: Path, artifact: Artifact, batch: Batch) -> Any:
    execution = artifact.execution or Execution()
    model = read_network(path, "profiling")
    model.reshape(list(batch.shape))
    properties = {"INFERENCE_PRECISION_HINT": execution.float_type, "PERF_COUNT": True}
    compiled = compile_network(model, "CPU", "profiling", threads=execution.threads, properties=properties)
    return compiled.create_infer_request()


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.encode(_profile_here(Path(sys.argv[1]), int(sys.argv[2]))).decode() + "\n")
