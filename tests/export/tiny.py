"""The smallest network that exports as any other: the exporter takes seconds for every ten layers."""

import torch

from reid_edge.osnet.architecture import NetworkVariant
from reid_edge.osnet.checkpoint import Checkpoint, CheckpointInfo
from reid_edge.osnet.network import OSNet
from tests.osnet.test_network import randomised

#: One bottleneck a stage, two streams a bottleneck.
SHALLOW = NetworkVariant(blocks=(1, 1, 1), streams=(1, 2))


def tiny_checkpoint(width=0.05, size=(32, 16), variant=SHALLOW) -> Checkpoint:
    """Random weights, always the same."""
    torch.manual_seed(0)
    info = CheckpointInfo(width=width, size=size, variant=variant)
    return Checkpoint(info, randomised(OSNet(info.config)).state_dict())
