"""Which exact rewrite each bottleneck gets, and which are legal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from reid_edge.errors import ConfigError
from reid_edge.osnet.architecture import GATED, OSNetConfig
from reid_edge.osnet.network import BOTTLENECK_REDUCTION

STAGES = ("conv2", "conv3", "conv4")


@dataclass(frozen=True, kw_only=True)
class BlockRewrite:
    """What is done to one bottleneck.

    Attributes:
        merge: Level l of all streams that long becomes one convolution over concatenated channels.
        collapse: Each Lite 3x3 becomes one dense 3x3.
        batch_gates: One evaluation of the gate for all streams.
        join: 1x1 restore and 1x1 projection become one 1x1 over concatenated channels.
        pad_to: Streams' channels are padded with zeros to a multiple of this.

    Raises:
        ConfigError: ``pad_to`` less than 1.
    """

    merge: bool = False
    collapse: bool = False
    batch_gates: bool = False
    join: bool = False
    pad_to: int = 1

    def __post_init__(self) -> None:
        if self.pad_to < 1:
            raise ConfigError(f"pad_to must be a number of channels, at least 1, got {self.pad_to}.")

    def names(self) -> tuple[str, ...]:
        """Short names of what is done, e.g. ``("merge", "pad_to 8")``."""
        names = [name for name in ("merge", "collapse", "batch_gates", "join") if getattr(self, name)]
        return (*names, f"pad_to {self.pad_to}") if self.pad_to > 1 else tuple(names)


@dataclass(frozen=True, kw_only=True)
class RewritePlan:
    """What is done to a network; batch norms are folded in any case.

    Attributes:
        blocks: By block name (:func:`block_names`); those left out are only folded.
        absorb_mean: Conv1 takes pixels; the mean is padding instead of subtrahend.
    """

    blocks: Mapping[str, BlockRewrite] = field(default_factory=dict)
    absorb_mean: bool = False

    def names(self) -> tuple[str, ...]:
        """What a manifest says of it: ``("fold", "collapse conv3.0", …)``."""
        blocks = [f"{name} {block}" for block, how in sorted(self.blocks.items()) for name in how.names()]
        return ("fold", *(["absorb_mean"] if self.absorb_mean else []), *blocks)


def block_names(config: OSNetConfig) -> tuple[str, ...]:
    """Names of a network's bottlenecks: ``conv2.0``, ``conv2.1``, ``conv3.0``, …."""
    return tuple(
        f"{stage}.{number}"
        for stage, count in zip(STAGES, config.variant.blocks, strict=True)
        for number in range(count)
    )


def check_plan(config: OSNetConfig, plan: RewritePlan) -> None:
    """Refuse what cannot be done.

    Raises:
        ConfigError: A block that the network does not have, or rewrites that its block does not allow.
    """
    names = block_names(config)
    for block, how in plan.blocks.items():
        if block not in names:
            raise ConfigError(f"no block {block} in this network; its blocks are {', '.join(names)}.")
        if problem := why_illegal(config, block, how):
            raise ConfigError(f"{block}: {problem}.")


def why_illegal(config: OSNetConfig, block: str, how: BlockRewrite) -> str:
    """Why a block cannot be rewritten so; "" if it can.

    Args:
        config: The network.
        block: One of :func:`block_names`.
        how: The rewrites.
    """
    variant = config.variant
    gates = variant.fusion in GATED
    channels = stream_channels(config, block)
    problems = {
        "merge: there is one stream, and nothing to merge it with": how.merge and len(variant.streams) == 1,
        "collapse: its 3x3 convolutions are dense already": how.collapse and variant.convolution == "standard",
        f"batch_gates: fusion '{variant.fusion}' leaves no gate that depends on the input": (
            how.batch_gates and not gates
        ),
        "batch_gates: there is one stream, and so one gate": (how.batch_gates and gates and len(variant.streams) == 1),
        "join: it has no 1x1 projection, its input has as many channels as its output": (
            how.join and not _projects(config, block)
        ),
        f"pad_to {how.pad_to}: its streams have {channels} channels, which is a multiple already": (
            how.pad_to > 1 and channels % how.pad_to == 0
        ),
    }
    return "; ".join(problem for problem, found in problems.items() if found)


def stream_channels(config: OSNetConfig, block: str) -> int:
    """Channels of each stream of a block."""
    stage = STAGES.index(block.partition(".")[0])
    return max(1, config.channels[stage + 1] // BOTTLENECK_REDUCTION)


def _projects(config: OSNetConfig, block: str) -> bool:
    stage, _, number = block.partition(".")
    before, after = config.channels[STAGES.index(stage) :][:2]
    return number == "0" and before != after
