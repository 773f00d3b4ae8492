"""reid-edge: OSNet person re-identification, from a checkpoint to features on a camera.

The flow: checkpoint → export → bundle → runtime.  ``docs/architecture.md`` has the picture.

The names in ``__all__`` are the public surface, described in ``docs/api.md``; anything else may change in any release.
Each is imported when it is first used, so that a camera needs only what it uses.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reid_edge import errors
    from reid_edge.bundle import Bundle, open_bundle
    from reid_edge.evaluation.comparison import Labelled
    from reid_edge.evaluation.ranking import Ranking, rank
    from reid_edge.export.exporter import ExportOptions, export_bundle
    from reid_edge.gallery.collector import Collector
    from reid_edge.gallery.entries import Selection
    from reid_edge.gallery.search import query_by_feature, search
    from reid_edge.gallery.store import Store, open_store
    from reid_edge.osnet.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from reid_edge.osnet.torchreid import import_torchreid
    from reid_edge.runtime.extractor import Extraction, Extractor
    from reid_edge.upstream.delivery import Delivery
    from reid_edge.upstream.http import HttpTransport
    from reid_edge.upstream.mqtt import MqttTransport
    from reid_edge.upstream.observation import Observation
    from reid_edge.upstream.outbox import Outbox
    from reid_edge.upstream.transport import LocalTransport

__version__ = "0.1.0"

#: The module of each public name.
_MODULES = {
    "Bundle": "reid_edge.bundle",
    "Checkpoint": "reid_edge.osnet.checkpoint",
    "Collector": "reid_edge.gallery.collector",
    "Delivery": "reid_edge.upstream.delivery",
    "ExportOptions": "reid_edge.export.exporter",
    "Extraction": "reid_edge.runtime.extractor",
    "Extractor": "reid_edge.runtime.extractor",
    "HttpTransport": "reid_edge.upstream.http",
    "Labelled": "reid_edge.evaluation.comparison",
    "LocalTransport": "reid_edge.upstream.transport",
    "MqttTransport": "reid_edge.upstream.mqtt",
    "Observation": "reid_edge.upstream.observation",
    "Outbox": "reid_edge.upstream.outbox",
    "Ranking": "reid_edge.evaluation.ranking",
    "Selection": "reid_edge.gallery.entries",
    "Store": "reid_edge.gallery.store",
    "export_bundle": "reid_edge.export.exporter",
    "import_torchreid": "reid_edge.osnet.torchreid",
    "load_checkpoint": "reid_edge.osnet.checkpoint",
    "open_bundle": "reid_edge.bundle",
    "open_store": "reid_edge.gallery.store",
    "query_by_feature": "reid_edge.gallery.search",
    "rank": "reid_edge.evaluation.ranking",
    "save_checkpoint": "reid_edge.osnet.checkpoint",
    "search": "reid_edge.gallery.search",
}

#: The extra that installs what a package imports.
_EXTRAS = {"osnet": "export", "export": "export", "upstream": "camera", "gallery": "gallery"}

__all__ = [  # noqa: RUF022 - in the order of docs/api.md
    "Extractor",
    "Extraction",
    "Bundle",
    "open_bundle",
    "Observation",
    "Outbox",
    "Delivery",
    "MqttTransport",
    "HttpTransport",
    "LocalTransport",
    "Store",
    "open_store",
    "Collector",
    "Selection",
    "query_by_feature",
    "search",
    "Labelled",
    "Ranking",
    "rank",
    "Checkpoint",
    "load_checkpoint",
    "save_checkpoint",
    "import_torchreid",
    "ExportOptions",
    "export_bundle",
    "errors",
]

# OpenVINO and NNCF send reports of their use to Google Analytics unless the user has opted out: nothing that a camera
# should do unasked.  They do it from forked processes, which have been seen to hang the command at its end.  Both work
# without the package where it cannot be imported.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name == "errors":
        return importlib.import_module("reid_edge.errors")
    if name not in _MODULES:
        raise AttributeError(f"module 'reid_edge' has no attribute '{name}'; the public names are in reid_edge.__all__")
    try:
        found: object = getattr(importlib.import_module(_MODULES[name]), name)
    except ModuleNotFoundError as error:
        raise _missing_extra(name, error) from error
    globals()[name] = found
    return found


def _missing_extra(name: str, error: ModuleNotFoundError) -> ImportError:
    from reid_edge.errors import MissingExtraError

    package = _MODULES[name].split(".")[1]
    extra = _EXTRAS.get(package)
    if extra is None or isinstance(error, MissingExtraError) or str(error.name).startswith("reid_edge"):
        return error
    return MissingExtraError(error.name or "?", extra, f"reid_edge.{name}")


def __dir__() -> list[str]:
    """List the public names."""
    return [*__all__, "__version__"]
