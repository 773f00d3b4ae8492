"""The tables of a gallery in PostgreSQL, all in the schema ``reid_edge``."""

from __future__ import annotations

SCHEMA_VERSION = 1

#: Held while the tables are made, so that two processes do not make them at once.
LOCK = 0x72656964

TABLES = """
CREATE SCHEMA reid_edge;
CREATE TABLE reid_edge.settings (name text PRIMARY KEY, value text NOT NULL);
CREATE TABLE reid_edge.models (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, hash text NOT NULL UNIQUE, dim integer,
    accepted_us bigint NOT NULL);
CREATE TABLE reid_edge.observations (
    camera text COLLATE "C" NOT NULL, epoch text COLLATE "C" NOT NULL, seq bigint NOT NULL,
    model integer NOT NULL REFERENCES reid_edge.models, track bigint NOT NULL,
    captured_us bigint NOT NULL, first_us bigint NOT NULL, last_us bigint NOT NULL,
    x1 double precision NOT NULL, y1 double precision NOT NULL,
    x2 double precision NOT NULL, y2 double precision NOT NULL,
    confidence double precision NOT NULL, quality double precision NOT NULL, crops bigint NOT NULL,
    final boolean NOT NULL, feature halfvec NOT NULL, PRIMARY KEY (camera, epoch, seq));
CREATE INDEX observations_by_camera ON reid_edge.observations (camera, last_us, first_us);
CREATE INDEX observations_by_tracklet ON reid_edge.observations (camera, epoch, track);
CREATE INDEX observations_by_time ON reid_edge.observations (last_us, first_us);
CREATE TABLE reid_edge.gaps (
    camera text COLLATE "C" NOT NULL, epoch text COLLATE "C" NOT NULL, first_seq bigint NOT NULL,
    last_seq bigint NOT NULL, count bigint NOT NULL, reason text NOT NULL, received_us bigint NOT NULL,
    PRIMARY KEY (camera, epoch, first_seq, last_seq));
CREATE TABLE reid_edge.erasures (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, until_us bigint NOT NULL, selection text NOT NULL);
CREATE TABLE reid_edge.audit (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at_us bigint NOT NULL, "user" text NOT NULL,
    action text NOT NULL, purpose text NOT NULL, detail text NOT NULL);
CREATE FUNCTION reid_edge.audit_keeps_everything() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the audit can only be added to'; END $$;
CREATE TRIGGER audit_keeps_everything BEFORE UPDATE OR DELETE OR TRUNCATE ON reid_edge.audit
    FOR EACH STATEMENT EXECUTE FUNCTION reid_edge.audit_keeps_everything();
"""
