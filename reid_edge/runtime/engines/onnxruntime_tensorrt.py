"""ONNX Runtime's provider TENSORRT: engines for all batch sizes in the file's precision, kept between starts."""

from __future__ import annotations

import io
import logging
import posixpath
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from reid_edge.errors import EngineError, EngineUnavailableError, shortened
from reid_edge.manifest import Artifact
from reid_edge.runtime.compiled_cache import CompiledCache, key_of, open_cache
from reid_edge.runtime.cuda import driver_version, find_gpu
from reid_edge.runtime.device_class import current_device_class
from reid_edge.runtime.engines.base import USUAL_BATCH, Batch, EngineOptions
from reid_edge.runtime.engines.onnxruntime import OnnxRuntimeEngine, onnxruntime_version, open_session
from reid_edge.types import Features

_logger = logging.getLogger(__name__)


def is_tensorrt(device: str) -> bool:
    """Return True for the name of ONNX Runtime's provider TENSORRT, with or without the number of the GPU."""
    return device.partition(".")[0] == "TENSORRT"


class TensorRTSession:
    """A session by the provider TENSORRT, whose engines and kernel times are kept between starts.

    ONNX Runtime names an engine without regard to weights and sizes (its issues 6455 and 32254), takes whatever lies
    under that name, and TensorRT may crash on a damaged one.  So each session has folders of its own, filled from a
    cache with checksums by the content of the model.

    Args:
        opening: Opens the session with options of the provider.
        device: ``TENSORRT``, or with a number.
        cache_dir: Where engines are kept; None keeps none.
        options: Of the provider.
        contents: All that the engines are made of; none: they are not kept.

    Attributes:
        session: The ``onnxruntime.InferenceSession``.

    Raises:
        EngineError: As ``opening`` does.
    """

    def __init__(
        self,
        opening: Callable[[Mapping[str, str]], Any],
        *,
        device: str,
        cache_dir: Path | None,
        options: Mapping[str, str],
        contents: tuple[bytes, ...],
    ) -> None:
        self._folders: dict[str, _KeptFolder] = {}
        if cache_dir and contents and (cache := open_cache(cache_dir / "compiled")) is not None:
            self._folders = _kept_folders(cache, device, options, contents)
        self._shapes: set[tuple[int, ...]] = set()
        kept = {f"trt_{kind}_cache_enable": "1" for kind in self._folders}
        kept |= {f"trt_{kind}_cache_path": str(folder.path) for kind, folder in self._folders.items()}
        self.session = self._opened(partial(opening, {**options, **kept}))

    def _opened(self, opening: Callable[[], Any]) -> Any:
        try:
            return opening()
        except EngineUnavailableError:
            for folder in self._folders.values():
                folder.keep()
            raise
        except EngineError as error:
            refused = [folder.refuse(shortened(str(error))) for folder in self._folders.values()]
            if not any(refused):
                raise
        return opening()

    def keep(self, shape: tuple[int, ...]) -> None:
        """Keep what was built; call it after each run, with the shape of the input."""
        if shape not in self._shapes:
            self._shapes.add(shape)
            for folder in self._folders.values():
                folder.keep()


def _kept_folders(
    cache: CompiledCache, device: str, options: Mapping[str, str], contents: tuple[bytes, ...]
) -> dict[str, _KeptFolder]:
    """Fill folders for engines and for kernel times; none where there is no room for them."""
    facts = ["onnxruntime TENSORRT", onnxruntime_version(), *_gpu_facts(device)]
    keys = {
        "engine": key_of([*facts, sorted(options.items())], *contents),
        "timing": key_of([*facts, "kernel times", current_device_class().power_mode]),
    }
    try:
        return {kind: _KeptFolder(cache, key) for kind, key in keys.items()}
    except OSError as error:
        _logger.warning("engines of TensorRT are not kept, each start builds again: %s", error)
        return {}


class _KeptFolder:
    """A folder for the files of one session, as they were after an earlier one.

    Args:
        cache: Where the files are kept.
        key: Under which.

    Raises:
        OSError: There is no room for it.
    """

    def __init__(self, cache: CompiledCache, key: str) -> None:
        self._cache, self._key = cache, key
        self._place = tempfile.TemporaryDirectory(prefix="reid-edge-")
        self.path = Path(self._place.name)
        self._held = cache.take(key)
        self._is_taken = self._held is not None
        if self._held is not None:
            with zipfile.ZipFile(io.BytesIO(self._held)) as files:
                files.extractall(self.path)

    def refuse(self, reason: str) -> bool:
        """Throw away what was kept and could not be loaded; False where nothing was."""
        if self._held is None:
            return False
        self._cache.discard(self._key, reason)
        self._held, self._is_taken = None, False
        for file in self.path.iterdir():
            file.unlink()
        return True

    def keep(self) -> None:
        """Keep the files as they are now."""
        if self._is_taken:
            self._cache.put_back(self._key)
            self._is_taken = False
        try:
            content = _packed(sorted(file for file in self.path.iterdir() if file.is_file()))
        except OSError as error:
            _logger.warning("an engine of TensorRT is not kept, the next start builds again: %s", error)
            return
        if content not in (self._held, _packed([])):
            self._cache.store(self._key, content)
            self._held = content


def _packed(files: list[Path]) -> bytes:
    """Write files as one, the same for the same contents."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as out:
        for file in files:
            out.writestr(zipfile.ZipInfo(file.name), file.read_bytes())
    return packed.getvalue()


def _gpu_facts(device: str) -> list[str]:
    number = device.partition(".")[2] or "0"
    gpu = find_gpu(int(number)) if number.isdigit() else None
    return [] if gpu is None else [str(gpu), driver_version()]


class OnnxRuntimeTensorRTEngine(OnnxRuntimeEngine):
    """Runs an ONNX file by ONNX Runtime's provider TENSORRT, with one engine for all batch sizes.

    Args:
        files: Contents of the artifact's files by name; the others hold weights that the first names.
        artifact: Description of the files.
        options: Options of the engines.
    """

    def __init__(self, files: Mapping[str, bytes], artifact: Artifact, options: EngineOptions) -> None:
        super().__init__(files, artifact, replace(options, device="CPU"))  # tells name and shape of the input
        (name, model), *others = files.items()
        self._tensorrt = TensorRTSession(
            lambda tensorrt: open_session(
                model,
                "the ONNX Runtime engine",
                name=name,
                tensorrt=tensorrt,
                external={posixpath.relpath(other, posixpath.dirname(name)): content for other, content in others},
                threads=options.threads,
                device=options.device,
            ),
            device=options.device,
            cache_dir=options.cache_dir,
            options={**_precision(artifact), **_profile(self._session.get_inputs()[0], artifact.max_batch)},
            contents=tuple(files.values()),
        )
        self._session = self._tensorrt.session
        self.description = f"onnxruntime {onnxruntime_version()} {options.device}"

    def infer(self, batch: Batch) -> Features:
        """See :class:`~reid_edge.runtime.engines.base.Engine`."""
        features = super().infer(batch)
        self._tensorrt.keep(batch.shape)
        return features


def _precision(artifact: Artifact) -> dict[str, str]:
    """Allow TensorRT the types that a file is written in; without, it computes all in float32, and refuses INT8."""
    half = artifact.precision == "fp16" or (artifact.execution is not None and artifact.execution.float_type == "f16")
    int8 = artifact.precision == "int8" or bool(artifact.int8)
    return {name: "1" for name, wanted in (("trt_fp16_enable", half), ("trt_int8_enable", int8)) if wanted}


def _profile(crops: Any, max_batch: int) -> dict[str, str]:
    """Let one engine take all batches; without, each that is larger than those before is a reason to build again."""
    sizes = {"min": 1, "opt": min(USUAL_BATCH, max_batch), "max": max_batch}
    return {
        f"trt_profile_{which}_shapes": f"{crops.name}:{'x'.join(map(str, (batch, *crops.shape[1:])))}"
        for which, batch in sizes.items()
    }
