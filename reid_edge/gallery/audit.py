"""The audit of a gallery: every search, erasure and change, with its user and purpose."""

from __future__ import annotations

import os
import pwd
import re
from typing import Any

from reid_edge.errors import UsageError
from reid_edge.gallery.store import Store
from reid_edge.gallery.store.base import AuditEntry
from reid_edge.gallery.store.chain import ChainReport, check_chain

PURPOSE_LENGTH = 500
#: More lines than any audit has.
ALL_LINES = 2**31 - 1

_HASH = re.compile("[0-9a-f]{64}")


def current_user() -> str:
    """Return the user as the operating system knows it, regardless of the environment; with sudo, also who used it."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # as in containers
        name = f"uid {os.getuid()}"
    sudo_user = os.environ.get("SUDO_USER")
    return f"{name} (sudo by {sudo_user})" if sudo_user and os.getuid() == 0 else name


def checked_purpose(purpose: str) -> str:
    """Return a purpose with its white space tidied.

    Raises:
        UsageError: It is empty, too long, or not printable.
    """
    purpose = " ".join(purpose.split())
    if not 0 < len(purpose) <= PURPOSE_LENGTH or not purpose.isprintable():
        raise UsageError(
            f"expected a purpose of 1 to {PURPOSE_LENGTH} printable characters, e.g. --purpose 'case 17/26'; "
            f"got {purpose[:80]!a}."
        )
    return purpose


def verify(store: Store, *, expect: str | None = None) -> ChainReport:
    """Check the chain of a gallery's audit.

    A line that was altered, removed, moved or put in between is found by the chain alone.  That lines at its end were
    removed, or that all of it was written anew, shows only with a hash that was kept elsewhere.

    Args:
        store: Which gallery.
        expect: Hash of the last line at an earlier check, 64 hexadecimal digits.

    Raises:
        UsageError: ``expect`` is no such hash.
        StoreError: The store fails.
    """
    if expect is not None and not _HASH.fullmatch(expect):
        raise UsageError(
            f"expected --expect to be 64 hexadecimal digits, as 'audit --verify' printed them; got {expect!a}."
        )
    return check_chain(store.audit_entries(ALL_LINES), expect=expect)


def record(store: Store, action: str, detail: dict[str, Any], *, at_us: int, purpose: str = "") -> None:
    """Add a line to a gallery's audit, before the action that it records.

    Raises:
        StoreError: The line cannot be written; the caller must then not carry out the action.
    """
    store.audit_append(AuditEntry(at_us=at_us, user=current_user(), action=action, purpose=purpose, detail=detail))
