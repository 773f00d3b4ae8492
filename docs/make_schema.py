"""Write docs/manifest.schema.json from the classes of reid_edge.bundle."""

import inspect
from pathlib import Path

import msgspec

from reid_edge.bundle import Manifest


def manifest_schema() -> bytes:
    schema = msgspec.json.schema(Manifest)
    for definition in schema["$defs"].values():
        definition["description"] = inspect.cleandoc(definition["description"])  # as Python 3.13 does by itself
    return msgspec.json.format(msgspec.json.encode(schema), indent=2) + b"\n"


if __name__ == "__main__":
    Path(__file__).with_name("manifest.schema.json").write_bytes(manifest_schema())
