"""The one settings file of a camera: TOML, checked whole before anything starts."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from reid_edge.camera.crop_selector import CropSelectorSettings
from reid_edge.camera.detectors import DetectorSettings, MotionSettings
from reid_edge.camera.filters import FilterSettings
from reid_edge.camera.sources import SourceSettings
from reid_edge.camera.tracking import TrackerSettings
from reid_edge.camera.tracklets import TrackletSettings
from reid_edge.errors import SettingsError
from reid_edge.settings import Tables, checked_settings
from reid_edge.settings import read_settings as read_tables
from reid_edge.upstream.tls import TlsFiles
from reid_edge.wire_names import EXPECTED, PATTERN, as_wire_name

Positive = Annotated[int, msgspec.Meta(gt=0)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]

IN_PROCESS = ("sqlite", "postgresql", "postgres", "milvus")
"""Schemes of an upstream that is a store, opened in this process."""


class CameraSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which camera this is.

    Attributes:
        name: Goes upstream with every feature, as a pseudonym if there is a key.
        pseudonym_key: File with the key of the pseudonym; made, readable by its owner alone, where there is none.
        off_switch: While this file exists, no frame is looked at.
    """

    name: Annotated[str, msgspec.Meta(pattern=PATTERN)] = "camera"
    pseudonym_key: Path | None = None
    off_switch: Path | None = None


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What turns crops into features.

    Attributes:
        bundle: Folder that ``reid-edge export`` made; a symbolic link to it can be moved, then SIGHUP.
        engine: As in ``reid-edge extract``.
        precision: As in ``reid-edge extract``.
        threads: CPU threads of the engine; None leaves the choice to it.
        device: OpenVINO's name of the device.
        max_batch: Most crops that are embedded at once; each size up to it costs memory.
    """

    bundle: Path
    engine: Literal["auto", "openvino", "onnxruntime", "tensorrt"] = "auto"
    precision: Literal["auto", "fp32", "fp16", "int8", "tuned"] = "auto"
    threads: Positive | None = None
    device: str = "CPU"
    max_batch: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 8


class PipelineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long a crop may wait, and how many.

    Attributes:
        max_latency_ms: From the capture of a frame to the features of its crops: crops wait for a fuller batch
            within it.
        max_waiting_crops: Above it, a live source loses the oldest crop that is not embedded yet; a file waits.
        opencv_threads: Threads that OpenCV may use for decoding, detection and resizing.
    """

    max_latency_ms: Positive = 250
    max_waiting_crops: Positive = 128
    opencv_threads: Positive = 1


class UpstreamSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where features go, and how they are kept until they have arrived.

    Attributes:
        uri: ``mqtts://host``, ``https://host``, or a store in this process: ``sqlite:FILE``, ``postgresql://…``,
            ``milvus:…``; ``mqtt://`` and ``http://`` only with ``insecure`` and on loopback.
        tls: PEM files: ``ca`` of the receiving end, ``cert`` and ``key`` of this camera.
        insecure: Allow no TLS on loopback.
        encoding: Of a feature on the wire.
        max_rows: Most observations that the outbox keeps.
        max_mb: Most space that they take, 10⁶ bytes; the file takes a tenth more, its log 16 MB.
        retention_hours: Undelivered observations are dropped after it, and so declared.
        synchronous: ``FULL``: survives a power cut; ``NORMAL``: may lose the last second to one.
        resend_s: What is not acknowledged by then is sent again.
    """

    uri: str = "sqlite:gallery.db"
    tls: TlsFiles | None = None
    insecure: bool = False
    encoding: Literal["fp16", "fp32", "int8"] = "fp16"
    max_rows: Positive = 100_000
    max_mb: Positive = 256
    retention_hours: Annotated[float, msgspec.Meta(gt=0, le=87_600)] = 72.0
    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    resend_s: Seconds = 10.0


class OperationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the agent is watched.

    Attributes:
        state_dir: Where the outbox lies; systemd's state directory if not given, else
            ``~/.local/state/reid-edge/NAME``.
        listen: IPv4 loopback address of ``/metrics`` and ``/healthz``; empty for none.
        log_format: ``json`` for a collector of logs, ``text`` for a person; ``auto``: text on a terminal.
        log_level: Least severity that is logged.
        stalled_s: A live source without a frame for so long is unhealthy, and systemd's watchdog starves.
        drain_s: At most so long a stop waits for what is not acknowledged; the rest stays in the outbox.
    """

    state_dir: Path | None = None
    listen: Annotated[str, msgspec.Meta(pattern=r"^((127\.\d+\.\d+\.\d+|localhost):\d{1,5})?$")] = "127.0.0.1:9465"
    log_format: Literal["auto", "json", "text"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    stalled_s: Seconds = 60.0
    drain_s: Annotated[float, msgspec.Meta(ge=0)] = 5.0


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that ``reid-edge run`` can be told."""

    source: SourceSettings
    engine: EngineSettings
    camera: CameraSettings = CameraSettings()
    detector: DetectorSettings = MotionSettings()
    filter: FilterSettings = FilterSettings()
    tracker: TrackerSettings = TrackerSettings()
    gate: CropSelectorSettings = CropSelectorSettings()
    tracklet: TrackletSettings = TrackletSettings()
    pipeline: PipelineSettings = PipelineSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    operation: OperationSettings = OperationSettings()

    @property
    def in_process(self) -> bool:
        """Whether the gallery is a store that this process opens."""
        return self.upstream.uri.split(":", 1)[0] in IN_PROCESS

    @property
    def state_dir(self) -> Path:
        """Folder of the outbox.

        Raises:
            SettingsError: None is given, and the user has no home.
        """
        if self.operation.state_dir:
            return self.operation.state_dir
        systemd = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
        if systemd:
            return Path(systemd)
        try:
            return Path.home() / ".local/state/reid-edge" / self.camera.name
        except RuntimeError as error:
            raise SettingsError("operation.state_dir: this user has no home folder; give --state-dir.") from error


GUIDE = "docs/camera.md"
#: What is expected of keys whose type alone does not say it.
FORMS = {
    "camera.name": f"expected {EXPECTED}",
    "operation.listen": "expected 127.0.0.1:PORT, localhost:PORT, or '' for none",
}


def read_settings(path: Path) -> Tables:
    """Tables of a TOML file, not yet checked.

    Raises:
        SettingsError: No file, or no TOML.
    """
    return read_tables(path, guide=GUIDE)


def parse_settings(tables: Tables, *, origin: str = "settings") -> AgentSettings:
    """Checked settings.

    Raises:
        SettingsError: A key is missing, unknown, or its value is not what it should be: the message names it.
    """
    return checked_settings(tables, AgentSettings, origin=origin, guide=GUIDE, forms=FORMS)


def default_camera_name() -> str:
    """This machine's name, as far as a camera may be called so."""
    return as_wire_name(socket.gethostname()) or "camera"
