"""Search for the bundle that is fastest on this device and keeps the accuracy."""
