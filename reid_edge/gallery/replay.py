"""The request of a restored gallery that cameras send again what was acknowledged and is not in the backup."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from reid_edge.errors import MessageError
from reid_edge.gallery.entries import Record
from reid_edge.gallery.store import Store
from reid_edge.gallery.times import time_text
from reid_edge.upstream.message import check_replay
from reid_edge.upstream.observation import Replay
from reid_edge.wording import counted

_SETTING = "replay"
#: What a camera sends again has come once nothing more of it has come for so long.
QUIET_S = 60.0
#: Cameras that are remembered.
_MOST_CAMERAS = 10_000

log = logging.getLogger(__name__)


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


@dataclass
class _Asked:
    request: str
    at_us: int
    came: int = 0
    last_s: float = 0.0


class ReplayLog:
    """Logs which cameras are asked to send again what they have kept, each once, and how much then comes.

    Observations from before the request count as sent again; some may have waited at the camera for the first time.
    May be used from any thread.

    Args:
        clock: Returns seconds that only grow.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._asked: OrderedDict[str, _Asked] = OrderedDict()

    def asked(self, camera: str, request: Replay, now_us: int) -> None:
        """Take note of a request that goes to a camera with an acknowledgement."""
        with self._lock:
            known = self._asked.get(camera)
            if known is not None and known.request == request.id:
                return
            self._asked[camera] = _Asked(request.id, now_us)
            if len(self._asked) > _MOST_CAMERAS:
                self._asked.popitem(last=False)
        log.info(
            "this gallery was restored: %s is asked to send again what it has kept and saw since %s",
            camera,
            time_text(request.since_us),
        )

    def came(self, records: Iterable[Record]) -> None:
        """Take note of what cameras have brought, and is stored."""
        if not self._asked:
            return
        with self._lock:
            for entry in (record.entry for record in records):
                asked = self._asked.get(entry.camera)
                if asked is not None and entry.last_us < asked.at_us:
                    asked.came, asked.last_s = asked.came + 1, self._clock()

    def report(self) -> None:
        """Log what has come of cameras that have brought nothing more for a while; to be called now and then."""
        with self._lock:
            ended = [
                (camera, asked.came)
                for camera, asked in self._asked.items()
                if asked.came and self._clock() - asked.last_s >= QUIET_S
            ]
            for camera, _ in ended:
                self._asked[camera].came = 0
        for camera, count in ended:
            log.info("%s has sent %s from before it was asked to", camera, counted(count, "observation"))
