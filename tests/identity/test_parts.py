import numpy as np
import pytest

from reid_edge.errors import InputError
from reid_edge.features import l2_normalised
from reid_edge.identity.parts import separate_parts


def tracklets(count, *, seed):
    """Crops of tracklets, of 2 to 12 crops each, and the numbers of the crops in an earlier feature."""
    generator = np.random.default_rng(seed)
    many = generator.integers(2, 13, size=count)
    few = np.array([generator.integers(1, crops) for crops in many])
    person = generator.normal(size=(count, 128))
    crops = [l2_normalised(person[row] + 0.7 * generator.normal(size=(many[row], 128))) for row in range(count)]
    return crops, few, many


def mean(crops):
    return l2_normalised(np.mean(crops, axis=0)[None])[0].astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_left_of_a_later_feature_is_the_mean_of_its_later_crops(seed):
    crops, few, many = tracklets(400, seed=seed)
    earlier = np.stack([mean(one[:first]) for one, first in zip(crops, few, strict=True)])
    later = np.stack([mean(one) for one in crops])
    wanted = np.stack([mean(one[first:]) for one, first in zip(crops, few, strict=True)])
    parts = separate_parts(earlier, later, few, many)
    assert np.einsum("nd,nd->n", parts, wanted).min() > 0.98
    with_one_another = [float(np.einsum("nd,nd->n", earlier, one).mean()) for one in (parts, wanted, later)]
    assert with_one_another[0] == pytest.approx(with_one_another[1], abs=0.01)
    assert with_one_another[2] > with_one_another[1] + 0.1


def test_a_later_feature_must_have_more_crops():
    rows = l2_normalised(np.ones((2, 4))).astype(np.float32)
    for few, many in (([1, 2], [2, 2]), ([0, 1], [1, 2])):
        with pytest.raises(InputError, match="more crops"):
            separate_parts(rows, rows, np.array(few), np.array(many))
    assert separate_parts(rows[:0], rows[:0], np.empty(0, int), np.empty(0, int)).shape == (0, 4)
