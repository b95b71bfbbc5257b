"""Whether there is a network, found out in a few seconds."""

import socket
import threading
import time
import urllib.request

import pytest

from lab1.engine import network
from lab1.engine.network import require_network
from tests.refusals import unavailable
from tests.servers import PATIENCE


@pytest.fixture(autouse=True)
def short_timeout(monkeypatch):
    monkeypatch.setattr(network, "NETWORK_SECONDS", 1)


def test_a_server_that_never_answers_is_given_up(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        began = time.monotonic()
        message = unavailable(require_network, [address], "MNIST", tmp_path, True)
        assert time.monotonic() - began < PATIENCE
    assert message == f"MNIST is not in {tmp_path} and cannot be reached on the network: put its files there"


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
