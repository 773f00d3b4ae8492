"""Files of other programs, read without running anything in them."""

import argparse
import datetime
import io
import pickle
import pickletools
import struct
import types
from pathlib import PosixPath

import pytest
import safetensors.torch
import torch
from torch import nn

from reid_edge.errors import CheckpointError, CheckpointUnsafeError
from reid_edge.osnet.architecture import OSNetConfig
from reid_edge.osnet.checkpoint import Checkpoint, CheckpointInfo, load_checkpoint, save_checkpoint
from reid_edge.osnet.network import OSNet
from reid_edge.osnet.shipped import find_checkpoint
from reid_edge.osnet.weight_file import read_weight_file

STATE = {"conv5.conv.weight": torch.arange(3.0)}


@pytest.mark.parametrize("zip_format", [True, False])
@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: {"model": model}])
def test_a_whole_model_says_how_to_save_its_weights(tmp_path, wrap, zip_format):
    torch.save(wrap(nn.Sequential(nn.Linear(2, 2))), tmp_path / "m.pth", _use_new_zipfile_serialization=zip_format)
    with pytest.raises(CheckpointUnsafeError) as caught:
        read_weight_file(tmp_path / "m.pth")
    message = str(caught.value)
    assert "holds a whole model (torch.nn.modules.container.Sequential)" in message
    assert "torch.save(model.state_dict(), 'weights.pth')" in message
    assert "weights_only" not in message


def test_options_and_paths_beside_the_weights_are_no_matter(tmp_path):
    args = argparse.Namespace(lr=0.1, out=PosixPath("/x"))
    torch.save({"state_dict": STATE, "args": args}, tmp_path / "m.pth")
    loaded, _ = read_weight_file(tmp_path / "m.pth")
    assert torch.equal(loaded["state_dict"]["conv5.conv.weight"], STATE["conv5.conv.weight"])


@pytest.mark.parametrize(
    "beside",
    [
        torch.__version__,
        datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc),
        datetime.timedelta(hours=3),
        types.SimpleNamespace(lr=0.1),
        frozenset({1}),
    ],
    ids=lambda beside: type(beside).__name__,
)
def test_versions_dates_and_options_beside_the_weights_are_no_matter(tmp_path, beside):
    torch.save({"state_dict": STATE, "extra": beside}, tmp_path / "m.pth")
    loaded, _ = read_weight_file(tmp_path / "m.pth")
    assert loaded["extra"] == beside


@pytest.mark.parametrize("content", [b'{"data":{"error":"not found","code":404}}', b"12345678{abc"])
def test_a_text_with_a_brace_in_ninth_place_is_not_called_safetensors(tmp_path, content):
    (tmp_path / "m.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="a text file that begins"):
        read_weight_file(tmp_path / "m.pth")


class Settings:
    """What a trainer may keep beside the weights."""


def test_objects_beside_the_weights_are_named(tmp_path):
    torch.save({"state_dict": STATE, "args": Settings()}, tmp_path / "m.pth")
    with pytest.raises(CheckpointUnsafeError, match=r"more than weights \(tests\.osnet\.test_weight_file\.Settings\)"):
        read_weight_file(tmp_path / "m.pth")


def test_another_pickle_protocol_is_not_called_unsafe(tmp_path):
    torch.save(STATE, tmp_path / "m.pth", pickle_protocol=4)
    with pytest.raises(CheckpointError, match="without pickle_protocol"):
        read_weight_file(tmp_path / "m.pth")


def _end_of_pickle(content: bytes, number: int) -> int:
    """Offset behind the pickle of this number, of those that a file begins with."""
    stream = io.BytesIO(content)
    for _ in range(number):
        list(pickletools.genops(stream))
    return stream.tell()


def test_what_python_2_pickled_is_read(tmp_path):
    """A NumPy number beside the weights, as Python 2 wrote it: byte strings, some with bytes above 127."""
    torch.save({"state_dict": STATE, "epoch": 3}, tmp_path / "m.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "m.pth").read_bytes()
    end = _end_of_pickle(content, 4)  # magic number, protocol, system, and then what was saved
    assert content[end - 2 : end] == b"u."
    dtype = b"cnumpy\ndtype\n(U\x02f8K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    scalar = b"cnumpy.core.multiarray\nscalar\n(" + dtype + b"U\x08" + struct.pack("<d", 0.9412) + b"tR"
    (tmp_path / "m.pth").write_bytes(content[: end - 2] + b"X\x05\x00\x00\x00rank1" + scalar + b"u." + content[end:])
    loaded, _ = read_weight_file(tmp_path / "m.pth")
    assert loaded["rank1"] == 0.9412
    assert torch.equal(loaded["state_dict"]["conv5.conv.weight"], STATE["conv5.conv.weight"])


def test_safetensors_of_another_program_are_read(tmp_path):
    safetensors.torch.save_file(STATE, tmp_path / "m.safetensors", {"format": "pt"})
    loaded, _ = read_weight_file(tmp_path / "m.safetensors")
    assert torch.equal(loaded["conv5.conv.weight"], STATE["conv5.conv.weight"])


def test_truncated_safetensors_are_an_error(tmp_path):
    content = safetensors.torch.save(STATE)
    (tmp_path / "m.safetensors").write_bytes(content[:-3])
    with pytest.raises(CheckpointError, match="truncated or damaged safetensors"):
        read_weight_file(tmp_path / "m.safetensors")


def test_a_folder_is_not_said_to_be_missing(tmp_path):
    with pytest.raises(CheckpointError, match="is a folder; expected a file"):
        read_weight_file(tmp_path)


@pytest.fixture
def native(tmp_path):
    info = CheckpointInfo(width=0.1)
    path = tmp_path / "native.safetensors"
    save_checkpoint(Checkpoint(info, OSNet(info.config).state_dict()), path)
    return path


def test_a_reid_edge_checkpoint_is_not_imported_again(native):
    with pytest.raises(CheckpointError, match="reid-edge checkpoint already: reid-edge export --checkpoint"):
        read_weight_file(native)


def test_a_checkpoint_is_known_by_its_content_whatever_its_name(native, tmp_path):
    renamed = native.rename(tmp_path / "m.pth")
    assert find_checkpoint(renamed, None).info.width == 0.1
    torch.save(find_checkpoint(renamed, None).state, tmp_path / "m.safetensors")
    assert find_checkpoint(tmp_path / "m.safetensors", None).info.width == 0.1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer"),
        (b"<!DOCTYPE html>", "is a web page"),
        (pickle.dumps(3), "is a pickle without tensors"),
    ],
)
def test_a_native_name_on_another_file_is_seen_through(tmp_path, content, problem):
    (tmp_path / "m.safetensors").write_bytes(content)
    for read in (load_checkpoint, lambda path: find_checkpoint(path, None)):
        with pytest.raises(CheckpointError, match=problem):
            read(tmp_path / "m.safetensors")


def test_a_pytorch_file_with_a_native_name_says_how_to_import_it(tmp_path):
    torch.save(OSNet(OSNetConfig(width=0.1)).state_dict(), tmp_path / "my file.safetensors")
    with pytest.raises(CheckpointError, match=r"is a PyTorch file; .*reid-edge import '.*my file\.safetensors'"):
        load_checkpoint(tmp_path / "my file.safetensors")
