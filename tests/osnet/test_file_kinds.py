"""Files that users take for checkpoints: each is named for what it is."""

import gzip
import io
import json
import pickle
import tarfile
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from reid_edge.osnet.file_kinds import why_no_checkpoint

STATE = {"conv5.conv.weight": torch.zeros(8, 8, 1, 1)}
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
DRIVE = b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head></html>"
IR = b'<?xml version="1.0"?>\n<net name="Model0" version="11">\n<layers>'


def saved(value=STATE, **how) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **how)
    return file.getvalue()


def zipped(**files: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), content)
    return file.getvalue()


def tarred(names=("m.pth",)) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return file.getvalue()


def scripted() -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), file)
    return file.getvalue()


def inner_pickle() -> bytes:
    with zipfile.ZipFile(io.BytesIO(saved())) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.zeros(3))
    return file.getvalue()


def onnx_model() -> bytes:
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [value])
    return helper.make_model(graph).SerializeToString()


@pytest.mark.parametrize(
    ("content", "what", "step"),
    [
        (b"", "empty", "download or copy it again"),
        (LFS, "a Git LFS pointer", "git lfs pull"),
        (DRIVE, "a web page ('Google Drive - Virus scan warning')", "download the file itself"),
        (b"\xef\xbb\xbf\n<!-- saved -->\n<HTML lang=en>", "a web page,", "download the file itself"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "an XML document", "download the file again"),
        (json.dumps({"error": "not found"}).encode(), "a text file that begins '{\"error\"", "expected a reid-edge"),
        (IR, "an OpenVINO model", "the PyTorch file (.pth)"),
        (gzip.compress(saved()), "compressed with gzip", "unpack it"),
        (zipped(m_pth=saved(), readme_txt=b"hi"), "a zip archive with m.pth, readme.txt in it", "unpack it"),
        (tarred(), "a tar archive with m.pth in it", "unpack it"),
        (tarred(("sys_info", "pickle", "storages", "tensors")), "the tar format of PyTorch before 0.1.10", "newer one"),
        (tarred(("a", "b", "c", "d")), "a tar archive with a, b, c and 1 more in it", "unpack it"),
        (scripted(), "TorchScript", "torch.jit.load('m.pth', map_location='cpu').state_dict()"),
        (inner_pickle(), "one part (data.pkl) of an unpacked checkpoint", "before it was unpacked"),
        (pickle.dumps(STATE), "a pickle that Python's pickle module wrote", "torch.save(model.state_dict(),"),
        (pickle.dumps({"a": 1}), "a pickle without tensors", "expected a reid-edge"),
        (pickle.dumps({"a": [1.5]}, 0), "a pickle of protocol 0 or 1, as Python 2", "torch.save(model.state_dict(),"),
        (pickle.dumps({"a": [1.5]}, 1), "a pickle of protocol 0 or 1, as Python 2", "torch.save(model.state_dict(),"),
        (pickle.dumps(OrderedDict(a=1), 0), "a pickle of protocol 0 or 1", "torch.save(model.state_dict(),"),
        (b"(see the notes) weights are elsewhere.", "a text file that begins '(see the notes)", "expected a reid-edge"),
        (saved()[:-100], "truncated or damaged", "again"),
        (onnx_model(), "an ONNX model", "the PyTorch file (.pth)"),
        (b"\x20\x00\x00\x00ORTM", "a model in ONNX Runtime's own format", "the PyTorch file"),
        (b"\x1c\x00\x00\x00TFL3", "a TensorFlow Lite model", "the PyTorch file"),
        (b"ftrt\x00\x01", "a TensorRT engine", "the PyTorch file"),
        (b"\x89HDF\r\n\x1a\n\x00", "an HDF5 file, as Keras", "expected a reid-edge"),
        (zipped(config_json=b"{}", model_weights_h5=b""), "a Keras model", "expected a reid-edge"),
        (zipped(archive__models__model_json=b"{}"), "a program that torch.export wrote", "the PyTorch file"),
        (npz(), "an archive of NumPy arrays", "expected a reid-edge"),
        (b"\x93NUMPY\x01\x00", "a NumPy array", "expected a reid-edge"),
        (b"\x00" * 100, "nothing but zeros", "download or copy it again"),
        (b"\x00\x01" * 100, "no checkpoint (it begins with the bytes 00 01", "expected a reid-edge"),
        (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X", "what macOS keeps beside a file", "without ._"),
        ("<!DOCTYPE html><title>A</title>".encode("utf-16"), "a web page ('A')", "download the file itself"),
        (zipped(data_pkl=inner_pickle(), version=b"3"), "a zip archive of an unpacked checkpoint", "before it was"),
        (zipped(a__b__data_pkl=inner_pickle()), "a zip archive of an unpacked checkpoint", "before it was unpacked"),
    ],
)  # fmt: skip
def test_a_file_is_named_for_what_it_is_with_the_next_step(content, what, step):
    reason = why_no_checkpoint(content, "m.pth")
    assert reason.startswith((f"is {what}", f"is in {what}")), reason
    assert step in reason
    assert "weights_only" not in reason


@pytest.mark.parametrize("zip_format", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_what_torch_saved_is_left_to_torch(zip_format, protocol):
    assert why_no_checkpoint(saved(_use_new_zipfile_serialization=zip_format, pickle_protocol=protocol), "m.pth") == ""


def test_a_changed_byte_in_a_zip_is_found():
    """Torch reads its archive without looking at the checksums."""
    content = bytearray(saved({"a": torch.zeros(1000)}))
    content[len(content) // 2] ^= 255
    assert why_no_checkpoint(bytes(content), "m.pth").startswith("is damaged in its part")


def test_a_tensorrt_engine_of_an_unknown_format_is_known_by_its_name():
    assert "a TensorRT engine" in why_no_checkpoint(b"\x01\x02\x03\x04" * 10, "m.ENGINE")


def test_control_characters_of_the_file_do_not_reach_the_terminal():
    assert "\x1b" not in why_no_checkpoint(b"<html><title>\x1b[2J</title>", "m.pth")
