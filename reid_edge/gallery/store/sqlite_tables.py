"""The tables of a gallery in SQLite, and the way from those of earlier releases to them."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from reid_edge.gallery.store.chain import AuditEntry, chained_all
from reid_edge.gallery.store.columns import COLUMNS, Kind, checksum_of, entry_of
from reid_edge.gallery.store.erasures import old_erasure_id
from reid_edge.gallery.store.sql import AUDIT_NAMES, COLUMN_NAMES, column_definitions
from reid_edge.gallery.store.sql_people import FORGET_CUT

log = logging.getLogger(__name__)

#: "reid" in ASCII; ``file gallery.db`` shows it.
APPLICATION_ID = 0x72656964
SCHEMA_VERSION = 4

_TYPES: dict[Kind, str] = {
    "name": "TEXT NOT NULL",
    "integer": "INTEGER NOT NULL",
    "real": "REAL NOT NULL",
    "flag": "INTEGER NOT NULL",
    "model": "INTEGER NOT NULL REFERENCES models",
}
PEOPLE_TABLES = """
CREATE TABLE assignments (
    camera TEXT NOT NULL, epoch TEXT NOT NULL, track INTEGER NOT NULL, person INTEGER NOT NULL,
    model_hash TEXT NOT NULL, seq INTEGER NOT NULL, first_us INTEGER NOT NULL, last_us INTEGER NOT NULL,
    how TEXT NOT NULL, similarity REAL, reason TEXT NOT NULL, centring TEXT NOT NULL, calibration TEXT NOT NULL,
    at_us INTEGER NOT NULL, PRIMARY KEY (camera, epoch, track)) WITHOUT ROWID;
CREATE INDEX assignments_by_person ON assignments (person);
CREATE TABLE decisions (
    kind TEXT NOT NULL, camera TEXT NOT NULL, epoch TEXT NOT NULL, track INTEGER NOT NULL, other_camera TEXT NOT NULL,
    other_epoch TEXT NOT NULL, other_track INTEGER NOT NULL, at_us INTEGER NOT NULL, decided_by TEXT NOT NULL,
    PRIMARY KEY (camera, epoch, track, other_camera, other_epoch, other_track)) WITHOUT ROWID;
CREATE INDEX decisions_by_other ON decisions (other_camera, other_epoch, other_track);
CREATE TABLE person_events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at_us INTEGER NOT NULL, kind TEXT NOT NULL, person INTEGER NOT NULL,
    model_hash TEXT NOT NULL, camera TEXT NOT NULL, epoch TEXT NOT NULL, track INTEGER NOT NULL, other INTEGER,
    similarity REAL, reason TEXT NOT NULL);
CREATE INDEX person_events_by_tracklet ON person_events (camera, epoch, track);
CREATE TABLE people_state (revision INTEGER NOT NULL, next_person INTEGER NOT NULL);
CREATE TRIGGER people_go_with_tracklets AFTER DELETE ON observations WHEN NOT EXISTS (
        SELECT 1 FROM observations WHERE camera = OLD.camera AND epoch = OLD.epoch AND track = OLD.track)
    BEGIN
        DELETE FROM assignments WHERE camera = OLD.camera AND epoch = OLD.epoch AND track = OLD.track;
        DELETE FROM decisions WHERE camera = OLD.camera AND epoch = OLD.epoch AND track = OLD.track;
        DELETE FROM decisions
            WHERE other_camera = OLD.camera AND other_epoch = OLD.epoch AND other_track = OLD.track;
        DELETE FROM person_events WHERE camera = OLD.camera AND epoch = OLD.epoch AND track = OLD.track;
    END;
"""
#: Of a tracklet whose last part is deleted, what was known by that part goes, and changes that knew it are refused.
#: A later observation, if one is left, is usually the next one, and found without reading all of the tracklet.
CUT_TRIGGER = """
CREATE TRIGGER people_know_only_what_is_held AFTER DELETE ON observations WHEN NOT EXISTS (
        SELECT 1 FROM observations WHERE camera = OLD.camera AND epoch = OLD.epoch AND track = OLD.track
            AND number > OLD.number AND last_us >= OLD.last_us)
        AND OLD.last_us > (
            SELECT max(last_us) FROM observations
            WHERE camera = OLD.camera AND epoch = OLD.epoch AND track = OLD.track)
    BEGIN
        DELETE FROM assignments WHERE camera = OLD.camera AND epoch = OLD.epoch AND track = OLD.track AND last_us > (
            SELECT max(last_us) FROM observations
            WHERE camera = OLD.camera AND epoch = OLD.epoch AND track = OLD.track);
        DELETE FROM person_events
            WHERE camera = OLD.camera AND epoch = OLD.epoch AND track = OLD.track AND NOT EXISTS (
            SELECT 1 FROM assignments WHERE camera = OLD.camera AND epoch = OLD.epoch AND track = OLD.track);
        INSERT INTO people_state SELECT 0, 1 WHERE NOT EXISTS (SELECT 1 FROM people_state);
        UPDATE people_state SET revision = revision + 1;
    END;
"""
TABLES = f"""
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE models (
    number INTEGER PRIMARY KEY AUTOINCREMENT, hash TEXT NOT NULL UNIQUE, dim INTEGER, accepted_us INTEGER NOT NULL);
CREATE TABLE observations (
    number INTEGER PRIMARY KEY AUTOINCREMENT, {column_definitions(_TYPES)},
    feature BLOB NOT NULL, checksum INTEGER NOT NULL, UNIQUE (camera, epoch, seq));
CREATE INDEX observations_by_model ON observations (model);
CREATE INDEX observations_by_camera ON observations (camera, last_us, first_us);
CREATE INDEX observations_by_tracklet ON observations (camera, epoch, track);
CREATE INDEX observations_by_time ON observations (last_us, first_us);
CREATE TABLE gaps (
    camera TEXT NOT NULL, epoch TEXT NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
    count INTEGER NOT NULL, reason TEXT NOT NULL, received_us INTEGER NOT NULL,
    PRIMARY KEY (camera, epoch, first_seq, last_seq)) WITHOUT ROWID;
CREATE TABLE erasures (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, made_us INTEGER NOT NULL, boot TEXT NOT NULL,
    until_us INTEGER NOT NULL, selection TEXT NOT NULL);
CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at_us INTEGER NOT NULL, user TEXT NOT NULL, action TEXT NOT NULL,
    purpose TEXT NOT NULL, detail TEXT NOT NULL, hash TEXT NOT NULL);
CREATE TRIGGER audit_keeps_what_it_says BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit can only be added to'); END;
CREATE TRIGGER audit_replaces_nothing BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE number = NEW.number)
    BEGIN SELECT RAISE(ABORT, 'the audit can only be added to'); END;
CREATE TRIGGER audit_keeps_everything BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit can only be added to'); END;
{PEOPLE_TABLES}{CUT_TRIGGER}"""  # noqa: S608 - no value comes from outside


def statements(script: str) -> Iterator[str]:
    """Yield the statements of a script one by one, since ``executescript`` would commit."""
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring a gallery of an earlier format to the present one, in one commit: whole or not at all."""
    if _version(connection) >= SCHEMA_VERSION:
        return
    log.warning("%s is a gallery of an earlier release: it is migrated to format %d.", path, SCHEMA_VERSION)
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _version(connection) < SCHEMA_VERSION:  # no other process has done it meanwhile
            if _version(connection) < 2:
                _from_1(connection)
            else:
                _go_on_from(connection, _version(connection))
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _go_on_from(db: sqlite3.Connection, version: int) -> None:
    """Add the tables of people, which a gallery of format 2 does not have, or what one of format 3 does not have."""
    for statement in (*statements(CUT_TRIGGER if version == 3 else PEOPLE_TABLES + CUT_TRIGGER), *FORGET_CUT):
        db.execute(statement)


def _from_1(db: sqlite3.Connection) -> None:
    """Add checksums to observations, names to erasures, the chain of hashes to the audit, and what came later."""
    sequence = dict(db.execute("SELECT name, seq FROM sqlite_sequence").fetchall())
    for name in ("observations", "erasures", "audit"):
        db.execute(f"ALTER TABLE {name} RENAME TO old_{name}")
    dropped = db.execute("SELECT type, name FROM sqlite_schema WHERE type IN ('index', 'trigger') AND sql IS NOT NULL")
    for kind, name in dropped.fetchall():
        db.execute(f"DROP {kind} {name}")
    present = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    for statement in statements(TABLES):
        if not any(statement.startswith(f"CREATE TABLE {name} ") for name in present):
            db.execute(statement)
    _copy_observations(db)
    for made, selection in db.execute("SELECT until_us, selection FROM old_erasures ORDER BY number").fetchall():
        db.execute(
            "INSERT OR IGNORE INTO erasures (id, made_us, boot, until_us, selection) VALUES (?, 0, '', ?, ?)",
            (old_erasure_id(selection), made, selection),
        )
    _chain_audit(db)
    for name in ("observations", "erasures", "audit"):
        db.execute(f"DROP TABLE old_{name}")
    highest = max(
        sequence.get("observations", 0), db.execute("SELECT max(number) FROM observations").fetchone()[0] or 0
    )
    db.execute("DELETE FROM sqlite_sequence WHERE name IN ('observations', 'old_observations', 'old_audit')")
    db.execute("INSERT INTO sqlite_sequence VALUES ('observations', ?)", (highest,))


def _copy_observations(db: sqlite3.Connection) -> None:
    hashes: dict[int, str] = dict(db.execute("SELECT number, hash FROM models").fetchall())

    def checksum(feature: bytes, *columns: object) -> int:
        row = dict(zip(COLUMNS, columns, strict=True))
        return checksum_of(entry_of(row, hashes[row["model"]]), feature)  # type: ignore[index]

    db.create_function("reid_edge_checksum", len(COLUMNS) + 1, checksum)
    db.execute(
        f"INSERT INTO observations (number, {COLUMN_NAMES}, feature, checksum) "  # noqa: S608 - no value from outside
        f"SELECT number, {COLUMN_NAMES}, feature, reid_edge_checksum(feature, {COLUMN_NAMES}) "
        "FROM old_observations ORDER BY number"
    )


def _chain_audit(db: sqlite3.Connection) -> None:
    rows = db.execute("SELECT number, at_us, user, action, purpose, detail FROM old_audit ORDER BY number").fetchall()
    old = [
        AuditEntry(number=row[0], at_us=row[1], user=row[2], action=row[3], purpose=row[4], detail=json.loads(row[5]))
        for row in rows
    ]
    db.executemany(
        f"INSERT INTO audit ({AUDIT_NAMES}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - likewise
        [
            (line.number, line.at_us, line.user, line.action, line.purpose, json.dumps(line.detail), line.hash)
            for line in chained_all(old, at_us=time.time_ns() // 1000)
        ],
    )
