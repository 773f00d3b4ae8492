"""Weights of a network inside what a trainer saved: under a key, and with a common prefix to their names."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from reid_edge.errors import CheckpointMismatchError
from reid_edge.foreign_text import one_line
from reid_edge.wording import counted

#: A tensor that every OSNet has, under the same name in every layout; no other tensor's name ends so.
_ANCHOR = "conv5.conv.weight"
#: Keys and prefixes that torchreid's own trainer writes: nothing to be said about them.
_USUAL = ("", "state_dict", "module", "state_dict/module")


@dataclass(frozen=True)
class NestedWeights:
    """Weights of one network, found in a larger object.

    Attributes:
        place: Keys and prefix that lead to them, joined by "/", e.g. ``state_dict/model``; "" for the object itself.
        state: Tensors by name, without the prefix.
        others: Names of the tensors beside them, which do not have the prefix, or are of a network below it.
    """

    place: str
    state: dict[str, Tensor]
    others: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """Where they were found, as a sentence; "" where torchreid puts them and nothing is left out."""
        if self.place in _USUAL and not self.others:
            return ""
        shown = ", ".join(self.others[:3]) + (", …" if len(self.others) > 3 else "")
        count = len(self.others)
        left = f"; left out: {shown} ({counted(count, 'tensor')})" if count else ""
        where = f"under '{self.place}'" if self.place else "at the top"
        return one_line(f"weights found {where}{left}.")


def find_weights(loaded: object, *, name: str, wanted: str | None = None) -> NestedWeights:
    """Find the weights of an OSNet in what a file holds.

    Args:
        loaded: What ``torch.load`` returned.
        name: Of the file, for the errors.
        wanted: ``place`` of the weights to take, where there are several.

    Raises:
        CheckpointMismatchError: No OSNet, none at ``wanted``, or several without ``wanted``.
    """
    wanted = "" if wanted == "." else wanted
    found: dict[str, NestedWeights] = {}
    for one in _all_weights(loaded, (), set()):
        if one.place == wanted or not any(_equal(one.state, other.state) for other in found.values()):
            found[one.place] = one
    if not found:
        raise CheckpointMismatchError(f"{name} {_what_else(loaded)}")
    listed = ", ".join(place or "." for place in found)
    if wanted is not None:
        if wanted not in found:
            raise CheckpointMismatchError(f"{name} has no weights of an OSNet under '{wanted}', only under: {listed}.")
        return found[wanted]
    if len(found) > 1:
        last = next(reversed(found)) or "."
        raise CheckpointMismatchError(
            f"{name} holds the weights of {len(found)} networks: {listed}. Choose one: "
            f"reid-edge import {shlex.quote(name)} --weights {shlex.quote(last)}"
        )
    return next(iter(found.values()))


def _all_weights(value: object, keys: tuple[str, ...], seen: set[int]) -> Iterator[NestedWeights]:
    """Yield the weights of every network, each object once, however often it is referred to."""
    if id(value) in seen or not isinstance(value, Mapping | list | tuple):
        return
    seen.add(id(value))
    if isinstance(value, Mapping):
        yield from _in_state(value, keys)
    for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
        yield from _all_weights(inner, (*keys, str(key)), seen)


def _in_state(held: Mapping[object, object], keys: tuple[str, ...]) -> Iterator[NestedWeights]:
    tensors = {str(key): value for key, value in held.items() if isinstance(value, Tensor)}
    anchors = (name.removesuffix(_ANCHOR) for name in tensors if name.endswith(_ANCHOR))
    prefixes = [prefix for prefix in anchors if not prefix or prefix.endswith(".")]
    for prefix in prefixes:
        below = tuple(_first_part(one, prefix) for one in prefixes if one != prefix and one.startswith(prefix))
        ours = {name: tensors[name] for name in tensors if name.startswith(prefix) and not name.startswith(below)}
        state = {name.removeprefix(prefix): tensor for name, tensor in ours.items()}
        others = tuple(name for name in tensors if name not in ours)
        yield NestedWeights("/".join((*keys, *prefix.rstrip(".").split(".")) if prefix else keys), state, others)


def _first_part(longer: str, prefix: str) -> str:
    """Return a prefix and the next part of a longer one: "model.ema." of "model.ema.module." after "model."."""
    return prefix + longer.removeprefix(prefix).partition(".")[0] + "."


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Return True if two networks are the same, such as one that a trainer holds by two names."""
    return one.keys() == other.keys() and all(map(_equal_tensors, one.values(), (other[name] for name in one)))


def _equal_tensors(one: Tensor, other: Tensor) -> bool:
    if one is other:
        return True
    plain = all(each.layout == torch.strided and not each.is_meta and not each.is_quantized for each in (one, other))
    return plain and one.dtype == other.dtype and torch.equal(one, other)


def _what_else(loaded: object) -> str:
    """Say what a file without an OSNet holds."""
    if isinstance(loaded, Mapping):
        tensors = [str(key) for held in (loaded, *loaded.values()) for key in _tensor_names(held)]
        if tensors:
            shown = ", ".join(tensors[:5])
            return f"is not an OSNet: no {_ANCHOR} among its {counted(len(tensors), 'tensor')} ({shown}, …)."
        keys = ", ".join(map(str, list(loaded)[:5]))
        return f"holds no tensors; expected a state dict. Its entries are: {keys or 'none'}."
    return f"holds no tensors by name; expected a state dict, got {type(loaded).__name__}."


def _tensor_names(held: object) -> list[object]:
    return [key for key, value in held.items() if isinstance(value, Tensor)] if isinstance(held, Mapping) else []
