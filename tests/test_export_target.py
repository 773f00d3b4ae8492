"""``reid-edge export --for`` and ``verify --features`` as a person runs them."""

import shutil

import numpy as np
import pytest

from reid_edge.osnet.checkpoint import save_checkpoint
from tests.commands import failure, success
from tests.export.tiny import tiny_checkpoint


def test_files_of_a_bundle_and_the_verdict_on_what_comes_back(session_bundle, tmp_path):
    printed = success("export", "--for", "hailo", "--bundle", session_bundle.path, "--out", "h", cwd=tmp_path)
    assert "Hailo's Dataflow Compiler: h" in printed
    assert f"reid-edge verify {tmp_path / 'h'} --features" in printed
    with np.load(tmp_path / "h" / "check.npz") as stored:
        features = stored["features"]
    np.save(tmp_path / "good.npy", features)
    np.save(tmp_path / "bad.npy", features[::-1])
    verify = ("verify", "h", "--features")
    assert "right" in success(*verify, "good.npy", "--precision", "int8", cwd=tmp_path)
    refused = failure(*verify, "bad.npy", "--precision", "int8", cwd=tmp_path)
    assert "the device computes other features than the checkpoint: mean cosine" in refused
    assert "look at the order of the crops" in refused
    assert "--features needs --precision fp32, fp16 or int8" in failure(*verify, "good.npy", cwd=tmp_path)


def test_a_folder_beside_the_bundle_may_have_any_name(session_bundle, tmp_path):
    bundle = shutil.copytree(session_bundle.path, tmp_path / "my bundle")
    printed = success("export", "--for", "triton", "--bundle", ".", cwd=bundle)
    assert f"--model-repository='{tmp_path / 'my bundle-triton'}'" in printed
    assert (tmp_path / "my bundle-triton" / "target.json").exists()


@pytest.mark.slow
def test_a_bundle_is_exported_where_none_is_given(tmp_path):
    save_checkpoint(tiny_checkpoint(), tmp_path / "tiny.safetensors")
    export = ("export", "--checkpoint", "tiny.safetensors", "--no-latency", "--precision", "fp32", "--for", "triton")
    printed = success(*export, "--out", "b", cwd=tmp_path)
    assert f"tritonserver --model-repository={tmp_path / 'b-triton'}" in printed
    assert not (tmp_path / "b" / "openvino").exists()
    (model,) = (path for path in (tmp_path / "b-triton").iterdir() if path.is_dir())
    assert (model / "1" / "model.onnx").read_bytes() == (tmp_path / "b" / "model.onnx").read_bytes()


def test_wrong_uses_say_what_to_do(session_bundle, bundle_copy, tmp_path):
    assert "--for takes one or more of new-site,deepstream" in failure("export", "--for", "nvidia", cwd=tmp_path)
    assert "give --for TARGET too" in failure("export", "--bundle", session_bundle.path, cwd=tmp_path)
    save_checkpoint(tiny_checkpoint(), tmp_path / "tiny.safetensors")
    other = ("export", "--for", "rknn", "--bundle", session_bundle.path, "--checkpoint", "tiny.safetensors")
    assert "was made of another checkpoint" in failure(*other, "--out", "o", cwd=tmp_path)
    assert not (tmp_path / "o").exists()
