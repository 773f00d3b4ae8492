"""The model of the agent: loaded, warm, and shown to compute what it was exported to compute."""

from __future__ import annotations

from reid_edge.camera.settings import EngineSettings
from reid_edge.runtime import Extractor
from reid_edge.runtime.golden import check_extractor


def load_model(settings: EngineSettings) -> Extractor:
    """Load a bundle, compare its golden features, and compile everything that the agent will call.

    Raises:
        BundleError: No usable bundle there.
        EngineError: It cannot run here.
        MissingExtraError: The engine's package is not installed.
        ParityError: It computes other features here than where it was exported.
    """
    extractor = Extractor(
        settings.bundle,
        engine=settings.engine,
        precision=settings.precision,
        threads=settings.threads,
        device=settings.device,
        max_batch=settings.max_batch,
    )
    check_extractor(extractor)
    extractor.warm_up(settings.max_batch)
    return extractor
