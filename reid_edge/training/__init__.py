"""Checkpoints from labelled images: recipes, loop, evaluation, explanations."""
