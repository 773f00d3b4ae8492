"""Each change against a slow one of a single image, in plain Python and OpenCV, from the same random numbers."""

import colorsys
import math
import random
import sys

import cv2
import numpy as np
import pytest
import torch
from scipy import stats
from torch.utils._python_dispatch import TorchDispatchMode

from reid_edge.crops import normalised
from reid_edge.errors import MissingExtraError
from reid_edge.training.augment import Augmenter, normalise
from reid_edge.training.patches import ERASE_COLUMNS, ERASE_SHAPES, PATCH_SHAPES, TRIES, draw_rectangles
from reid_edge.training.sampling import numbers
from reid_edge.training.settings import AugmentSettings

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CPU = torch.device("cpu")
SIZE = (32, 16)
EVERYTHING = {"flip": 0.5, "translate": 0.5, "shift": 3, "patch": 0.6, "erase": 0.4, "crop": True}
COLOURS = {"brightness": 0.4, "contrast": 0.3, "saturation": 0.5, "hue": 0.2}


def only(**changes):
    return AugmentSettings(**{"flip": 0.0, "translate": 0.0, "patch": 0.0} | changes)


def make(config, size=SIZE, device=CPU):
    return Augmenter(config, size, MEAN, STD, device)


def images(augmenter, count, seed=0):
    """Blurred noise: with its range and edges, and neighbours alike."""
    noise = np.random.default_rng(seed).integers(0, 256, (count, *augmenter.source_size, 3), dtype=np.uint8)
    blurred = [cv2.GaussianBlur(each, (3, 3), 0) for each in noise]
    return torch.from_numpy(np.stack(blurred)).permute(0, 3, 1, 2).contiguous()


def batch(augmenter, count=40, step=0):
    return images(augmenter, count), numbers(1, step, count, augmenter.columns), images(augmenter, count, seed=1)


def levels(output):
    """Normalised output back to 0 … 255, N×H×W×3 float64."""
    restored = output.double() * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    return 255 * restored.permute(0, 2, 3, 1).numpy()


def plane_last(pixels):
    return pixels.permute(0, 2, 3, 1).numpy().astype(np.float32)


def whole(number, most):
    """0 … most from a number on [0, 1)."""
    return min(int(number * (most + 1)), most)


def test_normalises_as_the_runtime_does(rng):
    bgr = rng.integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)
    rgb = torch.from_numpy(np.ascontiguousarray(bgr[..., ::-1].transpose(0, 3, 1, 2)))
    output = normalise(rgb, MEAN, STD)
    assert output.dtype == torch.float32
    np.testing.assert_array_equal(output.numpy(), normalised(bgr, MEAN, STD))
    red = (int(bgr[2, 5, 7, 2]) / 255 - MEAN[0]) / STD[0]
    assert output[2, 0, 5, 7] == pytest.approx(red, abs=1e-6)


@pytest.mark.parametrize("config", [only(), only(flip=0.5, shift=2, patch=0.5, erase=0.5)])
def test_untouched_when_numbers_say_so(config):
    augmenter = make(config)
    pixels, drawn, partners = batch(augmenter)
    drawn[:] = 0.99999
    if config.shift:
        drawn[:, 1:3] = 0.5  # the middle: no shift
    assert torch.equal(augmenter(pixels, drawn, partners), normalise(pixels, MEAN, STD))


def test_untouched_within_rounding_where_it_might_have_enlarged_or_coloured():
    augmenter = make(only(translate=0.5, **COLOURS))
    pixels, drawn, _ = batch(augmenter)
    drawn[:, :3], drawn[:, 3:] = 0.99999, 0.5
    np.testing.assert_allclose(levels(augmenter(pixels, drawn)), plane_last(pixels), atol=0.01)


def test_columns_and_partners_only_for_what_is_on():
    assert make(only()).columns == 0
    assert make(only(flip=0.5)).columns == 1
    assert not make(only(erase=0.5)).needs_partner
    assert make(only(patch=0.5)).needs_partner
    with pytest.raises(ValueError, match="random patch needs partners"):
        augmenter = make(only(patch=0.5))
        augmenter(*batch(augmenter)[:2])


def slow_move(image, drawn, config, size):
    """One image, H×W×3 float: cut, mirror, enlarge and cut, move over black, each with slices."""
    (height, width), drawn = size, list(drawn)
    flip = drawn.pop(0) if config.flip else 1.0
    translate = [drawn.pop(0) for _ in range(3)] if config.translate else [1.0, 0, 0]
    shift = [drawn.pop(0) for _ in range(2)] if config.shift else [0.5, 0.5]
    if config.crop:
        top = whole(drawn[0], image.shape[0] - height)
        left = whole(drawn[1], image.shape[1] - width)
        image = image[top : top + height, left : left + width]
    if flip < config.flip:
        image = image[:, ::-1]
    if translate[0] < config.translate:
        tall, wide = round(height * 1.125), round(width * 1.125)
        larger = cv2.resize(np.ascontiguousarray(image), (wide, tall), interpolation=cv2.INTER_LINEAR)
        top, left = whole(translate[1], tall - height), whole(translate[2], wide - width)
        image = larger[top : top + height, left : left + width]
    most = config.shift
    padded = np.pad(image, ((most, most), (most, most), (0, 0)))
    top, left = whole(shift[0], 2 * most), whole(shift[1], 2 * most)
    return padded[top : top + height, left : left + width]


@pytest.mark.parametrize("size", [SIZE, (64, 32), (33, 15)])
@pytest.mark.parametrize(
    "config",
    [
        only(flip=0.5),
        only(translate=0.5),
        only(shift=4),
        only(crop=True),
        only(flip=0.5, translate=0.5, shift=2, crop=True),
    ],
    ids=["flip", "translate", "shift", "crop", "all"],
)
def test_moves_as_slow_ones_do(config, size):
    augmenter = make(config, size)
    pixels, drawn, _ = batch(augmenter)
    output = levels(augmenter(pixels, drawn))
    for image, row, got in zip(plane_last(pixels), drawn.tolist(), output, strict=True):
        np.testing.assert_allclose(got, slow_move(image, row, config, size), atol=0.02)


def test_source_is_larger_where_it_is_cropped():
    assert make(only(crop=True), (224, 224)).source_size == (256, 256)
    assert make(only(crop=True), (256, 128)).source_size == (293, 146)
    assert make(only(), (224, 224)).source_size == (224, 224)


def slow_rectangle(drawn, probability, shapes, size):
    """Top, left, height, width from ``ERASE_COLUMNS`` numbers, as torchreid draws them; None: no rectangle."""
    if drawn[0] >= probability:
        return None
    for attempt in range(TRIES):
        area = (shapes.area[0] + drawn[1 + attempt] * (shapes.area[1] - shapes.area[0])) * size[0] * size[1]
        aspect = shapes.aspect[0] + drawn[1 + TRIES + attempt] * (shapes.aspect[1] - shapes.aspect[0])
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if height < size[0] and width < size[1]:
            place = drawn[1 + 2 * TRIES :]
            return whole(place[0], size[0] - height), whole(place[1], size[1] - width), height, width
    return None


def test_erases_as_a_slow_loop_does():
    augmenter = make(only(erase=0.7))
    pixels, drawn, _ = batch(augmenter, 200)
    output = augmenter(pixels, drawn)
    expected = normalise(pixels, MEAN, STD)
    erased = 0
    for index, row in enumerate(drawn.tolist()):
        if rectangle := slow_rectangle(row, 0.7, ERASE_SHAPES, SIZE):
            top, left, height, width = rectangle
            expected[index, :, top : top + height, left : left + width] = 0
            erased += 1
    assert 100 < erased < 180
    assert torch.equal(output, expected)


def slow_patch(image, partner, drawn, probability):
    """Paste a piece of the partner into the image, H×W×3: cut, mirror, turn pixel by pixel, put it there."""
    size = image.shape[:2]
    rectangle = slow_rectangle(drawn, probability, PATCH_SHAPES, size)
    if rectangle is None:
        return image
    top, left, height, width = rectangle
    from_top, from_left, mirrored, turned, angle = drawn[ERASE_COLUMNS:]
    y, x = whole(from_top, partner.shape[0] - height), whole(from_left, partner.shape[1] - width)
    patch = partner[y : y + height, x : x + width]
    if mirrored < 0.5:
        patch = patch[:, ::-1]
    degrees = whole(angle, 20) - 10 if turned < 0.5 else 0
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    result = image.copy()
    for row in range(height):
        for column in range(width):
            down, right = row + 0.5 - height / 2, column + 0.5 - width / 2
            source_row = math.floor(down * cosine + right * sine + height / 2)
            source_column = math.floor(right * cosine - down * sine + width / 2)
            there = 0 <= source_row < height and 0 <= source_column < width
            result[top + row, left + column] = patch[source_row, source_column] if there else 0
    return result


@pytest.mark.parametrize("larger", [False, True])
def test_patches_as_a_slow_loop_does(larger):
    config = only(patch=0.8, crop=larger)
    augmenter = make(config)
    pixels, drawn, partners = batch(augmenter, 150)
    output = levels(augmenter(pixels, drawn, partners))
    wrong, changed = [], 0
    for image, partner, row, got in zip(plane_last(pixels), plane_last(partners), drawn.tolist(), output, strict=True):
        crop = 2 if larger else 0
        image = slow_move(image, row[:crop], config, SIZE)
        expected = slow_patch(image, partner, row[crop:], 0.8)
        wrong.append((np.abs(got - expected) > 0.01).any(-1).sum())
        changed += (expected != image).any(-1).sum()
    assert changed > 5000
    # In float32 the place of a turned pixel may round to the other side, and so may, rarely, a whole rectangle's side.
    assert sum(sorted(wrong)[:-1]) <= changed / 1000


def test_turned_patch_is_turned_about_its_middle():
    """OpenCV's warp of the patch alone agrees but for pixels on the edge between two."""
    config = only(patch=1.0)
    augmenter = make(config, (64, 32))
    pixels, drawn, partners = batch(augmenter, 1)
    drawn[:, 1 : 1 + TRIES], drawn[:, 1 + TRIES : 1 + 2 * TRIES] = 0.5, 0.16  # area 26 %, aspect 1.7
    drawn[:, -3], drawn[:, -2], drawn[:, -1] = 0.9, 0.1, 0.99  # not mirrored, turned, by 10°
    top, left, height, width = slow_rectangle(drawn[0].tolist(), 1.0, PATCH_SHAPES, (64, 32))
    y, x = whole(drawn[0, -5], 64 - height), whole(drawn[0, -4], 32 - width)
    patch = plane_last(partners)[0, y : y + height, x : x + width]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), 10, 1.0)
    expected = cv2.warpAffine(patch, turn, (width, height), flags=cv2.INTER_NEAREST)
    got = levels(augmenter(pixels, drawn, partners))[0, top : top + height, left : left + width]
    assert (np.abs(got - expected) < 0.01).all(-1).mean() > 0.97


def slow_colours(image, drawn, config):
    """One image, H×W×3 of 0 … 1, pixel by pixel."""
    spread = [2 * number - 1 for number in drawn]
    image = np.clip(image * (1 + spread[0] * config.brightness), 0, 1)
    grey = image @ np.array([0.299, 0.587, 0.114])
    contrast = 1 + spread[1] * config.contrast
    image = np.clip(contrast * image + (1 - contrast) * grey.mean(), 0, 1)
    saturation = 1 + spread[2] * config.saturation
    grey = image @ np.array([0.299, 0.587, 0.114])
    image = np.clip(saturation * image + (1 - saturation) * grey[..., None], 0, 1)
    turned = np.empty_like(image)
    for place in np.ndindex(image.shape[:2]):
        hue, depth, value = colorsys.rgb_to_hsv(*image[place])
        turned[place] = colorsys.hsv_to_rgb((hue + spread[3] * config.hue) % 1.0, depth, value)
    return turned


@pytest.mark.parametrize("on", [("brightness",), ("contrast",), ("saturation",), ("hue",), tuple(COLOURS)])
def test_colours_as_a_slow_loop_does(on):
    config = only(**{name: COLOURS[name] for name in on})
    augmenter = make(config)
    pixels, drawn, _ = batch(augmenter, 8)
    output = levels(augmenter(pixels, drawn)) / 255
    for image, row, got in zip(plane_last(pixels), drawn.tolist(), output, strict=True):
        expected = slow_colours(image.astype(float) / 255, row, config)
        assert np.abs(expected - image / 255).max() > 0.01
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_changes_come_in_the_documented_order():
    """Flip, patch, colours, erasing: one image through the slow ones."""
    config = only(flip=1.0, patch=1.0, brightness=0.5, erase=1.0)
    augmenter = make(config)
    pixels, drawn, partners = batch(augmenter, 30)
    drawn[:, -ERASE_COLUMNS - 4 :][:, 1:4] = 0.5
    output = augmenter(pixels, drawn, partners)
    for image, partner, row, got in zip(plane_last(pixels), plane_last(partners), drawn.tolist(), output, strict=True):
        patched = slow_patch(image[:, ::-1], partner, row[1 : -ERASE_COLUMNS - 4], 1.0)
        coloured = slow_colours(patched / 255, row[-ERASE_COLUMNS - 4 : -ERASE_COLUMNS], config)
        expected = (coloured - MEAN) / STD
        if rectangle := slow_rectangle(row[-ERASE_COLUMNS:], 1.0, ERASE_SHAPES, SIZE):
            top, left, height, width = rectangle
            expected[top : top + height, left : left + width] = 0
        close = (np.abs(got.permute(1, 2, 0).numpy() - expected) < 1e-3).all(-1)
        assert close.mean() > 0.99


@pytest.mark.parametrize("shapes", [PATCH_SHAPES, ERASE_SHAPES], ids=["patch", "erase"])
def test_rectangles_are_distributed_as_the_reference_draws_them(shapes):
    """Against the reference's loop with its own generator: retry until a size fits, then any place."""
    count, (rows, columns) = 20_000, (256, 128)
    drawn = draw_rectangles(numbers(1, 0, count, ERASE_COLUMNS), 0.5, shapes, rows, columns)
    chosen = drawn.drawn.flatten().numpy()
    assert abs(chosen.mean() - 0.5) < 4 * 0.5 / math.sqrt(count)
    top, left, height, width = (
        getattr(drawn, name).flatten().numpy()[chosen] for name in ("top", "left", "height", "width")
    )
    rng, reference = random.Random(2), []
    while len(reference) < count // 2:
        area = rng.uniform(*shapes.area) * rows * columns
        aspect = rng.uniform(*shapes.aspect)
        tall, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if tall < rows and wide < columns:
            reference.append((rng.randint(0, rows - tall), rng.randint(0, columns - wide), tall, wide))
    ours, theirs = np.stack([top, left, height, width], 1), np.array(reference)
    assert (ours == ours.round()).all() and ours.min() >= 0
    assert (ours[:, 0] + ours[:, 2] <= rows).all() and (ours[:, 1] + ours[:, 3] <= columns).all()
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 0.001
    assert stats.ks_2samp(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]).pvalue > 0.001
    assert stats.ks_2samp(ours[:, 2] / ours[:, 3], theirs[:, 2] / theirs[:, 3]).pvalue > 0.001


def test_every_offset_of_a_crop_is_equally_likely():
    """A ramp shows where it was cut: 64 → 72 rows, offsets 0 … 8."""
    augmenter = make(only(translate=1.0), (64, 2))
    ramp = torch.arange(64, dtype=torch.uint8)[:, None].expand(1800, 3, 64, 2)
    rows = levels(augmenter(ramp, numbers(1, 0, 1800, augmenter.columns)))[:, 32, 1, 0]
    offsets = np.round((rows + 0.5) * 72 / 64 - 0.5 - 32).astype(int)
    counts = np.bincount(offsets, minlength=9)
    assert len(counts) == 9 and stats.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize("seed", range(3))
def test_an_image_does_not_depend_on_its_batch(seed):
    augmenter = make(AugmentSettings(**EVERYTHING, **COLOURS))
    pixels, drawn, partners = batch(augmenter, 6, step=seed)
    together = augmenter(pixels, drawn, partners)
    for index in range(6):
        one = slice(index, index + 1)
        torch.testing.assert_close(augmenter(pixels[one], drawn[one], partners[one]), together[one], atol=1e-5, rtol=0)


def test_draws_on_its_numbers_only():
    augmenter = make(AugmentSettings(**EVERYTHING, **COLOURS))
    given = batch(augmenter)
    first = augmenter(*given)
    before = torch.get_rng_state()
    assert torch.equal(augmenter(*given), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(augmenter(given[0], batch(augmenter, step=1)[1], given[2]), first)


def test_mixed_precision_does_not_reach_it():
    augmenter = make(AugmentSettings(**EVERYTHING, **COLOURS))
    given = batch(augmenter)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = augmenter(*given)
    assert mixed.dtype == torch.float32 and torch.equal(mixed, augmenter(*given))


class NoWaiting(TorchDispatchMode):
    """Refuses what would make the host wait for a GPU or copy something to it, and so break a CUDA graph's capture."""

    WAITING = (
        "_local_scalar_dense",
        "nonzero",
        "equal",
        "is_nonzero",
        "masked_select",
        "unique",
        "lift_fresh",
        "bincount",
    )

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().removeprefix("aten::").split(".")[0]
        assert name not in self.WAITING, name
        if name in ("index", "index_put", "index_put_"):  # by a mask: counts what is true
            assert all(each is None or each.dtype != torch.bool for each in args[1]), name
        self.calls = getattr(self, "calls", 0) + 1
        return function(*args, **(kwargs or {}))


def test_waits_for_no_value_of_the_device():
    augmenter = make(AugmentSettings(**EVERYTHING, **COLOURS))
    given = batch(augmenter)
    with NoWaiting() as watch:
        augmenter(*given)
    assert watch.calls > 50
    for waiting in (lambda: given[1].max().item(), lambda: given[1][given[1] > 0.5], lambda: torch.tensor([1.0])):
        with pytest.raises(AssertionError), NoWaiting():
            waiting()


def test_missing_kornia_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia", None)
    make(only(flip=0.5, erase=0.5))
    with pytest.raises(MissingExtraError, match=r"colour jitter needs the package 'kornia'.*reid-edge\[train\]"):
        make(only(hue=0.1))
