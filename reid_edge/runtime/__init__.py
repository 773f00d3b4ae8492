"""Features of frames and boxes, or of crops: extractor, engines, golden checks."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reid_edge.runtime.extractor import Extraction, Extractor

__all__ = ["Extraction", "Extractor"]


def __getattr__(name: str) -> Any:
    """Load the extractor when it is first asked for: the doctor works where OpenCV cannot be loaded."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from reid_edge.runtime import extractor

    return getattr(extractor, name)
