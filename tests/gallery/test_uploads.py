"""Room for requests: unfinished ones give way to one another, and what has come stays."""

from hypothesis import given
from hypothesis import strategies as st

from reid_edge.gallery.uploads import Uploads


def begun(room, dropped, sender=None):
    upload = room.begin(lambda: dropped.append(upload), sender)
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


def test_a_camera_beyond_its_share_ends_its_own_uploads_and_leaves_room_for_others():
    room, dropped = Uploads(100, 60), []
    whole, unfinished, more = (begun(room, dropped, "greedy") for _ in range(3))
    other = begun(room, dropped, "modest")
    assert other.grow(30)
    assert whole.grow(40)
    whole.finished()
    assert unfinished.grow(20)
    assert more.grow(15)
    assert dropped == [unfinished]
    assert not more.grow(10)
    assert other.grow(10)
    assert room.size == 40 + 15 + 40
    whole.release()
    assert more.grow(10)


@given(st.lists(st.tuples(st.sampled_from("bgfr"), st.integers(0, 50), st.integers(0, 70)), max_size=200))
def test_the_bytes_are_never_more_than_there_is_room_for(steps):
    room, dropped, uploads = Uploads(100, 60), [], []
    for step, which, count in steps:
        upload = uploads[which % len(uploads)] if uploads else None
        if step == "b":
            uploads.append(begun(room, dropped, (None, "a", "b")[which % 3]))
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
        assert all(sum(each.size for each in uploads if each.sender == sender) <= 60 for sender in "ab")
        assert room._of_a_camera.keys() == {each.sender for each in uploads if each.size and each.sender}
