"""``reid-edge detector``: person detectors by name, and how they get onto this machine."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from reid_edge.console import console, error_console, print_table, progress_bars
from reid_edge.errors import UsageError

if TYPE_CHECKING:
    from reid_edge.camera.detectors.catalogue import CatalogueDetector, Precision

detector_app = typer.Typer(no_args_is_help=True, help="Person detectors by name: list and fetch them.")


@detector_app.command("list")
def list_detectors() -> None:
    """List the detectors that can be used by name, and show which are on this machine."""
    from reid_edge.camera.detectors.catalogue import catalogue, folders

    headers = ("name", "for", "licence", "input", "GFLOPs", "MB, fp16", "here")
    print_table("detectors", headers, [_row(detector) for detector in catalogue().values()])
    console.print(f"Searched: {', '.join(map(str, folders()))}.", soft_wrap=True)
    console.print("Next: reid-edge detector get NAME, then reid-edge run BUNDLE --source VIDEO --detector NAME")


@detector_app.command("get")
def get_detector(
    name: Annotated[str, typer.Argument(help="Name, as 'reid-edge detector list' shows it.")],
    precision: Annotated[
        Literal["fp16", "fp32", "int8"],
        typer.Option(help="Precision of the weights. fp16 is half the size of fp32, int8 a quarter."),
    ] = "fp16",
    origin: Annotated[
        str | None,
        typer.Option("--from", help="Folder or mirror address to fetch from. Default: the makers' archive."),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            help="Folder to store it in. Default: ~/.local/share/reid-edge/detectors (follows XDG_DATA_HOME)."
        ),
    ] = None,
    agreed: Annotated[
        bool, typer.Option("--yes", "--accept-licence", help="Accept the licence and do not ask.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace existing files that differ from the catalogue's.")
    ] = False,
) -> None:
    """Download a detector, check it against the published checksum, and store it; asks first.

    It follows the variables HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE. For a machine without a network, run 'get NAME
    --to STICK' on another machine, then 'get NAME --from STICK' on this one.
    """
    from reid_edge.camera.detectors.catalogue import catalogued, user_folder
    from reid_edge.camera.detectors.fetching import fetch

    detector = catalogued(name)
    if precision not in detector.files:
        raise UsageError(f"{name} has no {precision} in the catalogue; it has {', '.join(detector.files)}.")
    folder = to or user_folder()
    _announce(detector, precision, origin, folder)
    if not agreed:
        _ask(detector)
    with progress_bars() as notify:
        path = fetch(detector, precision, folder=folder, origin=origin, force=force, notify=notify)
    console.print(f"{path} is stored; its checksum is the published one.", soft_wrap=True)
    use = detector.name if to is None else shlex.quote(str(path))
    console.print(f"Next: reid-edge run BUNDLE --source VIDEO --detector {use}", soft_wrap=True)


def _row(detector: CatalogueDetector) -> list[str]:
    from reid_edge.camera.detectors.catalogue import installed

    height, width = detector.input_hw
    return [
        detector.name,
        detector.about,
        detector.licence,
        f"{width}×{height}",
        f"{detector.gflops:.1f}",
        f"{detector.size_mb('fp16'):.1f}",
        ", ".join(installed(detector)) or "no",
    ]


def _announce(detector: CatalogueDetector, precision: Precision, origin: str | None, folder: Path) -> None:
    """Say what would be fetched, from where, through which proxy, and under which licence."""
    from reid_edge.camera.detectors.download import proxy_for
    from reid_edge.camera.detectors.fetching import is_address, source_of
    from reid_edge.redaction import without_userinfo

    sources = {source_of(file, detector, origin): None for file in detector.files[precision]}
    lines = [
        f"{detector.name}, {precision}, {detector.size_mb(precision):.1f} MB: {detector.page}",
        f"Licence: {detector.licence}, {detector.licence_url}",
        *(f"From: {without_userinfo(source)}" for source in sources),
        *(f"Through the proxy: {proxy}" for proxy in {proxy_for(s) for s in sources if is_address(s)} if proxy),
        f"Into: {folder.expanduser() / detector.name}",
    ]
    error_console.print("\n".join(lines), soft_wrap=True)


def _ask(detector: CatalogueDetector) -> None:
    """Ask for consent.

    Raises:
        UsageError: Nobody can be asked, or the answer is no.
    """
    if not sys.stdin.isatty():
        raise UsageError(f"there is no terminal to ask at. If you accept the licence ({detector.licence}), add --yes.")
    if not typer.confirm("Accept the licence and fetch it?", err=True):
        raise UsageError("nothing was fetched.")
