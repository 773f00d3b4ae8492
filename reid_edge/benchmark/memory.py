"""How many model forms may be loaded at once."""

from __future__ import annotations

from pathlib import Path

#: MiB that a worker may take: Python, an engine, and a network with a few batch sizes compiled.
WORKER_MEBIBYTES = 400
#: Never more, however much memory there is: rounds of so many take long enough for the machine to change.
MOST_WORKERS = 24


def workers_at_once(meminfo: Path = Path("/proc/meminfo")) -> int:
    """As many as half of the memory that is available holds, from 1 to :data:`MOST_WORKERS`."""
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except OSError:
        return MOST_WORKERS
    kibibytes = next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
    if kibibytes is None:
        return MOST_WORKERS
    return max(1, min(MOST_WORKERS, kibibytes // 2 // (WORKER_MEBIBYTES * 1024)))
