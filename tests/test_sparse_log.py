import logging

from reid_edge.sparse_log import SparseLog


def test_a_subject_gets_one_line_a_minute_which_counts_the_others(caplog, clock):
    sparse = SparseLog(logging.getLogger("peers"), clock=clock)
    for _ in range(180):
        sparse.warning("door", "%s is wrong", "door")
        clock.now += 1
    assert caplog.messages == [
        "door is wrong",
        "door is wrong (59 more since the last such line)",
        "door is wrong (59 more since the last such line)",
    ]


def test_subjects_without_end_cannot_fill_the_log(caplog, clock):
    sparse = SparseLog(logging.getLogger("peers"), most=5, clock=clock)
    for number in range(20_000):
        sparse.warning(f"{number}", "wrong")
    assert len(caplog.messages) == 5
    assert len(sparse._next) <= 10_000
    clock.now += 61
    sparse.warning("new", "wrong")
    assert len(caplog.messages) == 6


def test_per_cent_signs_of_a_peer_are_only_text(caplog, clock):
    SparseLog(logging.getLogger("peers"), clock=clock).warning("x", "%s", "100 %s %d")
    assert caplog.messages == ["100 %s %d"]
