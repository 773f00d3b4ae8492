"""The comparison as Markdown."""

from __future__ import annotations

from results import Comparison, Part, Run

from reid_edge.benchmark.statistics import Ratio
from reid_edge.benchmark.statistics import compare as ratio_of_rounds


def as_markdown(found: Comparison) -> str:
    """Tables: from frame to features, the network alone, agreement, and who did not take part."""
    parts = [_heading(found), _whole(found), _network(found), _agreement(found), _not_run(found)]
    return "\n".join(parts)


def _heading(found: Comparison) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in found.libraries.items())
    lines = [
        f"{found.device.name}; {found.threads} threads; {found.created[:10]}; weights {found.weights[:90]}.",
        f"{libraries}.",
        f"`{found.command}`: {found.protocol['rounds']} interleaved rounds, medians over all samples [95 % interval]; "
        "~ marks a noisy figure.",
        *found.notes,
    ]
    return "\n".join(lines) + "\n"


def _whole(found: Comparison) -> str:
    """Fastest first; each against our fastest float, and against our fastest of all."""
    runs = _by_key(found, "whole")
    names = _ordered(found, runs)
    ours = [name for name in names if name.startswith("reid-edge")]
    fp32 = next((name for name in ours if name.endswith("FP32")), names[0])
    head = ["from frame and boxes"]
    for crops in found.crops:
        head += [f"{_count(crops)}, ms", f"÷ {fp32}"]
    lines = ["## From frame and boxes to features\n", *_table_head(head)]
    for name in names:
        cells = [f"**{name}**" if name in ours else name]
        for crops in found.crops:
            cells += [_time(runs.get((name, crops))), _ratio(runs.get((name, crops)), runs.get((fp32, crops)))]
        lines.append(_row(cells))
    return "\n".join([*lines, "", *_targets(found, runs)]) + "\n"


def _targets(found: Comparison, runs: dict[tuple[str, int], Run]) -> list[str]:
    """The two that the issue set, in words and figures."""
    network = _by_key(found, "network")
    names = [name for name, crops in runs if crops == found.crops[0]]
    peers = [name for name in names if not name.startswith("reid-edge")]
    ours = [name for name in names if name.startswith("reid-edge")]
    lines = []
    for crops in found.crops:
        if peers and ours:
            peer = min(peers, key=lambda name: runs[name, crops].summary.p50)
            best = min(ours, key=lambda name: runs[name, crops].summary.p50)
            ratio = _ratio(runs[peer, crops], runs[best, crops])
            lines.append(f"* {_count(crops)}: the fastest peer ({peer}) takes {ratio} times as long as {best}.")
        for name in ours:
            for prefix in ("raw", "benchmark_app"):
                limit = network.get((f"{prefix}: {name}", crops))
                if limit:
                    over = _percent(runs[name, crops], limit)
                    lines.append(
                        f"* {_count(crops)}: {name}, from the frame, takes {over} over {prefix} on a ready batch."
                    )
    return lines


def _network(found: Comparison) -> str:
    runs = _by_key(found, "network")
    head = ["from a ready batch", *(f"{_count(crops)}, ms" for crops in found.crops)]
    lines = ["## The network alone\n", *_table_head(head)]
    rows = ([name, *(_time(runs.get((name, crops))) for crops in found.crops)] for name in _ordered(found, runs))
    lines += [_row(cells) for cells in rows]
    return "\n".join(lines) + "\n"


def _agreement(found: Comparison) -> str:
    """One line for each contender."""
    cells: dict[str, dict[str, str]] = {}
    for one in found.agreement:
        cells.setdefault(one.contender, {})[one.part] = f"{one.mean:.5f} / {one.lowest:.5f}"
    memory = {entry.contender.name: entry for entry in found.entries}
    head = [
        "features",
        "network: cosine with torch, mean / lowest",
        "whole: with torchreid",
        "load, s",
        "peak RSS, MiB",
    ]
    lines = ["## Do they compute the same features?\n", *_table_head(head)]
    for name, parts in cells.items():
        entry = memory.get(name)
        more = [f"{entry.load_s:.1f}", f"{entry.peak_rss_mb or 0:.0f}"] if entry else ["", ""]
        lines.append(_row([name, parts.get("network", ""), parts.get("whole", ""), *more]))
    if found.between_people:
        mean, highest = found.between_people
        lines.append(f"\nTwo different crops of the scene: cosine {mean:.3f} on average, {highest:.3f} at most.")
    return "\n".join(lines) + "\n"


def _not_run(found: Comparison) -> str:
    lines = [f"* {name}: {reason}" for name, reason in found.not_run.items()]
    return "\n".join(["## Not run\n", *lines]) + "\n" if lines else ""


def _by_key(found: Comparison, part: Part) -> dict[tuple[str, int], Run]:
    return {(run.contender, run.crops): run for run in found.runs if run.part == part}


def _ordered(found: Comparison, runs: dict[tuple[str, int], Run]) -> list[str]:
    """Sort names by time at the largest number of crops."""
    most = max(found.crops)
    timed = {name: run.summary.p50 for (name, crops), run in runs.items() if crops == most}
    return sorted(timed, key=lambda name: timed[name])


def _time(run: Run | None) -> str:
    if run is None:
        return "–"
    summary = run.summary
    noisy = "~" if summary.verdict == "noisy" else ""
    return f"{noisy}{summary.p50:.2f} [{summary.ci_low:.2f}, {summary.ci_high:.2f}]"


def _of_rounds(run: Run, reference: Run) -> Ratio | None:
    """Compare two runs of the same rounds; None where their numbers of rounds differ."""
    if len(run.rounds_ms) != len(reference.rounds_ms):
        return None
    return ratio_of_rounds(run.rounds_ms, reference.rounds_ms)


def _ratio(run: Run | None, reference: Run | None) -> str:
    ratio = _of_rounds(run, reference) if run and reference else None
    return f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]" if ratio else "–"


def _percent(run: Run, reference: Run) -> str:
    ratio = _of_rounds(run, reference)
    if ratio is None:
        return "–"
    value, low, high = (100 * (one - 1) for one in (ratio.value, ratio.low, ratio.high))
    return f"{value:+.1f} % [{low:+.1f}, {high:+.1f}]"


def _count(crops: int) -> str:
    return "1 crop" if crops == 1 else f"{crops} crops"


def _table_head(cells: list[str]) -> list[str]:
    return [_row(cells), "|" + "---|" * len(cells)]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
