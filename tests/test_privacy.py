"""Nothing is told to anybody unasked."""

import os
import subprocess
import sys

CODE = """
import multiprocessing, sys
import reid_edge
import openvino, nncf
from openvino.tools.ovc import telemetry_utils
from nncf.telemetry.wrapper import telemetry
assert "stub" in telemetry_utils.tm.__name__, telemetry_utils.tm
assert not type(telemetry).__name__ == "NNCFTelemetry"
assert not any(name.startswith("openvino_telemetry.") for name in sys.modules)
assert not multiprocessing.active_children()
"""


def test_openvino_and_nncf_do_not_report_their_use(tmp_path):
    subprocess.run([sys.executable, "-c", CODE], check=True, env=os.environ | {"HOME": str(tmp_path)})
    assert not (tmp_path / "intel").exists()
