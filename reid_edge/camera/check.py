"""Is everything there that an agent needs?  Looks at no person and makes nothing but the key of a pseudonym."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reid_edge.camera.detection_stage import OffSwitch
from reid_edge.camera.detectors import open_detector
from reid_edge.camera.embedding_stage import load_model
from reid_edge.camera.settings import AgentSettings
from reid_edge.camera.sources import open_source
from reid_edge.camera.upstream import name_on_the_wire, open_transport
from reid_edge.errors import OutboxInUseError, ReidEdgeError, StoreError, TransportError
from reid_edge.upstream.message import decode_ack, encode_batch
from reid_edge.upstream.observation import Ack
from reid_edge.upstream.outbox import Outbox
from reid_edge.upstream.transport import Transport

#: How long a camera or a receiving end may take to answer.
ANSWER_S = 10.0


@dataclass(frozen=True)
class Finding:
    """What was looked at, and what was found: ``away`` is what may mend itself, so the agent starts without it."""

    subject: str
    state: Literal["ok", "away", "wrong"]
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
    return Finding("model", "ok", f"{settings.engine.bundle}: {model.description}, golden features as exported")


def _detector(settings: AgentSettings, closing: contextlib.ExitStack) -> Finding:
    detector = open_detector(settings.detector)
    closing.callback(detector.close)
    return Finding("detector", "ok", detector.description)


def _source(settings: AgentSettings, closing: contextlib.ExitStack) -> Finding:
    source = closing.enter_context(open_source(settings.source))
    frame = source.read(ANSWER_S)
    if frame is None:
        return Finding(
            "source", "away", f"{source.name}: {source.stats.error or 'no frame'}; tried again until it does"
        )
    height, width = frame.image.shape[:2]
    return Finding("source", "ok", f"{source.name}: {width}x{height}")


def _outbox(settings: AgentSettings, closing: contextlib.ExitStack) -> Finding:
    path = settings.state_dir / "outbox.db"
    if not path.exists():
        return Finding("outbox", "ok", f"{path} will be made") if _can_be_made(path) else _not_made("outbox", path)
    try:
        outbox = Outbox(path)
    except OutboxInUseError:
        return Finding("outbox", "ok", f"{path}: in use, an agent is running")
    closing.callback(outbox.close)
    return Finding("outbox", "ok", f"{outbox.path}: {outbox.depth} observations wait")


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
    """A gallery in this process: looked at, not made, and nothing of it expires."""
    from reid_edge.gallery.store import open_store

    scheme, _, rest = uri.partition(":")
    if scheme == "sqlite" and not (path := Path(rest)).exists():
        return Finding("upstream", "ok", f"{path} will be made") if _can_be_made(path) else _not_made("upstream", path)
    try:
        store = open_store(uri, create=False)
    except StoreError as error:
        return Finding("upstream", "wrong" if scheme == "sqlite" else "away", str(error))
    closing.callback(store.close)
    return Finding("upstream", "ok", f"{store.name}: a gallery in this process")


def _answer(transport: Transport, camera: str) -> tuple[Ack | None, str]:
    """Send a batch of nothing and wait for its acknowledgement; returns why none came."""
    problem, give_up = "no acknowledgement, is a collector running?", time.monotonic() + ANSWER_S
    sent = False
    while time.monotonic() < give_up:
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
    """What a person has to put right is wrong; all else may mend itself."""
    backoffs = [getattr(part, "backoff", None) for part in (transport, getattr(transport, "link", None))]
    failures = [backoff for backoff in backoffs if backoff is not None and backoff.reason]
    wrong = any(backoff.alerts for backoff in failures)
    reasons = [backoff.reason for backoff in failures] or [problem.rstrip(".")]
    reason = "; ".join(reason.removeprefix(f"{transport.name}: ") for reason in reasons)
    then = "mend this" if wrong else "features wait in the outbox until it is there"
    return Finding("upstream", "wrong" if wrong else "away", f"{transport.name}: {reason}; {then}")


def _listen(settings: AgentSettings, closing: contextlib.ExitStack) -> Finding:
    if not settings.operation.listen:
        return Finding("metrics", "ok", "not served")
    host, port = settings.operation.listen.rsplit(":", 1)
    try:
        closing.enter_context(socket.create_server((host, int(port))))
    except (OSError, OverflowError) as error:
        return Finding("metrics", "wrong", f"operation.listen: {settings.operation.listen}: {error}")
    return Finding("metrics", "ok", f"http://{settings.operation.listen}/metrics and /healthz")


def _switch(settings: AgentSettings, _closing: contextlib.ExitStack) -> Finding:
    switch = OffSwitch(settings.camera.off_switch)
    off = switch()
    if switch.trouble:
        return Finding("off switch", "wrong", switch.trouble)
    return Finding("off switch", "ok", "the camera is off" if off else "the camera is on")


def _can_be_made(path: Path) -> bool:
    """Whether this user may make a file there, folders included."""
    there = next(folder for folder in path.absolute().parents if folder.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _not_made(subject: str, path: Path) -> Finding:
    return Finding(subject, "wrong", f"{path} cannot be made: this user may not write there")
