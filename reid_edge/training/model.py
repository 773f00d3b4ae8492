"""The model that training optimises: made from a seed or a checkpoint, and written as a checkpoint."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from reid_edge.datasets.combined import described_as_combined
from reid_edge.datasets.loading import has_random_splits
from reid_edge.datasets.random_splits import described
from reid_edge.errors import CheckpointMismatchError
from reid_edge.osnet.architecture import NetworkVariant, OSNetConfig
from reid_edge.osnet.checkpoint import Checkpoint, CheckpointInfo, Head, check_state, check_values, tool_versions
from reid_edge.osnet.network import OSNet
from reid_edge.settings import Tables
from reid_edge.training.losses import at_least_float32
from reid_edge.training.resolve import to_tables
from reid_edge.training.sampling import Use, generator
from reid_edge.training.settings import ModelSettings, TrainSettings
from reid_edge.types import PerChannel
from reid_edge.wording import counted


class Output(NamedTuple):
    """What a model makes of N images, in float32 also under autocast.

    Attributes:
        features: N×512.
        logits: N×C.
        projected: N×D for each teacher, to be compared with its features.
    """

    features: Tensor
    logits: Tensor
    projected: tuple[Tensor, ...] = ()


class ReIDModel(nn.Module):
    """OSNet and a linear classifier on its feature (section 4.1).

    The classifier starts as the network's own linear layer does: weights of standard deviation 0.01, biases 0.

    Attributes:
        network: The feature extractor, which goes into checkpoints.
        neck: Batch norm of the features that the classifier takes, or nothing.
        head: Linear classifier, 512 → C identities, categories or attributes.
        projections: For each teacher of features a linear layer without bias, 512 → D: what the network knows of the
            teacher's feature (Romero et al., "FitNets", ICLR 2015, section 2.2, has such a regressor).

    Args:
        config: Configuration of the network.
        classes: C.
        neck: Put a batch norm without shift in front of a classifier whose bias stays 0 (BNNeck; Luo et al., "Bag of
            tricks and a strong baseline for deep person re-identification", CVPRW 2019).
        taught: D of each teacher of features.
    """

    def __init__(self, config: OSNetConfig, classes: int, *, neck: bool = False, taught: Sequence[int] = ()) -> None:
        super().__init__()
        self.network = OSNet(config)
        self.neck = _neck(config.feature_dim) if neck else nn.Identity()
        self.head = nn.Linear(config.feature_dim, classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.head.bias.requires_grad = not neck
        self.projections = nn.ModuleList(nn.Linear(config.feature_dim, size, bias=False) for size in taught)

    def forward(self, images: Tensor) -> Output:
        """Compute features, logits and projections.

        Args:
            images: N×3×H×W float, RGB, normalised.

        Returns:
            All in float32 also under autocast: the classifier is a small part of the work, and its rounding would go
            straight into the loss.
        """
        features = at_least_float32(self.network(images))
        with torch.autocast(images.device.type, enabled=False):
            projected = tuple(projection(features) for projection in self.projections)
            return Output(features, self.head(self.neck(features)), projected)

    def classifier(self) -> nn.Linear:
        """Return neck and head as one linear layer, a copy: what the classifier computes in evaluation mode."""
        joined = copy.deepcopy(self.head)
        if isinstance(self.neck, nn.BatchNorm1d):
            assert self.neck.running_mean is not None
            assert self.neck.running_var is not None
            with torch.no_grad():
                scale = self.neck.weight / torch.sqrt(self.neck.running_var + self.neck.eps)
                joined.bias.add_(joined.weight @ (self.neck.bias - scale * self.neck.running_mean))
                joined.weight.mul_(scale)
        return joined


def _neck(features: int) -> nn.BatchNorm1d:
    neck = nn.BatchNorm1d(features)
    neck.bias.requires_grad = False
    return neck


def classifier_of(head: Head) -> nn.Linear:
    """Return a checkpoint's classifier as a layer, 512 → C."""
    layer = nn.Linear(head.weight.shape[1], len(head.names))
    with torch.no_grad():
        layer.weight.copy_(head.weight)
        layer.bias.copy_(head.bias)
    return layer


def make_models(
    settings: TrainSettings, classes: int, start: Checkpoint | None, taught: Sequence[int] = ()
) -> nn.ModuleList:
    """Make the run's models, on the CPU, in training mode.

    Weights are a function of ``settings.run.seed`` and the network's number alone, whatever random numbers the
    process has drawn before; PyTorch's global generator is not changed.  From a checkpoint all networks start with
    the same feature extractor and differ in their classifiers.

    Args:
        settings: The run's settings: number of networks, their width, variant and size.
        classes: Number of the classifier's outputs.
        start: Checkpoint to start from; its classifier, if any, is not used.
        taught: Length of each teacher's feature, if these are taught.

    Raises:
        CheckpointMismatchError: ``start`` has another width or variant, or its weights do not fit or are not finite.
    """
    if start is not None:
        _check_start(settings.model, start.info)
    seeds = [generator(settings.run.seed, Use.WEIGHTS, number).integers(2**63) for number in range(settings.networks)]
    return nn.ModuleList(_make(settings.model, classes, start, int(seed), taught) for seed in seeds)


def _make(
    settings: ModelSettings, classes: int, start: Checkpoint | None, seed: int, taught: Sequence[int]
) -> ReIDModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = OSNetConfig(width=settings.width, size=settings.size, variant=settings.variant)
        model = ReIDModel(config, classes, neck=settings.neck, taught=taught)
    if start is not None:
        check_state(start.state, model.network.state_dict(), what="checkpoint to start from")
        check_values(start.state, what="checkpoint to start from")
        model.network.load_state_dict(start.state)
    return model


def _check_start(settings: ModelSettings, info: CheckpointInfo) -> None:
    if info.width != settings.width:
        raise CheckpointMismatchError(
            f"the run's network has width {settings.width}, but the checkpoint to start from has width {info.width}; "
            f"use --width {info.width}, or another --start."
        )
    wanted = info.variant.with_pools_of(settings.variant)
    if wanted != settings.variant:
        raise CheckpointMismatchError(
            f"the run's network is {_named(settings.variant)}, but the checkpoint to start from is "
            f"{_named(info.variant)}; use {variant_options(settings.variant, wanted)}, or another --start."
        )


def variant_options(ours: NetworkVariant, wanted: NetworkVariant) -> str:
    """Return the options of ``reid-edge train`` that turn one variant into another."""
    changed = [one.name for one in fields(wanted) if getattr(ours, one.name) != getattr(wanted, one.name)]
    return " ".join(f"--set model.variant.{name}={json.dumps(getattr(wanted, name))}" for name in changed)


def _named(variant: NetworkVariant) -> str:
    return f"the variant {variant}" if str(variant) else "the paper's primary model"


class CheckpointMaker:
    """Makes checkpoints of models.

    Args:
        settings: The run's settings, which go into every checkpoint.
        names: Names of categories or attributes, stored with the classifier.
        mean: Mean that the input is normalised with, RGB, full scale = 1.
        std: Standard deviation that it is normalised with, likewise.
        teachers: Hashes of the teachers' weights.
    """

    def __init__(
        self,
        settings: TrainSettings,
        names: tuple[str, ...],
        mean: PerChannel,
        std: PerChannel,
        *,
        teachers: tuple[str, ...] = (),
    ) -> None:
        self._settings, self._names, self._mean, self._std = settings, names, mean, std
        self._teachers = teachers
        self._commit = code_commit()

    def checkpoint(self, model: nn.Module, figures: dict[str, float], *, steps: int) -> Checkpoint:
        """Make a model's checkpoint, with its figures on held-out images, after a number of steps."""
        assert isinstance(model, ReIDModel)
        settings = self._settings
        info = CheckpointInfo(
            width=settings.model.width,
            variant=settings.model.variant,
            size=settings.model.size,
            mean=self._mean,
            std=self._std,
            dataset=_trained_on(settings),
            recipe=settings.recipe,
            metrics={f"{settings.data.dataset}-heldout/{name}": value for name, value in figures.items()},
            tools=tool_versions(),
            code_commit=self._commit,
            training=_shareable(settings) | {"done": {"steps": steps, "teachers": list(self._teachers)}},
        )
        state = {name: tensor.detach().cpu().clone() for name, tensor in model.network.state_dict().items()}
        return Checkpoint(info, state, self._head(model))

    def _head(self, model: ReIDModel) -> Head | None:
        if self._settings.task == "identity":
            return None
        layer = model.classifier().cpu()
        weight, bias = layer.weight.detach(), layer.bias.detach()
        return Head(names=self._names, weight=weight, bias=bias, kind=self._settings.task)


def _trained_on(settings: TrainSettings) -> str:
    data = settings.data
    if settings.task == "identity" and data.combineall:
        name = described_as_combined(data.dataset)
    elif settings.task == "identity" and has_random_splits(data.dataset):
        return described(data.dataset, data.split)
    else:
        name = data.dataset
    return name + (f", {counted(data.identities, 'identity', 'identities')}" if data.identities else "")


def _shareable(settings: TrainSettings) -> Tables:
    """Return the settings as tables for a file that others get: of each path only the last part."""
    tables = to_tables(settings)
    tables["data"]["root"] = settings.data.root.name
    tables["distill"]["teachers"] = [path.name for path in settings.distill.teachers]
    if settings.model.start is not None:
        tables["model"]["start"] = settings.model.start.name
    return tables


def code_commit() -> str:
    """Return the commit of the running code, with ``+`` if files differ from it; ``unknown`` outside its repository."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + "+" * bool(_git("status", "--porcelain", "--untracked-files=no", "--", "."))
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(*arguments: str) -> str:
    package = Path(__file__).parents[1]
    done = subprocess.run(
        ["git", "-C", str(package), *arguments],  # noqa: S607 - whichever git this user has
        capture_output=True, check=True, text=True, timeout=10,
    )  # fmt: skip
    return done.stdout.strip()
