"""An ONNX file in INT8 whose floats are float16: what TensorRT is given, whose layers compute in the types of the file.

NNCF quantizes networks in float32, so everything between the Q/DQ nodes of a bundle's file is float32: the depthwise
layers, gates and sums of a plan built from it as it is would be, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reid_edge.bundle import Bundle
from reid_edge.errors import EngineError, MissingExtraError
from reid_edge.manifest import Artifact
from reid_edge.runtime.agreement import require_limit
from reid_edge.runtime.engines import EngineOptions
from reid_edge.runtime.engines.onnxruntime import OnnxRuntimeEngine
from reid_edge.runtime.golden import measure_parity

if TYPE_CHECKING:
    import onnx

#: The first whose Q/DQ nodes take float16.
FIRST_OPSET = 19
_LARGEST = float(np.finfo(np.float16).max)
_SMALLEST = np.finfo(np.float16).smallest_subnormal


def checked_half_floats(bundle: Bundle, artifact: Artifact) -> bytes:
    """Turn the floats of a bundle's INT8 file into float16, and run the golden crops through what comes of it.

    They run on the CPU; without ONNX Runtime they do not, and only what is built from the file is checked.  The file
    runs as it is written: ONNX Runtime would make integers of the biases, divided by the scale of the input times that
    of the weights, computed in float16, where small products are 0.  TensorRT takes biases as floats.

    Args:
        bundle: Holds the file and the golden features.
        artifact: ONNX in INT8.

    Raises:
        MissingExtraError: The package ``onnx`` is not installed.
        EngineError: The network cannot be expressed so, or ONNX Runtime cannot run it.
        ParityError: Its features are further from the checkpoint's than INT8 may be.
        BundleCorruptError: The file has changed.
    """
    entry = artifact.files[0]
    content = with_half_floats(bundle.read(entry), entry.path)
    try:
        engine = OnnxRuntimeEngine({entry.path: content}, artifact, EngineOptions(as_written=True))
    except MissingExtraError:
        return content
    crops, expected = bundle.golden()
    parity = measure_parity(engine, bundle.manifest.input, crops, expected, max_batch=artifact.max_batch)
    require_limit(bundle.manifest, artifact, parity, f"{entry.path} with float16 in place of float32")
    return content


def with_half_floats(content: bytes, name: str) -> bytes:
    """Turn the floats of a network into float16: weights, biases, the scales of Q/DQ nodes, and so what lies between.

    What comes before the network stays in float32, since a pixel minus the mean needs more than float16's 11 bits (node
    names ``/…``, :mod:`reid_edge.export.onnx`).  Features leave in float32.

    Args:
        content: Of the file.
        name: Of the file, for the errors.

    Returns:
        The content of another file, which ``onnx.checker`` has taken.

    Raises:
        MissingExtraError: The package ``onnx`` is not installed.
        EngineError: The network cannot be expressed so; with the reason.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "onnx", "float16 between the INT8 layers of a plan") from error
    model = onnx.load_from_string(content)
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < FIRST_OPSET:
        raise EngineError(
            f"{name} has opset {opset}, whose Q/DQ nodes take no float16: export the bundle again for {FIRST_OPSET}."
        )
    before = _nodes_before(model.graph)
    rest = [node for node in model.graph.node if node.name not in before]
    _halve(model.graph, [node for node in model.graph.node if node.name in before], rest, name)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise EngineError(f"{name} cannot be expressed with float16: {error}") from error
    halved: bytes = model.SerializeToString()
    return halved


def _nodes_before(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes between the input and the network."""
    known = {value.name for value in (*graph.input, *graph.initializer)}
    found: set[str] = set()
    for node in graph.node:
        if node.name.startswith("/") and known.issuperset(node.input):
            known.update(node.output)
            found.add(node.name)
    return found


def _halve(graph: onnx.GraphProto, before: list[onnx.NodeProto], rest: list[onnx.NodeProto], name: str) -> None:
    """Give the rest float16 in place of every float32 that it takes, and return its float32 output by a cast."""
    from onnx import TensorProto

    used = {tensor for node in rest for tensor in node.input}
    constants = [one for one in graph.initializer if one.name in used and one.data_type == TensorProto.FLOAT]
    floats = [one.name for one in graph.input if one.type.tensor_type.elem_type == TensorProto.FLOAT]
    entering = [tensor for tensor in (*floats, *(out for node in before for out in node.output)) if tensor in used]
    leaving = [one.name for one in graph.output]
    halves = {tensor: f"{tensor}/half" for tensor in (*(one.name for one in constants), *entering, *leaving)}
    for node in rest:
        node.input[:] = [halves.get(tensor, tensor) for tensor in node.input]
        node.output[:] = [halves.get(tensor, tensor) for tensor in node.output]
        if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT:
            node.attribute[0].i = TensorProto.FLOAT16
    into = [_cast(tensor, halves[tensor], TensorProto.FLOAT16) for tensor in entering]
    out = [_cast(halves[tensor], tensor, TensorProto.FLOAT) for tensor in leaving]
    nodes = [*before, *into, *rest, *out]
    graph.initializer.extend([_half(one, halves[one.name], name) for one in constants])
    taken = {tensor for node in nodes for tensor in node.input}
    kept = [one for one in graph.initializer if one.name in taken]
    for field, values in ((graph.node, nodes), (graph.initializer, kept), (graph.value_info, [])):
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        del field[:]
        field.extend(copies)


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    from onnx import helper

    return helper.make_node("Cast", [source], [target], name=f"/Cast_{target}", to=kind)


def _half(constant: onnx.TensorProto, renamed: str, name: str) -> onnx.TensorProto:
    """Round a constant to float16; what is not 0 does not become 0, since TensorRT refuses scales of 0."""
    from onnx import numpy_helper

    values = numpy_helper.to_array(constant)
    if not np.all(np.abs(values) <= _LARGEST):
        raise EngineError(f"{name} cannot be expressed with float16: {constant.name} has values above {_LARGEST:g}.")
    rounded = values.astype(np.float16)
    rounded = np.where((rounded == 0) & (values != 0), np.copysign(_SMALLEST, values).astype(np.float16), rounded)
    return numpy_helper.from_array(rounded, renamed)
