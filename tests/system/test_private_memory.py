"""reid_edge.system.private_memory: no core dump of a process that called it, nor of its children, in any way."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PATTERN = Path("/proc/sys/kernel/core_pattern").read_text().strip()
dumps_to_folder = pytest.mark.skipif(
    PATTERN.startswith("|") or "/" in PATTERN, reason="core dumps go elsewhere on this machine"
)


@pytest.fixture(autouse=True)
def limit_that_can_be_raised():
    """The hard limit of this process is lowered for good by any test that runs an agent or a gallery in it."""
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY and not may_raise():
        pytest.skip("this process may not raise its limit of core dumps")


def may_raise():
    program = "import resource as r; r.setrlimit(r.RLIMIT_CORE, (r.RLIM_INFINITY, r.RLIM_INFINITY))"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


PROGRAM = """
import os, resource, subprocess, sys
resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
from reid_edge.system.private_memory import keep_memory_private
if {private}:
    assert keep_memory_private() == []
{then}
"""


def run(folder, then, *, private=True):
    program = PROGRAM.format(private=private, then=then)
    return subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)


def core_files(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith("core")]


@dumps_to_folder
def test_an_ordinary_process_leaves_a_core_file_here(tmp_path):
    assert run(tmp_path, "os.abort()", private=False).returncode == -signal.SIGABRT
    assert core_files(tmp_path)


@dumps_to_folder
@pytest.mark.parametrize(
    "then",
    [
        "os.abort()",
        "os.kill(os.getpid(), 11)",
        "if os.fork() == 0: os.abort()\nos.wait()",
        "subprocess.run([sys.executable, '-c', 'import os; os.abort()'])",
        "import ctypes; ctypes.CDLL(None).prctl(4, 1, 0, 0, 0); os.abort()",  # the limit alone
        "resource.prlimit(os.getpid(), resource.RLIMIT_CORE, (1 << 40, 1 << 40)); os.abort()",  # prctl alone, as root
    ],
    ids=["abort", "segfault", "forked child", "executed child", "limit alone", "prctl alone"],
)
def test_a_private_process_and_its_children_leave_none(tmp_path, then):
    if "prlimit" in then and os.geteuid():
        pytest.skip("only root raises a hard limit")
    run(tmp_path, then)
    assert core_files(tmp_path) == []


def test_the_limit_is_the_one_that_also_stops_dumps_to_programs(tmp_path):
    done = run(tmp_path, "print(*resource.getrlimit(resource.RLIMIT_CORE))")
    assert done.stdout.split() == ["1", "1"], done.stderr


def test_a_stricter_limit_stays(tmp_path):
    then = "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\nassert keep_memory_private() == []\n"
    done = run(tmp_path, then + "print(*resource.getrlimit(resource.RLIMIT_CORE))", private=False)
    assert done.stdout.split() == ["0", "0"], done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to become")
def test_what_reid_edge_reads_of_proc_stays_readable_for_an_ordinary_user(tmp_path):
    then = (
        "from reid_edge.system.limits import allowed_cpus, peak_memory_mib, usable_memory\n"
        "os.setgid(65534); os.setuid(65534); assert keep_memory_private() == []\n"
        "assert allowed_cpus() and peak_memory_mib() and usable_memory()\n"
        "for name in ('status', 'cgroup', 'mountinfo', 'maps', 'fd'):\n"
        "    os.listdir('/proc/self/fd') if name == 'fd' else open(f'/proc/self/{name}').read()\n"
        "try: open('/proc/self/mem', 'rb')\n"
        "except PermissionError: print('closed')\n"
    )
    done = run(tmp_path, then)
    assert done.stdout.split() == ["closed"], done.stderr
