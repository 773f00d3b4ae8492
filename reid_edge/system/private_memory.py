"""Memory that stays in the process: no core dump, no debugger, since it holds pictures, features and keys."""

from __future__ import annotations

import ctypes
import os
import resource
import sys

_PR_SET_DUMPABLE = 4
#: A limit of 0 is ignored where the kernel pipes core dumps to a program (systemd-coredump, apport); at 1 byte the
#: kernel gives none to a program either (fs/coredump.c), and a file of less than a page is never begun.
CORE_LIMIT_BYTES = 1


def keep_memory_private() -> list[str]:
    """Have the kernel write no core dump of this process, and let no process of this user read its memory.

    To be called before anything private is opened.  What it sets lasts:

    * ``RLIMIT_CORE``, also the hard limit, is inherited by all children, also across ``execve``.
    * ``PR_SET_DUMPABLE`` of 0 forbids dumps whatever the limit and the kernel's ``core_pattern``, and lets only root
      attach a debugger or read ``/proc/PID/mem``.  Forked children inherit it; ``execve`` sets it back.

    The files of ``/proc/self`` then belong to root: this process can still read ``status``, ``cgroup``, ``maps`` and
    ``fd``, but not open ``mem`` or write ``oom_score_adj``.

    Returns:
        What could not be set, one sentence each; empty where the memory is private.
    """
    return [problem for problem in (_limit_cores(), _forbid_dumps()) if problem]


def _limit_cores() -> str:
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    limit = CORE_LIMIT_BYTES if hard == resource.RLIM_INFINITY else min(CORE_LIMIT_BYTES, hard)
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
    except (OSError, ValueError) as error:
        return f"core dumps are not limited: {error}"
    return ""


def _forbid_dumps() -> str:
    if sys.platform != "linux":
        return f"core dumps cannot be forbidden on {sys.platform}: only Linux has prctl"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, *map(ctypes.c_ulong, (0, 0, 0, 0))):
        return f"core dumps are not forbidden: {os.strerror(ctypes.get_errno())}"
    return ""
