"""Plans for a signed bundle: it stays as it was signed, and only what this user built on this machine is believed.

The library is pretended; tests/export/test_tensorrt.py builds real plans.
"""

import json
import os
import random
import shutil

import pytest

from reid_edge import built_files
from reid_edge.built_files import RECORD
from reid_edge.bundle import MANIFEST, open_bundle
from reid_edge.errors import BundleCorruptError, BundleError, OutputError
from reid_edge.export import tensorrt as builder
from reid_edge.export.tensorrt import build_into_bundle
from reid_edge.manifest import PlanStamp
from reid_edge.signing import SIGNATURE, SigningKey
from tests.faults.damage import damage_file

STAMP = PlanStamp(
    library="tensorrt", version="10.3", device="Orin", compute_capability="8.7", built_precision={}, batches=(1, 8, 32)
)


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """Folder of this user's state; plans that can be built without a library."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(builder, "build_plan", lambda onnx, **_how: (b"plan of " + onnx[:1000], STAMP))
    monkeypatch.setattr(builder, "_runs_here", lambda: False)
    return tmp_path / "state" / "reid-edge" / "built"


@pytest.fixture
def key():
    return SigningKey.generate()


@pytest.fixture
def signed(bundle_copy, key):
    (bundle_copy.path / SIGNATURE).write_bytes(key.sign((bundle_copy.path / MANIFEST).read_bytes()))
    return bundle_copy.path


def build(folder, *precisions):
    return build_into_bundle(open_bundle(folder), precisions or ("fp16",), max_batch=None, on_step=lambda: None)


def plans(folder, **options):
    manifest = open_bundle(folder, **options).manifest
    return [artifact for artifact in manifest.artifacts if artifact.engine == "tensorrt"]


def record_of(state):
    (path,) = state.glob(f"*/{RECORD}")
    return path


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_signed_bundle_stays_as_it_is_and_its_plan_is_found(signed, key, state):
    before = contents(signed)
    built = build(signed)
    assert contents(signed) == before
    opened = open_bundle(signed, trusted_keys=[key.public.text])
    assert opened.signed_by
    artifact = opened.artifact("tensorrt", "fp16")
    assert artifact == built.artifact("tensorrt", "fp16")
    assert opened.read(artifact.files[0]).startswith(b"plan of ")
    opened.check_files()
    assert {path.stat().st_mode & 0o077 for path in (record_of(state), record_of(state).parent)} == {0}


def test_an_unsigned_bundle_takes_its_plan_into_its_manifest(bundle_copy, state):
    build(bundle_copy.path)
    assert [artifact.name for artifact in plans(bundle_copy.path, built_dir=None)] == ["tensorrt/fp16"]
    assert not state.exists()


def test_plans_are_added_and_replaced_and_the_replaced_go(signed, state, monkeypatch):
    build(signed, "fp32")
    build(signed, "fp16")
    assert [artifact.precision for artifact in plans(signed)] == ["fp32", "fp16"]
    monkeypatch.setattr(builder, "build_plan", lambda onnx, **_how: (b"another plan", STAMP))
    build(signed, "fp16")
    assert open_bundle(signed).read(plans(signed)[1].files[0]) == b"another plan"
    assert len(list(state.glob("*/tensorrt/*"))) == 2


def test_a_build_that_fails_leaves_what_was_built(signed, monkeypatch):
    build(signed, "fp32")

    def full(_onnx, **_how):
        raise OutputError("disk full")

    monkeypatch.setattr(builder, "build_plan", full)
    with pytest.raises(OutputError):
        build(signed, "fp32")
    assert [artifact.precision for artifact in plans(signed)] == ["fp32"]
    open_bundle(signed).check_files()


def test_a_plan_that_changed_is_not_loaded(signed, state):
    build(signed)
    (path,) = state.glob("*/tensorrt/*.plan")
    path.write_bytes(b"plan of somebody else")
    opened = open_bundle(signed)
    with pytest.raises(BundleCorruptError, match=r"\.plan"):
        opened.read(opened.artifact("tensorrt", "fp16").files[0])


def for_another_manifest(path, folder):
    manifest = folder / MANIFEST
    manifest.write_bytes(manifest.read_bytes() + b"\n")  # as another bundle, put in the place of this one


def copied_for_another_manifest(path, folder):
    import hashlib

    for_another_manifest(path, folder)
    digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    shutil.copytree(path.parent, path.parent.with_name(digest))
    path.parent.with_name(digest).chmod(0o700)


def on_another_machine(path, _folder):
    path.write_text(path.read_text().replace('"machine": "', '"machine": "0'))


def open_to_others(path, _folder):
    path.chmod(0o666)


def by_a_link(path, _folder):
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


def outside_the_folder(path, _folder):
    record = json.loads(path.read_text())
    record["artifacts"][0]["files"][0]["path"] = "../../../plan"
    path.write_text(json.dumps(record))


def of_a_later_format(path, _folder):
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 2'))


def garbled(path, _folder):
    path.write_bytes(b"{" * 100_000)


CHANGES = [
    for_another_manifest,
    copied_for_another_manifest,
    on_another_machine,
    open_to_others,
    by_a_link,
    outside_the_folder,
    of_a_later_format,
    garbled,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_record_that_is_not_this_bundles_this_machines_and_this_users_alone_is_not_used(
    signed, state, change, caplog
):
    build(signed)
    change(record_of(state), signed)
    assert plans(signed) == []
    assert change is for_another_manifest or "what was built from" in caplog.text


def test_a_record_of_another_user_is_not_used(signed, monkeypatch, caplog):
    build(signed)
    assert plans(signed)
    found = os.lstat

    def another(place, **options):
        return os.stat_result([*found(place)[:4], 12345, *found(place)[5:]])

    monkeypatch.setattr(built_files.Path, "lstat", another)
    assert plans(signed) == []
    assert "belongs to user 12345" in caplog.text


def test_a_damaged_record_is_used_as_it_was_or_not_at_all(signed, state):
    build(signed)
    path, right = record_of(state), plans(signed)
    whole = path.read_bytes()
    for seed in range(150):
        damage = damage_file(path, random.Random(seed))
        try:
            opened = open_bundle(signed)
            for artifact in opened.manifest.artifacts:
                if artifact.engine == "tensorrt" and artifact.files != right[0].files:
                    opened.read(artifact.files[0])
        except BundleError:
            pass
        except Exception as error:
            raise AssertionError(f"seed {seed}: {damage}") from error
        path.write_bytes(whole)


def test_a_user_without_a_home_is_told_what_to_set(signed, monkeypatch):
    monkeypatch.setattr(builder, "default_built_dir", lambda: None)
    with pytest.raises(OutputError, match="XDG_STATE_HOME"):
        build(signed)
