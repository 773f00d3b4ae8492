"""ncnn and LiteRT: the recipes on stand-ins of the runtimes' modules; ncnn itself where it is installed."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reid_edge.runtime.device_features import verify_features
from tests.export.targets.recipes import run_recipe
from tests.export.targets.vendors import litert_module, ncnn_module

PNNX = Path(sys.executable).with_name("pnnx")
has_ncnn = pytest.mark.skipif(
    not PNNX.exists() or importlib.util.find_spec("ncnn") is None, reason="pnnx and ncnn are not installed"
)


def problems(bundle, folder, precision="fp32"):
    return verify_features(bundle.path, folder / "features.npy", precision).reasons


def convert(folder, tool, script):
    """Run a recipe's convert.sh with a tool that is a shell script."""
    (folder / tool).write_text(f"#!/bin/sh\n{script}\n")
    (folder / tool).chmod(0o755)
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    subprocess.run(["sh", "convert.sh"], cwd=folder, check=True, env=environment)
    (folder / tool).unlink()


def test_ncnns_recipe_gives_the_bundles_features(made, session_bundle, monkeypatch):
    folder = made("ncnn")
    made_by_pnnx = "cp model.onnx model.ncnn.bin; touch model.ncnn.param model.pnnx.bin model_pnnx.py model_ncnn.py"
    convert(folder, "pnnx", f'test "$1 $2" = "model.onnx inputshape=[1,3,256,128]" || exit 2\n{made_by_pnnx}')
    run_recipe(folder, "run.py", [], {"ncnn": ncnn_module()}, monkeypatch)
    assert not problems(session_bundle, folder)
    assert not list(folder.glob("*pnnx*"))


def test_what_ncnn_cannot_load_is_said(made, monkeypatch):
    with pytest.raises(SystemExit, match=r"run convert\.sh first"):
        run_recipe(made("ncnn"), "run.py", [], {"ncnn": ncnn_module()}, monkeypatch)


def test_a_conversion_that_fails_ends_the_recipe(made):
    with pytest.raises(subprocess.CalledProcessError):
        convert(made("ncnn"), "pnnx", "exit 0")  # as pnnx ends where it could not convert


def test_litert_recipe_gives_the_bundles_features(made, session_bundle, monkeypatch):
    folder = made("litert")
    convert(folder, "onnx2tf", 'test "$5 $6" = "-kat crops" && mkdir "$4" && cp "$2" "$4/model_float32.tflite"')
    interpreter = litert_module()
    modules = {"ai_edge_litert": interpreter, "ai_edge_litert.interpreter": interpreter}
    run_recipe(folder, "run.py", [], modules, monkeypatch)
    assert not problems(session_bundle, folder)
    assert not (folder / "converted").exists()


@has_ncnn
def test_ncnn_itself_gives_the_bundles_features(made, session_bundle):
    """Also with conv1's weights in float16, which are too small for it without the scale."""
    folder = made("ncnn")
    environment = os.environ | {"PATH": f"{PNNX.parent}:{os.environ['PATH']}"}
    subprocess.run(["sh", "convert.sh"], cwd=folder, check=True, env=environment, stdout=subprocess.DEVNULL)
    subprocess.run([sys.executable, "run.py"], cwd=folder, check=True)
    assert not problems(session_bundle, folder, "fp16")
