import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_edge.benchmark.report import gather
from reid_edge.benchmark.report.charts import log_axis
from reid_edge.benchmark.report.figures import (
    accuracy_figure,
    latency_figure,
    pareto,
    percentiles_figure,
    roofline_figure,
)
from tests.benchmark.results import ORIN, grid_models, make_result, model, zoo_models

SINGLE = (("single-stream", 1, 0.7),)
ZOO = gather([make_result(zoo_models(), queries=SINGLE, noisy={("openvino", "int8")})])
QUERY = ZOO.queries[0]


def points(figure, variant):
    return [
        point
        for trace in figure["data"]
        if trace["meta"].get("variant") == variant
        for point in zip(trace["x"], trace["y"], strict=True)
    ]


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), max_size=12))
def test_the_front_is_what_nothing_beats(candidates):
    def beaten(point):
        return any(other[0] <= point[0] and other[1] >= point[1] and other != point for other in candidates)

    front = [candidates[i] for i in pareto(candidates)]
    assert front == sorted({point for point in candidates if not beaten(point)})


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=20))
def test_an_axis_shows_everything_with_a_few_round_ticks(values):
    axis = log_axis(values, "ms")
    low, high = axis["range"]
    assert all(low < math.log10(value) < high for value in values)
    assert 2 <= len(axis["tickvals"]) <= 10
    assert all(low <= math.log10(tick) <= high for tick in axis["tickvals"])
    assert len(set(axis["ticktext"])) == len(axis["tickvals"])


def test_every_run_is_a_point_at_its_mult_adds_and_median():
    figure = latency_figure(ZOO, ZOO.devices[0], QUERY)
    for variant in ZOO.variants:
        expected = [(e.model.mult_adds / 1e6, e.run.summary.p50) for e in ZOO.entries if e.variant == variant]
        assert points(figure, variant) == sorted(expected)


def test_noisy_runs_are_hollow():
    figure = latency_figure(ZOO, ZOO.devices[0], QUERY)
    hollow = {
        trace["meta"]["variant"] for trace in figure["data"] if all("-open" in s for s in trace["marker"]["symbol"])
    }
    assert hollow == {"openvino/int8"}


def test_devices_have_the_same_axes():
    both = gather([make_result(zoo_models(), queries=SINGLE), make_result([model(0.5)], device=ORIN, queries=SINGLE)])
    first, second = (latency_figure(both, device, QUERY)["layout"] for device in both.devices)
    assert first["xaxis"] == second["xaxis"]
    assert first["yaxis"] == second["yaxis"]


def test_the_front_leaves_out_noisy_runs_and_names_each_model_once():
    figure = accuracy_figure(ZOO, ZOO.devices[0], QUERY, "market1501")
    front = figure["data"][0]
    noisy = {x for x, _ in points(figure, "openvino/int8")}
    assert noisy.isdisjoint(front["x"])
    assert min(noisy) < min(front["x"])  # it would have been on it
    assert [text for text in front["text"] if text] == ["×0.25", "×0.5", "×0.75", "×1"]


def test_percentiles_are_observed_times_of_the_run():
    entries = [entry for entry in ZOO.entries if entry.model.width == 0.25]
    figure = percentiles_figure(ZOO, entries)
    for row, entry in enumerate(sorted(entries, key=lambda entry: entry.run.summary.p50)):
        line, middle = figure["data"][2 * row : 2 * row + 2]
        samples = sorted(sample for one in entry.run.rounds_ms for sample in one)
        assert line["x"] == pytest.approx([samples[0], samples[269], samples[284], samples[296]], rel=1e-4)  # of 300
        assert middle["x"] == pytest.approx([samples[149]], rel=1e-4)
        assert entry.variant in figure["layout"]["annotations"][row]["text"]


def test_roofs_turn_where_bandwidth_meets_the_peak():
    figure = roofline_figure(ZOO, ZOO.devices[0], QUERY)
    roofs = [trace for trace in figure["data"] if trace["meta"]["tone"] == "ink"]
    assert [trace["y"][1] for trace in roofs] == [140.0, 480.0, 560.0]
    for trace in roofs:
        (start, ridge, _), (low, peak, end) = trace["x"], trace["y"]
        assert low / start == pytest.approx(21.4)  # GB/s
        assert peak / ridge == pytest.approx(21.4)
        assert end == peak
    for entry in ZOO.entries:
        assert (entry.intensity, entry.run.gflops) in points(figure, entry.variant)


def test_without_a_roofline_there_is_none():
    bare = gather([make_result([model()], roofline=False)])
    assert roofline_figure(bare, bare.devices[0], bare.queries[0]) is None


def test_forty_eight_runs_get_forty_eight_rows():
    found = gather([make_result(grid_models()[:8], queries=SINGLE)])
    figure = percentiles_figure(found, found.entries)
    assert len(figure["layout"]["annotations"]) == 48
    assert figure["layout"]["height"] > 48 * 40
