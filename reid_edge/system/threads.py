"""Threads of the numerical libraries: how many each may start, and how they wait for work."""

from __future__ import annotations

import os
from pathlib import Path

from reid_edge.system.limits import allowed_cpus, online_cpus, usable_cpus
from reid_edge.system.sysfs import ROOT, read_text

#: Turns of libgomp's waiting loop, about a tenth of a millisecond, before a thread goes to sleep.
SPINS = "4000"


def thread_limit(root: Path = ROOT) -> int | None:
    """Return the number of threads to give a library that, left alone, might start more than this process may use.

    Libraries count the machine's cores.  ONNX Runtime heeds neither affinity nor quota; OpenVINO and OpenMP heed the
    affinity alone.  More threads than CPUs under a quota spend it within a part of each period and then all wait.

    Returns:
        One thread for each usable physical core, and no more than the quota grants; None where this process may use
        the whole machine, so that the library's own choice is right.
    """
    cpus = usable_cpus(root)
    if cpus >= online_cpus(root):
        return None
    topology = [root / f"sys/devices/system/cpu/cpu{cpu}/topology" for cpu in allowed_cpus(root)]
    siblings = {read_text(each / "core_cpus_list") or read_text(each / "thread_siblings_list") for each in topology}
    cores = len(siblings - {""})
    return min(cpus, cores) if cores else cpus


def configure_openmp(root: Path = ROOT) -> None:
    """Set how many threads torch's OpenMP and NumPy's BLAS start, and how they wait; to be called before their import.

    A small network's step is hundreds of short loops.  Threads that sleep at once (``OMP_WAIT_POLICY=PASSIVE``) have
    to be woken for each, and the step takes 2.4 times as long; with threads that spin for long, libgomp's own choice,
    two torch processes on the same cores wait for each other (benchmarks/README.md, Training).  So they spin briefly.

    Variables that the user has set stay.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    if (limit := thread_limit(root)) is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(limit))
