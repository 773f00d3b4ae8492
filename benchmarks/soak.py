"""Half an hour of bad luck: looped video, a real broker with TLS, and random faults.  Nothing may be lost silently.

    python benchmarks/soak.py BUNDLE VIDEO FOLDER [--minutes 30] [--seed 1] [--only NAME ...]

Runs two agents, one over MQTT (mosquitto with the deployed configuration, TLS 1.3, access list) and one over HTTPS, and
``reid-edge gallery serve`` (SQLite), with a relay in front of broker and server.  Every few seconds a fault happens
(``soak_faults.py``): processes are killed, frozen and stopped, networks reset and swallow, servers and clients are
hostile, disks are full, read-only or damage files, clocks jump, tracklets are erased.  The agents write every put that
their outbox has committed to a ledger, fsynced after the commit.  In the end the faults stop, and after a drain every
observation of the ledgers must be in the gallery once, or erased, or counted by a gap that the gallery holds, or still
in an outbox whose rows the gallery refuses.

Writes ``FOLDER/soak.log``; exits 1 if anything is lost silently, stored twice, or erased and back.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import soak_ledger as ledger
from soak_world import Camera, World


class Soak:
    """A world, its faults one after another, and the account in the end."""

    def __init__(self, world: World, seed: int, only: list[str]) -> None:
        from soak_faults import Trouble, possible

        self.world = world
        self.luck = random.Random(seed)
        self.trouble = Trouble(world, self.luck)
        self.faults = {name: fault for name, fault in possible(world).items() if not only or name in only}
        self.done: Counter[str] = Counter()
        self.log = (world.folder / "soak.log").open("a", buffering=1, encoding="utf-8")
        self.began = time.monotonic()

    def say(self, text: str) -> None:
        line = f"{time.monotonic() - self.began:8.1f} s  {text}"
        print(line, flush=True)
        self.log.write(line + "\n")

    def run(self, minutes: float, settle_s: float) -> bool:
        """Make faults for so long, drain, and return whether every promise was kept."""
        self.world.gallery.start()
        self.world.wait_for_gallery()
        for camera in self.world.cameras:
            camera.start()
        end, names = self.began + 60 * minutes, list[str]()
        while time.monotonic() < end:
            time.sleep(self.luck.uniform(2, 12))
            self.check_alive()
            if not names:  # each once before any comes again
                names = self.luck.sample(sorted(self.faults), len(self.faults))
            self.fault(names.pop())
        self.say(f"faults end: {dict(self.done)}; {self.state()}")
        return self.settle(settle_s)

    def fault(self, name: str) -> None:
        self.trouble.pause_s = self.luck.uniform(1, 12)
        self.trouble.notes.clear()
        self.done[name] += 1
        began = time.monotonic()
        self.faults[name](self.trouble)
        lasted, notes = time.monotonic() - began, "; ".join(self.trouble.notes)
        self.say(f"{name} for {lasted:.1f} s{f' ({notes})' if notes else ''}; {self.state()}")

    def check_alive(self) -> None:
        """Fail if something ended that nobody has ended."""
        for process in (*self.world.cameras, self.world.gallery):
            assert process.runs, f"{process.name} ended by itself: {process.ended}"

    def committed(self) -> dict[ledger.Key, int]:
        world = self.world
        return ledger.committed("camA", [world.by_mqtt.ledger, world.twin.ledger]) | ledger.committed(
            "camB", [world.by_http.ledger]
        )

    def state(self) -> str:
        for process in self.world.everyone:
            process.look()
        stored, committed = ledger.stored(self.world.gallery.path), self.committed()
        memory = {process.name: process.peak_rss_mb for process in self.world.everyone if process.peak_rss_mb}
        return f"{len(committed)} committed, {len(stored)} stored, peak RSS {memory} MB"

    def settle(self, settle_s: float) -> bool:
        """Let everything be delivered, and say where each observation is."""
        time.sleep(settle_s)
        self.check_alive()
        for camera in self.world.cameras:
            self.end(camera)
        if self.world.twin.ledger.exists():  # what waits in its outbox is delivered without the other in its way
            self.world.twin.start()
            time.sleep(30)
            self.end(self.world.twin)
        gallery = self.world.gallery
        account = ledger.settle(
            self.committed(),
            ledger.stored(gallery.path),
            ledger.declared(gallery.path),
            waiting={key for camera in (*self.world.cameras, self.world.twin) for key in _waiting(camera)},
            erased=self.trouble.erased,
        )
        account.twice += ledger.repeated(gallery.path)
        elsewhere = len(ledger.stored(self.world.other.path))
        self.say(f"{self.done.total()} faults; {account}; {elsewhere} in the other gallery; {self.state()}")
        for key in [*account.lost[:20], *account.back[:20]]:
            self.say(f"wrong: {key}")
        return account.good and not elsewhere

    def end(self, camera: Camera) -> None:
        code = camera.end(signal.SIGTERM)
        assert code == 0, f"{camera.name} ended with {code}"


def _waiting(camera: Camera) -> set[ledger.Key]:
    """Return what a camera's outbox still holds."""
    from reid_edge.upstream.outbox import Outbox

    path = camera.state / "outbox.db"
    if not path.exists():
        return set()
    with contextlib.closing(Outbox(path)) as outbox:
        return {(camera.camera, outbox.incarnation, seq) for seq, _ in outbox.pending(0, 10**6)}


def main() -> None:
    if "--agent" in sys.argv:
        return ledger.run_agent(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bundle", "video", "folder"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--settle-s", type=float, default=180, help="without faults, at the end")
    parser.add_argument("--only", nargs="*", default=[], help="names of faults; all if none is given")
    options = parser.parse_args()
    world = World(options.bundle.resolve(), options.video.resolve(), options.folder.resolve())
    try:
        good = Soak(world, options.seed, options.only).run(options.minutes, options.settle_s)
    finally:
        world.close()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
