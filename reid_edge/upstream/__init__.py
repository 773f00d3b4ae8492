"""From the camera to the gallery: the wire format, the outbox, delivery (no torch)."""
