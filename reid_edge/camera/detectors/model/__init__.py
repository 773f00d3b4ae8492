"""Run a detector from a file: recognise it, prepare its input, compute, decode its output."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from reid_edge.camera.advised_scores import AdvisedScores
from reid_edge.camera.detectors.catalogue import CatalogueDetector, catalogued, located, namesake, recognised
from reid_edge.camera.detectors.model.network import load_network
from reid_edge.camera.detectors.model.preparation import input_form, preparation_of
from reid_edge.camera.detectors.model.recognition import recognise
from reid_edge.camera.detectors.model.settings import ModelSettings
from reid_edge.camera.frames import Detections, Frame
from reid_edge.errors import DetectorError

__all__ = ["ModelDetector", "ModelSettings"]


class ModelDetector:
    """Runs a detector's file on each frame.

    Args:
        settings: Which file, its input and its output.

    Attributes:
        scores: Scores from which its boxes are used, if the catalogue knows the file.

    Raises:
        DetectorError: The file does not exist, its input or output is not as described, or it is not recognised.
        MissingExtraError: The engine's package is not installed.
    """

    def __init__(self, settings: ModelSettings) -> None:
        named, path = _file_of(settings.path)
        self._not_a_number_since_s: float | None = None
        self._network = load_network(path, settings.engine, settings.threads, settings.device, settings.sha256)
        known = recognised(self._network.file.model, self._network.file.weights)
        if named is not None and known != named:
            raise DetectorError(
                f"{path} is not the file of {named.name} in the catalogue: damaged, or another release. Fetch it "
                f"again: reid-edge detector get {named.name} --force"
            )
        form = input_form(settings, self._network)
        known = known or namesake(path.stem, form.size)
        # On a black frame, so that a wrong description, or a file that is not recognised, is an error at the start.
        outputs = self._network.run(np.zeros(form.shape, self._network.input_dtype))
        found = recognise(settings, self._network, outputs, form.size, known)
        self._prepare = preparation_of(settings, form, found.output, self._network.input_dtype)
        self._head = found.head
        self._head(outputs)
        self.scores = AdvisedScores() if known is None else AdvisedScores(known.confidence, known.start)
        title = path.name if named is None else f"{named.name} {path.parent.name}"  # the folder is the precision
        self.description = f"{title} ({found.label}) on {self._network.description}"

    def __call__(self, frame: Frame) -> Detections:
        """See :class:`~reid_edge.camera.detectors.Detector`."""
        batch, placement = self._prepare(frame.image)
        outputs = self._network.run(batch)
        if not any(np.isnan(output).any() for output in outputs):
            self._not_a_number_since_s = None
        elif self._not_a_number_since_s is None:
            self._not_a_number_since_s = time.monotonic()
        found = self._head(outputs)
        return Detections(placement.to_frame(found.boxes), found.scores)

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def trouble(self) -> str:
        """See :func:`~reid_edge.camera.detectors.trouble_of`."""
        since_s = self._not_a_number_since_s
        if since_s is None:
            return ""
        return f"outputs of {self.description} have not been numbers (NaN) for {time.monotonic() - since_s:.0f} s"


def _file_of(text: str) -> tuple[CatalogueDetector | None, Path]:
    """Return the file that a name or a path stands for, and what the catalogue says if it is a name."""
    path = Path(text).expanduser()
    if len(path.parts) > 1 or path.suffix or path.exists() or not text:
        return None, path
    named = catalogued(text)
    return named, located(named)[1]
