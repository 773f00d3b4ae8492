"""The paper's Table 6, cell by cell, and the same counts from the ONNX file alone."""

import pytest
import torch

from reid_edge.benchmark.onnx_complexity import onnx_mult_adds
from reid_edge.errors import BundleError
from reid_edge.export.onnx import Deployable, export_onnx
from reid_edge.osnet.architecture import OSNetConfig, size_of_resolution
from reid_edge.osnet.checkpoint import CheckpointInfo
from reid_edge.osnet.complexity import complexity
from reid_edge.osnet.folding import fold
from reid_edge.osnet.network import OSNet
from tests.export.tiny import SHALLOW

TABLE_6 = {
    (1.0, 1.0): "978.9",
    (1.0, 0.75): "550.7",
    (1.0, 0.5): "244.9",
    (1.0, 0.25): "61.5",
    (0.75, 1.0): "571.8",
    (0.75, 0.75): "321.7",
    (0.75, 0.5): "143.1",
    (0.75, 0.25): "35.9",
    (0.5, 1.0): "272.9",
    (0.5, 0.75): "153.6",
    (0.5, 0.5): "68.3",
    (0.5, 0.25): "17.2",
    (0.25, 1.0): "82.3",
    (0.25, 0.75): "46.3",
    (0.25, 0.5): "20.6",
    (0.25, 0.25): "5.2",
}


@pytest.mark.parametrize(("width", "resolution"), TABLE_6)
def test_mult_adds_are_those_of_table_6(width, resolution):
    counted = complexity(OSNetConfig(width=width, size=size_of_resolution(resolution)))
    assert f"{counted.mult_adds / 1e6:.1f}" == TABLE_6[width, resolution]


@pytest.mark.parametrize(("width", "parameters"), [(1.0, "2.2"), (0.75, "1.3"), (0.5, "0.6"), (0.25, "0.2")])
def test_parameters_are_those_of_table_6(width, parameters):
    assert f"{complexity(OSNetConfig(width=width)).parameters / 1e6:.1f}" == parameters


def test_320x160_is_exact():
    assert f"{complexity(OSNetConfig(size=(320, 160))).mult_adds / 1e6:.1f}" == "1529.3"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.onnx", "model.fp16.onnx", "model.int8.onnx"])
def test_an_onnx_file_counts_the_same(session_bundle, name):
    assert onnx_mult_adds(session_bundle.path / name) == complexity(OSNetConfig(width=0.25)).mult_adds


@pytest.mark.parametrize("half", [False, True])
def test_an_onnx_file_that_takes_normalised_tensors_of_another_size_counts_the_same(tmp_path, half):
    info = CheckpointInfo(width=0.3, size=(71, 45), variant=SHALLOW)
    torch.manual_seed(0)
    path = tmp_path / "model.onnx"
    export_onnx(Deployable(fold(OSNet(info.config)), info, "tensor", half=half), path)
    assert onnx_mult_adds(path) == complexity(info.config).mult_adds


def test_a_file_that_is_no_onnx_is_an_error(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(BundleError, match="not a readable ONNX"):
        onnx_mult_adds(path)
