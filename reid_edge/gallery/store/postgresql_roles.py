"""Roles in PostgreSQL: what each of those who use a gallery may do, and no more."""

from __future__ import annotations

#: What every role needs: to add a line to the audit it must know the last number and hash.
_ADD_TO_AUDIT = ("INSERT ON audit", "SELECT (number, hash) ON audit")
_PEOPLE = ("assignments", "decisions", "person_events", "people_state")
_CHANGE_PEOPLE = tuple(f"SELECT, INSERT, UPDATE, DELETE ON {table}" for table in _PEOPLE)
_READ = (
    "SELECT ON settings",
    "SELECT ON models",
    "SELECT ON observations",
    "SELECT ON gaps",
    "SELECT ON erasures",
    *(f"SELECT ON {table}" for table in _PEOPLE),
)

#: Privileges of each role, by the end of its name.
PRIVILEGES: dict[str, tuple[str, ...]] = {
    "collector": (
        *_READ,
        *_ADD_TO_AUDIT,
        *_CHANGE_PEOPLE,
        "INSERT, DELETE ON observations",
        "INSERT, DELETE, UPDATE ON gaps",
        "INSERT, UPDATE ON models",
        "INSERT, UPDATE, DELETE ON settings",
        "INSERT, UPDATE, DELETE ON erasures",
    ),
    "searcher": (*_READ, *_ADD_TO_AUDIT),
    "eraser": (*_READ, *_ADD_TO_AUDIT, "DELETE ON observations", "INSERT ON erasures"),
    "operator": (*_READ, *_ADD_TO_AUDIT, *_CHANGE_PEOPLE),
    "auditor": ("SELECT ON settings", "SELECT ON audit"),
}

#: Lines follow one another closely: none is put in between, and none takes the last number that there is.
_AUDIT_GOES_ON = """
CREATE OR REPLACE FUNCTION reid_edge.audit_goes_on() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE last bigint;
BEGIN
    SELECT max(number) INTO last FROM reid_edge.audit;
    IF NEW.number - coalesce(last, 0) NOT BETWEEN 1 AND 1000000 THEN
        RAISE EXCEPTION 'line % does not follow line % of the audit', NEW.number, coalesce(last, 0);
    END IF;
    RETURN NEW;
END $$;
DROP TRIGGER IF EXISTS audit_goes_on ON reid_edge.audit;
CREATE TRIGGER audit_goes_on BEFORE INSERT ON reid_edge.audit
    FOR EACH ROW EXECUTE FUNCTION reid_edge.audit_goes_on();"""


def roles_sql() -> str:
    """Return the SQL, to be run by the owner of the tables, that makes the roles and grants them what they need.

    It can be run again, also after an upgrade.
    """
    lines = ["-- Roles of a gallery: GRANT reid_edge_searcher TO ann; and so on. To be run by the owner of the tables."]
    lines.append(_AUDIT_GOES_ON)
    for end, privileges in PRIVILEGES.items():
        role = f"reid_edge_{end}"
        lines += [
            "",
            f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;",
            f"GRANT USAGE ON SCHEMA reid_edge TO {role};",
            f"REVOKE ALL ON ALL TABLES IN SCHEMA reid_edge FROM {role};",
            *(f"GRANT {privilege.replace(' ON ', ' ON reid_edge.')} TO {role};" for privilege in privileges),
        ]
    return "\n".join(lines) + "\n"
