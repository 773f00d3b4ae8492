from dataclasses import replace
from typing import get_args

import pytest

from reid_edge.errors import BundleCorruptError, CalibrationError, OutputError, UsageError
from reid_edge.export.targets.table import TARGETS, target_calibration
from reid_edge.files import read_regular
from reid_edge.progress import silent
from reid_edge.runtime.target_folder import RECORD, TargetName, read_record
from tests.export.tiny import tiny_checkpoint


def test_every_name_has_a_target():
    assert tuple(TARGETS) == get_args(TargetName)


@pytest.mark.parametrize("target", TARGETS)
def test_a_folder_has_a_record_of_its_files_and_its_model(made, session_bundle, target):
    folder = made(target)
    record = read_record(folder)
    assert (record.target, record.model_hash) == (target, session_bundle.manifest.model_hash)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {entry.path for entry in record.files} == there - {RECORD}
    for entry in record.files:
        assert len(read_regular(folder / entry.path, max_bytes=1 << 30)) == entry.size_bytes


def test_a_folder_is_replaced_by_force_only_and_never_a_foreign_one(made):
    folder = made("triton")
    with pytest.raises(OutputError, match="use --force"):
        made("triton")
    made("triton", force=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds a file that 'export --for' did not write: .*notes\.txt"):
        made("triton", force=True)
    (folder / RECORD).unlink()
    with pytest.raises(OutputError, match="is not a folder that 'export --for' wrote"):
        made("triton", force=True)
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_damaged_bundle_leaves_no_folder(made, bundle_copy, tmp_path):
    path = bundle_copy.path / "model.fp16.onnx"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleCorruptError, match="is not the file that was exported"):
        made("deepstream", bundle=bundle_copy)
    assert not (tmp_path / "deepstream").exists()


def test_crops_need_the_bundles_own_checkpoint(bundle_copy, session_bundle):
    with pytest.raises(UsageError, match="was made of another checkpoint"):
        target_calibration(session_bundle, tiny_checkpoint(), None, silent)
    manifest = bundle_copy.manifest
    unknown = replace(
        bundle_copy, manifest=replace(manifest, model=replace(manifest.model, checkpoint_sha256="0" * 64))
    )
    with pytest.raises(CalibrationError, match="--checkpoint FILE"):
        target_calibration(unknown, None, None, silent)


def test_the_shipped_crops_need_no_checkpoint(session_bundle, calibration):
    assert target_calibration(session_bundle, None, None, silent).record == calibration.record
