"""Processes end with an interrupt, also with one that comes while they are starting, and say why they ended."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from reid_edge.benchmark import process, session
from reid_edge.benchmark.process import WorkerProcess, interrupts_deferred, module_command, run_module
from reid_edge.benchmark.protocol import Prepare, Prepared
from reid_edge.benchmark.scheduler import time_variants
from reid_edge.benchmark.timing import Query, Variant
from reid_edge.errors import EngineError

ANY = Prepare(scenario="offline", crops=1, seconds=0.1)
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


@pytest.fixture
def program():
    """Start a program in place of a worker."""
    with contextlib.ExitStack() as ends:

        def start(text, environment=None, **options):
            process = WorkerProcess(environment or {}, command=[sys.executable, "-c", text], **options)
            ends.callback(process.close)
            return process

        yield start


def state(pid: int) -> str:
    """``T`` for stopped, ``Z`` or nothing for gone: man 5 proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def wait_for_state(pid: int, wanted: str) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if state(pid) in wanted:
            return True
        time.sleep(0.01)
    return False


def test_a_module_gets_its_arguments(tmp_path, monkeypatch):
    (tmp_path / "shows.py").write_text("import sys\nprint(__name__, sys.argv[1:], '' in sys.path)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run = subprocess.run(module_command("shows", 1, "a b"), capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "__main__ ['1', 'a b'] False"


def test_a_worker_that_was_killed_is_named_with_the_signal(program):
    worker = program("import time; time.sleep(600)")
    os.kill(worker.pid, signal.SIGKILL)
    assert wait_for_state(worker.pid, "Z")
    with pytest.raises(EngineError, match="ended with signal SIGKILL"):
        worker.ask(ANY, Prepared)


def test_a_worker_killed_while_it_is_asked_is_named_with_the_signal(program):
    worker = program("import os, signal, sys; sys.stdin.readline(); os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(EngineError, match="ended with signal SIGKILL"):
        worker.ask(ANY, Prepared)


def test_a_worker_that_breaks_down_shows_what_it_wrote():
    raises = pytest.raises(EngineError, match=r"ended with exit code 1:[\s\S]*encodings")
    with contextlib.closing(WorkerProcess({"PYTHONHOME": "/nowhere"})) as process, raises:
        process.ask(ANY, Prepared)


def test_a_stuck_worker_is_given_up(program):
    worker = program("import time; time.sleep(600)", patience=0.1)
    with pytest.raises(EngineError, match="stuck"):
        worker.ask(ANY, Prepared)
    worker.close()
    assert state(worker.pid) in ("", "Z")


def test_another_program_is_asked_in_its_own_words(program):
    process = program(
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    print(json.dumps({'heard': json.loads(line), 'parent': int(sys.argv[1])}), flush=True)\n",
        replies=dict[str, Any],
    )
    assert process.ask({"do": "this"}, dict) == {"heard": {"do": "this"}, "parent": os.getpid()}
    assert wait_for_state(process.pid, "T")


def test_a_sleeping_worker_ends_with_its_parent():
    script = (
        "import time\n"
        "from reid_edge.benchmark.process import WorkerProcess\n"
        "from reid_edge.benchmark.protocol import Load, Loaded\n"
        "from reid_edge.errors import EngineError\n"
        "worker = WorkerProcess({})\n"
        "import select\n"
        "worker._process.stdin.write(b'\\n'); worker._process.stdin.flush()\n"  # answered once it is up: Failed
        "select.select([worker._process.stdout], [], [])\n"
        "print(worker.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        pid = int(parent.stdout.readline())
    finally:
        parent.kill()
        parent.wait()
    assert wait_for_state(pid, ("", "Z"))


def test_a_worker_has_its_environment(program):
    worker = program(
        "import json, os, sys\n"
        "for line in sys.stdin:\n"
        "    print(json.dumps([os.environ['REID_EDGE_NOTHING'], os.environ['PATH']]), flush=True)\n",
        environment={"REID_EDGE_NOTHING": "42"},
        replies=list[str],
    )
    assert worker.ask({}, list) == ["42", os.environ["PATH"]]
