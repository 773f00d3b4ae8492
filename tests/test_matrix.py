"""Several bundles on several datasets."""

import re
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from reid_edge.benchmark.evaluation_result import Evaluation
from reid_edge.cli.evaluate import evaluate
from reid_edge.cli.matrix import matrix
from reid_edge.errors import DatasetError, OutputError, UsageError
from tests.conftest import random_crops


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Market-1501's layout, where all are found, and folders where two people have changed their pictures."""
    root = tmp_path_factory.mktemp("datasets")
    for person, crop in enumerate(random_crops(np.random.default_rng(0), 4), 1):
        other = {1: 2, 2: 1}.get(person, person)
        for camera, folder, split in ((1, "query", "query"), (2, "bounding_box_test", "gallery")):
            box = root / "market" / folder / f"{person:04}_c{camera}s1_000001_00.jpg"
            own = root / "own" / split / f"{person if camera == 1 else other}" / f"a_c{camera}.png"
            for path in (box, own):
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), crop)
    return [f"market1501={root / 'market'}", f"folder={root / 'own'}"]


def test_each_bundle_is_evaluated_on_each_dataset(session_bundle, datasets, tmp_path, capsys):
    path = tmp_path / "matrix.json"
    bundles = [session_bundle.path, session_bundle.path]
    matrix(bundles, datasets, engine="openvino", precision="fp32", partial=True, json=path)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0].strip() == "R1 / mAP, per cent"
    assert re.split(r"  +", lines[1].strip()) == ["bundle", "trained on", "market1501", "folder"]
    results = msgspec.json.decode(path.read_bytes(), type=list[Evaluation])
    assert [result.dataset for result in results] == ["market1501", "folder"] * 2
    assert [result.cmc[0] for result in results] == [1, 0.5] * 2
    cells = " ".join(lines)
    assert cells.count("100.00 / 100.00") == 2
    assert cells.count(f"50.00 / {100 * results[1].mean_ap:.2f}") == 2
    alone = tmp_path / "alone.json"
    evaluate(
        [session_bundle.path], root=Path(datasets[1].partition("=")[2]), dataset="folder", engine="openvino",
        precision="fp32", json=alone,
    )  # fmt: skip
    assert msgspec.json.decode(alone.read_bytes(), type=Evaluation) == results[1]


def test_what_is_missing_is_said_before_any_work(session_bundle, datasets, tmp_path):
    with pytest.raises(DatasetError, match="nowhere"):
        matrix([session_bundle.path], [*datasets, f"viper={tmp_path / 'nowhere'}"], partial=True)
    with pytest.raises(DatasetError, match="'markt' is not a known dataset"):
        matrix([session_bundle.path], [f"markt={tmp_path}"], partial=True)
    with pytest.raises(UsageError, match=r"--on takes NAME=ROOT.*; got 'market1501'"):
        matrix([session_bundle.path], ["market1501"])
    (tmp_path / "there.json").touch()
    with pytest.raises(OutputError, match="--force"):
        matrix([session_bundle.path], datasets, partial=True, json=tmp_path / "there.json")
