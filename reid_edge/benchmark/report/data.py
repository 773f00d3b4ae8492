"""The runs of several results, gathered by device, query and variant: what the page and the tables show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from itertools import count

from reid_edge.benchmark.result import SCENARIOS, BenchmarkResult, ModelEntry, Peak, Run, Scenario
from reid_edge.errors import InputError
from reid_edge.manifest import ENGINES, PRECISIONS
from reid_edge.system.device import Device
from reid_edge.wording import counted

SHORT_HASH = 8


@dataclass(frozen=True, order=True)
class Query:
    """A scenario and its number of crops; sorted in the order of the scenarios."""

    rank: int
    crops: int

    @property
    def scenario(self) -> Scenario:
        """See :data:`reid_edge.benchmark.result.Scenario`."""
        return SCENARIOS[self.rank]

    def __str__(self) -> str:
        plural = "crop" if self.crops == 1 else "crops"
        return {
            "single-stream": f"single-stream, {self.crops} {plural}",
            "multi-stream": f"multi-stream, {self.crops} {plural}",
            "offline": f"offline, batch {self.crops}",
            "end-to-end": f"end-to-end, {self.crops} {plural} of a frame",
        }[self.scenario]


@dataclass(frozen=True)
class Accuracy:
    """mAP in percent on a dataset; ``measured``: of the variant itself, else it is the checkpoint's."""

    dataset: str
    mean_ap: float
    measured: bool


@dataclass(frozen=True)
class Entry:
    """One run with the model that it ran."""

    model: ModelEntry
    run: Run

    @property
    def variant(self) -> str:
        """The file that ran, ``engine/precision``."""
        return f"{self.run.engine}/{self.run.precision}"

    @property
    def query(self) -> Query:
        """The scenario and number of crops."""
        return Query(SCENARIOS.index(self.run.scenario), self.run.crops)

    @property
    def noisy(self) -> bool:
        """Whether the median is unreliable."""
        return self.run.summary.verdict == "noisy"

    @property
    def mult_adds(self) -> int:
        """Mult-adds of this variant for one crop."""
        return self.model.form_mult_adds.get(self.variant, self.model.mult_adds)

    @property
    def intensity(self) -> float:
        """Operations per byte of compulsory memory traffic: the model's files once a query, each crop once.

        Layers' outputs are left out, as if every one fitted the caches, so the true number is at most this (Williams,
        Waterman and Patterson, "Roofline", CACM 2009).
        """
        crop_bytes = 3 * self.model.size[0] * self.model.size[1]
        return 2 * self.mult_adds * self.run.crops / (self.run.size_bytes + crop_bytes * self.run.crops)

    def accuracies(self) -> list[Accuracy]:
        """Return an mAP for each dataset: the variant's own where it was measured, else the checkpoint's.

        The checkpoint's holds for float variants only, whose features export compares with the checkpoint's.
        """
        found: dict[str, Accuracy] = {}
        for key, value in self.model.accuracy.items():
            dataset, *_, metric = parts = key.split("/")
            measured = "/".join(parts[-3:-1]) == self.variant
            own = not any(engine in parts for engine in ENGINES) and self.run.precision in ("fp32", "fp16")
            if metric == "mAP" and (measured or (own and dataset not in found)):
                found[dataset] = Accuracy(dataset, value, measured)
        return list(found.values())

    def accuracy(self, dataset: str) -> Accuracy | None:
        """Return the mAP on a dataset; None where it is unknown."""
        return next((accuracy for accuracy in self.accuracies() if accuracy.dataset == dataset), None)


@dataclass(frozen=True)
class DeviceResults:
    """One device with all of its results."""

    label: str
    results: tuple[BenchmarkResult, ...]
    entries: tuple[Entry, ...]

    @property
    def system(self) -> Device:
        """The device, the same in every result."""
        return self.results[0].device

    @property
    def peaks(self) -> list[Peak]:
        """The highest of each arithmetic and number of threads, over all results."""
        peaks = [peak for result in self.results if result.roofline for peak in result.roofline.peaks]
        best: dict[tuple[str, int | None], Peak] = {}
        for peak in sorted(peaks, key=lambda peak: peak.gflops):
            best[peak.arithmetic, peak.threads] = peak
        return sorted(best.values(), key=lambda peak: peak.gflops)

    @property
    def bandwidth_gbs(self) -> float | None:
        """The highest, 10⁹ bytes a second."""
        return max((result.roofline.bandwidth_gbs for result in self.results if result.roofline), default=None)

    def entries_of(self, query: Query) -> list[Entry]:
        """Return the runs of one query."""
        return [entry for entry in self.entries if entry.query == query]


@dataclass(frozen=True)
class ReportData:
    """All that a report shows."""

    devices: tuple[DeviceResults, ...]

    @property
    def entries(self) -> list[Entry]:
        """Runs of all devices, device by device."""
        return [entry for device in self.devices for entry in device.entries]

    @property
    def queries(self) -> list[Query]:
        """All queries, in the order of the scenarios."""
        return sorted({entry.query for entry in self.entries})

    @property
    def variants(self) -> list[str]:
        """All variants, ``engine/precision``, in a fixed order."""
        known = [f"{engine}/{precision}" for engine in ENGINES for precision in PRECISIONS]
        held = {entry.variant for entry in self.entries}
        return [variant for variant in known if variant in held]

    @property
    def datasets(self) -> list[str]:
        """Datasets with an mAP, by name."""
        return sorted({accuracy.dataset for entry in self.entries for accuracy in entry.accuracies()})


def gather(results: Sequence[BenchmarkResult]) -> ReportData:
    """Gather results by device, in the order given.

    Results of the same device are joined, so that a grid and a bundle timed on another day make one device.  Different
    models of the same name get their hash added to it.

    Raises:
        InputError: Two results hold the same run of the same device, so that one of them would have to be left out.
    """
    by_device: dict[str, list[BenchmarkResult]] = {}
    for result in named_apart(results):
        by_device.setdefault(_identity(result.device), []).append(result)
    labels = device_labels([group[0].device for group in by_device.values()])
    return ReportData(tuple(_device(label, group) for label, group in zip(labels, by_device.values(), strict=True)))


def models_of(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Return runs by model name, wide and large models first."""
    ordered = sorted(entries, key=lambda entry: (-entry.model.mult_adds, entry.model.name, entry.model.model_hash))
    by_name: dict[str, list[Entry]] = {}
    for entry in ordered:
        by_name.setdefault(entry.model.name, []).append(entry)
    return by_name


def _identity(device: Device) -> str:
    """Return a key that is the same for results of one device; libraries and operating system may differ."""
    return repr(
        (
            device.name,
            device.cpu,
            device.instruction_sets,
            device.isa_limit,
            device.cpus,
            device.governor,
            device.gpus,
            sorted(device.jetson.items()),
        )
    )


def _device(label: str, results: Sequence[BenchmarkResult]) -> DeviceResults:
    entries: list[Entry] = []
    first: dict[tuple[object, ...], BenchmarkResult] = {}
    for result in results:
        for run in result.runs:
            entry = Entry(result.models[run.model], run)
            key = (entry.model.name, entry.model.model_hash, entry.variant, run.execution, entry.query, run.threads)
            if key in first:
                raise InputError(_twice(label, entry, first[key], result))
            first[key] = result
            entries.append(entry)
    return DeviceResults(label, tuple(results), tuple(entries))


def _twice(label: str, entry: Entry, one: BenchmarkResult, other: BenchmarkResult) -> str:
    run = f"{entry.variant}, {entry.query}, {threads_text(entry.run.threads)}"
    if one is other:
        return (
            f"the result of {label}, made {one.created}, lists the model {entry.model.name} "
            f"(hash {entry.model.model_hash[:SHORT_HASH]}) more than once, with the same run: {run}. "
            "Benchmark that bundle once, or give its copy's folder another name."
        )
    return (
        f"two results of the same device, {label} (made {one.created} and {other.created}), hold the same run: "
        f"{entry.model.name}, {run}. Leave one of the files out."
    )


def threads_text(threads: int | None) -> str:
    """Return e.g. ``2 threads``, or that the engine chose."""
    if threads is None:
        return "threads: engine's choice"
    return counted(threads, "thread")


def named_apart(results: Sequence[BenchmarkResult]) -> list[BenchmarkResult]:
    """Return the results with the start of the model hash added to every name that different models share."""
    hashes: dict[str, set[str]] = {}
    for result in results:
        for model in result.models:
            hashes.setdefault(model.name, set()).add(model.model_hash)
    return [
        replace(result, models=tuple(_named(model, hashes[model.name]) for model in result.models))
        for result in results
    ]


def _named(model: ModelEntry, hashes: Set[str]) -> ModelEntry:
    if len(hashes) == 1:
        return model
    length = next(digits for digits in count(SHORT_HASH) if len({one[:digits] for one in hashes}) == len(hashes))
    return replace(model, name=f"{model.name} ({model.model_hash[:length]})")


def device_labels(devices: Sequence[Device]) -> list[str]:
    """Return short labels, all different: name and limits, and where these are the same CPUs and a number."""
    labels = [_device_name(device) for device in devices]
    clashing = Counter(labels)
    labels = [
        f"{label}, {device.cpus} CPUs" + (f", {device.governor}" if device.governor else "")
        if clashing[label] > 1
        else label
        for label, device in zip(labels, devices, strict=True)
    ]
    counted = Counter(labels)
    seen: Counter[str] = Counter()
    for position, label in enumerate(labels):
        seen[label] += 1
        if counted[label] > 1:
            labels[position] = f"{label} ({seen[label]})"
    return labels


def _device_name(device: Device) -> str:
    mode = device.jetson.get("power mode", "")
    limits = [f"limited to {device.isa_limit}" if device.isa_limit else "", mode if mode not in device.name else ""]
    return ", ".join([device.name, *filter(None, limits)])
