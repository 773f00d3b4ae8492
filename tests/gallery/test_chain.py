"""The chain of an audit: whatever is done to its lines is found, given the last hash also what is done to its end."""

import contextlib
import dataclasses
import json
import sqlite3

import hypothesis
import hypothesis.strategies as st
import pytest

from reid_edge.errors import UsageError
from reid_edge.gallery.audit import record, verify
from reid_edge.gallery.store import open_store
from reid_edge.gallery.store.base import AuditEntry
from reid_edge.gallery.store.chain import START, chained, chained_all, check_chain, line_hash, line_of
from tests.commands import run_command

TEXT = st.text(max_size=20)
DETAIL = st.dictionaries(TEXT, st.none() | st.integers() | TEXT | st.lists(st.floats(allow_nan=False)), max_size=3)
LINES = st.lists(st.tuples(st.integers(0, 2**62), TEXT, TEXT, TEXT, DETAIL), min_size=2, max_size=8)


def chain(given):
    lines, last = [], None
    for at_us, user, action, purpose, detail in given:
        entry = AuditEntry(at_us=at_us, user=user, action=action, purpose=purpose, detail=detail)
        lines.append(chained(last, entry))
        last = (lines[-1].number, lines[-1].hash)
    return lines


@hypothesis.given(given=LINES)
def test_a_chain_is_whole_and_each_of_its_hashes_can_be_expected(given):
    lines = chain(given)
    assert check_chain(lines).faults == ()
    for line in lines:
        assert check_chain(lines, expect=line.hash).faults == ()
    assert check_chain(lines).head == lines[-1].hash


@hypothesis.given(given=LINES, data=st.data())
def test_whatever_is_done_to_a_line_that_is_not_the_last_is_found(given, data):
    lines = chain(given)
    where = data.draw(st.integers(0, len(lines) - 2))
    line = lines[where]
    what = data.draw(st.sampled_from(["alter", "alter and hash", "remove", "swap", "insert"]))
    if what.startswith("alter"):
        name = data.draw(st.sampled_from(["at_us", "user", "action", "purpose", "detail"]))
        new = {"at_us": line.at_us + 1, "detail": {**line.detail, "more": 1}}.get(name, f"{getattr(line, name)}x")
        line = dataclasses.replace(line, **{name: new})
        if what == "alter and hash":
            previous = lines[where - 1].hash if where else START
            line = dataclasses.replace(line, hash=line_hash(previous, line))
        lines[where] = line
    elif what == "remove":
        del lines[where]
    elif what == "swap":
        lines[where], lines[where + 1] = lines[where + 1], lines[where]
    else:
        lines.insert(where + 1, dataclasses.replace(chained((line.number, line.hash), line)))
    assert check_chain(lines).faults


@hypothesis.given(given=LINES, data=st.data())
def test_the_last_hash_finds_a_shortened_and_a_rewritten_audit(given, data):
    lines = chain(given)
    head = lines[-1].hash
    shorter = lines[: data.draw(st.integers(0, len(lines) - 1))]
    assert check_chain(shorter).faults == ()
    assert "were removed" in check_chain(shorter, expect=head).faults[0]
    at_us, *rest = given[0]
    anew = chain([(at_us + 1, *rest), *given[1:]])
    assert check_chain(anew).faults == ()
    assert check_chain(anew, expect=head).faults


def test_fields_cannot_be_shifted_into_one_another():
    one, other = ({"user": "ab", "action": "c"}, {"user": "a", "action": "bc"})
    common = {"at_us": 1, "purpose": "", "detail": {}}
    assert line_hash(START, AuditEntry(**one, **common)) != line_hash(START, AuditEntry(**other, **common))


def test_an_audit_without_hashes_is_chained_with_its_own_numbers():
    old = [AuditEntry(number=n, at_us=n, user="a", action="search", purpose="", detail={}) for n in (3, 7)]
    lines = chained_all(old, at_us=9)
    assert [(line.number, line.action) for line in lines] == [(3, "search"), (7, "search"), (8, "chained")]
    assert check_chain(lines).faults == ()
    assert chained_all([], at_us=9) == []


def test_the_hash_is_the_documented_one():
    """Of this text, as sha256sum gives it: galleries in the field depend on it."""
    entry = AuditEntry(number=1, at_us=2, user="ann", action="search", purpose="ß", detail={"b": 1, "a": ["x"]})
    text = f"64:{START},1:1,1:2,3:ann,6:search,2:ß,17:" + '{"a":["x"],"b":1},'
    import hashlib

    assert line_hash(START, entry) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("change", ["purpose = 'none'", "detail = '{}'", "at_us = at_us + 1", "user = 'bob'"])
def test_a_line_that_was_changed_in_the_file_is_found(sqlite_store, tmp_path, change):
    for number in range(3):
        sqlite_store.audit_append(AuditEntry(at_us=number, user="ann", action="search", purpose="why", detail={"n": 1}))
    assert verify(sqlite_store).faults == ()
    with contextlib.closing(sqlite3.connect(tmp_path / "gallery.db")) as db:
        db.execute("DROP TRIGGER audit_keeps_what_it_says")
        db.execute(f"UPDATE audit SET {change} WHERE number = 2")
        db.commit()
    (fault,) = verify(sqlite_store).faults
    assert "line 2" in fault


def test_what_is_no_hash_is_not_expected(sqlite_store):
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        verify(sqlite_store, expect="abc")


ODD = [
    None,
    "",
    b"\xff",
    0,
    -1,
    2**63 - 1,
    1.5,
    "no json",
    "[]",
    "null",
    '{"a":' * 50_000,
    '{"a":1}',
    "A" * 64,
    "\ud800",
]


@pytest.mark.parametrize("name", ["at_us", "user", "action", "purpose", "detail", "hash"])
@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
def test_a_line_that_holds_anything_at_all_is_named_and_hides_no_other(name, value):
    rows = [
        dataclasses.asdict(line) for line in chain([(at, "ann", "search", "case", {"n": at}) for at in range(1, 6)])
    ]
    rows[2][name] = value
    lines = [line_of(row) for row in rows]
    assert [line.number for line in lines] == [1, 2, 3, 4, 5]
    assert [line.detail for line in lines if line.number != 3] == [{"n": 1}, {"n": 2}, {"n": 4}, {"n": 5}]
    assert check_chain(lines).faults[0].startswith("line 3 does not follow from line 2")


@pytest.mark.parametrize("value", [b"\xff", "no json", '{"a":' * 50_000, None])
def test_a_file_with_such_a_line_is_verified_shown_and_backed_up(tmp_path, value):
    uri = f"sqlite:{tmp_path / 'gallery.db'}"
    with contextlib.closing(open_store(uri)) as store:
        for number in range(4):
            record(store, "search", {"n": number}, at_us=2**62, purpose="case")
    with contextlib.closing(sqlite3.connect(tmp_path / "gallery.db")) as db, db:
        for (trigger,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {trigger}")
        db.execute("UPDATE audit SET detail = coalesce(?, 5) WHERE number = 2", (value,))
    verified = run_command("gallery", "audit", uri, "--verify")
    assert (verified.returncode, "line 2 does not follow" in verified.stderr) == (1, True)
    shown = run_command("gallery", "audit", uri)
    assert shown.returncode == 0
    assert "unreadable" in shown.stdout
    assert run_command("gallery", "backup", uri, str(tmp_path / "backup.db")).stderr.startswith(
        "audit: line 2 does not"
    )


def test_a_line_that_is_not_utf_8_is_named_and_hides_no_other(tmp_path):
    uri = f"sqlite:{tmp_path / 'gallery.db'}"
    with contextlib.closing(open_store(uri)) as store:
        for number in range(4):
            record(store, "search", {"n": number}, at_us=1, purpose="case 17")
    with contextlib.closing(sqlite3.connect(tmp_path / "gallery.db")) as db, db:
        db.execute("DROP TRIGGER audit_keeps_what_it_says")
        db.execute("UPDATE audit SET purpose = CAST(? AS TEXT) WHERE number = 2", (b"case \xff7",))
    verified = run_command("gallery", "audit", uri, "--verify")
    assert verified.returncode == 1
    assert "line 2 does not follow from line 1" in verified.stderr
    shown = run_command("gallery", "audit", uri, "--json")
    assert [line["purpose"] for line in json.loads(shown.stdout)] == ["case 17", "case \ufffd7", "case 17", "case 17"]
    assert "line 2 does not" in run_command("gallery", "check", uri).stderr
