"""The audit of a gallery: every search, erasure and change, with its user and purpose."""

from __future__ import annotations

import os
import pwd
from typing import Any

from reid_edge.errors import UsageError
from reid_edge.gallery.store import Store
from reid_edge.gallery.store.base import AuditEntry

PURPOSE_LENGTH = 500


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


def record(store: Store, action: str, detail: dict[str, Any], *, at_us: int, purpose: str = "") -> None:
    """Add a line to a gallery's audit, before the action that it records.

    Raises:
        StoreError: The line cannot be written; the caller must then not carry out the action.
    """
    store.audit_append(AuditEntry(at_us=at_us, user=current_user(), action=action, purpose=purpose, detail=detail))
