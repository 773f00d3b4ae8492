"""The native engine's library, by ctypes: loading it, and networks that compute features with it."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from ctypes import (
    POINTER,
    Structure,
    byref,
    c_char,
    c_char_p,
    c_double,
    c_int,
    c_int32,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from reid_edge.errors import BundleCorruptError, BundleVersionError, EngineError, EngineUnavailableError, ReidEdgeError
from reid_edge.runtime.native.pictures import pictures, with_whole_pixels
from reid_edge.types import Features, Image, Size

NativePrecision = Literal["fp32", "bf16", "int8"]

#: Kernels that run on any processor.
PORTABLE = "portable"
LIBRARY = Path(__file__).with_name("libreid_native.so")
#: REID_NATIVE_ABI of ``native/src/reid_native.h`` that this file is written for.
ABI = 4

#: What a run's time goes to.  The first four are those whose multiply-adds :mod:`reid_edge.runtime.native.work` counts.
LayerKind = Literal[
    "stem 7×7",
    "1×1 convolutions",
    "depthwise 3×3",
    "gates, sums, feature",
    "pools, norms",
    "resizing",
    "waiting for threads",
    "between layers",
]
#: In the order of reid_native_kind, which has one more: what the measurement itself takes.
LAYER_KINDS: tuple[LayerKind, ...] = get_args(LayerKind)

_PRECISIONS: dict[NativePrecision, int] = {"fp32": 0, "bf16": 1, "int8": 2}
_MESSAGE_BYTES = 500
_FORKED = 8
#: The error for each reid_native_status.
_ERRORS: dict[int, type[ReidEdgeError]] = {
    1: BundleCorruptError,
    2: BundleVersionError,
    3: EngineError,
    4: EngineUnavailableError,
    5: EngineUnavailableError,
    6: EngineError,
    7: EngineError,
    _FORKED: EngineError,
}


class _Info(Structure):
    """reid_native_info."""

    _fields_ = (
        ("height", c_int32),
        ("width", c_int32),
        ("feature_dim", c_int32),
        ("precision", c_int32),
        ("threads", c_int32),
        ("ranges", c_uint64),
        ("memory_bytes", c_uint64),
        ("kernels", c_char_p),
    )


@dataclass(frozen=True)
class NativeInfo:
    """What a network runs with.

    Attributes:
        size: Height and width of a crop, pixels.
        feature_dim: Numbers of a feature.
        threads: CPU threads, no more than this process may use.
        ranges: Numbers that :meth:`NativeNetwork.calibrate` returns.
        memory_bytes: Weights and scratch memory.
        kernels: Name of the instruction set's kernels, e.g. ``avx512vnni``.
    """

    size: tuple[int, int]
    feature_dim: int
    threads: int
    ranges: int
    memory_bytes: int
    kernels: str


@dataclass(frozen=True)
class LayerTimes:
    """What the time of runs went to.

    Attributes:
        seconds: Of each kind: the time of all threads over their number.  Together they are the time of the runs.
        clock: Seconds that the measurement itself took; in none of the others.
    """

    seconds: dict[LayerKind, float]
    clock: float


def available_kernels(precision: NativePrecision) -> tuple[str, ...]:
    """Name the kernels that this CPU can run, the fastest first.

    Raises:
        EngineUnavailableError: The library is not installed here.
    """
    names: list[str] = []
    while name := _library().reid_native_kernels(_PRECISIONS[precision], len(names)):
        names.append(name.decode())
    return tuple(names)


def compute_peak(precision: NativePrecision, rounds: int, kernels: str | None = None) -> int:
    """Compute a 1×1 convolution that stays in the first cache, on the calling thread.

    Args:
        precision: One that this CPU has kernels for.
        rounds: How often.
        kernels: One of :func:`available_kernels`; None: the fastest.

    Returns:
        Multiply-adds that were computed.

    Raises:
        EngineUnavailableError: The library is not installed, or has no kernels for this CPU and precision.
    """
    name = kernels.encode() if kernels else None
    if mult_adds := _library().reid_native_peak(_PRECISIONS[precision], name, rounds):
        return int(mult_adds)
    raise EngineUnavailableError(
        f"the native engine has no kernels {kernels or ''} in {precision} for this CPU, or no memory."
    )


def stem_products(precision: NativePrecision, kernels: str) -> int:
    """Return by how many products of integers kernels compute one multiply-add of conv1; 0: by one of floats.

    In float precisions one product is of 16 bits, and two are of bytes.

    Args:
        precision: Of the kernels.
        kernels: One of :func:`available_kernels`.

    Raises:
        EngineUnavailableError: The library is not installed, or has no such kernels for this CPU.
    """
    products = int(_library().reid_native_stem_products(_PRECISIONS[precision], kernels.encode()))
    if products < 0:
        raise EngineUnavailableError(f"the native engine has no kernels {kernels} in {precision} for this CPU.")
    return products


def resize(crop: Image, size: Size, precision: NativePrecision, kernels: str) -> Image:
    """Resize a crop as :meth:`NativeNetwork.run_crops` does.

    Args:
        crop: h×w×3 uint8, of no more than 8192 pixels a side.
        size: Height and width of the result, pixels.
        precision: Of the kernels.
        kernels: One of :func:`available_kernels`.

    Raises:
        EngineUnavailableError: The library is not installed, or has no such kernels for this CPU.
        EngineError: A size that it does not do, no memory, or a picture that reaches beyond its memory.
        FrameError: The crop is not h×w×3 uint8.
    """
    out = np.empty((*size, 3), np.uint8)
    kept = with_whole_pixels([crop])
    status = _library().reid_native_resize(
        *(b"".join(pictures(kept)), _PRECISIONS[precision], kernels.encode(), *size),
        *(out.ctypes.data, out.nbytes),
    )
    if status:
        raise _ERRORS[status](f"the native engine cannot resize {crop.shape} to {size} (status {status}).")
    return out


class NativeNetwork:
    """A plan, loaded.  Several threads may call it; calls are served one after another.

    Args:
        plan: Of :func:`reid_edge.runtime.native.plan.make_plan`.
        name: Of the plan's file, for the errors.
        precision: ``int8`` needs a plan with ranges.
        threads: CPU threads; more than this process may use are reduced to those.
        kernels: One of :func:`available_kernels`; None: the fastest.

    Raises:
        BundleCorruptError: Not a plan, or a number in it that cannot be.
        BundleVersionError: A plan of another format version.
        EngineUnavailableError: The library is not installed, or has no kernels for this CPU and precision.
        EngineError: No memory or threads.
    """

    def __init__(
        self,
        plan: bytes,
        *,
        name: str = "the plan",
        precision: NativePrecision = "fp32",
        threads: int = 1,
        kernels: str | None = None,
    ) -> None:
        self._engine = c_void_p()
        self._timing = threading.Lock()
        self._name = name
        self._functions = _library()
        message = ctypes.create_string_buffer(_MESSAGE_BYTES)
        status = self._functions.reid_native_create(
            plan,
            len(plan),
            _PRECISIONS[precision],
            kernels.encode() if kernels else None,
            threads,
            byref(self._engine),
            message,
            len(message),
        )
        if status:
            raise _ERRORS[status](f"{name}: {message.value.decode(errors='replace')}.")
        self.info = self._describe()

    def __del__(self) -> None:
        if getattr(self, "_engine", None):
            self._functions.reid_native_destroy(self._engine)

    def run(self, pixels: npt.NDArray[np.uint8]) -> Features:
        """Compute features.

        Args:
            pixels: N×H×W×3 uint8, BGR.

        Returns:
            N×D float32, not normalised.

        Raises:
            EngineError: Pixels of another size, or the process is a fork of the one that loaded the plan.
        """
        pixels = self._checked(pixels)
        features = np.empty((len(pixels), self.info.feature_dim), np.float32)
        self._call("run", pixels, features)
        return features

    def run_crops(self, crops: Sequence[Image]) -> Features:
        """Compute features of crops of any size, each resized by the rule ``box-bilinear``.

        Args:
            crops: N pictures, h×w×3 uint8 BGR, of no more than 8192 pixels a side.

        Returns:
            N×D float32, not normalised.

        Raises:
            EngineError: A larger crop, one that reaches beyond its memory, or the process is a fork of the one that
                loaded the plan.
            FrameError: A crop that is not h×w×3 uint8.
        """
        features = np.empty((len(crops), self.info.feature_dim), np.float32)
        kept = with_whole_pixels(crops)
        described = b"".join(pictures(kept))
        self._check(
            "run_crops",
            self._functions.reid_native_run_crops(
                self._engine, described, len(kept), features.ctypes.data, features.nbytes
            ),
        )
        return features

    def calibrate(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the largest value of each channel of each activation, in the order of a plan's ranges.

        Args:
            pixels: N×H×W×3 uint8, BGR; the network is one in ``fp32``.

        Raises:
            EngineError: As :meth:`run`.
        """
        ranges = np.zeros(self.info.ranges, np.float32)
        self._call("calibrate", self._checked(pixels), ranges)
        return ranges

    def time_layers(self, call: Callable[[], object]) -> LayerTimes:
        """Time the layers of all runs of this network that a call makes; features stay the same.

        Raises:
            EngineError: Layers of this network are being timed already, by another thread or around this call; no
                memory; or the process is a fork of the one that loaded the plan.
        """
        if not self._timing.acquire(blocking=False):
            raise EngineError(f"{self._name}: layers are being timed already; time them again when that has ended.")
        try:
            self._profile(on=True)
            try:
                call()
            finally:
                *seconds, clock = self._profile(on=False)
        finally:
            self._timing.release()
        return LayerTimes(dict(zip(LAYER_KINDS, seconds, strict=True)), clock)

    def _profile(self, *, on: bool) -> list[float]:
        """Begin or end to time layers; return the seconds of each kind since it began."""
        seconds = (c_double * (len(LAYER_KINDS) + 1))()
        status = self._functions.reid_native_profile(self._engine, int(on), seconds, ctypes.sizeof(seconds))
        self._check("time layers", status)
        return list(seconds)

    def _call(self, name: str, pixels: npt.NDArray[np.uint8], out: npt.NDArray[np.float32]) -> None:
        function = getattr(self._functions, f"reid_native_{name}")
        self._check(
            name, function(self._engine, pixels.ctypes.data, pixels.nbytes, len(pixels), out.ctypes.data, out.nbytes)
        )

    def _check(self, name: str, status: int) -> None:
        if status == _FORKED:
            raise EngineError(
                f"{self._name} was loaded before this process was forked, and its threads are not here. Make the "
                "extractor in the process that uses it."
            )
        if status:
            raise _ERRORS[status](f"{self._name}: the native engine cannot {name} (status {status}).")

    def _checked(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        expected = (*self.info.size, 3)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != expected:
            raise EngineError(f"{self._name} takes N×{expected} uint8, got {pixels.shape} {pixels.dtype}.")
        return np.ascontiguousarray(pixels)

    def _describe(self) -> NativeInfo:
        info = _Info()
        self._functions.reid_native_describe(self._engine, byref(info))
        return NativeInfo(
            size=(info.height, info.width),
            feature_dim=info.feature_dim,
            threads=info.threads,
            ranges=info.ranges,
            memory_bytes=info.memory_bytes,
            kernels=info.kernels.decode(),
        )


@cache
def _library() -> ctypes.CDLL:
    if not LIBRARY.is_file():
        raise EngineUnavailableError(
            "this installation of reid-edge has no native engine. Build a wheel for this platform in a checkout of "
            "reid-edge and install it here: pip wheel --no-deps --wheel-dir dist . (README, On the camera)"
        )
    try:
        library = ctypes.CDLL(str(LIBRARY))
        abi = library.reid_native_abi()
    except (OSError, AttributeError) as error:
        raise EngineUnavailableError(
            f"the native engine cannot be loaded: {error}. Install reid-edge again."
        ) from error
    if abi != ABI:
        raise EngineUnavailableError(
            f"{LIBRARY} is of another release (interface {abi}, expected {ABI}). Install reid-edge again."
        )
    _declare(library)
    return library


def _declare(library: ctypes.CDLL) -> None:
    """State the types of the functions in ``native/src/reid_native.h``."""
    library.reid_native_kernels.argtypes = (c_int, c_int)
    library.reid_native_kernels.restype = c_char_p
    library.reid_native_create.argtypes = (
        *(c_char_p, c_size_t, c_int, c_char_p, c_int),
        *(POINTER(c_void_p), POINTER(c_char), c_size_t),
    )
    library.reid_native_destroy.argtypes = (c_void_p,)
    library.reid_native_destroy.restype = None
    library.reid_native_describe.argtypes = (c_void_p, POINTER(_Info))
    library.reid_native_peak.argtypes = (c_int, c_char_p, c_uint32)
    library.reid_native_peak.restype = c_uint64
    library.reid_native_stem_products.argtypes = (c_int, c_char_p)
    library.reid_native_profile.argtypes = (c_void_p, c_int, POINTER(c_double), c_size_t)
    library.reid_native_run_crops.argtypes = (c_void_p, c_char_p, c_size_t, c_void_p, c_size_t)
    library.reid_native_resize.argtypes = (
        *(c_char_p, c_int, c_char_p, c_int, c_int),
        *(c_void_p, c_size_t),
    )
    for function in (library.reid_native_run, library.reid_native_calibrate):
        function.argtypes = (c_void_p, c_void_p, c_size_t, c_size_t, c_void_p, c_size_t)
