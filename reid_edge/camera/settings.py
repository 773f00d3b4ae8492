"""Settings of a camera: one TOML file, checked as a whole before anything starts."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from reid_edge.camera.crop_selector import CropSelectorSettings
from reid_edge.camera.detectors import DetectorSettings, MotionSettings
from reid_edge.camera.filters import FilterSettings
from reid_edge.camera.person_check import PersonSettings
from reid_edge.camera.sources import SourceSettings
from reid_edge.camera.tracking import TrackerSettings
from reid_edge.camera.tracklets import TrackletSettings
from reid_edge.errors import SettingsError
from reid_edge.manifest import EngineChoice, PrecisionChoice
from reid_edge.redaction import remember
from reid_edge.settings import Tables, checked_settings
from reid_edge.settings import read_settings as read_tables
from reid_edge.upstream.observation import DEFAULT_GALLERY, MAX_GALLERIES
from reid_edge.upstream.tls import TlsFiles
from reid_edge.wire_names import EXPECTED, PATTERN

Positive = Annotated[int, msgspec.Meta(gt=0)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
WireName = Annotated[str, msgspec.Meta(pattern=PATTERN)]

IN_PROCESS = ("sqlite", "postgresql", "postgres", "milvus")
"""Schemes of an upstream URI that names a store, which this process opens itself."""


class CameraSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Identity of the camera.

    Attributes:
        name: Name of the camera, sent with every feature. If there is a key, a pseudonym is sent instead.
        pseudonym_key: File with the key of the pseudonym. It is created if it does not exist, and only its owner can
            read it.
        off_switch: File that switches the camera off: while it exists, no frame is processed.
    """

    name: WireName = "camera"
    pseudonym_key: Path | None = None
    off_switch: Path | None = None


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Engine that turns crops into features.

    Attributes:
        bundle: Folder that ``reid-edge export`` made, or a symbolic link to it. SIGHUP loads it again.
        engine: Engine, as in ``reid-edge extract``.
        precision: Precision, as in ``reid-edge extract``.
        threads: CPU threads of the engine. Default: the engine decides.
        device: CPU; OpenVINO's GPU, GPU.1, NPU or AUTO; or ONNX Runtime's CUDA, TENSORRT, OPENVINO, DML. A TensorRT
            plan runs on the GPU without it.
        max_batch: Largest number of crops computed at once. Each batch size up to it costs memory.
        trusted_keys: Public keys (PEM files or base64). If any is given, the bundle must be signed by one of them
            (docs/bundle.md).
    """

    bundle: Path
    engine: EngineChoice = "auto"
    precision: PrecisionChoice = "auto"
    threads: Positive | None = None
    device: str = "CPU"
    max_batch: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 8
    trusted_keys: tuple[str, ...] = ()


class PipelineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Waiting of crops for the engine.

    Attributes:
        max_latency_ms: Longest time from the start of a frame's detection to the features of its crops, ms. Within it,
            crops wait for a fuller batch.
        max_waiting_crops: Largest number of waiting crops. Above it, the oldest crop of a live source is dropped; a
            file waits.
        opencv_threads: CPU threads of OpenCV for decoding, detection and resizing.
    """

    max_latency_ms: Positive = 250
    max_waiting_crops: Positive = 128
    opencv_threads: Positive = 1


class UpstreamSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Gallery that receives the features, and the outbox that keeps them until it has them.

    Attributes:
        uri: Address of the gallery: ``mqtts://host``, ``https://host``, or a store opened by this process:
            ``sqlite:FILE``, ``postgresql://…``, ``milvus:…``. ``mqtt://`` and ``http://`` work only with ``insecure``
            and on loopback.
        galleries: Names of the galleries that shall have every observation (``--name`` of ``reid-edge gallery serve``).
            The outbox keeps an observation until all of them have acknowledged it.
        tls: PEM files: ``ca`` signed the gallery's certificate; ``cert`` and ``key`` are this camera's.
        insecure: Permit unencrypted connections, to this machine only.
        encoding: Encoding of features on the wire.
        max_rows: Largest number of observations in the outbox.
        max_mb: Largest size of these observations, megabytes (10⁶ bytes). The file takes a tenth more, its log 16 MB.
        when_full: What to drop when the outbox is full: ``drop-oldest`` or ``refuse-newest``. The gallery is told of
            the gap.
        retention_hours: Hours after which an undelivered observation is dropped. The gallery is told of the gap.
        gallery_retention_hours: Hours that a store opened by this process keeps observations; the store remembers the
            value. Default: as it is, 72 for a new store.
        keep_acknowledged_hours: Hours to keep observations that the gallery has acknowledged, so that a restored
            gallery can ask for them again. At most ``retention_hours``; 0 keeps none.
        synchronous: ``FULL`` survives a power cut. ``NORMAL`` may lose the last second.
        resend_s: Seconds after which an observation that is not acknowledged is sent again.
        max_batch_kb: Largest batch by MQTT or HTTP, units of 1,024 bytes. A broker may ask for smaller ones.
    """

    uri: str = "sqlite:gallery.db"
    galleries: Annotated[tuple[WireName, ...], msgspec.Meta(min_length=1, max_length=MAX_GALLERIES)] = (
        DEFAULT_GALLERY,
    )
    tls: TlsFiles | None = None
    insecure: bool = False
    encoding: Literal["fp16", "fp32", "int8"] = "fp16"
    max_rows: Positive = 100_000
    max_mb: Positive = 256
    when_full: Literal["drop-oldest", "refuse-newest"] = "drop-oldest"
    retention_hours: Annotated[float, msgspec.Meta(gt=0, le=87_600)] = 72.0
    gallery_retention_hours: Annotated[float, msgspec.Meta(gt=0, le=8784)] | None = None
    keep_acknowledged_hours: Annotated[float, msgspec.Meta(ge=0, le=87_600)] = 0.0
    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    resend_s: Seconds = 10.0
    max_batch_kb: Annotated[int, msgspec.Meta(ge=2, le=4096)] = 128


class OperationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """State, status pages, logs and stopping of the agent.

    Attributes:
        state_dir: Folder of the outbox. Default: systemd's state directory, else ``~/.local/state/reid-edge/NAME``.
        listen: IPv4 loopback address of ``/metrics`` and ``/healthz``. Empty: neither is served.
        log_format: ``json`` for a log collector, ``text`` for a person. ``auto``: text on a terminal, else JSON.
        log_level: Least severe level to log.
        stalled_s: Seconds without a frame (live source), or without a readable one (any source), that make the agent
            unhealthy.
        undelivered_s: Seconds that the oldest observation may wait for delivery before the agent is unhealthy. They
            count from when it was made; the capture times of a file play no part.
        drain_s: Longest time that a stop waits for acknowledgements, seconds. The rest stays in the outbox.
    """

    state_dir: Path | None = None
    listen: Annotated[str, msgspec.Meta(pattern=r"^((127\.\d+\.\d+\.\d+|localhost):\d{1,5})?$")] = "127.0.0.1:9465"
    log_format: Literal["auto", "json", "text"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    stalled_s: Seconds = 60.0
    undelivered_s: Seconds = 600.0
    drain_s: Annotated[float, msgspec.Meta(ge=0)] = 5.0


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of ``reid-edge run``."""

    source: SourceSettings
    engine: EngineSettings
    camera: CameraSettings = CameraSettings()
    detector: DetectorSettings = MotionSettings()
    filter: FilterSettings = FilterSettings()
    tracker: TrackerSettings = TrackerSettings()
    person: PersonSettings = PersonSettings()
    gate: CropSelectorSettings = CropSelectorSettings()
    tracklet: TrackletSettings = TrackletSettings()
    pipeline: PipelineSettings = PipelineSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    operation: OperationSettings = OperationSettings()

    @property
    def in_process(self) -> bool:
        """True if the gallery is a store that this process opens itself."""
        return self.upstream.uri.split(":", 1)[0] in IN_PROCESS

    @property
    def state_dir(self) -> Path:
        """Folder of the outbox.

        Raises:
            SettingsError: No folder is given, and the user has no home folder, or the folder is another camera's.
        """
        if self.operation.state_dir:
            return self.operation.state_dir
        systemd = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
        if systemd:
            return Path(systemd)
        try:
            root = Path.home() / ".local/state/reid-edge"
        except RuntimeError as error:
            raise SettingsError("operation.state_dir: this user has no home folder; give --state-dir.") from error
        return _own_folder(root, self.camera.name)


def _own_folder(root: Path, name: str) -> Path:
    """Return a camera's folder; on some file systems that of ``Gate`` is that of ``gate``."""
    folder = root / name
    with contextlib.suppress(OSError):
        if folder.is_dir() and name not in (there := [each.name for each in root.iterdir()]):
            other = next((each for each in there if each.lower() == name.lower()), "another camera")
            raise SettingsError(
                f"camera.name: on this file system the folder of '{name}' is that of '{other}', {folder}; give one of "
                "the cameras another name, or --state-dir."
            )
    return folder


GUIDE = "docs/camera.md"
#: Expected values of keys whose type alone does not tell them, for messages.
FORMS = {
    "camera.name": f"expected {EXPECTED}",
    "operation.listen": "expected 127.0.0.1:PORT, localhost:PORT, or '' for none",
}


def read_settings(path: Path) -> Tables:
    """Read the tables of a TOML file, without checking them.

    Raises:
        SettingsError: The file cannot be read, or is no TOML.
    """
    return read_tables(path, guide=GUIDE)


def parse_settings(tables: Tables, *, origin: str = "settings") -> AgentSettings:
    """Check settings and return them.

    Raises:
        SettingsError: A key is missing or unknown, or has a value that it cannot have; the message names it.
    """
    settings = checked_settings(tables, AgentSettings, origin=origin, guide=GUIDE, forms=FORMS)
    for address in (settings.source.uri, settings.upstream.uri):
        remember(address)
    return settings
