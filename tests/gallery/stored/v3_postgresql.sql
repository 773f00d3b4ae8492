-- A gallery in PostgreSQL as the release of format 3 wrote it: the same contents as v3.sql.
-- Galleries in the field look like this: never change this file.
CREATE EXTENSION IF NOT EXISTS vector;
CREATE SCHEMA reid_edge;
CREATE TABLE reid_edge.settings (name text PRIMARY KEY, value text NOT NULL);
CREATE TABLE reid_edge.models (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, hash text NOT NULL UNIQUE, dim integer,
    accepted_us bigint NOT NULL);
CREATE TABLE reid_edge.observations (
    camera text COLLATE "C" NOT NULL, epoch text COLLATE "C" NOT NULL, seq bigint NOT NULL, model integer NOT NULL REFERENCES reid_edge.models, track bigint NOT NULL, captured_us bigint NOT NULL, first_us bigint NOT NULL, last_us bigint NOT NULL, x1 double precision NOT NULL, y1 double precision NOT NULL, x2 double precision NOT NULL, y2 double precision NOT NULL, confidence double precision NOT NULL, quality double precision NOT NULL, crops bigint NOT NULL, final boolean NOT NULL,
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
CREATE FUNCTION reid_edge.people_go_with_tracklets() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
    DECLARE one record;
    BEGIN
        FOR one IN SELECT DISTINCT camera, epoch, track FROM gone WHERE NOT EXISTS (
            SELECT 1 FROM reid_edge.observations held
            WHERE held.camera = gone.camera AND held.epoch = gone.epoch AND held.track = gone.track)
        LOOP
            DELETE FROM reid_edge.assignments a
                WHERE a.camera = one.camera AND a.epoch = one.epoch AND a.track = one.track;
            DELETE FROM reid_edge.decisions d
                WHERE d.camera = one.camera AND d.epoch = one.epoch AND d.track = one.track;
            DELETE FROM reid_edge.decisions d
                WHERE d.other_camera = one.camera AND d.other_epoch = one.epoch AND d.other_track = one.track;
            DELETE FROM reid_edge.person_events e
                WHERE e.camera = one.camera AND e.epoch = one.epoch AND e.track = one.track;
        END LOOP;
        RETURN NULL;
    END $$;
CREATE TRIGGER people_go_with_tracklets AFTER DELETE ON reid_edge.observations REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION reid_edge.people_go_with_tracklets();
INSERT INTO reid_edge.settings ("name", "value")
    VALUES ('retention_check', 'be88dc7e');
INSERT INTO reid_edge.settings ("name", "value")
    VALUES ('retention_hours', '36.5');
INSERT INTO reid_edge.settings ("name", "value")
    VALUES ('schema_version', '3');
INSERT INTO reid_edge.models ("number", "hash", "dim", "accepted_us") OVERRIDING SYSTEM VALUE
    VALUES (1, 'abababababababababababababababababababababababababababababababab', 16, 1767268800000000);
INSERT INTO reid_edge.models ("number", "hash", "dim", "accepted_us") OVERRIDING SYSTEM VALUE
    VALUES (2, 'cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd', NULL, 1767268800000001);
INSERT INTO reid_edge.observations ("camera", "epoch", "seq", "model", "track", "captured_us", "first_us", "last_us", "x1", "y1", "x2", "y2", "confidence", "quality", "crops", "final", "feature", "checksum")
    VALUES ('door', '8f14e45fceea167a', 1, 1, 0, 1767272400500000, 1767272400000000, 1767272401000000, 0.125, 0.25, 0.5, 0.75, 0.875, 0.5, 3, false, '[0.14196777,0.33740234,0.13574219,-0.53515625,0.37182617,0.18334961,-0.22058105,0.23876953,0.14978027,0.12084961,0.011672974,0.22460938,-0.30249023,-0.06689453,-0.19799805,0.24597168]',  -3246446243903575849);
INSERT INTO reid_edge.observations ("camera", "epoch", "seq", "model", "track", "captured_us", "first_us", "last_us", "x1", "y1", "x2", "y2", "confidence", "quality", "crops", "final", "feature", "checksum")
    VALUES ('door', '8f14e45fceea167a', 4, 1, 2, 1767283200500000, 1767283200000000, 1767283201000000, 0.125, 0.25, 0.5, 0.75, 0.875, 0.5, 3, true, '[-0.1472168,-0.03945923,0.37573242,0.14880371,-0.37060547,-0.0011749268,-0.14074707,0.033569336,-0.3630371,0.054595947,0.05316162,0.3557129,0.0715332,0.11529541,-0.3371582,0.50878906]', 3142358547043517375);
INSERT INTO reid_edge.observations ("camera", "epoch", "seq", "model", "track", "captured_us", "first_us", "last_us", "x1", "y1", "x2", "y2", "confidence", "quality", "crops", "final", "feature", "checksum")
    VALUES ('yard', 'e1', 1, 1, 1, 1767270600000000, 1767268800000000, 1767272400000000, 0.125, 0.25, 0.5, 0.75, 0.875, 0.5, 3, false, '[-0.18054199,0.054595947,-0.37231445,0.14746094,0.25708008,-0.101745605,0.09680176,0.056427002,-0.08868408,-0.19384766,-0.45703125,0.31713867,-0.01071167,0.56689453,0.18579102,0.062469482]',  -5834170990701739095);
INSERT INTO reid_edge.gaps ("camera", "epoch", "first_seq", "last_seq", "count", "reason", "received_us")
    VALUES ('door', '8f14e45fceea167a', 9, 12, 3, 'expired', 1767272400000000);
INSERT INTO reid_edge.erasures ("number", "id", "made_us", "boot", "until_us", "selection") OVERRIDING SYSTEM VALUE
    VALUES (1, '569023289a1841a4937fad00732fcd6b', 1767283200000000, '', 1767283800000000, '{"cameras":["door"],"not_cameras":[],"epoch":null,"track":1,"since_us":null,"until_us":1767283800000000}');
INSERT INTO reid_edge.audit ("number", "at_us", "user", "action", "purpose", "detail", "hash")
    VALUES (1, 1767268800000000, 'ann', 'search', 'lost child', '{"ids": ["door/e1/1"]}', '68642800092fa02e7880742446592f74f0e74ed05b98531518d4b146ef582c64');
SELECT setval(pg_get_serial_sequence('reid_edge.models', 'number'), max(number)) FROM reid_edge.models;
SELECT setval(pg_get_serial_sequence('reid_edge.erasures', 'number'), max(number)) FROM reid_edge.erasures;
