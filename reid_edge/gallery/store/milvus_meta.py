"""The collection of a gallery in Milvus for everything but observations: models, settings, gaps, erasures, audit."""

from __future__ import annotations

import json
from typing import Any

from reid_edge.errors import StoreError
from reid_edge.gallery.store.milvus_client import ROWS, TEXT_BYTES, Client, DataType, Row

META = "reid_edge_meta"
META_FIELDS = {
    "name": (DataType.VARCHAR, 320),
    "kind": (DataType.VARCHAR, 16),
    "at_us": (DataType.INT64, 0),
    "body": (DataType.VARCHAR, TEXT_BYTES),
    "unused": (DataType.FLOAT_VECTOR, 2),  # a collection must have a vector
}


class Meta:
    """Entries by kind and name.  Each has a body, which is JSON, and a number by which entries of a kind are chosen.

    The number is a time in microseconds, or that of a line of the audit.

    Args:
        client: The connection; its errors are raised.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def is_there(self) -> bool:
        """Return whether the collection exists."""
        return self._client.has(META)

    def create(self) -> None:
        """Make the collection."""
        self._client.create(META, META_FIELDS)

    def put(self, kind: str, name: str, body: Any, *, at_us: int = 0) -> None:
        """Write an entry, in place of one of the same name.

        Raises:
            StoreError: It is too long.
        """
        row = entry_row(kind, name, body, at_us)
        if len(row["body"].encode()) > TEXT_BYTES:
            raise StoreError(
                f"Milvus keeps at most {TEXT_BYTES} bytes of a text, and this {kind} takes more: ask for less at once."
            )
        self._client.put(META, [row])

    def put_rows(self, rows: list[Row]) -> None:
        """Write entries that :func:`entry_row` made, together."""
        if rows:
            self._client.put(META, rows)

    def bodies(
        self, kind: str, *, from_us: int | None = None, before_us: int | None = None, start: str = ""
    ) -> dict[str, Any]:
        """Return the bodies of the entries of one kind, by name.

        Args:
            kind: Which kind.
            from_us: Only those with a number from this one on.
            before_us: Only those with a smaller number than this one.
            start: Only those whose names begin so.
        """
        where = f'kind == "{kind}"' + ("" if from_us is None else f" and at_us >= {from_us}")
        where += "" if before_us is None else f" and at_us < {before_us}"
        if start:  # an underscore may stand for any character there: the names are looked at again below
            where += f" and name like {json.dumps(f'{kind}/{start}%')}"
        rows = self._client.rows(META, where, ["name", "body"])
        found = {row["name"].partition("/")[2]: row["body"] for row in rows}
        return {name: json.loads(body) for name, body in found.items() if name.startswith(start)}

    def body(self, kind: str, name: str) -> Any:
        """Return the body of one entry; None if it is not there."""
        rows = list(self._client.rows(META, f"name == {_quoted(kind, name)}", ["body"]))
        return json.loads(rows[0]["body"]) if rows else None

    def existing(self, kind: str, names: list[str]) -> set[str]:
        """Return those of some names of which there are entries."""
        found = self._client.existing(META, "name", [f"{kind}/{name}" for name in names])
        return {name.partition("/")[2] for name in found}

    def remove(self, kind: str, name: str) -> None:
        """Delete an entry."""
        self._client.delete(META, f"name == {_quoted(kind, name)}")

    def remove_names(self, kind: str, names: list[str]) -> None:
        """Delete the entries of some names."""
        for start in range(0, len(names), ROWS):
            some = [f"{kind}/{name}" for name in names[start : start + ROWS]]
            self._client.delete(META, f"name in {json.dumps(some)}")

    def remove_kind(self, kind: str) -> None:
        """Delete all entries of one kind."""
        self._client.delete(META, f'kind == "{kind}"')

    def count_before(self, kind: str, at_us: int) -> int:
        """Return how many entries of one kind have a smaller number."""
        return self._client.count(META, _before(kind, at_us))

    def remove_before(self, kind: str, at_us: int) -> None:
        """Delete the entries of one kind that have a smaller number."""
        self._client.delete(META, _before(kind, at_us))


def entry_row(kind: str, name: str, body: Any, at_us: int) -> Row:
    """Return an entry as a row of the collection."""
    return {"name": f"{kind}/{name}", "kind": kind, "at_us": at_us, "body": json.dumps(body), "unused": [1.0, 0.0]}


def _quoted(kind: str, name: str) -> str:
    return json.dumps(f"{kind}/{name}")


def _before(kind: str, at_us: int) -> str:
    return f'kind == "{kind}" and at_us < {at_us}'
