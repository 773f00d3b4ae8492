"""Measuring on the device at hand."""
