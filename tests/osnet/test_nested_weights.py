"""Where trainers put the weights of a network."""

import pytest
import torch

from reid_edge.errors import CheckpointMismatchError
from reid_edge.osnet.nested_weights import find_weights

STATE = {"conv1.conv.weight": torch.zeros(2), "conv5.conv.weight": torch.zeros(3)}
OTHER = {name: tensor + 1 for name, tensor in STATE.items()}


def prefixed(prefix, state=STATE):
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("loaded", "place"),
    [
        (STATE, ""),
        ({"state_dict": STATE, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}}, "state_dict"),
        ({"model": STATE}, "model"),
        ({"net": STATE}, "net"),
        ({"network": STATE}, "network"),
        ({"model_state_dict": STATE, "optimizer_state_dict": {}}, "model_state_dict"),
        ({"ema_state_dict": STATE}, "ema_state_dict"),
        ({"checkpoint": {"model": STATE}}, "checkpoint/model"),
        ([STATE, 7], "0"),
        (prefixed("module."), "module"),
        ({"state_dict": prefixed("module.module.")}, "state_dict/module/module"),
        ({"state_dict": prefixed("model.") | {"loss.weight": torch.zeros(1)}}, "state_dict/model"),
        (prefixed("backbone."), "backbone"),
        (prefixed("encoder."), "encoder"),
        (prefixed("_orig_mod."), "_orig_mod"),
        (prefixed("module._orig_mod."), "module/_orig_mod"),
    ],
)
def test_the_only_network_is_found_wherever_it_is(loaded, place):
    found = find_weights(loaded, name="m.pth")
    assert found.place == place
    assert found.state.keys() == STATE.keys()
    assert all(found.state[name] is STATE[name] for name in STATE)


def test_nothing_is_said_of_the_places_that_torchreid_uses():
    for loaded in (STATE, {"state_dict": STATE}, prefixed("module."), {"state_dict": prefixed("module.")}):
        assert find_weights(loaded, name="m.pth").note == ""


def test_another_place_is_said_and_so_is_what_is_left_out():
    loaded = {"state_dict": prefixed("model.") | {"loss.weight": torch.zeros(1), "loss.bias": torch.zeros(1)}}
    note = find_weights(loaded, name="m.pth").note
    assert note == "weights found under 'state_dict/model'; left out: loss.weight, loss.bias (2 tensors)."
    averaged = find_weights(prefixed("module.") | {"n_averaged": torch.tensor(3)}, name="m.pth")
    outer = find_weights(STATE | prefixed("ema.", OTHER), name="m.pth", wanted=".")
    assert outer.note.startswith("weights found at the top; left out: ema.conv1.conv.weight, ")
    assert averaged.note == "weights found under 'module'; left out: n_averaged (1 tensor)."


TWO = {
    "model and model_ema": ({"model": STATE, "model_ema": OTHER}, ["model", "model_ema"]),
    "state_dict and ema_state_dict": ({"state_dict": STATE, "ema_state_dict": OTHER}, ["state_dict", "ema_state_dict"]),
    "student and teacher": (
        {"state_dict": prefixed("student.") | prefixed("teacher.", OTHER)},
        ["state_dict/student", "state_dict/teacher"],
    ),
    "bare and ema": (STATE | prefixed("ema.", OTHER), [".", "ema"]),
    "one inside the other": (
        prefixed("model.") | prefixed("model.ema.module.", OTHER) | {"model.ema.n_averaged": torch.tensor(3)},
        ["model", "model/ema/module"],
    ),
}


@pytest.mark.parametrize(("loaded", "places"), TWO.values(), ids=TWO)
def test_several_networks_are_never_guessed_between(loaded, places):
    with pytest.raises(CheckpointMismatchError) as caught:
        find_weights(loaded, name="my file.pth")
    assert f"the weights of 2 networks: {', '.join(places)}." in str(caught.value)
    assert f"reid-edge import 'my file.pth' --weights {places[1]}" in str(caught.value)


@pytest.mark.parametrize(("loaded", "places"), TWO.values(), ids=TWO)
def test_of_several_networks_the_one_that_is_asked_for_is_taken(loaded, places):
    first, second = (find_weights(loaded, name="m.pth", wanted=place).state for place in places)
    assert first.keys() == second.keys() == STATE.keys()
    assert all(first[name] is STATE[name] for name in STATE)
    assert all(second[name] is OTHER[name] for name in STATE)


def test_a_place_that_is_not_there_lists_those_that_are():
    with pytest.raises(CheckpointMismatchError, match=r"under 'ema', only under: model\."):
        find_weights({"model": STATE}, name="m.pth", wanted="ema")


def test_one_dictionary_under_two_names_is_one_network():
    assert find_weights({"state_dict": STATE, "model": STATE}, name="m.pth").place == "state_dict"


@pytest.mark.parametrize(
    "loaded",
    [
        {"model": STATE, "ema": {name: tensor.clone() for name, tensor in STATE.items()}},
        prefixed("model.") | prefixed("model_copy.0."),
    ],
)
def test_two_copies_of_the_same_weights_are_one_network(loaded):
    assert find_weights(loaded, name="m.pth").place == "model"
    second = "ema" if "ema" in loaded else "model_copy/0"
    assert find_weights(loaded, name="m.pth", wanted=second).place == second


@pytest.mark.parametrize(
    "unlike", [torch.zeros(3).to_sparse(), torch.zeros(3, device="meta"), torch.full((3,), torch.nan)]
)
def test_weights_that_cannot_be_compared_are_not_taken_for_copies(unlike):
    first, second = (dict(STATE, extra=unlike.clone()) for _ in range(2))
    with pytest.raises(CheckpointMismatchError, match="the weights of 2 networks: model, ema"):
        find_weights({"model": first, "ema": second}, name="m.pth")


def test_an_object_that_holds_itself_ends():
    loaded = {"model": STATE}
    loaded["self"] = loaded
    assert find_weights(loaded, name="m.pth").place == "model"


@pytest.mark.parametrize(
    ("loaded", "problem"),
    [
        ({"layer1.0.conv1.weight": torch.zeros(1)}, r"is not an OSNet: .* among its 1 tensor \(layer1\.0\.conv1\."),
        ({"model": {"layer1.weight": torch.zeros(1)}}, r"is not an OSNet: .*layer1\.weight"),
        ({"epoch": 3}, "holds no tensors; expected a state dict. Its entries are: epoch"),
        ({}, "Its entries are: none"),
        ([1, 2], "expected a state dict, got list"),
        (torch.zeros(3), "expected a state dict, got Tensor"),
    ],
)
def test_a_file_without_an_osnet_says_what_it_holds(loaded, problem):
    with pytest.raises(CheckpointMismatchError, match=f"m.pth .*{problem}"):
        find_weights(loaded, name="m.pth")
