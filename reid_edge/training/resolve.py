"""Resolve a recipe, a settings file and options into one checked ``TrainSettings``, and write it as TOML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from reid_edge.errors import ConfigError, SettingsError
from reid_edge.osnet.architecture import OSNetConfig, format_size, parse_size
from reid_edge.settings import Tables, checked_settings, flattened, overridden
from reid_edge.training.recipes import RECIPES, recipe_for
from reid_edge.training.settings import RecipeName, TrainSettings
from reid_edge.types import Size
from reid_edge.wording import counted

GUIDE = "docs/training.md"
#: What stands for None in TOML, which has no word for it.
NONE = "none"
_OPTIONAL = ("data.identities", "model.start", "loss.triplet_margin", "batch.instances", "schedule.balanced_start")
_EPOCHS = "schedule.epochs"
#: What is expected of keys whose type alone does not say it.
_FORMS = {"model.size": "expected HEIGHTxWIDTH in pixels, e.g. '256x128', or [256, 128]"}
#: Least number of evaluations of a run with few epochs.
_EVALUATIONS = 10
_STAGES = ("schedule.warmup", "schedule.frozen", "schedule.balanced_start", "loss.triplet_start")
_MILESTONES = ("schedule.milestones", "schedule.size_milestones")


def resolve(recipe: str | None, file: Tables, given: Mapping[str, object]) -> tuple[TrainSettings, tuple[str, ...]]:
    """Lay a settings file's values over a recipe, and given values over both.

    A layer that changes the number of epochs stretches the layers below it: milestones, warm-up, frozen epochs and the
    start of the triplet loss keep their place in the schedule, unless the same layer or one above gives them too.

    Args:
        recipe: Name of the recipe; None: the settings file's ``recipe``, or else ``scratch``.
        file: Tables of a settings file.
        given: Values by ``table.key``, from the command line; None: not given.

    Returns:
        The resolved settings, and notes for the user on values that were changed in proportion.

    Raises:
        SettingsError: A key is unknown, a value is not valid, or two values contradict each other.
    """
    name = given.get("recipe") or recipe or file.get("recipe", "scratch")
    if not isinstance(name, str) or name not in RECIPES:
        raise SettingsError(f"recipe: expected one of {', '.join(RECIPES)}, got '{name}'.")
    notes: list[str] = []
    layers = (flattened(file) | {"recipe": name}, {key: value for key, value in given.items() if value is not None})
    dataset, width = (layers[1].get(key, layers[0].get(key)) for key in ("data.dataset", "model.width"))
    tables: Tables = to_tables(recipe_for(name, dataset, width))
    for layer in layers:
        _refuse_other_depths(tables, layer)
        tables = overridden(_stretched(tables, layer, notes), layer)
    settings = from_tables(tables, origin="settings")
    _require_start(name, settings, layers)
    check(settings)
    return settings, tuple(notes)


def from_tables(tables: Tables, *, origin: str) -> TrainSettings:
    """Make settings from their tables; missing keys take the defaults of ``training.settings``.

    Raises:
        SettingsError: A key is unknown, or its value is not valid.
    """
    tables = overridden(tables, {})
    model = tables.get("model")
    if isinstance(model, dict) and isinstance(size := model.get("size"), str):
        model["size"] = _size(size, f"{origin}: model.size")
    schedule = tables.get("schedule")
    if isinstance(schedule, dict) and isinstance(sizes := schedule.get("sizes"), (list, tuple)):
        schedule["sizes"] = [_size(one, f"{origin}: schedule.sizes") if isinstance(one, str) else one for one in sizes]
    nothing = {key: None for key, value in flattened(tables).items() if value == NONE and key in _OPTIONAL}
    for key in nothing:
        table, _, name = key.rpartition(".")
        tables[table][name] = None
    return checked_settings(tables, TrainSettings, origin=origin, guide=GUIDE, forms=_FORMS)


def _size(text: str, where: str) -> Size:
    try:
        return parse_size(text)
    except ConfigError as error:
        raise SettingsError(f"{where}: {error}") from error


def to_tables(settings: TrainSettings) -> Tables:
    """Return settings as tables of plain values; None becomes the word ``none``."""
    tables: Tables = msgspec.to_builtins(settings, enc_hook=str)
    return _without_none(tables)


def to_toml(settings: TrainSettings) -> str:
    """Return settings as the TOML that ``--config`` takes."""
    return tomli_w.dumps(to_tables(settings))


def differences(old: Tables, new: Tables) -> list[tuple[str, object, object]]:
    """Return key, old and new value of each setting that differs."""
    before, after = flattened(old), flattened(new)
    return [(key, before.get(key), after.get(key)) for key in before | after if before.get(key) != after.get(key)]


def check(settings: TrainSettings) -> None:
    """Refuse values that contradict each other.

    Raises:
        SettingsError: Two values contradict each other; the message names the key and the next step.
    """
    for complaint in _complaints(settings):
        raise SettingsError(f"{complaint} {GUIDE} lists every key.")


def _complaints(settings: TrainSettings) -> list[str]:
    found = [*_model_complaints(settings), *_loss_complaints(settings), *_schedule_complaints(settings)]
    found += [*_curriculum_complaints(settings), *_batch_complaints(settings), *_teacher_complaints(settings)]
    if settings.optimiser.name == "sgd" and settings.optimiser.nesterov and not settings.optimiser.momentum:
        found.append("optimiser.nesterov: needs momentum; give optimiser.momentum, e.g. 0.9, or set it to false.")
    if settings.data.identities is not None and settings.task != "identity":
        found.append(f"data.identities: the task '{settings.task}' has no identities; leave it out.")
    if settings.data.combineall and settings.task != "identity":
        found.append(f"data.combineall: the task '{settings.task}' has no query and gallery; leave it out.")
    if settings.data.combineall and settings.data.split:
        found.append("data.split: with data.combineall all people are for training, whatever the split; leave it out.")
    if settings.data.identities == 1:
        found.append("data.identities: one identity only cannot be told from others; use at least 2.")
    return found


def _model_complaints(settings: TrainSettings) -> list[str]:
    try:
        OSNetConfig(width=settings.model.width, size=settings.model.size, variant=settings.model.variant)
    except ConfigError as error:
        return [f"model: {error}"]
    return []


def _loss_complaints(settings: TrainSettings) -> list[str]:
    loss, found = settings.loss, []
    if loss.triplet and settings.batch.instances is None:
        found.append(
            "loss.triplet: needs several images of each identity in a batch; give batch.instances, e.g. "
            "--set batch.instances=4 (1: shuffled batches, in which few images have a partner), or "
            "--set loss.triplet=0."
        )
    if loss.triplet and loss.triplet_start >= settings.schedule.epochs:
        found.append(
            f"loss.triplet_start: epoch {loss.triplet_start} is not among the {settings.schedule.epochs} epochs "
            "(counted from 0); start earlier, or use --set loss.triplet=0."
        )
    if settings.task == "attributes":
        of_classes = {
            "smoothing": loss.smoothing,
            "triplet": loss.triplet,
            "entropy": loss.entropy,
            "mutual": loss.mutual,
        }
        found += [f"loss.{key}: attributes have no classes; set it to 0." for key, value in of_classes.items() if value]
        if settings.batch.instances is not None:
            found.append("batch.instances: attributes have no classes to balance; set it to none.")
    return found


def _schedule_complaints(settings: TrainSettings) -> list[str]:
    schedule, found = settings.schedule, []
    milestones = list(schedule.milestones)
    if schedule.kind == "step" and milestones != sorted(set(milestones)):
        found.append(f"schedule.milestones: expected ascending epochs, got {milestones}.")
    if schedule.kind == "step" and milestones and milestones[-1] >= schedule.epochs:
        found.append(
            f"schedule.milestones: epoch {milestones[-1]} is not among the {schedule.epochs} epochs; "
            "leave the milestones out, and they are stretched to the epochs, or give others."
        )
    stages = {"warmup": schedule.warmup, "frozen": schedule.frozen}
    found += [
        f"schedule.{key}: {counted(epochs, 'epoch')} of {schedule.epochs}: none is left to train in. Use fewer, or 0."
        for key, epochs in stages.items()
        if epochs >= schedule.epochs
    ]
    if schedule.frozen and settings.model.start is None:
        found.append(_no_start(settings.recipe))
    return found


def _curriculum_complaints(settings: TrainSettings) -> list[str]:
    schedule, asked, found = settings.schedule, settings.model.size, []
    milestones = list(schedule.size_milestones)
    names = [format_size(size) for size in schedule.sizes]
    if names and schedule.sizes[-1] != asked:
        found.append(
            f"schedule.sizes: the last size is {names[-1]}, but the network is for {format_size(asked)} (model.size); "
            f"end with that size, or give --size {names[-1]}."
        )
    if len(milestones) != max(len(names) - 1, 0):
        found.append(
            f"schedule.size_milestones: {counted(len(names), 'size')} need {max(len(names) - 1, 0)} epochs at which "
            f"the next size begins, got {milestones}; with few epochs in all, give them too."
        )
    if milestones != sorted(set(milestones)):
        found.append(f"schedule.size_milestones: expected ascending epochs, got {milestones}.")
    elif milestones and milestones[-1] >= schedule.epochs:
        found.append(
            f"schedule.size_milestones: epoch {milestones[-1]} is not among the {schedule.epochs} epochs, so the run "
            f"would end at another size than {format_size(asked)}; begin the last size earlier."
        )
    for size in schedule.sizes:
        try:
            OSNetConfig(width=settings.model.width, size=size, variant=settings.model.variant)
        except ConfigError as error:
            found.append(f"schedule.sizes: {error}")
    return found


def _batch_complaints(settings: TrainSettings) -> list[str]:
    instances, size, start = settings.batch.instances, settings.batch.size, settings.schedule.balanced_start
    if start is not None and settings.balanced_start is None:
        return ["schedule.balanced_start: give the images of each identity in a batch too, --set batch.instances=4."]
    if start is not None and start >= settings.schedule.epochs:
        return [
            f"schedule.balanced_start: epoch {start} is not among the {settings.schedule.epochs} epochs (counted from "
            "0); start earlier, or leave it and batch.instances out."
        ]
    if instances is None or instances == 1:
        return []
    if size % instances:
        return [
            f"batch.size: expected a multiple of batch.instances, which is {instances}, got {size}; "
            f"use {max(1, size // instances) * instances}."
        ]
    if size == instances:
        return [f"batch.size: one identity of {instances} images fills a batch; use a larger one."]
    if settings.task == "identity" and not settings.loss.triplet and start is None:
        return [
            "batch.instances: identity-balanced batches are for the triplet loss, and cost accuracy without it; leave "
            "it out (none), give --set loss.triplet=0.5, or ask for them with --set schedule.balanced_start=0."
        ]
    return []


def _teacher_complaints(settings: TrainSettings) -> list[str]:
    distill = settings.distill
    if not distill.teachers:
        if settings.loss.cross_entropy or settings.loss.triplet:
            return []
        return ["loss.cross_entropy: with 0 nothing is learnt without a teacher; give --teacher, or leave it at 1."]
    if not (distill.feature or distill.relations or distill.logits):
        return ["distill: all three weights are 0, so the teachers teach nothing; leave them out, or give a weight."]
    if distill.logits and settings.task == "attributes":
        return ["distill.logits: attributes have no classes; set it to 0."]
    return []


def _no_start(recipe: str) -> str:
    return (
        f"schedule.frozen: the recipe '{recipe}' first trains the classifier alone, on a network that has "
        "learned something; give its weights with --start CHECKPOINT (a reid-edge .safetensors or torchreid's "
        ".pth), or train from random weights with --set schedule.frozen=0."
    )


def _require_start(name: RecipeName, settings: TrainSettings, layers: Sequence[Mapping[str, object]]) -> None:
    """Refuse a recipe with a frozen stage but without weights, also where the stage has shrunk to nothing."""
    asked = any("schedule.frozen" in layer for layer in layers)
    if RECIPES[name].schedule.frozen and settings.model.start is None and not asked:
        raise SettingsError(f"{_no_start(name)} {GUIDE} lists every key.")


def _refuse_other_depths(tables: Tables, layer: Mapping[str, object]) -> None:
    """Refuse a value in place of a table, and a table in place of a value: neither could be set."""
    known = flattened(tables)
    for key in layer:
        held: Any = tables.get(key)
        if isinstance(held, dict):
            raise SettingsError(f"{key}: expected a key of this table, e.g. {key}.{next(iter(held))}.")
        for value in known:
            if key.startswith(f"{value}."):
                raise SettingsError(f"{key}: no such key; {value} is a value, not a table. {GUIDE} lists every key.")


def _stretched(tables: Tables, layer: Mapping[str, object], notes: list[str]) -> Tables:
    """Scale all settings that count epochs to a layer's new number of epochs."""
    old, new = flattened(tables)[_EPOCHS], layer.get(_EPOCHS)
    if not isinstance(old, int) or not isinstance(new, int) or isinstance(new, bool) or new < 1 or new == old:
        return tables
    moved: dict[str, object] = {}
    for key, value in flattened(tables).items():
        if key in layer:
            continue
        if key in _STAGES and isinstance(value, int) and value:
            moved[key] = min(max(1, round(value * new / old)), new - 1)
        elif key in _MILESTONES and isinstance(value, (list, tuple)) and value:
            scaled = (round(epoch * new / old) for epoch in value)
            moved[key] = sorted({epoch for epoch in scaled if 0 < epoch < new})
        elif key == "run.evaluate_every" and isinstance(value, int) and value:
            moved[key] = max(1, min(value, new // _EVALUATIONS))
    changed = {key: value for key, value in moved.items() if value != flattened(tables)[key]}
    if layer.get("schedule.kind", flattened(tables)["schedule.kind"]) == "cosine":
        changed.pop("schedule.milestones", None)  # which has none
    if changed:
        listed = ", ".join(f"{key} = {value}" for key, value in changed.items())
        notes.append(f"{_counted(new)} in place of {old}, so in proportion: {listed}.")
    return overridden(tables, moved)


def _counted(epochs: int) -> str:
    return counted(epochs, "epoch")


def _without_none(tables: Tables) -> Tables:
    plain: Tables = {}
    for name, value in tables.items():
        plain[name] = _without_none(value) if isinstance(value, dict) else NONE if value is None else value
    return plain


def run_name(settings: TrainSettings) -> Path:
    """Return the default folder of a run."""
    height, width = settings.model.size
    return Path(f"train-{settings.recipe}-x{settings.model.width:g}".replace(".", "_") + f"_{height}x{width}")
