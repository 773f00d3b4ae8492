"""``reid-edge gallery``: take features from cameras, find a person again, forget on time and on demand."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
from pathlib import Path
from typing import Annotated, Literal

import typer

from reid_edge.console import console
from reid_edge.errors import UsageError

gallery_app = typer.Typer(
    no_args_is_help=True, help="The receiving end: collect features, search, erase, and keep account of it."
)

StoreArgument = Annotated[
    str, typer.Argument(metavar="STORE", help="sqlite:FILE, postgresql://…, milvus:http://HOST:19530.")
]
CameraOption = Annotated[list[str] | None, typer.Option("--camera", help="Only this camera; may be repeated.")]
SinceOption = Annotated[str | None, typer.Option(help="In sight later than: 2h, 3d (ago), or 2026-11-23T14:05.")]
UntilOption = Annotated[str | None, typer.Option(help="In sight earlier than; likewise.")]
KeyOption = Annotated[
    Path | None, typer.Option("--pseudonym-key", help="Key of the cameras' pseudonyms: then --camera takes names.")
]
PurposeOption = Annotated[str, typer.Option(help="What this is for: it goes into the audit.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
UtcOption = Annotated[bool, typer.Option("--utc", help="Show times in UTC, not local time.")]
HoursOption = Annotated[float | None, typer.Option(help="Keep observations so long; remembered. At first 72.")]


@gallery_app.command()
def serve(
    store: StoreArgument,
    listen: Annotated[str | None, typer.Option(help="https://ADDRESS[:PORT] for cameras to post to.")] = None,
    mqtt: Annotated[str | None, typer.Option(help="mqtts://BROKER[:PORT] to take observations from.")] = None,
    group: Annotated[str, typer.Option(help="Collectors of a group share a broker's observations.")] = "gallery",
    ca: Annotated[Path | None, typer.Option(help="PEM: who signs the other ends' certificates.")] = None,
    cert: Annotated[Path | None, typer.Option(help="PEM: certificate of this end.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM: its private key.")] = None,
    crl: Annotated[Path | None, typer.Option(help="PEM: revoked certificates.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow http:// and mqtt:// on loopback.")] = False,
    operations: Annotated[
        str | None, typer.Option(help="http://127.0.0.1:PORT for /healthz and /metrics alone.")
    ] = None,
    retention_hours: HoursOption = None,
    log_level: Annotated[Literal["debug", "info", "warning", "error"], typer.Option(help="What to log.")] = "info",
) -> None:
    """Take observations from cameras into a store, which is made if there is none; runs until it is told to stop."""
    from reid_edge.cli.gallery_asking import keep_for, opened, tls_files
    from reid_edge.gallery.serving import Serving, Ways
    from reid_edge.logs import set_up_logs
    from reid_edge.systemd import notify

    set_up_logs("auto", log_level)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    tls = tls_files(ca, cert, key, crl)
    ways = Ways(listen=listen, mqtt=mqtt, group=group, tls=tls, insecure=insecure, operations=operations)
    with contextlib.ExitStack() as closing:
        gallery = closing.enter_context(opened(store, create=True))
        keep_for(gallery, retention_hours)
        serving = Serving(gallery, ways, closing)
        console.print(f"{gallery.name} takes observations from {' and '.join(serving.addresses)}", soft_wrap=True)
        notify("READY=1")
        serving.until(stopped)
        notify("STOPPING=1")


@gallery_app.command()
def search(
    store: StoreArgument,
    purpose: PurposeOption,
    image: Annotated[Path | None, typer.Option(help="Picture of the person.")] = None,
    box: Annotated[str | None, typer.Option(help="Where in it: x1,y1,x2,y2 in pixels; all of it if not given.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="The bundle that the cameras use; with --image.")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="A stored observation: CAMERA/EPOCH/NUMBER.")] = None,
    camera: CameraOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    same_camera: Annotated[bool, typer.Option("--same-camera", help="Only the camera of --id.")] = False,
    other_cameras: Annotated[bool, typer.Option("--other-cameras", help="Not the camera of --id.")] = False,
    top: Annotated[int, typer.Option(help="How many tracklets.")] = 10,
    pseudonym_key: KeyOption = None,
    utc: UtcOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find a person again, by an image or by a stored observation; every search goes into the audit."""
    from reid_edge.cli import gallery_asking as asking
    from reid_edge.cli.gallery_showing import found_fields, print_found, print_json
    from reid_edge.gallery.audit import checked_purpose
    from reid_edge.gallery.retention import now_us
    from reid_edge.gallery.search import search as search_for

    purpose = checked_purpose(purpose)
    which = asking.which_cameras(same=same_camera, other=other_cameras)
    selection = asking.selection_of(camera, since, until, pseudonym_key)
    with asking.opened(store) as gallery:
        query = asking.query(gallery, image=image, box=box, bundle=bundle, id_=id_, key=pseudonym_key)
        found = search_for(
            gallery, query, selection=selection, purpose=purpose, now_us=now_us(), top=top, cameras=which
        )
    if as_json:
        print_json([found_fields(one) for one in found])
    else:
        print_found(found, id_ or str(image), utc=utc)


@gallery_app.command()
def info(store: StoreArgument, utc: UtcOption = False, as_json: JsonOption = False) -> None:
    """Say what a gallery holds: cameras, models, gaps, and for how long."""
    from reid_edge.cli.gallery_asking import opened
    from reid_edge.cli.gallery_showing import print_json, print_summary
    from reid_edge.gallery.summary import summarise

    with opened(store) as gallery:
        summary = summarise(gallery)
    if as_json:
        print_json(dataclasses.asdict(summary))
    else:
        print_summary(summary, utc=utc)


@gallery_app.command()
def cameras(store: StoreArgument, utc: UtcOption = False, as_json: JsonOption = False) -> None:
    """List the cameras whose observations are held."""
    from reid_edge.cli.gallery_asking import opened
    from reid_edge.cli.gallery_showing import print_cameras, print_json

    with opened(store) as gallery:
        summaries = gallery.cameras()
    if as_json:
        print_json([dataclasses.asdict(one) for one in summaries])
    else:
        print_cameras(summaries, utc=utc)


@gallery_app.command()
def erase(
    store: StoreArgument,
    purpose: PurposeOption,
    camera: CameraOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    track: Annotated[
        int | None, typer.Option(min=0, max=2**63 - 1, help="Only this tracklet of the one --camera.")
    ] = None,
    epoch: Annotated[str | None, typer.Option(help="Only this epoch, whole, of a camera's outbox.")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="The whole tracklet of this stored observation.")] = None,
    pseudonym_key: KeyOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; else only say how much it would be.")] = False,
) -> None:
    """Erase by camera, time or tracklet; prints a receipt, JSON."""
    from reid_edge.cli.gallery_asking import opened, selection_of, stored
    from reid_edge.cli.gallery_showing import note_nothing_erased, print_json
    from reid_edge.gallery.audit import checked_purpose
    from reid_edge.gallery.entries import Selection
    from reid_edge.gallery.erasing import checked_selection, erase_with_receipt
    from reid_edge.gallery.retention import now_us

    purpose = checked_purpose(purpose)
    selection = selection_of(camera, since, until, pseudonym_key, track=track, epoch=epoch)
    if id_ is not None and selection != Selection():
        raise UsageError("--id means one tracklet: leave out --camera, --since, --until, --track and --epoch.")
    with opened(store) as gallery:
        if id_ is not None:
            selection = stored(gallery, id_, pseudonym_key).entry.whole_tracklet
        checked_selection(selection)
        if yes:
            receipt = erase_with_receipt(gallery, selection, purpose=purpose, now_us=now_us())
            print_json(dataclasses.asdict(receipt))
            if not receipt.observations:
                note_nothing_erased(gallery.cameras())
            return
        count = gallery.span(selection).observations
    console.print(f"{count:,} observations would be erased from {gallery.name}; --yes does it.", soft_wrap=True)
    raise typer.Exit(1)


@gallery_app.command()
def expire(store: StoreArgument, retention_hours: HoursOption = None) -> None:
    """Delete what is older than the retention, as 'serve' does every minute."""
    from reid_edge.cli.gallery_asking import keep_for, opened
    from reid_edge.gallery.retention import Retention

    with opened(store) as gallery:
        keep_for(gallery, retention_hours)
        count = Retention(gallery).apply()
        hours = gallery.retention_hours()
    console.print(f"{count:,} observations deleted that were last seen more than {hours:g} hours ago")


@gallery_app.command("accept-model")
def accept_model(
    store: StoreArgument,
    model_hash: Annotated[str, typer.Argument(metavar="HASH", help="'reid-edge inspect BUNDLE' shows it.")],
) -> None:
    """Take features of one more model; they are never compared with those of another."""
    from reid_edge.cli.gallery_asking import accept, opened

    with opened(store) as gallery:
        accept(gallery, model_hash)
    console.print(f"{gallery.name} takes features of {model_hash}", soft_wrap=True)


@gallery_app.command()
def audit(
    store: StoreArgument,
    last: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many entries.")] = 20,
    utc: UtcOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show who searched and erased, when, what for, and what was returned."""
    from reid_edge.cli.gallery_asking import opened
    from reid_edge.cli.gallery_showing import print_audit, print_json

    with opened(store) as gallery:
        entries = gallery.audit_entries(last)
    if as_json:
        print_json([dataclasses.asdict(one) for one in entries])
    else:
        print_audit(entries, gallery.name, utc=utc)
