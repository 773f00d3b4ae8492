"""CPU, limits, memory, sensors, energy and GPUs of this device, read from the system's own files."""
