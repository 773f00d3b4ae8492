"""The same features, centred and re-ranked."""

from pathlib import Path

import pytest

from reid_edge.benchmark.embedded import Embedded
from reid_edge.benchmark.evaluation_task import EvaluationTask
from reid_edge.benchmark.treatment import evaluate_treated
from reid_edge.errors import UsageError
from reid_edge.evaluation.comparison import Labelled
from reid_edge.progress import silent
from tests.evaluation.test_centring import shifted_cameras


def embedded():
    query, gallery = shifted_cameras()
    return Embedded(({"query": query, "gallery": gallery},))


def task(**changes):
    return EvaluationTask(dataset="market1501", root=Path("none"), **changes)


@pytest.mark.parametrize(
    ("centre", "rerank", "expected"),
    [
        (False, False, []),
        (True, False, [(True, False)]),
        (False, True, [(False, True)]),
        (True, True, [(True, False), (False, True), (True, True)]),
    ],
)
def test_each_treatment_that_is_asked_for_is_measured_and_both_together(centre, rerank, expected):
    found = evaluate_treated(embedded(), task(centre=centre, rerank=rerank), silent, distance="cosine")
    assert [(one.centred, one.reranked) for one in found] == expected
    assert len({one.mean_ap for one in found}) == len(expected)


def test_error_rates_are_measured_of_what_is_centred_and_not_of_what_is_re_ranked():
    found = evaluate_treated(embedded(), task(centre=True, rerank=True), silent, distance="cosine", errors=True)
    assert [(one.pairs is not None, one.searches is not None) for one in found] == [(True, True), *[(False, False)] * 2]


def test_too_few_features_are_said_once_and_nothing_is_centred():
    _query, gallery = shifted_cameras()
    few = Labelled(gallery.features[:9], gallery.identities[:9], gallery.cameras[:9], gallery.images[:9])
    said = []
    (centred, *_) = evaluate_treated(
        Embedded(({"query": few, "gallery": few},)),
        task(centre=True, rerank=True),
        silent,
        distance="cosine",
        say=said.append,
    )
    (reranked,) = evaluate_treated(
        Embedded(({"query": few, "gallery": few},)), task(rerank=True), silent, distance="cosine", say=said.append
    )
    assert len(said) == 1
    assert "fewer than 20 features" in said[0]
    assert centred.cmc
    assert reranked.cmc


def test_one_image_of_each_person_at_a_time_is_not_re_ranked():
    with pytest.raises(UsageError, match=r"cuhk03-classic.*Leave out --rerank"):
        EvaluationTask(dataset="cuhk03-classic", root=Path("none"), rerank=True)
