"""The camera agent: source → detection stage → crop queue → embedding stage → outbox → delivery."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable

from reid_edge.camera.embedding_stage import load_model
from reid_edge.camera.health import Examination, Health, HealthMonitor, hanging_stages
from reid_edge.camera.pipeline import Pipeline
from reid_edge.camera.publishing import Publisher, name_on_the_wire, open_outbox, open_transport, wanted_galleries
from reid_edge.camera.restamping import Restamping
from reid_edge.camera.settings import AgentSettings
from reid_edge.camera.state_dir import make_state_dir
from reid_edge.errors import GpuMemoryError, ReidEdgeError
from reid_edge.runtime import Extractor
from reid_edge.systemd import notify, watchdog_interval_s
from reid_edge.upstream.delivery import Delivery
from reid_edge.upstream.outbox import OUTBOX, removed_if_new
from reid_edge.wording import counted

log = logging.getLogger(__name__)

#: Longest time that a stop waits for the stages to finish their last items.
JOIN_S = 10.0
#: How often :meth:`Agent.run` looks whether it was asked to stop.
POLL_S = 0.5
#: Longest time that a bundle is loaded again before the watchdog is no longer fed: TensorRT may build for minutes.
LOADING_S = 900.0


class Agent:
    """Runs everything between a camera and its gallery in one process.

    Capture, detection, embedding and delivery overlap: each has its own thread, with bounded queues between them.

    Args:
        settings: All settings of the camera.
        before_each_part: Called before each part is opened; what it raises ends the start, and closes the others.

    Raises:
        ReidEdgeError: A part cannot be opened, and trying again would not help; no new outbox or gallery stays.
            A camera or a gallery that cannot be reached is no such part, nor a disk without room for the outbox.
    """

    def __init__(self, settings: AgentSettings, *, before_each_part: Callable[[], None] = lambda: None) -> None:
        self.settings = settings
        self._before_each_part = before_each_part
        self.reloads = 0
        self.failed_reloads = 0
        self.reload_trouble = ""
        self._ended = threading.Event()
        self._stopping = False
        self._reload_wanted = False
        self._failures: list[BaseException] = []
        with contextlib.ExitStack() as closing:
            self._open_outbox(closing)  # first: no part may disturb another agent that runs with it
            self._open_camera(closing)
            self._open_delivery(closing)  # last: it may make a gallery
            before_each_part()
            self._monitor = HealthMonitor(Examination(self))
            self._closing = closing.pop_all()

    def _open_outbox(self, closing: contextlib.ExitStack) -> None:
        self._before_each_part()
        self.camera = name_on_the_wire(self.settings.camera)
        closing.enter_context(removed_if_new(self.settings.state_dir / OUTBOX))
        make_state_dir(self.settings.state_dir)
        self.outbox = open_outbox(self.settings, self.camera)
        closing.callback(self.outbox.close)
        upstream = self.settings.upstream
        self.publisher = Publisher(self.outbox, upstream.encoding, when_full=upstream.when_full)

    def _open_delivery(self, closing: contextlib.ExitStack) -> None:
        self._before_each_part()
        self.transport = open_transport(self.settings, self.camera, closing)
        self.delivery = Delivery(
            self.outbox,
            self.transport,
            camera=self.camera,
            galleries=wanted_galleries(self.settings),
            amend=Restamping(self.outbox, found_us=lambda: self.pipeline.source.stats.clock_found_us),
            resend_s=self.settings.upstream.resend_s,
        )

    def _open_camera(self, closing: contextlib.ExitStack) -> None:
        self.pipeline = Pipeline(
            self.settings,
            self.publisher,
            closing,
            # A tracklet gets its number with its first observation, so counting on from the outbox never gives one
            # twice.
            first_tracklet=self.outbox.last_seq + 1,
            before_each_part=self._before_each_part,
        )

    def run(self) -> None:
        """Work until the source ends or :meth:`stop` is called, then deliver for ``operation.drain_s`` seconds at most.

        Raises:
            ReidEdgeError: The source or the detector failed for good.
        """
        pipeline = self.pipeline
        workers = [self._worker("detection", pipeline.detection.run), self._worker("embedding", pipeline.embedding.run)]
        self.delivery.start()
        for worker in workers:
            worker.start()
        self._monitor.start()
        names = pipeline.source.name, pipeline.detector.description, self.model, self.transport.name
        log.info("camera %s: %s, people by %s, features by %s, to %s", self.camera, *names)
        notify("READY=1")
        try:
            self._watch()
        finally:
            self._drain(workers)
        if self._failures:
            raise self._failures[0]

    def stop(self) -> None:
        """Ask :meth:`run` to end; may be called from a signal handler."""
        self._stopping = True

    def reload(self) -> None:
        """Ask :meth:`run` to load the bundle again; may be called from a signal handler."""
        self._reload_wanted = True

    def close(self) -> None:
        """Close all parts; call it after :meth:`run`."""
        self._monitor.close()
        self._closing.close()

    @property
    def model(self) -> str:
        """Bundle and engine for which crops are cut now; after a reload, crops that wait still have the old one."""
        extractor = self.pipeline.embedding.extractor
        return f"{extractor.bundle.title} by {extractor.description}"

    def health(self) -> Health:
        """Return the problems that were found last; never waits, whatever hangs."""
        return self._monitor.latest()

    def _worker(self, name: str, work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # nothing else would report it: the agent ends with this error
                if not isinstance(error, ReidEdgeError):
                    log.exception("%s failed", name)
                self._failures.append(error)
            finally:
                # After detection has ended, crops may be left in the queue; after embedding, or a failure, nothing is.
                if name == "embedding" or self._failures:
                    self._ended.set()

        return threading.Thread(target=run, name=name, daemon=True)

    def _watch(self) -> None:
        """Wait for the end; load the bundle again when asked to; feed systemd's watchdog."""
        while not self._is_over(min(POLL_S, watchdog_interval_s() or POLL_S)):
            if self._reload_wanted:
                self._reload_wanted = False
                self._reload()
            self._feed_watchdog()

    def _is_over(self, wait_s: float = 0.0) -> bool:
        return self._stopping or self._ended.wait(wait_s)

    def _feed_watchdog(self) -> None:
        """Tell systemd that the agent lives, as long as no stage hangs."""
        if watchdog_interval_s() is not None and not hanging_stages(self):
            notify("WATCHDOG=1")

    def _reload(self) -> None:
        """Load the bundle again beside the stages; a stop does not wait for it."""
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        loading = self._worker("loading", self._load_again)
        loading.start()
        late_s = time.monotonic() + LOADING_S
        while loading.is_alive() and not self._is_over():
            loading.join(min(POLL_S, watchdog_interval_s() or POLL_S))
            if time.monotonic() < late_s:
                self._feed_watchdog()
        notify("READY=1")

    def _load_again(self) -> None:
        try:
            model = self._new_model()
        except (ReidEdgeError, MemoryError) as error:
            self.failed_reloads += 1
            self.reload_trouble = f"the bundle could not be loaded again, the old one is in use: {error}"
            log.error("the new bundle cannot be used, the old one stays: %s", error)
        else:
            self.pipeline.embedding.replace(model)
            self.reloads += 1
            self.reload_trouble = ""
            log.info("new bundle: %s by %s", model.bundle.title, model.description)

    def _new_model(self) -> Extractor:
        """Load the bundle.

        Raises:
            GpuMemoryError: It found no room beside the old one on the GPU, and would compute on the CPU.
            ReidEdgeError: As :func:`~reid_edge.camera.embedding_stage.load_model` does.
        """
        model = load_model(self.settings.engine)
        if model.lacks_gpu_memory and self.pipeline.embedding.extractor.on_other_device:
            raise GpuMemoryError(f"{model.unused_plan} Or restart the agent, which frees the old one first.")
        return model

    def _drain(self, workers: list[threading.Thread]) -> None:
        """Take no more frames, embed the queued crops, deliver for a while; undelivered rows stay in the outbox."""
        notify("STOPPING=1")
        self.pipeline.source.stop()
        deadline = time.monotonic() + JOIN_S
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        if any(worker.is_alive() for worker in workers):
            log.error(
                "a stage does not end within %.0f s and is abandoned: %s",
                JOIN_S,
                ", ".join(hanging_stages(self)) or "busy",
            )
        self.delivery.stop(drain_s=self.settings.operation.drain_s)
        lost, left = self.publisher.stats.unwritten, self.outbox.depth
        if lost:
            log.error("%s lost: the outbox could not be written", counted(lost, "observation"))
        log.info("stopped; %s left in the outbox for the next start", counted(left, "observation"))
