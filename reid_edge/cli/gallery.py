"""``reid-edge gallery``: its commands but for those of ``gallery_search`` and ``gallery_keeping``."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from reid_edge.cli.gallery_calibrate import calibrate_gallery
from reid_edge.cli.gallery_decisions import merge, not_same, split
from reid_edge.cli.gallery_erasing import erase
from reid_edge.cli.gallery_keeping import backup, check, erasures, restore_backup, roles
from reid_edge.cli.gallery_migration import migrate, pairs
from reid_edge.cli.gallery_options import JsonOption, StoreArgument, UtcOption, opened, print_json
from reid_edge.cli.gallery_people import TransitsOption, events, identify, person, read_times
from reid_edge.cli.gallery_people import people as list_people
from reid_edge.cli.gallery_search import search
from reid_edge.cli.gallery_tracklets import tracklets
from reid_edge.console import console, error_console, print_table
from reid_edge.errors import UsageError
from reid_edge.gallery import audit as auditing
from reid_edge.gallery.clock import kept_since_us
from reid_edge.gallery.comparison import forget_comparison
from reid_edge.gallery.deletion import Retention, believe_clock, change_retention, checked_hours
from reid_edge.gallery.store.base import AuditEntry, CameraSummary, Summary, summarise
from reid_edge.gallery.store.chain import ChainReport
from reid_edge.gallery.times import now_us, time_text
from reid_edge.gallery.twins import known_twins
from reid_edge.upstream.message import MOST_NUMBERS
from reid_edge.wording import counted

if TYPE_CHECKING:
    from reid_edge.upstream.tls import TlsFiles

log = logging.getLogger(__name__)

HoursOption = Annotated[
    float | None,
    typer.Option(help="Hours to keep observations. The gallery stores the value. Default: 72 for a new gallery."),
]

HashArgument = Annotated[str, typer.Argument(metavar="HASH", help="Shown by 'reid-edge inspect BUNDLE'.")]


def serve(
    store: StoreArgument,
    listen: Annotated[
        str | None, typer.Option(help="Address to receive cameras' batches on: https://ADDRESS[:8443].")
    ] = None,
    mqtt: Annotated[
        str | None, typer.Option(help="MQTT broker to read observations from: mqtts://BROKER[:8883].")
    ] = None,
    name: Annotated[
        str,
        typer.Option(
            "--name",
            "--group",
            help="Name of the gallery, as in the cameras' upstream.galleries. Collectors with the same name share a "
            "broker's observations.",
        ),
    ] = "gallery",
    ca: Annotated[
        Path | None,
        typer.Option(help="PEM file: the authority that signed the cameras' and the broker's certificates."),
    ] = None,
    cert: Annotated[Path | None, typer.Option(help="PEM file: the certificate of this collector.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file: the private key of --cert.")] = None,
    crl: Annotated[Path | None, typer.Option(help="PEM file: list of revoked certificates.")] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="Permit unencrypted connections (http://, mqtt://), from and to this machine only."
        ),
    ] = False,
    operations: Annotated[
        str | None, typer.Option(help="Separate address for /healthz and /metrics: http://127.0.0.1:PORT.")
    ] = None,
    retention_hours: HoursOption = None,
    people: Annotated[
        bool, typer.Option("--people", help="Assign each tracklet to a person as it arrives, as 'identify' does.")
    ] = False,
    transits: TransitsOption = None,
    quota_rows: Annotated[float, typer.Option(help="Observations that one camera may send in an hour.")] = 36_000,
    quota_megabytes: Annotated[
        float, typer.Option(help="Megabytes of observations that one camera may send in an hour, as stored.")
    ] = 150,
    quota_gaps: Annotated[float, typer.Option(help="Gaps that one camera may report in an hour.")] = 600,
    quota_outboxes: Annotated[float, typer.Option(help="New outboxes that one camera may start in an hour.")] = 60,
    quota_models: Annotated[float, typer.Option(help="Models not accepted that one camera may name in an hour.")] = 20,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], typer.Option(help="Least severe level to log.")
    ] = "info",
) -> None:
    """Collect observations from cameras until the process is stopped; creates the store if it does not exist."""
    from reid_edge.gallery.quota import Quota
    from reid_edge.gallery.serving import Endpoints, GalleryService, check_endpoints
    from reid_edge.logs import set_up_logs
    from reid_edge.system.private_memory import keep_memory_private
    from reid_edge.systemd import notify

    not_private = keep_memory_private()
    set_up_logs("auto", log_level)
    for problem in not_private:
        log.warning("%s", problem)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    tls = _tls_files(ca, cert, key, crl)
    quota = Quota(
        rows=quota_rows, megabytes=quota_megabytes, gaps=quota_gaps, outboxes=quota_outboxes, models=quota_models
    )
    endpoints = Endpoints(
        listen=listen,
        mqtt=mqtt,
        name=name,
        tls=tls,
        insecure=insecure,
        operations=operations,
        quota=quota,
        people=people,
        transits=read_times(transits),
    )
    if retention_hours is not None:
        checked_hours(retention_hours)
    check_endpoints(endpoints)  # what fails is to fail before a store is made
    with contextlib.ExitStack() as closing:
        gallery = closing.enter_context(opened(store, create=True))
        if retention_hours is not None:
            change_retention(gallery, retention_hours)
        service = GalleryService(gallery, endpoints, closing)
        console.print(f"{gallery.name} receives observations from {' and '.join(service.addresses)}", soft_wrap=True)
        notify("READY=1")
        service.until(stopped)
        notify("STOPPING=1")


def info(store: StoreArgument, utc: UtcOption = False, as_json: JsonOption = False) -> None:
    """Show the contents of a gallery: cameras, models, gaps, and the retention."""
    with opened(store) as gallery:
        summary = summarise(gallery, kept_since_us(gallery, now_us()))
    if as_json:
        print_json(dataclasses.asdict(summary))
    else:
        _print_summary(summary, utc=utc)


def cameras(store: StoreArgument, utc: UtcOption = False, as_json: JsonOption = False) -> None:
    """List the cameras that have observations in the gallery."""
    with opened(store) as gallery:
        summaries = gallery.cameras(kept_since_us(gallery, now_us()))
        twins = known_twins(gallery, now_us())
    if as_json:
        print_json([dataclasses.asdict(one) for one in summaries])
    else:
        _print_cameras(summaries, utc=utc)
    for each in twins:
        error_console.print(f"{each}.", soft_wrap=True)


def expire(
    store: StoreArgument,
    retention_hours: HoursOption = None,
    clock_is_right: Annotated[
        bool,
        typer.Option(
            "--clock-is-right", help="Confirm that this machine's clock is right, if deletion waits because of it."
        ),
    ] = False,
) -> None:
    """Delete what is older than the retention, as 'serve' does every minute."""
    with opened(store) as gallery:
        if retention_hours is not None:
            change_retention(gallery, retention_hours)
        retention = Retention(gallery)
        if clock_is_right:
            believe_clock(gallery, retention)
        count = retention.apply()
        hours = gallery.retention_hours()
    console.print(f"{counted(count, 'observation')} last seen more than {hours:g} hours ago deleted")
    if retention.trouble:
        error_console.print(f"deletion has to wait: {retention.trouble}.", soft_wrap=True)
        raise typer.Exit(1)


def accept_model(
    store: StoreArgument,
    model_hash: HashArgument,
    numbers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_NUMBERS,
            help="Numbers in a feature (see 'reid-edge inspect'). Default: as in the first feature that arrives.",
        ),
    ] = None,
) -> None:
    """Accept features of one more model. Features of different models are never compared."""
    _check_hash(model_hash)
    with opened(store) as gallery:
        known = {model.model_hash: model.dim for model in gallery.models()}.get(model_hash)
        if known not in (None, numbers) and numbers is not None:
            raise UsageError(
                f"features of this model have {known} numbers in {gallery.name}. If that is wrong: "
                f"reid-edge gallery forget-model {gallery.name} {model_hash}, and accept it again."
            )
        detail = {"model_hash": model_hash, **({} if numbers is None else {"numbers": numbers})}
        auditing.record(gallery, "accept-model", detail, at_us=now_us())
        gallery.accept_model(model_hash, numbers, now_us=now_us())
    console.print(f"{gallery.name} takes features of {model_hash}", soft_wrap=True)


def forget_model(store: StoreArgument, model_hash: HashArgument) -> None:
    """Stop accepting features of a model, e.g. one of the wrong size. No observation of it may be stored."""
    _check_hash(model_hash)
    with opened(store) as gallery:
        if model_hash not in {model.model_hash for model in gallery.models()}:
            raise UsageError(f"{gallery.name} does not take features of {model_hash}; 'gallery info' lists its models.")
        auditing.record(gallery, "forget-model", {"model_hash": model_hash}, at_us=now_us())
        if held := gallery.forget_model(model_hash):
            raise UsageError(
                f"{gallery.name} holds {counted(held, 'observation')} of {model_hash}. Erase first: "
                f"reid-edge gallery erase {gallery.name} --camera NAME; 'gallery cameras' lists the cameras."
            )
        forget_comparison(gallery, model_hash)
    console.print(f"{gallery.name} takes no more features of {model_hash}", soft_wrap=True)


def _check_hash(model_hash: str) -> None:
    if len(model_hash) != 64 or set(model_hash) - set("0123456789abcdef"):
        raise UsageError(
            f"expected a model hash of 64 hexadecimal digits, as 'reid-edge inspect' shows it; got '{model_hash}'."
        )


def audit(
    store: StoreArgument,
    last: Annotated[int, typer.Option(min=1, max=1_000_000, help="Number of newest entries to show.")] = 20,
    action: Annotated[
        list[str] | None, typer.Option(help="Only entries of this action: search, erase, expire, …. May be repeated.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check that no line was altered or removed.")] = False,
    expect: Annotated[
        str | None,
        typer.Option(
            help="Hash that an earlier --verify printed; checks that this line is still there. Implies --verify."
        ),
    ] = None,
    utc: UtcOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show who searched or erased what, when and for what purpose, or check that the audit is whole."""
    with opened(store) as gallery:
        if verify or expect is not None:
            _report_chain(auditing.verify(gallery, expect=expect), gallery.name, as_json=as_json)
            return
        entries = gallery.audit_entries(auditing.ALL_LINES if action else last)
    entries = [entry for entry in entries if not action or entry.action in action][-last:]
    if as_json:
        print_json([dataclasses.asdict(one) for one in entries])
    else:
        _print_audit(entries, gallery.name, utc=utc)


def _report_chain(report: ChainReport, store: str, *, as_json: bool) -> None:
    """Print what a check of the audit found; exit code 1 if something is wrong."""
    if as_json:
        print_json(dataclasses.asdict(report))
    else:
        for fault in report.faults:
            error_console.print(f"audit of {store}: {fault}", soft_wrap=True)
        console.print(
            f"{counted(report.lines, 'line')}, {'BROKEN' if report.faults else 'whole'}; last hash {report.head}\n"
            + (
                "keep the gallery's file as it is, and compare with 'reid-edge gallery audit' of its backups"
                if report.faults
                else "keep it elsewhere: with --expect HASH a later check also finds that lines at the end were removed"
            ),
            soft_wrap=True,
        )
    if report.faults:
        raise typer.Exit(1)


gallery_app = typer.Typer(
    no_args_is_help=True, help="Collect features in a gallery, search it, erase from it, and audit its use."
)
gallery_app.command()(serve)
gallery_app.command()(search)
gallery_app.command()(info)
gallery_app.command()(cameras)
gallery_app.command()(tracklets)
gallery_app.command()(identify)
gallery_app.command("people")(list_people)
gallery_app.command()(person)
gallery_app.command()(events)
gallery_app.command("calibrate")(calibrate_gallery)
gallery_app.command()(merge)
gallery_app.command()(split)
gallery_app.command("not-same")(not_same)
gallery_app.command()(erase)
gallery_app.command()(expire)
gallery_app.command("accept-model")(accept_model)
gallery_app.command("forget-model")(forget_model)
gallery_app.command()(pairs)
gallery_app.command()(migrate)
gallery_app.command()(audit)
gallery_app.command()(backup)
gallery_app.command("restore")(restore_backup)
gallery_app.command()(erasures)
gallery_app.command()(check)
gallery_app.command()(roles)


def _tls_files(ca: Path | None, cert: Path | None, key: Path | None, crl: Path | None) -> TlsFiles | None:
    """Return the certificates, or None if none are given.

    Raises:
        UsageError: Some are given and some are missing.
    """
    if ca is None and cert is None and key is None and crl is None:
        return None
    if ca is None or cert is None or key is None:
        raise UsageError("give --ca, --cert and --key together.")
    from reid_edge.upstream.tls import TlsFiles

    return TlsFiles(ca=ca, cert=cert, key=key, crl=crl)


def _print_summary(summary: Summary, *, utc: bool) -> None:
    """Print the contents of a gallery, then those of each camera."""
    rows = [
        ["observations", f"{summary.observations:,}"],
        ["first seen", time_text(summary.first_us, utc=utc)],
        ["last seen", time_text(summary.last_us, utc=utc)],
        ["missing", f"{summary.lost:,} in {counted(summary.gaps, 'gap')}"],
        *([["for other galleries", f"{summary.elsewhere:,}, not stored here"]] if summary.elsewhere else []),
        ["kept for", f"{summary.retention_hours:g} hours"],
        *([["damaged", summary.damage]] if summary.damage else []),
        *(["model", f"{one.model_hash}, {one.dim or '?'} numbers"] for one in summary.models),
    ]
    print_table(summary.store, ("", ""), rows)
    _print_cameras(summary.cameras, utc=utc)


def _print_cameras(cameras: Sequence[CameraSummary], *, utc: bool) -> None:
    elsewhere = any(one.elsewhere for one in cameras)
    rows = [
        [
            one.camera,
            f"{one.observations:,}",
            f"{one.tracklets:,}",
            time_text(one.first_us, utc=utc),
            time_text(one.last_us, utc=utc),
            f"{one.lost:,}",
            *([f"{one.elsewhere:,}"] if elsewhere else []),
        ]
        for one in cameras
    ]
    columns = ("camera", "observations", "tracklets", "first seen", "last seen", "missing")
    print_table("cameras", (*columns, "for others") if elsewhere else columns, rows)


def _print_audit(entries: Sequence[AuditEntry], store: str, *, utc: bool) -> None:
    rows = [
        [str(one.number), time_text(one.at_us, utc=utc), one.user, one.action, one.purpose, json.dumps(one.detail)]
        for one in entries
    ]
    print_table(f"audit of {store}", ("", "when", "who", "did", "for", "detail"), rows)
