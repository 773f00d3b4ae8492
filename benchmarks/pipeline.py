"""Measures the agent's cost over decode + detect + raw embedding on a video, its idle CPU, and its memory.

    python benchmarks/pipeline.py BUNDLE VIDEO [--rounds 5]

Each run is a process of its own, the two kinds interleaved.  Both embed every tracked box of every frame
(``gate.mode = "every"``), with OpenVINO FP32 on 2 threads and the motion detector, and write the number of crops that
they embedded.  ``raw`` is a loop: decode, detect, filter, embed the crops of the frame.  ``agent`` is the whole of
``reid-edge run``: tracking, crop selection, queues, tracklets, outbox with FULL fsync, delivery to an SQLite gallery.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

THREADS = 2


def raw(bundle: str, video: str) -> dict[str, float]:
    import cv2

    from reid_edge.camera.detectors import MotionSettings, open_detector
    from reid_edge.camera.filters import DetectionFilter, FilterSettings
    from reid_edge.camera.frames import Frame
    from reid_edge.camera.tracking import Tracker
    from reid_edge.runtime import Extractor

    cv2.setNumThreads(1)
    extractor = Extractor(bundle, engine="openvino", precision="fp32", threads=THREADS, max_batch=8)
    extractor.warm_up(8)
    detector, keep, tracker = open_detector(MotionSettings()), DetectionFilter(FilterSettings()), Tracker()
    capture = cv2.VideoCapture(video)
    wall, cpu, index, crops = time.perf_counter(), time.process_time(), 0, 0
    while True:
        good, image = capture.read()
        if not good:
            break
        frame = Frame(image, index * 100_000, index)
        # The tracker only tells which boxes the agent would embed, so that both do the same number.
        boxes = tracker.update(keep(detector(frame), frame), frame.captured_us).boxes
        crops += len(extractor(image, boxes))
        index += 1
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "crops": crops}


def agent(bundle: str, video: str) -> dict[str, float]:
    import cv2

    from reid_edge.camera.agent import Agent
    from reid_edge.camera.settings import parse_settings

    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        tables = {
            "source": {"uri": video, "fps": 10},
            "engine": {"bundle": bundle, "engine": "openvino", "precision": "fp32", "threads": THREADS},
            "gate": {"mode": "every"},
            "upstream": {"uri": f"sqlite:{folder}/gallery.db"},
            "operation": {"state_dir": folder, "listen": ""},
        }
        wall, cpu = time.perf_counter(), time.process_time()
        made = Agent(parse_settings(tables))
        wall, cpu = time.perf_counter(), time.process_time()
        made.run()
        wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
        made.close()
    return {"wall_s": wall_s, "cpu_s": cpu_s, "crops": made.embedding.stats.embedded}


def idle(bundle: str, _video: str) -> dict[str, float]:
    """An agent whose camera gives nothing, for 20 s."""
    import threading

    from reid_edge.camera.agent import Agent
    from reid_edge.camera.settings import parse_settings

    with tempfile.TemporaryDirectory() as folder:
        tables = {
            "source": {"uri": "tcp://127.0.0.1:9"},
            "engine": {"bundle": bundle, "engine": "openvino", "precision": "fp32", "threads": THREADS},
            "upstream": {"uri": f"sqlite:{folder}/gallery.db"},
            "operation": {"state_dir": folder, "listen": ""},
        }
        made = Agent(parse_settings(tables))
        wall, cpu = time.perf_counter(), time.process_time()
        threading.Timer(20, made.stop).start()
        made.run()
        wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
        made.close()
    return {"wall_s": wall_s, "cpu_s": cpu_s, "crops": 0}


def measured(kind: str, bundle: str, video: str) -> dict[str, float]:
    command = [sys.executable, __file__, bundle, video, "--kind", kind]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("video")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kind", choices=["raw", "agent", "idle"])
    options = parser.parse_args()
    if options.kind:
        figures = globals()[options.kind](options.bundle, options.video)
        figures["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(figures))
        return
    runs = [
        (kind, measured(kind, options.bundle, options.video))
        for _ in range(options.rounds)
        for kind in ("raw", "agent")
    ]
    middle = {
        kind: {key: statistics.median(run[key] for name, run in runs if name == kind) for key in runs[0][1]}
        for kind in ("raw", "agent")
    }
    resting = measured("idle", options.bundle, options.video)
    print(f"{Path(options.video).name}, median of {options.rounds} interleaved runs\n")
    print("| | crops embedded | wall s | CPU s | peak RSS MB |\n|---|---|---|---|---|")
    for kind, figures in middle.items():
        print(f"| {kind} | {figures['crops']:.0f} | {figures['wall_s']:.2f} | {figures['cpu_s']:.2f} | "
              f"{figures['rss_mb']:.0f} |")  # fmt: skip
    ratio = {key: middle["agent"][key] / middle["raw"][key] for key in ("wall_s", "cpu_s")}
    print(f"\nagent / raw: wall {ratio['wall_s']:.3f}, CPU {ratio['cpu_s']:.3f}")
    print(f"idle: {100 * resting['cpu_s'] / resting['wall_s']:.2f} % of one core, peak RSS {resting['rss_mb']:.0f} MB")


if __name__ == "__main__":
    main()
