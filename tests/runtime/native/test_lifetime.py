"""Engines from birth to death: several at once, in several threads, after a fork, with too little memory."""

import gc
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from reid_edge.errors import EngineUnavailableError
from reid_edge.runtime.native import library
from reid_edge.runtime.native.library import NativeNetwork
from tests.runtime.native.networks import needs_library, random_pixels
from tests.runtime.native.plans import FEATURE, TRANSITION, RandomPlan, random_plan

pytestmark = needs_library

LARGER = RandomPlan(size=(128, 64), stem=16, blocks=((16, 64, 4, 0, TRANSITION), (24, 96, 4, 0, FEATURE)))


def _in_a_process(code: str, timeout: float = 120) -> str:
    """Run code in a process of its own, with the library of these tests; return what it prints."""
    # Freed memory goes back to the system, so that each engine has to ask for its own.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    begin = "import tests.runtime.native.conftest\nfrom tests.runtime.native.test_lifetime import *\n"
    command = [sys.executable, "-c", begin + code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def test_more_threads_than_cpus_are_reduced_to_those():
    assert NativeNetwork(LARGER.encode(), threads=10_000).info.threads == len(os.sched_getaffinity(0))


def test_an_engine_serves_several_threads_and_several_engines_run_at_once():
    pixels = random_pixels(5, LARGER.size, seed=1)
    networks = [NativeNetwork(LARGER.encode(), threads=threads) for threads in (1, 2, 2)]
    expected = networks[0].run(pixels)
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(networks[i % 3].run, pixels[: 1 + i % 5]) for i in range(120)]
        assert all(np.array_equal(call.result(), expected[: 1 + i % 5]) for i, call in enumerate(calls))


def test_layers_may_be_timed_while_other_threads_compute():
    pixels = random_pixels(5, LARGER.size, seed=1)
    network = NativeNetwork(LARGER.encode(), threads=2)
    expected = network.run(pixels)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(network.run, pixels) for _ in range(60)]
        times = [network.time_layers(lambda: network.run(pixels)) for _ in range(20)]
        assert all(np.array_equal(call.result(), expected) for call in calls)
    assert all(sum(one.seconds.values()) > 0 for one in times)


def test_engines_leave_neither_threads_nor_memory_behind():
    def one(seed):
        network = NativeNetwork(random_plan(seed).encode(), threads=2)
        network.time_layers(lambda: network.run(random_pixels(3, random_plan(seed).size, seed)))

    def used():
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return len(list(Path("/proc/self/task").iterdir())), pages * os.sysconf("SC_PAGE_SIZE")

    for seed in range(20):
        one(seed)
    threads, before = used()
    for _ in range(20):
        for seed in range(20):
            one(seed)
    after_threads, after = used()
    assert after_threads == threads
    assert after < before + 32 * 2**20  # freed blocks may lie in an allocator's caches


def test_a_child_of_a_fork_gets_an_error_and_can_make_an_engine_of_its_own():
    code = """
network, pixels = NativeNetwork(LARGER.encode(), threads=2, name="fp32.plan"), random_pixels(3, LARGER.size, 1)
expected = network.run(pixels)
if os.fork() == 0:
    for use in (network.run, network.calibrate, network.time_layers):
        try:
            use(pixels)
        except Exception as error:
            print(type(error).__name__, error, flush=True)
    again = NativeNetwork(LARGER.encode(), threads=2)
    print(np.array_equal(again.run(pixels), expected), flush=True)
    del network, again
    os._exit(0)
assert os.wait()[1] == 0
assert np.array_equal(network.run(pixels), expected)
"""
    *errors, same = _in_a_process(code).splitlines()
    assert len(errors) == 3 and same == "True"
    for error in errors:
        assert error.startswith("EngineError fp32.plan was loaded before this process was forked")
        assert error.endswith("Make the extractor in the process that uses it.")


def test_a_child_may_be_forked_while_another_thread_computes():
    code = """
import threading
network, pixels = NativeNetwork(LARGER.encode(), threads=2), random_pixels(8, LARGER.size, 1)
stop = threading.Event()
def compute():
    while not stop.is_set():
        network.run(pixels)
thread = threading.Thread(target=compute)
thread.start()
for _ in range(20):
    if os.fork() == 0:
        try:
            network.run(pixels)
        except Exception as error:
            os._exit(0 if type(error).__name__ == "EngineError" else 1)
        os._exit(2)
    assert os.wait()[1] == 0
stop.set()
thread.join()
"""
    _in_a_process(code)


@pytest.mark.skipif("REID_EDGE_TEST_NATIVE_LIBRARY" in os.environ, reason="sanitizers need address space of their own")
def test_too_little_address_space_is_an_error_at_every_size():
    """Each allocation in turn, and the start of a thread, is the first that fails."""
    code = """
import resource
from reid_edge.errors import EngineError
plan, pixels = LARGER.encode(), random_pixels(3, LARGER.size, 1)
expected = NativeNetwork(plan).run(pixels)
unlimited, outcomes, step = resource.getrlimit(resource.RLIMIT_AS), [], 256 * 1024
for extra in range(0, 24 * 2**20, step):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + extra, unlimited[1]))
    try:
        network = NativeNetwork(plan, threads=2)
    except EngineError as error:
        outcome = str(error)
    else:
        outcome = "ran" if np.array_equal(network.run(pixels), expected) else "another feature"
        del network
    finally:
        resource.setrlimit(resource.RLIMIT_AS, unlimited)
    outcomes.append(outcome.split(",")[0])
print("\\n".join(sorted(set(outcomes))))
"""
    outcomes = set(_in_a_process(code).splitlines())
    assert outcomes >= {"ran", "the plan: no memory for the network's weights and maps"}
    assert outcomes <= {
        *("ran", "the plan: no memory for the network's weights and maps", "the plan: no memory for an engine."),
        f"the plan: the system starts no {min(2, len(os.sched_getaffinity(0)))} threads.",
    }


def test_a_network_larger_than_the_free_memory_is_refused(tmp_path):
    """The system would promise the memory, and end some process when it is used."""
    meminfo, plan = tmp_path / "meminfo", tmp_path / "plan"
    meminfo.write_text("MemTotal: 20480 kB\nMemFree: 64 kB\nMemAvailable: 400 kB\n")
    plan.write_bytes(LARGER.encode())
    code = f"""
try:
    NativeNetwork(Path({str(plan)!r}).read_bytes())
except Exception as error:
    print(type(error).__name__, error)
print(NativeNetwork(RandomPlan().encode()).info.threads)
"""
    script = f"import tests.runtime.native.conftest\nfrom tests.runtime.native.test_lifetime import *\n{code}"
    mount = f'mount --bind {meminfo} /proc/meminfo || exit 77; exec "$0" -c "$1"'
    command = ["unshare", "--mount", "sh", "-c", mount, sys.executable, script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"this system lets nobody replace /proc/meminfo: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    refused, threads = done.stdout.splitlines()
    assert refused.startswith("EngineError the plan: no memory for the network's weights and maps")
    assert threads == "1"


@pytest.mark.parametrize("content", [b"", b"no library", b"\x7fELF\x02\x01\x01" + bytes(57)])
def test_a_library_that_cannot_be_loaded_is_an_engine_that_is_not_there(content, tmp_path, monkeypatch):
    path = tmp_path / "libreid_native.so"
    path.write_bytes(content)
    monkeypatch.setattr(library, "LIBRARY", path)
    library._library.cache_clear()
    try:
        with pytest.raises(EngineUnavailableError, match="cannot be loaded"):
            NativeNetwork(LARGER.encode())
    finally:
        library._library.cache_clear()


def test_another_library_of_that_name_is_refused(monkeypatch):
    monkeypatch.setattr(library, "LIBRARY", Path("libm.so.6"))
    monkeypatch.setattr(Path, "is_file", lambda self: True)
    library._library.cache_clear()
    try:
        with pytest.raises(EngineUnavailableError, match=r"reid_native_abi.*Install reid-edge again"):
            NativeNetwork(LARGER.encode())
    finally:
        library._library.cache_clear()
