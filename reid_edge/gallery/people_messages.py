"""Events of people as messages to a broker, and as JSON."""

from __future__ import annotations

import json
from typing import Any

from reid_edge.gallery.store.people import PersonEvent


def people_topic(gallery: str, event: PersonEvent) -> str:
    """Return the topic of an event: ``reid/v1/GALLERY/people/KIND``; the kind ``seen again`` is ``seen-again``."""
    return f"reid/v1/{gallery}/people/{event.kind.replace(' ', '-')}"


def event_fields(event: PersonEvent) -> dict[str, Any]:
    """Return an event as JSON keeps it; ``epoch`` is the incarnation."""
    camera, incarnation, track = event.tracklet
    return {
        "number": event.number,
        "at_us": event.at_us,
        "event": event.kind,
        "person": event.person,
        "other": event.other,
        "camera": camera,
        "epoch": incarnation,
        "track": track,
        "similarity": None if event.similarity is None else round(event.similarity, 3),
        "reason": event.reason,
        "model_hash": event.model_hash,
    }


def event_payload(gallery: str, event: PersonEvent) -> bytes:
    """Return the message about an event: JSON, UTF-8."""
    return json.dumps({"gallery": gallery, **event_fields(event)}).encode()
