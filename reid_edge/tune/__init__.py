"""The fastest bundle for the device at hand that keeps the accuracy."""
