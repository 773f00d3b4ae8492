"""What the answers of search and people say besides their tables."""

from reid_edge.cli.gallery_people import _how_sure
from reid_edge.cli.search_answer import notes


def test_without_a_calibration_it_is_said_that_somebody_is_always_first():
    [told] = notes("sqlite:g.db", [], None)
    assert "even if the picture shows nobody" in told and "calibrate sqlite:g.db" in told


def test_zero_has_no_sign():
    assert _how_sure("alone", -0.04) == "alone, 0.0"
    assert _how_sure("alone", -0.06) == "alone, -0.1"
    assert _how_sure("unsure", None) == "unsure"
