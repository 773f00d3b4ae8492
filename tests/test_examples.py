"""Every script and notebook of ``examples/`` is run, on pictures and videos that the tests draw."""

import json
import os
import re
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from reid_edge import Selection, open_store, query_by_feature, search
from reid_edge.export.targets.table import export_target
from tests.camera.street import street_frames, walker, write_street
from tests.conftest import REPOSITORY

EXAMPLES = REPOSITORY / "examples"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(session_bundle, tmp_path_factory):
    """A folder with a bundle, a video, a frame of it, a person, crops, a tiny dataset."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "osnet_x0_25_256x128").symlink_to(session_bundle.path)
    write_street(folder / "street.avi")
    cv2.imwrite(str(folder / "person.jpg"), walker(0))
    cv2.imwrite(str(folder / "frame.jpg"), street_frames(12)[-1])
    for name in ("crops", "market1501/query", "market1501/bounding_box_test", "market1501/bounding_box_train"):
        (folder / name).mkdir(parents=True)
    for number in range(3):
        cv2.imwrite(str(folder / "crops" / f"{number}.jpg"), walker(number))
        for split, camera in (("query", 1), ("bounding_box_test", 2)):
            name = f"{number + 1:04d}_c{camera}s1_000001_00.jpg"
            cv2.imwrite(str(folder / "market1501" / split / name), walker(number))
    return folder


def _run(folder, *arguments, **variables):
    environment = os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": str(REPOSITORY)} | variables
    run = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def _script(folder, name, *arguments):
    return _run(folder, EXAMPLES / name, "osnet_x0_25_256x128", *arguments)


def _notebook(folder, name):
    """Run the code cells in one process, one after the other."""
    cells = json.loads((EXAMPLES / "notebooks" / name).read_text(encoding="utf-8"))["cells"]
    return _run(folder, "-c", "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))


def test_features_of_a_frame(folder):
    printed = _script(folder, "features_of_a_frame.py", "frame.jpg", "0,5,50,115", "0,123,50,233", "900,0,950,90")
    assert "box 2 was skipped" in printed
    assert printed.count("1.000") == 2


def test_rank_a_folder(folder):
    first = _script(folder, "rank_a_folder.py", "person.jpg", "crops").splitlines()[0]
    assert first.split()[0] == "1"
    assert first.endswith("0.jpg")


def test_own_detector(folder):
    printed = _script(folder, "own_detector.py", "street.avi")
    assert "60 frames" in printed
    assert int(re.search(r"(\d+) features", printed)[1]) > 0


def test_receive_batches(folder):
    printed = _script(folder, "receive_batches.py", "person.jpg")
    assert re.search(r"stored 1; still waiting 0", printed)
    assert int(re.search(r"sent (\d+) times", printed)[1]) > 1


def test_deepstreams_features_go_into_a_gallery(folder, session_bundle):
    export_target(session_bundle, "deepstream", folder / "deepstream", precisions=("fp16",))
    arguments = ("deepstream", "detector.txt", "tracker.yml", "people.db", "file:///street.avi")
    path = os.pathsep.join([str(REPOSITORY / "tests" / "deepstream"), str(REPOSITORY)])
    printed = _run(folder, EXAMPLES / "deepstream_bridge.py", *arguments, PYTHONPATH=path)
    assert "stored 4 observations in people.db; still waiting 0" in printed
    even = np.array([3.0, 0.1] * 256, np.float32)  # what the pipeline's nvinfer gives of track 2
    query = query_by_feature(even / np.linalg.norm(even), session_bundle.manifest.model_hash, image_sha256="0" * 64)
    store = open_store(f"sqlite:{folder / 'people.db'}")
    found = search(store, query, selection=Selection(), purpose="test", now_us=time.time_ns() // 1000)
    store.close()
    assert [round(one.cosine, 2) for one in found] == [1.0, pytest.approx(0.07, abs=0.01)]
    assert found[0].best.camera == "deepstream"
    assert found[0].best.box == pytest.approx((900 / 1920, 200 / 1080, 1050 / 1920, 600 / 1080), abs=1e-3)
    assert found[0].last_us - found[0].first_us == pytest.approx(4.75e6, abs=1e5)


def test_a_video_goes_into_a_gallery_which_is_searched_and_looked_at(folder):
    found = _script(folder, "video_to_gallery.py", "street.avi", "person.jpg").splitlines()
    assert found
    assert all("camera gate, tracklet" in line for line in found)
    assert re.search(r"\d+ observations of \d+ tracklets", _notebook(folder, "look_at_a_gallery.ipynb"))


def test_compare_checkpoints(folder):
    assert "osnet_x0_25_256x128: R1 100.0%, mAP 100.0%" in _notebook(folder, "compare_checkpoints.ipynb")


def test_the_page_lists_every_example():
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    files = [path.relative_to(EXAMPLES).as_posix() for path in [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*/*.ipynb")]]
    assert len(files) == 8
    assert all(f"({file})" in page for file in files)
