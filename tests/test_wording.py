import pytest

from reid_edge.wording import counted


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 tracklets"), (1, "1 tracklet"), (2, "2 tracklets"), (12_345, "12,345 tracklets")]
)
def test_a_number_stands_with_the_form_of_its_noun(count, text):
    assert counted(count, "tracklet") == text


def test_a_noun_may_have_a_plural_of_its_own():
    assert (counted(1, "person", "people"), counted(3, "person", "people")) == ("1 person", "3 people")
