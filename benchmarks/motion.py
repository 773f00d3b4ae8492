"""Motion against pedestrian-detection-adas-0002 on vtest.avi: recall, precision, CPU time. For docs/detectors.md.

python benchmarks/motion.py FOLDER   (vtest.avi and detectors/ as docs/development.md says)
"""

import sys
import time
from pathlib import Path

import cv2
import numpy as np

from reid_edge.camera.detectors import ModelSettings, MotionSettings, open_detector
from reid_edge.camera.filters import DetectionFilter, FilterSettings, ious
from reid_edge.camera.sources import SourceSettings, open_source

DATA = Path(sys.argv[1])
TRUTH_SCORE = 0.35
cv2.setNumThreads(1)


def pairs(found, truth, least):
    overlaps, count = ious(found, truth), 0
    while overlaps.size and overlaps.max() >= least:
        row, column = np.unravel_index(overlaps.argmax(), overlaps.shape)
        overlaps[row, :] = overlaps[:, column] = -1
        count += 1
    return count


def boxes_of(config, **filters):
    detector, detection_filter = open_detector(config), DetectionFilter(FilterSettings(**filters))
    found, spent = {}, []
    with open_source(SourceSettings(uri=str(DATA / "vtest.avi"))) as source:
        for frame in source:
            began = time.thread_time()
            raw = detector(frame)
            spent.append(time.thread_time() - began)
            found[frame.index] = detection_filter(raw, frame).boxes
    return found, np.percentile(np.array(spent) * 1000, [50, 95])


IR = DATA / "detectors/pedestrian-detection-adas-0002/FP16/pedestrian-detection-adas-0002.xml"
truth, _ = boxes_of(
    ModelSettings(path=str(IR), output="ssd", threads=2), confidence=TRUTH_SCORE, nms_iou=0.5, min_height=0
)
configs = {
    "motion": (MotionSettings(), {}),
    "motion, width 192": (MotionSettings(width=192), {}),
    "motion, min_height 0.06": (MotionSettings(min_height=0.06), {}),
    "FastestDet": (
        ModelSettings(path=str(DATA / "detectors/FastestDet.onnx"), output="fastestdet", threads=1),
        {"confidence": 0.6, "nms_iou": 0.5},
    ),
}
for name, (config, filters) in configs.items():
    found, cost = boxes_of(config, **filters)
    frames = range(30, len(truth))
    given, true = sum(len(found[i]) for i in frames), sum(len(truth[i]) for i in frames)
    scores = {least: sum(pairs(found[i], truth[i], least) for i in frames) for least in (0.3, 0.5)}
    text = ", ".join(f"IoU {least}: recall {n / true:.3f} precision {n / given:.3f}" for least, n in scores.items())
    print(f"{name}: {given} boxes of {true}; {text}; CPU {cost[0]:.1f} ms (95 %: {cost[1]:.1f})", flush=True)
