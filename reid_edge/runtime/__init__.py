"""On the camera: frames and boxes in, features out.  Imports no torch."""

from reid_edge.runtime.extractor import Extraction, Extractor

__all__ = ["Extraction", "Extractor"]
