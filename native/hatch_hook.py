"""Puts the compiled library of the native engine into wheels and editable installs.

A wheel that holds it is tagged by platform and serves every Python, since the library knows nothing of Python.  Where
it cannot be compiled, the wheel is pure Python and lacks that engine alone.  ``REID_EDGE_NATIVE`` chooses:

* ``auto`` (default): with the library if it can be compiled
* ``require``: fails if it cannot
* ``off``: pure Python
* ``x86_64`` or ``aarch64``: for that processor, from any other
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent))
from compile_library import LIBRARY, PROCESSORS, BuildError, build


class NativeEngineHook(BuildHookInterface):
    """Compiles the library before a wheel is put together."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        wanted = os.environ.get("REID_EDGE_NATIVE", "auto")
        if wanted not in ("auto", "require", "off", *PROCESSORS):
            raise ValueError(f"REID_EDGE_NATIVE must be auto, require, off, {' or '.join(PROCESSORS)}, not {wanted!r}")
        LIBRARY.unlink(missing_ok=True)  # an earlier build's must not get into this wheel
        if wanted == "off":
            return
        try:
            platform = build(target=wanted if wanted in PROCESSORS else None)
        except BuildError as error:
            if wanted != "auto":
                raise
            self.app.display_warning(f"Without the native engine: {error}")
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["artifacts"].append(f"/{LIBRARY.relative_to(self.root).as_posix()}")
