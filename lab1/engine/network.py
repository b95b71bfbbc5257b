"""What is not on the disk: is there a network, and downloads that are whole or not there at all."""

import contextlib
import http.client
import shutil
import socket
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from lab1.engine.config import UsageError
from lab1.engine.files import replace

NETWORK_SECONDS = 10  # at most this long to find out that there is no network


class Unavailable(UsageError):
    """A data set is neither on the disk nor to be had from the network."""


def require_network(addresses: list[str], title: str, place: Path, download: bool) -> None:
    """Return if one of the addresses answers within ten seconds.

    Raises:
        Unavailable: if none does, or if nothing may be downloaded.
    """
    reachable = threading.Event()

    def knock(address: str) -> None:
        # A server that answers with an error has answered: its files are asked for by their own names.
        with contextlib.suppress(OSError):
            with contextlib.suppress(urllib.error.HTTPError, http.client.HTTPException):
                urllib.request.urlopen(address, timeout=NETWORK_SECONDS).close()
            reachable.set()

    # In threads, since a name look-up heeds no time-out.
    knocking = [threading.Thread(target=knock, args=(address,), daemon=True) for address in addresses if download]
    for thread in knocking:
        thread.start()
    for _ in range(NETWORK_SECONDS * 20):
        if reachable.wait(0.05) or not any(thread.is_alive() for thread in knocking):
            break
    if not reachable.is_set():
        why = "cannot be reached on the network" if download else "is not downloaded in a dry run"
        raise Unavailable(f"{title} is not in {place} and {why}: put its files there")


def download_whole(fetch: Callable[[str], object], title: str, data_dir: Path, place: Path) -> None:
    """Fetch into a temporary folder and move what came into its place: a download cut short leaves nothing behind."""
    print(f"Downloading {title} into {data_dir} ...", file=sys.stderr)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_SECONDS)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=data_dir, prefix="download-") as temporary:
            fetch(temporary)
            fetched = Path(temporary) / place.relative_to(data_dir)
            shutil.rmtree(place, ignore_errors=True)
            place.parent.mkdir(parents=True, exist_ok=True)
            replace(fetched, place)
    except (OSError, RuntimeError, http.client.HTTPException) as error:  # torchvision raises RuntimeError
        raise Unavailable(
            f"{title} could not be downloaded ({str(error).splitlines()[0]}): put it in {place}"
        ) from None
    finally:
        socket.setdefaulttimeout(before)
