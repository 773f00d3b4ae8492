"""Ranking quality from features; any engine can be evaluated."""
