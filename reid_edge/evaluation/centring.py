"""Features without what those of one camera have in common, learnt from the gallery as a gallery learns it."""

from __future__ import annotations

import numpy as np

from reid_edge.errors import UsageError
from reid_edge.evaluation.comparison import Labelled
from reid_edge.features import l2_normalised
from reid_edge.identity.centring import Centring, learnt_centring
from reid_edge.identity.sightings import Sightings

_MODEL = "evaluated"


def gallery_centring(gallery: Labelled) -> Centring:
    """Learn what to take off each camera's features from the gallery; no label is looked at.

    Args:
        gallery: Images or tracklets, each of which counts once.

    Raises:
        UsageError: Cameras are not known.
    """
    return learnt_centring(_sightings(gallery))


def centred(labelled: Labelled, centring: Centring) -> Labelled:
    """Return the same with centred features, of unit length.

    Raises:
        UsageError: Cameras are not known.
    """
    features = centring.applied(_sightings(labelled))
    return Labelled(features, labelled.identities, labelled.cameras, labelled.images)


def _sightings(labelled: Labelled) -> Sightings:
    if not labelled.cameras.all():
        unknown = int((labelled.cameras == 0).sum())
        raise UsageError(
            f"--centre subtracts the offset of each camera, but {unknown:,} of "
            f"{len(labelled.cameras):,} images name no camera. Name the cameras (docs/datasets.md), or leave out "
            "--centre."
        )
    times = np.zeros(len(labelled.features))  # centring does not look at times
    return Sightings(
        model_hash=_MODEL,
        ids=tuple(f"{row:08d}" for row in range(len(times))),
        cameras=tuple(f"c{camera}" for camera in labelled.cameras),
        first_s=times,
        last_s=times,
        features=l2_normalised(labelled.features.astype(np.float32)),
    )
