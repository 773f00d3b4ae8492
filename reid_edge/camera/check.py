"""Check that an agent with these settings could start, without looking at people.

Creates nothing but the key of a pseudonym, where one is configured and missing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reid_edge.camera.detection_stage import OffSwitch
from reid_edge.camera.detectors import open_detector
from reid_edge.camera.embedding_stage import load_model, why_on_cpu
from reid_edge.camera.publishing import name_on_the_wire, open_transport
from reid_edge.camera.settings import AgentSettings
from reid_edge.camera.sources import open_source
from reid_edge.camera.state_dir import disk_trouble
from reid_edge.errors import OutboxInUseError, ReidEdgeError, SettingsError, StoreError, TransportError
from reid_edge.redaction import redacted
from reid_edge.upstream.message import decode_ack, encode_batch
from reid_edge.upstream.observation import Ack
from reid_edge.upstream.outbox import Destination, Outbox
from reid_edge.upstream.transport import Transport
from reid_edge.wording import counted

#: Longest time to wait for a frame of the camera, or for an answer of the gallery.
ANSWER_S = 10.0
#: Answers of a camera, and FFmpeg's words, that stay the same until a person changes something.
_NEEDS_A_PERSON = re.compile(r"\b40[134] |missing in uri|Protocol not found")


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        subject: Part that was checked.
        state: ``ok``; ``unreachable``: the agent starts without the part and keeps trying; ``wrong``: the agent would
            not start, would never work, would be unhealthy from the start, or would lose what it sees.
        detail: Evidence, for a person.
    """

    subject: str
    state: Literal["ok", "unreachable", "wrong"]
    detail: str


def examine(settings: AgentSettings) -> list[Finding]:
    """Open everything that the settings name, one after the other, and close it again."""
    steps: dict[str, Callable[[AgentSettings, contextlib.ExitStack], Finding]] = {
        "model": _model,
        "detector": _detector,
        "source": _source,
        "off switch": _switch,
        "outbox": _outbox,
        "upstream": _upstream,
        "metrics": _listen,
    }
    findings = []
    for subject, step in steps.items():
        try:
            with contextlib.ExitStack() as closing:
                findings.append(step(settings, closing))
        except ReidEdgeError as error:
            findings.append(Finding(subject, "wrong", str(error)))
    return findings


def _model(settings: AgentSettings, _closing: contextlib.ExitStack) -> Finding:
    model = load_model(settings.engine)
    if reason := why_on_cpu(model):
        return Finding("model", "wrong", reason)
    return Finding("model", "ok", f"{model.bundle.title}: {model.description}, golden features as exported")


def _detector(settings: AgentSettings, closing: contextlib.ExitStack) -> Finding:
    detector = open_detector(settings.detector)
    closing.callback(detector.close)
    return Finding("detector", "ok", detector.description)


def _source(settings: AgentSettings, closing: contextlib.ExitStack) -> Finding:
    source = closing.enter_context(open_source(settings.source))
    frame = source.read(ANSWER_S)
    if frame is None:
        error = source.stats.error or "no frame"
        wrong = _NEEDS_A_PERSON.search(error) is not None
        then = "fix the address, user or password" if wrong else "the agent tries again until one comes"
        return Finding("source", "wrong" if wrong else "unreachable", f"{source.name}: {error}; {then}")
    height, width = frame.image.shape[:2]
    return Finding("source", "ok", f"{source.name}: {width}x{height}")


def _outbox(settings: AgentSettings, closing: contextlib.ExitStack) -> Finding:
    path = settings.state_dir / "outbox.db"
    if trouble := disk_trouble(path):
        return Finding(
            "outbox",
            "wrong",
            f"{path}: {trouble}. The agent would start; observations would wait in memory, and be lost when it ends",
        )
    if not path.exists():
        return (
            Finding("outbox", "ok", f"{path} will be created")
            if _can_be_created(path)
            else _not_creatable("outbox", path)
        )
    try:
        outbox = Outbox(path)
    except OutboxInUseError:
        return Finding("outbox", "ok", f"{path}: in use, an agent is running")
    closing.callback(outbox.close)
    waits = f"{outbox.path}: {counted(outbox.depth, 'waiting observation')}"
    wanted = Destination.of(name_on_the_wire(settings.camera), settings.upstream.uri)
    if outbox.depth and outbox.destination not in ("", str(wanted)):
        waits += (
            f" for {outbox.destination}, and this is {wanted}: the agent will keep them in another file. To see "
            f"and move them: reid-edge outbox list {shlex.quote(str(settings.state_dir))}; "
            f"reid-edge outbox move FILE --to {redacted(settings.upstream.uri)}"
        )
    return Finding("outbox", "ok", waits)


def _upstream(settings: AgentSettings, closing: contextlib.ExitStack) -> Finding:
    if settings.in_process:
        return _store(settings.upstream.uri, closing)
    camera = name_on_the_wire(settings.camera)
    transport = open_transport(settings, camera, closing)
    ack, problem = _answer(transport, camera)
    if ack is None:
        return _no_answer(transport, problem)
    if ack.refused:
        return Finding("upstream", "wrong", f"{transport.name}: {ack.refused[0].reason}")
    return Finding("upstream", "ok", f"{transport.name} answers camera {camera}")


def _store(uri: str, closing: contextlib.ExitStack) -> Finding:
    """Open a gallery of this process; create nothing, and let nothing expire."""
    from reid_edge.gallery.store import open_store

    scheme, _, rest = uri.partition(":")
    if scheme == "sqlite" and not (path := Path(rest)).exists():
        return (
            Finding("upstream", "ok", f"{path} will be created")
            if _can_be_created(path)
            else _not_creatable("upstream", path)
        )
    try:
        store = open_store(uri, create=False)
    except StoreError as error:
        return Finding("upstream", "wrong" if scheme == "sqlite" else "unreachable", str(error))
    except SettingsError as error:
        return Finding("upstream", "wrong", str(error))
    closing.callback(store.close)
    return Finding("upstream", "ok", f"{store.name}: a gallery in this process")


def _answer(transport: Transport, camera: str) -> tuple[Ack | None, str]:
    """Send an empty batch and wait for its acknowledgement; return it, or the reason why none came."""
    problem, deadline = "no acknowledgement, is a collector running?", time.monotonic() + ANSWER_S
    sent = False
    while time.monotonic() < deadline:
        try:
            if not sent:
                transport.send(encode_batch(camera, "check", []))
                sent = True
        except TransportError as error:
            problem = str(error)
        for payload in transport.acks(0.2):
            if payload and (ack := decode_ack(payload)).incarnation == "check":
                return ack, ""
    return None, problem


def _no_answer(transport: Transport, problem: str) -> Finding:
    """Report a missing answer as wrong if a person has to fix its cause, else as unreachable."""
    backoffs = [getattr(part, "backoff", None) for part in (transport, getattr(transport, "link", None))]
    failures = [backoff for backoff in backoffs if backoff is not None and backoff.reason]
    wrong = any(backoff.alerts for backoff in failures)
    reasons = [backoff.reason for backoff in failures] or [problem.rstrip(".")]
    reason = "; ".join(reason.removeprefix(f"{transport.name}: ") for reason in reasons)
    then = "fix this first" if wrong else "features wait in the outbox until it can be reached"
    return Finding("upstream", "wrong" if wrong else "unreachable", f"{transport.name}: {reason}; {then}")


def _listen(settings: AgentSettings, closing: contextlib.ExitStack) -> Finding:
    if not settings.operation.listen:
        return Finding("metrics", "ok", "not served")
    host, port = settings.operation.listen.rsplit(":", 1)
    try:
        closing.enter_context(socket.create_server((host, int(port))))
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        then = "; the agent goes on without, and tries again: is one running?" if taken else ""
        return Finding(
            "metrics",
            "unreachable" if taken else "wrong",
            f"operation.listen: {settings.operation.listen}: {error}{then}",
        )
    return Finding("metrics", "ok", f"http://{settings.operation.listen}/metrics and /healthz")


def _switch(settings: AgentSettings, _closing: contextlib.ExitStack) -> Finding:
    switch = OffSwitch(settings.camera.off_switch)
    off = switch()
    if switch.trouble:
        return Finding("off switch", "wrong", switch.trouble)
    return Finding("off switch", "ok", "the camera is off" if off else "the camera is on")


def _can_be_created(path: Path) -> bool:
    """Tell whether this user may create the file, with the folders that lead to it."""
    there = next(folder for folder in path.absolute().parents if folder.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _not_creatable(subject: str, path: Path) -> Finding:
    return Finding(subject, "wrong", f"{path} cannot be created: this user may not write there")
