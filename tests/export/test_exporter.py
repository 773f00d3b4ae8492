import shutil
import subprocess
from dataclasses import replace

import cv2
import numpy as np
import onnx
import pytest

from reid_edge.bundle import open_bundle
from reid_edge.errors import CalibrationError, ConfigError, OutputError, ParityError, QuantizationRejected
from reid_edge.export import staging
from reid_edge.export.calibration import shipped_set
from reid_edge.export.exporter import ExportOptions, export_bundle
from reid_edge.progress import silent
from reid_edge.runtime import agreement, verdict
from tests.export.tiny import tiny_checkpoint


def test_every_file_was_checked_before_the_bundle_existed(session_bundle):
    for artifact in session_bundle.manifest.artifacts:
        if artifact.engine == "tensorrt":
            assert artifact.parity is None
            continue
        assert artifact.parity.batches == (1, 2, 32)
        limit = {"fp32": 0.99999, "fp16": 0.9999, "int8": 0.9}[artifact.precision]
        assert limit <= artifact.parity.cosine_min <= 1.0000001
        assert (artifact.verdict is not None) == (artifact.precision == "int8")


def test_int8_is_accepted_with_its_figures(session_bundle):
    for engine in ("onnxruntime", "openvino"):
        verdict = session_bundle.artifact(engine, "int8").verdict
        assert verdict.verdict == "accepted"
        assert verdict.crops == "32 distilled crops"
        assert verdict.ranking > 0.95


def test_the_manifest_says_what_was_exported(session_bundle, checkpoint):
    manifest = session_bundle.manifest
    assert manifest.model.checkpoint_sha256 == checkpoint.sha256
    assert (manifest.model.width, manifest.model.parameters, manifest.model.mult_adds) == (0.25, 201_864, 82_314_880)
    assert (manifest.input.dtype, manifest.input.layout, manifest.input.color_order) == ("uint8", "NHWC", "BGR")
    assert manifest.calibration.source == "distilled"
    assert {"torch", "onnx", "openvino", "nncf"} <= set(manifest.tools)


def test_onnx_is_simple_and_its_batch_free(session_bundle):
    for name in ("model.onnx", "model.fp16.onnx"):
        graph = onnx.load(session_bundle.path / name).graph
        kinds = {node.op_type for node in graph.node}
        assert not kinds & {"BatchNormalization", "Shape", "Gather", "Reshape", "Identity", "Constant"}
        assert graph.input[0].type.tensor_type.shape.dim[0].dim_param
        assert graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_fp16_weights_are_half_and_input_and_output_are_not(session_bundle):
    graph = onnx.load(session_bundle.path / "model.fp16.onnx").graph
    weights = [tensor for tensor in graph.initializer if len(tensor.dims) == 4 and "mean" not in tensor.name]
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.FLOAT16}


def test_quantizers_are_signed_and_symmetric_and_leave_gates_alone(session_bundle):
    graph = onnx.load(session_bundle.path / "model.int8.onnx").graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made_by = {output: node for node in graph.node for output in node.output}
    zeros = [tensors[node.input[2]] for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert zeros
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    gates = [node for node in graph.node if ".gate" in node.name]
    assert len(gates) > 100
    assert not [node.name for node in gates if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    convolutions = [node for node in graph.node if node.op_type == "Conv" and ".gate" not in node.name]
    sources = [made_by[node.input[0]] for node in convolutions]
    sources = [made_by[node.input[0]] if node.op_type == "MaxPool" else node for node in sources]
    assert {node.op_type for node in sources} == {"DequantizeLinear"}


def _options(out, **changes):
    return replace(ExportOptions(out=out, precisions=("fp32",), time_files=False), **changes)


@pytest.mark.slow
@pytest.mark.parametrize("input_format", ["pixels", "tensor"])
def test_any_width_and_size_exports_with_either_input(tmp_path, input_format):
    options = _options(
        tmp_path / "b", size=(47, 29), precisions=("fp32", "fp16"), input_format=input_format, max_batch=5
    )
    manifest = export_bundle(tiny_checkpoint(0.11), options, silent).manifest
    assert manifest.input.size == (47, 29)
    assert manifest.model.width == 0.11
    assert manifest.input.normalised_in == ("graph" if input_format == "pixels" else "host")
    assert [artifact.name for artifact in manifest.artifacts] == [
        "onnxruntime/fp32",
        "onnxruntime/fp16",
        "openvino/fp32",
        "openvino/fp16",
    ]
    assert manifest.calibration is None


def test_a_size_too_small_is_an_error_before_any_work(tmp_path):
    with pytest.raises(ConfigError, match="too small"):
        export_bundle(tiny_checkpoint(), _options(tmp_path / "b", size=(12, 64)), silent)
    assert not list(tmp_path.iterdir())


def test_a_failed_export_leaves_what_was_there(tmp_path, bundle_copy, monkeypatch):
    monkeypatch.setitem(agreement.COSINE_LIMITS, "fp32", 1.1)
    with pytest.raises(ParityError, match="does not compute what the checkpoint computes"):
        export_bundle(tiny_checkpoint(), _options(bundle_copy.path, force=True), silent)
    assert open_bundle(bundle_copy.path).manifest == bundle_copy.manifest
    assert [path.name for path in tmp_path.iterdir()] == [bundle_copy.path.name]


def test_an_output_that_exists_is_an_error_before_any_work(bundle_copy):
    def nothing_begins(text, _steps):
        raise AssertionError(text)

    with pytest.raises(OutputError, match="--force"):
        export_bundle(tiny_checkpoint(), _options(bundle_copy.path), nothing_begins)


def test_an_interrupted_export_leaves_nothing(tmp_path):
    def interrupt(text, _steps):
        if "exporting" in text:
            raise KeyboardInterrupt
        return lambda: None

    with pytest.raises(KeyboardInterrupt):
        export_bundle(tiny_checkpoint(), _options(tmp_path / "b"), interrupt)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_onnx_files_that_nothing_needs_can_be_left_out(tmp_path):
    options = _options(tmp_path / "b", formats=("openvino",), precisions=("fp32", "fp16"), needed_onnx_only=True)
    manifest = export_bundle(tiny_checkpoint(), options, silent).manifest
    assert [one.name for one in manifest.artifacts] == ["onnxruntime/fp32", "openvino/fp32", "openvino/fp16"]


def test_a_broken_network_does_not_pass_the_parity_check(tmp_path, monkeypatch):
    def scaled(network, std):
        wrong = fold_scale(network, std)
        wrong.conv1.conv.weight.data = wrong.conv1.conv.weight.data.flip(1)  # BGR taken for RGB
        return wrong

    from reid_edge.export import onnx as onnx_export

    fold_scale = onnx_export.fold_scale
    monkeypatch.setattr(onnx_export, "fold_scale", scaled)
    with pytest.raises(ParityError):
        export_bundle(tiny_checkpoint(), _options(tmp_path / "b"), silent)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_is_an_error_that_leaves_nothing(tmp_path, monkeypatch):
    """A real file system of 200 kB: needs root to mount, as CI has."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("cannot mount a small file system here")
    try:
        monkeypatch.setattr(staging, "NEEDED_BYTES", 0)
        with pytest.raises(OutputError):
            export_bundle(tiny_checkpoint(0.25, (64, 32)), _options(disk / "b"), silent)
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", disk], check=True)


def _write_crops(folder, crops):
    folder.mkdir()
    for number, crop in enumerate(crops):
        cv2.imwrite(str(folder / f"{number:03}.png"), crop)
    return folder


@pytest.mark.slow
def test_real_crops_calibrate_and_every_file_is_timed(tmp_path, checkpoint):
    crops = shipped_set(checkpoint, (256, 128))
    folder = _write_crops(tmp_path / "crops", [*crops.calibration, *crops.held_out])
    options = _options(tmp_path / "b", precisions=("int8",), calibration=folder, keep_rejected=True, time_files=True)
    manifest = export_bundle(tiny_checkpoint(), options, silent).manifest
    assert manifest.calibration.source == "crops"
    assert (manifest.calibration.calibration_crops, manifest.calibration.held_out_crops) == (52, 12)
    assert [artifact.name for artifact in manifest.artifacts] == [
        "onnxruntime/fp32",
        "onnxruntime/int8",
        "openvino/int8",
    ]
    timed = [(entry.artifact, entry.crops) for entry in manifest.latency]
    assert timed == [(artifact.name, crops) for artifact in manifest.artifacts for crops in (1, 8)]


@pytest.fixture
def noise(tmp_path, rng):
    noise = np.clip(rng.normal(110, 55, (50, 256, 128, 3)), 0, 255).astype(np.uint8)
    return _write_crops(tmp_path / "noise", noise)


def test_int8_calibrated_with_noise_is_rejected_and_kept_only_when_asked_for(tmp_path, checkpoint, noise):
    options = _options(tmp_path / "b", precisions=("int8",), calibration=noise, keep_rejected=True)
    bundle = export_bundle(checkpoint, options, silent)
    for engine in ("onnxruntime", "openvino"):
        verdict = bundle.artifact(engine, "int8").verdict
        assert verdict.verdict == "rejected"
        assert "is under" in verdict.reasons[0]


def test_rejected_int8_is_an_error_that_leaves_nothing(tmp_path, noise, monkeypatch):
    monkeypatch.setattr(verdict, "MIN_COSINE", 1.1)
    options = _options(tmp_path / "b", precisions=("int8",), calibration=noise)
    with pytest.raises(QuantizationRejected, match=r"under 1\.1.*--keep-rejected"):
        export_bundle(tiny_checkpoint(), options, silent)
    assert [path.name for path in tmp_path.iterdir()] == ["noise"]


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda folder: None, "no folder of calibration crops"),
        (lambda folder: folder.mkdir(), "no image in"),
        (lambda folder: _write_crops(folder, np.zeros((39, 4, 4, 3), np.uint8)), "holds 39 images; at least 40"),
    ],
)
def test_folders_that_cannot_calibrate_are_an_error(tmp_path, fill, message):
    fill(tmp_path / "crops")
    options = _options(tmp_path / "b", precisions=("int8",), calibration=tmp_path / "crops")
    with pytest.raises(CalibrationError, match=message):
        export_bundle(tiny_checkpoint(), options, silent)


def test_an_unreadable_calibration_file_is_named(tmp_path, rng):
    folder = _write_crops(tmp_path / "crops", rng.integers(0, 256, (50, 8, 8, 3), dtype=np.uint8))
    (folder / "017.png").write_text("no picture")
    options = _options(tmp_path / "b", precisions=("int8",), calibration=folder)
    with pytest.raises(CalibrationError, match=r"017\.png is not a readable image"):
        export_bundle(tiny_checkpoint(), options, silent)
    assert not (tmp_path / "b").exists()


def test_a_bundle_works_wherever_it_is_copied(session_bundle, tmp_path):
    from reid_edge.runtime import Extractor

    moved = shutil.copytree(session_bundle.path, tmp_path / "elsewhere with spaces")
    assert Extractor(moved, engine="onnxruntime")([np.zeros((9, 9, 3), np.uint8)]).shape == (1, 512)
