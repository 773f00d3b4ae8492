"""Stores of observations, opened by URI."""

from __future__ import annotations

from pathlib import Path

from reid_edge.errors import StoreError
from reid_edge.gallery.store.base import Store
from reid_edge.redaction import without_passwords

__all__ = ["Store", "open_store"]

URIS = "sqlite:PATH, postgresql://USER@HOST/DATABASE, milvus:http://HOST:19530 or milvus:FILE.db"


def open_store(uri: str, *, create: bool = True) -> Store:
    """Open the store of a gallery.

    Args:
        uri: ``sqlite:PATH``, ``postgresql://…`` (as libpq takes it) or ``milvus:…`` (what pymilvus takes, after the
            colon).
        create: Make an empty gallery if there is none.

    Raises:
        SettingsError: Features would go over the network unencrypted, or to a server that need not prove its name.
        StoreError: There is no such kind of store, or no gallery at that place, or it cannot be opened.
        MissingExtraError: The engine's package is not installed.
    """
    scheme, separator, rest = uri.partition(":")
    if separator and rest:
        if scheme == "sqlite":
            from reid_edge.gallery.store.sqlite import SqliteStore

            return SqliteStore(Path(rest[2:] if rest.startswith("///") else rest), create=create)
        if scheme in ("postgresql", "postgres"):
            from reid_edge.gallery.store.postgresql import PostgresqlStore

            return PostgresqlStore(uri, create=create)
        if scheme == "milvus":
            from reid_edge.gallery.store.milvus import MilvusStore

            return MilvusStore(rest, create=create)
    shown = without_passwords(uri)
    lower = f"{scheme.lower()}:"
    hint = "" if separator else f" Did you mean sqlite:{shown}?"
    hint = f" Write {lower} in lower case." if scheme != scheme.lower() and f" {lower}" in f" {URIS}" else hint
    raise StoreError(f"expected a gallery's URI: {URIS}; got '{shown}'.{hint}")
