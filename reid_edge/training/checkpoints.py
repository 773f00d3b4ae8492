"""The checkpoints that a run leaves."""

from __future__ import annotations

import subprocess
from pathlib import Path

from torch import nn

from reid_edge.datasets.loading import has_random_splits
from reid_edge.datasets.random_splits import described
from reid_edge.osnet.checkpoint import Checkpoint, CheckpointInfo, Head, tool_versions
from reid_edge.settings import Tables
from reid_edge.training.config import TrainConfig
from reid_edge.training.learner import Learner
from reid_edge.training.settings import to_tables

Triple = tuple[float, float, float]


class CheckpointMaker:
    """Makes checkpoints of learners.

    Args:
        config: Of the run; goes into every checkpoint.
        names: Of categories or attributes: the classifier is kept with them.
        mean: What the input is normalised with, RGB, full scale = 1.
        std: Likewise.
    """

    def __init__(self, config: TrainConfig, names: tuple[str, ...], mean: Triple, std: Triple) -> None:
        self._config, self._names, self._mean, self._std = config, names, mean, std
        self._commit = code_commit()

    def checkpoint(self, learner: nn.Module, figures: dict[str, float]) -> Checkpoint:
        """A learner's checkpoint, with the figures of the held-out images."""
        assert isinstance(learner, Learner)
        config = self._config
        info = CheckpointInfo(
            width=config.model.width,
            variant=config.model.variant,
            size=config.model.size,
            mean=self._mean,
            std=self._std,
            dataset=_trained_on(config),
            recipe=config.recipe,
            metrics={f"{config.data.dataset}-heldout/{name}": value for name, value in figures.items()},
            tools=tool_versions(),
            code_commit=self._commit,
            training=_told(config),
        )
        state = {name: tensor.detach().cpu().clone() for name, tensor in learner.network.state_dict().items()}
        return Checkpoint(info, state, self._head(learner))

    def _head(self, learner: Learner) -> Head | None:
        if self._config.task == "identity":
            return None
        weight, bias = learner.head.weight.detach().cpu().clone(), learner.head.bias.detach().cpu().clone()
        return Head(names=self._names, weight=weight, bias=bias, kind=self._config.task)


def _trained_on(config: TrainConfig) -> str:
    data = config.data
    if config.task == "identity" and has_random_splits(data.dataset):
        return described(data.dataset, data.split)
    return data.dataset + (f", {data.identities} identities" if data.identities else "")


def _told(config: TrainConfig) -> Tables:
    """The configuration as it goes into a file that others get: of paths only the last part."""
    tables = to_tables(config)
    tables["data"]["root"] = config.data.root.name
    if config.model.start is not None:
        tables["model"]["start"] = config.model.start.name
    return tables


def code_commit() -> str:
    """Commit of the code that runs, with ``+`` if files differ from it; ``unknown`` outside its repository."""
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
