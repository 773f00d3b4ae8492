"""Who asked the gallery for what, and why."""

from __future__ import annotations

import os
import pwd
from typing import Any

from reid_edge.errors import UsageError
from reid_edge.gallery.store import Store
from reid_edge.gallery.store.base import AuditEntry

PURPOSE_LENGTH = 500


def current_user() -> str:
    """The operating system's user, not what the environment says; with sudo, also who used it."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # as in containers
        name = f"uid {os.getuid()}"
    before = os.environ.get("SUDO_USER")
    return f"{name} (sudo by {before})" if before and os.getuid() == 0 else name


def checked_purpose(purpose: str) -> str:
    """A purpose that says something.

    Raises:
        UsageError: It is empty, or too long to be one.
    """
    purpose = " ".join(purpose.split())
    if not 0 < len(purpose) <= PURPOSE_LENGTH or not purpose.isprintable():
        raise UsageError(
            f"say in up to {PURPOSE_LENGTH} printable characters what this is for, e.g. --purpose 'case 17/26'."
        )
    return purpose


def record(store: Store, action: str, detail: dict[str, Any], *, at_us: int, purpose: str = "") -> None:
    """Add to a gallery's audit.

    Raises:
        StoreError: It cannot be written: then do not do what was to be recorded.
    """
    store.audit_append(AuditEntry(at_us=at_us, user=current_user(), action=action, purpose=purpose, detail=detail))
