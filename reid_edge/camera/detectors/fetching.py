"""Bring a detector of the catalogue onto this machine, from its makers' archive, a mirror or a folder, and check it."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from reid_edge.assets import asset
from reid_edge.camera.detectors.catalogue import CatalogueDetector, CatalogueFile, Precision, is_right
from reid_edge.camera.detectors.download import download
from reid_edge.errors import DownloadError, OutputError
from reid_edge.files import check_output, read_regular, write_whole
from reid_edge.progress import Notify
from reid_edge.redaction import without_userinfo

#: Written beside the files, so that whoever finds them knows what they are.
RECORD = "SOURCE.txt"


def is_address(origin: str) -> bool:
    """Tell an address from a folder."""
    return "://" in origin


def source_of(file: CatalogueFile, detector: CatalogueDetector, origin: str | None) -> str:
    """Return where a file is to come from: an address, or a folder."""
    if origin is None:
        return file.url
    return f"{origin.rstrip('/')}/{detector.name}/{file.path}" if is_address(origin) else origin


def fetch(
    detector: CatalogueDetector,
    precision: Precision,
    *,
    folder: Path,
    origin: str | None = None,
    force: bool = False,
    notify: Notify = lambda _text, _steps: lambda _count=1: None,
) -> Path:
    """Put a detector's files into a folder, checked; each appears whole or not at all.

    Files that are there already, and right, stay as they are.

    Args:
        detector: Which.
        precision: Of its weights.
        folder: The files go into ``folder/NAME/FP16`` or the like.
        origin: Address of a mirror, or a folder; None for its makers' archive.
        force: Replace files that are there and differ.
        notify: Told of the progress.

    Returns:
        Path of the ``….xml``.

    Raises:
        DownloadError: A file cannot be had, or is another than the catalogue's.
        OutputError: The folder cannot be written, or has other files under these names.
    """
    home = folder.expanduser() / detector.name
    files = detector.files[precision]
    lacking = [file for file in files if not _is_there(file, home / file.path, force=force)]
    for file in lacking:
        check_output(home / file.path, force=True, parents=True)
    # The weights first: a detector is there once its '.xml' is.
    for file in sorted(lacking, key=lambda file: file.path):
        advance = notify(Path(file.path).name, file.size)
        content = _content(file, detector, origin, advance)
        _check(file, content, source_of(file, detector, origin))
        write_whole(home / file.path, content)
    if lacking:
        _record(detector, precision, home, origin)
    return home / files[0].path


def _is_there(file: CatalogueFile, path: Path, *, force: bool) -> bool:
    try:
        content = read_regular(path, max_bytes=file.size)
    except FileNotFoundError:
        return False
    except OSError:  # longer, or no file
        content = b""
    if is_right(file, content):
        return True
    if not force:
        raise OutputError(f"{path} exists and is not the catalogue's file; use --force to replace it.")
    return False


def _content(
    file: CatalogueFile, detector: CatalogueDetector, origin: str | None, advance: Callable[..., object]
) -> bytes:
    if origin is None or is_address(origin):
        return download(source_of(file, detector, origin), file.size, advance=advance)
    path = _in_folder(file, detector, Path(origin).expanduser())
    try:
        content = read_regular(path, max_bytes=file.size)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise DownloadError(_another(file, path, f"more than {file.size:,} bytes")) from error
        raise DownloadError(f"cannot read {path}: {error.strerror or error}.") from error
    advance(len(content))
    return content


def _in_folder(file: CatalogueFile, detector: CatalogueDetector, folder: Path) -> Path:
    """Find a file in a folder.

    Raises:
        DownloadError: There is no such folder, or the file is in none of its usual places.
    """
    if not folder.is_dir():
        raise DownloadError(f"there is no folder {folder}. Is the stick or share mounted, and the path right?")
    if place := _place(file, detector, folder):
        return place
    others = [name for name, files in detector.files.items() if all(_place(one, detector, folder) for one in files)]
    advice = (
        f"It has {' and '.join(others)}: --precision {others[0]}"
        if others
        else f"Make such a folder on a machine with a network: reid-edge detector get {detector.name} --to FOLDER"
    )
    raise DownloadError(f"{folder} has no {file.path} of {detector.name}. {advice}")


def _place(file: CatalogueFile, detector: CatalogueDetector, folder: Path) -> Path | None:
    """Look where 'detector get --to' and Open Model Zoo's downloader put a file, and beside the files themselves."""
    places = (
        folder / detector.name / file.path,
        folder / "intel" / detector.name / file.path,
        folder / file.path,
        folder / Path(file.path).name,
    )
    return next((place for place in places if place.is_file()), None)


def _check(file: CatalogueFile, content: bytes, source: str) -> None:
    if is_right(file, content):
        return
    got = f"{len(content):,} bytes with {hashlib.sha384(content).hexdigest()[:16]}…"
    raise DownloadError(_another(file, without_userinfo(source), got))


def _another(file: CatalogueFile, where: str | Path, got: str) -> str:
    return (
        f"{Path(file.path).name} from {where} is not the file of the catalogue: expected {file.size:,} bytes with "
        f"SHA-384 {file.sha384[:16]}…, got {got}. Nothing was written. Another release of it, or a damaged copy: use "
        "--from with another mirror or folder; to run it all the same, name the file itself: --detector FILE.xml"
    )


def _record(detector: CatalogueDetector, precision: Precision, home: Path, origin: str | None) -> None:
    """Write down where the files are from, and their licence."""
    files = detector.files[precision]
    lines = [
        f"{detector.name}, {precision}",
        f"Description: {detector.page}",
        f"Licence: {detector.licence}, {detector.licence_url}",
        "Published at:",
        *(f"  {file.url}" for file in files),
        f"Fetched by reid-edge at {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC from:",
        *dict.fromkeys(f"  {without_userinfo(source_of(file, detector, origin))}" for file in files),
        "SHA-384, as published and as checked:",
        *(f"  {file.sha384}  {Path(file.path).name}" for file in files),
    ]
    write_whole((home / files[0].path).with_name(RECORD), ("\n".join(lines) + "\n").encode())
    if detector.licence == "Apache-2.0" and (text := asset("", "LICENSE")):
        write_whole(home / "LICENSE", text.read_bytes())
