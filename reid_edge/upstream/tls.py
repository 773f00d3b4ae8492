"""TLS for both ends: version 1.3 or newer, with a certificate on either side; plain text on loopback only."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from reid_edge.errors import SettingsError
from reid_edge.redaction import without_userinfo
from reid_edge.sparse_log import SparseLog
from reid_edge.upstream.encryption import check_encrypted

#: What to do about a certificate that the other end refuses, by OpenSSL's words for its alert.
_OF_ALERTS = {
    "certificate expired": "it has expired, or a clock is wrong: see the date at both ends, or renew it",
    "certificate revoked": "it is in the list of revoked ones: make another",
    "unknown ca": "it is of another authority: take one that the authority of the other end has signed",
}
_SPARSE = SparseLog(logging.getLogger(__name__))

#: Schemes with TLS.
SECURE_SCHEMES = frozenset({"https", "mqtts"})


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The PEM files of one end, as ``deploy/mosquitto/make_certs.sh`` makes them.

    Attributes:
        ca: Certificate of the authority that signed the other end's certificate.
        cert: This end's certificate; a camera's common name is the camera's name.
        key: Its private key, without a password.
        crl: Revoked certificates, for a server; None checks none.
    """

    ca: Path
    cert: Path
    key: Path
    crl: Path | None = None


@dataclass(frozen=True)
class Endpoint:
    """Host and port to connect to or listen on; ``secure`` with TLS, else in plain text on loopback."""

    host: str
    port: int
    secure: bool


def endpoint(uri: str, schemes: Mapping[str, int], tls: TlsFiles | None, *, insecure: bool) -> Endpoint:
    """Read ``SCHEME://HOST[:PORT]``, which must use TLS, or be on loopback with ``insecure``.

    Args:
        uri: E.g. ``mqtts://broker.example:8883``.
        schemes: Allowed schemes, with the default port of each.
        tls: Certificates, which a secure scheme needs.
        insecure: Allow plain text on loopback.

    Raises:
        SettingsError: The address has another form, certificates are missing, or plain text is not allowed.
    """
    shown = without_userinfo(uri)  # also without parameters that look secret
    if shown != uri:  # before parsing it: the parser's own errors repeat the address
        raise SettingsError(f"expected {_forms(schemes)} without a user or a password, got {shown!r}.")
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as error:
        raise SettingsError(f"{uri!r} is not an address ({error}); expected {_forms(schemes)}.") from error
    whole = f"{parts.scheme}://{parts.netloc}"
    if parts.scheme not in schemes or not parts.hostname or uri.rstrip("/") != whole:
        raise SettingsError(f"expected {_forms(schemes)}, got {uri!r}.")
    found = Endpoint(parts.hostname, schemes[parts.scheme] if port is None else port, parts.scheme in SECURE_SCHEMES)
    _check_encrypted(uri, found, tls, insecure=insecure)
    return found


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Make the context of a client: it checks the server's name and shows its own certificate, TLS 1.3 or newer.

    Raises:
        SettingsError: A file is missing or is no PEM file, or the key does not belong to the certificate.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, files)


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Make the context of a server: it refuses clients without a certificate of ``files.ca``, TLS 1.3 or newer.

    A client that it refuses is told why by a TLS alert, and the log tells it once a minute.

    Raises:
        SettingsError: A file is missing or is no PEM file, or the key does not belong to the certificate.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, files)
    context.verify_mode = ssl.CERT_REQUIRED
    context.sslobject_class = _Refusing
    return context


def certificate_advice(error: str, peer: str) -> str:
    """Return what to do where one end did not accept the other's certificate; empty for other errors.

    Args:
        error: OpenSSL's words.
        peer: The other end, as a reader knows it, e.g. ``gallery``.
    """
    if "CERTIFICATE_VERIFY_FAILED" in error:
        return f"; compare tls.ca, the host's name in the address, and the clock with the {peer}'s certificate"
    if "ALERT" not in error.upper():
        return ""
    for words, advice in _OF_ALERTS.items():
        if words in error.lower():
            return f"; the {peer} does not accept this certificate: {advice}"
    return f"; the {peer} may not accept this certificate: see whether it is of its authority, valid, not revoked"


class _Refusing(ssl.SSLObject):
    """A server's end that sends the alert of a failed handshake; asyncio closes the connection without it.

    The first failure is told as a wait for the client, upon which asyncio sends what OpenSSL has written: the alert.
    The failure itself is raised when the client has answered or gone, or the handshake's time is over.
    """

    _failure: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        """Go on with the handshake."""
        if self._failure is not None:
            raise self._failure
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self._failure = error
            _log_refusal(error)
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the alert is to be sent") from error


def _log_refusal(error: ssl.SSLError) -> None:
    """Log once a minute that one end refused the other's certificate; other failures of a handshake are anybody's."""
    if isinstance(error, ssl.SSLCertVerificationError):
        _SPARSE.warning(
            error.verify_message,
            "a client was refused for its certificate: %s; a camera that is refused says so in its own log. Check that "
            "its certificate is of the authority in --ca, valid, and not in --crl",
            error.verify_message,
        )
    elif "ALERT" in (reason := error.reason or ""):
        _SPARSE.warning(
            reason,
            "a client did not accept this server's certificate: %s; a camera's log says why. Compare its tls.ca, and "
            "the name in its upstream.uri, with --cert; and the clocks",
            reason.replace("_", " ").lower(),
        )


def _check_encrypted(uri: str, found: Endpoint, tls: TlsFiles | None, *, insecure: bool) -> None:
    if found.secure and tls is None:
        raise SettingsError(
            f"{uri} needs certificates: give ca, cert and key (deploy/mosquitto/make_certs.sh makes them)."
        )
    way_out = "Use TLS; plain text is for loopback (127.0.0.1, ::1, localhost) only, and only with --insecure."
    check_encrypted(uri, [found.host], verified=found.secure, loopback=insecure, way_out=way_out)


def _forms(schemes: Mapping[str, int]) -> str:
    return " or ".join(f"{scheme}://HOST[:PORT]" for scheme in schemes)


def _context(protocol: int, files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    _load(files.ca, lambda: context.load_verify_locations(files.ca))
    # The empty password makes OpenSSL refuse an encrypted key; without one it would ask on the terminal and wait.
    _load(files.cert, lambda: context.load_cert_chain(files.cert, files.key, password=""), files.key)
    if files.crl is not None:
        _load(files.crl, lambda: context.load_verify_locations(files.crl))
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def _load(path: Path, load: Callable[[], None], key: Path | None = None) -> None:
    named = f"{path} with its key {key}" if key else f"{path}"
    try:
        load()
    except FileNotFoundError as error:
        missing = [str(each) for each in (path, key) if each is not None and not each.exists()]
        raise SettingsError(f"no such file: {' and '.join(missing)}; expected a PEM file.") from error
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"cannot use {named}: {error}. Expected PEM files that belong together.") from error
