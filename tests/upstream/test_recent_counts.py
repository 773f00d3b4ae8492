"""Counts of the last minutes, with the test's clock."""

from reid_edge.upstream.recent_counts import RecentCounts


def test_counts_are_of_the_time_asked_for_and_no_more():
    now = [0.0]
    counts = RecentCounts(keep_s=900, clock=lambda: now[0])
    for second in range(3600):
        now[0] = float(second)
        counts.add("full" if second % 2 else "lost", 1)
    assert sum(counts.within(0).values()) <= 20
    assert 300 <= sum(counts.within(300).values()) <= 320
    assert sum(counts.within(1e9).values()) <= 920
    now[0] += 2000
    assert counts.within(300) == {}
