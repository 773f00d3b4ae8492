"""The command itself; what it measures is tested in benchmark/test_accuracy.py."""

import json
import re
import shutil

import cv2
import msgspec
import numpy as np
import pytest

from reid_edge.benchmark.accuracy import measure_rankings
from reid_edge.benchmark.embedded import embed_splits
from reid_edge.benchmark.embedder import Embedder, load_splits
from reid_edge.benchmark.evaluation_result import Evaluation
from reid_edge.bundle import open_bundle
from reid_edge.cli.evaluate import evaluate
from reid_edge.errors import BundleError, DatasetError, FrameError, InputError, OutputError, UsageError
from reid_edge.osnet.checkpoint import save_checkpoint
from reid_edge.progress import silent
from reid_edge.runtime import Extractor
from tests.conftest import random_crops
from tests.datasets import trees


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """Five people, seen alike by two cameras."""
    root = tmp_path_factory.mktemp("market")
    for identity, crop in enumerate(random_crops(np.random.default_rng(0), 5), 1):
        for camera, folder in ((1, "query"), (2, "bounding_box_test")):
            (root / folder).mkdir(exist_ok=True)
            cv2.imwrite(str(root / folder / f"{identity:04}_c{camera}s1_000001_00.jpg"), crop)
    return root


@pytest.fixture(scope="module")
def viper(tmp_path_factory):
    """Eight people; camera b sees half of the next one too."""
    root = tmp_path_factory.mktemp("viper")
    crops = [cv2.resize(crop, (48, 128)) for crop in random_crops(np.random.default_rng(1), 8)]
    for person, crop in enumerate(crops):
        mixed = cv2.addWeighted(crop, 0.4, crops[(person + 1) % 8], 0.6, 0)
        for camera, angle, picture in (("cam_a", 0, crop), ("cam_b", 90, mixed)):
            (root / "VIPeR" / camera).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / "VIPeR" / camera / f"{person:03}_{angle}.bmp"), picture)
    return root


def table(capsys):
    """Title, and the cells of the one row by their heads; a long title is folded to the table's width."""
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    at = next(place for place, line in enumerate(lines) if line.startswith("engine "))
    heads, row = (re.split(r"  +", line) for line in (lines[at], lines[at + 2]))
    return " ".join(lines[:at]), dict(zip(heads, row, strict=True))


def test_one_bundle_on_market1501(session_bundle, market, capsys):
    evaluate([session_bundle.path], root=market, engine="openvino", precision="fp32", partial=True)
    title, cells = table(capsys)
    assert title == "market1501: 5 of 5 queries with a match, 5 gallery, cosine distance"
    assert cells["engine"].startswith("openvino/fp32 on openvino")
    assert {name: value for name, value in cells.items() if name != "engine"} == {
        "R1": "100.00",
        "R5": "100.00",
        "mAP": "100.00",
        "mINP": "100.00",
    }


def test_bad_images_are_left_out_on_request_and_counted(session_bundle, market, tmp_path, capsys):
    root = shutil.copytree(market, tmp_path / "market")
    (root / "query" / "0001_c1s1_000001_00.jpg").write_bytes(b"\xff\xd8\xff")
    (root / "bounding_box_test" / "0002_c2s1_000001_00.jpg").write_bytes(b"")
    with pytest.raises(FrameError, match=r"0001_c1s1_000001_00\.jpg is .*--skip-bad"):
        evaluate([session_bundle.path], root=root, engine="openvino", partial=True)
    evaluate([session_bundle.path], root=root, engine="openvino", partial=True, skip_bad=True)
    shown = capsys.readouterr()
    assert "2 of 10 images left out, unreadable" in shown.err
    assert "3 of 4 queries with a match, 4 gallery" in shown.out
    assert "2 unreadable images left out" in " ".join(shown.out.split())
    for path in (root / "query").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match="no image of the query can be read"):
        evaluate([session_bundle.path], root=root, engine="openvino", partial=True, skip_bad=True)


def test_mirrored_crops_several_bundles_and_the_distance_are_reported(session_bundle, market, capsys):
    both = [session_bundle.path, session_bundle.path]
    evaluate(both, root=market, flip=True, distance="euclidean", engine="openvino", precision="fp32", partial=True)
    title, cells = table(capsys)
    assert title.endswith("euclidean distance")
    assert re.fullmatch(r"2 × openvino/fp32 on openvino .*, with mirrored crops", cells["engine"])
    assert cells["mAP"] == "100.00"


def test_centring_and_re_ranking_stand_beside_the_figures_as_now(session_bundle, market, tmp_path, capsys):
    file = tmp_path / "result.json"
    evaluate(
        [session_bundle.path],
        root=market,
        engine="openvino",
        precision="fp32",
        partial=True,
        centre=True,
        rerank=True,
        json=file,
    )
    shown = capsys.readouterr()
    assert "too few to tell what those of a camera have in common" in shown.err
    rows = [
        re.split(r"  +", line.strip()) for line in shown.out.splitlines() if re.search(r"\d\d\.\d\d$", line.strip())
    ]
    assert [row[0] for row in rows] == ["unchanged", "centred", "re-ranked", "centred, re-ranked"]
    assert {cell for row in rows for cell in row[1:]} == {"100.00"}
    result = msgspec.json.decode(file.read_bytes(), type=Evaluation)
    assert [(one.centred, one.reranked) for one in result.treated] == [(True, False), (False, True), (True, True)]
    assert [one.mean_ap for one in result.treated] == [1.0] * 3


def test_centring_needs_cameras(session_bundle, market, tmp_path):
    pictures = [*sorted((market / "query").iterdir()), *sorted((market / "bounding_box_test").iterdir())]
    rows = [f"{path},{path.name[:4]},,{'query' if 'query' in str(path) else 'gallery'}" for path in pictures]
    file = tmp_path / "images.csv"
    file.write_text("\n".join(["path,identity,camera,split", *rows]) + "\n")
    with pytest.raises(UsageError, match="5 of 5 images name no camera"):
        evaluate([session_bundle.path], root=file, dataset="csv", same_camera=True, engine="openvino", centre=True)


@pytest.mark.parametrize("split", [None, "all"])
def test_all_random_splits_are_averaged(session_bundle, viper, capsys, split):
    embedder = Embedder((Extractor(session_bundle, engine="openvino", precision="fp32"),))
    numbered = [load_splits(viper, dataset="viper", number=number, partial=True) for number in range(10)]
    embedded = embed_splits(embedder, numbered, silent)
    each = measure_rankings(embedded, silent, distance="cosine", rule="other-cameras")
    assert len({ranking.mean_ap for ranking in each}) > 1  # else one of them would do
    evaluate([session_bundle.path], root=viper, dataset="viper", split=split, engine="openvino", partial=True)
    title, cells = table(capsys)
    assert title == (
        "viper, mean of 10 random splits: 80 of 80 queries with a match, 80 gallery, cosine distance, each query "
        "searched for in the other camera"
    )
    assert cells["R1"] == f"{100 * sum(ranking.rank1 for ranking in each) / 10:.2f}"
    assert cells["mAP"] == f"{100 * sum(ranking.mean_ap for ranking in each) / 10:.2f}"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dataset": "nope"}, DatasetError, "'nope' is not a known dataset"),
        ({"split": "all"}, UsageError, "market1501 has only its own split; leave out --split"),
        ({"split": "3"}, DatasetError, "has only its own split"),
        ({"dataset": "viper", "split": "first"}, UsageError, "--split takes a number from 0 to 9, or all; got 'first'"),
        ({"dataset": "viper", "split": "10"}, DatasetError, "split 10 does not exist"),
        ({}, DatasetError, "3,368"),
    ],
)
def test_bad_input_is_one_message(session_bundle, market, arguments, error, message):
    with pytest.raises(error, match=message):
        evaluate([session_bundle.path], root=market, **arguments)


@pytest.mark.parametrize("name", ["best.safetensors", "net.pth", "net.pth.tar", "net.pt"])
def test_a_checkpoint_is_not_taken_for_a_bundle(market, checkpoint, tmp_path, name):
    save_checkpoint(checkpoint, tmp_path / "best.safetensors")
    path = (tmp_path / "best.safetensors").rename(tmp_path / name)
    with pytest.raises(BundleError, match=rf"[Mm]ake one with: reid-edge export --checkpoint {path} --out BUNDLE"):
        evaluate([path], root=market)


def test_a_folder_that_is_no_bundle_is_an_error(market):
    with pytest.raises(BundleError, match="is not a bundle"):
        evaluate([market], root=market)


def test_a_split_whose_people_a_model_has_seen_is_refused(session_bundle, viper, tmp_path, capsys):
    seen = tmp_path / "seen"
    shutil.copytree(session_bundle.path, seen)
    manifest = seen / "manifest.json"
    dataset = open_bundle(seen).manifest.model.dataset
    manifest.write_text(manifest.read_text().replace(json.dumps(dataset), '"viper, random split 3"'))
    assert open_bundle(seen).manifest.model.dataset == "viper, random split 3"
    for split in ("0", "all"):
        with pytest.raises(UsageError, match="Use --split 3"):
            evaluate([seen], root=viper, dataset="viper", split=split, partial=True)
    for split in ("3", None):
        evaluate([seen], root=viper, dataset="viper", split=split, engine="openvino", precision="fp32", partial=True)
        assert table(capsys)[0].startswith("viper: 8 of 8 queries")


def test_a_model_that_was_trained_on_the_test_people_is_refused(session_bundle, market, viper, tmp_path):
    seen = tmp_path / "seen"
    shutil.copytree(session_bundle.path, seen)
    manifest = seen / "manifest.json"
    dataset = json.dumps(open_bundle(seen).manifest.model.dataset)
    manifest.write_text(manifest.read_text().replace(dataset, '"market1501+msmt17, all splits"'))
    with pytest.raises(UsageError, match=r"has seen the test people of market1501.*Evaluate it on another dataset"):
        evaluate([seen], root=market, partial=True)
    evaluate([seen], root=viper, dataset="viper", split="0", engine="openvino", partial=True)


def test_cuhk03_of_2014_is_the_mean_of_twenty_single_shot_searches(session_bundle, tmp_path, capsys):
    trees.cuhk03_pixels(tmp_path / "cuhk-03.mat")
    trees.cuhk03_test_sets(tmp_path / "cuhk-03.mat", [[(1, 1), (1, 2)], [(1, 2), (2, 1)]] * 10)
    evaluate([session_bundle.path], root=tmp_path, dataset="cuhk03-classic", engine="openvino", partial=True)
    title, cells = table(capsys)
    assert title == (
        "cuhk03-classic, mean of 20 random splits: 120 of 120 queries with a match, 120 gallery, cosine distance, each "
        "query searched for in the other camera, one gallery image of each person at a time"
    )
    assert cells["mAP"] == cells["mINP"]
    with pytest.raises(UsageError, match="--split takes a number from 0 to 19"):
        evaluate([session_bundle.path], root=tmp_path, dataset="cuhk03-classic", split="none", partial=True)


@pytest.fixture(scope="module")
def one_camera(tmp_path_factory):
    """Four people in folders: two images of each, no camera; an image of the query folder is in the gallery too."""
    root = tmp_path_factory.mktemp("one_camera")
    rng = np.random.default_rng(2)
    for person, crop in enumerate(random_crops(rng, 4), 1):
        for split in ("query", "gallery"):
            (root / split / f"{person}").mkdir(parents=True)
            noise = rng.integers(-9, 9, crop.shape)
            picture = np.clip(crop.astype(int) + noise, 0, 255).astype(np.uint8)
            cv2.imwrite(str(root / split / f"{person}" / "1.png"), picture)
    return root


def test_images_of_one_camera_are_ranked_on_request_and_told_apart(session_bundle, one_camera, capsys):
    with pytest.raises(DatasetError, match=r"4 of 4 images of the query split name no camera.*--same-camera"):
        evaluate([session_bundle.path], root=one_camera, dataset="folder")
    evaluate([session_bundle.path], root=one_camera, dataset="folder", same_camera=True, engine="openvino")
    title, cells = table(capsys)
    assert title == (
        "folder: 4 of 4 queries with a match, 4 gallery, cosine distance, matches of the same camera counted: not "
        "comparable with figures across cameras"
    )
    assert cells["R1"] == "100.00"


def test_a_dataset_of_one_known_camera_says_how_it_can_be_ranked(session_bundle, one_camera, tmp_path):
    for image in one_camera.rglob("*.png"):
        target = tmp_path / image.parent.relative_to(one_camera) / "a_c1.png"
        target.parent.mkdir(parents=True)
        shutil.copy(image, target)
    with pytest.raises(InputError, match="count matches of the same camera: --same-camera"):
        evaluate([session_bundle.path], root=tmp_path, dataset="folder", engine="openvino")
    evaluate([session_bundle.path], root=tmp_path, dataset="folder", same_camera=True, engine="openvino")


def test_junk_changes_no_figure_whatever_its_neighbours_are_called(session_bundle, one_camera, tmp_path, capsys):
    figures = []
    for junk in (False, True):
        root = tmp_path / str(junk)
        for image in one_camera.rglob("*.png"):
            person, split = image.parent.name, image.parent.parent.name
            folder = root / split / f"000{person}"
            folder.mkdir(parents=True)
            shutil.copy(image, folder / f"a_c{1 if split == 'query' else 2}.png")
            if junk and split == "query":
                (root / "gallery" / "-1").mkdir(parents=True, exist_ok=True)
                shutil.copy(image, root / "gallery" / "-1" / f"{person}_c2.png")
        evaluate([session_bundle.path], root=root, dataset="folder", engine="openvino", precision="fp32")
        figures.append(table(capsys))
    assert figures[0] == figures[1]


@pytest.fixture(scope="module")
def crossing(tmp_path_factory):
    """Twenty people, seen twice in a row by each of two cameras, as Market-1501's names tell."""
    root = tmp_path_factory.mktemp("crossing")
    rng = np.random.default_rng(5)
    for person, crop in enumerate(random_crops(rng, 20), 1):
        for camera, folder in ((1, "query"), (2, "bounding_box_test")):
            (root / folder).mkdir(exist_ok=True)
            for frame in (100, 125):
                noise = rng.integers(-250, 250, crop.shape)
                picture = np.clip(crop.astype(int) + noise, 0, 255).astype(np.uint8)
                cv2.imwrite(str(root / folder / f"{person:04}_c{camera}s1_{frame:06}_00.jpg"), picture)
    return root


def test_error_rates_by_threshold_are_printed_and_written_on_request(session_bundle, crossing, tmp_path, capsys):
    path = tmp_path / "figures.json"
    evaluate([session_bundle.path], root=crossing, engine="openvino", partial=True, thresholds=True, json=path)
    printed = " ".join(capsys.readouterr().out.split())
    assert "Two images, one person or not: 80 pairs of one person, 1,520 of two; equal error rate" in printed
    assert (
        "Search with a threshold: 40 searches for people who are in the gallery, 40 for people who are not" in printed
    )
    result = msgspec.json.decode(path.read_bytes(), type=Evaluation)
    assert result.dataset == "market1501"
    assert result.model_hashes == (session_bundle.manifest.model_hash,)
    assert [point.limit for point in result.pairs.points] == pytest.approx([0.5, 0.2, 0.1, 0.05, 0.02])
    for point in result.pairs.points:
        assert point.false_rate <= point.limit
    assert result.searches.points == ()  # 40 searches support no rate below 75 %
    assert "mINP" in printed
    assert f"{100 * result.mean_inp:.2f}" in printed


def test_figures_are_not_written_over_others(session_bundle, market, tmp_path):
    path = tmp_path / "figures.json"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists already; use --force"):
        evaluate([session_bundle.path], root=market, json=path, partial=True)
    assert path.read_text() == "mine"


def test_tracklets_are_averaged_on_request(session_bundle, crossing, capsys):
    evaluate([session_bundle.path], root=crossing, engine="openvino", partial=True)
    images = table(capsys)
    evaluate([session_bundle.path], root=crossing, engine="openvino", partial=True, tracklets=True)
    title, cells = table(capsys)
    assert images[0].startswith("market1501: 40 of 40 queries with a match, 40 gallery, cosine")
    assert title == "market1501: 20 of 20 queries with a match, 20 gallery tracklets, cosine distance"
    assert float(cells["mAP"]) > float(images[1]["mAP"])  # the mean has less noise
    evaluate([session_bundle.path], root=crossing, engine="openvino", partial=True, tracklets=True, tracklet_gap=24)
    assert table(capsys)[1] == images[1]


def test_tracklets_that_are_not_known_are_an_error(session_bundle, viper):
    with pytest.raises(DatasetError, match="tracklets of 16 of 16 images are not known"):
        evaluate([session_bundle.path], root=viper, dataset="viper", partial=True, tracklets=True)
