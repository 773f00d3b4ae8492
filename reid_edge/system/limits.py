"""CPUs and memory that this process may use: affinity, and control groups of version 1 and 2; memory that it uses."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from reid_edge.system.sysfs import ROOT, listed, read_fields, read_integer, read_text


def online_cpus(root: Path = ROOT) -> int:
    """Count the machine's logical CPUs that are switched on."""
    return len(listed(read_text(root / "sys/devices/system/cpu/online"))) or os.cpu_count() or 1


def allowed_cpus(root: Path = ROOT) -> list[int]:
    """Return the numbers of the logical CPUs that this process may run on: its affinity, which a cpuset bounds."""
    allowed = listed(read_fields(root / "proc/self/status").get("Cpus_allowed_list", ""))
    return allowed or list(range(os.cpu_count() or 1))


def usable_cpus(root: Path = ROOT) -> int:
    """Count the logical CPUs that this process may use: its affinity, at most the group's quota, rounded up."""
    cpus = len(allowed_cpus(root))
    quota = cpu_quota(root)
    return cpus if quota is None else max(1, min(cpus, math.ceil(quota)))


def cpu_quota(root: Path = ROOT) -> float | None:
    """Return how many CPUs' worth of time the control groups grant; None for no limit.

    Source: the kernel's admin-guide/cgroup-v2.rst (``cpu.max``) and scheduler/sched-bwc.rst (``cpu.cfs_quota_us``).
    """
    quotas = []
    for folder in _control_groups(root, "cpu"):
        quota, _, period = read_text(folder / "cpu.max").partition(" ")
        quota = quota or read_text(folder / "cpu.cfs_quota_us")
        period = period or read_text(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit():  # "max" and "-1" are no limit
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def quota_throttles(root: Path = ROOT) -> int | None:
    """Count the periods in which the quota stopped this control group; None where there is no quota."""
    if cpu_quota(root) is None:
        return None
    counts = [read_fields(folder / "cpu.stat", " ").get("nr_throttled") for folder in _control_groups(root, "cpu")]
    return sum(int(count) for count in counts if count)


def usable_memory(root: Path = ROOT) -> int | None:
    """Return the bytes of the machine's memory, or the control group's limit where that is smaller."""
    limits = [_kibibytes(root, "MemTotal")]
    for folder in _control_groups(root, "memory"):
        limits += [read_integer(folder / "memory.max"), read_integer(folder / "memory.limit_in_bytes")]
    return min((limit for limit in limits if limit is not None), default=None)


def free_memory(root: Path = ROOT) -> int | None:
    """Return the bytes that can be had without swapping, and no more than the control groups have left."""
    known = [_kibibytes(root, "MemAvailable"), *map(_left_in, _control_groups(root, "memory"))]
    return min((bytes_ for bytes_ in known if bytes_ is not None), default=None)


def peak_memory_mib(root: Path = ROOT) -> float | None:
    """Return the largest resident memory of this process so far, MiB; None where the system does not report it.

    ``VmHWM`` begins anew with the program; ``ru_maxrss`` would count what the parent held when it forked.
    """
    peak = read_fields(root / "proc/self/status").get("VmHWM", "").removesuffix("kB").strip()
    return round(int(peak) / 1024, 1) if peak.isdigit() else None


def _left_in(group: Path) -> int | None:
    """Bytes under a group's limit that are free or hold nothing but a cache of files; None without a limit.

    Source: the kernel's admin-guide/cgroup-v2.rst (``memory.stat``) and cgroup-v1/memory.rst.
    """
    limit = _first_integer(group, "memory.max", "memory.limit_in_bytes")
    if limit is None:
        return None
    used = _first_integer(group, "memory.current", "memory.usage_in_bytes") or 0
    statistics = read_fields(group / "memory.stat", " ")
    cached = statistics.get("total_inactive_file") or statistics.get("inactive_file") or "0"
    return max(0, limit - max(0, used - int(cached)))


def _first_integer(folder: Path, *names: str) -> int | None:
    return next((value for name in names if (value := read_integer(folder / name)) is not None), None)


def _kibibytes(root: Path, key: str) -> int | None:
    number = read_fields(root / "proc/meminfo").get(key, "").removesuffix("kB").strip()
    return 1024 * int(number) if number.isdigit() else None


def _control_groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's group and of those above it, in the hierarchy that has the controller."""
    mounts = root / "sys/fs/cgroup"
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            base = mounts if (mounts / "cgroup.controllers").exists() else mounts / "unified"
        elif controller in controllers.split(","):
            base = next((mount for name in (controllers, controller) if (mount := mounts / name).is_dir()), mounts)
        else:
            continue
        folder = base / path.lstrip("/")
        # Inside a container the path may be the host's, of which only the mount's own folder shows.
        yield from (each for each in (folder, *folder.parents) if each == base or base in each.parents)
