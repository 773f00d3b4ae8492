"""Weights of a network inside what a trainer saved: under a key, and with a common prefix to their names."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from reid_edge.errors import CheckpointMismatchError
from reid_edge.foreign_text import one_line

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
        others: Names of the tensors beside them that do not have the prefix.
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
        left = f"; left out: {shown} ({len(self.others)} tensors)" if self.others else ""
        return one_line(f"weights found under '{self.place}'{left}.")


def find_weights(loaded: object, *, name: str, wanted: str | None = None) -> NestedWeights:
    """Find the weights of an OSNet in what a file holds.

    Args:
        loaded: What ``torch.load`` returned.
        name: Of the file, for the errors.
        wanted: ``place`` of the weights to take, where there are several.

    Raises:
        CheckpointMismatchError: No OSNet, none at ``wanted``, or several without ``wanted``.
    """
    found = {one.place: one for one in _all_weights(loaded, (), set())}
    if not found:
        raise CheckpointMismatchError(f"{name} {_what_else(loaded)}")
    listed = ", ".join(place or "." for place in found)
    if wanted is not None:
        wanted = "" if wanted == "." else wanted
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
    for name in tensors:
        prefix = name.removesuffix(_ANCHOR)
        if name.endswith(_ANCHOR) and (not prefix or prefix.endswith(".")):
            state = {one.removeprefix(prefix): tensor for one, tensor in tensors.items() if one.startswith(prefix)}
            others = tuple(one for one in tensors if not one.startswith(prefix))
            yield NestedWeights("/".join((*keys, *prefix.rstrip(".").split(".")) if prefix else keys), state, others)


def _what_else(loaded: object) -> str:
    """Say what a file without an OSNet holds."""
    if isinstance(loaded, Mapping):
        tensors = [str(key) for held in (loaded, *loaded.values()) for key in _tensor_names(held)]
        if tensors:
            shown = ", ".join(tensors[:5])
            return f"is not an OSNet: no {_ANCHOR} among its {len(tensors)} tensors ({shown}, …)."
        keys = ", ".join(map(str, list(loaded)[:5]))
        return f"holds no tensors; expected a state dict. Its entries are: {keys or 'none'}."
    return f"holds no tensors by name; expected a state dict, got {type(loaded).__name__}."


def _tensor_names(held: object) -> list[object]:
    return [key for key, value in held.items() if isinstance(value, Tensor)] if isinstance(held, Mapping) else []
