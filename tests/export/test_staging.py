"""Folders are replaced whole or not at all; no network is needed to see it."""

import shutil

import pytest

from reid_edge.bundle import open_bundle
from reid_edge.errors import OutputError, ParityError
from reid_edge.export import staging
from reid_edge.export.staging import staged_folder


def write_bundle(out, bundle, *, force=False):
    """Do what an export does, with a copy of a bundle instead of files of its own."""
    with staged_folder(out, force=force) as folder:
        shutil.copytree(bundle.path, folder, dirs_exist_ok=True)


def fail(out, error, *, force=False):
    with staged_folder(out, force=force) as folder:
        (folder / "half.onnx").write_bytes(b"half")
        raise error


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_existing_bundle_is_replaced_only_with_force(tmp_path, session_bundle):
    out = tmp_path / "b"
    write_bundle(out, session_bundle)
    inode = out.stat().st_ino
    with pytest.raises(OutputError, match="--force"):
        write_bundle(out, session_bundle)
    assert out.stat().st_ino == inode
    write_bundle(out, session_bundle, force=True)
    assert out.stat().st_ino != inode
    assert open_bundle(out).manifest == session_bundle.manifest
    assert names(tmp_path) == ["b"]


def test_an_empty_folder_is_taken(tmp_path, session_bundle):
    (tmp_path / "b").mkdir()
    write_bundle(tmp_path / "b", session_bundle)
    assert open_bundle(tmp_path / "b").manifest == session_bundle.manifest


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path, session_bundle):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "wedding.jpg").touch()
    with pytest.raises(OutputError, match="not a bundle"):
        write_bundle(tmp_path / "photos", session_bundle, force=True)
    assert (tmp_path / "photos" / "wedding.jpg").exists()


@pytest.mark.parametrize("foreign", ["manifest.json", "thesis.txt"])
def test_a_folder_with_anything_but_a_bundle_is_never_replaced(tmp_path, session_bundle, foreign):
    """Web applications have a manifest.json too; and somebody may have put another file into a bundle."""
    out = tmp_path / "b"
    if foreign == "manifest.json":
        out.mkdir()
    else:
        write_bundle(out, session_bundle)
    (out / foreign).write_text('{"name": "My app"}')
    with pytest.raises(OutputError, match="not replaced even with --force"):
        write_bundle(out, session_bundle, force=True)
    assert (out / foreign).read_text() == '{"name": "My app"}'


def test_a_linked_output_is_replaced_where_it_points(tmp_path, session_bundle):
    write_bundle(tmp_path / "real", session_bundle)
    inode = (tmp_path / "real").stat().st_ino
    (tmp_path / "link").symlink_to("real")
    write_bundle(tmp_path / "link", session_bundle, force=True)
    assert (tmp_path / "real").stat().st_ino != inode
    assert names(tmp_path) == ["link", "real"]


@pytest.mark.parametrize("error", [ParityError("wrong"), KeyboardInterrupt()])
def test_a_failure_leaves_what_was_there(tmp_path, session_bundle, error):
    write_bundle(tmp_path / "b", session_bundle)
    with pytest.raises(type(error)):
        fail(tmp_path / "b", error, force=True)
    assert open_bundle(tmp_path / "b").manifest == session_bundle.manifest
    assert names(tmp_path) == ["b"]


def test_an_output_that_cannot_be_made_is_an_error(tmp_path, session_bundle):
    (tmp_path / "file").write_text("a file where a folder should be")
    with pytest.raises(OutputError, match="cannot write"):
        write_bundle(tmp_path / "file" / "b", session_bundle)


@pytest.mark.parametrize("error", [ParityError("wrong"), KeyboardInterrupt()])
def test_folders_made_for_a_failure_are_removed(tmp_path, error):
    with pytest.raises(type(error)):
        fail(tmp_path / "new" / "folder" / "b", error)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_cannot_be_written_is_an_error_that_leaves_nothing(tmp_path):
    with pytest.raises(OutputError, match="No space left on device"):
        fail(tmp_path / "b", OSError(28, "No space left on device"))
    assert not list(tmp_path.iterdir())


def test_a_small_disk_is_an_error_before_any_work(tmp_path, session_bundle, monkeypatch):
    monkeypatch.setattr(staging, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(OutputError, match="MB free"):
        write_bundle(tmp_path / "b", session_bundle)
    assert not list(tmp_path.iterdir())
