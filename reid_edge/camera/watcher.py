"""The hook by which a preview follows what the stages of the camera do, without a second pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from reid_edge.camera.crop_selector import ChosenCrops
from reid_edge.camera.frames import Frame
from reid_edge.camera.tracking import EndedTrack, TrackedBoxes
from reid_edge.upstream.observation import Observation

if TYPE_CHECKING:
    from reid_edge.camera.tracklets import CropDetails

#: What became of the feature of a crop: it is part of the tracklet's mean; it was unlike the mean and waits for the
#: next one; it and the one before begin another tracklet; it came after its track was ended for lack of room.
Use = Literal["averaged", "doubted", "split", "late"]


class Watcher:
    """Is told of each step of the detection and the embedding stage, and does nothing; to be subclassed.

    The two stages call it from their own threads.
    """

    def saw(self, frame: Frame, tracked: TrackedBoxes, quality: npt.NDArray[np.float32], chosen: ChosenCrops) -> None:
        """Take note of a frame.

        Args:
            frame: The frame, with its masks blacked out; its pixels are only valid during the call.
            tracked: Boxes that belong to tracks.
            quality: N float32, quality of each box's crop.
            chosen: Which crops were chosen, and why the others were not.
        """

    def dropped(self, crop: CropDetails) -> None:
        """Take note that a chosen crop was dropped, because the engine is too slow for a live source."""

    def used(self, crop: CropDetails, use: Use) -> None:
        """Take note of what became of a crop that was embedded."""

    def published(self, track: int, observation: Observation) -> None:
        """Take note of an observation of a track, which has the tracker's number."""

    def ended(self, track: EndedTrack) -> None:
        """Take note that a track has ended, after its last observation."""
