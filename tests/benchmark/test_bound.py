import dataclasses

import pytest

from reid_edge.benchmark.bound import bound_of
from reid_edge.benchmark.report.data import gather
from reid_edge.benchmark.report.html import page
from reid_edge.benchmark.report.markdown import markdown_report
from reid_edge.benchmark.report.tables import layer_rows, number
from reid_edge.benchmark.result import LayerBound, LayerTime
from reid_edge.runtime.native.library import LIBRARY, available_kernels, compute_peak, stem_products
from reid_edge.runtime.native.plan import BLOCK, HEADER
from reid_edge.runtime.native.work import count_work
from tests.benchmark.results import make_result, model

native = pytest.mark.skipif(not LIBRARY.is_file(), reason="the native engine is not built here")


def quarter(fusion=1):
    """OSNet ×0.25 at 256×128 as a plan without its weights, which no count needs."""
    lengths = (1, 2, 3, 4, 0, 0, 0, 0)
    header = HEADER.pack(b"reidplan", 1, 256, 128, 512, 16, 0, fusion, 4, *lengths, 6, 0, 0, 0, 0, 1e-5, 0, 0)
    blocks = ((16, 16, 64, 0), (64, 16, 64, 1), (64, 24, 96, 0), (96, 24, 96, 1), (96, 32, 128, 0), (128, 32, 128, 2))
    return header + b"".join(BLOCK.pack(a, b, c, max(1, b // 16), 0, then) for a, b, c, then in blocks)


def test_mult_adds_are_those_of_the_paper():
    work = count_work(quarter())
    assert work["stem 7×7"] == 128 * 64 * 147 * 16
    gates = 4 * 2 * (16 + 16 + 24 + 24 + 2 * 32 + 2 * 32)
    feature = 128 * 512
    sums = 4 * (2 * 2048 * 16 + 2 * 512 * 24 + 2 * 128 * 32)
    assert work["gates, sums, feature"] == gates + feature + sums
    # Table 6 counts no sums: 82.3M.
    assert round((sum(work.values()) - sums) / 1e6, 1) == 82.3


@native
def test_each_kind_is_bounded_by_the_instructions_that_compute_it():
    kernels = available_kernels("fp32")[0]
    peaks = {"fp32": 100.0, "bf16": 200.0, "int8": 400.0}
    bounds = {layer.kind: layer for layer in bound_of(quarter(), "fp32", kernels, 8, peaks.get)}
    work = count_work(quarter())
    assert bounds["1×1 convolutions"].ms == pytest.approx(2 * 8 * work["1×1 convolutions"] / 100e9 * 1e3)
    products = stem_products("fp32", kernels)
    assert products == {"avx512vnni": 2, "avx2": 1}.get(kernels, 0)
    stem = 2 * 8 * work["stem 7×7"] / 1e6 * (products / 400 if products else 1 / 100)
    assert bounds["stem 7×7"].ms == pytest.approx(stem)
    assert bounds["depthwise 3×3"].arithmetic == "fp32"


@native
def test_without_a_peak_or_kernels_there_is_no_bound():
    assert bound_of(quarter(), "fp32", available_kernels("fp32")[0], 1, lambda _: None) == ()
    assert bound_of(quarter(), "fp32", "of another CPU", 1, lambda _: 100.0) == ()


@native
def test_the_peak_counts_what_it_computes():
    assert compute_peak("fp32", 20) == 20 * compute_peak("fp32", 1) > 0


def test_the_report_shows_the_bound_of_results_without_measured_layers():
    result = make_result([model()])
    first = result.runs[0]
    layer = LayerBound(kind="1×1 convolutions", arithmetic="fp32", mult_adds=10**6, ms=first.summary.p50 / 4)
    run = dataclasses.replace(first, engine="native", bound=(layer,), fraction_of_bound=0.25)
    text = markdown_report(gather([dataclasses.replace(result, runs=(run,))]))
    bound, whole = number(layer.ms), number(first.summary.p50)
    assert f"| 1×1 convolutions | fp32 | 1.0M | {bound} | – | – | – |" in text
    assert f"| all | – | 1.0M | {bound} | {whole} | 25 % | 100 % |" in text
    assert "native engine's time" not in markdown_report(gather([result]))


def test_the_report_shows_bound_and_measured_time_of_each_kind():
    result = make_result([model()])
    bound = LayerBound(kind="1×1 convolutions", arithmetic="int8", mult_adds=2 * 10**6, ms=1.5)
    layers = tuple(
        LayerTime(kind=kind, ms=ms)
        for kind, ms in [("1×1 convolutions", 2.0), ("pools, norms", 0.5), ("resizing", 0.0), ("the rest", 1.5)]
    )
    for bounds, works in (
        ((bound,), "| int8 | 2.0M | 1.50 | 2.00 | 75 % | 50 % |"),
        ((), "| – | – | – | 2.00 | – | 50 % |"),
    ):
        run = dataclasses.replace(result.runs[0], engine="native", bound=bounds, layers=layers)
        found = gather([dataclasses.replace(result, runs=(run,))])
        for text in (markdown_report(found), " | ".join(map(" | ".join, layer_rows(found.devices[0])))):
            assert f"1×1 convolutions {works.rstrip(' |')}" in text
            assert "pools, norms | – | – | – | 0.500 | – | 12 %" in text
            assert "resizing | – | – | – | 0 | – | 0 %" in text
            assert "the rest | – | – | – | 1.50 | – | 38 %" in text
        assert "where the native engine's time goes" in page(found).lower()
