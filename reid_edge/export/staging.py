"""Write a folder whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from reid_edge.bundle import MANIFEST, open_bundle
from reid_edge.errors import BundleError, OutputError
from reid_edge.signing import SIGNATURE

#: What an export of the widest network with all files may take, with room to spare.
NEEDED_BYTES = 256 * 1024 * 1024


@contextlib.contextmanager
def staged_folder(out: Path, *, force: bool, why_foreign: Callable[[Path], str] | None = None) -> Iterator[Path]:
    """Yield a temporary folder beside ``out`` that becomes ``out`` when the block ends well, and is removed otherwise.

    Args:
        out: The folder.
        force: Replace one that is there.
        why_foreign: Says why a folder must not be replaced, "" for one that may be; None: only bundles may.

    Raises:
        OutputError: ``out`` exists (with ``force``: and is foreign), or the disk is full or read-only.
    """
    out = out.resolve()
    _check_replaceable(out, force, why_foreign or _not_of_a_bundle)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    _remove_abandoned(out)
    missing = [parent for parent in out.parents if not parent.exists()]
    try:
        partial.mkdir(parents=True)
        _check_space(partial)
        yield partial
        _replace(partial, out)
    except OSError as error:
        raise OutputError(
            f"cannot write {out}: {error.strerror or error}. Nothing was left there; "
            "choose a writable folder with room: --out DIR"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for parent in missing:
            with contextlib.suppress(OSError):  # holds the bundle, or was never made
                parent.rmdir()


def _remove_abandoned(out: Path) -> None:
    """Remove what processes that were killed have left."""
    for folder in out.parent.glob(f".{glob.escape(out.name)}.*.partial"):
        pid = folder.name.split(".")[-2]
        if pid.isdigit() and not Path("/proc", pid).exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _check_replaceable(out: Path, force: bool, why_foreign: Callable[[Path], str]) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not force:
        raise OutputError(f"{out} exists already; use --force to replace it, or another --out.")
    if strange := why_foreign(out):
        raise OutputError(
            f"{out} exists and {strange}; it is not replaced even with --force. Use another --out, or remove it."
        )


def _not_of_a_bundle(out: Path) -> str:
    """Say why a folder must not be taken for a bundle and deleted; "" for a bundle."""
    try:
        listed = {out / entry.path for entry in open_bundle(out).manifest.entries()}
        listed |= {out / MANIFEST, out / SIGNATURE}
    except BundleError:
        return "is not a bundle that this release wrote"
    unlisted = sorted(path for path in out.rglob("*") if path.is_file() and path not in listed)
    return f"holds a file that is not the bundle's: {unlisted[0]}" if unlisted else ""


def _check_space(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        raise OutputError(
            f"the disk under {folder.parent} has {free / 1e6:.0f} MB free; an export may need "
            f"{NEEDED_BYTES / 1e6:.0f} MB. Make room, or use another --out."
        )


def _replace(partial: Path, out: Path) -> None:
    if not out.exists():
        partial.rename(out)
        return
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    out.rename(old)
    try:
        partial.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
