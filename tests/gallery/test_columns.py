"""The table of columns covers every field of an entry, and only those."""

import dataclasses

from reid_edge.gallery.entries import Entry
from reid_edge.gallery.store.columns import COLUMNS, FIELDS, entry_of, row_of
from tests.gallery.stores import MODEL, record


def test_every_field_of_an_entry_is_stored_once():
    assert sorted(field.name for field in FIELDS) == sorted(field.name for field in dataclasses.fields(Entry))
    assert len(COLUMNS) == sum(len(field.columns) or 1 for field in FIELDS)


def test_an_entry_comes_back_from_its_row():
    entry = record(2).entry
    row = row_of(entry, model=7)
    assert list(row) == list(COLUMNS)
    assert row["model"] == 7
    assert entry_of({**row, "feature": b""}, MODEL) == entry
    assert entry_of({**row, "final": 1}, MODEL).final is True
