"""OpenVINO's own ``benchmark_app`` on a bundle's IR: what the network costs, said by somebody else's stop-watch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from contenders import Contender
from workers import ContenderError

from reid_edge.bundle import open_bundle

PATIENCE_SECONDS = 60.0


def run_benchmark_app(contender: Contender, crops: int, threads: int, seconds: int) -> float:
    """The median of one run, milliseconds a batch: synchronous, latency hint, static shape.

    The application takes no number of threads beside a hint: this process is bound to as many CPUs, and what it reports
    is checked.

    Raises:
        ContenderError: It ended with an error, or ran with other threads.
    """
    bundle = open_bundle(contender.path)
    artifact = bundle.artifact("openvino", contender.precision)  # type: ignore[arg-type]
    bundle.check_files()
    pixels = bundle.manifest.input.normalised_in == "graph"
    height, width = bundle.manifest.input.size
    shape = f"[{crops},{height},{width},3]" if pixels else f"[{crops},3,{height},{width}]"
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("benchmark_app"))]
        command += ["-m", str(bundle.path / artifact.files[0].path), "-shape", shape, "-t", str(seconds)]
        command += ["-hint", "latency", "-api", "sync", "-infer_precision", contender.floats]
        command += ["-report_type", "no_counters", "-report_folder", folder, "-json_stats"]
        said = _output(command)
        report = Path(folder, "benchmark_report.json")
        if not report.exists():
            raise ContenderError(f"benchmark_app wrote no report; its last line: {said.splitlines()[-1]}")
        results = json.loads(report.read_text())["execution_results"]
    used = re.search(r"INFERENCE_NUM_THREADS: (\d+)", said)
    if used is None or int(used.group(1)) != threads:
        raise ContenderError(f"benchmark_app ran with {used.group(1) if used else 'unknown'} threads, not {threads}")
    return float(results["latency (ms)"])


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ContenderError(f"benchmark_app took more than {PATIENCE_SECONDS:g} s") from None
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines() or ["it said nothing"]
        raise ContenderError(f"benchmark_app: {lines[-1]}")
    return done.stdout
