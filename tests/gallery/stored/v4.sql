-- A gallery in SQLite as the release of schema version 4 wrote it (tests/gallery/test_store_old_files.py fills the same).
-- Galleries in the field look like this: never change this file; add one for each later version of the schema.
PRAGMA application_id = 1919248740;
PRAGMA user_version = 4;
BEGIN TRANSACTION;
CREATE TABLE assignments (
    camera TEXT NOT NULL, epoch TEXT NOT NULL, track INTEGER NOT NULL, person INTEGER NOT NULL,
    model_hash TEXT NOT NULL, seq INTEGER NOT NULL, first_us INTEGER NOT NULL, last_us INTEGER NOT NULL,
    how TEXT NOT NULL, similarity REAL, reason TEXT NOT NULL, centring TEXT NOT NULL, calibration TEXT NOT NULL,
    at_us INTEGER NOT NULL, PRIMARY KEY (camera, epoch, track)) WITHOUT ROWID;
CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at_us INTEGER NOT NULL, user TEXT NOT NULL, action TEXT NOT NULL,
    purpose TEXT NOT NULL, detail TEXT NOT NULL, hash TEXT NOT NULL);
INSERT INTO "audit" VALUES(1,1767268800000000,'ann','search','lost child','{"ids": ["door/e1/1"]}','68642800092fa02e7880742446592f74f0e74ed05b98531518d4b146ef582c64');
CREATE TABLE decisions (
    kind TEXT NOT NULL, camera TEXT NOT NULL, epoch TEXT NOT NULL, track INTEGER NOT NULL, other_camera TEXT NOT NULL,
    other_epoch TEXT NOT NULL, other_track INTEGER NOT NULL, at_us INTEGER NOT NULL, decided_by TEXT NOT NULL,
    PRIMARY KEY (camera, epoch, track, other_camera, other_epoch, other_track)) WITHOUT ROWID;
CREATE TABLE erasures (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, made_us INTEGER NOT NULL, boot TEXT NOT NULL,
    until_us INTEGER NOT NULL, selection TEXT NOT NULL);
INSERT INTO "erasures" VALUES(1,'01473426cd2e4aa8a808f45deae51126',1767283200000000,'',1767283800000000,'{"cameras":["door"],"not_cameras":[],"epoch":null,"track":1,"since_us":null,"until_us":1767283800000000}');
CREATE TABLE gaps (
    camera TEXT NOT NULL, epoch TEXT NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
    count INTEGER NOT NULL, reason TEXT NOT NULL, received_us INTEGER NOT NULL,
    PRIMARY KEY (camera, epoch, first_seq, last_seq)) WITHOUT ROWID;
INSERT INTO "gaps" VALUES('door','8f14e45fceea167a',9,12,3,'expired',1767272400000000);
CREATE TABLE models (
    number INTEGER PRIMARY KEY AUTOINCREMENT, hash TEXT NOT NULL UNIQUE, dim INTEGER, accepted_us INTEGER NOT NULL);
INSERT INTO "models" VALUES(1,'abababababababababababababababababababababababababababababababab',16,1767268800000000);
INSERT INTO "models" VALUES(2,'cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd',NULL,1767268800000001);
CREATE TABLE observations (
    number INTEGER PRIMARY KEY AUTOINCREMENT, camera TEXT NOT NULL, epoch TEXT NOT NULL, seq INTEGER NOT NULL, model INTEGER NOT NULL REFERENCES models, track INTEGER NOT NULL, captured_us INTEGER NOT NULL, first_us INTEGER NOT NULL, last_us INTEGER NOT NULL, x1 REAL NOT NULL, y1 REAL NOT NULL, x2 REAL NOT NULL, y2 REAL NOT NULL, confidence REAL NOT NULL, quality REAL NOT NULL, crops INTEGER NOT NULL, final INTEGER NOT NULL,
    feature BLOB NOT NULL, checksum INTEGER NOT NULL, UNIQUE (camera, epoch, seq));
INSERT INTO "observations" VALUES(1,'door','8f14e45fceea167a',1,1,0,1767272400500000,1767272400000000,1767272401000000,0.125,0.25,0.5,0.75,0.875,0.5,3,0,X'8B306635583048B8F335DE310FB3A433CB30BC2FFA213033D7B448AC56B2DF33',-3246446243903575849);
INSERT INTO "observations" VALUES(4,'door','8f14e45fceea167a',4,1,2,1767283200500000,1767283200000000,1767283201000000,0.125,0.25,0.5,0.75,0.875,0.5,3,1,X'B6B00DA90336C330EEB5D09481B04C28CFB5FD2ACE2AB135942C612F65B51238',3142358547043517375);
INSERT INTO "observations" VALUES(5,'yard','e1',1,1,1,1767270600000000,1767268800000000,1767272400000000,0.125,0.25,0.5,0.75,0.875,0.5,3,0,X'C7B1FD2AF5B5B8301D3483AE322E392BADAD34B250B713357CA18938F231FF2B',-5834170990701739095);
CREATE TABLE people_state (revision INTEGER NOT NULL, next_person INTEGER NOT NULL);
CREATE TABLE person_events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at_us INTEGER NOT NULL, kind TEXT NOT NULL, person INTEGER NOT NULL,
    model_hash TEXT NOT NULL, camera TEXT NOT NULL, epoch TEXT NOT NULL, track INTEGER NOT NULL, other INTEGER,
    similarity REAL, reason TEXT NOT NULL);
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "settings" VALUES('commits','6');
INSERT INTO "settings" VALUES('gallery','41083d48070047059868ef6b3a52ac20');
INSERT INTO "settings" VALUES('retention_check','be88dc7e');
INSERT INTO "settings" VALUES('retention_hours','36.5');
CREATE INDEX observations_by_model ON observations (model);
CREATE INDEX observations_by_camera ON observations (camera, last_us, first_us);
CREATE INDEX observations_by_tracklet ON observations (camera, epoch, track);
CREATE INDEX observations_by_time ON observations (last_us, first_us);
CREATE TRIGGER audit_keeps_what_it_says BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit can only be added to'); END;
CREATE TRIGGER audit_replaces_nothing BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE number = NEW.number)
    BEGIN SELECT RAISE(ABORT, 'the audit can only be added to'); END;
CREATE TRIGGER audit_keeps_everything BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit can only be added to'); END;
CREATE INDEX assignments_by_person ON assignments (person);
CREATE INDEX decisions_by_other ON decisions (other_camera, other_epoch, other_track);
CREATE INDEX person_events_by_tracklet ON person_events (camera, epoch, track);
CREATE TRIGGER people_go_with_tracklets AFTER DELETE ON observations WHEN NOT EXISTS (
        SELECT 1 FROM observations WHERE camera = OLD.camera AND epoch = OLD.epoch AND track = OLD.track)
    BEGIN
        DELETE FROM assignments WHERE camera = OLD.camera AND epoch = OLD.epoch AND track = OLD.track;
        DELETE FROM decisions WHERE camera = OLD.camera AND epoch = OLD.epoch AND track = OLD.track;
        DELETE FROM decisions
            WHERE other_camera = OLD.camera AND other_epoch = OLD.epoch AND other_track = OLD.track;
        DELETE FROM person_events WHERE camera = OLD.camera AND epoch = OLD.epoch AND track = OLD.track;
    END;
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
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('models',2);
INSERT INTO "sqlite_sequence" VALUES('observations',5);
INSERT INTO "sqlite_sequence" VALUES('audit',1);
COMMIT;
