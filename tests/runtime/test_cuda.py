"""The driver's library, called by ctypes: against a driver of our own, and without any."""

import weakref
from functools import partial

import numpy as np
import pytest

from reid_edge.errors import EngineError, EngineUnavailableError, GpuError, GpuMemoryError
from reid_edge.runtime import cuda
from reid_edge.runtime.cuda import GpuStream, driver_version, find_gpu, open_gpu


def test_the_gpu_is_described_so_that_modules_of_one_family_differ(driver):
    driver.gpu("Orin", "8.7", processors=16, memory=62 << 30)
    gpu = open_gpu()
    assert (gpu.name, gpu.compute_capability, gpu.multiprocessors, gpu.memory_bytes) == ("Orin", "8.7", 16, 62 << 30)
    assert str(gpu) == "Orin, compute capability 8.7, 16 multiprocessors, 62.0 GiB"
    assert driver_version() == "12.6"


def test_without_a_driver_the_error_says_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.setattr(cuda, "LIBRARY", str(tmp_path / "libcuda.so.1"))
    with pytest.raises(EngineUnavailableError, match=r"libcuda\.so\.1 is not here.*--runtime nvidia.*JetPack 6\.1"):
        open_gpu()
    assert find_gpu() is None


def test_a_library_without_the_functions_is_called_too_old(monkeypatch):
    monkeypatch.setattr(cuda, "LIBRARY", "libc.so.6")
    with pytest.raises(EngineUnavailableError, match="too old, it has no cuInit"):
        open_gpu()


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (100, r"error 100.*--runtime nvidia.*video,render"),
        (304, r"error 304 \(CUDA_ERROR_OPERATING_SYSTEM\).*usermod -aG video,render"),
        (801, r"error 801.*--runtime nvidia.*video,render"),
        (803, r"error 803.*install the driver"),
        (34, r"error 34.*stub.*--runtime nvidia"),
        (999, r"error 999.*video,render.*restart the machine"),
        (12345, r"error 12345.*restart this program"),
    ],
)
def test_a_driver_that_refuses_is_named_by_number_with_the_remedy(driver, status, words):
    driver.fail("cuInit", status)
    with pytest.raises(EngineUnavailableError, match=words):
        open_gpu()
    assert find_gpu() is None


def test_a_driver_without_a_gpu_says_so(driver):
    driver.gpu(count=0)
    with pytest.raises(EngineUnavailableError, match=r"CUDA finds no GPU.*CUDA_VISIBLE_DEVICES"):
        open_gpu()


def test_a_refusal_is_not_remembered(driver):
    """The groups or the device files may be there at the next try."""
    driver.fail("cuInit", 304)
    assert find_gpu() is None
    driver.fail("cuInit", 0)
    assert find_gpu() is not None


def doubling(stream, driver, buffer, size):
    """Work that doubles bytes on the GPU."""

    def double():
        start = driver.library.fake_host(buffer.address)
        values = np.ctypeslib.as_array((cuda.ctypes.c_uint8 * size).from_address(start))
        values *= 2

    def work():
        stream.upload(buffer, size)
        driver.enqueue(stream.handle, double)
        stream.download(buffer, size)

    return work


def test_work_is_done_in_turn_and_everything_is_freed(driver):
    stream = GpuStream()
    buffer = stream.buffer(100)
    buffer.host[:] = np.arange(100)
    doubling(stream, driver, buffer, 100)()
    assert buffer.host[7] == 7  # nothing was waited for
    stream.wait()
    np.testing.assert_array_equal(buffer.host, 2 * np.arange(100))
    assert driver.left[0] == 200
    stream.close()
    assert driver.left == (0, 0, 0)


def test_a_recording_does_the_work_again_and_nothing_while_it_is_made(driver):
    stream = GpuStream()
    buffer = stream.buffer(10)
    buffer.host[:] = 1
    launch = stream.record(doubling(stream, driver, buffer, 10))
    stream.wait()
    assert set(buffer.host) == {1}
    for _ in range(3):
        launch()
        stream.wait()
    assert set(buffer.host) == {8}
    stream.close()
    assert driver.left == (0, 0, 0)


def test_a_recording_keeps_what_its_work_uses(driver):
    """As an execution context of TensorRT, whose memory the recording writes to."""
    stream = GpuStream()
    used = np.zeros(1)
    watch = weakref.ref(used)
    launch = stream.record(partial(str, used))
    del used
    assert watch() is not None
    del launch
    assert watch() is None


def test_work_that_cannot_be_recorded_leaves_the_stream_usable(driver):
    stream = GpuStream()
    buffer = stream.buffer(10)

    def fails():
        raise GpuError("no")

    with pytest.raises(GpuError, match="no"):
        stream.record(fails)
    driver.fail("cuGraphInstantiateWithFlags", 801)
    with pytest.raises(GpuError, match="error 801"):
        stream.record(doubling(stream, driver, buffer, 10))
    driver.fail("", 0)
    buffer.host[:] = 3
    doubling(stream, driver, buffer, 10)()
    stream.wait()
    assert set(buffer.host) == {6}
    stream.close()
    assert driver.left == (0, 0, 0)


def test_no_memory_left_is_an_error_of_its_own_and_frees_what_was_taken(driver):
    driver.gpu(memory=150)
    stream = GpuStream()
    with pytest.raises(GpuMemoryError, match=r"cuMemAlloc_v2 failed: error 2 \(CUDA_ERROR_OUT_OF_MEMORY, out of memor"):
        stream.buffer(100)
    stream.close()
    assert driver.left == (0, 0, 0)


def test_a_thread_that_waits_sleeps(driver):
    stream = GpuStream()
    assert driver.library.fake_flags() == 4  # CU_CTX_SCHED_BLOCKING_SYNC
    stream.close()


def test_another_thread_may_use_the_stream_and_free_it(driver):
    import threading

    stream = GpuStream()
    problems = []

    def other():
        try:
            with pytest.raises(EngineError, match="error 201"):
                stream.buffer(1)  # this thread has no context yet
            stream.use()
            stream.buffer(1)
            stream.close()
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert not problems
    assert driver.left == (0, 0, 0)
