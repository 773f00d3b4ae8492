"""Classifiers on test splits, on small generated folders of categories."""

import cv2
import numpy as np
import pytest
import torch

from reid_edge.cli.evaluate import evaluate
from reid_edge.errors import BundleError, DatasetError, InputError
from reid_edge.osnet.checkpoint import load_checkpoint
from reid_edge.training.evaluator import evaluate_classifier
from reid_edge.training.resolve import resolve
from reid_edge.training.run import train
from tests.training.people import values, write_people

COLOURS = {"blue": (255, 30, 30), "green": (30, 255, 30), "red": (30, 30, 255)}


def write_colours(root, names):
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 5)):
        for name in names:
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                picture = np.clip(np.array(COLOURS[name]) + rng.integers(-40, 40, (24, 24, 3)), 0, 255)
                cv2.imwrite(str(folder / f"{number}.png"), picture.astype(np.uint8))
    return root


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    return write_colours(tmp_path_factory.mktemp("colours"), COLOURS)


@pytest.fixture(scope="module")
def checkpoint(colours, tmp_path_factory):
    given = values(colours, model__size="24x24", data__validation=6, schedule__epochs=4)
    out = tmp_path_factory.mktemp("run") / "run"
    return train(resolve("classify", {}, given)[0], out).best[0]


def by_hand(checkpoint, root):
    """Share of the test images whose largest logit is right, one image at a time."""
    network, head, info = checkpoint.network(), checkpoint.head, checkpoint.info
    right = []
    for path in sorted((root / "test").glob("*/*.png")):
        pixels = cv2.imread(str(path))[:, :, ::-1].astype(np.float32) / 255
        planes = torch.from_numpy((pixels - np.array(info.mean)) / np.array(info.std)).permute(2, 0, 1)[None].float()
        with torch.no_grad():
            logits = network(planes) @ head.weight.T + head.bias
        right.append(head.names[int(logits.argmax())] == path.parent.name)
    return sum(right) / len(right)


def test_a_classifier_is_judged_on_the_test_split(checkpoint, colours, capsys):
    loaded = load_checkpoint(checkpoint)
    figures = evaluate_classifier(loaded, "folder", colours)
    assert figures == {"top1": pytest.approx(by_hand(loaded, colours))}
    evaluate([checkpoint], root=colours, dataset="folder")
    assert f"{100 * figures['top1']:.2f}" in capsys.readouterr().out


def test_other_categories_are_refused(checkpoint, tmp_path):
    two = write_colours(tmp_path, ["blue", "red"])
    with pytest.raises(DatasetError, match=r"has 3 outputs .* the dataset has 2"):
        evaluate_classifier(load_checkpoint(checkpoint), "folder", two)


def test_a_checkpoint_of_features_has_nothing_to_judge(tmp_path):
    given = values(write_people(tmp_path / "people"), schedule__epochs=1)
    [best] = train(resolve("scratch", {}, given)[0], tmp_path / "run").best
    with pytest.raises(InputError, match="has no classifier"):
        evaluate_classifier(load_checkpoint(best), "folder", tmp_path / "people")
    with pytest.raises(BundleError, match="reid-edge export --checkpoint"):
        evaluate([best], root=tmp_path / "people", dataset="folder")
