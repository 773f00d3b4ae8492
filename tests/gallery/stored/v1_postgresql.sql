-- A gallery in PostgreSQL as the release of format 1 wrote it: the same contents as v1.sql.
-- Galleries in the field look like this: never change this file.
CREATE EXTENSION IF NOT EXISTS vector;
CREATE SCHEMA reid_edge;
CREATE TABLE reid_edge.settings (name text PRIMARY KEY, value text NOT NULL);
CREATE TABLE reid_edge.models (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, hash text NOT NULL UNIQUE, dim integer,
    accepted_us bigint NOT NULL);
CREATE TABLE reid_edge.observations (
    camera text COLLATE "C" NOT NULL, epoch text COLLATE "C" NOT NULL, seq bigint NOT NULL,
    model integer NOT NULL REFERENCES reid_edge.models, track bigint NOT NULL,
    captured_us bigint NOT NULL, first_us bigint NOT NULL, last_us bigint NOT NULL,
    x1 double precision NOT NULL, y1 double precision NOT NULL, x2 double precision NOT NULL, y2 double precision NOT NULL,
    confidence double precision NOT NULL, quality double precision NOT NULL, crops bigint NOT NULL, final boolean NOT NULL,
    feature halfvec NOT NULL, PRIMARY KEY (camera, epoch, seq));
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
INSERT INTO reid_edge.settings VALUES ('schema_version', '1'), ('retention_hours', '36.5');
INSERT INTO reid_edge.models (hash, dim, accepted_us) VALUES
    ('abababababababababababababababababababababababababababababababab', 16, 1767268800000000),
    ('cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd', NULL, 1767268800000001);
INSERT INTO reid_edge.gaps VALUES ('door', '8f14e45fceea167a', 9, 12, 3, 'expired', 1767272400000000);
INSERT INTO reid_edge.erasures (until_us, selection) VALUES (1767283200000000,
    '{"cameras":["door"],"not_cameras":[],"epoch":null,"track":1,"since_us":null,"until_us":1767283200000000}');
INSERT INTO reid_edge.audit (at_us, "user", action, purpose, detail) VALUES
    (1767268800000000, 'ann', 'search', 'lost child', '{"ids": ["door/e1/1"]}');
INSERT INTO reid_edge.observations VALUES
    ('door', '8f14e45fceea167a', 1, 1, 0, 1767272400500000, 1767272400000000, 1767272401000000, 0.125, 0.25, 0.5, 0.75,
     0.875, 0.5, 3, false, '[0.1419677734375, 0.33740234375, 0.1357421875, -0.53515625, 0.371826171875, 0.183349609375, -0.2205810546875, 0.23876953125, 0.1497802734375, 0.120849609375, 0.0116729736328125, 0.224609375, -0.302490234375, -0.06689453125, -0.197998046875, 0.2459716796875]'),
    ('door', '8f14e45fceea167a', 4, 1, 2, 1767283200500000, 1767283200000000, 1767283201000000, 0.125, 0.25, 0.5, 0.75,
     0.875, 0.5, 3, true, '[-0.147216796875, -0.039459228515625, 0.375732421875, 0.1488037109375, -0.37060546875, -0.0011749267578125, -0.1407470703125, 0.0335693359375, -0.363037109375, 0.054595947265625, 0.05316162109375, 0.355712890625, 0.071533203125, 0.11529541015625, -0.337158203125, 0.5087890625]'),
    ('yard', 'e1', 1, 1, 1, 1767270600000000, 1767268800000000, 1767272400000000, 0.125, 0.25, 0.5, 0.75,
     0.875, 0.5, 3, false, '[-0.1805419921875, 0.054595947265625, -0.372314453125, 0.1474609375, 0.257080078125, -0.10174560546875, 0.0968017578125, 0.056427001953125, -0.08868408203125, -0.19384765625, -0.45703125, 0.317138671875, -0.010711669921875, 0.56689453125, 0.185791015625, 0.062469482421875]');
