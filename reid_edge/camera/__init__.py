"""On the camera: frames, detections, tracklets, and what is worth embedding (no torch)."""
