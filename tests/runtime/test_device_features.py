import json
import shutil

import numpy as np
import pytest

from reid_edge.errors import BundleCorruptError, BundleError, BundleVersionError, InputError, UsageError
from reid_edge.export.calibration import shipped_set_of
from reid_edge.export.targets.table import export_target
from reid_edge.runtime.device_features import verify_features
from reid_edge.runtime.engines import EngineOptions, load_engine
from reid_edge.runtime.target_folder import CHECK, RECORD


@pytest.fixture(scope="module")
def target(session_bundle, tmp_path_factory):
    """A folder for a compiler, with crops to check its device."""
    manifest = session_bundle.manifest
    calibration = shipped_set_of(manifest.model.checkpoint_sha256, manifest.input.size)
    out = tmp_path_factory.mktemp("target") / "hailo"
    export_target(session_bundle, "hailo", out, precisions=("fp32",), calibration=calibration)
    return out


@pytest.fixture(scope="module")
def crops(target):
    with np.load(target / CHECK) as stored:
        return stored["crops"]


@pytest.fixture(scope="module")
def expected(target):
    with np.load(target / CHECK) as stored:
        return stored["features"]


@pytest.fixture
def saved(tmp_path):
    def save(features):
        np.save(tmp_path / "features.npy", features)
        return tmp_path / "features.npy"

    return save


def test_int8_that_keeps_the_ranking_is_right(target, session_bundle, crops, saved):
    engine = load_engine(session_bundle, session_bundle.artifact("onnxruntime", "int8"), EngineOptions())
    features = saved(np.concatenate([engine.infer(crop[None]) for crop in crops]))
    verdict = verify_features(target, features, "int8")
    assert verdict.reasons == ()
    assert "of 32 crops that did not calibrate" in verdict.detail
    assert verify_features(target, features, "fp16").reasons != ()


def test_int8_that_changes_the_ranking_is_wrong(target, expected, saved, rng):
    noisy = expected + 0.5 * expected.std() * rng.standard_normal(expected.shape)
    assert any("ranking" in reason for reason in verify_features(target, saved(noisy), "int8").reasons)


def test_rows_in_another_order_are_wrong(target, expected, saved):
    assert verify_features(target, saved(expected[::-1]), "int8").reasons
    assert verify_features(target, saved(np.roll(expected, 1, axis=0)), "fp32").reasons


def test_scale_and_length_one_axes_do_not_matter(target, expected, saved):
    assert not verify_features(target, saved(3 * expected[:, None, None]), "fp32").reasons


def test_dead_features_are_wrong(target, expected, saved):
    assert verify_features(target, saved(np.full_like(expected, np.nan)), "int8").reasons
    assert verify_features(target, saved(np.zeros_like(expected)), "fp16").reasons


def test_a_bundle_is_judged_on_its_golden_crops(session_bundle, saved):
    _crops, golden = session_bundle.golden()
    assert not verify_features(session_bundle.path, saved(golden), "int8").reasons
    assert verify_features(session_bundle.path, saved(golden[::-1]), "int8").reasons


def test_int8_without_anything_to_compare_with_is_refused(bundle_copy, saved):
    text = (bundle_copy.path / "manifest.json").read_text()
    held = json.loads(text)
    held["artifacts"] = [one for one in held["artifacts"] if one["precision"] != "int8"]
    (bundle_copy.path / "manifest.json").write_text(json.dumps(held))
    with pytest.raises(UsageError, match="no INT8 file to compare with"):
        verify_features(bundle_copy.path, saved(bundle_copy.golden()[1]), "int8")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 512)), r"an array of \(3, 512\); expected 40×512: one row for each crop"),
        (np.zeros(40), r"an array of \(40,\)"),
        (np.array(["a"]), "holds no numbers"),
        (np.array(1.0), r"an array of \(\)"),
    ],
)
def test_other_arrays_are_refused(target, saved, array, message):
    with pytest.raises(InputError, match=message):
        verify_features(target, saved(array), "int8")


def test_files_that_are_no_features_are_refused(target, tmp_path, saved):
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "pickle.npy", np.array([{}]), allow_pickle=True)
    np.savez(tmp_path / "several.npz", features=np.ones((2, 3)))
    (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    np.save(tmp_path / "huge.npy", np.ones((2, 3), np.float32))
    content = (tmp_path / "huge.npy").read_bytes()
    (tmp_path / "huge.npy").write_bytes(content.replace(b"(2, 3), }" + 14 * b" ", b"(2" + 14 * b"0" + b", 3), }"))
    for name in ("text.npy", "pickle.npy", "several.npy", "huge.npy"):
        with pytest.raises(InputError, match=r"cannot be read as features: it is damaged, or no \.npy file of numbers"):
            verify_features(target, tmp_path / name, "int8")
    with pytest.raises(InputError, match=r"cannot be read as features: .*No such file"):
        verify_features(target, tmp_path / "missing.npy", "int8")


def test_results_of_qnn_net_run_are_read_in_their_numbers_order(target, expected, tmp_path):
    for number, row in enumerate(expected):
        (tmp_path / "output" / f"Result_{number}").mkdir(parents=True)
        row.astype("<f4").tofile(tmp_path / "output" / f"Result_{number}" / "features.raw")
    assert not verify_features(target, tmp_path / "output", "fp32").reasons
    shutil.rmtree(tmp_path / "output" / "Result_7")
    with pytest.raises(InputError, match="some are missing"):
        verify_features(target, tmp_path / "output", "fp32")


def test_a_folder_that_is_neither_is_refused(tmp_path, saved, expected):
    with pytest.raises(BundleError, match="is not a bundle"):
        verify_features(tmp_path, saved(expected), "int8")


def test_damaged_folders_are_refused(target, tmp_path, saved, expected):
    copy = shutil.copytree(target, tmp_path / "copy")
    content = bytearray((copy / CHECK).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / CHECK).write_bytes(content)
    with pytest.raises(BundleCorruptError, match="its sha256 is another"):
        verify_features(copy, saved(expected), "int8")
    (copy / CHECK).unlink()
    with pytest.raises(BundleCorruptError, match="missing or unreadable"):
        verify_features(copy, saved(expected), "int8")
    text = (copy / RECORD).read_text()
    (copy / RECORD).write_text(text.replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(BundleVersionError, match="Upgrade reid-edge"):
        verify_features(copy, saved(expected), "int8")
    (copy / RECORD).write_text(text[:50])
    with pytest.raises(BundleCorruptError, match="make the folder again"):
        verify_features(copy, saved(expected), "int8")
