import cv2
import numpy as np
import pytest
import torch

from reid_edge.crops import resize_into
from reid_edge.errors import DatasetError
from reid_edge.training.pixels import MemoryPixels, StreamedPixels, open_pixels, pixel_statistics
from tests.conftest import random_crops

CPU = torch.device("cpu")
SIZE = (32, 16)
PLENTY = 1 << 30


@pytest.fixture
def crops(rng):
    return random_crops(rng, 70)  # more than one task of the pool decodes


@pytest.fixture
def files(crops, tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(len(crops))]
    for path, crop in zip(paths, crops, strict=True):
        assert cv2.imwrite(str(path), crop)
    return paths


@pytest.fixture
def jpegs(crops, tmp_path):
    paths = [tmp_path / f"{index}.jpg" for index in range(len(crops))]
    for path, crop in zip(paths, crops, strict=True):
        assert cv2.imwrite(str(path), crop)
    return paths


def expected(crops, size=SIZE):
    """Each crop by itself: resized by the camera's rule, channels swapped, planes first."""
    planes = []
    for crop in crops:
        resized = np.empty((*size, 3), np.uint8)
        resize_into(crop, resized)
        planes.append([[[int(pixel[channel]) for pixel in row] for row in resized] for channel in (2, 1, 0)])
    return torch.tensor(planes, dtype=torch.uint8)


@pytest.mark.parametrize("memory", [PLENTY, 0])
def test_pixels_are_those_of_the_camera(files, crops, memory):
    source = open_pixels(files, SIZE, CPU, memory_bytes=memory)
    assert isinstance(source, MemoryPixels if memory else StreamedPixels)
    assert len(source) == 70 and source.size == SIZE
    chosen = torch.tensor([3, 0, 69, 3, 65])
    assert torch.equal(source.batch(chosen), expected([crops[index] for index in chosen]))


@pytest.mark.parametrize("memory", [PLENTY, 0])
@pytest.mark.parametrize("size", [SIZE, (40, 20)])
def test_pixels_of_an_array(rng, memory, size):
    images = rng.integers(0, 256, (9, *SIZE, 3), dtype=np.uint8)
    source = open_pixels(images, size, CPU, memory_bytes=memory)
    assert torch.equal(source.batch(torch.tensor([8, 1])), expected(images[[8, 1]], size))


def test_images_are_held_as_long_as_they_fit(files):
    exactly = 70 * 3 * 32 * 16
    assert isinstance(open_pixels(files, SIZE, CPU, memory_bytes=exactly), MemoryPixels)
    assert isinstance(open_pixels(files, SIZE, CPU, memory_bytes=exactly - 1), StreamedPixels)


def test_announced_batches_come_in_order_and_others_in_between(files, crops):
    source = open_pixels(files, SIZE, CPU, memory_bytes=0)
    every = expected(crops)
    announced = [torch.arange(start, start + 7) for start in range(0, 63, 7)]
    source.prefetch(announced)
    for count, indices in enumerate(announced):
        if count == 4:
            other = torch.tensor([69, 0])
            assert torch.equal(source.batch(other), every[other])
        assert torch.equal(source.batch(indices), every[indices])
    assert torch.equal(source.batch(announced[0]), every[announced[0]])


def test_new_announcement_replaces_the_old_one(files, crops):
    source = open_pixels(files, SIZE, CPU, memory_bytes=0)
    source.prefetch([torch.arange(30)] * 10)
    source.prefetch([torch.tensor([5, 6]), torch.tensor([7])])
    assert torch.equal(source.batch(torch.tensor([5, 6])), expected(crops[5:7]))
    assert torch.equal(source.batch(torch.tensor([7])), expected(crops[7:8]))


def test_decodes_ahead_only_a_few_batches(files):
    asked = []

    def batches():
        for start in range(0, 70, 2):
            asked.append(start)
            yield torch.tensor([start, start + 1])

    source = open_pixels(files, SIZE, CPU, memory_bytes=0)
    source.prefetch(batches())
    assert 1 <= len(asked) <= 8
    source.batch(torch.tensor([0, 1]))
    assert len(asked) <= 9


@pytest.mark.parametrize("memory", [PLENTY, 0])
def test_progress_counts_each_image_once(files, memory):
    done = []
    open_pixels(files, SIZE, CPU, memory_bytes=memory, on_image=done.append)
    assert sum(done) == 70


def spoil(jpegs):
    jpegs[2].write_bytes(b"no image at all")
    jpegs[5].write_bytes(b"")
    jpegs[68].unlink()
    return [2, 5, 68]


@pytest.mark.parametrize("memory", [PLENTY, 0])
def test_all_unreadable_files_are_listed_at_once_before_training(jpegs, memory):
    spoilt = spoil(jpegs)
    with pytest.raises(DatasetError, match="3 image files cannot be used") as caught:
        open_pixels(jpegs, SIZE, CPU, memory_bytes=memory)
    lines = str(caught.value).splitlines()[1:]
    assert len(lines) == 3 and all(str(jpegs[index]) in line for index, line in zip(spoilt, lines, strict=True))


def test_truncated_file_is_found_when_all_are_decoded(jpegs):
    jpegs[66].write_bytes(jpegs[66].read_bytes()[:-2])
    with pytest.raises(
        DatasetError, match=r"1 image file cannot be used(.|\n)*66.jpg is (truncated|not a readable image)"
    ):
        open_pixels(jpegs, SIZE, CPU, memory_bytes=PLENTY)


def test_truncated_file_among_streamed_ones_is_a_typed_error_when_its_turn_comes(jpegs):
    jpegs[66].write_bytes(jpegs[66].read_bytes()[:-2])
    source = open_pixels(jpegs, SIZE, CPU, memory_bytes=0)
    source.prefetch([torch.tensor([1, 2]), torch.tensor([66, 3])])
    source.batch(torch.tensor([1, 2]))
    with pytest.raises(DatasetError, match=r"66.jpg is (truncated|not a readable image)"):
        source.batch(torch.tensor([66, 3]))


def test_of_very_many_unreadable_files_twenty_are_listed(tmp_path):
    with pytest.raises(DatasetError, match=r"300 image files(.|\n)*… and 280 more$") as caught:
        open_pixels([tmp_path / f"{index}.jpg" for index in range(300)], SIZE, CPU, memory_bytes=PLENTY)
    assert len(str(caught.value).splitlines()) == 22


def test_no_images_are_refused():
    with pytest.raises(DatasetError, match="no images"):
        open_pixels([], SIZE, CPU, memory_bytes=PLENTY)


@pytest.mark.parametrize("images", [np.zeros((2, 3, 8, 8), np.uint8), np.zeros((2, 8, 8, 3), np.float32)])
def test_array_of_another_kind_is_refused(images):
    with pytest.raises(DatasetError, match="expected N×H×W×3 uint8 BGR"):
        open_pixels(images, SIZE, CPU, memory_bytes=PLENTY)


@pytest.mark.parametrize("memory", [PLENTY, 0])
def test_statistics_are_those_of_all_pixels(rng, memory):
    images = rng.integers(0, 256, (70, *SIZE, 3), dtype=np.uint8) // np.array([1, 2, 4], np.uint8)
    mean, std = pixel_statistics(open_pixels(images, SIZE, CPU, memory_bytes=memory))
    for rgb in range(3):
        values = images[..., 2 - rgb].astype(float).ravel() / 255
        assert mean[rgb] == pytest.approx(np.mean(values), abs=1e-9)
        assert std[rgb] == pytest.approx(np.std(values), abs=1e-9)


def test_statistics_of_very_many_images_are_those_of_evenly_spaced_ones(rng):
    images = rng.integers(0, 256, (50, *SIZE, 3), dtype=np.uint8)
    mean, _ = pixel_statistics(open_pixels(images, SIZE, CPU, memory_bytes=PLENTY), most=5)
    assert mean[0] == pytest.approx(images[[0, 10, 20, 30, 40], ..., 2].mean() / 255, abs=1e-9)
