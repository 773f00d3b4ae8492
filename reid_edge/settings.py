"""Settings from TOML files, options and ``--set``: read, laid over one another, and checked whole."""

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
    """Tables of a TOML file, not yet checked.

    Args:
        path: The file.
        guide: Page that shows an example.

    Raises:
        SettingsError: No file, or no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the settings file {path}: {error}. Give --config FILE.") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is no TOML: {error}. See {guide} for an example.") from error


def overridden(tables: Tables, values: Mapping[str, object]) -> Tables:
    """The tables with ``table.key`` values put over them; a value of None leaves what is there.

    Where a table should be and something else is, nothing is put: :func:`checked_settings` will name it.
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
    """Every value by its ``table.key``, the inverse of :func:`overridden`."""
    flat: dict[str, object] = {}
    for name, value in tables.items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def assignment(text: str) -> tuple[str, object]:
    """Key and value of ``table.key=VALUE``: the value as TOML has it; what is no TOML is a string.

    Raises:
        SettingsError: No ``=``, or nothing before it.
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
    """Settings as a record.

    Args:
        tables: What was read.
        kind: Record, of records; a dataclass takes no unknown keys either.
        origin: Where the settings come from.
        guide: Page that lists every key.
        forms: What is expected of keys whose type alone does not say it.

    Raises:
        SettingsError: A key is missing, unknown, or its value is not what it should be: the message names it.
    """
    _refuse_unknown(tables, kind, origin, guide)
    try:
        return msgspec.convert(tables, kind, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise SettingsError(_explained(str(error), origin, guide, _choices(kind) | dict(forms or {}))) from error


def _copied(tables: Tables) -> Tables:
    return {name: _copied(value) if isinstance(value, dict) else value for name, value in tables.items()}


def _refuse_unknown(tables: Tables, kind: object, origin: str, guide: str, where: str = "") -> None:
    """Msgspec refuses unknown keys of its own structs only."""
    if not dataclasses.is_dataclass(kind):
        return
    kinds = get_type_hints(kind)
    known = [one.name for one in dataclasses.fields(kind)]
    for name, value in tables.items():
        if name not in known:
            raise SettingsError(
                f"{origin}: {where}{name}: no such key; known are {', '.join(known)}. {guide} lists every key."
            )
        if isinstance(value, dict):
            _refuse_unknown(value, kinds[name], origin, guide, f"{where}{name}.")


def _choices(kind: object, where: str = "") -> dict[str, str]:
    """What is expected of keys that take one of a few words."""
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
    """Msgspec's message with the key first: ``source.loop: expected bool, got str``."""
    problem, _, where = message.partition(" - at `$")
    key = where.rstrip("`").lstrip(".") or "top level"
    problem = forms.get(key) or problem[:1].lower() + problem[1:]
    return f"{origin}: {key}: {problem.rstrip('.').replace('`', chr(39))}. {guide} lists every key."
