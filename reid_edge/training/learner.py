"""What learns: a network with the classifier that training mounts on it, and a run's starting weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reid_edge.errors import CheckpointMismatchError
from reid_edge.osnet.architecture import NetworkVariant, OSNetConfig
from reid_edge.osnet.checkpoint import Checkpoint, CheckpointInfo, check_state, check_values
from reid_edge.osnet.network import OSNet
from reid_edge.training.config import ModelConfig, TrainConfig
from reid_edge.training.losses import at_least_float32
from reid_edge.training.randomness import Use, generator


class Learner(nn.Module):
    """OSNet and a linear classifier on its feature (section 4.1).

    The classifier starts as the network's own linear layer does: weights of standard deviation 0.01, biases 0.

    Attributes:
        network: The feature extractor: what is kept at the end.
        head: 512 → C: identities, categories or attributes.
    """

    def __init__(self, config: OSNetConfig, classes: int) -> None:
        super().__init__()
        self.network = OSNet(config)
        self.head = nn.Linear(config.feature_dim, classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits.

        Args:
            images: N×3×H×W, RGB, normalised.

        Returns:
            Features N×512 and logits N×C, both in float32 also under autocast: the classifier is a sliver of the work
            and its rounding would go straight into the loss.
        """
        features = at_least_float32(self.network(images))
        with torch.autocast(images.device.type, enabled=False):
            return features, self.head(features)


def make_learners(config: TrainConfig, classes: int, start: Checkpoint | None) -> nn.ModuleList:
    """The run's learners, on the CPU, in training mode.

    Weights are a function of ``config.run.seed`` and the network's number alone, whatever random numbers the
    process has drawn before; PyTorch's global generator is left as it was.  From a checkpoint all networks start with
    the same feature extractor and differ in their classifiers.

    Args:
        config: How many, and of what width, variant and size.
        classes: Outputs of the classifier.
        start: Weights to start from; its classifier, if any, is not used.

    Raises:
        CheckpointMismatchError: ``start`` has another width or variant, or its weights do not fit or are not finite.
    """
    if start is not None:
        _check_start(config.model, start.info)
    seeds = [generator(config.run.seed, Use.WEIGHTS, number).integers(2**63) for number in range(config.networks)]
    return nn.ModuleList(_make(config.model, classes, start, int(seed)) for seed in seeds)


def _make(model: ModelConfig, classes: int, start: Checkpoint | None, seed: int) -> Learner:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        learner = Learner(OSNetConfig(width=model.width, size=model.size, variant=model.variant), classes)
    if start is not None:
        check_state(start.state, learner.network.state_dict(), what="checkpoint to start from")
        check_values(start.state, what="checkpoint to start from")
        learner.network.load_state_dict(start.state)
    return learner


def _check_start(model: ModelConfig, info: CheckpointInfo) -> None:
    if info.width != model.width:
        raise CheckpointMismatchError(
            f"the run's network has width {model.width}, but the checkpoint to start from has width {info.width}; "
            f"use --width {info.width}, or another --start."
        )
    if info.variant != model.variant:
        raise CheckpointMismatchError(
            f"the run's network is {_named(model.variant)}, but the checkpoint to start from is "
            f"{_named(info.variant)}; set model.variant as the checkpoint has it, or use another --start."
        )


def _named(variant: NetworkVariant) -> str:
    return f"the variant {variant}" if str(variant) else "the paper's primary model"
