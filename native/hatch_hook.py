"""Puts the compiled library of the native engine into wheels and editable installs.

A wheel that holds it is tagged by platform and serves every Python, since the library knows nothing of Python.  Where
it cannot be compiled, the wheel is pure Python and lacks that engine alone.  ``REID_EDGE_NATIVE`` chooses:

* ``auto`` (default): with the library if it can be compiled
* ``require``: fails if it cannot
* ``off``: pure Python
* ``x86_64`` or ``aarch64``: for that processor, from any other

An editable install has the library in the package's folder; a wheel is made without a change there, so that one for a
camera does not take the library from an environment that uses the checkout.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent))
from compile_library import LIBRARY, PROCESSORS, BuildError, build


class NativeEngineHook(BuildHookInterface):
    """Compiles the library before a wheel is put together."""

    folder: Path | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        wanted = os.environ.get("REID_EDGE_NATIVE", "auto")
        if wanted not in ("auto", "require", "off", *PROCESSORS):
            raise ValueError(f"REID_EDGE_NATIVE must be auto, require, off, {' or '.join(PROCESSORS)}, not {wanted!r}")
        editable = version == "editable"
        if editable:
            LIBRARY.unlink(missing_ok=True)  # of an earlier build
        if wanted == "off":
            return
        self.folder = None if editable else Path(tempfile.mkdtemp(prefix="reid-edge-native-"))
        library = self.folder / LIBRARY.name if self.folder else LIBRARY
        try:
            platform = build(library, target=wanted if wanted in PROCESSORS else None)
        except BuildError as error:
            if wanted != "auto":
                raise
            self.app.display_warning(f"Without the native engine: {error}")
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        if self.folder:
            build_data["force_include"][str(library)] = LIBRARY.relative_to(self.root).as_posix()

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
