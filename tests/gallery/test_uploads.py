"""Room for requests: unfinished ones give way to one another, and what has come stays."""

from hypothesis import given
from hypothesis import strategies as st

from reid_edge.gallery.uploads import Uploads


def begun(room, dropped):
    upload = room.begin(lambda: dropped.append(upload))
    return upload


def test_the_oldest_unfinished_upload_gives_way():
    room, dropped = Uploads(100), []
    first, second, third = (begun(room, dropped) for _ in range(3))
    assert first.grow(50)
    assert second.grow(50)
    assert third.grow(60)
    assert dropped == [first, second]
    assert room.size == 60


def test_what_has_come_whole_stays_until_it_is_released():
    room, dropped = Uploads(100), []
    whole, late = begun(room, dropped), begun(room, dropped)
    assert whole.grow(80)
    whole.finished()
    assert not late.grow(30)
    assert dropped == []
    whole.release()
    whole.release()
    assert late.grow(30)
    assert room.size == 30


@given(st.lists(st.tuples(st.sampled_from("bgfr"), st.integers(0, 50), st.integers(0, 70)), max_size=200))
def test_the_bytes_are_never_more_than_there_is_room_for(steps):
    room, dropped, uploads = Uploads(100), [], []
    for step, which, count in steps:
        upload = uploads[which % len(uploads)] if uploads else None
        if step == "b":
            uploads.append(begun(room, dropped))
        elif upload is None or upload in dropped:
            continue
        elif step == "g":
            upload.grow(count)
        elif step == "f":
            upload.finished()
        else:
            upload.release()
            uploads.remove(upload)
        assert 0 <= room.size <= 100
        assert room.size == sum(each.size for each in uploads)
