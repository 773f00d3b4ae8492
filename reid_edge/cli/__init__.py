"""The ``reid-edge`` command: every heavy import is inside the command that needs it."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable
from typing import Annotated

import typer

import reid_edge
from reid_edge.cli.adapt import adapt
from reid_edge.cli.benchmark import benchmark
from reid_edge.cli.bundle import doctor, extract, inspect, verify
from reid_edge.cli.bundle_signing import bundle_app
from reid_edge.cli.camera import run
from reid_edge.cli.checkpoint import complexity, import_checkpoint
from reid_edge.cli.detector import detector_app
from reid_edge.cli.evaluate import evaluate
from reid_edge.cli.evaluate_people import evaluate_people
from reid_edge.cli.explain import explain
from reid_edge.cli.export import build, export
from reid_edge.cli.gallery import gallery_app
from reid_edge.cli.matrix import matrix
from reid_edge.cli.outbox import outbox_app
from reid_edge.cli.preview import preview
from reid_edge.cli.report import report
from reid_edge.cli.train import train
from reid_edge.cli.tune import tune
from reid_edge.console import console, error_console
from reid_edge.errors import ReidEdgeError
from reid_edge.logs import scrub_tracebacks
from reid_edge.redaction import scrubbed
from reid_edge.system.stop_signals import held

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="OSNet person re-identification on edge devices: train, export, verify, run, search.",
)
# In the order of the flow: checkpoint, bundle, device, camera, gallery.
app.command()(train)
app.command()(explain)
app.command("import")(import_checkpoint)
app.command()(adapt)
app.command()(export)
app.command()(complexity)
app.command()(build)
app.command()(tune)
app.command()(doctor)
app.command()(inspect)
app.command()(verify)
app.add_typer(bundle_app, name="bundle")
app.command()(extract)
app.command()(evaluate)
app.command()(evaluate_people)
app.command()(matrix)
app.command()(benchmark)
app.command()(report)
app.add_typer(detector_app, name="detector")
app.command()(preview)
app.command()(run)
app.add_typer(outbox_app, name="outbox")
app.add_typer(gallery_app, name="gallery")


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """OSNet person re-identification on edge devices."""
    if version:
        console.print(reid_edge.__version__)
        raise typer.Exit


def main() -> None:
    """Entry point: an error that reid-edge raises on purpose becomes one message and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ≥ and × is no reason to fail
    scrub_tracebacks()
    if sys.argv[1:2] == ["run"]:
        _serve()
    else:
        _work()


def _serve() -> None:
    """Run a service: its signals are taken by a thread, and it ends even if a thread of it waits for a camera."""
    with held() as signals:
        try:
            _run_app(lambda: signals.asked)
        finally:
            signals.leave_if_threads_are_left(sys.exc_info()[1])


def _work() -> None:
    """Run a command that ends by itself, or when SIGTERM interrupts it."""
    asked_to_stop: list[int] = []

    def stop(number: int, _frame: object) -> None:
        asked_to_stop.append(number)
        sys.exit(143)  # so that what was half written is removed

    signal.signal(signal.SIGTERM, stop)
    _run_app(lambda: bool(asked_to_stop))


def _run_app(asked_to_stop: Callable[[], bool]) -> None:
    try:
        app()
    except ReidEdgeError as error:
        if asked_to_stop():  # in the middle of an import, which made an ImportError of it
            sys.exit(143)
        error_console.print(type(error).__name__, style="bold red", end=": ")
        error_console.print(scrubbed(str(error)), soft_wrap=True)
        sys.exit(1)
