"""Results as a benchmark would write them, of invented devices, for tests and for looking at the page."""

from __future__ import annotations

import numpy as np

from reid_edge.benchmark.result import BenchmarkResult, Energy, ModelEntry, NotRun, Peak, Roofline, Run, Summary
from reid_edge.manifest import Precision
from reid_edge.system.conditions import Condition
from reid_edge.system.device import Device

#: Mult-adds of Table 6, millions, and parameters: the paper's printed digits.
TABLE_6 = {
    1.0: (2.2, (978.9, 550.7, 244.9, 61.5)),
    0.75: (1.3, (571.8, 321.7, 143.1, 35.9)),
    0.5: (0.6, (272.9, 153.6, 68.3, 17.2)),
    0.25: (0.2, (82.3, 46.3, 20.6, 5.2)),
}
SIZES = ((256, 128), (192, 96), (128, 64), (64, 32))
#: By precision: share of the peak reached, and the arithmetic whose peak it is.
SPEED: dict[Precision, tuple[float, str]] = {"fp32": (0.4, "fp32"), "fp16": (0.38, "fp32"), "int8": (0.25, "int8")}
QUERIES = (("single-stream", 1, 0.7), ("multi-stream", 8, 1.0), ("offline", 32, 1.1), ("end-to-end", 8, 0.85))

XEON = Device(
    name="Intel Xeon Silver 4410Y",
    cpu="Intel(R) Xeon(R) Silver 4410Y",
    architecture="x86_64",
    instruction_sets=("avx2", "avx512f", "avx512_vnni", "amx_int8", "amx_bf16"),
    cores=2,
    cpus=2,
    caches={"L1d": 48 << 10, "L2": 2 << 20, "L3": 30 << 20},
    governor="performance",
    memory_bytes=16 << 30,
    os="Debian GNU/Linux 12, Linux 6.1.0",
    container="virtual machine (kvm)",
    libraries={"openvino": "2026.1.0", "onnxruntime": "1.23.2", "numpy": "2.3.1", "reid-edge": "0.2.0"},
    python="3.11.7",
)
ORIN = Device(
    name="NVIDIA Jetson Orin Nano Developer Kit",
    cpu="Cortex-A78AE",
    architecture="aarch64",
    instruction_sets=("neon", "asimddp"),
    cores=6,
    cpus=6,
    jetson={"model": "NVIDIA Jetson Orin Nano Developer Kit", "power mode": "15W (0)", "l4t": "R36.4.3"},
    gpus=("Orin (nvgpu), compute capability 8.7",),
    memory_bytes=8 << 30,
    os="Ubuntu 22.04, Linux 5.15.148-tegra",
    libraries={"onnxruntime": "1.23.2"},
    python="3.10.12",
)


def summary_of(rounds: list[np.ndarray], noisy: bool = False) -> Summary:
    samples = np.sort(np.concatenate(rounds))
    count = len(samples)
    p50, p90, p95, p99 = (float(samples[int(np.ceil(q * count)) - 1]) for q in (0.5, 0.9, 0.95, 0.99))
    half = 0.98 * np.sqrt(count)
    medians = [float(np.median(one)) for one in rounds]
    return Summary(
        samples=count,
        min=float(samples[0]),
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        ci_low=float(samples[max(0, int(count / 2 - half))]),
        ci_high=float(samples[min(count - 1, int(count / 2 + half))]),
        round_spread=(max(medians) - min(medians)) / p50,
        verdict="noisy" if noisy else "steady",
        reasons=("medians of rounds are 14 % apart, more than 5 %",) if noisy else (),
    )


def model(width: float = 0.25, size: tuple[int, int] = (256, 128), *, trained: bool = False, **fields) -> ModelEntry:
    parameters, millions = TABLE_6[width]
    return ModelEntry(
        name=f"osnet_x{width:g}".replace(".", "_") + f"_{size[0]}x{size[1]}",
        model_hash=f"{width}{size}".encode().hex().ljust(64, "0"),
        width=width,
        size=size,
        parameters=int(parameters * 1e6),
        mult_adds=int(millions[SIZES.index(size)] * 1e6),
        trained=trained,
        **fields,
    )


def make_result(
    models,
    *,
    device: Device = XEON,
    engines=("onnxruntime", "openvino"),
    precisions=("fp32", "fp16", "int8"),
    threads=(None,),
    queries=QUERIES,
    noisy=frozenset(),
    roofline: bool = True,
    speed: float = 1.0,
    seed: int = 0,
    notes=(),
) -> BenchmarkResult:
    """A result whose times follow from mult-adds and an assumed share of the peak, with lognormal scatter.

    ``noisy``: ``(engine, precision)`` pairs whose single-stream runs are marked so.
    """
    rng = np.random.default_rng(seed)
    peaks = {"fp32": 140.0 * speed, "bf16": 480.0 * speed, "int8": 560.0 * speed}
    runs = []
    for number, entry in enumerate(models):
        for engine in engines:
            for precision in precisions:
                for count in threads:
                    for scenario, crops, efficiency in queries:
                        share, arithmetic = SPEED[precision]
                        share *= efficiency * (0.75 if engine == "onnxruntime" else 1) * (0.55 if count == 1 else 1)
                        share *= entry.mult_adds / (entry.mult_adds + 4e7)
                        work = 2 * entry.mult_adds * crops / 1e9
                        typical = 1e3 * work / (share * peaks[arithmetic]) + 0.05
                        rounds = [
                            typical * rng.lognormal(0.02, 0.04, 60) + rng.exponential(0.02 * typical, 60)
                            for _ in range(5)
                        ]
                        is_noisy = (engine, precision) in noisy and scenario == "single-stream"
                        summary = summary_of(rounds, is_noisy)
                        gflops = work / summary.p50 * 1e3
                        runs.append(
                            Run(
                                model=number,
                                engine=engine,
                                engine_description=f"{engine} on {device.cpu}",
                                precision=precision,
                                scenario=scenario,
                                crops=crops,
                                threads=count,
                                rounds_ms=tuple(tuple(float(round(x, 4)) for x in one) for one in rounds),
                                warm_up=35,
                                summary=summary,
                                crops_per_second=crops / summary.p50 * 1e3,
                                gflops=gflops,
                                fraction_of_peak=gflops / peaks[arithmetic] if roofline else None,
                                size_bytes=int(entry.parameters * {"fp32": 4, "fp16": 2, "int8": 1}[precision] + 3e5),
                                load_ms=210.0 + 100 * entry.width,
                                first_ms=3 * summary.p50,
                                peak_rss_mb=150.0 + 60 * entry.width,
                                energy=Energy(joules_per_crop=0.031, mean_watts=18.2, source="RAPL package")
                                if engine == "openvino"
                                else None,
                            )
                        )
    return BenchmarkResult(
        created="2026-11-20T09:30:00+00:00",
        command="reid-edge benchmark osnet_x0_25_256x128 --out result.json",
        protocol={
            "rounds": 5,
            "seconds a round": 0.5,
            "order": "shuffled each round",
            "warm-up": "until the median of 20 moves less than 3 %",
        },
        device=device,
        before=Condition(
            at="2026-11-20T09:30:00+00:00",
            load_1min=0.08,
            temperatures_c={"x86_pkg_temp": 41.0},
            frequencies_mhz=(3900.0, 3892.0),
            throttle_events={"cpu0": 0},
        ),
        after=Condition(
            at="2026-11-20T09:32:40+00:00",
            load_1min=1.92,
            temperatures_c={"x86_pkg_temp": 58.0},
            frequencies_mhz=(3900.0, 3900.0),
            throttle_events={"cpu0": 0},
        ),
        roofline=Roofline(
            peaks=tuple(
                Peak(arithmetic=name, gflops=value, threads=2, how="OpenVINO, 1024×1024 matrices")
                for name, value in peaks.items()
            ),
            bandwidth_gbs=21.4 * speed,
            bandwidth_how="numpy.copyto of 256 MiB, 2 threads",
        )
        if roofline
        else None,
        models=tuple(models),
        runs=tuple(runs),
        not_run=(NotRun(model=0, artifact="tensorrt/fp16", reason="no GPU here: TensorRT needs one"),),
        notes=notes,
    )


def grid_models():
    """The 16 cells, one of them trained."""
    accuracy = {"market1501/mAP": 70.4, "market1501/openvino/fp32/mAP": 70.41, "market1501/openvino/fp32/R1": 87.3}
    return [
        model(width, size, trained=trained, accuracy=accuracy if trained else {})
        for width in TABLE_6
        for size in SIZES
        for trained in [width == 0.25 and size == (256, 128)]
    ]


def zoo_models():
    """Four widths, all trained, with every variant's mAP."""
    accuracies = {1.0: 82.6, 0.75: 81.2, 0.5: 78.9, 0.25: 70.4}
    return [
        model(
            width,
            trained=True,
            accuracy={
                "market1501/mAP": value,
                **{
                    f"market1501/{engine}/{precision}/mAP": value - loss
                    for engine, off in (("onnxruntime", 0.05), ("openvino", 0.0))
                    for precision, loss in (("fp32", 0.0), ("fp16", 0.01), ("int8", 0.2 + off))
                },
            },
        )
        for width, value in accuracies.items()
    ]
