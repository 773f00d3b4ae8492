"""Receive what cameras send over a transport of your own: encoded batches in, encoded acknowledgements out.

Everything runs in this process.  In your program, ``carry`` stands for the network: it may lose, repeat and reorder.
The camera deletes a feature only when an acknowledgement names it, so nothing is lost.

Usage: python receive_batches.py BUNDLE PERSON.jpg
"""

import sys
import time

import cv2

import reid_edge

bundle, person = sys.argv[1:]

# The receiving end.
store = reid_edge.open_store("sqlite:received.db")
collector = reid_edge.Collector(store)
calls = 0


def carry(batches):
    """Take encoded batches, N bytes objects; return an encoded acknowledgement for each."""
    global calls
    calls += 1
    if calls == 1:
        return [b""] * len(batches)  # the first batches get lost: they come again
    return collector.receive(batches)


# The sending end, which is what the camera agent does for you.
extractor = reid_edge.Extractor(bundle)
[feature] = extractor([cv2.imread(person)])
now_us = time.time_ns() // 1000  # microseconds since 1970 UTC
outbox = reid_edge.Outbox("camera.db")
transport = reid_edge.LocalTransport(carry)
delivery = reid_edge.Delivery(outbox, transport, camera="door", resend_s=0.5)
delivery.start()
outbox.put(
    [
        reid_edge.Observation(
            feature=feature,
            model_hash=extractor.bundle.manifest.model_hash,
            track=1,
            captured_us=now_us,
            first_us=now_us,
            last_us=now_us,
            box=(0.1, 0.2, 0.3, 0.9),  # x1 y1 x2 y2, fractions of the frame
            confidence=0.9,
            quality=0.8,
            crops=1,
            final=True,
        )
    ]
)
delivery.stop(drain_s=10)  # seconds
transport.close()
print(f"sent {calls} times; stored {collector.stats.stored}; still waiting {outbox.depth}")
outbox.close()
store.close()
