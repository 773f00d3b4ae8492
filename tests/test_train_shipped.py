"""models/train_shipped.py, all but the calibration set, which is calibration/make_default.py's."""

import sys

import cv2
import numpy as np
import pytest

from reid_edge.errors import ResumeError, SettingsError, StoppedError
from reid_edge.export.calibration import shipped_name
from reid_edge.osnet.checkpoint import load_checkpoint
from reid_edge.training.folder import RunFolder
from reid_edge.training.recipes import RECIPES
from reid_edge.training.resolve import resolve
from tests.conftest import REPOSITORY
from tests.scripts import loaded

PAGE = """# Checkpoints

All of them.

## `a.safetensors`

old

## `b.safetensors`

stays

## How to make them

A command.
"""
RECIPE = """
[model.variant]
blocks = [1, 1, 1]
streams = [1, 2]
[schedule]
epochs = 2
kind = "cosine"
milestones = [1]
[batch]
size = 8
[run]
device = "cpu"
precision = "float32"
"""


@pytest.fixture(scope="module")
def script():
    with loaded("train_shipped") as module:
        yield module


@pytest.fixture
def asked(script, tmp_path, monkeypatch):
    """Command line of a run on eight people, three of them held out."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "market" / "bounding_box_train"
    folder.mkdir(parents=True)
    for identity in range(1, 9):
        person = rng.integers(0, 256, (8, 4, 3), dtype=np.uint8)
        for camera in (1, 2):
            for frame in (1, 2):
                seen = np.clip(person.repeat(8, 0).repeat(8, 1) + rng.integers(-20, 20, (64, 32, 3)), 0, 255)
                cv2.imwrite(str(folder / f"{identity:04}_c{camera}s1_{frame:06}_00.jpg"), seen.astype(np.uint8))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)

    def parse(*more):
        given = ["--root", tmp_path / "market", "--out", tmp_path / "out", "--config", recipe, "--size", "32x16"]
        given += ["--widths", "0.1", "--validation", "3", "--partial", *more]
        monkeypatch.setattr(sys, "argv", ["train_shipped.py", *map(str, given)])
        return script.parsed()

    return parse


def test_a_new_card_takes_the_place_of_the_old_one_and_nothing_elses(script):
    page = script.with_card(PAGE, "## `a.safetensors`\n\nnew\n")
    assert page == PAGE.replace("old", "new")


def test_the_card_of_a_new_file_comes_after_the_others(script):
    page = script.with_card(PAGE, "## `c.safetensors`\n\nnew\n")
    assert page == PAGE.replace("## How", "## `c.safetensors`\n\nnew\n\n## How")


def test_the_shipped_recipe_is_whole_and_holds_out_or_not(script, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_shipped.py", "--root", str(tmp_path), "--out", str(tmp_path)])
    arguments = script.parsed()
    assert arguments.widths == (0.25, 0.5, 0.75, 1.0)
    judged, whole = script.configurations(arguments, 0.5)
    assert (judged.data.validation, whole.data.validation) == (100, 0)
    assert judged.model.width == whole.model.width == 0.5
    assert judged.model.start is None
    assert judged.recipe == "scratch"
    assert judged.schedule != RECIPES["scratch"].schedule  # the file was read
    assert (judged.schedule.sizes, judged.schedule.size_milestones) == (((128, 64), (256, 128)), (150,))


def test_the_recipe_from_other_weights_is_whole(script, tmp_path, monkeypatch):
    given = ["--root", tmp_path, "--out", tmp_path, "--config", REPOSITORY / "models" / "finetune.toml"]
    given += ["--start", "osnet.pth", "--source", "a zoo (MIT)", "--teacher", "big.pth"]
    monkeypatch.setattr(sys, "argv", ["train_shipped.py", *map(str, given)])
    judged, whole = script.configurations(script.parsed(), 0.25)
    assert (judged.recipe, judged.model.start.name, judged.data.validation) == ("finetune", "osnet.pth", 100)
    assert [path.name for path in whole.distill.teachers] == ["big.pth"]
    assert (whole.optimiser.learning_rate, whole.schedule.sizes) == (0.003, ((128, 64), (256, 128)))


def test_the_recipe_for_new_sites_is_whole_and_learns_from_the_teacher_alone(script, tmp_path, monkeypatch):
    given = ["--root", tmp_path / "i.csv", "--out", tmp_path, "--config", REPOSITORY / "models" / "new_site.toml"]
    given += ["--dataset", "csv", "--about", "pictures of many places (research only)", "--start", "osnet.pth"]
    given += ["--teacher", "t.npy", "--source", "a zoo (MIT)", "--whole-only"]
    monkeypatch.setattr(sys, "argv", ["train_shipped.py", *map(str, given)])
    whole = script.configurations(script.parsed(), 0.25)[1]
    assert (whole.data.dataset, whole.data.validation, whole.loss.cross_entropy) == ("csv", 0, 0.0)
    assert (whole.distill.feature, whole.schedule.sizes[-1]) == (20.0, (256, 128))


@pytest.mark.parametrize("given", [["--dataset", "csv"], ["--about", "pictures"]], ids="-".join)
def test_other_images_are_described_on_the_card(asked, capsys, given):
    with pytest.raises(SystemExit):
        asked(*given)
    assert "give both, or neither" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given", [["--start", "osnet.pth"], ["--teacher", "big.pth"], ["--source", "a zoo (MIT)"]], ids="-".join
)
def test_other_weights_need_an_origin_for_the_card(asked, capsys, given):
    with pytest.raises(SystemExit):
        asked(*given)
    assert "--start and --teacher need --source" in capsys.readouterr().err


def test_a_try_is_not_installed(script, asked):
    with pytest.raises(SystemExit):
        asked("--install")


@pytest.mark.slow
def test_from_images_to_a_file_with_its_card(script, asked, tmp_path, capsys):
    arguments = asked()
    judged_settings, whole_settings = script.configurations(arguments, 0.1)
    judged = script.run(judged_settings, tmp_path / "validated")
    whole = script.run(whole_settings, tmp_path / "whole")
    out = tmp_path / "models" / "osnet_x0_1_market1501.safetensors"
    script.ship(judged, whole, out)

    shipped, trained = load_checkpoint(out), load_checkpoint(RunFolder(tmp_path / "whole").last(0))
    weight = next(name for name in trained.state if name.endswith("conv.weight"))
    assert shipped.state[weight].dtype.itemsize == 2
    np.testing.assert_array_equal(shipped.state[weight], trained.state[weight].half())
    assert shipped.info.dataset.startswith("Market-1501 train split (8 identities, 32 images")
    assert list(shipped.info.metrics.values()) == list(judged.checkpoint.info.metrics.values())
    assert set(shipped.info.metrics) == {"market1501-heldout (a twin's)/mAP", "market1501-heldout (a twin's)/R1"}
    assert shipped.info.training["data"]["root"] == "."
    assert str(tmp_path) not in out.read_bytes().decode("latin-1")

    card = out.with_suffix(".md").read_text()
    for text in (
        shipped.sha256,
        "8 identities, 32 images",
        "2 epochs, sgd 0.065 cosine",
        "seed 1",
        "3 identities held",
    ):
        assert text in card
    held_out = shipped.info.metrics["market1501-heldout (a twin's)/mAP"]
    assert f"mAP {100 * held_out:.1f}" in card

    # The same again is remembered; another recipe is refused.
    weights = RunFolder(tmp_path / "whole").last(0).stat().st_mtime_ns
    assert script.run(whole_settings, tmp_path / "whole").seconds == whole.seconds
    assert RunFolder(tmp_path / "whole").last(0).stat().st_mtime_ns == weights
    with pytest.raises(ResumeError, match=r"run\.seed: was 1, is 2"):
        script.run(script.configurations(asked("--seed", "2"), 0.1)[1], tmp_path / "whole")

    repository, made = tmp_path / "repository", tmp_path / "calibration"
    for folder in (repository / "models", repository / "calibration", made):
        folder.mkdir(parents=True)
    (repository / "models" / "README.md").write_text(PAGE)
    set_name = shipped_name(shipped, shipped.info.size)
    (made / set_name).write_bytes(b"a set")
    script.install([out], made, repository)
    assert (repository / "models" / out.name).read_bytes() == out.read_bytes()
    assert (repository / "calibration" / set_name).read_bytes() == b"a set"
    assert card in (repository / "models" / "README.md").read_text()
    assert set_name in capsys.readouterr().out


@pytest.mark.slow
def test_from_other_weights_with_a_teacher_in_stretches(script, asked, tmp_path):
    arguments = asked()
    teacher = script.run(script.configurations(arguments, 0.1)[1], tmp_path / "teacher")
    (tmp_path / "finetune.toml").write_text(
        """
        recipe = "finetune"
        [augment]
        erase = 0.0
        [model.variant]
        blocks = [1, 1, 1]
        streams = [1, 2]
        [schedule]
        epochs = 3
        kind = "cosine"
        frozen = 1
        sizes = ["16x16", "32x16"]
        size_milestones = [2]
        [batch]
        size = 8
        [run]
        ema = 0.9
        precision = "float32"
        """
    )
    start = RunFolder(tmp_path / "start").last(0)
    script.run(script.configurations(asked("--seed", "5"), 0.1)[1], start.parent)
    more = ["--config", tmp_path / "finetune.toml", "--start", start, "--source", "our own (MIT)"]
    whole = script.configurations(asked(*more, "--teacher", RunFolder(tmp_path / "teacher").last(0)), 0.1)[1]
    for step in (1, 2):
        with pytest.raises(StoppedError, match=f"after step {step} of 12"):
            script.run(whole, tmp_path / "whole", until=0.0)
    done = script.run(whole, tmp_path / "whole")
    out = tmp_path / "models" / "osnet_x0_1_market1501.safetensors"
    script.ship(None, done, out, source="our own (MIT)")
    card = out.with_suffix(".md").read_text()
    for text in (
        "| comes from | our own (MIT) |",
        "from last.safetensors: 3 epochs, amsgrad 0.003 cosine",
        "first 1 epoch only the classifier",
        "input 16x16 from epoch 0, 32x16 from epoch 2",
        f"taught by last.safetensors ({teacher.checkpoint.sha256[:12]}…): feature ×20",
        "12 steps in float32",
        "nobody was held out",
    ):
        assert text in card
    assert load_checkpoint(out).info.source == "our own (MIT)"


def test_a_recipe_with_an_unknown_key_is_refused_before_any_work(script, asked, tmp_path):
    arguments = asked()
    (tmp_path / "recipe.toml").write_text("[schedule]\nepoch = 3\n")
    with pytest.raises(SettingsError, match="epoch"):
        script.configurations(arguments, 0.1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("teacher", "told"), [("t.npy", True), ("big.pth", False)])
def test_figures_say_that_a_teacher_of_features_may_have_seen_the_held_out_people(script, teacher, told):
    settings = resolve("scratch", {}, {"distill.teachers": [teacher]})[0]
    runs = [script.Run(settings=settings, checkpoint=None, seconds=1.0, device="", day="") for _ in range(2)]
    text = script.quality_text(*runs, {"a/mAP": 0.5})
    assert ("a twin, trained by the same recipe and seed without them; its teacher may have seen them" in text) == told
