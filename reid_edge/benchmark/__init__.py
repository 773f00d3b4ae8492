"""Measurement of bundles on this device: latency, throughput, memory, energy, accuracy, roofline, report."""
