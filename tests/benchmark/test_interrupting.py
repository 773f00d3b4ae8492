"""Processes end with an interrupt, also with one that comes while they are starting."""

import functools
import os
import signal
import subprocess
import sys
import threading

import pytest

from reid_edge.benchmark import process, session
from reid_edge.benchmark.process import interrupts_deferred, run_module
from reid_edge.benchmark.scheduler import time_variants
from reid_edge.benchmark.timing import Query, Variant

SIGNALS = [signal.SIGINT, signal.SIGTERM]
RAISED = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SystemExit}
NEVER_ANSWERS = "import time; time.sleep(600)"
INTERRUPTS_ITS_PARENT = "import os, time; os.kill(os.getppid(), {:d}); time.sleep(600)"


@pytest.fixture(autouse=True)
def exit_on_sigterm():
    """SIGTERM raises SystemExit, as :func:`reid_edge.cli.main` has it."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def started(monkeypatch):
    """Ids of the processes started; each of them is followed by the signal ``started.number``."""

    class Started(list):
        number = None

    found = Started()

    class Popen(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            found.append(self.pid)
            if found.number:
                signal.raise_signal(found.number)

    monkeypatch.setattr(process.subprocess, "Popen", Popen)
    yield found
    for pid in found:
        if not gone(pid):
            os.kill(pid, signal.SIGKILL)


def gone(pid: int) -> bool:
    """Whether a process has ended and has been waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def time_two(monkeypatch, tmp_path, program):
    command = [sys.executable, "-c", program]
    monkeypatch.setattr(session, "WorkerProcess", functools.partial(process.WorkerProcess, command=command))
    variants = [Variant(bundle=tmp_path, engine="openvino", precision=precision) for precision in ("fp32", "int8")]
    return time_variants(variants, [Query(scenario="single-stream", crops=1)], rounds=1, seconds=0.01)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_worker_ends_when_the_interrupt_comes_before_anybody_knows_of_it(started, monkeypatch, tmp_path, number):
    """The process runs, but ``Popen`` has not returned."""
    started.number = number
    with pytest.raises(RAISED[number]):
        time_two(monkeypatch, tmp_path, NEVER_ANSWERS)
    assert len(started) == 1
    assert gone(started[0])


@pytest.mark.parametrize("number", SIGNALS)
def test_a_worker_that_does_not_answer_ends_with_the_interrupt(started, monkeypatch, tmp_path, number):
    with pytest.raises(RAISED[number]):
        time_two(monkeypatch, tmp_path, INTERRUPTS_ITS_PARENT.format(number))
    assert len(started) == 1
    assert gone(started[0])


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("during_start", [True, False])
def test_a_module_ends_with_the_interrupt(started, monkeypatch, tmp_path, number, during_start):
    program = NEVER_ANSWERS if during_start else INTERRUPTS_ITS_PARENT.format(number)
    (tmp_path / "program.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    started.number = number if during_start else None
    with pytest.raises(RAISED[number]):
        run_module("program")
    assert len(started) == 1
    assert gone(started[0])


def test_a_module_that_takes_too_long_is_ended(started, monkeypatch, tmp_path):
    (tmp_path / "program.py").write_text(NEVER_ANSWERS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(subprocess.TimeoutExpired):
        run_module("program", timeout=0.1)
    assert gone(started[0])


def test_a_deferred_interrupt_comes_after_the_block_and_the_next_one_at_once():
    reached = []
    with pytest.raises(KeyboardInterrupt):
        with interrupts_deferred():
            signal.raise_signal(signal.SIGINT)
            reached.append("end of the block")
        reached.append("after the block")
    assert reached == ["end of the block"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_ignored_signal_stays_ignored():
    """A process started in the block then ignores it too, as one does that a shell runs in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts_deferred():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_there_is_nothing_to_defer():
    reached = []

    def work():
        with interrupts_deferred():
            reached.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert reached == [True]
