"""Download of a file whose size is known, through the proxy that the environment names."""

from __future__ import annotations

import base64
import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import IO, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from reid_edge.errors import DownloadError
from reid_edge.foreign_text import one_line
from reid_edge.redaction import hidden, without_userinfo

#: Seconds to wait for a connection, or for the next bytes.
_SILENCE_S = 30.0
#: A download that is slower than this is given up: seconds to begin, then bytes per second.
_BEGIN_S, _SLOWEST = 60.0, 4096
_BLOCK = 1 << 16


def download(url: str, size: int, *, advance: Callable[..., object] = lambda _count: None) -> bytes:
    """Fetch a file over HTTP or HTTPS.

    ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY`` are obeyed, ``SSL_CERT_FILE`` names other authorities.
    A user and password in the address go to its host alone, whatever it redirects to.

    Args:
        url: Address of the file.
        size: Its size in bytes; nothing is read beyond it.
        advance: Called with the number of bytes that have come.

    Returns:
        The content, as many bytes as ``size``.

    Raises:
        DownloadError: Nobody answers, not with this file, or not in time.  The message has no password.
    """
    request = _request(url)
    proxies = _proxies()
    try:
        with _opener(proxies).open(request, timeout=_SILENCE_S) as answer:
            content = b"".join(_blocks(answer, size, advance))
    except urllib.error.HTTPError as error:
        error.close()
        raise DownloadError(_answered(url, error.code, one_line(str(error.reason), 80))) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DownloadError(_failed(url, error, proxies)) from None  # the cause may quote a proxy's password
    if len(content) != size:
        raise DownloadError(
            f"{without_userinfo(url)}: {len(content):,} bytes came of {size:,}; run the command again. If it repeats, "
            "there is another file at this address: use --from with a mirror or folder."
        )
    return content


def proxy_for(url: str) -> str:
    """Return the proxy that the environment names for an address, without its user; "" if there is none."""
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    return without_userinfo(_proxies().get(parts.scheme, ""))


def _request(url: str) -> urllib.request.Request:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DownloadError(f"{without_userinfo(url)}: expected https://HOST/FOLDER.")
    userinfo, _, place = parts.netloc.rpartition("@")
    request = urllib.request.Request(  # noqa: S310 - the scheme was checked
        urlunsplit(parts._replace(netloc=place)), headers={"User-Agent": "reid-edge", "Accept-Encoding": "identity"}
    )
    if userinfo:
        token = base64.b64encode(unquote(userinfo).encode()).decode("ascii")
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request


def _proxies() -> dict[str, str]:
    given = urllib.request.getproxies()
    named = {scheme: given[scheme] for scheme in ("http", "https") if given.get(scheme)}
    return {scheme: url if "://" in url else f"http://{url}" for scheme, url in named.items()}


def _opener(proxies: dict[str, str]) -> urllib.request.OpenerDirector:
    for proxy in proxies.values():
        if not proxy.lower().startswith(("http://", "https://")):
            raise DownloadError(
                f"the proxy {without_userinfo(proxy)} is not an HTTP proxy: set HTTPS_PROXY=http://HOST:PORT, or fetch "
                "the files on another machine and use --from FOLDER."
            )
    context = ssl.create_default_context()
    return urllib.request.build_opener(
        urllib.request.ProxyHandler(proxies), urllib.request.HTTPSHandler(context=context)
    )


def _blocks(answer: IO[bytes], size: int, advance: Callable[..., object]) -> Iterator[bytes]:
    """Yield what comes, up to one byte more than ``size``; raise TimeoutError if it comes too slowly."""
    began, taken = time.monotonic(), 0
    read: Callable[[int], bytes] = getattr(answer, "read1", answer.read)
    while taken <= size and (block := read(min(_BLOCK, size + 1 - taken))):
        taken += len(block)
        if time.monotonic() - began > _BEGIN_S + taken / _SLOWEST:
            raise TimeoutError(f"{taken:,} of {size:,} bytes came in {time.monotonic() - began:.0f} s")
        advance(len(block))
        yield block


def _answered(url: str, status: int, reason: str) -> str:
    where = without_userinfo(url)
    if status == 407:
        return (
            f"{where}: the proxy asks for a user and password (407): HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT, with "
            "%40 for @, %3A for : and %23 for # in a password."
        )
    advice = {
        401: "give a user and password: --from https://USER:PASSWORD@HOST/FOLDER",
        403: "the server or a proxy forbids it",
        404: "is the address right? It must lead to FOLDER/NAME/FP16/NAME.xml",
    }.get(status, "try again later")
    return f"{where} answered {status} {reason}: {advice}; or use --from with another mirror or a folder."


def _failed(url: str, error: Any, proxies: dict[str, str]) -> str:
    words = one_line(str(getattr(error, "reason", error)) or type(error).__name__)
    for secret in (url, *proxies.values()):
        words = hidden(words, secret)
    if "407" in words:
        return _answered(url, 407, "")
    proxy = proxy_for(url)
    via = f" through the proxy {proxy}" if proxy else ""
    advice = (
        "behind a proxy that inspects TLS, set SSL_CERT_FILE to its CA certificate"
        if "CERTIFICATE_VERIFY_FAILED" in words
        else "check the network, set HTTPS_PROXY, or fetch the files on another machine and use --from FOLDER"
    )
    return f"cannot fetch {without_userinfo(url)}{via}: {words.rstrip('.')}; {advice}."
