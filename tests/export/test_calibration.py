import cv2
import numpy as np
import pytest
import torch

from reid_edge.errors import CalibrationError
from reid_edge.export.calibration import distill, distill_steps, folder_set, shipped_set
from reid_edge.osnet.architecture import parse_size
from reid_edge.osnet.checkpoint import Checkpoint
from reid_edge.osnet.shipped import find_checkpoint
from tests.export.tiny import tiny_checkpoint


def _statistics_error(checkpoint: Checkpoint, crops: np.ndarray) -> float:
    """Mean over batch norms of |mean − stored mean| / stored deviation, computed apart from distill's own loss.

    The variance of a channel that training has switched off is 0, so it gets the layer's epsilon, as in the network.
    """
    info, network = checkpoint.info, checkpoint.network()
    errors = []

    def hook(layer, inputs):
        observed = inputs[0].transpose(0, 1).flatten(1).mean(1)
        errors.append(((observed - layer.running_mean).abs() / (layer.running_var + layer.eps).sqrt()).mean().item())

    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.register_forward_pre_hook(hook)
    rgb = torch.from_numpy(np.ascontiguousarray(crops[..., ::-1])).float() / 255
    with torch.no_grad():
        network(((rgb - torch.tensor(info.mean)) / torch.tensor(info.std)).permute(0, 3, 1, 2))
    return float(np.mean(errors))


@pytest.mark.slow
def test_distilled_crops_excite_the_network_as_its_training_data_did(checkpoint, rng):
    noise = rng.integers(0, 256, (8, 64, 32, 3), dtype=np.uint8)
    crops = distill(checkpoint, 8, size=(64, 32))
    assert crops.shape == (8, 64, 32, 3)
    assert crops.dtype == np.uint8
    assert _statistics_error(checkpoint, crops) < 0.6 * _statistics_error(checkpoint, noise)


def test_the_same_seed_gives_the_same_crops_and_another_others():
    checkpoint = tiny_checkpoint()
    first, again, other = (distill(checkpoint, 2, size=(32, 16), seed=seed, steps=3) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_every_step_is_reported():
    calls = []
    distill(tiny_checkpoint(), 40, size=parse_size("16x16"), on_step=lambda: calls.append(1))
    assert len(calls) == distill_steps(40)


@pytest.mark.parametrize("new_site", [False, True])
def test_the_shipped_set_matches_the_shipped_checkpoint(new_site, rng):
    checkpoint = find_checkpoint(None, 0.25, new_site=new_site)
    shipped = shipped_set(checkpoint, checkpoint.info.size)
    assert shipped.calibration.shape == shipped.held_out.shape == (32, 256, 128, 3)
    noise = rng.integers(0, 256, (32, 256, 128, 3), dtype=np.uint8)
    for crops in (shipped.calibration, shipped.held_out):
        assert _statistics_error(checkpoint, crops) < 0.3 * _statistics_error(checkpoint, noise)


@pytest.fixture
def crops_with_bad_ones(tmp_path, rng):
    """60 pictures, six of which are empty files; what macOS leaves beside them does not count."""
    for number in range(60):
        picture = rng.integers(0, 255, (40, 20, 3), np.uint8)
        (tmp_path / f"{number}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes() if number % 10 else b"")
        (tmp_path / f"._{number}.png").write_bytes(b"\0\5\x16\7")
    return tmp_path


def test_a_folder_with_bad_images_is_refused_and_says_how_to_leave_them_out(crops_with_bad_ones):
    with pytest.raises(CalibrationError, match=r"0\.png is not a readable image.*--skip-bad"):
        folder_set(crops_with_bad_ones, (64, 32))


def test_bad_images_of_a_folder_are_left_out_on_request_and_recorded(crops_with_bad_ones, caplog):
    made = folder_set(crops_with_bad_ones, (64, 32), skip_bad=True)
    assert (len(made.held_out), len(made.calibration)) == (12, 42)
    assert made.record.note.endswith("; 6 unreadable ones left out")
    assert "6 of 60 images left out, unreadable" in caplog.text
    for path in crops_with_bad_ones.glob("[1-3]*.png"):
        path.write_bytes(b"")
    with pytest.raises(CalibrationError, match=r"images left out, unreadable: .* At least 40 person crops are needed"):
        folder_set(crops_with_bad_ones, (64, 32), skip_bad=True)


def test_without_bad_images_the_set_is_the_same(crops_with_bad_ones):
    for path in crops_with_bad_ones.glob("*0.png"):
        path.unlink()
    sets = [folder_set(crops_with_bad_ones, (64, 32), skip_bad=skip) for skip in (False, True)]
    assert sets[0].record == sets[1].record
    assert len(sets[0].held_out) + len(sets[0].calibration) == 54
