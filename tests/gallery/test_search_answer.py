"""What the answers of search and people say besides their tables."""

from types import SimpleNamespace

import pytest

from reid_edge.cli.gallery_people import _how_sure
from reid_edge.cli.search_answer import notes


@pytest.mark.parametrize(("best", "unlike"), [(0.54, True), (0.56, False)])
def test_a_picture_that_is_like_nobody_is_told(best, unlike):
    found = [SimpleNamespace(mapped=False, cosine=cosine) for cosine in (best, 0.3)]
    told = list(notes("sqlite:g.db", found, None))
    assert ("nobody here is similar" in told[0]) is unlike
    assert "calibrate sqlite:g.db" in told[-1]


def test_a_gallery_without_tracklets_is_like_nobody_and_says_nothing_of_it():
    assert len(list(notes("sqlite:g.db", [], None))) == 1


def test_zero_has_no_sign():
    assert _how_sure("alone", -0.04) == "alone, 0.0"
    assert _how_sure("alone", -0.06) == "alone, -0.1"
    assert _how_sure("unsure", None) == "unsure"
