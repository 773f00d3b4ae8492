"""What one query of each scenario does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from reid_edge.benchmark.records import Scenario
from reid_edge.crops import Image
from reid_edge.runtime.extractor import Extractor, as_input

#: Height and width of the frame that boxes are cut from: what most network cameras send.
FRAME_SIZE = (1080, 1920)
#: Heights of people in it, pixels, from far away to close; a person is about 0.41 times as wide.
PERSON_HEIGHTS = (120, 520)
PERSON_ASPECT = 0.41
SEED = 0


def make_query(extractor: Extractor, scenario: Scenario, crops: int) -> Callable[[], object]:
    """What is timed, with its input ready.

    single-stream, multi-stream and offline run the engine on a ready batch, put together from the batch sizes that
    calls use: what the model file costs.  end-to-end is a call of the extractor with a frame and boxes.
    """
    rng = np.random.default_rng(SEED)
    if scenario == "end-to-end":
        frame, boxes = street_frame(rng), person_boxes(rng, crops)
        return lambda: extractor(frame, boxes)
    spec = extractor.bundle.manifest.input
    batch = as_input(rng.integers(0, 256, (crops, *spec.size, 3), dtype=np.uint8), spec)
    return lambda: extractor.infer(batch)


def street_frame(rng: np.random.Generator) -> Image:
    """A frame, H×W×3 uint8; what it shows does not change what it costs."""
    return rng.integers(0, 256, (*FRAME_SIZE, 3), dtype=np.uint8)


def person_boxes(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Boxes of people, N×4 x1 y1 x2 y2, all within the frame."""
    height, width = FRAME_SIZE
    heights = rng.uniform(*PERSON_HEIGHTS, count)
    widths = heights * PERSON_ASPECT
    left = rng.uniform(0, width - widths)
    top = rng.uniform(0, height - heights)
    return np.stack([left, top, left + widths, top + heights], axis=1)
