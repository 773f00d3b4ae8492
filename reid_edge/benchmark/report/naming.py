"""Names that tell devices and models apart: bundles are called after their folders, which may share a name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import replace
from itertools import count

from reid_edge.benchmark.result import BenchmarkResult, ModelEntry
from reid_edge.system.device import Device

SHORT_HASH = 8


def named_apart(results: Sequence[BenchmarkResult]) -> list[BenchmarkResult]:
    """The same results, the start of the model hash added to every name that models of different hashes share."""
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
    """Short and different: the name, the limits that were set, and where that is not enough CPUs and a number."""
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
