"""Which forms are worth trying: options by block, then the best of each put together.

A block's options differ in their exact rewrite and in what of it is INT8.  Every option is built once for *all* blocks
(a probe), and the engine's profile of that one file says what the option costs in each block.  Times of blocks add up
to the whole but for reorders between blocks of different kinds, so sums only choose what is timed in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from reid_edge.osnet.architecture import OSNetConfig
from reid_edge.osnet.rewrites import BlockRewrite, block_names, why_illegal
from reid_edge.tune.forms import PLAIN, Form, ends_of, make_form, parts_of, places

REWRITES: dict[str, BlockRewrite] = {
    "plain": PLAIN,
    "merge": BlockRewrite(merge=True),
    "collapse": BlockRewrite(collapse=True),
    "merge+collapse": BlockRewrite(merge=True, collapse=True),
    "batch_gates": BlockRewrite(batch_gates=True),
    "join": BlockRewrite(join=True),
    "pad_to 16": BlockRewrite(pad_to=16),
}
#: Exchange a block's kind for another only where that promises at least this share of the block's time: a change of
#: kind may cost a reorder that no profile of a uniform form shows.
WORTHWHILE = 0.03


@dataclass(frozen=True)
class Probe:
    """One option everywhere that it is legal."""

    name: str
    form: Form
    #: Rewrite and INT8 parts of each place that the option is about.
    options: Mapping[str, tuple[BlockRewrite, tuple[str, ...]]]


def probes(config: OSNetConfig, *, int8: bool) -> list[Probe]:
    """Every option, plain float first, then plain INT8.

    Args:
        config: The network.
        int8: Whether INT8 is among them.
    """
    levels: dict[str, Callable[[str], tuple[str, ...]]] = {"float": lambda _place: ()}
    if int8:
        levels |= {"int8": parts_of, "int8 ends": _int8_but_streams}
    found = [
        probe
        for level, chosen in levels.items()
        for name, rewrite in REWRITES.items()
        if (level != "int8 ends" or name in ("plain", "merge"))
        and (probe := _probe(config, name, rewrite, level, chosen))
    ]
    return sorted(found, key=lambda probe: not probe.name.startswith("plain"))


def absorbing(config: OSNetConfig, form: Form) -> Form:
    """A form with the mean absorbed into conv1's padding."""
    return make_form(dict(form.blocks), int8=form.int8, absorb_mean=True, config=config)


def _int8_but_streams(place: str) -> tuple[str, ...]:
    return ends_of(place) if "." in place else parts_of(place)


def _probe(
    config: OSNetConfig, name: str, rewrite: BlockRewrite, level: str, chosen: Callable[[str], tuple[str, ...]]
) -> Probe | None:
    blocks = block_names(config)
    legal = [block for block in blocks if rewrite == PLAIN or not why_illegal(config, block, rewrite)]
    if not legal:
        return None
    elsewhere = [place for place in places(config) if place not in blocks]
    options = {place: (rewrite, chosen(place)) for place in legal}
    options |= {place: (PLAIN, chosen(place)) for place in elsewhere if rewrite == PLAIN}
    int8 = [part for place in places(config) for part in chosen(place)]
    return Probe(f"{name} {level}", make_form(dict.fromkeys(legal, rewrite), int8=int8, config=config), options)


def mixtures(
    config: OSNetConfig, measured: Sequence[tuple[Probe, Mapping[str, float]]], *, most: int
) -> list[tuple[str, Form]]:
    """Forms worth timing, the most promising first.

    Args:
        config: The network.
        measured: Probes, and milliseconds by place of each.
        most: At most so many.

    Returns:
        The best option of every place; the best uniform form with only what is clearly better elsewhere; the best in
        float alone; and the best uniform ones.
    """
    by_total = sorted(measured, key=lambda pair: sum(pair[1].values()))
    in_float = [pair for pair in measured if not pair[0].form.int8] or by_total
    named = [
        ("best of each block", _best(config, measured, by_total[0], margin=0.0)),
        ("best form, blocks exchanged", _best(config, measured, by_total[0], margin=WORTHWHILE)),
        ("best in float", _best(config, in_float, in_float[0], margin=WORTHWHILE)),
        *((probe.name, probe.form) for probe, _ in by_total),
    ]
    found: dict[Form, str] = {}
    for name, form in named:
        found.setdefault(form, name)
    return [(name, form) for form, name in found.items()][:most]


def _best(
    config: OSNetConfig,
    measured: Sequence[tuple[Probe, Mapping[str, float]]],
    start: tuple[Probe, Mapping[str, float]],
    *,
    margin: float,
) -> Form:
    """Take each place's cheapest option if it saves more than a share of what the place costs in ``start``."""
    probe, costs = start
    kept = dict(start[0].form.blocks)
    blocks: dict[str, BlockRewrite] = {}
    int8: list[str] = []
    for place in places(config):
        rewrite = kept.get(place, PLAIN)
        chosen = tuple(part for part in parts_of(place) if part in probe.form.int8)
        options = [(times[place], other.options[place]) for other, times in measured if place in other.options]
        if options and place in costs:
            cheapest, option = min(options, key=lambda pair: pair[0])
            if cheapest < costs[place] * (1 - margin):
                rewrite, chosen = option
        blocks[place] = rewrite
        int8 += chosen
    return make_form(
        {place: how for place, how in blocks.items() if place in block_names(config)}, int8=int8, config=config
    )
