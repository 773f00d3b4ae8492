import dataclasses

import pytest

from reid_edge.benchmark import peak_native
from reid_edge.benchmark.bound import bound_of
from reid_edge.benchmark.peak_native import native_kernels
from reid_edge.benchmark.report.data import gather
from reid_edge.benchmark.report.html import page
from reid_edge.benchmark.report.markdown import markdown_report
from reid_edge.benchmark.report.tables import layer_rows, number
from reid_edge.benchmark.result import LayerBound, LayerTime
from reid_edge.errors import EngineUnavailableError
from reid_edge.runtime.native.library import available_kernels, compute_peak, stem_products
from reid_edge.runtime.native.plan import BLOCK, HEADER
from reid_edge.runtime.native.work import count_work
from tests.benchmark.results import make_result, model
from tests.runtime.native.networks import kernels_of, needs_library


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


@needs_library
def test_each_kind_is_bounded_by_the_instructions_that_compute_it():
    kernels = available_kernels("fp32")[0]
    peaks = {"fp32": 100.0, "bf16": 200.0, "int8": 400.0, "int16": 150.0}
    bounds = {layer.kind: layer for layer in bound_of(quarter(), "fp32", kernels, 8, peaks.get)}
    work = count_work(quarter())
    assert bounds["1×1 convolutions"].ms == pytest.approx(2 * 8 * work["1×1 convolutions"] / 100e9 * 1e3)
    products = stem_products("fp32", kernels)
    assert products == {"avx512vnni": 2, "avx2": 1}.get(kernels, 0)
    stem = 2 * 8 * work["stem 7×7"] / 1e6 * {0: 1 / 100, 1: 1 / 150, 2: 2 / 400}[products]
    assert bounds["stem 7×7"].ms == pytest.approx(stem)
    assert bounds["depthwise 3×3"].arithmetic == "fp32"


@pytest.mark.skipif("avx2" not in kernels_of("fp32"), reason="this CPU has no AVX2")
def test_a_stem_of_16_bits_is_bounded_by_the_peak_of_its_own_instructions(monkeypatch):
    """Not by that of bytes: on a CPU with AVX-VNNI the INT8 kernels are others, with twice the products."""
    peaks = {"fp32": 100.0, "int8": 400.0, "int16": 150.0}
    stem, *_ = bound_of(quarter(), "fp32", "avx2", 1, peaks.get)
    assert (stem.kind, stem.arithmetic) == ("stem 7×7", "int16")
    assert stem.ms == pytest.approx(2 * count_work(quarter())["stem 7×7"] / 150e6)
    of_avx_vnni = {"fp32": ("avx2", "portable"), "int8": ("avx512vl", "avx2")}  # which stands for avx2vnni here
    monkeypatch.setattr(peak_native, "available_kernels", lambda precision: of_avx_vnni.get(precision, ()))
    monkeypatch.setattr(peak_native, "compute_peak", lambda precision, rounds, kernels: 1)
    kernels = [build(1) for build in native_kernels(1)]
    assert [(kernel.arithmetic, kernel.how.split()[-1]) for kernel in kernels] == [
        ("fp32", "avx2"),
        ("int8", "avx512vl"),
        ("int16", "avx2"),
    ]


@needs_library
def test_the_peak_is_measured_in_each_arithmetic_by_the_fastest_kernels():
    for kernel in (build(1) for build in native_kernels(1)):
        assert kernel.operations == 2 * kernel.run() > 0


@needs_library
def test_without_a_peak_or_kernels_there_is_no_bound():
    assert bound_of(quarter(), "fp32", available_kernels("fp32")[0], 1, lambda _: None) == ()
    assert bound_of(quarter(), "fp32", "of another CPU", 1, lambda _: 100.0) == ()


@needs_library
def test_the_peak_counts_what_it_computes():
    assert compute_peak("fp32", 20) == 20 * compute_peak("fp32", 1) > 0
    assert compute_peak("fp32", 1, "portable") > 0
    with pytest.raises(EngineUnavailableError, match="no kernels of another CPU in fp32"):
        compute_peak("fp32", 1, "of another CPU")


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
