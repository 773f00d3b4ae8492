"""The request of a restored gallery: cameras are to send again what was acknowledged and is not in the backup."""

from __future__ import annotations

import json
from dataclasses import asdict

from reid_edge.errors import MessageError
from reid_edge.gallery.store import Store
from reid_edge.upstream.message import check_replay
from reid_edge.upstream.observation import Replay

_SETTING = "replay"


def replay_request(store: Store) -> Replay | None:
    """Return the request that a gallery makes; None if it makes none, or one that is damaged and cannot be sent.

    Raises:
        StoreError: The store fails.
    """
    text = store.settings(_SETTING).get(_SETTING)
    try:
        fields = None if text is None else json.loads(text)
        return None if fields is None else check_replay(Replay(id=str(fields["id"]), since_us=int(fields["since_us"])))
    except (MessageError, ValueError, TypeError, KeyError, ArithmeticError):
        return None


def request_replay(store: Store, request: Replay) -> None:
    """Have a gallery make a request from now on, in each of its acknowledgements.

    Raises:
        StoreError: The store fails.
    """
    store.change_settings({_SETTING: json.dumps(asdict(request))})
