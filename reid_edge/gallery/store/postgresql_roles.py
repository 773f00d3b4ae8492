"""Roles in PostgreSQL: what each of those who use a gallery may do, and no more."""

from __future__ import annotations

#: What every role needs: to add a line to the audit it must know the last number and hash.
_ADD_TO_AUDIT = ("INSERT ON audit", "SELECT (number, hash) ON audit")
_READ = ("SELECT ON settings", "SELECT ON models", "SELECT ON observations", "SELECT ON gaps", "SELECT ON erasures")

#: Privileges of each role, by the end of its name.
PRIVILEGES: dict[str, tuple[str, ...]] = {
    "collector": (
        *_READ,
        *_ADD_TO_AUDIT,
        "INSERT, DELETE ON observations",
        "INSERT, DELETE, UPDATE ON gaps",
        "INSERT, UPDATE ON models",
        "INSERT, UPDATE, DELETE ON settings",
        "INSERT, UPDATE, DELETE ON erasures",
    ),
    "searcher": (*_READ, *_ADD_TO_AUDIT),
    "eraser": (*_READ, *_ADD_TO_AUDIT, "DELETE ON observations", "INSERT, UPDATE ON erasures"),
    "auditor": ("SELECT ON settings", "SELECT ON audit"),
}


def roles_sql() -> str:
    """Return the SQL, to be run by the owner of the tables, that makes the roles and grants them what they need.

    It can be run again, also after an upgrade.
    """
    lines = ["-- Roles of a gallery: GRANT reid_edge_searcher TO ann; and so on. To be run by the owner of the tables."]
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
