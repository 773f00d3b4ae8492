"""Write every key of a camera's and of a training run's settings, with default and meaning, into their pages."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from pathlib import Path
from typing import Any

import msgspec

from reid_edge.camera.settings import AgentSettings
from reid_edge.training.settings import TrainSettings

EXAMPLES = {
    "source.uri": "rtsp://192.0.2.7/main",
    "engine.bundle": "/opt/reid-edge/bundle",
    "camera.name": "gate-north",
}
UNSET = {
    "upstream.gallery_retention_hours": 720.0,
    "source.max_fps": 10.0,
    "source.fps": 25.0,
    "source.start": "2026-11-23T08:00:00Z",
    "source.width": 1280,
    "source.height": 720,
    "source.fourcc": "MJPG",
    "engine.threads": 2,
    "camera.pseudonym_key": "/etc/reid-edge/pseudonym.key",
    "camera.off_switch": "/run/reid-edge/off",
    "filter.confidence": 0.3,
    "filter.max_width": 400.0,
    "person.max_height_change": 0.06,
    "person.min_travel": 0.5,
    "person.max_height_ratio": 1.5,
    "filter.max_height": 800.0,
    "tracker.high_confidence": 0.6,
    "upstream.tls": {name: f"/etc/reid-edge/{file}" for name, file in
                     {"ca": "ca.crt", "cert": "camera.crt", "key": "camera.key"}.items()},
    "operation.state_dir": "/var/lib/reid-edge/gate-north",
}  # fmt: skip


PAGE = Path(__file__).parent / "camera.md"


TRAINING_PAGE = PAGE.with_name("training.md")


def main() -> None:
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    TRAINING_PAGE.write_text(training_page(TRAINING_PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def training_page(text: str) -> str:
    """Replace the table of keys in the page by that of the code."""
    head, _, rest = text.partition("| key | `scratch` | meaning |\n")
    _, _, tail = rest.partition("\n\n")
    rows = ["| key | `scratch` | meaning |", "|---|---|---|", *training_rows(TrainSettings(recipe="scratch"))]
    return head + "\n".join(rows) + "\n\n" + tail


def training_rows(record: Any, where: str = "") -> list[str]:
    """Make a table row for each key of a record and of the records in it."""
    meanings, rows = attributes(type(record)), []
    for key in dataclasses.fields(record):
        name, value = f"{where}{key.name}", getattr(record, key.name)
        if dataclasses.is_dataclass(value):
            rows += training_rows(value, f"{name}.")
        elif key.name in meanings:
            shown = "none" if value is None else json.dumps(value, default=str)
            rows.append(f"| `{name}` | `{shown}` | {meanings[key.name].replace('None:', 'none:')} |")
    return rows


def page(text: str) -> str:
    """Replace the block of settings in the page by that of the code."""
    head, _, rest = text.partition("```toml\n")
    return head + "```toml\n" + "\n".join(settings()) + "\n```" + rest.partition("```")[2]


def settings() -> list[str]:
    """Make the lines of the TOML."""
    lines = []
    for section in msgspec.structs.fields(AgentSettings):
        kind = section.type if section.default is msgspec.NODEFAULT else type(section.default)
        lines += ["", f"[{section.name}]  # {first_sentence(kind)}"]
        if section.name == "detector":
            lines.append('kind = "motion"  # others, with their keys: docs/detectors.md')
        meanings = attributes(kind)
        for key in msgspec.structs.fields(kind):
            name = f"{section.name}.{key.name}"
            default = EXAMPLES.get(name, default_of(key))
            shown = f"{key.name} = {toml(UNSET[name] if default is None else default)}"
            lines.append(f"{'# ' * (default is None)}{shown}  # {meanings[key.name]}")
    return lines[1:]


def default_of(key: Any) -> Any:
    return key.default if key.default_factory is msgspec.NODEFAULT else key.default_factory()


def first_sentence(kind: type) -> str:
    return re.split(r"[.:;]( |$)", plain((inspect.getdoc(kind) or "").splitlines()[0]))[0]


def attributes(kind: type) -> dict[str, str]:
    """Read the meaning of each attribute from a docstring, each on one line."""
    listed = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", listed, re.M)
    return {name: plain(" ".join(text.split())) for name, text in entries}


def plain(text: str) -> str:
    return text.replace("``", "'")


def toml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "{ " + ", ".join(f"{name} = {toml(one)}" for name, one in value.items()) + " }"
        case list() | tuple():
            return "[" + ", ".join(map(toml, value)) + "]"
        case int() | float():
            return repr(value)
    text = str(value)
    return text if re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]+Z", text) else json.dumps(text, ensure_ascii=False)


if __name__ == "__main__":
    main()
