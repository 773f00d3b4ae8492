"""Is everything there that an agent needs?  Without looking at a person or storing anything."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from reid_edge.camera.config import AgentConfig
from reid_edge.camera.detectors import open_detector
from reid_edge.camera.model import load_model
from reid_edge.camera.sources import open_source
from reid_edge.camera.upstream import name_on_the_wire, open_transport
from reid_edge.errors import OutboxInUseError, ReidEdgeError, TransportError
from reid_edge.upstream.message import decode_ack, encode_batch
from reid_edge.upstream.outbox import Outbox
from reid_edge.upstream.transports import Transport

#: How long a camera or a receiving end may take to answer.
ANSWER_S = 10.0


@dataclass(frozen=True)
class Finding:
    """What was looked at, and what was found: ``away`` is what may mend itself, so the agent starts without it."""

    subject: str
    state: Literal["ok", "away", "wrong"]
    detail: str


def examine(config: AgentConfig) -> list[Finding]:
    """Open everything that the settings name, one after the other, and close it again."""
    steps: dict[str, Callable[[AgentConfig, contextlib.ExitStack], Finding]] = {
        "model": _model,
        "detector": _detector,
        "source": _source,
        "outbox": _outbox,
        "upstream": _upstream,
    }
    findings = []
    for subject, step in steps.items():
        try:
            with contextlib.ExitStack() as closing:
                findings.append(step(config, closing))
        except ReidEdgeError as error:
            findings.append(Finding(subject, "wrong", str(error)))
    return findings


def _model(config: AgentConfig, _closing: contextlib.ExitStack) -> Finding:
    model = load_model(config.engine)
    return Finding("model", "ok", f"{config.engine.bundle}: {model.description}, golden features as exported")


def _detector(config: AgentConfig, closing: contextlib.ExitStack) -> Finding:
    detector = open_detector(config.detector)
    closing.callback(detector.close)
    return Finding("detector", "ok", detector.description)


def _source(config: AgentConfig, closing: contextlib.ExitStack) -> Finding:
    source = closing.enter_context(open_source(config.source))
    frame = source.read(ANSWER_S)
    if frame is None:
        return Finding(
            "source", "away", f"{source.name}: {source.stats.error or 'no frame'}; tried again until it does"
        )
    height, width = frame.image.shape[:2]
    return Finding("source", "ok", f"{source.name}: {width}x{height}")


def _outbox(config: AgentConfig, closing: contextlib.ExitStack) -> Finding:
    try:
        outbox = Outbox(config.state_dir / "outbox.db")
    except OutboxInUseError:
        return Finding("outbox", "ok", f"{config.state_dir / 'outbox.db'}: in use, an agent is running")
    closing.callback(outbox.close)
    return Finding("outbox", "ok", f"{outbox.path}: {outbox.depth} observations wait")


def _upstream(config: AgentConfig, closing: contextlib.ExitStack) -> Finding:
    camera = name_on_the_wire(config.camera)
    transport = open_transport(config, camera, closing)
    if answer := _no_answer(transport, camera):
        return Finding("upstream", "away", f"{transport.name}: {answer}; features wait in the outbox until it is there")
    return Finding("upstream", "ok", f"{transport.name} answers camera {camera}")


def _no_answer(transport: Transport, camera: str) -> str | None:
    """Send a batch of nothing and wait for its acknowledgement; returns why none came."""
    problem, give_up = "no acknowledgement", time.monotonic() + ANSWER_S
    sent = False
    while time.monotonic() < give_up:
        try:
            if not sent:
                transport.send(encode_batch(camera, "check", []))
                sent = True
        except TransportError as error:
            problem = str(error)
        for payload in transport.acks(0.2):
            if payload and decode_ack(payload).epoch == "check":
                return None
    return problem
