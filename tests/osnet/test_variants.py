"""Every row of the paper's ablations: what it computes, how big it is, that it can be trained and kept."""

import dataclasses
import json

import pytest
import safetensors.torch
import torch
from torch import nn

from reid_edge.errors import CheckpointMismatchError, ConfigError
from reid_edge.osnet.architecture import NetworkVariant, OSNetConfig
from reid_edge.osnet.checkpoint import Checkpoint, CheckpointInfo, load_checkpoint, save_checkpoint
from reid_edge.osnet.complexity import complexity
from reid_edge.osnet.network import FixedGate, OSNet
from tests.osnet.variants import STEMS, VARIANTS, Obvious

SIZE = (64, 32)


def unlike_new(network: OSNet) -> OSNet:
    """Every norm, bias and fixed gate with values of its own, as training leaves them."""
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.2)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
        for name, parameter in network.named_parameters():
            if name.endswith("logits"):
                parameter.normal_()
            elif ".norm." in name or "_norm." in name or name.endswith("bias"):
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return network.eval()


ALL = VARIANTS | STEMS


@pytest.mark.parametrize("variant", ALL.values(), ids=ALL)
def test_features_are_those_of_the_obvious_computation(variant):
    torch.manual_seed(0)
    network = unlike_new(OSNet(OSNetConfig(width=0.3, size=SIZE, variant=variant))).double()
    x = torch.randn(2, 3, *SIZE, dtype=torch.float64)
    with torch.no_grad():
        expected = Obvious(network.state_dict(), variant)(x)
        assert torch.allclose(network(x), expected, rtol=1e-9, atol=1e-12)
    assert expected.std() > 0


@pytest.mark.parametrize("variant", ALL.values(), ids=ALL)
def test_a_training_step_moves_every_parameter(variant):
    torch.manual_seed(0)
    network = unlike_new(OSNet(OSNetConfig(width=0.25, size=SIZE, variant=variant))).train()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".fc1." in name:  # or a narrow gate's only hidden unit may be off for all of so small a batch
                parameter.mul_(0.1).add_(1.0 if name.endswith("bias") else 0.0)
    classifier = nn.Linear(512, 4)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer = torch.optim.SGD([*network.parameters(), *classifier.parameters()], lr=0.1)
    loss = nn.functional.cross_entropy(classifier(network(torch.randn(4, 3, *SIZE))), torch.arange(4))
    loss.backward()
    optimizer.step()
    assert [name for name, parameter in network.named_parameters() if torch.equal(parameter, before[name])] == []


def test_the_default_is_the_network_that_ships(checkpoint):
    assert NetworkVariant() == VARIANTS["1 primary"]
    assert set(OSNet(OSNetConfig(width=0.25)).state_dict()) == set(checkpoint.state)


# Printed in the paper: model 2 of Table 5 (text: "more than 3x"; osnet.md), Table 8.
@pytest.mark.parametrize(
    ("name", "parameters", "depth"), [("1 primary", "2.2", 78), ("2 full conv", "6.9", 54), ("3-8-6", "4.6", 210)]
)
def test_parameters_and_depth_are_those_printed(name, parameters, depth):
    counted = complexity(OSNetConfig(variant=VARIANTS[name]))
    assert f"{counted.parameters / 1e6:.1f}" == parameters
    assert counted.depth == depth


def test_standard_convolutions_have_the_mult_adds_counted_for_them():
    """Printed: 3,384.9M; with one more for each number that a batch norm puts out, as in Table 10, it is 3,384.2M."""
    config = OSNetConfig(variant=VARIANTS["2 full conv"])
    assert f"{complexity(config).mult_adds / 1e6:.1f}" == "3376.2"
    assert f"{(complexity(config).mult_adds + norm_outputs(config)) / 1e6:.1f}" == "3384.2"


def norm_outputs(config):
    """Numbers that the batch norms of a network put out for one image."""
    network, outputs = OSNet(config).eval(), []
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output.numel()))
    with torch.no_grad():
        network(torch.zeros(1, 3, *config.size))
    return sum(outputs)


@pytest.mark.parametrize(
    ("width", "parameters", "mult_adds"), [(1.0, "2.7", "1511"), (0.75, "1.8", "885"), (0.5, "1.1", "424")]
)
def test_table_10_counts_each_output_of_a_batch_norm_as_well(width, parameters, mult_adds):
    """ImageNet: parameters with a classifier of 1,000; mult-adds and one more for each number that a norm puts out."""
    config = OSNetConfig(width=width, size=(224, 224))
    counted = complexity(config)
    assert f"{(counted.parameters + 513 * 1000) / 1e6:.1f}" == parameters
    assert f"{(counted.mult_adds + norm_outputs(config)) / 1e6:.0f}" == mult_adds


def _by_hand(variant: NetworkVariant) -> tuple[int, int]:
    """Parameters and mult-adds at width 1 and 256x128, layer by layer from Table 1."""
    parameters, mult_adds = 3 * 64 * 49 + 2 * 64, 3 * 64 * 49 * 128 * 64
    streams, layers = len(variant.streams), sum(variant.streams)
    for stage, (before, after, pixels) in enumerate(((64, 256, 2048), (256, 384, 512), (384, 512, 128))):
        c = after // 4
        for number in range(variant.blocks[stage]):
            inputs = before if number == 0 else after
            kernel = c * c * 9 if variant.convolution == "standard" else c * c + 9 * c
            fused = c * streams if variant.fusion == "concatenation" else c
            dense = inputs * c + layers * kernel + fused * after + (inputs * after if number == 0 else 0)
            norms = 2 * (c + layers * c + after + (after if number == 0 else 0))
            norms += 2 * after if variant.instance_norm and stage == 0 else 0
            h, out = c // 16, 1 if variant.fusion == "streamwise" else c
            gate = c * h + h * out
            gates = {"unified": 1, "streamwise": 1, "separate": streams}.get(variant.fusion, 0)
            parameters += dense + norms + gates * (gate + h + out) + (streams * c if variant.fusion == "fixed" else 0)
            mult_adds += dense * pixels + (streams * gate if gates else 0)
        parameters += after * after + 2 * after  # transition, conv5
        mult_adds += after * after * pixels
    return parameters + 512 * 512 + 512 + 2 * 512, mult_adds + 512 * 512


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_parameters_and_mult_adds_are_those_counted_by_hand(variant):
    counted = complexity(OSNetConfig(variant=variant))
    assert (counted.parameters, counted.mult_adds) == _by_hand(variant)


@pytest.mark.parametrize(
    ("variant", "shortest", "places"), [("stride 1", 7, 8), ("no pool", 7, 8), ("stride 1, no pool", 4, 16)]
)
def test_other_stems_take_smaller_images_and_keep_more_of_them(variant, shortest, places):
    network = OSNet(OSNetConfig(width=0.1, size=(shortest, shortest), variant=STEMS[variant])).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 3, shortest, shortest)).shape == (1, 512)
    with pytest.raises(ConfigError, match=f"at least {shortest} pixels"):
        OSNetConfig(size=(shortest - 1, 99), variant=STEMS[variant])
    seen = []
    network.conv5.register_forward_hook(lambda _layer, _given, out: seen.append(tuple(out.shape[2:])))
    with torch.no_grad():
        network(torch.randn(1, 3, 64, 64))
    assert seen == [(places, places)]


def test_another_stride_is_refused():
    with pytest.raises(ConfigError, match="stem_stride must be 1 or 2, got 3"):
        NetworkVariant(stem_stride=3)


@pytest.mark.parametrize("streams", [(), (0, 1), (2, 1)])
def test_streams_that_cannot_be_are_refused(streams):
    with pytest.raises(ConfigError, match="ascending"):
        NetworkVariant(streams=streams)


@pytest.mark.parametrize("blocks", [(2, 2), (2, 0, 2)])
def test_stages_without_blocks_are_refused(blocks):
    with pytest.raises(ConfigError, match="blocks must be three"):
        NetworkVariant(blocks=blocks)


@pytest.mark.parametrize("change", [{"fusion": "both"}, {"convolution": "sparse"}, {"pooling": "sum"}])
def test_a_word_that_names_no_variant_is_refused(change):
    with pytest.raises(ConfigError, match="must be one of"):
        NetworkVariant(**change)


@pytest.mark.parametrize("variant", ALL.values(), ids=ALL)
def test_a_checkpoint_says_which_variant_it_is(variant, tmp_path):
    info = CheckpointInfo(width=0.05, variant=variant)
    saved = Checkpoint(info, unlike_new(OSNet(info.config)).state_dict())
    save_checkpoint(saved, tmp_path / "c.safetensors")
    loaded = load_checkpoint(tmp_path / "c.safetensors")
    assert loaded.info.variant == variant
    x = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        assert torch.allclose(loaded.network()(x), Obvious(saved.state, variant)(x), atol=1e-5)


def test_a_checkpoint_of_before_variants_is_the_primary_model(tmp_path):
    state = OSNet(OSNetConfig(width=0.1)).state_dict()
    metadata = {"reid_edge": json.dumps({"width": 0.1, "dataset": "old", "format_version": 1})}
    safetensors.torch.save_file(state, tmp_path / "c.safetensors", metadata)
    loaded = load_checkpoint(tmp_path / "c.safetensors")
    assert loaded.info.variant == NetworkVariant()
    loaded.network()


def test_weights_of_another_variant_are_refused():
    state = OSNet(OSNetConfig(width=0.1)).state_dict()
    for name, variant in VARIANTS.items():
        if variant != NetworkVariant():
            info = CheckpointInfo(width=0.1, variant=variant)
            with pytest.raises(CheckpointMismatchError):
                Checkpoint(info, state).network()
                pytest.fail(name)


def test_fixed_gates_do_not_look_at_their_input():
    gate = FixedGate(3)
    with torch.no_grad():
        gate.logits.copy_(torch.tensor([0.0, 2.0, -2.0]))
    ones = torch.ones(1, 3, 2, 2)
    assert torch.allclose(gate(7 * ones), 7 * gate(ones))


def test_a_variant_is_part_of_what_two_configurations_compare():
    assert OSNetConfig() != dataclasses.replace(OSNetConfig(), variant=NetworkVariant(instance_norm=True))
