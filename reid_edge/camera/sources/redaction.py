"""Addresses of cameras without the passwords in them, for logs and messages."""

from __future__ import annotations

import re

# To the last @, since people put @, / and : in passwords without encoding them.
_USER = re.compile(r"([a-zA-Z][\w+.-]*:/*)\S*@")
_SECRET = re.compile(
    r"((?:[?&;]|\b)[\w-]*(?:pass|pwd|pw|user|usr|login|token|key|secret|auth|sig|cred|session)[\w-]*\s*=\s*)"
    r"(\"[^\"]*\"|'[^']*'|[^\s&;]+)",
    re.IGNORECASE,
)


def redacted(uri: str) -> str:
    """A URI or pipeline with user, password, and parameters that look secret, replaced by ``***``."""
    return _SECRET.sub(r"\1***", _USER.sub(r"\1***@", uri))
