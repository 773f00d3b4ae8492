"""Observations for tests: made quickly, each feature different and recognisable."""

import numpy as np

from reid_edge.upstream.observation import Observation


def unit(seed: int, dim: int = 512) -> np.ndarray:
    feature = np.random.default_rng(seed).normal(size=dim)
    return (feature / np.linalg.norm(feature)).astype(np.float32)


def observed(track: int, *, dim: int = 512, captured_us: int = 1_795_000_000_000_000) -> Observation:
    return Observation(
        model_hash="ab" * 32,
        track=track,
        captured_us=captured_us,
        first_us=captured_us,
        last_us=captured_us,
        box=(0.25, 0.125, 0.5, 1.0),
        confidence=0.875,
        quality=0.5,
        crops=3,
        final=False,
        feature=unit(track, dim),
    )
