import copy
import io
import math
from dataclasses import replace

import pytest
import torch

from reid_edge.errors import ResumeError, SettingsError
from reid_edge.training.augment import Augmenter
from reid_edge.training.model import Output, make_models
from reid_edge.training.objective import Objective
from reid_edge.training.settings import (
    AugmentSettings,
    LossSettings,
    ModelSettings,
    OptimiserSettings,
    RunSettings,
    ScheduleSettings,
)
from reid_edge.training.step import half_precision
from tests.osnet.variants import VARIANTS
from tests.training.software_graph import NotCapturable, SoftwareGraph
from tests.training.steps import (
    BATCH,
    CLASSES,
    CPU,
    MEAN,
    SHALLOW,
    SIZE,
    STD,
    STEPS_PER_EPOCH,
    batch,
    differing,
    make_stepper,
    small_run,
    take,
    tensors,
)

MUTUAL = small_run(
    optimiser=OptimiserSettings(name="amsgrad", learning_rate=0.002),
    loss=LossSettings(triplet=0.5, mutual=1.0),
    run=RunSettings(seed=3, precision="float32", ema=0.9),
)
WHOLE = range(3 * STEPS_PER_EPOCH)


def plain_training(config, steps, dtype):
    """The small run with torch's unfused SGD, the schedule written out, and nothing clever."""
    models = make_models(config, CLASSES, None).to(dtype)
    model = models[0]
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9, weight_decay=5e-4, foreach=False)
    augmenter, objective = Augmenter(config.augment, SIZE, MEAN, STD, CPU), Objective(config)
    average = copy.deepcopy(models.state_dict())
    losses = []
    for step in range(steps):
        epoch = step // 4
        model.train()
        if epoch < 1:
            model.network.eval()
        for parameter in model.network.parameters():
            parameter.requires_grad_(epoch >= 1)
        warm = 0.01 + 0.99 * step / 4
        rate = 0.02 * (warm if step < 4 else (1 + math.cos(math.pi * (step - 4) / 8)) / 2)
        optimiser.param_groups[0]["lr"] = float(torch.tensor(rate))  # in single precision, as the device has it
        pixels, targets, drawn, partners = batch(config, step)
        images = augmenter(pixels, drawn, partners).to(dtype)
        optimiser.zero_grad()
        loss = objective([model(images)], targets, torch.tensor(0.5 if epoch >= 2 else 0.0))["loss"]
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        decay = min(0.9, (1 + step) / (10 + step))
        for name, value in models.state_dict().items():
            average[name] = decay * average[name] + (1 - decay) * value if value.is_floating_point() else value.clone()
    return models.state_dict(), average, losses


def test_steps_are_those_of_a_plain_training_loop():
    config = small_run(run=RunSettings(seed=3, precision="float32", ema=0.9))
    state, average, losses = plain_training(config, 12, torch.float64)
    stepper = take(make_stepper(config, dtype=torch.float64), config, WHOLE)
    for name, tensor in stepper.models.state_dict().items():
        torch.testing.assert_close(tensor, state[name], rtol=1e-6, atol=1e-7, msg=name)
    for name, tensor in stepper.evaluated.state_dict().items():
        torch.testing.assert_close(tensor, average[name], rtol=1e-6, atol=1e-7, msg=name)
    assert stepper.read()["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-6)


def test_frozen_stage_trains_the_classifier_only():
    config = small_run()
    stepper = make_stepper(config)
    before = tensors(stepper.models.state_dict())
    after = tensors(take(stepper, config, range(4)).models.state_dict())
    assert {name.split(".")[1] for name in differing(before, after)} == {"head"}
    later = tensors(take(stepper, config, range(4, 6)).models.state_dict())
    changed = differing(after, later)
    assert {name.split(".")[1] for name in changed} == {"head", "network"}
    assert any("running_mean" in name for name in changed)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        small_run(run=RunSettings(seed=3, precision="float32", ema=0.9)),
        MUTUAL,
        small_run(augment=AugmentSettings(patch=0, translate=0, shift=2)),
    ],
    ids=["scratch", "mutual", "shift"],
)
def test_recorded_steps_are_those_of_unrecorded_ones_bit_by_bit(config):
    graph = SoftwareGraph()
    plain, recorded = make_stepper(config), make_stepper(config, graph)
    take(plain, config, WHOLE)
    take(recorded, config, WHOLE)
    assert differing(tensors(plain.state_dict()), tensors(recorded.state_dict())) == []
    assert graph.recordings == 2  # frozen, and whole
    assert graph.replays == (4 - 3) + (8 - 3)


@pytest.mark.parametrize(
    "augment",
    [
        AugmentSettings(erase=0.5, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1, shift=1),
        AugmentSettings(translate=0, crop=True),
    ],
    ids=["everything", "resized crop"],
)
def test_every_change_of_an_image_can_be_recorded(augment):
    config = small_run(augment=augment)
    augmenter = Augmenter(augment, SIZE, MEAN, STD, CPU)
    pixels, _, drawn, partners = batch(config, 0)
    pixels, partners = (torch.nn.functional.interpolate(each, augmenter.source_size) for each in (pixels, partners))
    replay = SoftwareGraph().record(lambda: augmenter(pixels, drawn, partners))
    replay()


@pytest.mark.parametrize("task", ["identity", "category", "attributes"])
def test_the_loss_of_every_task_can_be_recorded(task):
    several = task == "attributes"
    loss = LossSettings(smoothing=0.0) if several else LossSettings(triplet=0.5, entropy=0.1, mutual=1.0)
    config = replace(small_run(loss=loss), task=task)
    objective = Objective(config, torch.full((CLASSES,), 0.3) if several else None)
    rng = torch.Generator().manual_seed(0)
    outputs = [Output(torch.rand(8, 16, generator=rng), torch.randn(8, CLASSES, generator=rng)) for _ in range(2)]
    targets = (outputs[0].logits > 0).long() if several else torch.arange(8) // 2
    weight = torch.tensor(0.5)
    found = {}
    replay = SoftwareGraph().record(lambda: found.update(objective(outputs[: config.networks], targets, weight)))
    replay()
    outputs[0].logits.mul_(-2.0)
    replay()
    expected = objective(outputs[: config.networks], targets, weight)
    assert {name: value.item() for name, value in found.items()} == {
        name: value.item() for name, value in expected.items()
    }


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_takes_a_step(name):
    model = ModelSettings(width=0.1, size=SIZE, variant=VARIANTS[name])
    config = small_run(model=model, schedule=ScheduleSettings(epochs=1, milestones=()))
    config = replace(config, optimiser=OptimiserSettings(weight_decay=0.0))
    stepper = make_stepper(config)
    before = {name: tensor.clone() for name, tensor in stepper.models.named_parameters()}
    take(stepper, config, [0])
    assert math.isfinite(stepper.read()["loss"])
    moved = {name for name, tensor in stepper.models.named_parameters() if not torch.equal(tensor, before[name])}
    # At this width a gate's hidden layer is one unit, which may be off.
    gates = {name for name in before if ".gate." in name}
    assert moved >= before.keys() - gates
    assert not gates or moved & gates


def test_what_asks_the_device_for_a_value_cannot_be_recorded():
    weight = torch.ones(())
    with pytest.raises(NotCapturable, match="local_scalar"):
        SoftwareGraph().record(lambda: weight * weight.item())


@pytest.mark.slow
@pytest.mark.parametrize(("config", "stop"), [(small_run(), 3), (small_run(), 6), (MUTUAL, 6)])
def test_saved_and_loaded_in_another_process_goes_on_bit_by_bit(config, stop):
    whole = take(make_stepper(config), config, range(9))
    first = take(make_stepper(config), config, range(stop))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = make_stepper(config)
    second.load_state_dict(torch.load(file, weights_only=True))
    take(second, config, range(stop, 9))
    assert differing(tensors(whole.state_dict()), tensors(second.state_dict())) == []
    assert whole.read() == second.read()


def test_loading_into_a_recorded_stepper_records_anew():
    config, graph = small_run(), SoftwareGraph()
    whole = take(make_stepper(config), config, range(9))
    stepper = take(make_stepper(config, graph), config, range(5))
    state = copy.deepcopy(stepper.state_dict())
    take(stepper, config, range(5, 7))
    stepper.load_state_dict(state)
    take(stepper, config, range(5, 9))
    assert differing(tensors(whole.state_dict()), tensors(stepper.state_dict())) == []


def test_state_of_another_network():
    state = make_stepper(small_run(model=ModelSettings(width=0.15, size=SIZE, variant=SHALLOW))).state_dict()
    with pytest.raises(ResumeError, match="size mismatch"):
        make_stepper(small_run()).load_state_dict(state)


def test_state_of_another_optimiser():
    state = make_stepper(small_run()).state_dict()
    with pytest.raises(ResumeError, match="does not fit"):
        make_stepper(small_run(optimiser=OptimiserSettings(name="adam"))).load_state_dict(state)


def test_evaluating_in_between_changes_nothing():
    config = small_run()
    disturbed = make_stepper(config)
    for step in range(9):
        take(disturbed, config, [step])
        disturbed.evaluated.eval() if step % 2 else disturbed.evaluated[0].network.eval()
    assert (
        differing(tensors(take(make_stepper(config), config, range(9)).state_dict()), tensors(disturbed.state_dict()))
        == []
    )


def test_figures_are_means_since_the_last_reading():
    config = small_run()
    stepper = make_stepper(config)
    assert stepper.read() == {}
    singles = []
    for step in range(3):
        take(stepper, config, [step])
        singles.append(stepper.read())
    together = take(make_stepper(config), config, range(3)).read()
    assert set(together) >= {"loss", "cross_entropy", "triplet", "accuracy", "spread"}
    for name, value in together.items():
        assert value == pytest.approx(sum(single[name] for single in singles) / 3, rel=1e-12), name
    assert stepper.read() == {}


def test_bfloat16_computes_coarsely_and_keeps_full_weights():
    schedule = ScheduleSettings(epochs=1, milestones=())
    full, half = (
        small_run(schedule=schedule, run=RunSettings(seed=3, precision=precision))
        for precision in ("float32", "bfloat16")
    )
    exact, coarse = take(make_stepper(full), full, [0]), take(make_stepper(half), half, [0])
    assert {parameter.dtype for parameter in coarse.models.parameters()} == {torch.float32}
    one, other = exact.read(), coarse.read()
    assert one["loss"] != other["loss"]
    assert one["loss"] == pytest.approx(other["loss"], rel=0.05)


@pytest.mark.slow
def test_training_learns():
    config = small_run(
        augment=AugmentSettings(flip=0, translate=0, patch=0),
        loss=LossSettings(),
        schedule=ScheduleSettings(epochs=9, milestones=()),
        optimiser=OptimiserSettings(learning_rate=0.05),
    )
    stepper = make_stepper(config)
    inputs = batch(config, 0)
    for step in range(30):
        stepper(*inputs, step)
        if step == 0:
            start = stepper.read()["cross_entropy"]
    stepper.read()
    stepper(*inputs, 30)
    assert stepper.read()["cross_entropy"] < 0.6 * start


def test_graph_on_a_cpu_is_refused():
    with pytest.raises(SettingsError, match=r"run\.graph is 'on', but the device is a CPU"):
        make_stepper(small_run(run=RunSettings(graph="on")))


def test_a_batch_of_this_test_is_whole():
    assert [len(each) for each in batch(small_run(), 0)] == [BATCH] * 4


@pytest.mark.parametrize(
    ("flags", "half"),
    [({"avx512f", "avx512_bf16"}, True), ({"amx_bf16"}, True), ({"avx512f", "avx512_vnni"}, False), (set(), False)],
)
def test_bfloat16_is_for_cpus_that_have_it(monkeypatch, flags, half):
    monkeypatch.setattr("reid_edge.training.step.cpu_flags", lambda: frozenset(flags))
    assert half_precision(RunSettings(), CPU) is half
    assert not half_precision(RunSettings(precision="float32"), CPU)
    assert half_precision(RunSettings(precision="bfloat16"), CPU)
    assert half_precision(RunSettings(), torch.device("cuda"))
