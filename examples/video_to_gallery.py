"""Run the camera agent on a video into a gallery, then search the gallery for a person.

Usage: python video_to_gallery.py BUNDLE VIDEO PERSON.jpg [DETECTOR]

DETECTOR is a name that 'reid-edge detector list' shows, fetched before with 'reid-edge detector get NAME'.  Without it,
the agent finds what moves, which works only outdoors with a camera that stands still.
"""

import hashlib
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import cv2

import reid_edge
from reid_edge.camera.agent import Agent
from reid_edge.camera.settings import parse_settings

bundle, video, person, *detector = sys.argv[1:]
settings = parse_settings(
    {
        "source": {"uri": video},
        "engine": {"bundle": bundle},
        "camera": {"name": "gate"},
        "detector": {"kind": "model", "path": detector[0]} if detector else {"kind": "motion"},
        "upstream": {"uri": "sqlite:gallery.db"},
        "operation": {"state_dir": "state", "listen": ""},
    }
)
agent = Agent(settings)
try:
    agent.run()  # to the end of the file
finally:
    agent.close()

extractor = reid_edge.Extractor(bundle)
[feature] = extractor([cv2.imread(person)])
query = reid_edge.query_by_feature(
    feature,
    extractor.bundle.manifest.model_hash,
    image_sha256=hashlib.sha256(Path(person).read_bytes()).hexdigest(),  # for the audit
)
store = reid_edge.open_store("sqlite:gallery.db")
everything = reid_edge.Selection()
now_us = time.time_ns() // 1000
for found in reid_edge.search(store, query, selection=everything, purpose="an example", now_us=now_us):
    seen = datetime.fromtimestamp(found.first_us / 1e6, timezone.utc)
    print(f"{found.cosine:.3f}  camera {found.best.camera}, tracklet {found.best.track}, from {seen:%H:%M:%S} UTC")
store.close()
