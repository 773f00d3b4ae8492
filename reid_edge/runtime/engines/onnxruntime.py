"""ONNX Runtime by any of its providers: sessions, and the engine that makes features with one; any batch."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reid_edge.errors import EngineError, EngineUnavailableError, MissingExtraError
from reid_edge.manifest import Artifact
from reid_edge.runtime.engines.base import Batch, EngineOptions
from reid_edge.system.threads import thread_limit
from reid_edge.types import Features

#: A folder that holds nothing, not even for root.
_NOWHERE = Path("/proc/self/fdinfo/none")
#: Severity from which ONNX Runtime logs: errors.
_LOG_ERRORS = 3
#: FP32 as it is, not with the mantissa of 10 bits that ONNX Runtime would take by default.
_CUDA_OPTIONS = {"use_tf32": "0"}


def onnxruntime_version() -> str:
    """Return the version of ONNX Runtime, e.g. ``1.23.0``; it must be installed."""
    import onnxruntime

    version: str = onnxruntime.__version__
    return version


def open_session(
    model: bytes,
    purpose: str,
    *,
    name: str = "the model",
    tensorrt: Mapping[str, str] | None = None,
    external: Mapping[str, bytes] | Path | None = None,
    threads: int | None = None,
    spinning: bool = True,
    device: str = "CPU",
    as_written: bool = False,
) -> Any:
    """Load an ONNX model as an ``onnxruntime.InferenceSession``.

    Args:
        model: Content of the file.
        purpose: What needs it, for the errors, e.g. ``the detector``.
        name: Name of the model, for the errors.
        tensorrt: Options of the provider ``TENSORRT``, if that is what computes.
        external: Weights that lie outside it: contents by the name that the model gives them, or the folder in which
            they are looked for; None: nowhere, and a model that names some is refused.
        threads: CPU threads; None: ONNX Runtime's choice, or as many as this process may use where that is less
            (:func:`~reid_edge.system.threads.thread_limit`).
        spinning: Whether threads spin while they wait for work: faster, but they keep their cores from other work.
        device: ``CPU``, or the provider that computes (:func:`providers_for`).
        as_written: Run the nodes of the file as they are, without ONNX Runtime's own rewrites, which are faster.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        EngineUnavailableError: This ONNX Runtime has no such provider, or the provider does not work here.
        EngineError: It cannot read the model, or the weights that the model names.
    """
    try:
        import onnxruntime as library
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx", purpose) from error
    providers = providers_for(device, library.get_available_providers(), tensorrt)
    options = library.SessionOptions()
    options.log_severity_level = _LOG_ERRORS
    if as_written:
        options.graph_optimization_level = library.GraphOptimizationLevel.ORT_DISABLE_ALL
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if (threads := threads or thread_limit()) is not None:
        options.intra_op_num_threads = threads
    # Without a folder ONNX Runtime looks for the weights in the current one.
    folder = external if isinstance(external, Path) else _NOWHERE
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    try:
        if isinstance(external, Mapping) and external:
            sizes = [len(content) for content in external.values()]
            options.add_external_initializers_from_files_in_memory(list(external), list(external.values()), sizes)
        session = library.InferenceSession(model, options, providers=providers)
    except Exception as error:  # its exceptions have no common base of their own
        raise EngineError(f"{name} is not a model that ONNX Runtime {library.__version__} reads: {error}") from error
    if (used := session.get_providers()[0]) != (asked := _name(providers[0])):  # it falls back without an error
        raise EngineUnavailableError(
            f"ONNX Runtime {library.__version__} has {asked}, but its libraries do not load here, and it took {used}. "
            "Install what that provider needs (CUDA: the CUDA and cuDNN of its release)."
        )
    return session


def providers_for(device: str, available: Sequence[str], tensorrt: Mapping[str, str] | None = None) -> list[Any]:
    """List the providers of a session, the one that was asked for in front.

    Args:
        device: ``CPU``; or a provider by its name without "ExecutionProvider", in any case, with the number of the
            device where there are several: ``CUDA``, ``CUDA.1``, ``TENSORRT``, ``OPENVINO``, ``DML``.
        available: The providers of the ONNX Runtime that is installed.
        tensorrt: Options of ``TENSORRT``.

    Raises:
        EngineUnavailableError: It has no such provider; the message lists those that it has.
    """
    kind, _, number = device.partition(".")
    names = {name.removesuffix("ExecutionProvider").upper(): name for name in available}
    if kind.upper() not in names or (number and not number.isdigit()):
        raise EngineUnavailableError(
            f"ONNX Runtime has no device '{device}' here; it has {', '.join(names)}. Others come with another package "
            "in place of 'onnxruntime': onnxruntime-gpu (CUDA, TENSORRT), onnxruntime-openvino, onnxruntime-directml."
        )
    kinds = [kind.upper()]
    if kinds == ["TENSORRT"] and "CUDA" in names:
        kinds.append("CUDA")  # computes what TensorRT cannot
    own = {"CUDA": _CUDA_OPTIONS, "TENSORRT": tensorrt or {}}
    numbered = {"device_id": number} if number else {}
    chosen = [(names[one], {**numbered, **own.get(one, {})}) for one in kinds]
    cpu = [] if kinds == ["CPU"] else [names["CPU"]]
    return [(name, options) if options else name for name, options in chosen] + cpu


def _name(provider: Any) -> str:
    name: str = provider if isinstance(provider, str) else provider[0]
    return name


class OnnxRuntimeEngine:
    """Runs an ONNX file.

    Args:
        files: Contents of the artifact's files by name; the others hold weights that the first names.
        artifact: Description of the files.
        options: Options of the engines.
    """

    batch_sizes: tuple[int, ...] | None = None

    def __init__(self, files: Mapping[str, bytes], artifact: Artifact, options: EngineOptions) -> None:
        threads = options.threads or (artifact.execution.threads if artifact.execution else None)
        (name, model), *others = files.items()
        external = {posixpath.relpath(other, posixpath.dirname(name)): content for other, content in others}
        self._session = open_session(
            model,
            "the ONNX Runtime engine",
            name=name,
            external=external,
            threads=threads,
            device=options.device,
            as_written=options.as_written,
        )
        self._files = files  # the session may use weights where they lie
        self._input = self._session.get_inputs()[0].name
        self.description = f"onnxruntime {onnxruntime_version()} {options.device}"

    def infer(self, batch: Batch) -> Features:
        """See :class:`~reid_edge.runtime.engines.base.Engine`."""
        try:
            return np.asarray(self._session.run(None, {self._input: batch})[0], dtype=np.float32)
        except Exception as error:  # its exceptions have no common base of their own
            raise EngineError(f"ONNX Runtime cannot run the model on an input of {batch.shape}: {error}") from error
