"""Rows of text, the same for the page and for Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reid_edge.benchmark.report.data import DeviceResults, Entry, Query, models_of
from reid_edge.benchmark.result import BenchmarkResult, total_ms
from reid_edge.system.conditions import Condition
from reid_edge.types import Size

NOT_KNOWN = "–"
#: Marks an unreliable median.
NOISY = "≈"
#: γ = 1 (paper, Table 1).
BASE_SIZE = (256, 128)

RUN_HEADERS = (
    "model", "variant", "execution", "query", "threads", "p50 ms", "95 % interval", "p90", "p95", "p99", "min",
    "samples", "crops/s", "GFLOP/s", "of peak", "mAP", "mult-adds", "file MB", "load ms", "first ms", "RSS MiB",
    "mJ/crop", "verdict",
)  # fmt: skip


@dataclass(frozen=True)
class GridCell:
    """One cell of Table 6, as lines of text; a cell that was not timed is None."""

    mult_adds: str
    parameters: str
    times: tuple[str, ...]
    accuracies: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """The paper's Table 6, measured: a row for each width β, a column for each resolution γ."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[GridCell | None, ...]], ...]


def number(value: float | None, digits: int = 3) -> str:
    """Return three significant digits, never as a power of ten; a dash for None."""
    if value is None:
        return NOT_KNOWN
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")  # first, since 9.996 becomes 10.0 and not 10.00
    exponent = math.floor(math.log10(abs(rounded)))
    return f"{rounded if exponent < digits else value:,.{max(0, digits - 1 - exponent)}f}"


def percent(value: float | None) -> str:
    """Return a fraction as percent; a dash for None."""
    return NOT_KNOWN if value is None else f"{number(100 * value, 2)} %"


def median(entry: Entry) -> str:
    """Return the median in milliseconds, marked where it is noisy."""
    return (NOISY if entry.noisy else "") + number(entry.run.summary.p50)


def mean_ap(entry: Entry) -> str:
    """Return the first dataset's mAP of this variant; in brackets where it is the checkpoint's."""
    for accuracy in entry.accuracies():
        return f"{accuracy.mean_ap:.1f}" if accuracy.measured else f"({accuracy.mean_ap:.1f})"
    return NOT_KNOWN


def threads_cell(threads: int | None) -> str:
    """Return the number of threads, or ``auto`` where the engine chose."""
    return "auto" if threads is None else str(threads)


def run_row(entry: Entry) -> tuple[str, ...]:
    """Return all figures of one run, in the order of :data:`RUN_HEADERS`."""
    run, summary = entry.run, entry.run.summary
    return (
        entry.model.name,
        entry.variant,
        run.execution or "default",
        str(entry.query),
        threads_cell(run.threads),
        median(entry),
        f"{number(summary.ci_low)} to {number(summary.ci_high)}",
        *(number(value) for value in (summary.p90, summary.p95, summary.p99, summary.min)),
        f"{summary.samples:,}",
        number(run.crops_per_second),
        number(run.gflops),
        percent(run.fraction_of_peak),
        mean_ap(entry),
        _millions(entry.mult_adds),
        f"{run.size_bytes / 1e6:.2f}",
        *(number(value) for value in (run.load_ms, run.first_ms, run.peak_rss_mb)),
        number(None if run.energy is None else 1e3 * run.energy.joules_per_crop),
        "; ".join((summary.verdict, *summary.reasons)),
    )


def fastest(entries: Sequence[Entry]) -> Entry:
    """Return the run with the lowest median; a steady one before a noisy one of the same time."""
    return min(entries, key=lambda entry: (entry.run.summary.p50, entry.noisy))


def best_rows(device: DeviceResults, query: Query) -> list[tuple[str, ...]]:
    """Return a row for the fastest variant of every model, in the order of :data:`BEST_HEADERS`."""
    best = [fastest(entries) for entries in models_of(device.entries_of(query)).values()]
    return [
        (
            entry.model.name,
            median(entry),
            entry.variant,
            threads_cell(entry.run.threads),
            number(entry.run.summary.p99),
            number(entry.run.crops_per_second),
            percent(entry.run.fraction_of_peak),
            mean_ap(entry),
        )
        for entry in best
    ]


BEST_HEADERS = ("model", "p50 ms", "variant", "threads", "p99 ms", "crops/s", "of peak", "mAP")


def grid_of(device: DeviceResults, query: Query) -> Grid | None:
    """Return Table 6 of one device; None where fewer than two widths and two resolutions were timed."""
    entries = device.entries_of(query)
    widths = sorted({entry.model.width for entry in entries}, reverse=True)
    sizes = sorted({entry.model.size for entry in entries}, reverse=True)
    cells = {(entry.model.width, entry.model.size) for entry in entries}
    # Bundles of many sizes are no grid: most of the table would be empty.
    if min(len(widths), len(sizes)) < 2 or 2 * len(cells) < len(widths) * len(sizes):
        return None
    rows = []
    for width in widths:
        row = [[e for e in entries if (e.model.width, e.model.size) == (width, size)] for size in sizes]
        parameters = next(cell for cell in row if cell)[0].model.parameters
        rows.append((f"{width:g}", f"{parameters / 1e6:.1f}M", tuple(_cell(cell) if cell else None for cell in row)))
    return Grid(tuple(_resolution(size) for size in sizes), tuple(rows))


def _resolution(size: Size) -> str:
    gamma = size[0] / BASE_SIZE[0]
    exact = (size[0], size[1]) == (BASE_SIZE[0] * gamma, BASE_SIZE[1] * gamma)
    return (f"γ = {gamma:g}, " if exact else "") + f"{size[0]}×{size[1]}"


def _cell(entries: Sequence[Entry]) -> GridCell:
    by_variant: dict[str, list[Entry]] = {}
    for entry in entries:
        by_variant.setdefault(entry.variant, []).append(entry)
    best = [fastest(group) for group in by_variant.values()]
    ranked = sorted(best, key=lambda entry: entry.run.summary.p50)
    accuracies = {
        f"mAP {accuracy.mean_ap:.1f} ({accuracy.dataset})": None for entry in ranked for accuracy in entry.accuracies()
    }
    model = entries[0].model
    return GridCell(
        mult_adds=f"{model.mult_adds / 1e6:,.1f}M",
        parameters=f"{model.parameters / 1e6:.1f}M",
        times=tuple(f"{median(entry)} ms {entry.variant}" for entry in ranked),
        accuracies=tuple(accuracies),
    )


LAYER_HEADERS = (
    "model", "variant", "query", "threads", "layers", "computed in", "mult-adds", "bound ms", "measured ms", "of peak",
    "share",
)  # fmt: skip
#: Columns of :data:`LAYER_HEADERS` that hold words.
LAYER_WORDS = 6


def layer_rows(device: DeviceResults) -> list[tuple[str, ...]]:
    """Return where the native engine's time goes, in the order of :data:`LAYER_HEADERS`.

    A row for each kind of layer, with its time at the device's peak, its time measured, and that one's share of all;
    and one for the whole.
    """
    return [row for entry in device.entries for row in _layer_rows(entry)]


def _layer_rows(entry: Entry) -> Iterator[tuple[str, ...]]:
    run = entry.run
    if not run.bound and not run.layers:
        return
    name = (entry.model.name, entry.variant, str(entry.query), threads_cell(run.threads))
    bounds, times = {bound.kind: bound for bound in run.bound}, {layer.kind: layer.ms for layer in run.layers}
    whole = total_ms(run.layers) or run.summary.p50
    for kind in dict.fromkeys((*bounds, *times)):
        bound, ms = bounds.get(kind), times.get(kind)
        arithmetic, work = (bound.arithmetic, _millions(bound.mult_adds)) if bound else (NOT_KNOWN, NOT_KNOWN)
        share = None if ms is None else ms / whole
        yield (*name, kind, arithmetic, work, *_layer_times(bound.ms if bound else None, ms), percent(share))
    work = _millions(sum(bound.mult_adds for bound in run.bound)) if run.bound else NOT_KNOWN
    yield (*name, "all", NOT_KNOWN, work, *_layer_times(total_ms(run.bound) or None, whole), percent(1))


def _layer_times(bound: float | None, measured: float | None) -> tuple[str, str, str]:
    return number(bound), number(measured), percent(bound / measured if bound and measured else None)


def _millions(mult_adds: int) -> str:
    return f"{mult_adds / 1e6:,.1f}M"


def device_facts(device: DeviceResults) -> list[tuple[str, str]]:
    """Return names and values of all that is known of a device."""
    system = device.system
    facts = {
        "CPU": f"{system.cpu}, {system.architecture}",
        "cores": (f"{system.cores} physical, " if system.cores else "") + f"{system.cpus} logical usable",
        "instruction sets": " ".join(system.instruction_sets),
        "limited to": system.isa_limit,
        "caches": ", ".join(f"{level} {_bytes(size)}" for level, size in system.caches.items()),
        "governor": system.governor,
        "memory": _bytes(system.memory_bytes) if system.memory_bytes else "",
        **{f"Jetson {key.replace('_', ' ')}": value for key, value in system.jetson.items()},
        "GPU": "; ".join(system.gpus),
        "system": system.os,
        "container": system.container,
        "Python": system.python,
        "libraries": ", ".join(f"{name} {version}" for name, version in system.libraries.items()),
        "peaks measured": ", ".join(
            f"{peak.arithmetic} {number(peak.gflops)} GFLOP/s"
            + (f" ({threads_cell(peak.threads)} thr.)" if peak.threads else "")
            for peak in device.peaks
        ),
        "memory bandwidth": "" if device.bandwidth_gbs is None else f"{number(device.bandwidth_gbs)} GB/s",
    }
    return [(name, value) for name, value in facts.items() if value]


def condition_facts(result: BenchmarkResult) -> list[tuple[str, str]]:
    """Return the machine's condition before and after, as far as the system reports it."""
    before, after = _condition(result.before), _condition(result.after)
    return [
        (name, f"{before.get(name, NOT_KNOWN)} before, {after.get(name, NOT_KNOWN)} after")
        for name in dict.fromkeys((*before, *after))
    ]


def protocol_facts(result: BenchmarkResult) -> list[tuple[str, str]]:
    """Return how times were taken, name by name."""
    return [(name.replace("_", " "), str(value)) for name, value in result.protocol.items()]


def _condition(condition: Condition) -> dict[str, str]:
    facts = {}
    if condition.load_1min is not None:
        facts["load"] = f"{condition.load_1min:.2f}"
    if condition.temperatures_c:
        sensor, hottest = max(condition.temperatures_c.items(), key=lambda item: item[1])
        facts["hottest sensor"] = f"{hottest:.0f} °C ({sensor})"
    if condition.frequencies_mhz:
        low, high = min(condition.frequencies_mhz), max(condition.frequencies_mhz)
        facts["core clocks"] = f"{low:.0f} to {high:.0f} MHz" if round(low) != round(high) else f"{high:.0f} MHz"
    if condition.throttle_events:
        facts["throttle events"] = f"{sum(condition.throttle_events.values()):,}"
    return facts


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{number(count / size)} {unit}"
    return f"{count} B"
