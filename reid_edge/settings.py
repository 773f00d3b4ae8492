"""Read settings from TOML files, options and ``--set``, lay them over one another, and check them as a whole."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from reid_edge.errors import SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Tables = dict[str, Any]
_Settings = TypeVar("_Settings")


def read_settings(path: Path, *, guide: str) -> Tables:
    """Read the tables of a TOML file, without checking their keys.

    Args:
        path: Settings file.
        guide: Documentation page with an example, for messages.

    Raises:
        SettingsError: The file cannot be read, or is not TOML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the name
        raise SettingsError(f"cannot read the settings file {path}: {error}. Give --config FILE.") from error
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits, and lists in lists in lists
        raise SettingsError(f"{path} is not TOML: {error}. See {guide} for an example.") from error


def overridden(tables: Tables, values: Mapping[str, object]) -> Tables:
    """Return the tables with ``table.key`` values put over them; a value of None changes nothing.

    A value whose table is no table in ``tables`` is dropped: :func:`checked_settings` will name that table.
    """
    merged = _copied(tables)
    for dotted, value in values.items():
        *path, key = dotted.split(".")
        table: Any = merged
        for name in path:
            table = table.setdefault(name, {}) if isinstance(table, dict) and value is not None else None
        if value is not None and isinstance(table, dict):
            table[key] = value
    return merged


def flattened(tables: Tables, prefix: str = "") -> dict[str, object]:
    """Return every value by its ``table.key``, the inverse of :func:`overridden`."""
    flat: dict[str, object] = {}
    for name, value in tables.items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def assignment(text: str) -> tuple[str, object]:
    """Split ``table.key=VALUE`` into key and value; a value that is not TOML is a string.

    Raises:
        SettingsError: There is no ``=``, or nothing before it.
    """
    key, equals, value = text.partition("=")
    if not (equals and key.strip()):
        raise SettingsError(f"--set: expected table.key=VALUE, e.g. schedule.epochs=100, got '{text}'.")
    try:
        read = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        read = {}
    return key.strip(), read["value"] if list(read) == ["value"] else value.strip()


def checked_settings(
    tables: Tables, kind: type[_Settings], *, origin: str, guide: str, forms: Mapping[str, str] | None = None
) -> _Settings:
    """Convert tables to a record.

    Args:
        tables: Tables as they were read.
        kind: Type of the record: a msgspec struct or dataclass of such; unknown keys are refused in both.
        origin: Source of the settings, for messages.
        guide: Documentation page that lists every key, for messages.
        forms: Descriptions of the values of keys whose type alone is no help, by ``table.key``.

    Raises:
        SettingsError: A key is missing or unknown, or its value is not valid; the message names it.
    """
    _refuse_unknown(tables, kind, origin, guide)
    try:
        return msgspec.convert(tables, kind, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise SettingsError(_explained(str(error), origin, guide, _choices(kind) | dict(forms or {}))) from error


def _copied(tables: Tables) -> Tables:
    return {name: _copied(value) if isinstance(value, dict) else value for name, value in tables.items()}


def _refuse_unknown(tables: Tables, kind: object, origin: str, guide: str, where: str = "") -> None:
    """Refuse unknown keys of dataclasses; msgspec does so for its own structs only."""
    if not dataclasses.is_dataclass(kind):
        return
    kinds = get_type_hints(kind)
    known = [one.name for one in dataclasses.fields(kind)]
    for name, value in tables.items():
        if name not in known:
            raise SettingsError(
                f"{origin}: {where}{name}: no such key; known keys: {', '.join(known)}. {guide} lists every key."
            )
        if isinstance(value, dict):
            _refuse_unknown(value, kinds[name], origin, guide, f"{where}{name}.")


def _choices(kind: object, where: str = "") -> dict[str, str]:
    """Describe the values of keys that take one of a few words, by ``table.key``."""
    found: dict[str, str] = {}
    for name, hint in get_type_hints(kind).items():
        if get_origin(hint) is Literal:
            found[f"{where}{name}"] = f"expected one of {', '.join(map(str, get_args(hint)))}"
        elif dataclasses.is_dataclass(hint) or (isinstance(hint, type) and issubclass(hint, msgspec.Struct)):
            found |= _choices(hint, f"{where}{name}.")
    return found


def _path(wanted: type, value: object) -> object:
    assert wanted is Path, wanted
    if not isinstance(value, str):
        raise ValueError(f"expected a path, got {value!r}")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(f"expected a path, got {value!r}: {error}") from error


def _explained(message: str, origin: str, guide: str, forms: Mapping[str, str]) -> str:
    """Rewrite msgspec's message with the key first: ``source.loop: expected bool, got str``."""
    problem, _, where = message.partition(" - at `$")
    key = where.rstrip("`").lstrip(".") or "top level"
    problem = forms.get(key) or problem[:1].lower() + problem[1:]
    return f"{origin}: {key}: {problem.rstrip('.').replace('`', chr(39))}. {guide} lists every key."
