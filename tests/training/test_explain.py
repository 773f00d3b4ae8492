import cv2
import numpy as np
import pytest
import torch

from reid_edge.errors import FrameError, UsageError
from reid_edge.osnet.architecture import NetworkVariant
from reid_edge.osnet.checkpoint import Checkpoint, CheckpointInfo
from reid_edge.osnet.network import OSNet
from reid_edge.training.explain.activations import activation_map, record_activations
from reid_edge.training.explain.clusters import cluster_gates
from reid_edge.training.explain.explanation import ExplainOptions, explain, signed

SIZE = (32, 16)


def small_checkpoint(variant: NetworkVariant = NetworkVariant(), size: tuple[int, int] = SIZE) -> Checkpoint:  # noqa: B008
    info = CheckpointInfo(width=0.25, size=size, variant=variant, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = OSNet(info.config)
        for module in network.modules():  # the gates of a new network hardly depend on the image
            if isinstance(module, torch.nn.Conv2d) and module.bias is not None:
                torch.nn.init.normal_(module.weight, std=2)
                torch.nn.init.normal_(module.bias, std=0.1)
    return Checkpoint(info, network.state_dict())


def write_images(folder, count, size=SIZE, seed=0):
    rng = np.random.default_rng(seed)
    paths = [folder / f"{number:03}.png" for number in range(count)]
    for path in paths:
        colour = rng.integers(0, 180, 3)
        cv2.imwrite(str(path), (colour + rng.integers(0, 76, (*size, 3))).astype(np.uint8))
    return paths


def inputs_of(paths, info):
    """What the network is given, pixel by channel, in float64."""
    out = np.empty((len(paths), 3, *SIZE))
    for number, path in enumerate(paths):
        image = cv2.imread(str(path))
        for rgb in range(3):
            out[number, rgb] = (image[..., 2 - rgb] / 255 - info.mean[rgb]) / info.std[rgb]
    return torch.from_numpy(out)


def gate_by_hand(gate, stream):
    """Weights of one stream of one image: means over pixels, two dense layers, a sigmoid."""
    means = [float(channel.mean()) for channel in stream]
    hidden = []
    for row, bias in zip(gate.fc1.weight.flatten(1).tolist(), gate.fc1.bias.tolist(), strict=True):
        hidden.append(max(0.0, bias + sum(a * b for a, b in zip(row, means, strict=True))))
    weights = []
    for row, bias in zip(gate.fc2.weight.flatten(1).tolist(), gate.fc2.bias.tolist(), strict=True):
        weights.append(1 / (1 + np.exp(-(bias + sum(a * b for a, b in zip(row, hidden, strict=True))))))
    return weights


@pytest.mark.parametrize(("fusion", "channels"), [("unified", 32), ("separate", 32), ("streamwise", 1)])
def test_gates_and_maps_are_those_of_the_last_bottleneck_and_conv5(tmp_path, fusion, channels):
    checkpoint = small_checkpoint(NetworkVariant(fusion=fusion, streams=(1, 2, 3)))
    paths = write_images(tmp_path, 35)  # more than one block
    done = []
    recorded = record_activations(checkpoint.network(), checkpoint.info, paths, done.append)
    assert recorded.gates.shape == (35, 3, channels)
    assert recorded.maps.shape == (35, 2, 1)
    assert sum(done) == 35

    network = checkpoint.network().double()
    with torch.no_grad():
        x = torch.nn.functional.max_pool2d(network.conv1(inputs_of(paths, checkpoint.info)), 3, stride=2, padding=1)
        x = torch.nn.functional.avg_pool2d(network.transition2(network.conv2(x)), 2)
        x = torch.nn.functional.avg_pool2d(network.transition3(network.conv3(x)), 2)
        last = network.conv4[1]
        reduced = last.reduce(network.conv4[0](x))
        streams = [stream(reduced) for stream in last.streams]
        conv5 = network.conv5(last(network.conv4[0](x))).numpy()
    for image in (0, 7, 34):
        for number, stream in enumerate(streams):
            gate = last.gate[number] if fusion == "separate" else last.gate
            assert recorded.gates[image, number] == pytest.approx(gate_by_hand(gate, stream[image]), abs=1e-4)
        squares = [sum(channel[row, 0] ** 2 for channel in conv5[image]) for row in range(2)]
        length = sum(square**2 for square in squares) ** 0.5
        assert recorded.maps[image, :, 0] == pytest.approx([square / length for square in squares], abs=1e-4)
    assert np.ptp(recorded.gates, axis=0).max() > 0.01  # or this test would say nothing about the order of images


def test_nothing_active_is_a_map_of_zeros():
    assert torch.equal(activation_map(torch.zeros(2, 3, 4, 2)), torch.zeros(2, 4, 2))


def test_a_network_is_left_as_it_was_even_when_an_image_is_broken(tmp_path):
    checkpoint = small_checkpoint()
    network = checkpoint.network()
    paths = write_images(tmp_path, 40)
    record_activations(network, checkpoint.info, paths)
    paths[-1].write_bytes(b"no image")
    with pytest.raises(FrameError, match=r"039\.png"):
        record_activations(network, checkpoint.info, paths)
    assert not any(module._forward_hooks for module in network.modules())


def blobs():
    """Three clear groups of gates, 2 streams × 3 channels, of 20, 10 and 5 images, mixed."""
    rng = np.random.default_rng(1)
    of = rng.permutation(np.repeat((0, 1, 2), (20, 10, 5)))
    centres = rng.random((3, 2, 3))
    return of, (centres[of] + rng.normal(0, 0.01, (35, 2, 3))).astype(np.float32)


def test_clusters_are_the_groups_that_are_there_the_largest_first():
    of, gates = blobs()
    clustering = cluster_gates(gates, 3, nearest=7, seed=1)
    assert [cluster.size for cluster in clustering.clusters] == [20, 10, 5]
    within = total = 0.0
    overall = sum(gates.astype(float)) / 35
    for group, cluster in enumerate(clustering.clusters):
        members = [index for index in range(35) if of[index] == group]
        centre = sum(gates[index].astype(float) for index in members) / len(members)
        distance = {index: float(((gates[index] - centre) ** 2).sum()) ** 0.5 for index in members}
        assert cluster.nearest == tuple(sorted(members, key=distance.__getitem__)[:7])
        assert np.allclose(cluster.centre, centre)
        assert clustering.stream_means(cluster) == pytest.approx([sum(row) / 3 for row in centre])
        assert clustering.stream_differences(cluster) == pytest.approx([sum(row) / 3 for row in centre - overall])
        within += sum(value**2 for value in distance.values())
        total += sum(float(((gates[index] - overall) ** 2).sum()) for index in members)
    assert clustering.explained == pytest.approx(1 - within / total)
    variances = [sum(float(((gate - overall)[stream] ** 2).sum()) for gate in gates) / 35 / 3 for stream in (0, 1)]
    assert [spread for _, spread in clustering.overall()] == pytest.approx([value**0.5 for value in variances])


def test_the_same_seed_gives_the_same_clusters():
    gates = np.random.default_rng(2).random((60, 2, 4))
    first, again = (cluster_gates(gates, 5, nearest=4, seed=9) for _ in range(2))
    assert [one.nearest for one in first.clusters] == [one.nearest for one in again.clusters]


def test_clusters_that_cannot_be_are_refused():
    gates = np.random.default_rng(2).random((6, 2, 4))
    with pytest.raises(UsageError, match="7 clusters need at least as many images, got 6"):
        cluster_gates(gates, 7, nearest=4, seed=1)
    with pytest.raises(UsageError, match="these images have 2"):
        cluster_gates(np.repeat(gates[:2], 3, axis=0), 3, nearest=4, seed=1)


def test_images_that_are_all_alike_make_one_cluster():
    clustering = cluster_gates(np.full((4, 2, 3), 0.5), 1, nearest=2, seed=1)
    assert clustering.explained == 0
    assert clustering.clusters[0].nearest == (0, 1)


@pytest.mark.parametrize("fusion", ["fixed", "addition", "concatenation"])
def test_a_network_without_gates_is_told_so_before_any_image_is_read(tmp_path, fusion):
    checkpoint = small_checkpoint(NetworkVariant(fusion=fusion))
    missing = [tmp_path / f"{number}.png" for number in range(9)]
    with pytest.raises(UsageError, match=f"fusion={fusion}.*--clusters 0"):
        explain(checkpoint, missing, ExplainOptions(), name="c")
    found = explain(checkpoint, write_images(tmp_path, 3), ExplainOptions(clusters=0), name="c")
    assert found.clustering is None
    assert found.shown == (0, 1, 2)


def test_images_for_maps_are_taken_evenly(tmp_path):
    checkpoint = small_checkpoint()
    found = explain(checkpoint, write_images(tmp_path, 10), ExplainOptions(clusters=2, maps=4), name="c")
    assert found.shown == (0, 2, 5, 7)
    everything = record_activations(checkpoint.network(), checkpoint.info, found.paths)
    assert np.array_equal(found.maps, everything.maps[[0, 2, 5, 7]])


def test_options_that_show_nothing_are_refused(tmp_path):
    for bad in ({"clusters": 0, "maps": 0}, {"clusters": -1}, {"nearest": 0}, {"maps": -1}):
        with pytest.raises(UsageError):
            ExplainOptions(**bad)
    with pytest.raises(UsageError, match="no images"):
        explain(small_checkpoint(), [], ExplainOptions(), name="c")
    with pytest.raises(UsageError, match="8 clusters need at least as many images, got 1"):
        explain(small_checkpoint(), [tmp_path / "none.png"], ExplainOptions(), name="c")


def test_differences_are_written_with_a_sign_unless_they_are_nothing():
    assert [signed(value) for value in (0.01234, -0.5, 0.00001, -0.00001)] == ["+0.0123", "−0.5000", "0.0000", "0.0000"]
