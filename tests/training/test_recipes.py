"""The paper's numbers (/osnet-paper, sections 4.1, 4.3, 4.4, supplements A and B), written down a second time."""

import pytest

from reid_edge.errors import SettingsError
from reid_edge.osnet.architecture import NetworkVariant
from reid_edge.training.recipes import RECIPES
from reid_edge.training.resolve import resolve

START = {"model.start": "weights.safetensors"}


def values(recipe, **given):
    config, _ = resolve(recipe, {}, START | {key.replace("__", "."): value for key, value in given.items()})
    optimiser, schedule = config.optimiser, config.schedule
    return (
        optimiser.name,
        optimiser.learning_rate,
        optimiser.weight_decay,
        config.batch.size,
        schedule.epochs,
        schedule.kind,
        schedule.milestones,
        schedule.frozen,
        config.model.size,
    )


@pytest.mark.parametrize(
    ("recipe", "given", "expected"),
    [
        ("scratch", {}, ("sgd", 0.065, 5e-4, 64, 350, "step", (150, 225, 300), 0, (256, 128))),
        ("finetune", {}, ("amsgrad", 0.0015, 5e-4, 64, 150, "step", (60, 120), 10, (256, 128))),
        (
            "finetune",
            {"model__width": 0.25},
            ("amsgrad", 0.003, 5e-4, 128, 180, "step", (80, 160), 10, (256, 128)),
        ),
        (
            "finetune",
            {"model__width": 0.75},
            ("amsgrad", 0.0015, 5e-4, 64, 150, "step", (60, 120), 10, (256, 128)),
        ),
        ("attributes", {}, ("sgd", 0.065, 5e-4, 32, 50, "step", (30, 40), 0, (256, 128))),
        ("cross-domain", {}, ("amsgrad", 0.0015, 5e-4, 64, 150, "step", (60, 120), 10, (256, 128))),
        ("classify", {}, ("sgd", 0.1, 5e-4, 128, 200, "step", (60, 120, 160), 0, (32, 32))),
        (
            "classify",
            {"data__dataset": "imagenet"},
            ("sgd", 0.4, 4e-5, 1024, 120, "cosine", (), 0, (224, 224)),
        ),
    ],
)
def test_a_recipe_is_the_papers(recipe, given, expected):
    assert values(recipe, **given) == expected


@pytest.mark.parametrize("recipe", ["finetune", "cross-domain", "mutual"])
@pytest.mark.parametrize("epochs", [1, 30])
def test_a_recipe_that_starts_from_weights_asks_for_them_however_short_it_is(recipe, epochs):
    with pytest.raises(SettingsError, match="--start CHECKPOINT"):
        resolve(recipe, {}, {"schedule.epochs": epochs})
    config, _ = resolve(recipe, {}, {"schedule.epochs": epochs, "schedule.frozen": 0})
    assert config.model.start is None


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_trains_osnet_ain(recipe):
    given = START | {"model.variant.ain": True, "model.variant.instance_norm": False}
    assert resolve(recipe, {}, given)[0].model.variant == NetworkVariant(ain=True)


def test_mutual_learning_balances_its_batches_with_the_triplet_loss_after_the_frozen_epochs():
    config, _ = resolve("mutual", {}, START)
    assert (config.schedule.frozen, config.loss.triplet_start, config.balanced_start) == (10, 10, 10)
    config, _ = resolve("mutual", {}, START | {"schedule.epochs": 25})
    assert (config.schedule.frozen, config.balanced_start) == (1, 1)


def test_mutual_learning_as_the_authors_project_has_it():
    """deep-person-reid, projects/DML: features as they are, margin 0.3, shuffled batches, cosine over 250 epochs."""
    given = START | {"loss.triplet_normalised": False, "batch.instances": 1}
    config, notes = resolve("mutual", {}, given)
    assert (config.loss.triplet, config.loss.triplet_margin, config.loss.mutual) == (0.5, 0.3, 1.0)
    assert (config.balanced_start, config.run.collapse_spread, notes) == (None, 0.05, ())


def test_a_short_run_keeps_a_frozen_epoch_and_is_evaluated_ten_times():
    config, notes = resolve("finetune", {}, START | {"schedule.epochs": 2})
    assert (config.schedule.frozen, config.run.evaluate_every) == (1, 1)
    assert notes == (
        "2 epochs in place of 150, so in proportion: schedule.milestones = [1], schedule.frozen = 1, "
        "run.evaluate_every = 1.",
    )
    assert resolve("scratch", {}, {"schedule.epochs": 40})[0].run.evaluate_every == 4
    assert resolve("scratch", {}, {"schedule.epochs": 40, "run.evaluate_every": 20})[0].run.evaluate_every == 20


def test_a_word_that_is_none_of_a_few_is_answered_with_them():
    with pytest.raises(SettingsError, match=r"schedule\.kind: expected one of step, cosine"):
        resolve("scratch", {}, {"schedule.kind": "linear"})
    with pytest.raises(SettingsError, match=r"model\.size: expected HEIGHTxWIDTH"):
        resolve("scratch", {}, {"model.size": 64})
