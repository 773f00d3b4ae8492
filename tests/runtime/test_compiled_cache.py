"""Compiled models on disk: used only as they were written, otherwise compiled again; never a crash, never others'."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reid_edge.bundle import Bundle
from reid_edge.runtime import compiled_cache
from reid_edge.runtime.compiled_cache import MAX_ENTRIES, key_of, open_cache
from reid_edge.runtime.engines import EngineOptions, load_engine
from reid_edge.runtime.engines import openvino as openvino_engine
from reid_edge.runtime.engines.openvino import OpenVINOEngine
from tests.faults.damage import damage_file

#: Set it to a few hundred to damage by hand what the suite damages a few times.
ROUNDS = int(os.environ.get("REID_EDGE_DAMAGES", "8"))
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 256, 128, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def expected(session_bundle):
    return features(session_bundle, None)


def features(bundle: Bundle, cache_dir: Path | None, precision="fp32"):
    engine = load_engine(bundle, bundle.artifact("openvino", precision), EngineOptions(cache_dir=cache_dir))
    return engine.infer(PIXELS)


def entries(cache_dir: Path) -> list[Path]:
    return sorted((cache_dir / "compiled").glob("*.compiled"))


@pytest.fixture
def no_compilation(monkeypatch):
    """Call it, and from then on nothing can be compiled."""

    def forbid():
        def fail(*_arguments, **_options):
            raise AssertionError("compiled again")

        monkeypatch.setattr(openvino_engine, "compile_network", fail)

    return forbid


def test_a_second_start_compiles_nothing(session_bundle, tmp_path, expected, no_compilation):
    np.testing.assert_array_equal(features(session_bundle, tmp_path), expected)
    no_compilation()
    np.testing.assert_array_equal(features(session_bundle, tmp_path), expected)
    assert len(entries(tmp_path)) == 1


def test_what_is_kept_is_for_this_user_alone(session_bundle, tmp_path):
    features(session_bundle, tmp_path)
    assert (tmp_path / "compiled").stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in entries(tmp_path)] == [0o600]


def test_an_entry_never_stands_for_other_weights_shapes_or_options(session_bundle, tmp_path):
    model, weights = map(session_bundle.read, session_bundle.artifact("openvino", "fp32").files)
    altered = weights[:-1] + bytes([weights[-1] ^ 1])
    keys = {key_of(["x"], model, weights), key_of(["x"], model, altered), key_of(["y"], model, weights)}
    assert len(keys) == 3
    files = {"fp32.xml": model, "fp32.bin": weights}
    artifact = session_bundle.artifact("openvino", "fp32")
    for threads in (1, 2):
        engine = OpenVINOEngine(files, artifact, EngineOptions(cache_dir=tmp_path, threads=threads))
        engine.infer(PIXELS)
        engine.infer(PIXELS[:1])
    OpenVINOEngine({"fp32.xml": model, "fp32.bin": altered}, artifact, EngineOptions(cache_dir=tmp_path)).infer(PIXELS)
    assert len(entries(tmp_path)) == 5


def test_a_damaged_entry_is_thrown_away_and_compiled_again(session_bundle, tmp_path, caplog, expected):
    features(session_bundle, tmp_path)
    (path,) = entries(tmp_path)
    whole = path.read_bytes()
    for seed in range(ROUNDS):
        caplog.clear()
        damage = damage_file(path, random.Random(seed))
        np.testing.assert_array_equal(features(session_bundle, tmp_path), expected, f"seed {seed}: {damage}")
        assert "its checksum is wrong" in caplog.text, f"seed {seed}: {damage}"
        path.write_bytes(whole)


def test_an_entry_under_another_entrys_name_is_thrown_away(session_bundle, tmp_path, expected, caplog):
    features(session_bundle, tmp_path, "fp32")
    (path,) = entries(tmp_path)
    features(session_bundle, tmp_path, "int8")
    (other,) = (found for found in entries(tmp_path) if found != path)
    path.write_bytes(other.read_bytes())
    np.testing.assert_array_equal(features(session_bundle, tmp_path), expected)
    assert "its checksum is wrong" in caplog.text


def replace_by_link(path: Path) -> None:
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def open_to_others(path: Path) -> None:
    path.chmod(0o666)


@pytest.mark.parametrize("change", [replace_by_link, replace_by_pipe, replace_by_folder, open_to_others])
def test_what_this_user_did_not_write_is_not_used(session_bundle, tmp_path, expected, caplog, change):
    features(session_bundle, tmp_path)
    change(entries(tmp_path)[0])
    np.testing.assert_array_equal(features(session_bundle, tmp_path), expected)
    assert "thrown away" in caplog.text


def test_another_users_folder_is_not_used(session_bundle, tmp_path, expected, caplog, monkeypatch):
    features(session_bundle, tmp_path)
    monkeypatch.setattr(compiled_cache.os, "geteuid", lambda: 12345)
    np.testing.assert_array_equal(features(session_bundle, tmp_path), expected)
    assert f"belongs to user {os.getuid()}, this is user 12345" in caplog.text


def test_a_folder_that_others_may_write_is_not_used(session_bundle, tmp_path, expected, caplog):
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled").chmod(0o777)
    np.testing.assert_array_equal(features(session_bundle, tmp_path), expected)
    assert "others may write it: mode 777" in caplog.text
    assert not entries(tmp_path)


def test_an_entry_that_openvino_refuses_is_thrown_away(session_bundle, tmp_path, expected, caplog):
    features(session_bundle, tmp_path)
    (path,) = entries(tmp_path)
    open_cache(tmp_path / "compiled").store(path.stem, b"no compiled model, under a checksum that holds")
    np.testing.assert_array_equal(features(session_bundle, tmp_path), expected)
    assert "thrown away" in caplog.text
    assert path.stat().st_size > 100_000


def test_a_crash_while_an_entry_is_loaded_happens_once(session_bundle, tmp_path, expected, no_compilation, caplog):
    features(session_bundle, tmp_path)
    script = f"""
import os, numpy as np
from pathlib import Path
from reid_edge.bundle import open_bundle
from reid_edge.runtime.engines import EngineOptions, load_engine
from reid_edge.runtime.engines.openvino import openvino_core
openvino_core("a test")
import openvino
openvino.Core.import_model = lambda *_: os._exit(99)
bundle = open_bundle({str(session_bundle.path)!r})
engine = load_engine(bundle, bundle.artifact("openvino", "fp32"), EngineOptions(cache_dir=Path({str(tmp_path)!r})))
engine.infer(np.zeros((2, 256, 128, 3), np.uint8))
"""
    codes = [subprocess.run([sys.executable, "-c", script], check=False).returncode for _ in range(2)]
    assert codes == [99, 0]  # the second compiled
    np.testing.assert_array_equal(features(session_bundle, tmp_path), expected)
    assert "a process ended while it loaded or wrote this" not in caplog.text  # the second process removed it


def test_a_full_disk_is_a_warning_and_no_half_entry(session_bundle, tmp_path, expected, caplog, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reid_edge.files.os.fsync", full)
    np.testing.assert_array_equal(features(session_bundle, tmp_path), expected)
    assert "a compiled model is not kept, the next start compiles again" in caplog.text
    assert list((tmp_path / "compiled").iterdir()) == []


def test_foreign_files_are_removed_and_the_oldest_entries_above_the_limit(tmp_path, caplog):
    cache = open_cache(tmp_path)
    keys = [key_of([number]) for number in range(MAX_ENTRIES + 3)]
    for age, key in enumerate(keys):
        cache.store(key, b"model")
        os.utime(tmp_path / f"{key}.compiled", (age, age))
    (tmp_path / "12201728299718318054.blob").write_bytes(b"of OpenVINO's own cache")
    open_cache(tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == set(keys[3:])
    assert "12201728299718318054.blob: not a compiled model of this release" in caplog.text
    assert cache.take(keys[-1]) == b"model"
    assert cache.take(keys[0]) is None


def test_what_other_processes_write_or_load_now_stays(tmp_path):
    cache = open_cache(tmp_path)
    mine, others = f".reid-edge.{os.getppid()}-1.partial", f"{key_of([1])}.{os.getppid()}.loading"
    gone = f"{key_of([2])}.4194305.loading"  # above the largest number that Linux gives
    for name in (mine, others, gone):
        (tmp_path / name).write_bytes(b"x")
    cache.tidy()
    assert {path.name for path in tmp_path.iterdir()} == {mine, others}
