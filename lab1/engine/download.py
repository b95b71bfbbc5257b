"""Downloads that go on where they broke off, and that are whole or not there at all."""

import contextlib
import hashlib
import http.client
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from lab1.engine import network
from lab1.engine.files import replace
from lab1.engine.network import Unavailable, most_telling, trouble

CONNECTIONS = 20  # to one server, as long as each brings something
CHUNK = 1 << 16  # bytes


class Broken(Exception):
    """A file could not be downloaded. The message says why, and what helps; ``part`` is where that is which came."""

    def __init__(self, message: str, part: Path):
        super().__init__(message)
        self.part = part


def md5_of(path: Path) -> str:
    """The MD5 sum of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def fetch(
    addresses: Sequence[str], path: Path, md5: str | None = None, flaw: Callable[[Path], str | None] = lambda _: None
) -> None:
    """Fetch a file from the first of the addresses that has it. Until it is whole it is called ``<path>.part``, and a
    later call goes on with that where the server allows it (HTTP Range). A file of another MD5 sum is not kept.

    Args:
        md5: of the file. Without it a later call, and another address, begin anew: what there is now may have changed.
        flaw: what is wrong with a file that came, such as ``not the book``; such a one is not kept either.

    Raises:
        Broken: where it cannot be had.
        OSError: where it cannot be written.
    """
    part, reasons = path.with_name(path.name + ".part"), []
    path.parent.mkdir(parents=True, exist_ok=True)
    for address in addresses:
        if md5 is None:
            part.unlink(missing_ok=True)
        try:
            # What is left from before may be whole, if the process was stopped just before it got its name.
            if not (part.exists() and md5_of(part) == md5):
                _fetch_whole(address, part)
        except Broken as error:
            reasons.append(str(error))
            continue
        if md5 not in (None, md5_of(part)):
            wrong = "not the published file, as its MD5 differs"
        elif (wrong := flaw(part)) is None:
            replace(part, path)
            return
        part.unlink()
        reasons.append(f"what {address} sends is {wrong}: get it elsewhere")
    if md5 is None:
        part.unlink(missing_ok=True)
    raise Broken(most_telling(reasons), part)


def _fetch_whole(address: str, part: Path) -> None:
    """Fetch the whole file, with a new connection where one breaks off and the one before it has brought something."""
    for attempt in range(1, CONNECTIONS + 1):
        before = _size(part)
        try:
            return _go_on(address, part)
        except Broken:
            if _size(part) <= before or attempt == CONNECTIONS:
                raise


def _go_on(address: str, part: Path) -> None:
    """Fetch what is still missing of a file, over one connection."""
    start = _size(part)
    headers = {"User-Agent": "deep-learning-labs"} | ({"Range": f"bytes={start}-"} if start else {})
    request = urllib.request.Request(address, headers=headers)
    with _told(address, part):
        try:
            answer = urllib.request.urlopen(request, timeout=network.NETWORK_SECONDS)
        except urllib.error.HTTPError as error:
            if error.code != 416 or start == 0:
                raise
            part.unlink()  # longer than the file is: none of it
            return _go_on(address, part)
    with answer:
        goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        start = start if goes_on else 0  # a server that knows no Range sends all of it
        length = answer.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else None
        progress = dict(unit="B", unit_scale=True, desc=part.stem, disable=None, leave=False)
        with open(part, "ab" if goes_on else "wb") as file, tqdm(initial=start, total=total, **progress) as bar:
            while chunk := _read(answer, address, part):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and _size(part) < total:
        host = urllib.parse.urlsplit(address).hostname
        came = f"{_size(part) / 1e6:.1f} of {total / 1e6:.1f} MB"
        raise Broken(f"{host} broke off the connection after {came}: run it again", part)


def _read(answer: http.client.HTTPResponse, address: str, part: Path) -> bytes:
    with _told(address, part):
        return answer.read(CHUNK)


@contextlib.contextmanager
def _told(address: str, part: Path) -> Iterator[None]:
    """What goes wrong on the network, and nothing of the disk, as ``Broken``."""
    try:
        yield
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Broken(trouble(error, address), part) from None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextlib.contextmanager
def fetching(title: str, place: Path) -> Iterator[None]:
    """Inside ``with``, what goes wrong in getting a data set into its place is ``Unavailable``, in one line."""
    try:
        yield
    except Broken as error:
        size = _size(error.part)
        kept = f"; {error.part} keeps the {size / 1e6:.1f} MB that came, to go on with" if size else ""
        raise Unavailable(f"{title} could not be downloaded: {error}, or put it in {place}{kept}") from None
    except OSError as error:
        raise Unavailable(
            f"{title} could not be put in {place} ({error.strerror or error}): make room, or name another folder with "
            "--data-dir"
        ) from None


@contextlib.contextmanager
def whole(place: Path, data_dir: Path) -> Iterator[Path]:
    """A temporary folder beside the data sets, to make one in. Of what is made in it, that which lies where ``place``
    lies in ``data_dir`` goes there in the end; if something goes wrong, nothing is left behind."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=data_dir, prefix="download-") as temporary:
        yield Path(temporary)
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        replace(Path(temporary) / place.relative_to(data_dir), place)
