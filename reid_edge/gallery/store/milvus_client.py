"""The calls of pymilvus that a gallery needs: each with a time limit, each failing as :class:`StoreError`."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from reid_edge.errors import MissingExtraError, StoreError
from reid_edge.redaction import hidden, without_passwords

try:
    import grpc  # type: ignore[import-untyped]
    from pymilvus import DataType, MilvusClient
    from pymilvus.exceptions import MilvusException
except ImportError as error:
    raise MissingExtraError("pymilvus", "milvus", "a gallery in Milvus") from error

# They log a traceback of every error that they also raise.
for _name in ("pymilvus", "milvus_lite"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

__all__ = ["ROWS", "TEXT_BYTES", "Client", "DataType", "Row"]

#: Time limit of a call; a whole number, since pymilvus ignores fractions in places.
TIMEOUT_S = 30
#: Most rows of one request.
ROWS = 1000
#: Longest text that a field holds, bytes.
TEXT_BYTES = 65_535

Row = dict[str, Any]


class Client:
    """A connection to a Milvus server, or a Milvus Lite file.

    Args:
        uri: Address or file, as pymilvus takes it; the token is read from ``MILVUS_TOKEN``.

    Attributes:
        name: The URI, without a password.
        failed: True if a call has failed since this was last set to False.

    Raises:
        StoreError: The server cannot be reached or the file not opened.
        MissingExtraError: The URI is a file, and milvus-lite is not installed.
    """

    def __init__(self, uri: str) -> None:
        self.name = f"milvus:{without_passwords(uri)}"
        self._uri = uri
        self.failed = False
        self._hint = ""
        if "://" not in uri:
            _check_lite(Path(uri))
            self._hint = " Another process may have it open: a Milvus Lite file is for one at a time."
        with self._errors(ValueError):  # a port that is no number
            self._client = MilvusClient(uri, token=os.environ.get("MILVUS_TOKEN", ""), timeout=TIMEOUT_S)
        self._hint = ""

    def has(self, collection: str) -> bool:
        """Return True if there is a collection of that name, after loading it for reads."""
        with self._errors():
            if not self._client.has_collection(collection, timeout=TIMEOUT_S):
                return False
            self._client.load_collection(collection, timeout=TIMEOUT_S)
            return True

    def create(self, collection: str, fields: dict[str, tuple[Any, int]]) -> None:
        """Make a collection if there is none; its vectors are compared exactly, by cosine.

        Args:
            collection: Name of the collection.
            fields: Type, and length of a text or dimensions of a vector, of each field; the first is the key, the last
                the vector.
        """
        if self.has(collection):
            return
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        key, *_, vector = fields
        for name, (kind, size) in fields.items():
            sizes = {DataType.VARCHAR: {"max_length": size}, DataType.FLOAT_VECTOR: {"dim": size}}
            schema.add_field(name, kind, is_primary=name == key, **sizes.get(kind, {}))
        index = MilvusClient.prepare_index_params()
        index.add_index(field_name=vector, index_type="FLAT", metric_type="COSINE")
        with self._errors():
            try:
                self._client.create_collection(collection, schema=schema, consistency_level="Strong", timeout=TIMEOUT_S)
            except MilvusException:
                if not self._client.has_collection(collection, timeout=TIMEOUT_S):  # else another process was faster
                    raise
            self._client.create_index(collection, index, timeout=TIMEOUT_S, sync=False)
            self._client.load_collection(collection, timeout=TIMEOUT_S)

    def put(self, collection: str, rows: Sequence[Row]) -> None:
        """Write rows, replacing those with the same key."""
        for start in range(0, len(rows), ROWS):
            with self._errors():
                self._client.upsert(collection, list(rows[start : start + ROWS]), timeout=TIMEOUT_S)

    def rows(self, collection: str, condition: str, fields: Sequence[str]) -> Iterator[Row]:
        """Yield all rows that fulfil a condition."""
        with self._errors():
            iterator = self._client.query_iterator(
                collection, batch_size=ROWS, filter=condition, output_fields=list(fields), timeout=TIMEOUT_S
            )
        try:
            while True:
                with self._errors():
                    some = iterator.next()
                if not some:
                    return
                yield from some
        finally:
            iterator.close()

    def nearest(self, collection: str, vector: Any, condition: str, fields: Sequence[str], top: int) -> list[Row]:
        """Return the rows of highest cosine, which is in ``distance``."""
        with self._errors():
            found = self._client.search(
                collection, data=[vector], filter=condition, limit=top, output_fields=list(fields), timeout=TIMEOUT_S
            )
        return [{**hit["entity"], "distance": hit["distance"]} for hit in found[0]]

    def count(self, collection: str, condition: str) -> int:
        """Return the number of rows that fulfil a condition."""
        with self._errors():
            rows = self._client.query(collection, filter=condition, output_fields=["count(*)"], timeout=TIMEOUT_S)
        return int(rows[0]["count(*)"])

    def existing(self, collection: str, key: str, keys: Sequence[str]) -> set[str]:
        """Return the keys that are stored."""
        found: set[str] = set()
        for start in range(0, len(keys), ROWS):
            some = list(keys[start : start + ROWS])
            with self._errors():  # by key, not by a condition, for which Milvus Lite reads everything
                rows = self._client.get(collection, ids=some, output_fields=[key], timeout=TIMEOUT_S)
            found.update(row[key] for row in rows)
        return found

    def delete(self, collection: str, condition: str) -> None:
        """Delete the rows that fulfil a condition."""
        with self._errors():
            self._client.delete(collection, filter=condition, timeout=TIMEOUT_S)

    def compact(self, collection: str) -> None:
        """Ask the server to remove deleted rows from its files."""
        with self._errors():
            self._client.flush(collection, timeout=TIMEOUT_S)
            self._client.compact(collection, timeout=TIMEOUT_S)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    @contextlib.contextmanager
    def _errors(self, *more: type[Exception]) -> Iterator[None]:
        try:
            yield
        except (MilvusException, grpc.RpcError, OSError, *more) as error:
            self.failed = True
            text = hidden(str(error), self._uri)
            raise StoreError(f"the gallery in {self.name} cannot be used: {text}.{self._hint}") from error


def _check_lite(path: Path) -> None:
    if importlib.util.find_spec("milvus_lite") is None:
        raise MissingExtraError("milvus-lite", "milvus", "a gallery in a Milvus Lite file")
    if not path.absolute().parent.is_dir():
        raise StoreError(f"cannot open {path}: {path.absolute().parent} is not a folder.")
