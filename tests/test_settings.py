import importlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest
from msgspec import Meta

from reid_edge.errors import SettingsError
from reid_edge.settings import assignment, checked_settings, flattened, overridden, read_settings
from tests.conftest import REPOSITORY


@dataclass(frozen=True)
class Inner:
    count: Annotated[int, Meta(ge=1)] = 1
    place: Path = Path("here")


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    deep: dict[str, int] = field(default_factory=dict)


def check(tables):
    return checked_settings(tables, Outer, origin="f.toml", guide="docs/x.md")


def test_tables_become_records():
    assert check({"inner": {"count": 3, "place": "/there"}}) == Outer(Inner(3, Path("/there")))


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"iner": {}}, "f.toml: iner: no such key; known keys: inner, deep. docs/x.md lists every key."),
        ({"inner": {"cuont": 1}}, "f.toml: inner.cuont: no such key; known keys: count, place"),
        ({"inner": {"count": 0}}, "f.toml: inner.count: expected 'int' >= 1"),
        ({"inner": {"count": "1"}}, "f.toml: inner.count: expected 'int', got 'str'"),
        ({"inner": {"place": 1}}, "inner.place: expected a path, got 1"),
        ({"inner": 1}, "inner: expected 'object', got 'int'"),
    ],
)
def test_the_key_that_is_wrong_is_named(tables, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        check(tables)


def test_keys_of_free_tables_are_left_alone():
    assert check({"deep": {"any": 1}}).deep == {"any": 1}


def test_values_go_over_tables_of_any_depth_and_leave_the_original_alone():
    tables = {"a": {"b": {"c": 1, "d": 2}}, "e": 3}
    assert overridden(tables, {"a.b.c": 9, "e": None, "f.g": 4}) == {
        "a": {"b": {"c": 9, "d": 2}},
        "e": 3,
        "f": {"g": 4},
    }
    assert tables == {"a": {"b": {"c": 1, "d": 2}}, "e": 3}


def test_flattening_is_the_inverse():
    tables = {"a": {"b": {"c": 1, "d": [2]}}, "e": 3}
    assert overridden({}, flattened(tables)) == tables


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=1", 1), ("a.b=0.5", 0.5), ("a.b=true", True), ("a.b=[1, 2]", [1, 2]), ("a.b='x=y'", "x=y"),
        ("a.b=64x32", "64x32"), ("a.b=x+y", "x+y"), (" a.b = /data/x ", "/data/x"), ("a.b=", ""),
        ("a.b=1\nc=2", "1\nc=2"),
    ],
)  # fmt: skip
def test_an_assignment_is_toml_or_else_text(text, value):
    assert assignment(text) == ("a.b", value)


@pytest.mark.parametrize("text", ["a.b", "=1", " =1", ""])
def test_no_assignment_is_refused(text):
    with pytest.raises(SettingsError, match=r"table\.key=VALUE"):
        assignment(text)


@pytest.mark.parametrize("content", [None, b"[a\n", b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"run\.toml"):
        read_settings(path, guide="docs/x.md")


def test_the_documented_training_settings_are_those_of_the_code(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "docs"))
    page = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8")
    assert importlib.import_module("make_settings").training_page(page) == page


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "9" * 10_000, "a = 2026-99-99", "[" * 5000])
def test_toml_made_to_exhaust_the_reader_is_a_settings_error(tmp_path, text):
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match="is not TOML"):
        read_settings(path, guide="docs/camera.md")
