from hypothesis import given
from hypothesis import strategies as st

from reid_edge.checked_lines import checked_line, text_of_line

TEXTS = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])).filter(
    lambda text: text == text.rstrip()
)


@given(TEXTS, st.integers(0, 40))
def test_a_text_comes_back_also_from_a_slot_that_is_filled_with_blanks(text, blanks):
    assert text_of_line(checked_line(text) + b" " * blanks) == text.encode().rstrip()


@given(TEXTS, st.data())
def test_a_line_with_a_flipped_bit_is_none(text, data):
    line = bytearray(checked_line(text).rstrip())
    line[data.draw(st.integers(0, len(line) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert text_of_line(bytes(line)) in (None, text.encode())  # the checksum's letters may be of either case


@given(st.binary())
def test_any_bytes_are_a_text_or_none(noise):
    found = text_of_line(noise)
    assert found is None or int(noise.split(b" ")[0], 16) >= 0
