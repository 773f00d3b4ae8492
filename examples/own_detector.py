"""Run the camera agent with a person detector of your own: a function that takes a frame and returns boxes.

The detector here is a toy, to keep the script short: upright regions that differ from the first frame.  Put your own
network in its place.

Usage: python own_detector.py BUNDLE VIDEO
"""

import sys

import cv2
import numpy as np

from reid_edge.camera.agent import Agent
from reid_edge.camera.settings import parse_settings

background = []


def detect(frame):
    """Return N×5: x1 y1 x2 y2 in pixels, score 0 to 1; frame.image is H×W×3 uint8, BGR."""
    image = cv2.GaussianBlur(frame.image, (9, 9), 0)
    if not background:
        background.append(image)
    changed = (cv2.absdiff(image, background[0]).max(axis=2) > 40).astype(np.uint8)
    regions, _ = cv2.findContours(changed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    boxes = [cv2.boundingRect(region) for region in regions]
    upright = [(x, y, x + w, y + h, 0.9) for x, y, w, h in boxes if h > 1.5 * w and h > 60]
    return np.array(upright, dtype=float).reshape(-1, 5)


if __name__ == "__main__":
    bundle, video = sys.argv[1:]
    settings = parse_settings(
        {
            "source": {"uri": video},
            "engine": {"bundle": bundle},
            "camera": {"name": "door"},
            # From the command line: --detector callable:own_detector:detect
            "detector": {"kind": "callable", "function": f"{__name__}:detect"},
            "upstream": {"uri": "sqlite:own_detector.db"},
            "operation": {"state_dir": "state", "listen": ""},
        }
    )
    agent = Agent(settings)
    try:
        agent.run()
        print(f"{agent.pipeline.detection.stats.frames} frames, {agent.pipeline.detection.stats.detections} detections")
        print(f"{agent.publisher.stats.published} features in own_detector.db")
    finally:
        agent.close()
