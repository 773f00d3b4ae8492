import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_edge.runtime.verdict import judge


@pytest.fixture
def features(rng):
    return rng.random((40, 64)).astype(np.float32)


def _judge(exact, quantized, golden_cosine=1.0):
    return judge(exact, quantized, golden_cosine=golden_cosine, crops="40 random")


def test_equal_features_agree_in_everything(features):
    verdict = _judge(features, features)
    assert verdict.verdict == "accepted"
    assert (verdict.cosine_mean, verdict.ranking, verdict.neighbours, verdict.variance) == pytest.approx((1, 1, 1, 1))


def test_a_little_noise_is_accepted(features, rng):
    assert _judge(features, features + 0.005 * rng.standard_normal(features.shape)).verdict == "accepted"


def test_features_that_collapse_are_rejected_though_their_cosine_is_high(features):
    mean = features.mean(0)
    collapsed = mean + 0.05 * (features - mean) + 5 * mean
    verdict = _judge(features + 5 * mean, collapsed)
    assert verdict.cosine_mean > 0.97
    assert verdict.verdict == "rejected"
    assert any("variance" in reason for reason in verdict.reasons)


def test_features_that_rank_otherwise_are_rejected(features, rng):
    verdict = _judge(features, features + 0.3 * rng.standard_normal(features.shape))
    assert verdict.verdict == "rejected"
    assert any("ranking" in reason for reason in verdict.reasons)


def test_crops_unlike_the_training_data_are_found_out(features):
    verdict = _judge(features, features, golden_cosine=0.8)
    assert verdict.reasons == ("lowest cosine on crops made from the checkpoint 0.8000 is under 0.9",)


@pytest.mark.parametrize("broken", [0.0, np.nan])
def test_dead_features_are_rejected(features, broken):
    verdict = _judge(features, np.full_like(features, broken))
    assert verdict.verdict == "rejected"
    assert np.isfinite([verdict.cosine_mean, verdict.ranking, verdict.neighbours, verdict.variance]).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_ranking_is_spearmans_rho_and_neighbours_an_overlap(seed):
    rng = np.random.default_rng(seed)
    exact = rng.standard_normal((14, 6)).astype(np.float32)
    quantized = (exact + 0.3 * rng.standard_normal(exact.shape)).astype(np.float32)
    verdict = _judge(exact, quantized)
    rhos, overlaps = [], []
    for row in range(14):
        others = [other for other in range(14) if other != row]
        ranks, nearest = [], []
        for features in (exact, quantized):
            unit = features / np.linalg.norm(features, axis=1, keepdims=True)
            similarity = unit[others] @ unit[row]
            ranks.append(np.argsort(np.argsort(-similarity)))
            nearest.append({others[i] for i in np.argsort(-similarity)[:10]})
        rhos.append(np.corrcoef(*ranks)[0, 1])
        overlaps.append(len(nearest[0] & nearest[1]) / 10)
    assert verdict.ranking == pytest.approx(np.mean(rhos), abs=1e-9)
    assert verdict.neighbours == pytest.approx(np.mean(overlaps))
