"""The commands as a person runs them, on real files; in a process of their own where only a process shows it."""

import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet
import pytest
import torch

from reid_edge.osnet.checkpoint import save_checkpoint
from tests.commands import failure, run_command, success
from tests.conftest import random_crops


def process(*arguments, **options):
    """Run a command in a process of its own."""
    command = [sys.executable, "-c", "from reid_edge.__main__ import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crops")
    (folder / "below").mkdir()
    for number, crop in enumerate(random_crops(np.random.default_rng(0), 5)):
        cv2.imwrite(str(folder / ("below" if number > 2 else "") / f"{number}.png"), crop)
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.mark.slow
def test_export_then_verify_then_inspect(tmp_path, session_bundle):
    printed = success(
        *(
            "export",
            "--width",
            "0.25",
            "--resolution",
            "0.25",
            "--precision",
            "fp32,fp16",
            "--formats",
            "onnx,openvino",
        ),
        cwd=tmp_path,
    )
    for text in ("osnet_x0_25_64x32", "model.onnx", "openvino/fp16.xml", "5.2M", " ms", "cosine ≥ 0.99999"):
        assert text in printed
    verified = success("verify", "osnet_x0_25_64x32", cwd=tmp_path)
    assert verified.count("right") == 4
    shown = success("inspect", "osnet_x0_25_64x32", cwd=tmp_path)
    assert "64x32 uint8 NHWC BGR" in shown
    manifest = json.loads(success("inspect", "--json", "osnet_x0_25_64x32", cwd=tmp_path))
    assert manifest["input"]["size"] == [64, 32]
    names = [f"{one['engine']}/{one['precision']}" for one in manifest["artifacts"]]
    timed = [(one["artifact"], one["crops"]) for one in manifest["latency"]]
    assert sorted(timed) == sorted((name, crops) for name in names for crops in (1, 8))
    assert "--force" in failure("export", "--width", "0.25", "--resolution", "0.25", cwd=tmp_path)


def test_inspect_says_how_a_checkpoint_was_trained(checkpoint, tmp_path):
    settings = {"schedule": {"epochs": 3}}
    info = dataclasses.replace(checkpoint.info, recipe="scratch", metrics={"market1501/mAP": 0.703}, training=settings)
    path = tmp_path / "mine.safetensors"
    save_checkpoint(dataclasses.replace(checkpoint, info=info), path)
    shown = success("inspect", path)
    for text in ("OSNet x0.25", checkpoint.sha256, "scratch", "market1501/mAP 70.30", "256x128 RGB"):
        assert text in shown
    assert json.loads(success("inspect", "--json", path))["training"] == settings
    path.write_bytes(path.read_bytes()[:1000])
    assert "truncated" in failure("inspect", path)


def test_extract_writes_npy_with_its_sources(session_bundle, crops, tmp_path):
    success("extract", session_bundle.path, crops, "--out", tmp_path / "f.npy", "--engine", "onnxruntime")
    features = np.load(tmp_path / "f.npy")
    assert features.shape == (5, 512)
    assert features.dtype == np.float32
    sources = (tmp_path / "f.sources.txt").read_text().splitlines()
    assert [Path(source).name for source in sources] == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.npy", "f.sources.txt"]


def test_extract_writes_parquet_with_the_model_hash(session_bundle, crops, tmp_path):
    for engine in ("openvino", "onnxruntime"):
        success("extract", session_bundle.path, crops, "--out", tmp_path / f"{engine}.parquet", "--engine", engine)
    tables = [pyarrow.parquet.read_table(tmp_path / f"{name}.parquet") for name in ("openvino", "onnxruntime")]
    assert tables[0].schema.metadata[b"model_hash"].decode() == session_bundle.manifest.model_hash
    first, second = (np.array(table["feature"].to_pylist(), np.float32) for table in tables)
    np.testing.assert_allclose(first, second, atol=1e-4)
    assert tables[0]["source"].to_pylist()[4].endswith("below/4.png")


def test_extract_writes_csv_with_the_name_and_every_digit_of_a_feature(session_bundle, crops, tmp_path):
    for suffix in ("csv", "npy"):
        out = tmp_path / f"f.{suffix}"
        success("extract", session_bundle.path, crops, "--out", out, "--engine", "onnxruntime", "--precision", "fp32")
    with (tmp_path / "f.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header[:3] == ["source", "f0", "f1"]
    assert [row[0] for row in rows] == (tmp_path / "f.sources.txt").read_text().splitlines()
    np.testing.assert_array_equal(np.array([row[1:] for row in rows], np.float32), np.load(tmp_path / "f.npy"))


def test_extract_leaves_bad_files_out_on_request_and_counts_them(session_bundle, crops, tmp_path):
    folder = tmp_path / "crops"
    shutil.copytree(crops, folder)
    whole = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "0.png").write_bytes(b"")
    out = tmp_path / "f.npy"
    assert "--skip-bad" in failure("extract", session_bundle.path, folder, "--out", out)
    assert not out.exists()
    run = run_command("extract", session_bundle.path, folder, "--out", out, "--skip-bad")
    assert run.returncode == 0
    assert f"2 of 5 images left out, unreadable: {folder / '0.png'}, {folder / '1.png'}" in run.stderr
    assert np.load(out).shape == (3, 512)
    names = (tmp_path / "f.sources.txt").read_text().splitlines()
    assert [Path(name).name for name in names] == ["2.png", "3.png", "4.png"]


def test_explain_leaves_bad_files_out_on_request(checkpoint, crops, tmp_path):
    save_checkpoint(checkpoint, tmp_path / "m.safetensors")
    shutil.copytree(crops / "below", tmp_path / "below")
    (tmp_path / "below" / "bad.png").write_bytes(b"")
    arguments = ("explain", "m.safetensors", "below", "--clusters", "0", "--maps", "1", "--out", "e.png")
    assert "bad.png is not a readable image" in failure(*arguments, cwd=tmp_path)
    run = run_command(*arguments, "--skip-bad", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "1 of 3 images left out, unreadable: below/bad.png" in run.stderr
    assert (tmp_path / "e.png").exists()


def test_extract_of_nothing_readable_is_an_error(session_bundle, tmp_path):
    (tmp_path / "1.png").write_bytes(b"no image")
    assert "none of 1 image can be read" in failure(
        "extract", session_bundle.path, tmp_path, "--skip-bad", "--out", tmp_path / "f.npy"
    )


def test_extract_refuses_bad_outputs_before_any_work(session_bundle, crops, tmp_path):
    (tmp_path / "f.npy").write_text("precious")
    assert "--force" in failure("extract", session_bundle.path, crops, "--out", tmp_path / "f.npy")
    assert (tmp_path / "f.npy").read_text() == "precious"
    assert ".parquet" in failure("extract", session_bundle.path, crops, "--out", tmp_path / "f.txt")
    assert "not a writable folder" in failure("extract", session_bundle.path, crops, "--out", tmp_path / "no" / "f.npy")


def test_extract_names_what_is_no_image(session_bundle, crops, tmp_path):
    out = ("--out", tmp_path / "f.npy")
    assert "notes.txt is not a readable image" in failure("extract", session_bundle.path, crops / "notes.txt", *out)
    assert "neither an image nor a folder" in failure("extract", session_bundle.path, tmp_path / "none", *out)
    assert not list(tmp_path.iterdir())


def test_extract_keeps_a_listing_that_is_there(session_bundle, crops, tmp_path):
    (tmp_path / "f.sources.txt").write_text("precious")
    assert "--force" in failure("extract", session_bundle.path, crops, "--out", tmp_path / "f.npy")
    assert (tmp_path / "f.sources.txt").read_text() == "precious"


def test_truncated_and_oddly_named_images_are_refused(session_bundle, rng, tmp_path):
    out = ("--out", tmp_path / "f.npy", "--engine", "onnxruntime")
    for suffix in ("jpg", "png"):
        whole = cv2.imencode(f".{suffix}", random_crops(rng, 1)[0])[1].tobytes()
        (tmp_path / f"cut.{suffix}").write_bytes(whole[: len(whole) // 2])
        message = failure("extract", session_bundle.path, tmp_path / f"cut.{suffix}", *out)
        assert f"cut.{suffix} is" in message
    for name in ("a\nb.png", os.fsdecode(b"\xff.png")):
        (tmp_path / "odd").mkdir(exist_ok=True)
        (tmp_path / "odd" / name).write_bytes(b"")
        assert "printable" in failure("extract", session_bundle.path, tmp_path / "odd", *out)
        (tmp_path / "odd" / name).unlink()


def test_brackets_in_paths_are_printed_as_they_are(session_bundle, crops, tmp_path):
    (tmp_path / "a[/b]").mkdir(parents=True)
    assert "a[/b]/f[x].npy" in success("extract", session_bundle.path, crops, "--out", tmp_path / "a[/b]" / "f[x].npy")


def test_a_terminal_without_unicode_is_no_reason_to_fail(session_bundle):
    assert process("inspect", session_bundle.path, env=os.environ | {"PYTHONIOENCODING": "ascii"}).returncode == 0


def test_a_process_that_fails_prints_one_message_and_no_traceback(tmp_path):
    run = process("inspect", "nowhere", cwd=tmp_path)
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.startswith("BundleError: nowhere is not a bundle")
    assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_import_makes_a_checkpoint_that_exports(tmp_path, checkpoint):
    from tests.osnet.torchreid_names import to_torchreid

    torch.save({"state_dict": to_torchreid(checkpoint.state)}, tmp_path / "mine.pth.tar")
    assert checkpoint.sha256 in success("import", "mine.pth.tar", "--dataset", "mine", cwd=tmp_path)
    exported = success(
        "export", "--checkpoint", "mine.safetensors", "--precision", "fp32", "--no-latency", "--out", "b", cwd=tmp_path
    )
    assert "cosine ≥ 0.99999" in exported
    assert json.loads((tmp_path / "b" / "manifest.json").read_text())["model"]["dataset"] == "mine"
    assert "--force" in failure("import", "mine.pth.tar", cwd=tmp_path)
    assert "width 0.25, but width 0.5" in failure("import", "mine.pth.tar", "--width", "0.5", "--force", cwd=tmp_path)


@pytest.mark.slow
def test_complexity_prints_table_6(session_bundle):
    table = success("complexity")
    for text in ("978.9M", "550.7M", "244.9M", "61.5M", "82.3M", "5.2M", "2.2M", "0.2M"):
        assert text in table
    one = success("complexity", "--width", "1", "--size", "320x160")
    assert "1,529.3M" in one
    assert "82.3M" in success("complexity", "--onnx", session_bundle.path / "model.int8.onnx")


def test_doctor_reports_what_is_installed():
    report = success("doctor")
    for text in ("Python", "CPU", "OpenVINO", "onnxruntime", "TensorRT", "torch"):
        assert text in report


def test_evaluate_prints_ranking_quality(session_bundle, tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("query", "bounding_box_test"):
        (tmp_path / folder).mkdir()
    for identity in range(1, 6):
        crop = random_crops(rng, 1)[0]
        cv2.imwrite(str(tmp_path / "query" / f"{identity:04}_c1s1_000001_00.jpg"), crop)
        cv2.imwrite(str(tmp_path / "bounding_box_test" / f"{identity:04}_c2s1_000001_00.jpg"), crop)
    printed = success("evaluate", session_bundle.path, "--root", tmp_path, "--partial", "--precision", "int8")
    assert "5 of 5 queries with a match, 5 gallery" in printed
    assert printed.count("100.00") == 4  # R1, R5, mAP, mINP
    assert "market1501's query split has 3,368" in failure("evaluate", session_bundle.path, "--root", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export"], "--width"),
        (["export", "--width", "0.5"], "no checkpoint of width 0.5 ships"),
        (["export", "--width", "9"], "no checkpoint of width 9"),
        (["export", "--width", "0.25", "--size", "8x8"], "too small"),
        (["export", "--width", "0.25", "--size", "8"], "HEIGHTxWIDTH"),
        (["export", "--width", "0.25", "--resolution", "0"], "resolution must be in"),
        (["export", "--width", "0.25", "--size", "8x8", "--out", "new/folder/b"], "too small"),
        (["export", "--width", "0.25", "--size", "64x32", "--resolution", "0.5"], "not both"),
        (["export", "--width", "0.25", "--precision", "fp64"], "fp32,fp16,int8"),
        (["export", "--width", "0.25", "--formats", "coreml"], "onnx,openvino,native,tensorrt"),
        (["export", "--checkpoint", "none.pth"], "no checkpoint at none.pth"),
        (["export", "--for", "new-site"], "give --width β too, of the checkpoint for new sites"),
        (["tune", "--for", "new-site", "--latency-ms", "5"], "chooses a shipped checkpoint: give --width"),
        (["tune", "--for", "new-site", "--width", "0.5"], "no checkpoint of width 0.5 ships for new sites"),
        (["export", "--width", "0.5", "--for", "new-site"], "no checkpoint of width 0.5 ships for new sites"),
        (["export", "--for", "new-site", "--checkpoint", "m.pth"], "chooses a shipped checkpoint"),
        (["export", "--width", "0.25", "--for", "new-site,moon"], "one or more of new-site,deepstream"),
        (["export", "--width", "0.25", "--for", "hailo,qnn"], "files of one software"),
        (["export", "--width", "0.25", "--calibration", "nowhere"], "no folder of calibration crops"),
        (["import", "none.pth"], "no checkpoint at none.pth"),
        (["complexity", "--width", "7"], "width must be in"),
        (["verify", "nowhere"], "not a bundle"),
        (["inspect", "nowhere"], "not a bundle"),
        (["extract", "nowhere", "."], "no image"),
        (["build", "nowhere"], "not a bundle"),
        (["evaluate", "nowhere", "--root", "."], "not a bundle"),
    ],
)
def test_bad_input_gives_one_message_and_leaves_nothing(tmp_path, arguments, message):
    assert message in failure(*arguments, cwd=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["import", "m.pth"],
        ["export", "--checkpoint", "m.pth"],
        ["tune", "--checkpoint", "m.pth"],
        ["explain", "m.pth", "crops"],
        ["benchmark", "--grid", "grid", "--checkpoint", "m.pth"],
    ],
)
def test_every_command_that_takes_weights_names_a_file_of_another_kind(tmp_path, arguments):
    (tmp_path / "m.pth").write_bytes(b"<!DOCTYPE html><title>Sign in</title>")
    assert failure(*arguments, cwd=tmp_path).strip().startswith("CheckpointError: m.pth is a web page ('Sign in')")
    assert [path.name for path in tmp_path.iterdir()] == ["m.pth"]


@pytest.mark.parametrize("command", [["verify"], ["inspect"], ["build"], ["evaluate", "--root", "."]])
def test_every_command_that_takes_a_bundle_says_how_to_make_one_of_a_checkpoint(tmp_path, command):
    (tmp_path / "m.pth").write_bytes(b"weights")
    assert "reid-edge export --checkpoint" in failure(*command, "m.pth", cwd=tmp_path)


def test_weights_in_an_unusual_place_are_found_and_said(checkpoint, tmp_path):
    torch.save({"ema": {f"net.{name}": tensor for name, tensor in checkpoint.state.items()}}, tmp_path / "m.ckpt")
    done = run_command("import", "m.ckpt", cwd=tmp_path)
    assert done.returncode == 0
    assert "m.ckpt: weights found under 'ema/net'." in done.stderr
    assert checkpoint.sha256 in done.stdout
    assert (tmp_path / "m.safetensors").is_file()


@pytest.mark.slow
def test_a_killed_export_leaves_nothing(tmp_path):
    command = [sys.executable, "-c", "from reid_edge.__main__ import main; main()", "export", "--width", "0.25"]
    export = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".*/model.onnx")) and time.monotonic() < deadline:
        time.sleep(0.1)
    export.send_signal(signal.SIGTERM)
    assert export.wait(60) == 143
    assert not list(tmp_path.iterdir())


def test_a_changed_bundle_fails_verification(bundle_copy):
    path = bundle_copy.path / "openvino" / "int8.bin"
    content = bytearray(path.read_bytes())
    content[1000] ^= 255
    path.write_bytes(bytes(content))
    assert "int8.bin is not the file that was exported" in failure("verify", bundle_copy.path)


def test_a_missing_extra_is_named(tmp_path):
    """A module that cannot be imported stands for one that is not installed."""
    (tmp_path / "nncf.py").write_text("raise ModuleNotFoundError(\"No module named 'nncf'\", name='nncf')")
    search_path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    run = process("export", "--width", "0.25", cwd=tmp_path, env=os.environ | {"PYTHONPATH": search_path})
    assert run.returncode == 1
    assert "pip install 'reid-edge[export]'" in run.stderr


def test_threads_are_set_before_the_libraries_that_read_them_are_imported():
    code = "import sys, reid_edge.__main__; print([name for name in ('numpy', 'torch') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
