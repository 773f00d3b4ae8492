"""Features of frames and boxes, or of crops: extractor, engines, golden checks."""

from reid_edge.runtime.extractor import Extraction, Extractor

__all__ = ["Extraction", "Extractor"]
