import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_edge.camera.crop_queue import CropQueue, QueuedCrop
from reid_edge.camera.tracking import EndedTrack
from reid_edge.camera.tracklets import CropDetails


def crop(number, seen_s=None):
    """A crop of track ``number``."""
    details = CropDetails(number, 0, (0, 0, 1, 1), 1.0, 1.0)
    return QueuedCrop(np.zeros((1, 1, 3), np.uint8), details, time.monotonic() if seen_s is None else seen_s, None)


def tracks(work):
    return [queued.details.track for queued in work.crops]


def live(limit=4, budget_s=60.0):
    return CropQueue(limit=limit, drop_oldest=True, budget_s=budget_s)


def test_a_full_batch_is_handed_over_at_once_oldest_first():
    queue = live()
    queue.put([crop(1), crop(2), crop(3)])
    assert tracks(queue.take(2, timeout_s=60)) == [1, 2]


def test_a_crop_waits_for_company_no_longer_than_its_budget():
    queue = live(budget_s=0.05)
    started = time.monotonic()
    queue.put([crop(1)])
    assert tracks(queue.take(8, timeout_s=60)) == [1]
    assert 0.04 <= time.monotonic() - started < 10


def test_company_that_comes_in_time_shares_the_batch():
    queue = live()
    queue.put([crop(1)])
    threading.Timer(0.02, queue.put, [[crop(2)]]).start()
    assert tracks(queue.take(2, timeout_s=60)) == [1, 2]


def test_nothing_comes_for_a_while_and_the_caller_may_do_something_else():
    assert live().take(8, timeout_s=0.01).crops == []


def test_under_overload_the_oldest_crops_of_a_live_source_go_counted():
    queue = live(limit=2)
    queue.put([crop(1)])
    dropped = queue.put([crop(2), crop(3), crop(4)])
    assert [one.details.track for one in dropped] == [1, 2]
    assert queue.dropped == 2
    assert tracks(queue.take(2, timeout_s=0)) == [3, 4]


def test_a_file_waits_and_loses_nothing():
    queue = CropQueue(limit=2, drop_oldest=False, budget_s=0.0)
    got = []
    reader = threading.Thread(target=lambda: got.extend(track for _ in range(5) for track in tracks(queue.take(1, 60))))
    reader.start()
    queue.put([crop(number) for number in range(5)])
    reader.join(10)  # each take would wait for a minute if it were not told of the crops
    assert not reader.is_alive()
    assert got == [0, 1, 2, 3, 4]
    assert queue.dropped == 0


def test_the_end_of_a_track_comes_after_its_crops():
    queue = live(budget_s=0)
    queue.put([crop(1), crop(2)])
    queue.put([crop(3)], [EndedTrack(1, 10)])
    first, second = queue.take(2, timeout_s=0), queue.take(2, timeout_s=0)
    assert (tracks(first), first.ended) == ([1, 2], [])
    assert (tracks(second), second.ended) == ([3], [EndedTrack(1, 10)])


def test_the_end_of_a_track_whose_crops_were_dropped_still_comes():
    queue = live(limit=1, budget_s=0)
    queue.put([crop(1)], [EndedTrack(1, 10)])
    queue.put([crop(2)])
    assert queue.take(1, timeout_s=0).ended == [EndedTrack(1, 10)]


def test_after_the_last_frame_everything_is_handed_over_and_then_nothing():
    queue = live()
    queue.put([crop(1)], [EndedTrack(1, 10)])
    queue.finish()
    work = queue.take(8, timeout_s=60)
    assert (tracks(work), work.ended) == ([1], [EndedTrack(1, 10)])
    assert queue.take(8, timeout_s=60) is None


def test_finishing_frees_who_waits_to_put():
    queue = CropQueue(limit=1, drop_oldest=False, budget_s=60)
    putter = threading.Thread(target=queue.put, args=[[crop(1), crop(2)]])
    putter.start()
    queue.finish()
    putter.join(10)
    assert not putter.is_alive()


@pytest.mark.parametrize("drop_oldest", [True, False])
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 4)), max_size=30))
def test_every_crop_is_handed_over_or_dropped_once_and_every_end_comes_after_its_crops(drop_oldest, frames):
    queue = CropQueue(limit=1000 if not drop_oldest else 7, drop_oldest=drop_oldest, budget_s=0)
    number, put, handed, dropped, ended = 0, [], [], [], []
    for crops, ends, takes in frames:
        added = [crop(number + index) for index in range(crops)]
        number += crops
        put += [one.details.track for one in added]
        gone = queue.put(added, [EndedTrack(number - 1, 0)] if ends else [])
        dropped += [one.details.track for one in gone]
        for work in (queue.take(2, timeout_s=0) for _ in range(takes)):
            handed += tracks(work)
            assert all(end.track < number for end in work.ended)
            ended += [(end.track, len(handed) + len(dropped)) for end in work.ended]
    queue.finish()
    while (work := queue.take(3, timeout_s=0)) is not None:
        handed += tracks(work)
        ended += [(end.track, len(handed) + len(dropped)) for end in work.ended]
    assert sorted(handed + dropped) == put
    assert handed == sorted(handed)
    assert len(ended) == sum(ends for _, ends, _ in frames)
    assert all(gone > track for track, gone in ended)
    assert queue.dropped == len(dropped)
