"""Types that several packages share: images, features, sizes, names of devices."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: H×W×3 uint8, BGR; of a batch N×H×W×3.
Image = npt.NDArray[np.uint8]
#: D float32.
Feature = npt.NDArray[np.float32]
#: N×D float32.
Features = npt.NDArray[np.float32]
#: Height and width, pixels.
Size = tuple[int, int]
#: A number for each of the channels R, G and B.
PerChannel = tuple[float, float, float]


def device_name(given: str) -> str:
    """Write the name of a device as engines do: ``cpu`` and ``CPU.0`` are ``CPU``, ``gpu.1`` is ``GPU.1``."""
    name = given.strip().upper()
    return "CPU" if name == "CPU.0" else name
