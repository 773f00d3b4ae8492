from dataclasses import replace

import pytest

from reid_edge.osnet.checkpoint import IMAGENET_MEAN, IMAGENET_STD
from reid_edge.training.checkpoints import CheckpointMaker
from reid_edge.training.config import DataConfig
from reid_edge.training.learner import make_learners
from reid_edge.training.recipes import RECIPES


def kept(recipe, **data):
    config = RECIPES[recipe]
    config = replace(
        config, model=replace(config.model, width=0.1), data=replace(config.data, **data) if data else config.data
    )
    learner = make_learners(config, 3, None)[0]
    return CheckpointMaker(config, ("a", "b", "c"), IMAGENET_MEAN, IMAGENET_STD).checkpoint(learner, {"mAP": 0.5})


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipes_checkpoint_names_its_dataset_and_recipe(recipe):
    checkpoint = kept(recipe)
    assert (checkpoint.info.dataset, checkpoint.info.recipe) == (RECIPES[recipe].data.dataset, recipe)
    assert (checkpoint.head is None) == (RECIPES[recipe].task == "identity")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"dataset": "viper", "split": 3}, "viper, random split 3"),
        ({"dataset": "mix4"}, "mix4"),
        ({"dataset": "market1501", "identities": 50}, "market1501, 50 identities"),
        ({"dataset": "market1501+dukemtmc"}, "market1501+dukemtmc"),
    ],
)
def test_a_checkpoint_says_which_part_of_a_dataset_it_has_seen(data, said):
    assert kept("scratch", **data).info.dataset == said
    assert kept("scratch", **data).info.training["data"]["validation"] == DataConfig().validation
