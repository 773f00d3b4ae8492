"""Crops of a place, from a video, in memory."""

import numpy as np
import pytest

from reid_edge.camera.crop_queue import QueuedCrop
from reid_edge.camera.settings import parse_settings
from reid_edge.camera.site_crops import MOST_OF_A_TRACK, _Collector, _CutFor, collect_crops
from reid_edge.camera.tracking import EndedTrack
from reid_edge.camera.tracklets import CropDetails
from reid_edge.errors import UsageError
from reid_edge.settings import overridden

SIZE = (64, 32)


@pytest.fixture
def settings(street):
    tables = {"source": {"uri": str(street)}, "engine": {"bundle": "not-opened"}}
    return lambda changes=None: parse_settings(overridden(tables, changes or {}))


def queued(track: int, value: int = 0) -> QueuedCrop:
    pixels = np.full((20, 10, 3), value, np.uint8)
    return QueuedCrop(pixels, CropDetails(track, 0, (0, 0, 1, 1), 1.0, 1.0), 0.0, _CutFor(SIZE))


def collector(most: int = 100) -> _Collector:
    stopped: list[bool] = []
    made = _Collector(most, SIZE, enough=lambda: stopped.append(True))
    made.stopped = stopped  # type: ignore[attr-defined]
    return made


def test_the_people_of_a_video_are_cut_out_and_nothing_is_written(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = collect_crops(settings(), SIZE, most=1000)
    assert found.tracks >= 3
    assert len(found.track_of) == len(found.crops)
    assert found.tracks <= len(found.crops) <= MOST_OF_A_TRACK * found.tracks
    assert {crop.shape for crop in found.crops} == {(*SIZE, 3)}
    assert list(tmp_path.iterdir()) == []


def test_masks_are_obeyed(settings):
    everywhere = [[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]]
    assert collect_crops(settings({"filter.masks": everywhere}), SIZE, most=1000).crops == []


def test_it_ends_when_there_are_enough_crops_or_after_its_seconds(settings):
    assert len(collect_crops(settings(), SIZE, most=2).crops) == 2
    assert collect_crops(settings(), SIZE, most=1000, seconds=0.2).crops == []


def test_tracks_that_are_not_like_one_whole_person_are_left_out():
    kept = collector()
    kept.put([queued(1), queued(2)])
    kept.put([], [EndedTrack(1, 0, failing="short"), EndedTrack(2, 0, failing=""), EndedTrack(3, 0, failing="short")])
    assert (len(kept.crops), kept.track_of, kept.refused) == (1, [2], 1)


def test_a_long_track_counts_for_no_more_than_its_share_from_all_of_its_time():
    kept = collector()
    for value in range(200):
        kept.put([queued(1, value)])
    kept.put([], [EndedTrack(1, 0, failing="")])
    values = [int(crop[0, 0, 0]) for crop in kept.crops]
    assert len(values) == MOST_OF_A_TRACK
    assert max(values) > 100
    assert len(set(values)) == MOST_OF_A_TRACK


def test_the_source_is_stopped_when_there_are_enough():
    kept = collector(most=1)
    kept.put([queued(1), queued(1), queued(2)])
    kept.put([], [EndedTrack(1, 0, failing="")])
    assert kept.stopped
    kept.put([], [EndedTrack(2, 0, failing="")])
    assert len(kept.crops) == 1


def test_no_crops_are_not_waited_for(settings):
    with pytest.raises(UsageError, match="at least 1 crop"):
        collect_crops(settings(), (64, 32), most=0)
