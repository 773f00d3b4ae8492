"""``reid-edge run``: run the camera agent."""

from __future__ import annotations

import contextlib
import datetime
import difflib
import logging
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reid_edge.cli.shared_options import TrustedKeyOption
from reid_edge.console import console, extra, followed, output_may_be_full, print_table
from reid_edge.errors import GalleryError, OutputError, SettingsError, StoreError, UsageError
from reid_edge.gallery.entries import LONGEST_RETENTION_HOURS
from reid_edge.gallery.times import now_us, parse_time, time_text
from reid_edge.redaction import redacted
from reid_edge.system.private_memory import keep_memory_private
from reid_edge.system.stop_signals import DEADLINE_S, held
from reid_edge.upstream.outbox.destination import place

if TYPE_CHECKING:
    from reid_edge.camera.agent import Agent
    from reid_edge.camera.settings import AgentSettings, UpstreamSettings
    from reid_edge.settings import Tables

log = logging.getLogger(__name__)

#: What follows the kind in ``--detector KIND:VALUE``.
DETECTOR_VALUES = {"motchallenge": "path", "jsonlines": "listen", "callable": "function"}

# What 'run' and 'preview' take alike; None leaves it to the settings file.
CameraBundle = Annotated[Path | None, typer.Argument(help="Folder that 'reid-edge export' made.")]
Config = Annotated[Path | None, typer.Option(help="TOML file of settings (docs/camera.md). Other options override it.")]
Source = Annotated[
    str | None, typer.Option(help="Video file, folder of images, rtsp://…, /dev/video0, or gst:PIPELINE.")
]
DetectorName = Annotated[
    str | None,
    typer.Option(
        help="Name of a detector ('reid-edge detector list'), FILE.onnx or FILE.xml, motion, motchallenge:FILE, "
        "jsonlines:stdin or callable:MODULE:FUNCTION. Default: motion."
    ),
]
CameraEngine = Annotated[
    str | None, typer.Option(help="auto, native, openvino, onnxruntime or tensorrt. Default: auto.")
]
CameraPrecision = Annotated[str | None, typer.Option(help="auto, fp32, fp16, int8 or tuned. Default: auto.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any other setting: table.key=VALUE, e.g. detector.first_frame=0. May be repeated."),
]


def run(
    bundle: CameraBundle = None,
    config: Config = None,
    source: Source = None,
    detector: DetectorName = None,
    upstream: Annotated[
        str | None,
        typer.Option(
            help="Where to send features: sqlite:FILE, postgresql://…, milvus:…, mqtts://HOST or https://HOST."
        ),
    ] = None,
    camera: Annotated[str | None, typer.Option(help="Name of the camera. Default: camera.")] = None,
    engine: CameraEngine = None,
    precision: CameraPrecision = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: the engine decides.")] = None,
    trusted_key: TrustedKeyOption = None,
    max_latency_ms: Annotated[
        int | None, typer.Option(min=1, help="Longest time from frame to feature, ms. Default: 250.")
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Folder of the outbox. Default: ~/.local/state/reid-edge/CAMERA.")
    ] = None,
    listen: Annotated[
        str | None, typer.Option(help="Address of /metrics and /healthz; '' for none. Default: 127.0.0.1:9465.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Permit unencrypted connections, to this machine only.")
    ] = False,
    start: Annotated[
        str | None,
        typer.Option(help="Time at which a file begins: 2026-11-23T14:05 (local), 3d (ago). Default: it ends now."),
    ] = None,
    retention_hours: Annotated[
        float | None,
        typer.Option(help="Hours to keep observations in a store opened by this process. Default: 72 for a new store."),
    ] = None,
    set_: Assignments = None,
    check: Annotated[bool, typer.Option("--check", help="Check that the agent could start, and exit.")] = False,
) -> None:
    """Run a camera: detect and track people, compute their features, and send these to a gallery."""
    given = {
        "engine.bundle": bundle and str(bundle),
        "engine.engine": engine,
        "engine.precision": precision,
        "engine.threads": threads,
        "engine.trusted_keys": trusted_key or None,
        "source.uri": source,
        "source.start": None if start is None else _moment(start),
        "camera.name": camera,
        "upstream.uri": upstream,
        "upstream.insecure": insecure or None,
        "upstream.gallery_retention_hours": retention_hours,
        "pipeline.max_latency_ms": max_latency_ms,
        "operation.state_dir": state_dir and str(state_dir),
        "operation.listen": listen,
    }
    tables = _merged(config, given, detector, set_)
    settings = _parsed(tables, config)
    if check:
        _check(settings)
    else:
        shared: list[tuple[str, object]] = [
            ("--config", config),
            ("--source", source and redacted(source)),
            ("--detector", detector),
            ("--engine", engine),
            ("--precision", precision),
            *(("--trusted-key", key) for key in trusted_key or ()),
        ]
        preview = _preview_command(bundle, shared, set_ or ())
        _run(settings, any_port=not _sets_listen(tables), preview=preview)


def _preview_command(bundle: Path | None, options: Sequence[tuple[str, object]], assignments: Sequence[str]) -> str:
    """Return the command that shows what this camera sees, for a shell.

    Args:
        bundle: As it was given; None if it stands in the settings file.
        options: Names and values of the options that both commands take; None for those that were not given.
        assignments: Values of ``--set``.  Those of the gallery, which a preview does not open, are left out.
    """
    words = ["reid-edge", "preview"] + ([] if bundle is None else [str(bundle)])
    for name, value in options:
        words += [] if value is None else [name, str(value)]
    for text in assignments:
        key, _, value = text.partition("=")
        if not key.strip().startswith("upstream."):
            words += ["--set", f"{key}={redacted(value)}" if key.strip() == "source.uri" else text]
    return shlex.join([*words, "--out", "preview.html"])


def _moment(text: str) -> datetime.datetime:
    now = now_us()
    return datetime.datetime.fromtimestamp(parse_time(text, now_us=now) / 1e6, datetime.timezone.utc)


def camera_settings(
    config: Path | None, given: Mapping[str, object], detector: str | None, assignments: Sequence[str] | None
) -> AgentSettings:
    """Read the settings of a camera from a file and from options, which override it.

    Args:
        config: The file; None if there is none.
        given: Values by the names of their settings; None for those that are not given.
        detector: Value of ``--detector``.
        assignments: Values of ``--set``.

    Raises:
        UsageError: There is no source or no bundle, or the detector is unknown.
        SettingsError: The file cannot be read, or a setting is wrong.
    """
    return _parsed(_merged(config, given, detector, assignments), config)


def _merged(
    config: Path | None, given: Mapping[str, object], detector: str | None, assignments: Sequence[str] | None
) -> Tables:
    from reid_edge.camera.settings import read_settings
    from reid_edge.settings import assignment, overridden

    tables = overridden({} if config is None else read_settings(config), given)
    if detector is not None:
        tables["detector"] = detector_table(detector)
    tables = overridden(tables, dict(map(assignment, assignments or ())))
    for section, key, way in (("source", "uri", "--source VIDEO"), ("engine", "bundle", "BUNDLE as an argument")):
        if section not in tables:
            raise UsageError(f"no {section}: give {way}, or [{section}] {key} in a settings file (docs/camera.md).")
    return tables


def _parsed(tables: Tables, config: Path | None) -> AgentSettings:
    from reid_edge.camera.settings import parse_settings

    return parse_settings(tables, origin=str(config or "settings"))


def _sets_listen(tables: Tables) -> bool:
    operation = tables.get("operation")
    return isinstance(operation, dict) and "listen" in operation


def detector_table(text: str) -> dict[str, str]:
    """Make the table ``[detector]`` for a name of the catalogue, a file, ``KIND`` or ``KIND:VALUE``.

    Raises:
        UsageError: It is none of these.
    """
    from reid_edge.camera.detectors.catalogue import catalogue

    kind, _, value = text.partition(":")
    if kind in DETECTOR_VALUES and value:
        return {"kind": kind, DETECTOR_VALUES[kind]: value}
    if text == "motion":
        return {"kind": "motion"}
    if text in catalogue() or "/" in text or Path(text).suffix:
        return {"kind": "model", "path": text}
    close = difflib.get_close_matches(text, catalogue(), n=1)
    raise UsageError(
        f"--detector: expected a name ('reid-edge detector list'), FILE.onnx, FILE.xml, motion, "
        f"{', '.join(f'{known}:VALUE' for known in DETECTOR_VALUES)}; got '{text}'."
        + (f" Did you mean {close[0]}?" if close else "")
    )


def _check(settings: AgentSettings) -> None:
    with extra("camera", "running a camera"):
        from reid_edge.camera.check import examine
        from reid_edge.camera.publishing import name_on_the_wire

    findings = examine(settings)
    rows = [[finding.subject, finding.state, finding.detail] for finding in findings]
    name, wire = settings.camera.name, name_on_the_wire(settings.camera)
    print_table(f"camera {name}" + f", upstream {wire}" * (wire != name), ("", "state", "detail"), rows)
    if wrong := [finding.subject for finding in findings if finding.state == "wrong"]:
        raise SettingsError(f"{', '.join(wrong)}: wrong. The details say what to do.")


def _refuse_what_has_expired(settings: AgentSettings) -> None:
    """Refuse a file that is older than its gallery keeps anything, before it is played for nothing.

    Raises:
        UsageError: Its first frame is.
    """
    start = settings.source.start
    if start is None or settings.source.loop or not settings.in_process:
        return
    hours, age_hours = _kept_hours(settings.upstream), (now_us() / 1e6 - start.timestamp()) / 3600
    if hours is not None and age_hours > hours:
        longer = math.ceil(age_hours + 24)
        raise UsageError(
            f"the file begins {age_hours:.0f} hours ago, and the gallery keeps nothing longer than {hours:g} hours: "
            + (
                f"give --retention-hours {longer}, or leave out --start."
                if longer <= LONGEST_RETENTION_HOURS
                else f"it can keep {LONGEST_RETENTION_HOURS:g} at most. Leave out --start: times then end now."
            )
        )


def _kept_hours(upstream: UpstreamSettings) -> float | None:
    """Return how long a store in this process will keep observations; None if it cannot be asked now."""
    from reid_edge.gallery.store import open_store
    from reid_edge.gallery.store.base import DEFAULT_RETENTION_HOURS

    if upstream.gallery_retention_hours is not None:
        return upstream.gallery_retention_hours
    if upstream.uri.startswith("sqlite:") and not Path(upstream.uri.removeprefix("sqlite:")).expanduser().exists():
        return DEFAULT_RETENTION_HOURS
    try:
        with contextlib.closing(open_store(upstream.uri, create=False)) as store:
            return store.retention_hours()
    except StoreError:
        return None


def _warn_of_repetition(settings: AgentSettings, file: Path) -> None:
    from reid_edge.camera.played_files import played_us

    if (before_us := played_us(settings.state_dir, file, place(settings.upstream.uri))) is not None:
        log.warning(
            "%s was run for camera %s and this gallery before, on %s: the same people are now stored a second time. "
            "Results name the run of each; to keep the runs apart give another --camera or another --upstream",
            *(file, settings.camera.name, time_text(before_us)),
        )


def _note_run(agent: Agent, file: Path, first_track: int) -> None:
    from reid_edge.camera.played_files import PlayedFile, note_played, version_of

    if not agent.publisher.stats.published:
        return
    try:
        run = PlayedFile(
            file=str(file.resolve()),
            version=version_of(file),
            at_us=now_us(),
            camera=agent.camera,
            gallery=place(agent.settings.upstream.uri),
            epoch=agent.outbox.incarnation,
            first_track=first_track,
            next_track=agent.pipeline.tracklets.next_tracklet,
            first_us=None if agent.settings.source.loop else agent.pipeline.source.stats.first_us,
        )
        note_played(agent.settings.state_dir, run)
    except (OSError, OutputError) as error:
        log.warning("a second run of %s will not be noticed, nor places in it shown: %s", file, error)


def _refuse_nothing_stored(agent: Agent, last_before: int) -> None:
    """End with an error where a file was played and the gallery refused all of it.

    Args:
        agent: It has ended.
        last_before: Number of the last row of its outbox before; what had waited may have been stored in the meantime.

    Raises:
        GalleryError: It did.
    """
    delivery = agent.delivery.stats
    nothing = delivery.newest_acknowledged <= last_before < agent.outbox.last_seq
    if not agent.pipeline.source.live and delivery.refused_waiting and nothing:
        raise GalleryError(
            f"the gallery has refused all that was seen, e.g.: {delivery.last_refusal} What was refused waits in the "
            "outbox. If it is older than the gallery keeps: --retention-hours HOURS, or reid-edge gallery expire STORE "
            "--retention-hours HOURS."
        )


def _run(settings: AgentSettings, *, any_port: bool, preview: str) -> None:
    _refuse_what_has_expired(settings)
    file = Path(settings.source.uri).expanduser()
    is_file = file.is_file()
    with held() as signals:
        not_private = keep_memory_private()
        with extra("camera", "running a camera"):
            import cv2

            from reid_edge.camera.agent import Agent
            from reid_edge.logs import set_up_logs

        signals.deadline_s = DEADLINE_S + settings.operation.drain_s
        set_up_logs(settings.operation.log_format, settings.operation.log_level)
        for problem in not_private:
            log.warning("pictures could get into a core dump: %s", problem)
        cv2.setNumThreads(settings.pipeline.opencv_threads)
        _check_listening(settings.operation.listen)
        if is_file:
            _warn_of_repetition(settings, file)
        agent = Agent(settings, before_each_part=signals.check)
        with contextlib.closing(agent), _status(agent, settings.operation.listen, any_port=any_port):
            signals.on_reload(agent.reload)
            signals.on_stop(agent.stop)
            stats, first_track = agent.pipeline.source.stats, agent.pipeline.tracklets.next_tracklet
            last_before = agent.outbox.last_seq
            with followed(agent.pipeline.source.name, lambda: stats.position, stats.expected, log.info):
                agent.run()
            if is_file:
                _note_run(agent, file, first_track)
            with output_may_be_full():
                _report(agent, first_track, preview)
            _refuse_nothing_stored(agent, last_before)


def _check_listening(address: str) -> None:
    """Check the address of the pages before anything is made that would be left behind."""
    if address:
        with extra("camera", "serving metrics"):
            from reid_edge.camera.status import check_address

        check_address(address)


def _status(agent: Agent, address: str, *, any_port: bool) -> contextlib.AbstractContextManager[object]:
    if not address:
        return contextlib.nullcontext()
    with extra("camera", "serving metrics"):
        from reid_edge.camera.status import AgentMetrics, StatusPages

    return contextlib.closing(StatusPages(address, AgentMetrics(agent), agent.health, any_port=any_port))


def _report(agent: Agent, first_track: int, preview: str) -> None:
    from reid_edge.camera.review import Counts, listed, suspicions

    delivery = agent.delivery.stats
    counts = Counts.of(agent.pipeline, published=agent.publisher.stats.published)
    withheld = f"{sum(counts.withheld.values()):,}" + (f": {listed(counts.withheld)}" if counts.withheld else "")
    rows = [
        ["frames", f"{counts.frames:,}"],
        ["boxes of people", f"{counts.detections:,}"],
        ["crops embedded", f"{counts.embedded:,}"],
        ["tracklets published", f"{agent.pipeline.tracklets.next_tracklet - first_track:,}"],
        ["tracklets withheld, not like one whole person (docs/tracking.md)", withheld],
        ["features published: at 3 s, every 30 s and at the end of a tracklet", f"{counts.published:,}"],
        ["features stored upstream in this run, with those that had waited", f"{delivery.acknowledged:,}"],
        ["waiting in the outbox", f"{agent.outbox.depth:,}"],
    ]
    if delivery.refused_waiting:
        rows.append(["of these refused", f"{delivery.refused_waiting:,}: {delivery.last_refusal}"])
    if (first_us := agent.pipeline.source.stats.first_us) is not None and not agent.pipeline.source.live:
        first = datetime.datetime.fromtimestamp(first_us / 1e6, datetime.timezone.utc).isoformat()
        rows.append(["first frame (--file-start of gallery search)", first.replace("+00:00", "Z")])
    print_table(f"camera {agent.camera}", ("", ""), rows)
    _warn(suspicions(counts), preview)
    if agent.settings.in_process and counts.published:
        uri, bundle = shlex.quote(agent.transport.name), shlex.quote(str(agent.settings.engine.bundle))
        console.print(
            f"Next: reid-edge gallery tracklets {uri} --purpose TEXT, then reid-edge gallery search {uri} "
            f"--image CROP.jpg --bundle {bundle} --purpose TEXT",
            soft_wrap=True,
        )


def _warn(found: Sequence[str], preview: str) -> None:
    """Say what looks wrong in the counts, and how to see what the camera saw."""
    for text in found:
        console.print(f"warning: {text}", soft_wrap=True)
    if found:
        console.print(f"See what it saw (publishes nothing): {preview}", soft_wrap=True)
