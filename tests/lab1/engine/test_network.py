"""Whether there is a network, found out in a few seconds; if not, why, and what helps."""

import socket
import ssl
import threading
import time
import urllib.error
import urllib.request

import pytest

from lab1.engine import network
from lab1.engine.network import require_network, trouble
from tests.refusals import unavailable
from tests.servers import PATIENCE, NoHTTP, Quiet, serving


@pytest.fixture(autouse=True)
def short_timeout(monkeypatch):
    monkeypatch.setattr(network, "NETWORK_SECONDS", 1)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """No proxy but that of a test."""
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it knows the proxies of when it was made


def why(place, *addresses: str) -> str:
    """Why none of these addresses answers, and what would help."""
    message = unavailable(require_network, list(addresses), "MNIST", place, True)
    before, after = f"MNIST is not in {place} and cannot be reached on the network: ", ", or put its files there"
    assert message.startswith(before)
    assert message.endswith(after)
    return message[len(before) : -len(after)]


def closed_port() -> int:
    """A port of this machine where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_a_server_that_never_answers_is_given_up(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        began = time.monotonic()
        message = unavailable(require_network, [address], "MNIST", tmp_path, True)
        assert time.monotonic() - began < PATIENCE
    assert message == (
        f"MNIST is not in {tmp_path} and cannot be reached on the network: 127.0.0.1 does not answer within 1 "
        "seconds: try again later, or put its files there"
    )


def test_a_name_look_up_that_never_returns_is_given_up(tmp_path, monkeypatch):
    answer = threading.Event()

    def urlopen(*_, **__):
        answer.wait(2 * PATIENCE)
        raise OSError("no such host")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    began = time.monotonic()
    try:
        unavailable(require_network, ["http://mnist.example.org/"], "MNIST", tmp_path, True)
        assert time.monotonic() - began < PATIENCE
    finally:
        answer.set()


def test_a_connection_that_is_refused(tmp_path):
    assert why(tmp_path, f"http://127.0.0.1:{closed_port()}/") == "127.0.0.1 refuses the connection: try again later"


def test_a_name_that_is_unknown(tmp_path, monkeypatch):
    def getaddrinfo(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert why(tmp_path, "http://mnist.example.org/") == (
        "the look-up of the name mnist.example.org fails (Name or service not known): connect to a network"
    )


def test_of_several_addresses_it_is_not_the_unknown_name_that_is_said(tmp_path, monkeypatch):
    getaddrinfo = socket.getaddrinfo

    def unknown(host, *arguments, **options):
        if host == "old.example.org":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return getaddrinfo(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    addresses = ["http://old.example.org/", f"http://127.0.0.1:{closed_port()}/"]
    for order in (addresses, addresses[::-1]):
        assert why(tmp_path, *order) == "127.0.0.1 refuses the connection: try again later"


def test_a_certificate_that_cannot_be_verified(tmp_path, monkeypatch):
    def urlopen(*_, **__):
        error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
        error.verify_message = "self-signed certificate in certificate chain"
        raise urllib.error.URLError(error)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    assert why(tmp_path, "https://mnist.example.org/") == (
        "the certificate of mnist.example.org cannot be verified (self-signed certificate in certificate chain): set "
        "the clock, update the certificates (pip install --upgrade certifi), or name your network's own with "
        "SSL_CERT_FILE"
    )


def test_a_connection_that_is_not_secure(tmp_path):
    with serving(Quiet) as address:
        message = why(tmp_path, address.replace("http:", "https:"))
    assert message.startswith("no secure connection to 127.0.0.1 ([SSL")
    assert message.endswith("a proxy or firewall may be in the way; ask who runs it")


class Proxy(Quiet):
    """Asks for a password before it does anything."""

    def do_GET(self):
        self.send_error(407)

    do_CONNECT = do_GET


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_a_password(tmp_path, monkeypatch, scheme):
    with serving(Proxy) as address:
        host = address.removeprefix("http://").rstrip("/")
        monkeypatch.setenv(f"{scheme}_proxy", f"http://me:secret@{host}")
        message = why(tmp_path, f"{scheme}://mnist.example.org/")
    assert message.startswith(f"the proxy {host} wants a name and a password (")
    assert message.endswith("): give them in HTTPS_PROXY and HTTP_PROXY, as http://NAME:PASSWORD@HOST:PORT")
    assert "407 Proxy Authentication Required" in message
    assert "secret" not in message


@pytest.mark.parametrize("kind", ["http", "socks5"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_does_not_let_through(tmp_path, monkeypatch, scheme, kind):
    proxy = f"{kind}://127.0.0.1:{closed_port()}"
    monkeypatch.setenv(f"{scheme}_proxy", proxy)
    message = why(tmp_path, f"{scheme}://mnist.example.org/")
    assert message.startswith(f"the proxy {proxy.removeprefix('http://')} does not let it through (")
    assert message.endswith("): correct or unset HTTPS_PROXY and HTTP_PROXY")
    assert ("unknown url type: socks5" if (scheme, kind) == ("http", "socks5") else "refused") in message


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (404, "127.0.0.1 does not have it (HTTP 404 Not Found): get it elsewhere"),
        (403, "127.0.0.1 refuses it (HTTP 403 Forbidden): get it elsewhere"),
        (503, "127.0.0.1 cannot give it now (HTTP 503 Service Unavailable): try again later"),
    ],
)
def test_a_server_without_the_file_is_there_and_its_answer_is_named(tmp_path, code, expected):
    class Fails(Quiet):
        def do_GET(self):
            self.send_error(code)

    with serving(Fails) as address:
        require_network([address], "MNIST", tmp_path, True)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(address)
        assert trouble(caught.value, address) == expected
        caught.value.close()


def test_a_network_that_wants_a_log_in(tmp_path):
    class Portal(Quiet):
        def do_GET(self):
            self.send_error(511)

    with serving(Portal) as address:
        said = "HTTP 511 Network Authentication Required"
        expected = f"this network wants you to log in first ({said}): open a page in a browser"
        assert why(tmp_path, address) == expected


def test_an_answer_that_is_no_web_servers(tmp_path):
    with serving(NoHTTP) as address:
        assert why(tmp_path, address) == "127.0.0.1 answers in no way that a web server does: try again later"


@pytest.mark.parametrize("address", ["http://mnist.example.org:bad/", "mnist.example.org/mnist"])
def test_what_is_no_address(tmp_path, address):
    message = why(tmp_path, address)
    assert message.startswith(f"{address} is no address (")
    assert message.endswith("): correct it")


def test_where_nothing_can_be_written_nothing_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(network.os, "access", lambda path, mode: path != tmp_path)
    place = tmp_path / "data" / "MNIST"
    message = unavailable(require_network, ["http://mnist.example.org/"], "MNIST", place, True, written=True)
    assert message == (
        f"MNIST is not in {place} and cannot be put there, as {tmp_path} is not writable: name another folder with "
        "--data-dir"
    )


def test_what_goes_into_a_cache_elsewhere_needs_no_writable_place(tmp_path, monkeypatch):
    monkeypatch.setattr(network.os, "access", lambda *_: False)
    with serving(Quiet) as address:
        require_network([address], "a model", tmp_path / "model", True)
