"""The saved state of a run, from which it resumes bit for bit."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from reid_edge.errors import ResumeError
from reid_edge.files import write_whole
from reid_edge.osnet.file_kinds import why_no_checkpoint
from reid_edge.settings import Tables, flattened, overridden
from reid_edge.training.resolve import differences, to_tables
from reid_edge.training.settings import TrainSettings

FORMAT_VERSION = 1
#: Settings that may change when a run goes on: they decide when to evaluate and save, and where, not what is learned.
CHANGEABLE = (
    "data.memory_gb",
    "data.root",
    "distill.teachers",
    "run.collapse_spread",
    "run.device",
    "run.evaluate_every",
    "run.graph",
    "run.save_minutes",
)


@dataclass(kw_only=True)
class Progress:
    """Progress of a run.

    Attributes:
        step: Optimisation steps done.
        seconds: Duration over all sessions, seconds.
        sums: Sums of the objective's parts in this epoch: mean × steps, by name.
        summed_steps: Number of steps in ``sums``.
        best: Highest figure of each network so far; minus infinity before the first evaluation.
        figures: Figures of each network in its best epoch, by name.
        rows: Rows of the metrics file, one an epoch.
        finished: All epochs are done.
    """

    step: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    summed_steps: int = 0
    best: list[float] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, float]] = field(default_factory=list)
    finished: bool = False


@dataclass(frozen=True, kw_only=True)
class SavedState:
    """State of a run between two steps.

    Attributes:
        settings: The run's resolved settings, as tables; stored under the key ``config``.
        data: Hash of the training and held-out images' names and labels.
        torch_version: Version of torch that began the run; another one may round differently.
        mean: Mean that the input is normalised with, RGB, full scale = 1.
        std: Standard deviation that it is normalised with, likewise.
        progress: Progress of the run.
        teachers: Hashes of the teachers' weights.
        stepper: Models, optimiser, averaged weights, sums (:meth:`reid_edge.training.step.Stepper.state_dict`).
    """

    settings: Tables
    data: str
    torch_version: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    progress: Progress
    stepper: dict[str, Any]
    teachers: tuple[str, ...] = ()


def save_state(path: Path, state: SavedState) -> None:
    """Write a state, whole or not at all.

    Raises:
        OutputError: The state cannot be written; the previous one stays.
    """
    buffer = io.BytesIO()
    stored = {**vars(state), "format": FORMAT_VERSION, "progress": vars(state.progress)}
    stored["config"] = stored.pop("settings")
    torch.save(stored, buffer)
    write_whole(path, buffer.getvalue())


def load_state(path: Path) -> SavedState:
    """Read a state; nothing in the file is run as code.

    Raises:
        ResumeError: The file is missing, damaged, or of another format.
    """
    try:
        content = path.read_bytes()  # once, so that what was checked is what is loaded
    except FileNotFoundError as error:
        raise ResumeError(f"no state at {path}; there is no run to continue. Start one with --out.") from error
    except OSError as error:
        raise ResumeError(f"{path} cannot be read: {error.strerror}.") from error
    if reason := why_no_checkpoint(content, str(path)):  # also checks sums, which torch does not
        raise ResumeError(f"{path} {reason} Or start the run anew.")
    try:
        held = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its message would explain how to run the code
        raise ResumeError(f"{path} holds more than a state does; use a state that reid-edge train saved.") from error
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError) as error:
        raise ResumeError(f"{path} is damaged; copy it again, or start the run anew.") from error
    version = held.pop("format", None) if isinstance(held, dict) else None
    if version != FORMAT_VERSION:
        raise ResumeError(
            f"{path} is a state of format {version}, and this release reads format {FORMAT_VERSION}; "
            "continue with the release that started the run, or start a new run."
        )
    try:
        settings = held.pop("config")
        flattened(settings)
        return SavedState(**{**held, "settings": settings, "progress": Progress(**held["progress"])})
    except (TypeError, KeyError, AttributeError) as error:
        raise ResumeError(f"{path} lacks what a state holds ({error}); start the run anew.") from error


def check_settings(state: SavedState, settings: TrainSettings) -> None:
    """Refuse to go on with other settings, since the result would be that of neither.

    Raises:
        ResumeError: Settings differ; the message lists each key with its old and new value.
    """
    added = to_tables(TrainSettings(recipe=settings.recipe))  # by later releases, at its default
    held = flattened(state.settings)
    if held.get("batch.instances", "none") != "none":  # without this key, all batches were balanced
        added["schedule"]["balanced_start"] = 0
    begun = overridden(added, held)
    changed = [one for one in differences(begun, to_tables(settings)) if one[0] not in CHANGEABLE]
    if changed:
        listed = "\n  ".join(f"{key}: was {old!r}, is {new!r}" for key, old, new in changed)
        raise ResumeError(
            f"the run was started with other settings:\n  {listed}\nContinue with the old values, or start a new run "
            f"with --out. Only these may change: {', '.join(CHANGEABLE)}."
        )


def check_data(state: SavedState, settings: TrainSettings, fingerprint: str) -> None:
    """Refuse to go on with other data.

    Raises:
        ResumeError: The fingerprints differ.
    """
    if fingerprint != state.data:
        raise ResumeError(
            f"the data in {settings.data.root} are not those that the run was started with: names, order or labels of "
            "the images differ. Put them back, or start a new run with --out."
        )
