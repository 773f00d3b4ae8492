"""Ways to compute one network: exact rewrites by block, and what is in INT8."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reid_edge.osnet.architecture import OSNetConfig
from reid_edge.osnet.rewrites import BlockRewrite, RewritePlan, block_names
from reid_edge.tuning_record import Execution

PLAIN = BlockRewrite()
#: What lies outside the blocks and can be in INT8.
_SINGLE_PARTS = ("conv1", "transition2", "transition3", "conv5", "fc")
_STREAMS, _ENDS = "streams", "ends"


@dataclass(frozen=True)
class Form:
    """One way to compute a network, whichever engine runs it.

    Attributes:
        blocks: Rewrite of each block that has one, in the network's order.
        absorb_mean: See :class:`reid_edge.osnet.rewrites.RewritePlan`.
        int8: Parts in INT8 (:func:`parts`); none: all in float.
    """

    blocks: tuple[tuple[str, BlockRewrite], ...] = ()
    absorb_mean: bool = False
    int8: frozenset[str] = frozenset()

    @property
    def plan(self) -> RewritePlan:
        """For :func:`reid_edge.osnet.rewrites.rewrite`."""
        return RewritePlan(blocks=dict(self.blocks), absorb_mean=self.absorb_mean)

    @property
    def key(self) -> str:
        """Names files of this form."""
        text = repr((self.plan.names(), sorted(self.int8)))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Candidate:
    """A form and how it is run; ``max_batch`` is the most crops that the engine takes at once."""

    name: str
    form: Form
    execution: Execution
    max_batch: int

    @property
    def complexity(self) -> tuple[int, ...]:
        """Sorts the simpler first: float32 before other floats before INT8, then fewer rewrites, parts and settings."""
        execution = self.execution
        return (
            bool(self.form.int8),
            execution.float_type != "f32",
            len(self.form.plan.names()),
            len(self.form.int8),
            execution.streams,
            execution.threads is not None,
        )

    @property
    def key(self) -> str:
        """Names this candidate's folder and its entry in the journal."""
        text = repr((self.form.key, self.execution, self.max_batch))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def make_form(
    blocks: Mapping[str, BlockRewrite], *, int8: Iterable[str] = (), absorb_mean: bool = False, config: OSNetConfig
) -> Form:
    """A form; blocks that are left as they are, and their order, make no difference."""
    kept = tuple((name, blocks[name]) for name in block_names(config) if blocks.get(name, PLAIN) != PLAIN)
    return Form(blocks=kept, absorb_mean=absorb_mean, int8=frozenset(int8))


def parts(config: OSNetConfig) -> tuple[str, ...]:
    """What can be in INT8 or float by itself: ``conv1``, ``conv2.0 streams``, ``conv2.0 ends`` (its 1x1s), ….

    Gates are no part: they stay in float.
    """
    blocks = [f"{block} {side}" for block in block_names(config) for side in (_ENDS, _STREAMS)]
    return (*_SINGLE_PARTS, *blocks)


def parts_of(where: str) -> tuple[str, ...]:
    """Parts of a block, or of a layer outside the blocks."""
    return (where,) if where in _SINGLE_PARTS else (f"{where} {_ENDS}", f"{where} {_STREAMS}")


def ends_of(block: str) -> tuple[str, ...]:
    """Parts of a block without its streams."""
    return (f"{block} {_ENDS}",)


def places(config: OSNetConfig) -> tuple[str, ...]:
    """Blocks, and layers outside the blocks: what a profile's times are summed over."""
    return (*_SINGLE_PARTS, *block_names(config))


def node_pattern(part: str) -> str:
    """Regular expression of the names of a part's nodes, matched from the start."""
    place, _, side = part.partition(" ")
    escaped = re.escape(place)
    if side == _STREAMS:
        return rf"{escaped}\.streams.*"
    if side == _ENDS:
        return rf"{escaped}\.(reduce|restore|project|join).*"
    return rf"{escaped}[./].*"


def place_of(node: str) -> str:
    """Which block or layer a node of an engine's profile belongs to; "" for none.

    Engines put names of their own before and after the node's: the first place that is named counts.
    """
    found = re.search(r"(conv[2-4]\.\d+|conv1|transition[23]|conv5|(?<![a-z])fc)(?=[./_])", node)
    return found.group(1) if found else ""


def kept_float(form: Form, config: OSNetConfig) -> tuple[str, ...]:
    """Patterns of the nodes that quantization must leave alone."""
    return tuple(node_pattern(part) for part in parts(config) if part not in form.int8)
