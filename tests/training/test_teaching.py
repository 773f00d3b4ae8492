"""Runs with teachers: what they learn, how they go on, and what is refused."""

import dataclasses
import shutil

import pytest
import safetensors.torch
import torch

from reid_edge.errors import (
    CheckpointError,
    CheckpointMismatchError,
    ResumeError,
    SettingsError,
    StoppedError,
    TrainingError,
)
from reid_edge.osnet.checkpoint import load_checkpoint, save_checkpoint
from reid_edge.training.augment import normalise
from reid_edge.training.pixels import open_pixels
from reid_edge.training.resolve import resolve
from reid_edge.training.run import train
from reid_edge.training.state import load_state, save_state
from reid_edge.training.task import load_training_data
from reid_edge.training.teachers import load_teachers
from reid_edge.training.teaching import KnownFeatures, TeachingStaff, known_features
from tests.training.people import values, write_people
from tests.training.test_run import rows, same, stopping

CPU = torch.device("cpu")
ALL_LOSSES = {"distill__feature": 5.0, "distill__relations": 20.0, "distill__logits": 1.0}


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return write_people(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def teacher(people, tmp_path_factory):
    """A finished run of a wider, instance-normalised network, at another size."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    train(
        configured(
            people,
            model__width=0.2,
            model__size="32x16",
            model__variant__instance_norm=True,
            model__neck=True,
            schedule__epochs=2,
            run__ema=0.9,
        ),
        out,
    )
    return out


def configured(people, **more):
    return resolve("scratch", {}, values(people, **more))[0]


def taught(people, *teachers, **more):
    return configured(people, distill__teachers=[str(one) for one in teachers], **{"schedule__epochs": 1} | more)


@pytest.mark.parametrize(
    ("name", "view"), [("feature", "clean"), ("feature", "same"), ("relations", "clean"), ("logits", "same")]
)
def test_a_run_learns_what_it_is_taught(people, teacher, tmp_path, name, view):
    only = dict.fromkeys(ALL_LOSSES, 0.0) | {f"distill__{name}": 1000.0}
    plain = {"augment__patch": 0, "augment__translate": 0, "optimiser__name": "amsgrad"}
    config = taught(people, teacher, distill__view=view, **only, **plain, schedule__epochs=6)
    train(config, tmp_path / "run")
    first, *_, last = rows(tmp_path / "run")
    assert 0 < float(last[f"taught_{name}"]) < 0.8 * float(first[f"taught_{name}"])


def test_without_teachers_nothing_is_taught(people, tmp_path):
    train(configured(people, schedule__epochs=1), tmp_path / "run")
    assert not [name for name in rows(tmp_path / "run")[0] if name.startswith("taught")]
    assert not (tmp_path / "run/teachers.safetensors").exists()


def test_the_checkpoint_names_teachers_steps_and_precision(people, teacher, tmp_path):
    train(taught(people, teacher / "last.safetensors"), tmp_path / "run")
    training = load_checkpoint(tmp_path / "run/last.safetensors").info.training
    sha256 = load_checkpoint(teacher / "last.safetensors").sha256
    assert training["done"] == {"steps": 4, "teachers": [sha256]}
    assert training["distill"]["teachers"] == ["last.safetensors"]
    assert training["run"]["precision"] == "float32"


def test_the_folder_of_a_run_teaches_its_averaged_weights_and_its_classifier(people, teacher, tmp_path):
    config = taught(people, teacher)
    [found] = load_teachers(config, load_training_data(config), tmp_path / "run", None)
    assert found.sha256 == load_checkpoint(teacher / "last.safetensors").sha256
    assert found.classifier is not None
    assert found.info.size == (32, 16)


def test_known_features_are_means_of_both_mirrorings_at_the_teachers_size(people, teacher, tmp_path):
    config = taught(people, teacher)
    training_data = load_training_data(config)
    teachers = load_teachers(config, training_data, tmp_path / "run", None)
    found = known_features(teachers, training_data.images, config.augment, CPU, half=False)
    network = load_checkpoint(teacher / "last.safetensors").network()
    source = open_pixels(training_data.images, (32, 16), CPU, memory_bytes=10**9)
    pixels = normalise(source.batch(torch.arange(len(source))), teachers[0].info.mean, teachers[0].info.std)
    with torch.inference_mode():
        wanted = (network(pixels) + network(pixels.flip(3))) / 2
    torch.testing.assert_close(found[:, 0].float(), wanted, rtol=2e-3, atol=1e-3)


def test_a_teacher_that_sees_the_same_view_sees_it_at_its_own_size(people, teacher, tmp_path):
    config = taught(people, teacher, distill__view="same")
    teachers = load_teachers(config, load_training_data(config), tmp_path / "run", None)
    seen = []
    teachers[0].network.register_forward_pre_hook(lambda _network, inputs: seen.append(inputs[0].shape[2:]))
    TeachingStaff(teachers, config, CPU, half=False, known=None)(torch.rand(2, 3, 24, 16), None)
    assert seen == [teachers[0].info.size] == [(32, 16)]


def test_a_run_whose_state_lacks_weights_is_refused_as_a_teacher(people, teacher, tmp_path):
    shutil.copytree(teacher, tmp_path / "teacher")
    state = load_state(tmp_path / "teacher/state.pt")
    save_state(tmp_path / "teacher/state.pt", dataclasses.replace(state, stepper={}))
    config = taught(people, tmp_path / "teacher")
    with pytest.raises(ResumeError, match=r"state\.pt does not fit its own settings .*best\.safetensors"):
        load_teachers(config, load_training_data(config), tmp_path / "run", None)


def test_without_labels_the_classifier_does_not_learn(people, teacher, tmp_path):
    config = taught(people, teacher, loss__cross_entropy=0.0, schedule__epochs=1, optimiser__weight_decay=0.0)
    train(config, tmp_path / "run")
    assert {float(row["cross_entropy"]) for row in rows(tmp_path / "run")} == {0.0}
    state = load_state(tmp_path / "run/state.pt").stepper
    heads = [value for name, value in state["learners"].items() if name == "0.head.weight"]
    train(taught(people, teacher, loss__cross_entropy=0.0, schedule__epochs=2), tmp_path / "longer")
    longer = load_state(tmp_path / "longer/state.pt").stepper["learners"]["0.head.weight"]
    assert torch.equal(heads[0], longer)


@pytest.mark.slow
@pytest.mark.parametrize("view", ["clean", "same"])
def test_stopped_and_resumed_with_teachers_it_is_the_same_to_the_last_bit(people, teacher, tmp_path, view):
    config = taught(people, teacher, distill__view=view, **ALL_LOSSES, schedule__epochs=2, run__ema=0.9)
    train(config, tmp_path / "whole")
    with pytest.raises(StoppedError):
        train(config, tmp_path / "parts", notify=stopping(3))
    train(config, tmp_path / "parts", resume=True)
    same(tmp_path / "whole", tmp_path / "parts")


def test_a_resumed_run_reads_what_the_teachers_said(people, teacher, tmp_path, monkeypatch):
    config = taught(people, teacher)
    with pytest.raises(StoppedError):
        train(config, tmp_path / "run", notify=stopping(2))
    monkeypatch.setattr("reid_edge.training.teaching.known_features", None)
    train(config, tmp_path / "run", resume=True)


def test_kept_features_that_are_damaged_or_of_others_are_computed_again(tmp_path):
    path = tmp_path / "teachers.safetensors"
    KnownFeatures(torch.ones(2, 1, 512, dtype=torch.float16), "a").save(path)
    assert torch.equal(KnownFeatures.kept(path, "a").features, torch.ones(2, 1, 512, dtype=torch.float16))
    assert KnownFeatures.kept(path, "b") is None
    path.write_bytes(path.read_bytes()[:-9])
    assert KnownFeatures.kept(path, "a") is None
    assert KnownFeatures.kept(tmp_path / "none", "a") is None


def test_a_kept_file_of_which_only_the_header_can_be_read_is_written_anew(tmp_path):
    path = tmp_path / "teachers.safetensors"
    safetensors.torch.save_file({"other": torch.ones(1)}, path, {"reid_edge_teachers": "a"})
    assert KnownFeatures.kept(path, "a") is None
    KnownFeatures(torch.ones(2, 1, 512, dtype=torch.float16), "a").save(path)
    assert KnownFeatures.kept(path, "a") is not None


@pytest.mark.parametrize(
    ("factor", "view", "message"),
    [
        (1e7, "clean", r"last\.safetensors makes features of up to .*distill\.view=same"),
        (3e38, "clean", r"last\.safetensors makes features that are not finite"),
        (3e38, "same", r"last\.safetensors makes features that are not finite"),
    ],
)
def test_a_teacher_whose_features_are_too_large_is_named(people, teacher, tmp_path, factor, view, message):
    checkpoint = load_checkpoint(teacher / "last.safetensors")
    large = {name: tensor * factor if name == "fc_norm.weight" else tensor for name, tensor in checkpoint.state.items()}
    save_checkpoint(dataclasses.replace(checkpoint, state=large), tmp_path / "last.safetensors")
    config = taught(people, tmp_path / "last.safetensors", distill__view=view)
    refused(config, tmp_path / "run", SettingsError, message)


def test_a_teacher_with_large_features_may_see_the_same_images(people, teacher, tmp_path):
    checkpoint = load_checkpoint(teacher / "last.safetensors")
    large = checkpoint.state | {"fc_norm.weight": checkpoint.state["fc_norm.weight"] * 1e7}
    save_checkpoint(dataclasses.replace(checkpoint, state=large), tmp_path / "last.safetensors")
    train(taught(people, tmp_path / "last.safetensors", distill__view="same"), tmp_path / "run")


def test_the_same_teachers_in_another_order_are_told_their_order(people, teacher, tmp_path):
    train(configured(people, schedule__epochs=1, run__seed=9), tmp_path / "second")
    config = taught(people, teacher, tmp_path / "second")
    with pytest.raises(StoppedError):
        train(config, tmp_path / "run", notify=stopping(1))
    order = rf"in another order; give them as: --teacher {teacher} --teacher {tmp_path / 'second'}"
    refused(taught(people, tmp_path / "second", teacher), tmp_path / "run", ResumeError, order, resume=True)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError, "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        (RuntimeError, "NCCL communicator was aborted"),
        (getattr(torch, "AcceleratorError", None), "unspecified launch failure"),
    ],
)
def test_a_gpu_that_vanishes_while_teachers_look_is_told(people, teacher, tmp_path, monkeypatch, error, reason):
    if error is None:
        pytest.skip("this torch has no type of its own")

    def vanishing(*_args, **_more):
        raise error(f"{reason}\nat somewhere")

    monkeypatch.setattr("reid_edge.training.teaching.known_features", vanishing)
    message = rf"the GPU failed before step 1 \({reason}\)\. Nothing was written"
    refused(taught(people, teacher), tmp_path / "run", TrainingError, message)
    assert not (tmp_path / "run").exists()


def test_several_teachers_teach_features_relations_and_predictions(people, teacher, tmp_path):
    train(configured(people, schedule__epochs=1), tmp_path / "second")
    train(taught(people, teacher, tmp_path / "second", **ALL_LOSSES), tmp_path / "run")
    row = rows(tmp_path / "run")[0]
    assert all(float(row[f"taught_{name}"]) > 0 for name in ("feature", "relations", "logits"))


def test_what_was_taught_may_teach_and_projections_stay_out_of_the_checkpoint(people, teacher, tmp_path):
    train(taught(people, teacher), tmp_path / "run")
    names = load_checkpoint(tmp_path / "run/last.safetensors").state
    assert not [name for name in names if "projection" in name]
    train(taught(people, tmp_path / "run", distill__logits=1.0), tmp_path / "next")


def test_two_networks_that_learn_from_each_other_may_have_a_teacher(people, teacher, tmp_path):
    train(taught(people, teacher, loss__mutual=1.0), tmp_path / "run")
    assert (tmp_path / "run/last-2.safetensors").is_file()


def refused(config, out, error, message, **more):
    with pytest.raises(error, match=message):
        train(config, out, **more)


def test_a_teacher_of_another_feature_size_is_refused(people, teacher, tmp_path):
    checkpoint = load_checkpoint(teacher / "last.safetensors")
    longer = {
        name: torch.cat([tensor, tensor]) if name.startswith("fc") and tensor.ndim else tensor
        for name, tensor in checkpoint.state.items()
    }
    torch.save({f"module.{name}": tensor for name, tensor in longer.items()}, tmp_path / "long.pth")
    refused(taught(people, tmp_path / "long.pth"), tmp_path / "run", CheckpointError, "long.pth|1024|tensor")
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_another_normalisation_cannot_see_the_same_images(people, teacher, tmp_path):
    checkpoint = load_checkpoint(teacher / "last.safetensors")
    info = dataclasses.replace(checkpoint.info, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    save_checkpoint(dataclasses.replace(checkpoint, info=info), tmp_path / "other.safetensors")
    config = taught(people, tmp_path / "other.safetensors", distill__view="same")
    refused(config, tmp_path / "run", CheckpointMismatchError, r"normalises its input .*--set distill\.view=clean")
    assert not (tmp_path / "run").exists()
    train(taught(people, tmp_path / "other.safetensors"), tmp_path / "run")


def test_the_checkpoint_that_the_run_starts_from_teaches_it_nothing(people, teacher, tmp_path):
    start = teacher / "last.safetensors"
    config = taught(
        people,
        start,
        model__start=str(start),
        model__width=0.2,
        model__variant__instance_norm=True,
    )
    refused(config, tmp_path / "run", SettingsError, "has the weights that the run starts from")


def test_a_teacher_in_the_runs_own_folder_is_refused_and_not_replaced(people, teacher, tmp_path):
    shutil.copytree(teacher, tmp_path / "run")
    for path in (tmp_path / "run/last.safetensors", tmp_path / "run"):
        refused(taught(people, path), tmp_path / "run", SettingsError, "lies in the folder of this run", force=True)
    assert (tmp_path / "run/last.safetensors").is_file()


def test_the_same_teacher_twice_is_refused(people, teacher, tmp_path):
    config = taught(people, teacher, teacher / "last.safetensors", distill__feature=0, distill__relations=1)
    refused(config, tmp_path / "run", SettingsError, "have the same weights")


def test_predictions_of_other_people_are_refused(people, teacher, tmp_path):
    config = taught(people, teacher, distill__logits=1.0, data__validation=3)
    refused(config, tmp_path / "run", SettingsError, r"has no classifier of these classes.*distill\.logits=0")
    config = taught(people, teacher / "last.safetensors", distill__logits=1.0)
    refused(config, tmp_path / "run", SettingsError, "has no classifier of these classes")


def test_a_teacher_that_is_not_there_or_not_finished_is_refused(people, tmp_path):
    refused(taught(people, tmp_path / "no.pth"), tmp_path / "run", CheckpointError, r"there is no .*no\.pth")
    with pytest.raises(StoppedError):
        train(configured(people), tmp_path / "half", notify=stopping(1))
    refused(taught(people, tmp_path / "half"), tmp_path / "run", SettingsError, "is not finished")
    (tmp_path / "empty").mkdir()
    refused(taught(people, tmp_path / "empty"), tmp_path / "run", ResumeError, "no state at")


def test_a_run_goes_on_with_its_own_teachers_only(people, teacher, tmp_path):
    config = taught(people, teacher / "last.safetensors")
    with pytest.raises(StoppedError):
        train(config, tmp_path / "run", notify=stopping(2))
    train(configured(people, schedule__epochs=1, run__seed=9), tmp_path / "second")
    other = taught(people, tmp_path / "second")
    refused(other, tmp_path / "run", ResumeError, "not those that the run began with", resume=True)
    shutil.copyfile(teacher / "last.safetensors", tmp_path / "moved.safetensors")
    train(taught(people, tmp_path / "moved.safetensors"), tmp_path / "run", resume=True)
