"""Exact algebra on a trained network: the same function, computed another way.

Each rewrite returns a new network and leaves the given one as it was.  All assume evaluation mode.
"""

from __future__ import annotations

from reid_edge.errors import ConfigError
from reid_edge.osnet.network import Bottleneck, OSNet
from reid_edge.osnet.rewrites.block import rewritten
from reid_edge.osnet.rewrites.folding import fold
from reid_edge.osnet.rewrites.plan import BlockRewrite, RewritePlan, block_names, check_plan, why_illegal
from reid_edge.osnet.rewrites.stem import absorb_mean, fold_scale

__all__ = [
    "BlockRewrite",
    "RewritePlan",
    "absorb_mean",
    "block_names",
    "fold",
    "fold_scale",
    "rewrite",
    "why_illegal",
]


def rewrite(network: OSNet, plan: RewritePlan) -> OSNet:
    """Fold a network, then rewrite its blocks.

    Args:
        network: As trained, or folded.
        plan: What is done to which block.  ``absorb_mean`` is only noted (:attr:`OSNet.absorb_mean`), since it changes
            what the network takes: :class:`reid_edge.export.onnx.Deployable` does it.

    Returns:
        A new network in evaluation mode, with the same features.

    Raises:
        ConfigError: A rewrite that a block does not allow; says why.
    """
    check_plan(network.config, plan)
    folded = fold(network)
    for name, how in plan.blocks.items():
        stage, _, number = name.partition(".")
        blocks = getattr(folded, stage)
        block = blocks[int(number)]
        if not isinstance(block, Bottleneck):
            raise ConfigError(f"{name} has been rewritten already; rewrite the network that the checkpoint gives.")
        blocks[int(number)] = rewritten(block, how)
    folded.absorb_mean = plan.absorb_mean
    return folded.eval()
