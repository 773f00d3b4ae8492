"""The bundle: a folder with the files of one model for every engine, and a manifest that describes each.

Readers rely on the manifest alone; nothing is guessed from a file name.  ``docs/bundle.md`` describes the folder.
"""

from __future__ import annotations

import hashlib
import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from reid_edge.built_files import built_artifacts, built_folder, default_built_dir, entries_of
from reid_edge.errors import (
    BundleCorruptError,
    BundleError,
    BundleUntrustedError,
    BundleVersionError,
    EngineUnavailableError,
    UsageError,
    shortened,
)
from reid_edge.files import read_regular, write_whole
from reid_edge.golden_file import parse_golden
from reid_edge.manifest import (
    FORMAT_VERSION,
    MAX_FILE_BYTES,
    Artifact,
    EngineName,
    FileEntry,
    Manifest,
    Precision,
    with_artifact,
)
from reid_edge.manifest_rules import broken_rules
from reid_edge.signing import SIGNATURE, SIGNATURE_BYTES, check_signature, trusted_key

_logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
#: More than the record of the longest tuning takes.
MAX_MANIFEST_BYTES = 64 << 20


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        path: Its folder.
        manifest: Its manifest, with what was built from it on this device.
        manifest_sha256: Of the manifest's bytes; "" for a manifest that was not read from a file.
        signed_by: Fingerprint of the trusted key that signed it; "" where no key was asked for.
        built: Folder of the files that were built on this device.
        built_files: These files.
    """

    path: Path
    manifest: Manifest
    manifest_sha256: str = ""
    signed_by: str = ""
    built: Path | None = None
    built_files: frozenset[FileEntry] = frozenset()

    @property
    def is_signed(self) -> bool:
        """Return True if a signature lies beside the manifest, whoever made it."""
        return (self.path / SIGNATURE).exists()

    @property
    def title(self) -> str:
        """Return folder, and for a bundle whose signature was checked when it was made and who signed it."""
        if not self.signed_by:
            return str(self.path)
        return f"{self.path} (made {self.manifest.created}, signed by {self.signed_by[:16]}…)"

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
        path = self.path_of(entry)
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

    def path_of(self, entry: FileEntry) -> Path:
        """Return where a file lies: in the bundle, or among those built on this device."""
        folder = self.built if self.built is not None and entry in self.built_files else self.path
        return folder / entry.path

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
        size, dim = self.manifest.input.size, self.manifest.features.dim
        return parse_golden(self.read(entry), size=size, dim=dim, name=str(self.path / entry.path))


def open_bundle(
    path: Path | str,
    *,
    trusted_keys: Sequence[str | Path] = (),
    built_dir: Path | Literal["default"] | None = "default",
) -> Bundle:
    """Read a bundle's manifest; each model file is checked when it is used.

    A symbolic link is followed once, here: if it points elsewhere later, the files still come from this folder.

    Args:
        path: The folder.
        trusted_keys: Public keys (PEM files, or base64), one of which must have signed the manifest; none: anybody, or
            nobody.
        built_dir: Folder of what this device built from signed bundles; ``default`` is
            ``~/.local/state/reid-edge/built``, None uses nothing of it.

    Raises:
        UsageError: ``trusted_keys`` is one key, not a list.
        BundleError: The folder has no manifest.
        BundleUntrustedError: Keys are given, and none of them signed it.
        SigningKeyError: A key cannot be read.
        MissingExtraError: Keys are given, and the package ``cryptography`` is not installed.
        BundleVersionError: A later release wrote it.
        BundleCorruptError: The manifest cannot be read, or breaks a rule (:mod:`reid_edge.manifest_rules`).
    """
    if isinstance(trusted_keys, str | Path):  # an empty text would pin nothing
        raise UsageError(f"trusted_keys is a list of keys; put a single key in brackets, got {str(trusted_keys)!r}.")
    path, text = read_manifest(path)
    signed_by = _checked_signature(path, text, trusted_keys) if trusted_keys else ""
    digest = hashlib.sha256(text).hexdigest()
    bundle = Bundle(path, parse_manifest(text, path), manifest_sha256=digest, signed_by=signed_by)
    folder = default_built_dir() if built_dir == "default" else built_dir
    return bundle if folder is None else _with_built(bundle, built_folder(folder, digest))


def read_manifest(path: Path | str) -> tuple[Path, bytes]:
    """Return a bundle's folder, symbolic links followed, and the bytes of its manifest.

    Raises:
        BundleError: The folder has no manifest, or it cannot be read.
    """
    path = _without_links(Path(path))
    try:
        return path, read_regular(path / MANIFEST, max_bytes=MAX_MANIFEST_BYTES)
    except NotADirectoryError as error:
        raise BundleError(
            f"{path} is a file; expected the folder of a bundle. From a checkpoint, make one with: "
            f"reid-edge export --checkpoint {shlex.quote(str(path))} --out BUNDLE"
        ) from error
    except FileNotFoundError as error:
        lacks = f"it has no {MANIFEST}" if path.is_dir() else "there is no such folder"
        raise BundleError(
            f"{path} is not a bundle: {lacks}. Make one with: reid-edge export --out {shlex.quote(str(path))}"
        ) from error
    except OSError as error:
        raise BundleError(f"{path / MANIFEST} cannot be read: {error.strerror}.") from error


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
        raise BundleCorruptError(f"{name} is not a manifest: {shortened(error)}; export the bundle again.") from error
    if newer:
        raise BundleVersionError(
            f"{path} has bundle format {int(bytes(version))}; this release reads up to {FORMAT_VERSION}. "
            "Upgrade reid-edge on this machine: pip install --upgrade reid-edge"
        )
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleCorruptError(f"{name}: {shortened(error)}; export the bundle again.") from error
    if broken := broken_rules(manifest):
        raise BundleCorruptError(f"{name} {shortened('; '.join(broken))}; export the bundle again.")
    return manifest


def _checked_signature(path: Path, manifest: bytes, trusted_keys: Sequence[str | Path]) -> str:
    """Return the fingerprint of the key that signed a manifest."""
    keys = [trusted_key(given) for given in trusted_keys]
    advice = "Use a bundle that was signed for this device: reid-edge bundle sign BUNDLE --key KEY"
    try:
        signature = read_regular(path / SIGNATURE, max_bytes=SIGNATURE_BYTES)
    except FileNotFoundError as error:
        raise BundleUntrustedError(
            f"{path} is not signed (no {SIGNATURE}), and keys are pinned here. {advice}"
        ) from error
    except OSError as error:
        raise BundleUntrustedError(f"{path / SIGNATURE} cannot be read: {error.strerror}. {advice}") from error
    try:
        return check_signature(manifest, signature, keys).fingerprint
    except BundleUntrustedError as error:
        raise BundleUntrustedError(f"{path}: {error}. {advice}") from error


def _with_built(bundle: Bundle, folder: Path) -> Bundle:
    """Add what was built from a bundle on this device, where that can be trusted."""
    artifacts = built_artifacts(folder, bundle.manifest_sha256)
    if not artifacts:
        return bundle
    manifest = reduce(with_artifact, artifacts, bundle.manifest)
    if broken := broken_rules(manifest):
        _logger.warning("what was built from %s is not used: its record %s", bundle.path, shortened("; ".join(broken)))
        return bundle
    return replace(bundle, manifest=manifest, built=folder, built_files=entries_of(artifacts))


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
    """Describe a file that lies in a bundle's folder.

    Raises:
        OSError: It cannot be read.
    """
    content = read_regular(folder / relative, max_bytes=MAX_FILE_BYTES)
    return FileEntry(path=relative, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
