"""The bundle: a folder with the files of one model for every engine, and a manifest that describes each.

Readers rely on the manifest alone; nothing is guessed from a file name.  ``docs/bundle.md`` describes the folder.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from reid_edge.errors import BundleCorruptError, BundleError, BundleVersionError, EngineUnavailableError
from reid_edge.files import read_regular, write_whole
from reid_edge.golden_file import parse_golden
from reid_edge.manifest import FORMAT_VERSION, Artifact, EngineName, FileEntry, Manifest, Precision
from reid_edge.manifest_rules import broken_rules

MANIFEST = "manifest.json"
#: More than the record of the longest tuning takes.
MAX_MANIFEST_BYTES = 64 << 20


@dataclass(frozen=True)
class Bundle:
    """An opened bundle."""

    path: Path
    manifest: Manifest

    def artifact(self, engine: EngineName, precision: Precision) -> Artifact:
        """Find the artifact of an engine and a precision.

        Raises:
            EngineUnavailableError: The bundle does not hold it.
        """
        for artifact in self.manifest.artifacts:
            if (artifact.engine, artifact.precision) == (engine, precision):
                return artifact
        held = ", ".join(artifact.name for artifact in self.manifest.artifacts)
        raise EngineUnavailableError(f"{self.path} holds no {engine}/{precision}; it holds {held}.")

    def read(self, entry: FileEntry) -> bytes:
        """Read a file of the bundle, if it is the one that was exported.

        The content that is returned is the content that was compared with the manifest: whoever loads a model takes
        these bytes, and never opens the file by its name.

        Raises:
            BundleCorruptError: The file is missing or has changed.
        """
        path = self.path / entry.path
        try:
            content = read_regular(path, max_bytes=entry.size_bytes)
        except OSError as error:
            raise BundleCorruptError(
                f"{path} is missing or unreadable ({error.strerror}); copy the bundle again or export it again."
            ) from error
        found = hashlib.sha256(content).hexdigest()
        if found != entry.sha256:
            raise BundleCorruptError(
                f"{path} is not the file that was exported: sha256 {found[:12]}…, the manifest says "
                f"{entry.sha256[:12]}…; copy the bundle again or export it again."
            )
        return content

    def check_files(self) -> None:
        """Compare every file with the manifest.

        Raises:
            BundleCorruptError: A file is missing or has changed.
        """
        for entry in self.manifest.entries():
            self.read(entry)

    def golden(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        """Read the golden crops and the checkpoint's features of them.

        Returns:
            Crops G×H×W×3 uint8 BGR, and features G×D float32, not normalised.

        Raises:
            BundleCorruptError: The file is missing or has changed, or holds something else.
        """
        entry = self.manifest.golden
        return parse_golden(self.read(entry), self.manifest, str(self.path / entry.path))


def open_bundle(path: Path | str) -> Bundle:
    """Read a bundle's manifest; each model file is checked when it is used.

    A symbolic link is followed once, here: if it points elsewhere later, the files still come from this folder.

    Raises:
        BundleError: The folder has no manifest.
        BundleVersionError: A later release wrote it.
        BundleCorruptError: The manifest cannot be read, or breaks a rule (:mod:`reid_edge.manifest_rules`).
    """
    path = _without_links(Path(path))
    try:
        text = read_regular(path / MANIFEST, max_bytes=MAX_MANIFEST_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(
            f"{path} is not a bundle: it has no {MANIFEST}. Make one with: reid-edge export --out {path}"
        ) from error
    except OSError as error:
        raise BundleError(f"{path / MANIFEST} cannot be read: {error.strerror}.") from error
    return Bundle(path, parse_manifest(text, path))


def parse_manifest(text: bytes, path: Path) -> Manifest:
    """Read a manifest and check it.

    Args:
        text: Content of ``manifest.json``.
        path: The bundle's folder, for the errors.

    Raises:
        BundleVersionError: A later release wrote it.
        BundleCorruptError: It is no manifest, or breaks a rule.
    """
    name = path / MANIFEST
    try:
        version = msgspec.json.decode(text, type=dict[str, msgspec.Raw])["format_version"]
        newer = int(bytes(version)) > FORMAT_VERSION
    # ValueError: also bytes that are not UTF-8; RecursionError: lists in lists in lists.
    except (msgspec.DecodeError, KeyError, ValueError, RecursionError) as error:
        raise BundleCorruptError(f"{name} is not a manifest: {error}; export the bundle again.") from error
    if newer:
        raise BundleVersionError(
            f"{path} has bundle format {int(bytes(version))}; this release reads up to {FORMAT_VERSION}. "
            "Upgrade reid-edge on this machine: pip install --upgrade reid-edge"
        )
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleCorruptError(f"{name}: {error}; export the bundle again.") from error
    if broken := broken_rules(manifest):
        raise BundleCorruptError(f"{name} {'; '.join(broken[:5])}; export the bundle again.")
    return manifest


def _without_links(path: Path) -> Path:
    """Follow the symbolic links of a path; without any it stays as it was given, for messages."""
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links; a NUL
        raise BundleError(f"{str(path)!r} is no folder: {error}.") from error
    return path if resolved == path.absolute() else resolved


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a bundle's manifest, whole or not at all.

    Raises:
        OutputError: The folder cannot be written.
    """
    write_whole(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def file_entry(folder: Path, relative: str) -> FileEntry:
    """Describe a file that lies in a bundle's folder."""
    path = folder / relative
    return FileEntry(path=relative, size_bytes=path.stat().st_size, sha256=sha256_of(path))


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, hexadecimal.

    Raises:
        OSError: The file is missing or unreadable.
    """
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
