"""Readers of labelled images, from the folders that datasets unpack to; no torch."""
