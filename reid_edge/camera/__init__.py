"""The camera agent: from frames over detections and tracklets to published observations."""
