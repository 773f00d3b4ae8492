import numpy as np
import pytest

from reid_edge.features import l2_normalised
from reid_edge.identity import neighbours
from reid_edge.identity.neighbours import nearest, pairs_of
from tests.identity.scenes import unit


@pytest.mark.parametrize("rows", [1, 2, 5, 60])
def test_neighbours_are_those_of_a_sort_of_everything(monkeypatch, rows):
    monkeypatch.setattr(neighbours, "BLOCK", 7)
    features = l2_normalised(np.random.default_rng(rows).normal(size=(rows, 16))).astype(np.float32)
    found = nearest(features, 4)
    cosines = features @ features.T
    np.fill_diagonal(cosines, -np.inf)
    wanted = np.argsort(-cosines, axis=1, kind="stable")[:, : min(4, rows - 1)]
    assert np.array_equal(found.rows, wanted)
    assert np.allclose(found.cosines, np.take_along_axis(cosines, wanted, axis=1), atol=1e-6)


def test_among_many_columns_the_largest_are_found_by_groups():
    features = l2_normalised(np.random.default_rng(9).normal(size=(301, 16))).astype(np.float32)
    features[7] = features[205]
    found = nearest(features, 2)
    cosines = features @ features.T
    np.fill_diagonal(cosines, -np.inf)
    assert np.array_equal(found.rows, np.argsort(-cosines, axis=1, kind="stable")[:, :2])
    assert neighbours.GROUP * 4 * 2 <= 301  # else all columns are compared


def test_neighbours_below_the_limit_are_left_out_and_others_may_be_searched():
    found = nearest(np.stack([unit(1, 0)]), 2, among=np.stack([unit(0, 1), unit(1, 0.1), unit(1, 0)]), above=0.5)
    assert found.rows.tolist() == [[2, 1]]
    assert nearest(np.stack([unit(1, 0), unit(0, 1)]), 1, above=0.5).rows.tolist() == [[-1], [-1]]


def test_each_pair_stands_once():
    features = np.stack([unit(1, 0), unit(1, 0.1), unit(0, 1)])
    assert pairs_of(nearest(features, 1)).tolist() == [[0, 1], [1, 2]]
