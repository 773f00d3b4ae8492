"""reid_edge.system.stop_signals: no signal is lost, none interrupts, a process always ends."""

import signal
import subprocess
import sys
import textwrap
import time

import pytest

from reid_edge.system import stop_signals

PATIENCE_S = 30


def started(program):
    text = "import os, signal, sys, threading, time\nfrom reid_edge.system import stop_signals\n"
    process = subprocess.Popen(
        [sys.executable, "-c", text + textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n", process.communicate()
    return process


def ended(process):
    try:
        output, log = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, output, log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_code_that_swallows_every_exception_loses_no_signal(number):
    process = started("""
        signals = stop_signals.hold()
        print("ready", flush=True)
        for _ in range(2000):
            try:
                time.sleep(0.01)
            except BaseException:
                print("interrupted", flush=True)
            signals.check()
        """)
    process.send_signal(number)
    assert ended(process) == (0, "", "")


def test_whoever_comes_late_is_told_that_a_stop_was_asked_for():
    process = started("""
        signals = stop_signals.hold()
        print("ready", flush=True)
        while not signals.asked:
            time.sleep(0.01)
        signals.on_stop(lambda: print("told", flush=True))
        """)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (0, "told\n", "")


def test_a_second_signal_ends_a_process_that_does_not_react():
    process = started("""
        stop_signals.SAME_S = 0.1
        stop_signals.hold()
        print("ready", flush=True)
        time.sleep(1000)
        """)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 128 + signal.SIGTERM


def test_one_signal_that_arrives_twice_is_one():
    process = started("""
        signals = stop_signals.hold()
        print("ready", flush=True)
        while not signals.asked:
            time.sleep(0.01)
        time.sleep(0.2)
        """)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 0


def test_a_process_that_hangs_is_ended_at_the_deadline_and_says_what_hung():
    process = started("""
        signals = stop_signals.hold()
        signals.deadline_s = 0.3
        threading.Thread(target=time.sleep, args=(1000,), name="engine", daemon=True).start()
        print("ready", flush=True)
        time.sleep(1000)
        """)
    process.send_signal(signal.SIGTERM)
    code, _, log = ended(process)
    assert code == 0
    assert "still busy: engine" in log


def test_a_hangup_before_there_is_anything_to_reload_is_ignored():
    process = started("""
        signals = stop_signals.hold()
        print("ready", flush=True)
        while not signals.asked:
            time.sleep(0.01)
        signals.on_reload(lambda: print("reload", flush=True))
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(0.3)
        """)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert ended(process)[:2] == (0, "reload\n")


IN_A_LIBRARY = """
        signals = stop_signals.hold()
        import cv2, numpy as np
        image = np.zeros((300, 300, 3), np.uint8)
        threading.Thread(target=lambda: [cv2.blur(image, (15, 15)) for _ in range(10**9)], daemon=True).start()
        print("ready", flush=True)
        time.sleep(0.2)  # until "ready" has been read
        """


def test_python_aborts_a_process_whose_thread_comes_back_from_a_library_at_its_end():
    """What the next test is about; should Python learn to end such a thread, both may go."""
    assert ended(started(IN_A_LIBRARY))[0] == -signal.SIGABRT


@pytest.mark.parametrize(
    ("end", "code", "says"),
    [
        ("pass", 0, ""),
        ("sys.exit(0)", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("raise ValueError('why')", 1, "ValueError: why"),
    ],
)
def test_a_process_with_a_thread_in_a_library_ends_with_its_own_code(end, code, says):
    process = started(f"""{IN_A_LIBRARY}
        try:
            print("printed")
            {end}
        finally:
            signals.leave_if_threads_are_left(sys.exc_info()[1])
            print("not left")
        """)
    found, output, log = ended(process)
    assert (found, output) == (code, "printed\n")
    assert says in log


def test_held_signals_are_given_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    with stop_signals.held() as signals, stop_signals.held() as same:
        assert signals is same
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)] == before
