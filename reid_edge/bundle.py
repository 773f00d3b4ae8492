"""The bundle: a folder with the files of one model for every engine, and a manifest that describes each.

Readers rely on the manifest alone; nothing is guessed from a file name.  ``docs/bundle.md`` describes the folder.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec
import numpy as np
import numpy.typing as npt

from reid_edge.errors import BundleCorruptError, BundleError, BundleVersionError, EngineUnavailableError
from reid_edge.files import write_whole
from reid_edge.manifest import FORMAT_VERSION, Artifact, EngineName, FileEntry, Manifest, Precision

MANIFEST = "manifest.json"


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

    def checked_path(self, entry: FileEntry) -> Path:
        """Return the path of a file after comparing its sha256 with the manifest's.

        Raises:
            BundleCorruptError: The file is missing or has changed.
        """
        path = self.path / entry.path
        try:
            found = sha256_of(path)
        except OSError as error:
            raise BundleCorruptError(
                f"{path} is missing or unreadable ({error.strerror}); copy the bundle again or export it again."
            ) from error
        if found != entry.sha256:
            raise BundleCorruptError(
                f"{path} is not the file that was exported: sha256 {found[:12]}…, the manifest says "
                f"{entry.sha256[:12]}…; copy the bundle again or export it again."
            )
        return path

    def golden(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        """Read the golden crops and the checkpoint's features of them.

        Returns:
            Crops G×H×W×3 uint8 BGR, and features G×512 float32, not normalised.

        Raises:
            BundleCorruptError: The file is missing or has changed.
        """
        with np.load(self.checked_path(self.manifest.golden)) as stored:
            return stored["crops"], stored["features"]


def open_bundle(path: Path | str) -> Bundle:
    """Read a bundle's manifest; each model file is checked when it is used.

    Raises:
        BundleError: The folder has no manifest.
        BundleVersionError: A later release wrote it.
        BundleCorruptError: The manifest cannot be read, or names a file outside the folder.
    """
    path = Path(path)
    manifest_path = path / MANIFEST
    if not manifest_path.is_file():
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}. Make one with: reid-edge export --out {path}")
    text = manifest_path.read_bytes()
    try:
        version = msgspec.json.decode(text, type=dict[str, msgspec.Raw])["format_version"]
        newer = int(bytes(version)) > FORMAT_VERSION
    except (msgspec.DecodeError, KeyError, ValueError) as error:  # ValueError: also bytes that are not UTF-8
        raise BundleCorruptError(f"{manifest_path} is not a manifest: {error}; export the bundle again.") from error
    if newer:
        raise BundleVersionError(
            f"{path} has bundle format {int(bytes(version))}; this release reads up to {FORMAT_VERSION}. "
            "Upgrade reid-edge on this machine: pip install --upgrade reid-edge"
        )
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleCorruptError(f"{manifest_path}: {error}; export the bundle again.") from error
    for entry in manifest.entries():
        if PurePosixPath(entry.path).is_absolute() or ".." in PurePosixPath(entry.path).parts:
            raise BundleCorruptError(f"{manifest_path} names a file outside the bundle: {entry.path}.")
    return Bundle(path, manifest)


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
