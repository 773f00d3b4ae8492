"""Attribute figures against one image and one attribute at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_edge.errors import InputError
from reid_edge.evaluation.attributes import attribute_quality


def obvious(found, true):
    """In sets and loops; 0/0 as the docstring says."""
    accuracy, precision, recall = [], [], []
    for one, other in zip(found, true, strict=True):
        f = {i for i, value in enumerate(one) if value}
        t = {i for i, value in enumerate(other) if value}
        if not f and not t:
            accuracy.append(1), precision.append(1), recall.append(1)
            continue
        accuracy.append(len(f & t) / len(f | t))
        precision.append(len(f & t) / len(f) if f else 0)
        recall.append(len(f & t) / len(t) if t else 0)
    balanced = []
    for attribute in range(len(found[0])):
        pairs = [(one[attribute], other[attribute]) for one, other in zip(found, true, strict=True)]
        shares = []
        for value in (0, 1):
            here = [f == value for f, t in pairs if t == value]
            if here:
                shares.append(sum(here) / len(here))
        balanced.append(sum(shares) / len(shares))
    return balanced, np.mean(accuracy), np.mean(precision), np.mean(recall)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), images=st.integers(1, 12), attributes=st.integers(1, 6), rate=st.floats(0, 1))
def test_the_figures_are_those_of_the_obvious_computation(seed, images, attributes, rate):
    rng = np.random.default_rng(seed)
    found, true = rng.random((2, images, attributes)) < rate
    balanced, accuracy, precision, recall = obvious(found.tolist(), true.tolist())
    quality = attribute_quality(found, true.astype(np.uint8))
    np.testing.assert_allclose(quality.balanced, balanced, rtol=0, atol=1e-12)
    assert quality.mean_accuracy == pytest.approx(np.mean(balanced), abs=1e-12)
    assert quality.accuracy == pytest.approx(accuracy, abs=1e-12)
    assert quality.precision == pytest.approx(precision, abs=1e-12)
    assert quality.recall == pytest.approx(recall, abs=1e-12)
    harmonic = 2 / (1 / precision + 1 / recall) if precision and recall else 0
    assert quality.f1 == pytest.approx(harmonic, abs=1e-12)


def test_an_example_by_hand():
    found = [[1, 1, 0], [0, 1, 0]]
    true = [[1, 0, 1], [0, 1, 0]]
    quality = attribute_quality(found, true)
    # attribute 0: both right; 1: the positive right, the negative wrong; 2: the reverse
    assert quality.balanced.tolist() == [1, 0.5, 0.5]
    assert quality.accuracy == pytest.approx((1 / 3 + 1) / 2)
    assert quality.precision == quality.recall == quality.f1 == pytest.approx(0.75)


def test_always_no_is_half_right_by_mean_accuracy():
    true = np.zeros((100, 1), np.uint8)
    true[:2] = 1
    quality = attribute_quality(np.zeros((100, 1), bool), true)
    assert quality.mean_accuracy == 0.5
    assert quality.recall == pytest.approx(0.98)  # 98 images with nothing to be found
    assert quality.f1 < 1


@pytest.mark.parametrize(
    ("found", "true", "message"),
    [
        ([[1, 0]], [[1]], r"of one shape N×A, got \(1, 2\) and \(1, 1\)"),
        ([1, 0], [1, 0], r"found attributes: expected N×A .* got shape \(2,\)"),
        (np.zeros((0, 3)), np.zeros((0, 3)), r"at least one of each"),
        ([[0.7, 0.2]], [[1, 0]], "found attributes: expected 0 and 1 only"),
        ([[1, 0]], [[1, 2]], "true attributes: expected 0 and 1 only"),
        ([[np.nan, 0]], [[1, 1]], "expected 0 and 1 only"),
    ],
)
def test_other_arrays_are_refused(found, true, message):
    with pytest.raises(InputError, match=message):
        attribute_quality(found, true)
