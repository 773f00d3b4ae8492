"""The calls of pymilvus that a gallery needs: each with a time limit, each failing as :class:`StoreError`."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import math
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from reid_edge.errors import MissingExtraError, StoreError
from reid_edge.redaction import hidden, without_passwords
from reid_edge.upstream.encryption import OWNED_RISK, check_encrypted, without_owned_risk

try:
    import grpc  # type: ignore[import-untyped]
    from pymilvus import DataType, MilvusClient
    from pymilvus.exceptions import MilvusException
except ImportError as error:
    raise MissingExtraError("pymilvus", "milvus", "a gallery in Milvus") from error

# They log a traceback of every error that they also raise.
for _name in ("pymilvus", "milvus_lite"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

__all__ = ["COMMIT_S", "LONG_S", "ROWS", "TEXT_BYTES", "Client", "DataType", "Row"]

#: Time limit of a call; a whole number, since pymilvus ignores fractions in places.
TIMEOUT_S = 30
#: Time limit of all calls of a commit together, and of those that a person waits for.
COMMIT_S, LONG_S = 60.0, 600.0
#: Most rows of one request.
ROWS = 1000
#: Longest text that a field holds, bytes.
TEXT_BYTES = 65_535
#: Options of the channel. Pings while no call waits would make servers with gRPC's defaults, such as Milvus Lite, end
#: the connection ("Too many pings"); while one waits, they notice a connection that is dead. With connections shared
#: between channels, a new channel would get the connection that has just failed.
GRPC_OPTIONS = {"grpc.keepalive_permit_without_calls": 0, "grpc.use_local_subchannel_pool": 1}

Row = dict[str, Any]


class Client:
    """A connection to a Milvus server, or a Milvus Lite file.

    Args:
        uri: Address or file, as pymilvus takes it; the token is read from ``MILVUS_TOKEN``.

    Attributes:
        name: The URI, without a password.
        failed: True if a call has failed since this was last set to False.

    Raises:
        SettingsError: Features would go over the network unencrypted.
        StoreError: The server cannot be reached or the file not opened.
        MissingExtraError: The URI is a file, and milvus-lite is not installed.
    """

    def __init__(self, uri: str) -> None:
        self.name = f"milvus:{without_passwords(uri)}"
        self._uri = _verified(uri)
        self.failed = False
        self._cut = False
        self.within(COMMIT_S)
        self._hint = ""
        if "://" not in uri:
            _check_lite(Path(uri))
            self._hint = " Another process may have it open: a Milvus Lite file is for one at a time."
        with self._errors(ValueError):  # a port that is no number
            self._client = self._connected()
        self._hint = ""

    def has(self, collection: str) -> bool:
        """Return True if there is a collection of that name, after loading it for reads."""
        with self._errors():
            if not self._client.has_collection(collection, timeout=self._left()):
                return False
            self._client.load_collection(collection, timeout=self._left())
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
                self._client.create_collection(
                    collection, schema=schema, consistency_level="Strong", timeout=self._left()
                )
            except MilvusException:
                if not self._client.has_collection(collection, timeout=self._left()):  # else another process was faster
                    raise
            self._client.create_index(collection, index, timeout=self._left(), sync=False)
            self._client.load_collection(collection, timeout=self._left())

    def drop(self, collection: str) -> None:
        """Remove a collection, if there is one."""
        with self._errors():
            if self._client.has_collection(collection, timeout=self._left()):
                self._client.drop_collection(collection, timeout=self._left())

    def put(self, collection: str, rows: Sequence[Row]) -> None:
        """Write rows, replacing those with the same key."""
        for start in range(0, len(rows), ROWS):
            with self._errors():
                self._client.upsert(collection, list(rows[start : start + ROWS]), timeout=self._left())

    def rows(self, collection: str, condition: str, fields: Sequence[str]) -> Iterator[Row]:
        """Yield all rows that fulfil a condition."""
        with self._errors(), self._cut_after_timeout():
            iterator = self._client.query_iterator(
                collection, batch_size=ROWS, filter=condition, output_fields=list(fields), timeout=self._left()
            )
        try:
            while True:
                with self._errors(), self._cut_after_timeout():
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
                collection, data=[vector], filter=condition, limit=top, output_fields=list(fields), timeout=self._left()
            )
        return [{**hit["entity"], "distance": hit["distance"]} for hit in found[0]]

    def count(self, collection: str, condition: str) -> int:
        """Return the number of rows that fulfil a condition."""
        with self._errors():
            rows = self._client.query(collection, filter=condition, output_fields=["count(*)"], timeout=self._left())
        return int(rows[0]["count(*)"])

    def existing(self, collection: str, key: str, keys: Sequence[str]) -> set[str]:
        """Return the keys that are stored."""
        found: set[str] = set()
        for start in range(0, len(keys), ROWS):
            some = list(keys[start : start + ROWS])
            with self._errors():  # by key, not by a condition, for which Milvus Lite reads everything
                rows = self._client.get(collection, ids=some, output_fields=[key], timeout=self._left())
            found.update(row[key] for row in rows)
        return found

    def delete(self, collection: str, condition: str) -> None:
        """Delete the rows that fulfil a condition."""
        with self._errors():
            self._client.delete(collection, filter=condition, timeout=self._left())

    def compact(self, collection: str) -> None:
        """Ask the server to remove deleted rows from its files."""
        with self._errors():
            self._client.flush(collection, timeout=self._left())
            self._client.compact(collection, timeout=self._left())

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def within(self, most_s: float) -> None:
        """Let all calls from now on, together, take no longer than ``most_s``."""
        self._until = time.monotonic() + most_s
        if self._cut:
            with self._errors():
                self._client = self._connected()
            self._cut = False

    def _connected(self) -> MilvusClient:
        # Dedicated: else pymilvus 3 keeps the channel open when the client is closed.
        token = os.environ.get("MILVUS_TOKEN", "")
        return MilvusClient(self._uri, token=token, timeout=TIMEOUT_S, dedicated=True, grpc_options=GRPC_OPTIONS)

    def _left(self) -> int:
        left_s = math.ceil(self._until - time.monotonic())
        if left_s < 1:
            raise MilvusException(message="its answers have taken too long, all together")
        return min(TIMEOUT_S, left_s)

    @contextlib.contextmanager
    def _cut_after_timeout(self) -> Iterator[None]:
        """Close the connection if the block takes too long: some calls of pymilvus make others, without a limit."""

        def cut() -> None:
            self._cut = True
            self._client.close()

        timer = threading.Timer(self._left() + 1, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except Exception as error:  # whatever a call says whose channel was closed
            if self._cut:
                raise MilvusException(message=f"it has not answered within {TIMEOUT_S} s") from error
            raise
        finally:
            timer.cancel()
            timer.join()

    @contextlib.contextmanager
    def _errors(self, *more: type[Exception]) -> Iterator[None]:
        try:
            yield
        except (MilvusException, grpc.RpcError, OSError, *more) as error:
            self.failed = True
            text = hidden(str(error), self._uri)
            raise StoreError(f"the gallery in {self.name} cannot be used: {text}.{self._hint}") from error


def _verified(uri: str) -> str:
    """Return an address as pymilvus takes it; raises SettingsError if others could read what is sent to it."""
    address, owned = without_owned_risk(uri)
    if "://" in address and not address.lower().startswith("unix:"):
        try:
            parts = urlsplit(address)
            hosts, scheme = [parts.hostname or ""], parts.scheme
        except ValueError:  # what pymilvus makes of it is not known
            hosts, scheme = [""], ""
        way_out = f"Use https://; or, if others on the network may read and alter it all, add ?{OWNED_RISK}."
        shown = f"milvus:{without_passwords(uri)}"
        check_encrypted(shown, hosts, verified=scheme == "https", loopback=True, owned=owned, way_out=way_out)
    return address


def _check_lite(path: Path) -> None:
    if importlib.util.find_spec("milvus_lite") is None:
        raise MissingExtraError("milvus-lite", "milvus", "a gallery in a Milvus Lite file")
    if not path.absolute().parent.is_dir():
        raise StoreError(f"cannot open {path}: {path.absolute().parent} is not a folder.")
