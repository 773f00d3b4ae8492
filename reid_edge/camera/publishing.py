"""Publication of observations: writing them to the outbox, and opening the transport that delivers them."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from reid_edge.camera.settings import AgentSettings, CameraSettings, UpstreamSettings
from reid_edge.errors import MessageError, OutboxError, SettingsError, StoreError
from reid_edge.redaction import redacted, without_passwords
from reid_edge.sparse_log import SparseLog
from reid_edge.upstream.message import Encoding, encode_observation
from reid_edge.upstream.observation import DEFAULT_GALLERY, Observation
from reid_edge.upstream.outbox import OUTBOX, Destination, Outbox, WhenFull, no_gallery
from reid_edge.upstream.pseudonym import camera_pseudonym, load_or_create_key
from reid_edge.upstream.recent_counts import RecentCounts
from reid_edge.upstream.transport import Transport
from reid_edge.wording import counted

if TYPE_CHECKING:
    from reid_edge.gallery.collector import Collector

log = logging.getLogger(__name__)

#: Largest number of observations held in memory; above it the oldest are dropped, counted and declared upstream.
MAX_UNWRITTEN = 10_000
#: Pause between attempts to write, seconds.
RETRY_S = 1.0
#: Observations written in one commit, and most commits a call: 1,024 observations of 1.2 kB.
ROWS_A_COMMIT = 256
COMMITS_A_CALL = 4


@dataclass
class PublisherStats:
    """Counts since the start.  Written by one thread, read by any.

    Attributes:
        published: Observations written to the outbox.
        unwritten: Observations that wait in memory until the outbox is writable again.
        unwritten_since_s: Time at which the oldest of them was published, of the monotonic clock; None if none waits.
        lost: Observations that were dropped while it was not, or that the wire format cannot hold.
        error: Reason why they wait in memory; "" if none does.
    """

    published: int = 0
    unwritten: int = 0
    unwritten_since_s: float | None = None
    lost: int = 0
    error: str = ""


class Publisher:
    """Writes observations to an outbox, in order, and holds them in memory while it cannot be written.

    However many wait, :meth:`publish` costs little: each is encoded once, an outbox that failed is tried once a second
    with a few of them, and those that wait are written a few commits a call.  To be used by one thread.

    Args:
        outbox: Takes the observations.
        encoding: Encoding of their features.
        when_full: Which observations are dropped when too many wait in memory.
        clock: Returns seconds of a monotonic clock.
    """

    def __init__(
        self,
        outbox: Outbox,
        encoding: Encoding,
        *,
        when_full: WhenFull = "drop-oldest",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outbox = outbox
        self._encoding = encoding
        self._when_full = when_full
        self._clock = clock
        self._unwritten: deque[tuple[float, bytes]] = deque()
        self._retry_s = float("-inf")
        self._sparse = SparseLog(log, clock=clock)
        self._told = False  # the log says that the outbox cannot be written
        self._lost_recently = RecentCounts()
        self.stats = PublisherStats()

    def lost_recently(self, within_s: float = 300.0) -> int:
        """Return how many observations were lost here in the last ``within_s`` seconds, at most 15 minutes."""
        return sum(self._lost_recently.within(within_s).values())

    def publish(self, observations: Iterable[Observation]) -> None:
        """Write observations, after those that could not be written before."""
        for observation in observations:
            self._add(observation)
        if self._unwritten and self._clock() >= self._retry_s:
            self._write(COMMITS_A_CALL)
        self._make_room()
        self._count_unwritten()

    def flush(self) -> None:
        """Write all that waits, before the end; what cannot be written now is lost, and declared if that can be."""
        self._write(len(self._unwritten))
        if self._unwritten:
            log.error("%s lost: %s", counted(len(self._unwritten), "observation"), self.stats.error)
            self._lose(len(self._unwritten))
            self._unwritten.clear()
        self._count_unwritten()

    def _add(self, observation: Observation) -> None:
        """Encode an observation; one that can never be sent, e.g. with a feature that is not finite, is dropped."""
        try:
            self._unwritten.append((self._clock(), encode_observation(observation, self._encoding)))
        except MessageError as error:
            self.stats.lost += 1
            self._lost_recently.add("unsendable", 1)
            self._log("unsendable", "an observation of track %d cannot be sent: %s", observation.track, error)

    def _write(self, commits: int) -> None:
        for _ in range(commits):
            some = [payload for _, payload in islice(self._unwritten, ROWS_A_COMMIT)]
            if not some:
                break
            try:
                self._outbox.put_encoded(some)
            except OutboxError as error:
                self._retry_s = self._clock() + RETRY_S
                self.stats.error = str(error)
                text = "the outbox cannot be written, observations wait in memory: %s"
                self._told = self._log("unwritable", text, error) or self._told
                return
            self.stats.published += len(some)
            for _ in some:
                self._unwritten.popleft()
        self.stats.error = ""
        if self._told:
            log.info("the outbox can be written again")
            self._told = False

    def _make_room(self) -> None:
        too_many = len(self._unwritten) - MAX_UNWRITTEN
        drop = self._unwritten.pop if self._when_full == "refuse-newest" else self._unwritten.popleft
        for _ in range(too_many):
            drop()
        if too_many > 0:
            self._lose(too_many)

    def _lose(self, count: int) -> None:
        self.stats.lost += count
        self._lost_recently.add("unwritten", count)
        self._outbox.lose(count)

    def _count_unwritten(self) -> None:
        self.stats.unwritten = len(self._unwritten)
        self.stats.unwritten_since_s = self._unwritten[0][0] if self._unwritten else None

    def _log(self, kind: str, text: str, *details: object) -> bool:
        """Log a problem at once, and once a minute while it lasts; returns whether it was logged now."""
        if self._sparse.admits(kind) is None:
            return False
        log.error(text, *details)
        return True


def name_on_the_wire(camera: CameraSettings) -> str:
    """Return the camera's name, or its pseudonym if the settings name a key.

    Raises:
        SettingsError: The key cannot be read or created.
    """
    if camera.pseudonym_key is None:
        return camera.name
    return camera_pseudonym(camera.name, load_or_create_key(camera.pseudonym_key))


def open_outbox(settings: AgentSettings, camera: str) -> Outbox:
    """Open the outbox of a camera; a disk that is full or read-only is no error, and may take it later.

    Rows that wait there for another gallery, or of another camera, are kept beside it.

    Args:
        settings: All settings of the camera.
        camera: Name on the wire.

    Raises:
        OutboxError: Another process has it, or it is no outbox.
        SettingsError: There is no folder for it, or settings contradict each other.
    """
    upstream = settings.upstream
    if upstream.keep_acknowledged_hours > upstream.retention_hours:
        raise SettingsError(
            f"upstream.keep_acknowledged_hours is {upstream.keep_acknowledged_hours:g}, but nothing is kept longer "
            f"than upstream.retention_hours, {upstream.retention_hours:g}."
        )
    return Outbox(
        settings.state_dir / OUTBOX,
        max_rows=upstream.max_rows,
        max_bytes=upstream.max_mb * 1_000_000,
        retention_s=upstream.retention_hours * 3600,
        when_full=upstream.when_full,
        destination=str(Destination.of(camera, upstream.uri)),
        keep_acknowledged_s=upstream.keep_acknowledged_hours * 3600,
        synchronous=upstream.synchronous,
        wait_for_disk=True,
    )


def wanted_galleries(settings: AgentSettings) -> tuple[str, ...]:
    """Return the names of the galleries whose acknowledgement a row needs; none: of whichever answers.

    A store in this process, and a server of which no name is given, are the gallery whatever they are called.

    Raises:
        SettingsError: Several galleries are to answer where only one can.
    """
    galleries = settings.upstream.galleries
    if settings.in_process or not settings.upstream.uri.startswith("mqtt"):
        if len(galleries) > 1:
            raise SettingsError(
                f"upstream.galleries: expected one name, got {', '.join(galleries)}: only the gallery at "
                f"{redacted(settings.upstream.uri)} can acknowledge. Several can behind a broker (mqtts://)."
            )
        return () if settings.in_process or galleries == (DEFAULT_GALLERY,) else galleries
    return galleries


def open_transport(settings: AgentSettings, camera: str, closing: contextlib.ExitStack) -> Transport:
    """Open the transport to the gallery; a gallery that cannot be reached is no error.

    Args:
        settings: All settings of the camera.
        camera: Name on the wire.
        closing: Gets the callbacks that close the transport and its parts.

    Raises:
        SettingsError: The scheme of the URI is unknown, or the connection would not be encrypted.
        StoreError: The gallery's file cannot be opened.
        MissingExtraError: A package that the transport needs is not installed.
    """
    upstream = settings.upstream
    hours = upstream.gallery_retention_hours
    if hours is not None and not settings.in_process:
        raise SettingsError(
            "upstream.gallery_retention_hours is for a store in this process (sqlite:FILE); elsewhere it is "
            "--retention-hours of 'reid-edge gallery serve'."
        )
    transport = _in_process(upstream.uri, hours, closing) if settings.in_process else _remote(upstream, camera)
    closing.callback(transport.close)
    return transport


def _in_process(uri: str, hours: float | None, closing: contextlib.ExitStack) -> Transport:
    from reid_edge.upstream.transport import LocalTransport

    gallery = closing.enter_context(contextlib.closing(_Gallery(uri, hours)))
    try:
        gallery.open()
    except StoreError as error:
        if uri.startswith("sqlite:"):
            raise
        log.warning("features wait in the outbox: %s", error)  # a server that cannot be reached may come back
    transport = LocalTransport(gallery.receive, trouble=gallery.trouble)
    transport.name = without_passwords(uri)  # as it can be typed for 'reid-edge gallery'
    return transport


class _Gallery:
    """A gallery in this process, opened as soon as its store can be reached.

    Args:
        uri: Address of the store.
        hours: How long it is to keep observations; None leaves that as it is.
    """

    def __init__(self, uri: str, hours: float | None = None) -> None:
        self._uri = uri
        self._hours = hours
        self._opened = contextlib.ExitStack()
        self._collector: Collector | None = None

    def open(self) -> Collector:
        from reid_edge.gallery.collector import Collector
        from reid_edge.gallery.deletion import change_retention
        from reid_edge.gallery.store import open_store

        if self._collector is None:
            with contextlib.ExitStack() as opening:  # closes the store if the rest fails: this is tried again and again
                store = open_store(self._uri, create=True)
                opening.callback(store.close)
                if self._hours is not None:
                    change_retention(store, self._hours)
                collector = Collector(store)
                opening.enter_context(collector.retention.running())
                self._opened, self._collector = opening.pop_all(), collector
        return self._collector

    def receive(self, batches: Sequence[bytes]) -> list[bytes]:
        return self.open().receive(batches)

    def trouble(self) -> str:
        """Return what is wrong though batches may be stored: damage, and that nothing is deleted on time."""
        if self._collector is None:
            return ""
        retention = self._collector.retention
        late = f"observations are not deleted on time: {retention.trouble}" if retention.trouble else ""
        return "; ".join(filter(None, (retention.damage, late)))

    def close(self) -> None:
        self._opened.close()


def _remote(upstream: UpstreamSettings, camera: str) -> Transport:
    scheme = upstream.uri.split(":", 1)[0]
    max_batch_bytes = upstream.max_batch_kb * 1024
    if scheme in ("mqtt", "mqtts"):
        from reid_edge.upstream.mqtt import MqttTransport

        return MqttTransport(
            upstream.uri,
            camera=camera,
            tls=upstream.tls,
            insecure=upstream.insecure,
            max_batch_bytes=max_batch_bytes,
        )
    if scheme in ("http", "https"):
        from reid_edge.upstream.http import HttpTransport

        return HttpTransport(
            upstream.uri, tls=upstream.tls, insecure=upstream.insecure, max_batch_bytes=max_batch_bytes
        )
    raise SettingsError(f"upstream.uri: {no_gallery(upstream.uri)}")
