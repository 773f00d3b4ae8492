"""Teachers: frozen networks or their features; find them, and check that they can teach this run."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from reid_edge.errors import CheckpointError, CheckpointMismatchError, ResumeError, SettingsError
from reid_edge.osnet.architecture import OSNetConfig
from reid_edge.osnet.checkpoint import Checkpoint, CheckpointInfo
from reid_edge.osnet.shipped import find_checkpoint
from reid_edge.training.feature_table import read_table
from reid_edge.training.folder import RunFolder
from reid_edge.training.model import ReIDModel, classifier_of
from reid_edge.training.resolve import from_tables
from reid_edge.training.settings import TrainSettings
from reid_edge.training.state import load_state
from reid_edge.training.task import TrainingData
from reid_edge.types import PerChannel


@dataclass(frozen=True, kw_only=True, eq=False)
class TableTeacher:
    """Features of the training images, which any network has computed.

    Attributes:
        path: The file.
        sha256: Hash of the features, in the order of the training images.
        features: N×D float32.
    """

    path: Path
    sha256: str
    features: Tensor

    @property
    def feature_size(self) -> int:
        """Length D of a feature."""
        return self.features.shape[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkTeacher:
    """A frozen network.

    Attributes:
        path: Its file, or the folder of its run.
        info: Description of its checkpoint: input size and normalisation among others.
        sha256: Hash of its weights.
        network: The feature extractor, in evaluation mode.
        classifier: Its classifier of this run's classes, 512 → C; None if it has none of them.
    """

    path: Path
    info: CheckpointInfo
    sha256: str
    network: nn.Module
    classifier: nn.Module | None

    @property
    def feature_size(self) -> int:
        """Length of a feature: that of every OSNet."""
        return OSNetConfig.feature_dim


Teacher = NetworkTeacher | TableTeacher


def load_teachers(
    settings: TrainSettings,
    training_data: TrainingData,
    out: Path,
    start: Checkpoint | None,
    say: Callable[[str], object] = lambda _line: None,
) -> tuple[Teacher, ...]:
    """Load a run's teachers.

    Args:
        settings: The run's settings.
        training_data: The run's images, whose classes a teacher of predictions must have.
        out: The run's folder, in which no teacher may lie.
        start: Checkpoint that the run starts from, which cannot teach it.
        say: Called with a line where weights are found at an unusual place of a file.

    Raises:
        SettingsError: A teacher lies in the run's own folder, or is the checkpoint that the run starts from, or is
            given twice; or predictions are to be taught by one that has no classifier of the same classes.
        CheckpointError: A file is no checkpoint of an OSNet with features of 512 numbers.
        DatasetError: A file of features is damaged, or does not have those of all training images.
        ResumeError: The folder of a run has no state.
    """
    teachers: list[Teacher] = []
    for path in settings.distill.teachers:
        _refuse_own_folder(path, out)
        if path.suffix == ".npy":
            teachers.append(_table(path, settings, training_data))
        else:
            teachers.append(_network(path, settings, training_data, start, say))
    hashes = [teacher.sha256 for teacher in teachers]
    if twice := {one for one in hashes if hashes.count(one) > 1}:
        same = " and ".join(str(teacher.path) for teacher in teachers if teacher.sha256 in twice)
        raise SettingsError(f"distill.teachers: {same} have the same weights; give each teacher once.")
    return tuple(teachers)


def _refuse_own_folder(path: Path, out: Path) -> None:
    if out.absolute().resolve() in (path.absolute().resolve(), *path.absolute().resolve().parents):
        raise SettingsError(
            f"distill.teachers: {path} lies in the folder of this run, {out}: a network cannot teach itself. Give "
            "another --out, or another teacher."
        )


def _table(path: Path, settings: TrainSettings, training_data: TrainingData) -> TableTeacher:
    features = torch.from_numpy(read_table(path, training_data.images))
    teacher = TableTeacher(path=path, sha256=hashlib.sha256(features.numpy().tobytes()).hexdigest(), features=features)
    distill = settings.distill
    if distill.view == "same":
        raise SettingsError(
            f"distill.view is 'same', but {path} has features only, and no network that could look at augmented "
            "images; use --set distill.view=clean."
        )
    if distill.logits:
        raise SettingsError(f"distill.logits: {path} has features and no predictions; use --set distill.logits=0.")
    return teacher


def _network(
    path: Path,
    settings: TrainSettings,
    training_data: TrainingData,
    start: Checkpoint | None,
    say: Callable[[str], object],
) -> NetworkTeacher:
    checkpoint, classifier = (_of_run if path.is_dir() else _of_file)(path, training_data, say)
    network = checkpoint.network().requires_grad_(requires_grad=False)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # half the time on a CPU
    if classifier is not None:
        classifier.eval().requires_grad_(requires_grad=False)
    teacher = NetworkTeacher(
        path=path, info=checkpoint.info, sha256=checkpoint.sha256, network=network, classifier=classifier
    )
    _check(teacher, settings, start)
    return teacher


def _of_file(
    path: Path, training_data: TrainingData, say: Callable[[str], object]
) -> tuple[Checkpoint, nn.Module | None]:
    if not path.exists():
        raise CheckpointError(f"distill.teachers: there is no {path}; give a checkpoint, or the folder of a run.")
    checkpoint = find_checkpoint(path, None, say)
    head = checkpoint.head
    known = head is not None and bool(training_data.names) and head.names == training_data.names
    return checkpoint, classifier_of(head) if known and head is not None else None


def _of_run(
    path: Path, training_data: TrainingData, _say: Callable[[str], object]
) -> tuple[Checkpoint, nn.Module | None]:
    """Take the averaged weights of a finished run, or else its last ones, with its classifier."""
    state = load_state(RunFolder(path).state)
    if not state.progress.finished:
        raise SettingsError(
            f"distill.teachers: the run in {path} is not finished; continue it with reid-edge train --resume {path}, "
            "or give one of its checkpoints as a file."
        )
    settings = from_tables(state.settings, origin=str(RunFolder(path).state))
    info = CheckpointInfo(
        width=settings.model.width, variant=settings.model.variant, size=settings.model.size,
        mean=state.mean, std=state.std,
    )  # fmt: skip
    try:
        held = {
            name.partition(".")[2]: tensor
            for name, tensor in (state.stepper["average"] or state.stepper["learners"]).items()
            if name.startswith("0.") and not name.startswith("0.projections.")
        }
        model = ReIDModel(info.config, len(held["head.bias"]), neck=settings.model.neck)
        model.load_state_dict(held)
    except (KeyError, AttributeError, TypeError, RuntimeError) as error:
        raise ResumeError(
            f"{RunFolder(path).state} does not fit its own settings ({error}); give the run's best.safetensors instead."
        ) from error
    same = state.data == training_data.fingerprint
    return Checkpoint(info, dict(model.network.state_dict())), model.classifier() if same else None


def _check(teacher: NetworkTeacher, settings: TrainSettings, start: Checkpoint | None) -> None:
    if start is not None and start.sha256 == teacher.sha256:
        raise SettingsError(
            f"distill.teachers: {teacher.path} has the weights that the run starts from ({settings.model.start}): a "
            "network learns nothing from itself. Give a larger or better teacher."
        )
    if settings.distill.logits and teacher.classifier is None:
        raise SettingsError(
            f"distill.logits: {teacher.path} has no classifier of these classes. Give the folder of a finished run "
            "with the same training and held-out images, or teach features only: --set distill.logits=0."
        )


def check_normalisation(teachers: Sequence[Teacher], mean: PerChannel, std: PerChannel) -> None:
    """Check that teachers can take the same images as the network that learns.

    Raises:
        CheckpointMismatchError: A teacher normalises its input otherwise.
    """
    for teacher in teachers:
        if isinstance(teacher, NetworkTeacher) and (teacher.info.mean, teacher.info.std) != (mean, std):
            raise CheckpointMismatchError(
                f"distill.view is 'same', but {teacher.path} normalises its input by mean {teacher.info.mean} and std "
                f"{teacher.info.std}, and this run by {mean} and {std}; use --set distill.view=clean, where each "
                "teacher has its own."
            )


def check_same_teachers(known: Sequence[str], teachers: Sequence[Teacher]) -> None:
    """Check that a resumed run has the teachers that it began with.

    Raises:
        ResumeError: Their weights are others, or their order is.
    """
    given = {teacher.sha256: teacher for teacher in teachers}
    if tuple(known) != tuple(given) and sorted(known) == sorted(given):
        order = " ".join(f"--teacher {shlex.quote(str(given[one].path))}" for one in known)
        raise ResumeError(f"the teachers are those that the run began with, in another order; give them as: {order}")
    if tuple(known) != tuple(given):
        raise ResumeError(
            f"the teachers are not those that the run began with: their weights had the hashes "
            f"{', '.join(one[:12] for one in known) or 'none'}. Put the files back, or start a new run with --out."
        )
