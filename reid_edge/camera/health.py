"""Health of the agent: what is wrong at this moment, of which kind, for a person, a supervisor and a log."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from reid_edge.camera.detectors import trouble_of
from reid_edge.camera.embedding_stage import why_on_cpu
from reid_edge.camera.person_check import BETTER_DETECTOR
from reid_edge.upstream.clocks import is_plausible
from reid_edge.wording import counted

if TYPE_CHECKING:
    from reid_edge.camera.agent import Agent

Kind = Literal[
    "source",
    "frames",
    "clock",
    "off_switch",
    "detector",
    "out_of_depth",
    "hanging",
    "reload",
    "no_gpu",
    "dropped",
    "outbox",
    "store",
    "undelivered",
    "refused",
    "foreign_gallery",
    "name",
    "delivery",
    "unexamined",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Every kind of problem; docs/camera.md says what each means."""

#: A stage that works on one frame or batch for longer than this is taken to hang.
HANGING_S = 30.0
#: What happened within this time counts as of now.
RECENT_S = 300.0
#: A detector is unusable once none of its boxes could be used for this time.
USELESS_S = 10.0
#: How often the agent is examined.
EVERY_S = 2.0
#: Age from which a result of an examination counts for nothing.
STALE_S = 15.0
#: A problem that lasts is logged once in this time.
LOG_AGAIN_S = 60.0
#: Kinds that are logged once a minute where they happen.
_LOGGED_ELSEWHERE = frozenset({"outbox", "store", "delivery"})
#: Kinds that nothing but other settings ends: logged once.
_LOGGED_ONCE = frozenset({"out_of_depth", "no_gpu"})

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem:
    """Something that is wrong.

    Attributes:
        kind: Of what kind it is, for a metric.
        text: One sentence, for a person.
    """

    kind: Kind
    text: str


@dataclass(frozen=True)
class Health:
    """Problems of this moment; none if the agent is well."""

    problems: tuple[Problem, ...] = ()


class Growth:
    """Tells by how much a counter has grown within a time, from the values that it is shown.

    Args:
        within_s: The time, seconds.
    """

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._seen: deque[tuple[float, int]] = deque()

    def __call__(self, value: int, now_s: float) -> int:
        """Return the growth until this value, since the last one that is older than the time, or the first."""
        self._seen.append((now_s, value))
        while len(self._seen) > 1 and self._seen[1][0] <= now_s - self._within_s:
            self._seen.popleft()
        return value - self._seen[0][1]


class Examination:
    """Looks for problems in all parts of an agent; takes no lock that a part may hold for long.

    Args:
        agent: The agent.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        window_s = agent.settings.operation.stalled_s
        self._frames, self._unreadable = Growth(window_s), Growth(window_s)
        self._foreign = Growth(RECENT_S)

    def __call__(self) -> tuple[Problem, ...]:
        """List the problems of this moment."""
        return tuple(Problem(kind, text) for kind, text in self._found(time.monotonic()) if text)

    def _found(self, now_s: float) -> Iterator[tuple[Kind, str]]:
        agent = self._agent
        delivery = agent.delivery.stats
        yield "source", self._silent_source()
        yield "frames", self._unreadable_frames(now_s)
        yield "clock", self._wrong_clock()
        yield "off_switch", agent.pipeline.off_switch.trouble
        yield "detector", trouble_of(agent.pipeline.detector) or self._useless_boxes(now_s)
        yield "out_of_depth", self._out_of_depth()
        for name in hanging_stages(agent):
            yield "hanging", f"{name} hangs"
        yield "reload", agent.reload_trouble
        yield "no_gpu", why_on_cpu(agent.pipeline.embedding.extractor)
        yield "dropped", self._dropped()
        yield "outbox", self._unwritten()
        yield "store", self._failing_store()
        yield "undelivered", self._undelivered(now_s)
        if delivery.refused_waiting:
            yield (
                "refused",
                f"the gallery refuses {counted(delivery.refused_waiting, 'observation')}: {delivery.last_refusal}",
            )
        yield "foreign_gallery", self._foreign_gallery(now_s)
        yield "name", getattr(agent.transport, "conflict", "")
        yield "delivery", delivery.internal_error(RECENT_S)

    def _silent_source(self) -> str:
        source = self._agent.pipeline.source
        if not source.live or source.stats.silent_s <= self._agent.settings.operation.stalled_s:
            return ""
        return f"no frame for {source.stats.silent_s:.0f} s: {source.stats.error or 'the camera sends none'}"

    def _unreadable_frames(self, now_s: float) -> str:
        stats = self._agent.pipeline.source.stats
        good, bad = self._frames(stats.frames, now_s), self._unreadable(stats.unreadable, now_s)
        return f"none of the last {bad} frames could be decoded" if bad and not good else ""

    def _wrong_clock(self) -> str:
        ahead_s = self._agent.pipeline.source.stats.clock_ahead_us / 1e6
        if not is_plausible(round((now_s := wall_s()) * 1e6)):
            return f"the clock shows {time.strftime('%Y-%m-%d', time.gmtime(now_s))}: set it, e.g. by a time server"
        if ahead_s:
            way = "forward" if ahead_s > 0 else "back"
            return f"the clock was set {way} by {abs(ahead_s):.0f} s; capture times follow once it has stayed so"
        return ""

    def _useless_boxes(self, now_s: float) -> str:
        since_s = self._agent.pipeline.detection.stats.useless_since_s
        if since_s is None or now_s - since_s < USELESS_S:
            return ""
        return f"no box of the detector lay within the frame (pixels x1 y1 x2 y2) for {now_s - since_s:.0f} s"

    def _out_of_depth(self) -> str:
        check = self._agent.pipeline.person_check
        if not check.out_of_depth:
            return ""
        passed, judged = check.passing
        return (
            f"only {passed} of the last {judged} moving things look like one whole person; none is published until "
            f"that changes, or person.min_passing = 0. The detector 'motion' does not suit this scene: "
            f"{BETTER_DETECTOR}; 'reid-edge preview' shows what it sees"
        )

    def _dropped(self) -> str:
        dropped = dict(self._agent.outbox.dropped_recently(RECENT_S))
        if lost := self._agent.publisher.lost_recently(RECENT_S):
            dropped["unwritten"] = lost
        if not dropped:
            return ""
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
        return f"observations were dropped within the last {RECENT_S / 60:.0f} minutes: {reasons}"

    def _unwritten(self) -> str:
        stats = self._agent.publisher.stats
        if not stats.unwritten and self._agent.outbox.is_open:
            return ""
        reason = f": {stats.error}" if stats.error else ""
        return f"the outbox cannot be written: {counted(stats.unwritten, 'observation')} in memory{reason}"

    def _failing_store(self) -> str:
        stats = self._agent.delivery.stats
        fails = f"it takes nothing: {stats.last_error}" if stats.last_error and not stats.connected else ""
        trouble = getattr(self._agent.transport, "trouble", None)
        reasons = "; ".join(filter(None, (fails, trouble() if trouble else "")))
        return f"the gallery in this process: {reasons}" if reasons and self._agent.settings.in_process else ""

    def _undelivered(self, now_s: float) -> str:
        stats, limit_s = self._agent.delivery.stats, self._agent.settings.operation.undelivered_s
        since_s = self._agent.publisher.stats.unwritten_since_s
        age_s = max(stats.oldest_s or 0.0, 0.0 if since_s is None else now_s - since_s)
        if age_s <= limit_s:
            return ""
        lacking = "".join(
            f"; the gallery {name} has not acknowledged {count}"
            for name, count in sorted(stats.lacking.items())
            if count
        )
        reason = f": {stats.last_error}" if stats.last_error else ""
        return f"an observation has been waiting for {age_s:.0f} s to be delivered{lacking}{reason}"

    def _foreign_gallery(self, now_s: float) -> str:
        stats = self._agent.delivery.stats
        if not self._foreign(stats.foreign_acks, now_s):
            return ""
        return (
            f"{', '.join(sorted(stats.foreign_galleries))} acknowledges, but is not in upstream.galleries: add the "
            "name there if it is to get all observations, or take that gallery off this broker"
        )


def wall_s() -> float:
    """Return the machine's time of day, seconds since 1970 UTC."""
    return time.time()


def hanging_stages(agent: Agent) -> list[str]:
    """Name the stages that work on one item for so long that they must be taken to hang."""
    heartbeats = {"detection": agent.pipeline.detection.heartbeat, "embedding": agent.pipeline.embedding.heartbeat}
    return [name for name, heartbeat in heartbeats.items() if heartbeat.busy_s > HANGING_S]


class HealthMonitor:
    """Examines an agent every two seconds, in a thread of its own, so that asking for the result never waits.

    Each problem is logged when it begins, once a minute while it lasts, and when it has ended.

    Args:
        examine: Lists the problems of this moment.
    """

    def __init__(self, examine: Callable[[], Sequence[Problem]]) -> None:
        self._examine = examine
        self._found = Health()
        self._examined_s = time.monotonic()
        self._log = ProblemLog()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def start(self) -> None:
        """Begin to examine."""
        self._examined_s = time.monotonic()
        self._thread.start()

    def close(self) -> None:
        """End the thread, unless it waits for something that hangs."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def latest(self) -> Health:
        """Return the result of the last examination; never waits."""
        age_s = time.monotonic() - self._examined_s
        if not self._thread.is_alive() or age_s < STALE_S:
            return self._found
        text = f"the agent could not be checked for {age_s:.0f} s: a part of it hangs"
        return Health((*self._found.problems, Problem("unexamined", text)))

    def examine(self) -> None:
        """Examine now, and log."""
        try:
            problems = tuple(self._examine())
        except Exception as error:  # nothing else would tell: health must not fall silent
            problems = (Problem("unexamined", f"the check failed: {type(error).__name__}: {error}"),)
        self._found, self._examined_s = Health(problems), time.monotonic()
        self._log.note(problems, self._examined_s)

    def _run(self) -> None:
        self.examine()
        while not self._stopping.wait(EVERY_S):
            self.examine()


class ProblemLog:
    """Logs problems: when one of a kind begins, once a minute while it lasts, and when it has ended."""

    def __init__(self) -> None:
        self._began_s: dict[Kind, float] = {}
        self._logged_s: dict[Kind, float] = {}
        self._told: set[Kind] = set()

    def note(self, problems: Iterable[Problem], now_s: float) -> None:
        """Take note of all problems of this moment."""
        texts: dict[Kind, str] = {}
        for problem in problems:
            if problem.kind not in _LOGGED_ELSEWHERE:
                texts[problem.kind] = "; ".join(filter(None, (texts.get(problem.kind), problem.text)))
        for kind in self._told - texts.keys():
            log.info("no longer unhealthy (%s), after %.0f s", kind, now_s - self._began_s[kind])
        self._told &= texts.keys()
        self._began_s = {kind: self._began_s.get(kind, now_s) for kind in texts}
        for kind, text in texts.items():
            again_s = float("inf") if kind in _LOGGED_ONCE else LOG_AGAIN_S
            if now_s - self._logged_s.get(kind, float("-inf")) >= again_s:
                self._logged_s[kind] = now_s
                self._told.add(kind)
                log.warning("unhealthy (%s): %s", kind, text)
