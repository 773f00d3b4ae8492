from reid_edge.camera.vitals import RECENT, percentiles, recent_latencies


def test_nothing_recorded_has_no_percentiles():
    assert percentiles(recent_latencies()) == {}


def test_percentiles_are_of_the_recent_ones():
    recent = recent_latencies()
    recent.extend([1e9] * 5)
    recent.extend(range(RECENT))
    at = percentiles(recent)
    assert at[50] == (RECENT - 1) / 2
    assert at[90] < at[99] < RECENT
