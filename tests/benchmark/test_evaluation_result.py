"""Error rates of several splits summed up, and the schema of the file."""

import json
import runpy

import msgspec
import numpy as np
import pytest

from reid_edge.benchmark.accuracy import Errors
from reid_edge.benchmark.evaluation_result import Evaluation, pair_errors, search_errors
from reid_edge.evaluation.identification import identify
from reid_edge.evaluation.verification import Verification, verify
from tests.conftest import REPOSITORY
from tests.evaluation.pairs import random_pairs

SCHEMA = REPOSITORY / "docs" / "evaluation.schema.json"


def errors_of(seed):
    query, gallery = random_pairs(seed)
    return Errors(verify(query, gallery), identify(query, gallery))


def test_rates_over_several_splits_are_means_of_the_same_weight():
    each = [errors_of(seed) for seed in (1, 2)]
    result = pair_errors(each)
    assert result.mated == sum(one.verification.mated for one in each)
    assert result.equal_error_rate == pytest.approx(np.mean([one.verification.eer for one in each]))
    tenth = next(point for point in result.points if point.limit == pytest.approx(0.1))
    points = [one.verification.at(0.1) for one in each]
    assert tenth.miss_rate == pytest.approx(np.mean([point.miss_rate for point in points]))
    assert tenth.threshold == pytest.approx(np.mean([point.threshold for point in points]))


def test_a_curve_ends_where_its_rates_have_no_thirty_errors():
    one = errors_of(3)
    assert min(point.limit for point in pair_errors([one]).points) * one.verification.nonmated >= 30
    assert search_errors([one]).points == ()  # 30 searches support no rate below 1


def test_a_threshold_that_does_not_exist_is_null():
    nobody = Verification(np.array([0.1]), np.array([0.9]), np.array([0.0]), 0.5, 10, 1000)
    points = pair_errors([Errors(nobody, errors_of(4).identification)]).points
    assert [point.threshold for point in points] == [None] * len(points)
    assert {point.miss_rate for point in points} == {1}


def test_the_schema_is_that_of_the_classes_and_accepts_a_result(session_bundle):
    script = runpy.run_path(str(REPOSITORY / "docs" / "make_schema.py"))
    assert SCHEMA.read_bytes() == script["evaluation_schema"](), "run: python docs/make_schema.py"
    jsonschema = pytest.importorskip("jsonschema")
    each = [errors_of(5)]
    result = Evaluation(
        bundles=("bundle",),
        model_hashes=("0" * 64,),
        trained_on=("unknown",),
        engine="openvino/fp32",
        dataset="viper",
        splits=(0, 1),
        rule="other-cameras",
        distance="cosine",
        queries=60,
        queries_with_match=50,
        gallery=180,
        cmc=(0.5, 0.6),
        mean_ap=0.4,
        mean_inp=0.2,
        pairs=pair_errors(each),
        searches=search_errors(each),
    )
    jsonschema.validate(json.loads(msgspec.json.encode(result)), json.loads(SCHEMA.read_bytes()))
