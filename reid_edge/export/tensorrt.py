"""ONNX → TensorRT plan, for TensorRT 10.3 to 11 and TensorRT-RTX; no torch needed.

Precision is expressed in the ONNX file (float16 weights, or Q/DQ nodes), so networks are strongly typed: what TensorRT
11 demands, 10 understands, and RTX always did.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial, reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from reid_edge.built_files import built_folder, default_built_dir, entries_of, make_private_folder, write_record
from reid_edge.bundle import Bundle, open_bundle, write_manifest
from reid_edge.errors import (
    EngineError,
    EngineUnavailableError,
    MissingExtraError,
    OutputError,
    ParityError,
    ReidEdgeError,
)
from reid_edge.export.half_floats import checked_half_floats
from reid_edge.export.plan_inspection import built_precisions
from reid_edge.export.timing_cache import kept_timings
from reid_edge.files import write_whole
from reid_edge.manifest import Artifact, FileEntry, PlanStamp, Precision, with_artifact
from reid_edge.runtime.agreement import require_limit
from reid_edge.runtime.cuda import Gpu, find_gpu, open_gpu
from reid_edge.runtime.engines import EngineOptions
from reid_edge.runtime.engines.base import USUAL_BATCH
from reid_edge.runtime.engines.tensorrt import stamp_device
from reid_edge.runtime.golden import verify_artifact
from reid_edge.runtime.tensorrt_library import (
    TENSORRT,
    TENSORRT_RTX,
    buildable_precisions,
    library_log,
    load_library,
    make,
    why_not_on,
)

_logger = logging.getLogger(__name__)

#: Folder of the plans in a bundle.
PLANS = "tensorrt"
#: Smallest, usual and largest batch.
Batches = tuple[int, int, int]


def why_not_here() -> EngineError | None:
    """Return the reason why no plan can be built on this machine, or None when one can."""
    try:
        library = load_library()
        obstacle = why_not_on(library, _gpu_for(library))
    except EngineError as error:
        return error
    return EngineUnavailableError(obstacle) if obstacle else None


def _gpu_for(library: ModuleType) -> Gpu | None:
    """Return the GPU that plans are built on; None without one, where the library does not need it.

    Raises:
        EngineUnavailableError: It needs one.
    """
    try:
        return open_gpu()
    except EngineError as error:
        if library.__name__ != TENSORRT:
            return None
        raise EngineUnavailableError(
            f"tensorrt builds a plan on the GPU that will run it: {error} "
            "Run this on the device: reid-edge build BUNDLE --engine tensorrt"
        ) from error


def plan_precisions() -> tuple[Precision, ...]:
    """Return the precisions of plans that can be built with the library that is here; without one, those of any."""
    try:
        return buildable_precisions(load_library())
    except EngineUnavailableError:
        return ("fp32", "fp16", "int8")


def build_into_bundle(
    bundle: Bundle, precisions: Sequence[Precision], *, max_batch: int | None, on_step: Callable[[], object]
) -> Bundle:
    """Build plans on the device and add them to a bundle.

    A bundle that is signed stays as it was signed: its plans lie in a folder of this user's, with a record that is
    bound to the manifest (:mod:`reid_edge.built_files`).

    Args:
        bundle: Its manifest, or the record, changes on disk once every plan is built and right; plans that were
            replaced go then.
        precisions: Which plans.
        max_batch: Largest batch; None takes each ONNX file's.
        on_step: Called after each plan.

    Raises:
        ReidEdgeError: As :func:`build_tensorrt` does; the bundle is as before.
    """
    if bundle.is_signed:
        return _build_beside(bundle, precisions, max_batch, on_step)
    if bundle.built is not None:  # was signed once
        bundle = open_bundle(bundle.path, built_dir=None)
    built = bundle
    try:
        for artifact in _build_all(bundle, precisions, bundle.path, max_batch, on_step):
            built = replace(built, manifest=with_artifact(built.manifest, artifact))
        write_manifest(bundle.path, built.manifest)
        bundle = built
    finally:
        _remove_unlisted_plans(bundle.path, bundle.manifest.entries())
    return bundle


def _build_beside(
    bundle: Bundle, precisions: Sequence[Precision], max_batch: int | None, on_step: Callable[[], object]
) -> Bundle:
    """Build plans into this user's folder, for a bundle that is signed."""
    built_dir = default_built_dir()
    if built_dir is None:
        raise OutputError("this user has no home folder to keep plans of a signed bundle in; set XDG_STATE_HOME.")
    folder = built_folder(built_dir, bundle.manifest_sha256)
    make_private_folder(folder)
    held = tuple(one for one in bundle.manifest.artifacts if bundle.built_files.issuperset(one.files))
    try:
        made = _build_all(bundle, precisions, folder, max_batch, on_step)
        names = {artifact.name for artifact in made}
        held = (*(artifact for artifact in held if artifact.name not in names), *made)
        write_record(folder, bundle.manifest_sha256, held)
    finally:
        _remove_unlisted_plans(folder, entries_of(held))
    manifest = reduce(with_artifact, held, bundle.manifest)
    return replace(bundle, manifest=manifest, built=folder, built_files=entries_of(held))


def _build_all(
    bundle: Bundle,
    precisions: Sequence[Precision],
    folder: Path,
    max_batch: int | None,
    on_step: Callable[[], object],
) -> list[Artifact]:
    made = []
    for precision in precisions:
        made.append(build_tensorrt(bundle, precision, into=folder, max_batch=max_batch))
        on_step()
    return made


def _remove_unlisted_plans(folder: Path, entries: Iterable[FileEntry]) -> None:
    listed = {folder / entry.path for entry in entries}
    for path in (folder / PLANS).glob("*"):
        if path not in listed:
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # holds plans, or was never made
        (folder / PLANS).rmdir()


def build_tensorrt(
    bundle: Bundle,
    precision: Precision,
    *,
    into: Path | None = None,
    max_batch: int | None = None,
    usual_batch: int = USUAL_BATCH,
) -> Artifact:
    """Build the plan of one precision from a bundle's ONNX file; check it if a GPU is there.

    In INT8 the other layers are built in float16, unless that is refused or computes other features: then in float32,
    as the file says, with a warning.  A plan's name holds its hash, so that one which the manifest lists is never
    overwritten.

    Args:
        bundle: Has the ONNX file.
        precision: Which ONNX file.
        into: Folder for the plan; None: the bundle's.
        max_batch: Largest batch; None takes the ONNX file's.
        usual_batch: The batch that the plan is to be fastest at.

    Raises:
        EngineUnavailableError: No TensorRT library, one that has no such precision, or no such ONNX file.
        EngineError: The library could not parse or build.
        BundleCorruptError: The ONNX file has changed.
        ParityError: The plan does not compute what the checkpoint computes.
        OutputError: The folder cannot be written.
    """
    source = bundle.artifact("onnxruntime", precision)
    if (source.int8 or precision == "int8") and "int8" not in plan_precisions():
        raise EngineUnavailableError(
            "TensorRT-RTX has no convolutions in INT8: choose fp16, which it is made for, or use the full library: "
            "pip install 'reid-edge[tensorrt]'."
        )
    plan_of = partial(
        _plan_of,
        bundle,
        source,
        folder=into or bundle.path,
        max_batch=max_batch or source.max_batch,
        usual_batch=usual_batch,
    )
    if precision == "int8":
        try:
            return plan_of(checked_half_floats(bundle, source))
        except EngineUnavailableError:
            raise
        except (EngineError, MissingExtraError, ParityError) as error:
            _logger.warning("%s: layers outside INT8 are built in float32, not in float16: %s", source.name, error)
    return plan_of(bundle.read(source.files[0]))


def _plan_of(
    bundle: Bundle, source: Artifact, onnx: bytes, *, folder: Path, max_batch: int, usual_batch: int
) -> Artifact:
    """Build the plan of what an ONNX file says, or of what was made of it; check it if a GPU is there."""
    content, stamp = build_plan(onnx, name=source.files[0].path, max_batch=max_batch, usual_batch=usual_batch)
    digest = hashlib.sha256(content).hexdigest()
    made = FileEntry(path=f"{PLANS}/{source.precision}-{digest[:8]}.plan", size_bytes=len(content), sha256=digest)
    was_there = (folder / made.path).exists()
    write_whole(folder / made.path, content)
    plan = replace(
        source,
        engine="tensorrt",
        files=(made,),
        max_batch=stamp.batches[2],
        needs_vnni=False,
        parity=None,
        verdict=None,
        plan=stamp,
    )
    if not _runs_here():
        return plan
    try:
        return _checked(replace(bundle, built=folder, built_files=frozenset({made})), plan)
    except ReidEdgeError:
        if not was_there:
            (folder / made.path).unlink(missing_ok=True)
        raise


def _runs_here() -> bool:
    """Return True if a plan can run on this machine."""
    return find_gpu() is not None


def _checked(bundle: Bundle, plan: Artifact) -> Artifact:
    """The plan with its parity on this GPU."""
    parity = verify_artifact(bundle, plan, EngineOptions())
    require_limit(bundle.manifest, plan, parity, plan.name)
    return replace(plan, parity=parity)


def build_plan(onnx: bytes, *, name: str, max_batch: int, usual_batch: int = USUAL_BATCH) -> tuple[bytes, PlanStamp]:
    """Build a plan for the GPU at hand (``tensorrt_rtx`` builds without one too).

    Args:
        onnx: Content of the ONNX file, which says the precision.
        name: Of that file, for the errors.
        max_batch: Largest batch; the smallest is 1.
        usual_batch: The batch that kernels are chosen for, if it is not larger than ``max_batch``; those of the
            smallest and the largest batch are chosen for these.

    Raises:
        EngineUnavailableError: No TensorRT library is installed.
        EngineError: The library could not parse or build; with its own words.
    """
    if (obstacle := why_not_here()) is not None:
        raise obstacle
    library = load_library()
    gpu = _gpu_for(library)
    log = library_log(library)
    builder = make(library, "a builder", lambda: library.Builder(log))
    network = builder.create_network(_network_flags(library))
    _parser = _parsed(library, network, onnx, name)  # owns weights until the plan is built
    batches = (1, min(usual_batch, max_batch), max_batch)
    config = _config(library, builder, network, _profiles(library, batches))
    with kept_timings(library, gpu, config):
        plan = bytes(make(library, f"a plan of {name}", lambda: builder.build_serialized_network(network, config)))
    return plan, PlanStamp(
        library=library.__name__,
        version=library.__version__,
        built_precision=built_precisions(library, plan, batches[1]) if gpu else {},
        batches=batches,
        **stamp_device(gpu),
    )


def count_layers(onnx: bytes, name: str) -> int:
    """Count the layers that an ONNX file has for TensorRT, before it fuses them.

    Args:
        onnx: Content of the file.
        name: Of the file, for the errors.

    Raises:
        EngineUnavailableError: No TensorRT library is installed.
        EngineError: The library could not parse it.
    """
    library = load_library()
    builder = make(library, "a builder", lambda: library.Builder(library_log(library)))
    network = builder.create_network(_network_flags(library))
    _parsed(library, network, onnx, name)
    return int(network.num_layers)


def _parsed(library: ModuleType, network: Any, onnx: bytes, name: str) -> Any:
    """Fill a network; returns the parser."""
    parser = library.OnnxParser(network, library_log(library))
    if not parser.parse(onnx):
        errors = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise EngineError(f"{library.__name__} {library.__version__} cannot parse {name}: {errors}")
    return parser


def _network_flags(library: ModuleType) -> int:
    """STRONGLY_TYPED where it is still a flag; later releases know nothing else."""
    flag = getattr(library.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _profiles(library: ModuleType, batches: Batches) -> list[Batches]:
    """List smallest, usual and largest batch of each optimisation profile: first one for all, then fixed ones.

    TensorRT-RTX makes kernels for the shapes that it meets, and needs no more than the first.
    """
    fixed = [size for size in dict.fromkeys((batches[0], batches[2])) if size != batches[1]]
    return [batches] if library.__name__ == TENSORRT_RTX else [batches, *((size, size, size) for size in fixed)]


def _config(library: ModuleType, builder: Any, network: Any, profiles: Sequence[Batches]) -> Any:
    crops = network.get_input(0)
    config = builder.create_builder_config()
    for batches in profiles:
        profile = builder.create_optimization_profile()
        profile.set_shape(crops.name, *((batch, *tuple(crops.shape)[1:]) for batch in batches))
        config.add_optimization_profile(profile)
    if hasattr(config, "profiling_verbosity"):
        # Otherwise the inspector reports names only, not precisions.
        config.profiling_verbosity = type(config.profiling_verbosity).DETAILED
    config.clear_flag(library.BuilderFlag.TF32)  # on by default: products of FP32 with a mantissa of 10 bits
    return config
