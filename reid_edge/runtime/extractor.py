"""Extraction of features from frames with boxes, from crops, and from image files."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from reid_edge.bundle import Bundle, open_bundle
from reid_edge.crops import RESIZE_RULE, SkippedBox, check_image, crop_boxes, normalised, resize_into
from reid_edge.errors import BoxError, BundleVersionError, EngineError, FrameError, GpuMemoryError, UsageError
from reid_edge.features import l2_normalised
from reid_edge.images import read_images
from reid_edge.manifest import Artifact, EngineChoice, InputSpec, PrecisionChoice
from reid_edge.runtime.engines import Batch, CropEngine, EngineOptions, LayerTimer, choose_engine, out_of_memory
from reid_edge.runtime.native.library import LayerTimes
from reid_edge.types import Features, Image, Size
from reid_edge.wording import counted

#: Image files held in memory at a time.
FILES_AT_ONCE = 32


@dataclass(frozen=True)
class Extraction:
    """Features of the usable boxes, and a report of the others.

    Attributes:
        features: M×D float32, in the order of the boxes that they come from.
        kept: Row in the caller's boxes of each feature, M integers, ascending.
        skipped: The other boxes, and why.
    """

    features: Features
    kept: npt.NDArray[np.intp]
    skipped: tuple[SkippedBox, ...]


class Extractor:
    """Computes features of person crops with one engine.

    Several threads may call it; calls are served one after another.

    Args:
        bundle: A folder that ``reid-edge export`` made, or an opened one.
        engine: ``native``, ``openvino``, ``onnxruntime``, ``tensorrt``, or ``auto``: the first of TensorRT, native,
            OpenVINO and ONNX Runtime that works here.
        precision: ``fp32``, ``fp16``, ``int8``, ``tuned``, or ``auto``: tuned on the class of device that it was tuned
            for, else fp16 on TensorRT and fp32 elsewhere.  If ``auto`` finds no engine that computes ``int8`` here, it
            takes the native engine in ``fp32``, and logs so.
        threads: CPU threads; None leaves the choice to the engine, within affinity and CPU quota.
        device: ``CPU``, a device of OpenVINO or a provider of ONNX Runtime
            (:class:`~reid_edge.runtime.engines.EngineOptions`); on another than the CPU, ``auto`` takes fp16.
        cache_dir: Where compiled models are kept; ``default`` is ``~/.cache/reid-edge``, None keeps none.
        max_batch: Most crops in one call of the engine, which saves memory; None: as many as the file takes.
        trusted_keys: Public keys (PEM files, or base64), one of which must have signed the bundle; none: a bundle is
            taken as it is.  For an opened bundle they are given to :func:`~reid_edge.bundle.open_bundle`.

    Attributes:
        golden_cosine: Lowest cosine similarity to the checkpoint's features of the golden crops, where ``auto`` has
            compared them; else None.
        unused_plan: Why ``auto`` took no TensorRT plan, though the bundle has one that fits; "" where one runs, or none
            is there.
        lacks_gpu_memory: Whether ``unused_plan`` is so because the GPU had no memory left.
        on_other_device: Whether a GPU or NPU computes; the export has checked the files on a CPU only.

    Raises:
        UsageError: ``threads`` or ``max_batch`` below 1, or ``trusted_keys`` for an opened bundle.
        BundleError: No usable bundle there, or none that a trusted key has signed.
        EngineError: The engine cannot run here, or there is no memory.
        MissingExtraError: The engine's package is not installed.
    """

    def __init__(
        self,
        bundle: Bundle | Path | str,
        *,
        engine: EngineChoice = "auto",
        precision: PrecisionChoice = "auto",
        threads: int | None = None,
        device: str = "CPU",
        cache_dir: Path | Literal["default"] | None = "default",
        max_batch: int | None = None,
        trusted_keys: Sequence[str | Path] = (),
    ) -> None:
        if max_batch is not None and max_batch < 1:
            raise UsageError(f"max_batch must be at least 1, got {max_batch}.")
        if isinstance(bundle, Bundle) and trusted_keys:
            raise UsageError("trusted_keys are checked when a bundle is opened: give them to open_bundle.")
        self.bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle, trusted_keys=trusted_keys)
        self._spec = self.bundle.manifest.input
        if self._spec.resize != RESIZE_RULE:
            raise BundleVersionError(
                f"{self.bundle.path} wants crops resized by '{self._spec.resize}'; this release knows '{RESIZE_RULE}'. "
                "Install the release that exported it, or export again."
            )
        options = EngineOptions(
            threads=threads, device=device, cache_dir=default_cache_dir() if cache_dir == "default" else cache_dir
        )
        refused: list[tuple[Artifact, Exception]] = []
        self.artifact, self._engine, self.golden_cosine = choose_engine(
            self.bundle, engine, precision, options, on_refusal=lambda *one: refused.append(one)
        )
        passed_over = engine == "auto" and options.on_cpu and self.artifact.engine != "tensorrt"
        plans = [(plan, error) for plan, error in refused if passed_over and plan.engine == "tensorrt"]
        self.lacks_gpu_memory = any(isinstance(error, GpuMemoryError) for _, error in plans)
        self.unused_plan = next((f"{plan.name}: {error}" for plan, error in plans), "")
        if passed_over and not plans:
            self.unused_plan = self._why_not_tried(precision)
        self.on_other_device = self.artifact.engine == "tensorrt" or not options.on_cpu
        self._crop_engine: CropEngine | None = None
        if self._spec.normalised_in == "graph" and isinstance(self._engine, CropEngine):
            self._crop_engine = self._engine
        sizes = self._engine.batch_sizes or range(1, self.artifact.max_batch + 1)
        self._batch_sizes = tuple(size for size in sizes if size <= (max_batch or self.artifact.max_batch))
        try:
            self._pixels: Image = np.empty((self._batch_sizes[-1], *self._spec.size, 3), np.uint8)
        except MemoryError as error:
            raise out_of_memory(f"a batch of {self._batch_sizes[-1]} crops") from error
        self._lock = threading.Lock()
        self._made_in = os.getpid()

    @property
    def input_size(self) -> Size:
        """Height and width of the network's input, pixels."""
        return self._spec.size

    @property
    def description(self) -> str:
        """Name artifact, library and device, e.g. for a log."""
        return f"{self.artifact.name} on {self._engine.description}"

    def _why_not_tried(self, precision: PrecisionChoice) -> str:
        """Say why no TensorRT plan was tried; "" where none is there, or what was tuned here or asked for is none."""
        plans = {one.precision for one in self.bundle.manifest.artifacts if one.engine == "tensorrt"}
        if precision != "auto" or self.artifact.precision == "tuned":
            return ""
        if "int8" in plans:
            return "tensorrt/int8: 'auto' chooses no INT8, which may rank worse; set the precision to int8."
        if "tuned" in plans:
            return "tensorrt/tuned: it was tuned on another class of device. Tune on this one: reid-edge tune"
        return ""

    @property
    def engine_description(self) -> str:
        """Name library, version and device."""
        return self._engine.description

    def __call__(self, image: Image | Sequence[Image], boxes: npt.ArrayLike | None = None) -> Features:
        """Return features of every box in a frame, or of every crop in a list.

        Args:
            image: A frame, H×W×3 uint8 BGR, with ``boxes``; or, without, a sequence of such crops of any sizes.
            boxes: N×4 x1 y1 x2 y2 in pixels; clipped to the frame.

        Returns:
            N×D float32 in the order given, normalised as the manifest says; 0×D for none.

        Raises:
            FrameError: A frame or crop that is not H×W×3 uint8.
            BoxError: Boxes not N×4, or one that is empty, outside the frame or not finite: to skip such, use
                :meth:`extract`.
            EngineError: The engine failed, or there is no memory.
        """
        if boxes is None:
            return self._features(_checked_crops(image))
        crops, skipped = crop_boxes(_one_frame(image), boxes)
        if skipped:
            listed = "; ".join(f"box {box.index}: {box.reason}" for box in skipped[:10])
            raise BoxError(
                f"{counted(len(skipped), 'box', 'boxes')} without a pixel: {listed}. Leave such boxes out, or use "
                "Extractor.extract, which skips and reports them."
            )
        return self._features(crops)

    def extract(self, frame: Image, boxes: npt.ArrayLike) -> Extraction:
        """Return features of the usable boxes; others are skipped and reported.

        Args:
            frame: H×W×3 uint8, BGR.
            boxes: N×4 x1 y1 x2 y2 in pixels; clipped to the frame.

        Raises:
            FrameError: The frame is not H×W×3 uint8.
            BoxError: Boxes not N×4.
        """
        crops, skipped = crop_boxes(frame, boxes)
        bad = {box.index for box in skipped}
        kept = [row for row in range(len(crops) + len(skipped)) if row not in bad]
        return Extraction(self._features(crops), np.array(kept, dtype=np.intp), tuple(skipped))

    def warm_up(self, crops: int) -> None:
        """Compile everything that calls with up to this many crops will need, so that none waits for it."""
        height, width = self._spec.size
        for size in self._batch_sizes:
            if size <= max(1, crops):
                self._features([np.zeros((height, width, 3), np.uint8)] * size)

    def infer(self, batch: Batch) -> Features:
        """Run the engine alone on prepared input, to measure it.

        Args:
            batch: N inputs as the model files take them (:func:`as_input`), of any N.

        Returns:
            N×D float32, not normalised; computed in the batch sizes that :meth:`__call__` uses.
        """
        features = np.empty((len(batch), self.bundle.manifest.features.dim), np.float32)
        with self._in_turn():
            for start, size in _chunks(len(batch), self._batch_sizes):
                features[start : start + size] = self._engine.infer(batch[start : start + size])
        return features

    def time_layers(self, call: Callable[[], object]) -> LayerTimes | None:
        """Make a call that uses this extractor, and return where the engine's time went.

        Returns:
            Times of kinds of layers, averaged over the threads; None, and no call, where the engine cannot tell.
        """
        return self._engine.time_layers(call) if isinstance(self._engine, LayerTimer) else None

    def _features(self, crops: Sequence[Image]) -> Features:
        manifest = self.bundle.manifest
        try:
            features = np.empty((len(crops), manifest.features.dim), np.float32)
            with self._in_turn():
                for start, size in _chunks(len(crops), self._batch_sizes):
                    features[start : start + size] = self._infer(crops[start : start + size])
            return l2_normalised(features) if manifest.features.norm == "l2" else features
        except MemoryError as error:
            raise out_of_memory(f"features of {counted(len(crops), 'crop')}") from error

    def _in_turn(self) -> AbstractContextManager[object]:
        """Return what one call at a time holds.

        Raises:
            EngineError: In a forked child, where the engine's threads are missing and the lock may stay closed.
        """
        if os.getpid() != self._made_in:
            raise EngineError(
                f"{self.artifact.name} was loaded before this process was forked, and its threads are not here. Make "
                "the extractor in the process that uses it."
            )
        return self._lock

    def _infer(self, crops: Sequence[Image]) -> Features:
        if self._crop_engine:
            return self._crop_engine.infer_crops(crops)
        return self._engine.infer(self._batch(crops))

    def _batch(self, crops: Sequence[Image]) -> Batch:
        pixels = self._pixels[: len(crops)]
        for crop, out in zip(crops, pixels, strict=True):
            resize_into(crop, out)
        return as_input(pixels, self._spec)


@dataclass(frozen=True)
class FileFeatures:
    """Features of the readable ones of N image files.

    Attributes:
        features: M×D float32.
        paths: M files, in the order given.
        unreadable: The other files.
    """

    features: Features
    paths: tuple[Path, ...]
    unreadable: tuple[Path, ...]


def extract_files(
    extractor: Callable[[Sequence[Image]], Features],
    paths: Sequence[Path],
    on_block: Callable[[int], object] = lambda _count: None,
    *,
    skip_bad: bool = False,
) -> FileFeatures:
    """Return features of image files, each taken as one crop.

    Args:
        extractor: An Extractor, or anything else that makes features of crops.
        paths: N image files.
        on_block: Called with the number of images done since the last call.
        skip_bad: Leave out files that are no readable images.

    Raises:
        FrameError: A file is no readable image and ``skip_bad`` is off, or none is.
    """
    blocks: list[Features] = []
    kept: list[Path] = []
    for start in range(0, len(paths), FILES_AT_ONCE):
        block = list(read_images(paths[start : start + FILES_AT_ONCE], skip_bad=skip_bad))
        kept += [path for path, image in block if image is not None]
        blocks.append(extractor([image for _, image in block if image is not None]))
        on_block(len(block))
    if not kept:
        raise FrameError(f"none of {counted(len(paths), 'image')} can be read, e.g. {paths[0]}. Copy them again.")
    readable = set(kept)
    unreadable = tuple(path for path in paths if path not in readable)
    return FileFeatures(np.concatenate(blocks), tuple(kept), unreadable)


def as_input(pixels: Image, spec: InputSpec) -> Batch:
    """Return N×H×W×3 uint8 BGR pixels of the network's size as the model files take them (``spec``)."""
    return pixels if spec.normalised_in == "graph" else normalised(pixels, spec.mean, spec.std)


def _chunks(count: int, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield start and size of batches that make up ``count``, the largest allowed first: 11 → 8, 2, 1."""
    start = 0
    for size in reversed(sizes):
        while count - start >= size:
            yield start, size
            start += size


def _one_frame(image: Image | Sequence[Image]) -> Image:
    return check_image(image, what="frame")


def _checked_crops(images: Image | Sequence[Image]) -> list[Image]:
    if isinstance(images, np.ndarray) and images.ndim != 4:
        raise FrameError(
            f"without boxes, expected a list of H×W×3 uint8 BGR crops, got one array of shape {images.shape}; "
            "for a frame, pass its boxes too."
        )
    if not isinstance(images, Sequence | np.ndarray) or isinstance(images, str):
        raise FrameError(f"expected a list of H×W×3 uint8 BGR crops, got {type(images).__name__}.")
    return [check_image(crop, what=f"crop {index}") for index, crop in enumerate(images)]


def default_cache_dir() -> Path | None:
    """Return this user's cache folder of reid-edge, made if it is not there; None if nothing can be kept there."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reid-edge"
        cache.mkdir(parents=True, exist_ok=True)
        for blob in cache.glob("[0-9]*.blob"):  # of earlier releases, which let OpenVINO keep them
            blob.unlink(missing_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: a user without a home, as containers have
        return None
    return cache if os.access(cache, os.W_OK) else None
