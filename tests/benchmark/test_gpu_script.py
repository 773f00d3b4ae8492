"""The script for a machine with a GPU runs to its end, as far as that shows without one."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.slow
def test_the_gpu_script_runs_on_the_tests_driver(session_bundle, tmp_path):
    script = REPOSITORY / "benchmarks" / "gpu" / "run.py"
    command = [sys.executable, script, session_bundle.path, "--out", tmp_path / "gpu.json", "--rehearse"]
    environment = os.environ | {"XDG_STATE_HOME": str(tmp_path)}
    subprocess.run([*map(str, command)], check=True, capture_output=True, env=environment, timeout=600)
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert list(found) == ["environment", "engine", "copies", "rewrites", "training"]
    assert "failed" not in json.dumps({name: held for name, held in found.items() if name != "environment"})
    assert found["environment"]["rehearsal"] is True
    assert "CUDA_ERROR_OUT_OF_MEMORY" in found["environment"]["where no memory is left"]
    assert found["engine"]["parity"]["tensorrt/fp32"][0] == "right"
    assert found["engine"]["wrong answers of threads"] == 0
    assert len(found["rewrites"]) == 12
    assert found["training"]["scratch, float32, graph auto"]["recorded"] is False


def test_the_gpu_script_needs_no_package_that_its_machine_lacks():
    """The packed wheels have neither nncf nor OpenVINO."""
    code = "import sys, runpy\nsys.modules.update(nncf=None, openvino=None)\nsys.argv = ['run.py', '--help']\n"
    code += f"runpy.run_path({str(REPOSITORY / 'benchmarks' / 'gpu' / 'run.py')!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--rehearse" in done.stdout
