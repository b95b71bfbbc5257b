"""What is not on the disk: is there a network, and if not, why and what helps."""

import http.client
import os
import queue
import socket
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from lab1.engine.config import UsageError

NETWORK_SECONDS = 10  # at most this long to find out that there is no network
LOOK_UP = "the look-up of the name"


class Unavailable(UsageError):
    """A data set is neither on the disk nor to be had from the network."""


def require_network(addresses: list[str], title: str, place: Path, download: bool, written: bool = False) -> None:
    """Return if one of the addresses answers within ten seconds.

    Args:
        place: where it should be. written: whether it will be written there, and not into a cache elsewhere.

    Raises:
        Unavailable: if none does, if nothing may be downloaded, or if nothing can be written where it belongs. The
            message is one line that says why, and what helps.
    """
    if not download:
        raise Unavailable(f"{title} is not in {place} and is not downloaded in a dry run: put its files there")
    folder = place
    while not folder.exists():
        folder = folder.parent
    if written and not os.access(folder, os.W_OK):
        raise Unavailable(
            f"{title} is not in {place} and cannot be put there, as {folder} is not writable: name another folder with "
            "--data-dir"
        )
    answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    # In threads, since a name look-up heeds no time-out.
    for address in addresses:
        threading.Thread(target=lambda address=address: answers.put(_knock(address)), daemon=True).start()
    until, reasons = time.monotonic() + NETWORK_SECONDS, []
    while len(reasons) < len(addresses):
        try:
            reason = answers.get(timeout=max(0, until - time.monotonic()))
        except queue.Empty:
            reasons.append(trouble(TimeoutError(), addresses[0]))
            break
        if reason is None:
            return
        reasons.append(reason)
    why = most_telling(reasons)
    raise Unavailable(f"{title} is not in {place} and cannot be reached on the network: {why}, or put its files there")


def most_telling(reasons: list[str]) -> str:
    """Of what ``trouble`` says of several addresses: that a name is unknown says the least, as it may be out of use."""
    return min(reasons, key=lambda reason: reason.startswith(LOOK_UP))


def _knock(address: str) -> str | None:
    """Why an address does not answer; None where it does."""
    try:
        urllib.request.urlopen(address, timeout=NETWORK_SECONDS).close()
    except urllib.error.HTTPError as error:
        # A server that answers with an error has answered: its files are asked for by their own names.
        return trouble(error, address) if error.code in (407, 511) else None
    except (OSError, ValueError, http.client.HTTPException) as error:
        return trouble(error, address)
    return None


def trouble(error: Exception, address: str) -> str:
    """Why an address could not be read, and what helps: ``"why: what helps"``, for the end of a sentence.

    Args:
        error: what ``urllib.request.urlopen`` or reading its answer raised.
    """
    host, proxy = urllib.parse.urlsplit(address).hostname or address, _proxy(address)
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    said = (getattr(cause, "strerror", None) or str(cause) or type(cause).__name__).splitlines()[0]
    if isinstance(error, urllib.error.HTTPError):
        said = f"HTTP {error.code} {error.reason}".strip()
        if error.code == 511:
            return f"this network wants you to log in first ({said}): open a page in a browser"
        if error.code != 407:
            later = error.code == 429 or error.code >= 500
            what = "cannot give it now" if later else "refuses it" if error.code in (401, 403) else "does not have it"
            return f"{host} {what} ({said}): {'try again later' if later else 'get it elsewhere'}"
    if "407" in said:
        return (
            f"the proxy {proxy or host} wants a name and a password ({said}): give them in HTTPS_PROXY and HTTP_PROXY, "
            "as http://NAME:PASSWORD@HOST:PORT"
        )
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {host} cannot be verified ({cause.verify_message or said}): set the clock, update the "
            "certificates (pip install --upgrade certifi), or name your network's own with SSL_CERT_FILE"
        )
    if isinstance(cause, ssl.SSLError):
        return f"no secure connection to {host} ({said}): a proxy or firewall may be in the way; ask who runs it"
    if proxy is not None:
        return f"the proxy {proxy} does not let it through ({said}): correct or unset HTTPS_PROXY and HTTP_PROXY"
    if isinstance(cause, socket.gaierror):
        return f"{LOOK_UP} {host} fails ({said}): connect to a network"
    if isinstance(cause, ConnectionRefusedError):
        return f"{host} refuses the connection: try again later"
    if isinstance(cause, TimeoutError):
        return f"{host} does not answer within {NETWORK_SECONDS} seconds: try again later"
    if isinstance(cause, http.client.InvalidURL | ValueError):
        return f"{address} is no address ({said}): correct it"
    if isinstance(cause, http.client.HTTPException):
        return f"{host} answers in no way that a web server does: try again later"
    return f"{host} cannot be reached ({said}): try again later"


def _proxy(address: str) -> str | None:
    """The proxy through which an address is asked for, without its password; None where it is asked directly."""
    parts = urllib.parse.urlsplit(address)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy or urllib.request.proxy_bypass(parts.netloc):
        return None
    return proxy.rpartition("@")[2].removeprefix("http://")
