"""The way from a camera to a gallery: wire format, outbox, delivery, transports."""
