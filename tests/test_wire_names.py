import pytest

from reid_edge.errors import MessageError, SettingsError
from reid_edge.wire_names import checked_stored_name, checked_wire_name


@pytest.mark.parametrize("name", ["a", "gate-north_2.west", "x" * 64, "0", "_", "a..", "a--"])
def test_letters_digits_and_three_signs_are_a_name(name):
    assert checked_wire_name(name, "camera", SettingsError) == name


@pytest.mark.parametrize(
    "name", ["", "a/b", "+", "#", "a b", "x" * 65, "a\n", "straße", "\udcff", "a\0", ".", "..", ".a", "-", "--camera"]
)
@pytest.mark.parametrize("error", [SettingsError, MessageError])
def test_anything_else_is_refused_as_the_caller_says(name, error):
    with pytest.raises(error, match=r"camera must be 1 to 64 letters, digits.*; got '") as caught:
        checked_wire_name(name, "camera", error)
    assert str(caught.value).isascii()


def test_a_long_name_is_not_repeated_whole():
    with pytest.raises(SettingsError) as caught:
        checked_wire_name("x" * 10_000, "camera", SettingsError)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", [".", "..", "-old", ".old", "gate"])
def test_what_an_earlier_release_stored_can_still_be_asked_for(name):
    assert checked_stored_name(name, "camera", SettingsError) == name
    with pytest.raises(SettingsError, match="camera must be"):
        checked_stored_name(f"{name}/", "camera", SettingsError)
