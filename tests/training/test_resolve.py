import re
import types
from dataclasses import is_dataclass, replace
from math import inf, nan
from pathlib import Path
from typing import Union, get_args, get_origin, get_type_hints

import pytest

from reid_edge.errors import SettingsError
from reid_edge.settings import read_settings
from reid_edge.training.recipes import RECIPES
from reid_edge.training.resolve import _OPTIONAL, differences, resolve, run_name, to_tables, to_toml
from reid_edge.training.settings import TrainSettings

START = {"model.start": "weights.safetensors"}


def resolved(recipe="scratch", file=None, **given):
    return resolve(recipe, file or {}, {key.replace("__", "."): value for key, value in given.items()})[0]


@pytest.mark.parametrize("recipe", RECIPES)
def test_without_options_a_recipe_is_what_it_is(recipe):
    given = START if RECIPES[recipe].schedule.frozen else {}
    config, notes = resolve(recipe, {}, given)
    expected = RECIPES[recipe]
    if given:
        expected = replace(expected, model=replace(expected.model, start=Path("weights.safetensors")))
    assert config == expected
    assert notes == ()


def test_options_go_before_the_file_and_the_file_before_the_recipe():
    file = {"recipe": "classify", "optimiser": {"learning_rate": 0.5, "momentum": 0.5}}
    config = resolved(None, file, optimiser__momentum=0.1)
    assert (config.recipe, config.task) == ("classify", "category")
    assert (config.optimiser.learning_rate, config.optimiser.momentum) == (0.5, 0.1)
    assert config.optimiser.nesterov  # the recipe's


def test_the_recipe_of_an_option_goes_before_the_files():
    assert resolved("scratch", {"recipe": "classify"}).task == "identity"
    assert resolve(None, {"recipe": "classify"}, {"recipe": "scratch"})[0].task == "identity"
    assert resolve("scratch", {}, {"recipe": "classify"})[0].task == "category"
    assert resolved(None).recipe == "scratch"


@pytest.mark.parametrize("recipe", RECIPES)
def test_written_down_and_read_again_it_is_the_same(recipe, tmp_path):
    config = resolved(recipe, None, **{"model.start": "/weights.pth", "loss.triplet_margin": "none"})
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config))
    assert resolve(None, read_settings(path, guide=""), {}) == (config, ())
    assert config.loss.triplet_margin is None


def test_every_key_that_may_be_unset_can_be_written_as_none():
    def optional(kind, prefix=""):
        for name, hint in get_type_hints(kind).items():
            if is_dataclass(hint):
                yield from optional(hint, f"{prefix}{name}.")
            elif get_origin(hint) in (types.UnionType, Union) and type(None) in get_args(hint):
                yield prefix + name

    assert sorted(_OPTIONAL) == sorted(optional(TrainSettings))


def test_none_is_a_word_where_nothing_may_be_unset():
    with pytest.raises(SettingsError, match=r"optimiser\.name: expected one of sgd, adam, amsgrad"):
        resolved(optimiser__name="none")


def test_other_epochs_move_what_counts_in_epochs():
    config, notes = resolve("finetune", {}, {**START, "schedule.epochs": 30, "schedule.warmup": 3})
    assert config.schedule.milestones == (12, 24)
    assert config.schedule.frozen == 2
    assert config.schedule.warmup == 3  # given: stays
    assert "30 epochs in place of 150" in notes[0]
    assert "schedule.frozen = 2" in notes[0]


def test_given_milestones_stay_whatever_the_epochs():
    config, notes = resolve("scratch", {}, {"schedule.epochs": 10, "schedule.milestones": [4], "run.evaluate_every": 5})
    assert config.schedule.milestones == (4,)
    assert notes == ()


def test_milestones_of_the_file_move_with_the_epochs_of_an_option():
    file = {"schedule": {"epochs": 100, "milestones": [50, 90]}}
    assert resolved(None, file).schedule.milestones == (50, 90)
    assert resolved(None, file, schedule__epochs=10).schedule.milestones == (5, 9)


def test_no_stage_is_lost_nor_takes_all():
    assert resolved("finetune", None, **START, schedule__epochs=2).schedule.frozen == 1
    assert resolved("finetune", None, **START, schedule__epochs=1).schedule.frozen == 0
    assert resolved(schedule__epochs=1).schedule.milestones == ()


def test_the_start_of_the_triplet_loss_moves_too():
    file = {"loss": {"triplet": 0.5, "triplet_start": 70}, "batch": {"instances": 4}}
    assert resolved(None, file, schedule__epochs=35).loss.triplet_start == 7


def test_the_course_of_sizes_moves_too_and_comes_back_from_its_own_toml(tmp_path):
    file = {"schedule": {"epochs": 100, "sizes": ["128x64", "256x128"], "size_milestones": [60]}}
    settings = resolved(None, file, schedule__epochs=10)
    assert settings.schedule.size_milestones == (6,)
    assert settings.schedule.sizes == ((128, 64), (256, 128))
    (tmp_path / "own.toml").write_text(to_toml(settings))
    assert resolve(None, read_settings(tmp_path / "own.toml", guide=""), {})[0] == settings


@pytest.mark.parametrize(
    ("recipe", "given", "message"),
    [
        ("fine-tune", {}, "recipe: expected one of scratch, finetune"),
        ("scratch", {"schedule.epoch": 1}, "schedule.epoch: no such key; known keys: epochs"),
        ("scratch", {"model.variant.fuson": "addition"}, "model.variant.fuson: no such key"),
        ("scratch", {"model.size.height": 1}, "model.size.height: no such key; model.size is a value"),
        ("scratch", {"schedule": 3}, "schedule: expected a key of this table, e.g. schedule.epochs"),
        ("scratch", {"schedule.epochs": "many"}, "schedule.epochs: expected 'int', got 'str'"),
        ("scratch", {"schedule.epochs": 0}, "schedule.epochs: expected 'int' >= 1"),
        ("scratch", {"run.seed": -1}, "run.seed"),
        ("scratch", {"run.seed": 2**32}, "run.seed"),
        ("scratch", {"optimiser.learning_rate": inf}, "optimiser.learning_rate"),
        ("scratch", {"optimiser.learning_rate": nan}, "optimiser.learning_rate"),
        ("scratch", {"run.collapse_spread": inf}, "run.collapse_spread"),
        ("scratch", {"data.memory_gb": 1e300}, "data.memory_gb"),
        ("scratch", {"optimiser.nesterov": True, "optimiser.momentum": 0}, "optimiser.nesterov: needs momentum"),
        ("scratch", {"model.size": "64"}, "model.size: size must be HEIGHTxWIDTH"),
        ("scratch", {"model.size": "12x64"}, "too small for the network"),
        ("scratch", {"model.width": 2}, "model.width"),
        ("scratch", {"model.variant.fusion": "sum"}, "model.variant"),
        ("scratch", {"loss.triplet": 0.5}, "loss.triplet: needs several images of each identity"),
        ("scratch", {"batch.instances": 5}, "batch.size: expected a multiple of batch.instances"),
        ("scratch", {"batch.instances": 64}, "batch.size: one identity"),
        ("scratch", {"batch.instances": 4}, "batch.instances: identity-balanced batches are for the triplet loss"),
        ("scratch", {"schedule.balanced_start": 4}, "schedule.balanced_start: give the images of each identity"),
        (
            "scratch",
            {"loss.triplet": 0.5, "batch.instances": 4, "schedule.balanced_start": 350},
            "schedule.balanced_start: epoch 350 is not among the 350",
        ),
        (
            "scratch",
            {"schedule.sizes": ["128x64", "192x96"], "schedule.size_milestones": [9]},
            "schedule.sizes: the last size is 192x96, but the network is for 256x128",
        ),
        ("scratch", {"schedule.sizes": ["128x64", "256x128"]}, "schedule.size_milestones: 2 sizes need 1 epochs"),
        ("scratch", {"schedule.size_milestones": [9]}, "schedule.size_milestones: 0 sizes need 0"),
        (
            "scratch",
            {"schedule.sizes": ["128x64", "256x128"], "schedule.size_milestones": [350]},
            "so the run would end at another size than 256x128",
        ),
        (
            "scratch",
            {"schedule.sizes": ["9x9", "99x99", "256x128"], "schedule.size_milestones": [9, 3]},
            "schedule.size_milestones: expected ascending",
        ),
        (
            "scratch",
            {"schedule.sizes": ["12x9", "256x128"], "schedule.size_milestones": [9]},
            "schedule.sizes: size 12x9 is too small",
        ),
        ("scratch", {"schedule.sizes": ["12"]}, "schedule.sizes: size must be HEIGHTxWIDTH"),
        ("scratch", {"schedule.sizes": "128x64"}, "schedule.sizes: expected"),
        (
            "scratch",
            {"distill.teachers": ["a.pth"], "distill.feature": 0},
            "distill: all three weights are 0",
        ),
        (
            "attributes",
            {**START, "distill.teachers": ["a.pth"], "distill.logits": 1},
            "distill.logits: attributes have no classes",
        ),
        ("scratch", {"distill.temperature": 0}, "distill.temperature"),
        ("scratch", {"loss.cross_entropy": 0}, "loss.cross_entropy: with 0 nothing is learnt"),
        ("finetune", {}, "--start CHECKPOINT"),
        ("cross-domain", {}, "--set schedule.frozen=0"),
        ("scratch", {"schedule.milestones": [400]}, "schedule.milestones: epoch 400 is not among the 350"),
        ("scratch", {"schedule.milestones": [9, 3]}, "schedule.milestones: expected ascending"),
        ("scratch", {"schedule.warmup": 350}, "schedule.warmup: 350 epochs of 350"),
        ("finetune", {**START, "schedule.frozen": 150}, "schedule.frozen: 150 epochs of 150"),
        (
            "scratch",
            {"loss.triplet": 0.5, "batch.instances": 4, "loss.triplet_start": 350},
            "loss.triplet_start: epoch 350",
        ),
        ("scratch", {"data.identities": 1}, "data.identities: one identity only"),
        ("classify", {"data.combineall": True}, "data.combineall: the task 'category'"),
        (
            "scratch",
            {"data.combineall": True, "data.dataset": "viper", "data.split": 2},
            "data.split: with data.combine",
        ),
        ("classify", {"data.identities": 5}, "data.identities: the task 'category'"),
        ("attributes", {**START, "loss.smoothing": 0.1}, "loss.smoothing"),
        ("attributes", {**START, "loss.mutual": 1}, "loss.mutual"),
        ("attributes", {**START, "batch.instances": 4}, "batch.instances"),
    ],
)
def test_what_cannot_be_is_refused_and_the_key_named(recipe, given, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        resolve(recipe, {}, given)


def test_a_cosine_schedule_needs_no_milestones_that_fit():
    assert resolved("mutual", None, **START).schedule.kind == "cosine"
    resolved(schedule__kind="cosine", schedule__milestones=[900])


def test_differences_are_listed_by_key():
    old = to_tables(resolved())
    new = to_tables(resolved(run__seed=5, data__identities=4))
    assert sorted(differences(old, new)) == [("data.identities", "none", 4), ("run.seed", 1, 5)]


def test_the_run_is_named_by_what_is_trained():
    assert run_name(resolved(model__width=0.25, model__size=[64, 32])) == Path("train-scratch-x0_25_64x32")
