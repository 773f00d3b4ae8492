import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_edge.foreign_text import one_line, one_line_of_bytes, printable


@given(st.text(max_size=2000), st.integers(2, 300))
def test_any_text_becomes_one_short_line_of_print(text, longest):
    shown = one_line(text, longest)
    assert shown.isprintable() or not shown
    assert len(shown) <= longest
    assert len(shown.splitlines()) <= 1


@given(st.binary(max_size=2000))
def test_any_bytes_become_one_short_line_of_print(data):
    shown = one_line_of_bytes(data)
    assert shown.isprintable() or not shown
    assert len(shown) <= 200


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("the disk is full\n", "the disk is full"),
        ("ok\r\n2026-01-01 ERROR forged line", "ok 2026-01-01 ERROR forged line"),
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("right\u202eleft", r"right\u202eleft"),
        ("Straße 北京", "Straße 北京"),
        ("a" * 300, "a" * 199 + "…"),
        ("a" * 10_000, "a" * 199 + "…"),
        (" " * 10_000 + "hidden behind blanks", "…"),
    ],
)
def test_what_is_shown(text, shown):
    assert one_line(text) == shown


def test_bytes_that_are_no_text_are_escaped():
    assert one_line_of_bytes(b"\xff\xfeno") == r"\xff\xfeno"


def test_what_steers_a_terminal_is_escaped_in_tables_and_lines_stay():
    assert printable("audit\x1b[2K\r\nnext [bold]") == "audit\\x1b[2K\\r\nnext [bold]"
