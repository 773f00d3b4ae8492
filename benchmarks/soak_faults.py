"""The soak's faults.  Each does its harm, waits, and leaves the world in order again."""

from __future__ import annotations

import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from soak_world import Camera, Process, World

from tests.faults.clocks import can_be_wrong
from tests.faults.damage import damage_file
from tests.faults.hostile import (
    OK,
    OK_CHUNKED,
    POST_CHUNKED,
    HostileClients,
    HostileServer,
    Talk,
    after_request,
    endless,
    gzip_bomb,
    noise,
    post_head,
    say,
    say_nothing,
    trickle,
)


@dataclass
class Trouble:
    """What a fault is given: the world, its luck, how long it may last, and where it notes what it did.

    Attributes:
        erased: Tracklets that were erased with a receipt: camera, incarnation, track.
        notes: What was done, for the log.
    """

    world: World
    luck: random.Random
    pause_s: float = 0.0
    erased: set[tuple[str, str, int]] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def wait(self, part: float = 1.0) -> None:
        time.sleep(self.pause_s * part)

    @property
    def camera(self) -> Camera:
        """Return one of the two cameras."""
        return self.luck.choice(self.world.cameras)

    def note(self, text: object) -> None:
        self.notes.append(str(text))


Fault = Callable[[Trouble], None]
FAULTS: dict[str, Fault] = {}


def fault(function: Fault) -> Fault:
    """Register a fault under its function's name."""
    FAULTS[function.__name__.replace("_", " ")] = function
    return function


# Processes.


def _start_again(process: Process, number: int, trouble: Trouble, part: float = 0.3) -> None:
    trouble.note(process.name)
    process.end(number)
    trouble.wait(part)
    process.start()


@fault
def agent_killed(trouble: Trouble) -> None:
    _start_again(trouble.camera, signal.SIGKILL, trouble)


@fault
def agent_aborted(trouble: Trouble) -> None:
    _start_again(trouble.camera, signal.SIGABRT, trouble)


@fault
def agent_stopped(trouble: Trouble) -> None:
    camera = trouble.camera
    trouble.note(camera.name)
    code = camera.end(signal.SIGTERM)
    assert code == 0, f"{camera.name} ended with {code} after SIGTERM"
    trouble.wait(0.3)
    camera.start()


@fault
def agent_stopped_while_it_starts(trouble: Trouble) -> None:
    camera = trouble.camera
    camera.end(signal.SIGTERM)
    camera.start()
    time.sleep(trouble.luck.uniform(0, 4))
    trouble.note(f"{camera.name}: exit code {camera.end(signal.SIGTERM)}")
    camera.start()


@fault
def agent_frozen(trouble: Trouble) -> None:
    camera = trouble.camera
    camera.send(signal.SIGSTOP)
    trouble.wait()
    camera.send(signal.SIGCONT)


@fault
def bundle_loaded_again(trouble: Trouble) -> None:
    trouble.camera.send(signal.SIGHUP)
    trouble.wait(0.3)


@fault
def gallery_killed(trouble: Trouble) -> None:
    _start_again(trouble.world.gallery, signal.SIGKILL, trouble, 1.0)
    trouble.world.wait_for_gallery()


@fault
def gallery_stopped(trouble: Trouble) -> None:
    _start_again(trouble.world.gallery, signal.SIGTERM, trouble, 1.0)
    trouble.world.wait_for_gallery()


@fault
def gallery_hung(trouble: Trouble) -> None:
    trouble.world.gallery.send(signal.SIGSTOP)
    trouble.wait()
    trouble.world.gallery.send(signal.SIGCONT)


@fault
def broker_killed(trouble: Trouble) -> None:
    trouble.world.broker.kill()
    trouble.wait()
    trouble.world.broker.start()


@fault
def broker_frozen(trouble: Trouble) -> None:
    trouble.world.broker.freeze()
    trouble.wait()
    trouble.world.broker.thaw()


@fault
def broker_takes_only_small_packets(trouble: Trouble) -> None:
    limit = trouble.luck.choice([8_000, 20_000, 128 * 1024])
    trouble.note(limit)
    trouble.world.broker.kill()
    trouble.world.set_broker_limit(limit)
    trouble.world.broker.start()
    trouble.wait(2)
    trouble.world.broker.kill()
    trouble.world.set_broker_limit(4_194_304)
    trouble.world.broker.start()


@fault
def another_camera_of_the_same_name(trouble: Trouble) -> None:
    trouble.world.twin.start()
    time.sleep(8)
    trouble.wait()
    trouble.world.twin.end(signal.SIGTERM)


@fault
def another_gallery_at_the_broker(trouble: Trouble) -> None:
    trouble.world.other.start()
    time.sleep(5)
    trouble.wait()
    trouble.world.other.end(signal.SIGTERM)


# The network.


def _relay(trouble: Trouble, mode: str) -> None:
    relay = trouble.luck.choice([trouble.world.mqtt_relay, trouble.world.http_relay])
    relay.mode = mode
    if mode != "swallow":
        relay.reset()
    trouble.wait(0 if mode == "pass" else 1)
    relay.mode = "pass"
    relay.reset()


@fault
def network_resets(trouble: Trouble) -> None:
    _relay(trouble, "pass")


@fault
def network_refuses(trouble: Trouble) -> None:
    _relay(trouble, "refuse")


@fault
def network_swallows(trouble: Trouble) -> None:
    _relay(trouble, "swallow")


@fault
def server_that_is_none(trouble: Trouble) -> None:
    """Something with the gallery's certificate answers instead of it: slowly, endlessly, with a bomb, with noise."""
    talks: dict[str, Talk] = {
        "silent": say_nothing,
        "trickles": after_request(trickle(OK + b"x" * 5000, every_s=0.5)),
        "endless": after_request(endless(OK_CHUNKED)),
        "bomb": after_request(say(gzip_bomb(600))),
        "noise": noise(trouble.luck.randrange(1000)),
    }
    what = trouble.luck.choice(list(talks))
    trouble.note(what)
    world = trouble.world
    with HostileServer(talks[what], tls=world.gallery_tls()) as server:
        for relay in (world.mqtt_relay, world.http_relay):
            relay.target = server.port
            relay.reset()
        trouble.wait()
        for relay, port in ((world.mqtt_relay, world.broker.port), (world.http_relay, world.http_port)):
            relay.target = port
            relay.reset()


@fault
def clients_that_are_none(trouble: Trouble) -> None:
    """Strangers at the gallery's port: silent ones, half requests, noise."""
    talks: dict[str, Talk] = {
        "silent": say_nothing,
        "half a request": say(post_head(4_000_000) + bytes(1_000_000)),
        "endless": endless(POST_CHUNKED),
        "noise": noise(trouble.luck.randrange(1000)),
    }
    what = trouble.luck.choice(list(talks))
    count = 200 if what == "silent" else 20
    trouble.note(f"{count} {what}")
    with HostileClients(trouble.world.http_port, talks[what], count=count):
        trouble.wait()


# Disks.


@fault
def cameras_disk_full(trouble: Trouble) -> None:
    camera = trouble.camera
    trouble.note(camera.name)
    camera.disk.fill()
    trouble.wait()
    camera.disk.free()


@fault
def agent_started_on_a_full_disk(trouble: Trouble) -> None:
    camera = trouble.camera
    trouble.note(camera.name)
    camera.end(signal.SIGTERM)
    camera.disk.fill()
    camera.start()
    time.sleep(5)
    trouble.wait()
    camera.disk.free()


@fault
def agent_started_on_a_read_only_disk(trouble: Trouble) -> None:
    camera = trouble.camera
    trouble.note(camera.name)
    camera.end(signal.SIGTERM)
    camera.disk.remount("ro")
    camera.start()
    time.sleep(5)
    trouble.wait()
    camera.disk.remount("rw")


@fault
def gallerys_disk_full(trouble: Trouble) -> None:
    trouble.world.gallery_disk.fill()
    trouble.wait()
    trouble.world.gallery_disk.free()


@contextmanager
def _waiting_rows(camera: Camera, trouble: Trouble) -> Iterator[None]:
    """Cut a camera off, so that rows wait in its outbox when the harm is done."""
    relay = trouble.world.mqtt_relay if camera is trouble.world.by_mqtt else trouble.world.http_relay
    relay.mode = "refuse"
    relay.reset()
    time.sleep(3)
    trouble.wait(0.5)
    try:
        yield
    finally:
        relay.mode = "pass"


@fault
def outbox_damaged_while_the_agent_is_stopped(trouble: Trouble) -> None:
    camera = trouble.camera
    with _waiting_rows(camera, trouble):
        camera.end(trouble.luck.choice([signal.SIGTERM, signal.SIGKILL]))
        _damage(camera, trouble)
        camera.start()


@fault
def outbox_damaged_while_the_agent_runs(trouble: Trouble) -> None:
    camera = trouble.camera
    with _waiting_rows(camera, trouble):
        _damage(camera, trouble)
        trouble.wait(0.3)


def _damage(camera: Camera, trouble: Trouble) -> None:
    for _ in range(trouble.luck.choice([1, 1, 3])):
        if files := sorted(camera.outbox_files()):
            with suppress(OSError, ValueError):  # removed meanwhile, or all zeros
                trouble.note(f"{camera.name} {damage_file(trouble.luck.choice(files), trouble.luck)}")


@fault
def compiled_model_damaged(trouble: Trouble) -> None:
    camera = trouble.camera
    camera.end(signal.SIGTERM)
    files = sorted(path for path in _files(camera.cache) if path.stat().st_size)
    for path in trouble.luck.sample(files, min(2, len(files))):
        trouble.note(f"{camera.name} {damage_file(path, trouble.luck)}")
    camera.start()


def _files(folder: Path | None) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()] if folder else []


# Clocks.


@fault
def cameras_clock_jumps(trouble: Trouble) -> None:
    camera, offset = trouble.camera, trouble.luck.choice(["+1h", "-1h", "+300d", "-20000d"])
    trouble.note(f"{camera.name} {offset}")
    camera.clock.set(offset)
    trouble.wait()
    camera.clock.set("+0")


@fault
def gallerys_clock_jumps(trouble: Trouble) -> None:
    offset = trouble.luck.choice(["+4d", "-1h", "+1h"])
    trouble.note(offset)
    trouble.world.gallery.clock.set(offset)
    trouble.wait()
    trouble.world.gallery.clock.set("+0")


# What people do.


@fault
def tracklet_erased(trouble: Trouble) -> None:
    gallery = trouble.world.gallery
    with closing(sqlite3.connect(f"file:{gallery.path}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT camera, epoch, track FROM observations ORDER BY random() LIMIT 1").fetchall()
    for camera, incarnation, track in rows:
        chosen = ["--camera", camera, "--epoch", incarnation, "--track", str(track)]
        done = gallery.ask("erase", gallery.store, *chosen, "--purpose", "soak", "--yes")
        trouble.note(f"{camera}/{incarnation} track {track}: exit code {done.returncode} {done.stderr.strip()[-200:]}")
        if done.returncode == 0:
            trouble.erased.add((camera, incarnation, track))


@fault
def gallery_restored_from_a_backup(trouble: Trouble) -> None:
    """What was stored since the backup comes from the cameras again; what was erased since stays out."""
    gallery, folder = trouble.world.gallery, trouble.world.folder
    backup, erasures = folder / "backup.db", folder / "erasures.json"
    _asked(trouble, "backup", gallery.store, str(backup), "--force")
    trouble.wait()
    tracklet_erased(trouble)
    gallery.end(trouble.luck.choice([signal.SIGTERM, signal.SIGKILL]))
    options = ["--force"]
    if trouble.luck.random() < 0.5:  # the file and all that is beside it are gone
        erasures.write_text(_asked(trouble, "erasures", gallery.store), encoding="utf-8")
        for path in gallery.path.parent.glob(f"{gallery.path.name}*"):
            path.unlink()
        options = ["--erasures", str(erasures)]
        trouble.note("all of it was gone")
    _asked(trouble, "restore", str(backup), gallery.store, *options)
    gallery.start()
    trouble.world.wait_for_gallery()


def _asked(trouble: Trouble, *arguments: str) -> str:
    done = trouble.world.gallery.ask(*arguments)
    assert done.returncode == 0, f"gallery {' '.join(arguments)}: {done.stdout} {done.stderr}"
    return done.stdout


def possible(world: World) -> dict[str, Fault]:
    """Return the faults that can be made on this machine."""
    left_out = set[Fault]()
    if not world.by_mqtt.disk.is_own:
        left_out |= {cameras_disk_full, agent_started_on_a_full_disk, agent_started_on_a_read_only_disk}
        left_out |= {gallerys_disk_full}
    if not can_be_wrong():
        left_out |= {cameras_clock_jumps, gallerys_clock_jumps}
    return {name: function for name, function in FAULTS.items() if function not in left_out}
