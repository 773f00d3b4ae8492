"""models/teacher_features.py: the features of a network that is no OSNet, as a teacher."""

import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from reid_edge.errors import DatasetError
from reid_edge.training.feature_table import read_table
from tests.scripts import loaded

SCRIPT = Path(__file__).parents[1] / "models/teacher_features.py"


@pytest.fixture
def network(tmp_path):
    """Takes 1×3×8×4 and gives the mean of each channel, and that of the left half of the first one."""
    taken = ops.parameter([1, 3, 8, 4], np.float32, name="data")
    means = ops.reduce_mean(taken, np.array([2, 3]), keep_dims=False)
    left = ops.reduce_mean(
        ops.strided_slice(taken, [0, 0, 0, 0], [0, 1, 8, 2], [1] * 4, [1, 0, 1, 0], [1, 0, 1, 0]), [2, 3]
    )
    openvino.save_model(openvino.Model([ops.concat([means, left], 1)], [taken]), tmp_path / "n.xml")
    return tmp_path / "n.xml"


@pytest.fixture
def images(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (19, 8, 4, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        folder = tmp_path / "root/train" / ("anna" if number < 9 else "ben")
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{number:02}_c{number % 2 + 1}.png"), image)
    return pixels


def run(*arguments):
    command = [sys.executable, SCRIPT, *map(str, arguments), "--dataset", "folder", "--partial"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(("more", "splits"), [([], {"train"}), (["--combineall"], {"train", "query", "gallery"})])
def test_all_splits_are_seen_on_request(images, tmp_path, monkeypatch, more, splits):
    (tmp_path / "root/query").mkdir()
    (tmp_path / "root/train/ben").rename(tmp_path / "root/query/ben")
    shutil.copytree(tmp_path / "root/query", tmp_path / "root/gallery")
    for number in (0, 1):
        (tmp_path / "root/train/carl").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"root/train/carl/{number}_c1.png"), images[0])
    given = ["n.xml", "--dataset", "folder", "--root", tmp_path / "root", "--out", tmp_path / "t.npy", *more]
    with loaded("teacher_features") as script:
        monkeypatch.setattr(script, "features", lambda _network, paths, *_more, **_options: np.ones((len(paths), 2)))
        monkeypatch.setattr(sys, "argv", ["teacher_features.py", *map(str, given)])
        script.main()
        sources = [Path(line) for line in (tmp_path / "t.sources.txt").read_text().splitlines()]
        assert {source.parent.parent.name for source in sources} == splits
        monkeypatch.setattr(sys, "argv", [*sys.argv[:8], "--split", "3", "--force"])
        with pytest.raises(DatasetError, match="leave out split 3"):
            script.main()


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def seen(pixels):
    channels = pixels.mean((1, 2))
    return unit(np.concatenate([channels, pixels[:, :, :2, :1].mean((1, 2))], 1))


@pytest.mark.slow
def test_features_are_those_of_the_image_and_its_mirror_image(network, images, tmp_path):
    done = run(network, "--root", tmp_path / "root", "--out", tmp_path / "t.npy")
    assert done.returncode == 0, done.stderr
    found = read_table(tmp_path / "t.npy", sorted((tmp_path / "root").rglob("*.png")))
    pixels = images.astype(np.float64)
    np.testing.assert_allclose(unit(found), unit(seen(pixels) + seen(pixels[:, :, ::-1])), atol=2e-3)
    colours = ["--rgb", "--mean", 10, 20, 30, "--std", 2, 2, 2]
    done = run(network, "--root", tmp_path / "root", "--out", tmp_path / "t.npy", "--force", *colours)
    assert done.returncode == 0, done.stderr
    found = read_table(tmp_path / "t.npy", sorted((tmp_path / "root").rglob("*.png")))
    pixels = (pixels[..., ::-1] - [10, 20, 30]) / 2
    np.testing.assert_allclose(unit(found), unit(seen(pixels) + seen(pixels[:, :, ::-1])), atol=2e-3)


@pytest.mark.slow
def test_a_file_that_is_no_network_is_refused(images, tmp_path):
    (tmp_path / "n.xml").write_text("<net/>")
    done = run(tmp_path / "n.xml", "--root", tmp_path / "root", "--out", tmp_path / "t.npy")
    assert done.returncode == 1
    assert "EngineError" in done.stderr and "N×3×H×W" in done.stderr
    assert not (tmp_path / "t.npy").exists()
