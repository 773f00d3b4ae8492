"""``reid-edge adapt``: from crops, or a video, to another checkpoint."""

import cv2
import numpy as np
import pytest
import torch

from reid_edge.bundle import open_bundle
from reid_edge.cli.adapt import adapt
from reid_edge.osnet import adaptation
from reid_edge.osnet.adaptation import MIN_CROPS
from reid_edge.osnet.checkpoint import Checkpoint, CheckpointInfo, load_checkpoint, save_checkpoint
from reid_edge.osnet.network import OSNet
from tests.camera.street import write_street
from tests.commands import failure, run_command, success
from tests.osnet.test_adaptation import crops_of


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A checkpoint, and a folder of crops."""
    folder = tmp_path_factory.mktemp("place")
    info = CheckpointInfo(width=0.1, size=(48, 24), dataset="far away")
    torch.manual_seed(1)
    save_checkpoint(Checkpoint(info, OSNet(info.config).state_dict()), folder / "start.safetensors")
    (folder / "crops").mkdir()
    for number, crop in enumerate(crops_of(0)):
        cv2.imwrite(str(folder / "crops" / f"{number:03}.png"), crop)
    return folder


@pytest.mark.slow
def test_the_new_checkpoint_is_exported_and_judged_as_any_other(place, tmp_path):
    out = tmp_path / "here.safetensors"
    text = success("adapt", place / "start.safetensors", "--crops", place / "crops", "--place", "hall", "--out", out)
    new, old = load_checkpoint(out), load_checkpoint(place / "start.safetensors")
    assert new.sha256 in text
    assert f"Next: reid-edge export --checkpoint {out}" in text
    assert "crops are of one folder or video" in text
    about = new.info.adaptations[0]
    assert (about.place, about.crops, about.checkpoint_sha256) == ("hall", MIN_CROPS, old.sha256)
    assert str(place / "crops") in about.origin
    bundle = tmp_path / "bundle"
    success(
        "export",
        "--checkpoint",
        out,
        "--out",
        bundle,
        "--formats",
        "onnx",
        "--precision",
        "fp32",
        "--size",
        "64x32",
        "--no-latency",
    )
    manifest = open_bundle(bundle).manifest
    assert manifest.model.checkpoint_sha256 == new.sha256
    assert manifest.model.adapted == (str(about),)
    assert f"to hall with {MIN_CROPS} crops" in " ".join(success("inspect", bundle).split())
    assert "to hall with" in success("inspect", out)
    success("verify", bundle)
    again = ("adapt", bundle, "--crops", place / "crops", "--out", tmp_path / "again.safetensors")
    assert "--checkpoint FILE" in failure(*again)
    assert "is another" in failure(*again, "--checkpoint", place / "start.safetensors")
    success(*again, "--checkpoint", out)
    twice = load_checkpoint(tmp_path / "again.safetensors").info
    assert twice.size == (64, 32)
    assert [one.checkpoint_sha256 for one in twice.adaptations] == [old.sha256, new.sha256]


def test_a_video_of_the_place_gives_the_crops(place, tmp_path):
    video = write_street(tmp_path / "street.avi")
    arguments = ("adapt", place / "start.safetensors", "--source", video, "--out", tmp_path / "new.safetensors")
    run = run_command(*arguments)
    assert run.returncode == 1
    assert "crops of 3 tracks" in run.stderr.replace("\n", " ") or "tracks; 0 other" in run.stderr
    assert "too few" in run.stderr
    assert "--source again" in run.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["street.avi"]
    success(*arguments, "--crops", place / "crops")
    assert "tracks of" in load_checkpoint(tmp_path / "new.safetensors").info.adaptations[0].origin


def test_bad_input_is_refused_and_nothing_is_written(place, tmp_path):
    start = place / "start.safetensors"
    assert "--crops FOLDER" in failure("adapt", start)
    few = tmp_path / "few"
    few.mkdir()
    for number, crop in enumerate(crops_of(0, 3)):
        cv2.imwrite(str(few / f"{number}.png"), crop)
    out = tmp_path / "new.safetensors"
    assert f"at least {MIN_CROPS}" in failure("adapt", start, "--crops", few, "--out", out)
    (few / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    assert "--skip-bad" in failure("adapt", start, "--crops", few, "--out", out)
    skipped = failure("adapt", start, "--crops", few, "--out", out, "--skip-bad")
    assert "1 of 4 images left out, unreadable" in skipped
    assert "3 different crops are too few" in skipped
    assert "neither an image nor a folder" in failure("adapt", start, "--crops", tmp_path / "none", "--out", out)
    np.save(tmp_path / "x.npy", np.zeros(3))
    failure("adapt", tmp_path / "x.npy", "--crops", place / "crops", "--out", out)
    assert not out.exists()
    out.write_text("mine")
    assert "--force" in failure("adapt", start, "--crops", place / "crops", "--out", out)
    assert out.read_text() == "mine"


def test_no_video_is_looked_at_where_the_folders_have_all_that_are_used(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(adaptation, "MAX_CROPS", MIN_CROPS)
    adapt(
        place / "start.safetensors",
        crops=[place / "crops"],
        source=["rtsp://nobody.invalid/endless"],
        place="hall",
        out=tmp_path / "new.safetensors",
    )
    assert "no --source is looked at" in " ".join(capsys.readouterr().err.split())
    about = load_checkpoint(tmp_path / "new.safetensors").info.adaptations[0]
    assert about.origin == str(place / "crops")
