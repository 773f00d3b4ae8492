"""This device, as its own files describe it: CPU, limits, memory, sensors, energy and GPUs."""
