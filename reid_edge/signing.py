"""Signatures of bundles: Ed25519 over the bytes of the manifest, with keys that openssl makes and checks too."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reid_edge.errors import BundleUntrustedError, MissingExtraError, SigningKeyError
from reid_edge.files import read_regular

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

#: Beside the manifest: the 64 bytes of its signature.
SIGNATURE = "manifest.json.sig"
SIGNATURE_BYTES = 64
#: More than any PEM file of a key has.
MAX_KEY_BYTES = 1 << 16
_PURPOSE = "a bundle's signature"
#: DER of a SubjectPublicKeyInfo of Ed25519 before the 32 bytes of the key (RFC 8410).
_DER_PREFIX = bytes.fromhex("302a300506032b6570032100")
_KEY_BYTES = 32
_HOW_TO_MAKE = "Make keys with: reid-edge bundle keygen KEY.pem, or openssl genpkey -algorithm ed25519"


@dataclass(frozen=True)
class TrustedKey:
    """A public Ed25519 key whose signatures are believed.

    Attributes:
        raw: Its 32 bytes.
    """

    raw: bytes

    @property
    def fingerprint(self) -> str:
        """Return sha256 of the key's DER, as ``openssl pkey -pubin -outform DER | sha256sum`` gives it."""
        return hashlib.sha256(_DER_PREFIX + self.raw).hexdigest()

    @property
    def text(self) -> str:
        """Return the key for a settings file: base64 of its DER, which is the middle line of its PEM file."""
        return base64.b64encode(_DER_PREFIX + self.raw).decode()


def trusted_key(given: str | Path) -> TrustedKey:
    """Read a public key.

    Args:
        given: A PEM file, or base64 of the key's DER (the middle line of that file) or of its 32 bytes.

    Raises:
        SigningKeyError: It is neither.
        MissingExtraError: The package ``cryptography`` is not installed.
    """
    if isinstance(given, str) and (raw := _from_base64(given)) is not None:
        return TrustedKey(raw)
    path = Path(given)
    content = _key_file(path, forbidden=0o002, advice="chmod o-w")
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as error:
        raise MissingExtraError("cryptography", "signing", _PURPOSE) from error
    try:
        key = serialization.load_pem_public_key(content)
    except Exception as error:  # ValueError, UnsupportedAlgorithm, and others of its Rust part
        raise SigningKeyError(f"{path} holds no public key in PEM ({error}). {_HOW_TO_MAKE}.") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SigningKeyError(f"{path} holds a key of another kind; expected Ed25519. {_HOW_TO_MAKE}.")
    return TrustedKey(key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw))


def check_signature(message: bytes, signature: bytes, keys: Sequence[TrustedKey]) -> TrustedKey:
    """Return the key that made a signature.

    Raises:
        BundleUntrustedError: None of the keys made it.
        MissingExtraError: The package ``cryptography`` is not installed.
    """
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as error:
        raise MissingExtraError("cryptography", "signing", _PURPOSE) from error
    for key in keys:
        try:
            Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            continue
        return key
    known = ", ".join(f"{key.fingerprint[:16]}…" for key in keys)
    raise BundleUntrustedError(
        f"none of the trusted keys ({known}) signed this manifest: it was changed after signing, or another key signed"
    )


class SigningKey:
    """A private Ed25519 key.

    Args:
        key: Of the package ``cryptography``.
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> SigningKey:
        """Make a new key.

        Raises:
            MissingExtraError: The package ``cryptography`` is not installed.
        """
        try:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        except ImportError as error:
            raise MissingExtraError("cryptography", "signing", _PURPOSE) from error
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path, ask_password: Callable[[], bytes]) -> SigningKey:
        """Read a key from a PEM file (PKCS #8).

        Args:
            path: The file, readable by its owner alone.
            ask_password: Called if the file is encrypted.

        Raises:
            SigningKeyError: Others may read the file, it holds something else, or the password is wrong.
            MissingExtraError: The package ``cryptography`` is not installed.
        """
        content = _key_file(path, forbidden=0o077, advice="chmod 600")
        try:
            from cryptography.hazmat.primitives import serialization
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        except ImportError as error:
            raise MissingExtraError("cryptography", "signing", _PURPOSE) from error
        try:
            try:
                key = serialization.load_pem_private_key(content, None)
            except TypeError:  # it is encrypted
                key = serialization.load_pem_private_key(content, ask_password())
        except SigningKeyError:
            raise
        except Exception as error:  # ValueError, UnsupportedAlgorithm, and others of its Rust part
            raise SigningKeyError(
                f"{path} holds no private key in PEM (PKCS #8), or the password is wrong ({error}). {_HOW_TO_MAKE}."
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise SigningKeyError(f"{path} holds a key of another kind; expected Ed25519. {_HOW_TO_MAKE}.")
        return cls(key)

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the signature of a message."""
        return self._key.sign(message)

    @property
    def public(self) -> TrustedKey:
        """Return the public key."""
        from cryptography.hazmat.primitives import serialization

        raw = self._key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return TrustedKey(raw)

    def private_pem(self, password: bytes) -> bytes:
        """Return the private key as PEM (PKCS #8), encrypted unless the password is empty."""
        from cryptography.hazmat.primitives import serialization

        encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        return self._key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)

    def public_pem(self) -> bytes:
        """Return the public key as PEM (SubjectPublicKeyInfo)."""
        return f"-----BEGIN PUBLIC KEY-----\n{self.public.text}\n-----END PUBLIC KEY-----\n".encode()


def _from_base64(text: str) -> bytes | None:
    """Return the 32 bytes of a key given in base64; None for anything else, e.g. the name of a file."""
    try:
        content = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    content = content.removeprefix(_DER_PREFIX)
    return content if len(content) == _KEY_BYTES else None


def _key_file(path: Path, *, forbidden: int, advice: str) -> bytes:
    """Read a key's file once.

    Args:
        path: The file.
        forbidden: Bits that its mode must not have.
        advice: Command that takes them away.

    Raises:
        SigningKeyError: It cannot be read, or has one of these bits.
    """

    def check(found: os.stat_result) -> None:
        if found.st_mode & forbidden:
            mode = stat.S_IMODE(found.st_mode)
            raise SigningKeyError(f"the key {path} is open to others (mode {mode:o}): {advice} {path}")

    try:
        return read_regular(path, max_bytes=MAX_KEY_BYTES, check=check)
    except OSError as error:
        raise SigningKeyError(f"the key {path} cannot be read: {error.strerror}. {_HOW_TO_MAKE}.") from error
