"""The tables of a gallery in PostgreSQL, and the migration from those of earlier releases."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import numpy as np

from reid_edge.gallery.store.chain import AuditEntry, chained_all
from reid_edge.gallery.store.columns import COLUMNS, Kind, checksum_of, entry_of
from reid_edge.gallery.store.erasures import old_erasure_id
from reid_edge.gallery.store.postgresql_connection import Connection
from reid_edge.gallery.store.sql import AUDIT_NAMES, COLUMN_NAMES, column_definitions
from reid_edge.gallery.store.sql_people import FORGET_CUT

log = logging.getLogger(__name__)

SCHEMA_VERSION = 4
#: Held while the tables are made or changed, so that two processes do not do it at once.
LOCK = 0x72656964
#: Held while a line is added to the audit, so that each follows from the one before.
AUDIT_LOCK = 0x72656965
#: Held while people are changed, so that each change is based on the one before.
PEOPLE_LOCK = 0x72656966
#: Rows brought to a new format at a time.
ROWS_AT_A_TIME = 2000

_TYPES: dict[Kind, str] = {
    "name": 'text COLLATE "C" NOT NULL',
    "integer": "bigint NOT NULL",
    "real": "double precision NOT NULL",
    "flag": "boolean NOT NULL",
    "model": "integer NOT NULL REFERENCES reid_edge.models",
}
COPY_TYPES: dict[Kind, str] = {"name": "text", "integer": "int8", "real": "float8", "flag": "bool", "model": "int4"}
#: What is known of a tracklet goes with it.  If only its last part is deleted, what was known by that part goes, and
#: changes that knew it are refused.
PEOPLE_GO = """
CREATE OR REPLACE FUNCTION reid_edge.people_go_with_tracklets() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
    DECLARE
        one record;
        cut boolean := false;
    BEGIN
        FOR one IN
            SELECT lost.camera, lost.epoch, lost.track, held.last_us AS held_us
            FROM (SELECT camera, epoch, track, max(last_us) AS last_us FROM gone GROUP BY camera, epoch, track) lost
            CROSS JOIN LATERAL (
                SELECT max(o.last_us) AS last_us FROM reid_edge.observations o
                WHERE o.camera = lost.camera AND o.epoch = lost.epoch AND o.track = lost.track) held
            WHERE held.last_us IS NULL OR held.last_us < lost.last_us
        LOOP
            DELETE FROM reid_edge.assignments a
                WHERE a.camera = one.camera AND a.epoch = one.epoch AND a.track = one.track
                AND (one.held_us IS NULL OR a.last_us > one.held_us);
            DELETE FROM reid_edge.person_events e
                WHERE e.camera = one.camera AND e.epoch = one.epoch AND e.track = one.track AND NOT EXISTS (
                    SELECT 1 FROM reid_edge.assignments a
                    WHERE a.camera = one.camera AND a.epoch = one.epoch AND a.track = one.track);
            IF one.held_us IS NOT NULL THEN
                cut := true;
                CONTINUE;
            END IF;
            DELETE FROM reid_edge.decisions d
                WHERE d.camera = one.camera AND d.epoch = one.epoch AND d.track = one.track;
            DELETE FROM reid_edge.decisions d
                WHERE d.other_camera = one.camera AND d.other_epoch = one.epoch AND d.other_track = one.track;
        END LOOP;
        IF cut THEN
            INSERT INTO reid_edge.people_state (revision, next_person)
                SELECT 0, 1 WHERE NOT EXISTS (SELECT 1 FROM reid_edge.people_state);
            UPDATE reid_edge.people_state SET revision = revision + 1;
        END IF;
        RETURN NULL;
    END $$;
"""
PEOPLE_TABLES = f"""
CREATE TABLE reid_edge.assignments (
    camera text COLLATE "C" NOT NULL, epoch text COLLATE "C" NOT NULL, track bigint NOT NULL, person bigint NOT NULL,
    model_hash text NOT NULL, seq bigint NOT NULL, first_us bigint NOT NULL, last_us bigint NOT NULL,
    how text NOT NULL, similarity double precision, reason text NOT NULL, centring text NOT NULL,
    calibration text NOT NULL, at_us bigint NOT NULL, PRIMARY KEY (camera, epoch, track));
CREATE INDEX assignments_by_person ON reid_edge.assignments (person);
CREATE TABLE reid_edge.decisions (
    kind text NOT NULL, camera text COLLATE "C" NOT NULL, epoch text COLLATE "C" NOT NULL, track bigint NOT NULL,
    other_camera text COLLATE "C" NOT NULL, other_epoch text COLLATE "C" NOT NULL, other_track bigint NOT NULL,
    at_us bigint NOT NULL, decided_by text NOT NULL,
    PRIMARY KEY (camera, epoch, track, other_camera, other_epoch, other_track));
CREATE INDEX decisions_by_other ON reid_edge.decisions (other_camera, other_epoch, other_track);
CREATE TABLE reid_edge.person_events (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at_us bigint NOT NULL, kind text NOT NULL,
    person bigint NOT NULL, model_hash text NOT NULL, camera text COLLATE "C" NOT NULL,
    epoch text COLLATE "C" NOT NULL, track bigint NOT NULL, other bigint, similarity double precision,
    reason text NOT NULL);
CREATE INDEX person_events_by_tracklet ON reid_edge.person_events (camera, epoch, track);
CREATE TABLE reid_edge.people_state (revision bigint NOT NULL, next_person bigint NOT NULL);
{PEOPLE_GO}
CREATE TRIGGER people_go_with_tracklets AFTER DELETE ON reid_edge.observations REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION reid_edge.people_go_with_tracklets();
"""
TABLES = f"""
CREATE SCHEMA reid_edge;
CREATE TABLE reid_edge.settings (name text PRIMARY KEY, value text NOT NULL);
CREATE TABLE reid_edge.models (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, hash text NOT NULL UNIQUE, dim integer,
    accepted_us bigint NOT NULL);
CREATE TABLE reid_edge.observations (
    {column_definitions(_TYPES)},
    feature halfvec NOT NULL, checksum bigint NOT NULL, PRIMARY KEY (camera, epoch, seq));
CREATE INDEX observations_by_camera ON reid_edge.observations (camera, last_us, first_us);
CREATE INDEX observations_by_tracklet ON reid_edge.observations (camera, epoch, track);
CREATE INDEX observations_by_time ON reid_edge.observations (last_us, first_us);
CREATE TABLE reid_edge.gaps (
    camera text COLLATE "C" NOT NULL, epoch text COLLATE "C" NOT NULL, first_seq bigint NOT NULL,
    last_seq bigint NOT NULL, count bigint NOT NULL, reason text NOT NULL, received_us bigint NOT NULL,
    PRIMARY KEY (camera, epoch, first_seq, last_seq));
CREATE TABLE reid_edge.erasures (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id text NOT NULL UNIQUE, made_us bigint NOT NULL,
    boot text NOT NULL, until_us bigint NOT NULL, selection text NOT NULL);
CREATE TABLE reid_edge.audit (
    number bigint PRIMARY KEY, at_us bigint NOT NULL, "user" text NOT NULL,
    action text NOT NULL, purpose text NOT NULL, detail text NOT NULL, hash text NOT NULL);
CREATE FUNCTION reid_edge.audit_keeps_everything() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the audit can only be added to'; END $$;
CREATE TRIGGER audit_keeps_everything BEFORE UPDATE OR DELETE OR TRUNCATE ON reid_edge.audit
    FOR EACH STATEMENT EXECUTE FUNCTION reid_edge.audit_keeps_everything();
{PEOPLE_TABLES}"""


def schema_version(db: Connection) -> int | None:
    """Return the format of the gallery's tables; None if there are none."""
    row = db.execute("SELECT to_regclass('reid_edge.settings') IS NOT NULL").fetchone()
    if not row or not row[0]:
        return None
    row = db.execute("SELECT value FROM reid_edge.settings WHERE name = 'schema_version'").fetchone()
    return int(row[0]) if row else SCHEMA_VERSION + 1


def make_tables(db: Connection) -> None:
    """Make the tables of an empty gallery."""
    db.execute(TABLES)
    db.execute("INSERT INTO reid_edge.settings VALUES ('schema_version', %s)", (str(SCHEMA_VERSION),))


def migrate(db: Connection, name: str) -> None:
    """Bring a gallery of an earlier format to the present one, in one transaction: whole or not at all.

    Args:
        db: A connection that knows pgvector's types.
        name: The gallery's URI, for the log.
    """
    with db.transaction():
        db.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        if (schema_version(db) or SCHEMA_VERSION) >= SCHEMA_VERSION:
            return  # another process has done it meanwhile
        log.warning("%s is a gallery of an earlier release: it is migrated to format %d.", name, SCHEMA_VERSION)
        db.execute("SELECT set_config('search_path', 'reid_edge, ' || current_setting('search_path'), true)")
        if (schema_version(db) or SCHEMA_VERSION) < 2:
            _add_checksums(db)
            _name_erasures(db)
            _chain_audit(db)
        db.execute(PEOPLE_GO if schema_version(db) == 3 else PEOPLE_TABLES)
        for statement in FORGET_CUT:
            db.execute(statement)
        db.execute("UPDATE settings SET value = %s WHERE name = 'schema_version'", (str(SCHEMA_VERSION),))


def _add_checksums(db: Connection) -> None:
    db.execute("ALTER TABLE observations ADD COLUMN checksum bigint")
    hashes: dict[int, str] = dict(db.execute("SELECT number, hash FROM models").fetchall())
    db.execute("CREATE TEMPORARY TABLE summed (camera text, epoch text, seq bigint, checksum bigint) ON COMMIT DROP")
    with db.cursor(name="unsummed") as rows, db.cursor() as writer:
        rows.execute(f"SELECT {COLUMN_NAMES}, feature FROM observations")  # noqa: S608 - no value from outside
        while some := rows.fetchmany(ROWS_AT_A_TIME):
            writer.executemany("INSERT INTO summed VALUES (%s, %s, %s, %s)", [_summed(row, hashes) for row in some])
    db.execute(
        "UPDATE observations SET checksum = summed.checksum FROM summed WHERE observations.camera = summed.camera "
        "AND observations.epoch = summed.epoch AND observations.seq = summed.seq"
    )
    db.execute("ALTER TABLE observations ALTER COLUMN checksum SET NOT NULL")


def _summed(row: tuple[Any, ...], hashes: dict[int, str]) -> tuple[str, str, int, int]:
    columns = dict(zip(COLUMNS, row, strict=False))
    entry = entry_of(columns, hashes[columns["model"]])
    return (*entry.key, checksum_of(entry, row[-1].to_numpy().astype(np.dtype("<f2")).tobytes()))


def _name_erasures(db: Connection) -> None:
    for definition in ("id text", "made_us bigint NOT NULL DEFAULT 0", "boot text NOT NULL DEFAULT ''"):
        db.execute(f"ALTER TABLE erasures ADD COLUMN {definition}")
    for number, selection in db.execute("SELECT number, selection FROM erasures ORDER BY number").fetchall():
        db.execute("UPDATE erasures SET id = %s WHERE number = %s", (old_erasure_id(selection), number))
    db.execute("DELETE FROM erasures a USING erasures b WHERE a.id = b.id AND a.number > b.number")
    db.execute("ALTER TABLE erasures ALTER COLUMN id SET NOT NULL, ADD UNIQUE (id)")
    db.execute("ALTER TABLE erasures ALTER COLUMN made_us DROP DEFAULT, ALTER COLUMN boot DROP DEFAULT")


def _chain_audit(db: Connection) -> None:
    db.execute("ALTER TABLE audit DISABLE TRIGGER audit_keeps_everything")
    db.execute("ALTER TABLE audit ALTER COLUMN number DROP IDENTITY, ADD COLUMN hash text")
    rows = db.execute('SELECT number, at_us, "user", action, purpose, detail FROM audit ORDER BY number').fetchall()
    names = ("number", "at_us", "user", "action", "purpose")
    old = [AuditEntry(**dict(zip(names, row, strict=False)), detail=json.loads(row[-1])) for row in rows]
    lines = chained_all(old, at_us=time.time_ns() // 1000)
    for line in lines[: len(old)]:
        db.execute("UPDATE audit SET hash = %s WHERE number = %s", (line.hash, line.number))
    for line in lines[len(old) :]:
        values = (line.number, line.at_us, line.user, line.action, line.purpose, json.dumps(line.detail), line.hash)
        db.execute(f"INSERT INTO audit ({AUDIT_NAMES}) VALUES (%s, %s, %s, %s, %s, %s, %s)", values)  # noqa: S608
    db.execute("ALTER TABLE audit ALTER COLUMN hash SET NOT NULL")
    db.execute("ALTER TABLE audit ENABLE TRIGGER audit_keeps_everything")
