import dataclasses

import pytest
import torch

from reid_edge.errors import CheckpointMismatchError
from reid_edge.osnet.architecture import NetworkVariant, OSNetConfig
from reid_edge.osnet.checkpoint import IMAGENET_MEAN, IMAGENET_STD, Checkpoint, CheckpointInfo
from reid_edge.osnet.network import OSNet
from reid_edge.training.model import CheckpointMaker, ReIDModel, make_models
from reid_edge.training.recipes import RECIPES
from reid_edge.training.settings import DataSettings, LossSettings, ModelSettings, RunSettings, TrainSettings

SIZE = (32, 16)
PRIMARY = NetworkVariant()


def config(*, seed=1, mutual=0.0, width=0.1, variant=PRIMARY):
    return TrainSettings(
        recipe="scratch",
        model=ModelSettings(width=width, size=SIZE, variant=variant),
        loss=LossSettings(mutual=mutual),
        run=RunSettings(seed=seed),
    )


def start(width=0.1, variant=PRIMARY, size=(64, 32)):
    info = CheckpointInfo(width=width, variant=variant, size=size)
    torch.manual_seed(99)
    return Checkpoint(info, OSNet(info.config).state_dict())


def same(first, second):
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def test_features_and_logits_come_out():
    model = ReIDModel(OSNetConfig(width=0.1, size=SIZE), 7).eval()
    images = torch.randn(3, 3, *SIZE)
    features, logits, _ = model(images)
    assert features.shape == (3, 512)
    torch.testing.assert_close(features, model.network(images))
    torch.testing.assert_close(logits, features @ model.head.weight.T + model.head.bias)


def test_under_autocast_the_classifier_stays_in_float32():
    model = ReIDModel(OSNetConfig(width=0.1, size=SIZE), 7).eval()
    with torch.autocast("cpu", torch.bfloat16):
        features, logits, _ = model(torch.randn(3, 3, *SIZE))
    assert features.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(logits, features @ model.head.weight.T + model.head.bias)


def test_each_teacher_of_features_has_a_projection():
    model = ReIDModel(OSNetConfig(width=0.1, size=SIZE), 7, taught=(256, 512)).eval()
    features, _, projected = model(torch.randn(3, 3, *SIZE))
    assert [tuple(one.shape) for one in projected] == [(3, 256), (3, 512)]
    torch.testing.assert_close(projected[0], features @ model.projections[0].weight.T)


def test_teachers_change_no_random_weight():
    alone, taught = make_models(config(), 4, None)[0], make_models(config(), 4, None, [256])[0]
    assert all(torch.equal(tensor, taught.state_dict()[name]) for name, tensor in alone.state_dict().items())


def test_a_float64_model_gives_float64():
    model = ReIDModel(OSNetConfig(width=0.1, size=SIZE), 7).double().eval()
    output = model(torch.randn(2, 3, *SIZE).double())
    assert output.features.dtype == output.logits.dtype == torch.float64


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    first = make_models(config(), 4, None)
    torch.rand(17)
    assert same(first, make_models(config(), 4, None))
    assert not same(first, make_models(config(seed=2), 4, None))


def test_the_global_generator_is_left_as_it_was():
    given = start()
    before = torch.get_rng_state()
    make_models(config(mutual=1.0), 4, given)
    assert torch.equal(torch.get_rng_state(), before)


def test_mutual_learning_has_two_networks_that_differ():
    one, two = make_models(config(mutual=1.0, seed=3), 4, None)
    assert not same(one.network, two.network)
    assert same(one, make_models(config(seed=3), 4, None)[0])
    assert not same(two, make_models(config(seed=4), 4, None)[0]), "runs of other seeds share nothing"


def test_a_start_gives_every_network_its_features_and_none_its_classifier():
    given = start()
    one, two = make_models(config(mutual=1.0), 4, given)
    for model in (one, two):
        for name, tensor in model.network.state_dict().items():
            assert torch.equal(tensor, given.state[name]), name
    assert not torch.equal(one.head.weight, two.head.weight)


def test_training_does_not_write_into_the_start():
    given = start()
    (model,) = make_models(config(), 4, given)
    with torch.no_grad():
        model.network.fc.weight.zero_()
    assert given.state["fc.weight"].abs().sum() > 0


def test_another_width_is_refused():
    with pytest.raises(CheckpointMismatchError, match=r"network has width 0\.1, but .* has width 0\.25.*--width 0\.25"):
        make_models(config(), 4, start(width=0.25))


def test_another_variant_is_refused():
    with pytest.raises(CheckpointMismatchError, match=r"is the variant instance_norm=True, but .* the paper's primary"):
        make_models(config(variant=NetworkVariant(instance_norm=True)), 4, start())


def test_a_start_of_another_stem_and_pooling_fits_since_these_have_no_weights():
    wanted = NetworkVariant(stem_stride=1, stem_pool=False, pooling="maximum")
    (model,) = make_models(config(variant=wanted), 4, start())
    assert model.network.config.variant == wanted
    with pytest.raises(CheckpointMismatchError) as refused:
        make_models(config(variant=NetworkVariant(instance_norm=True, pooling="maximum")), 4, start())
    assert "model.variant.instance_norm=false, or another" in str(refused.value)


def test_another_variant_is_refused_with_the_options_that_give_it():
    ain = NetworkVariant(ain=True)
    with pytest.raises(CheckpointMismatchError, match=r"model\.variant\.instance_norm=false .*variant\.ain=true, or"):
        make_models(config(variant=NetworkVariant(instance_norm=True)), 4, start(variant=ain))
    make_models(config(variant=ain), 4, start(variant=ain))


def test_missing_and_broken_weights_are_refused():
    given = start()
    missing = dataclasses.replace(given, state={k: v for k, v in given.state.items() if k != "fc.bias"})
    with pytest.raises(CheckpointMismatchError, match=r"missing +fc\.bias"):
        make_models(config(), 4, missing)
    broken = dataclasses.replace(given, state=given.state | {"fc.bias": torch.full((512,), torch.nan)})
    with pytest.raises(CheckpointMismatchError, match=r"fc\.bias: holds NaN"):
        make_models(config(), 4, broken)


def kept(recipe, **data):
    config = RECIPES[recipe]
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, width=0.1),
        data=dataclasses.replace(config.data, **data) if data else config.data,
    )
    model = make_models(config, 3, None)[0]
    return CheckpointMaker(config, ("a", "b", "c"), IMAGENET_MEAN, IMAGENET_STD).checkpoint(
        model, {"mAP": 0.5}, steps=7
    )


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
        ({"dataset": "msmt17", "combineall": True}, "msmt17, all splits"),
        ({"dataset": "viper", "combineall": True, "identities": 50}, "viper, all splits, 50 identities"),
    ],
)
def test_a_checkpoint_says_which_part_of_a_dataset_it_has_seen(data, said):
    assert kept("scratch", **data).info.dataset == said
    assert kept("scratch", **data).info.training["data"]["validation"] == DataSettings().validation


def test_a_neck_is_part_of_the_classifier_and_not_of_the_feature():
    torch.manual_seed(0)
    model = ReIDModel(OSNetConfig(width=0.1, size=(32, 16)), 4, neck=True)
    images = torch.randn(6, 3, 32, 16)
    for _ in range(3):
        model(images)  # moves the statistics
    with torch.no_grad():
        model.neck.weight.uniform_(0.5, 2)
    model.eval()
    features, logits, _ = model(images)
    torch.testing.assert_close(features, model.network(images))
    torch.testing.assert_close(model.classifier()(features), logits, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(model.head(features), logits, atol=1e-3)


def test_the_classifier_of_a_neck_has_neither_shift_nor_bias():
    model = ReIDModel(OSNetConfig(width=0.1, size=(32, 16)), 4, neck=True)
    still = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert still == ["neck.bias", "head.bias"]


def test_a_checkpoint_of_categories_has_the_neck_in_its_classifier():
    config = dataclasses.replace(RECIPES["classify"], model=ModelSettings(width=0.1, size=(32, 32), neck=True))
    model = make_models(config, 3, None)[0]
    with torch.no_grad():
        model.neck.running_mean.uniform_(-1, 1)
    maker = CheckpointMaker(config, ("a", "b", "c"), IMAGENET_MEAN, IMAGENET_STD)
    head = maker.checkpoint(model, {}, steps=1).head
    features, logits, _ = model.eval()(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(features @ head.weight.T + head.bias, logits)
