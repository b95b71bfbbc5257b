"""MNIST from the disk and from servers, good and bad, in small files of the same format."""

import socket
from functools import partial

import numpy as np
import pytest
import torch
from torchvision.datasets import MNIST

from lab1.engine import network
from lab1.images import datasets
from lab1.images.batches import ImageData
from tests.lab1.images.conftest import write
from tests.refusals import refusal, unavailable
from tests.servers import Cut, FallsSilent, Garbles, HangsUp, Misses, NoHTTP, Quiet, serving


def contents(folder) -> dict[str, bytes]:
    """Every file below a folder, and what is in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_is_mnist(loaded: ImageData, arrays) -> None:
    assert loaded.name == "mnist"
    assert loaded.classes == list("0123456789")
    assert loaded.train_images.dtype == loaded.test_images.dtype == torch.uint8
    assert np.array_equal(loaded.train_images[:, 0].numpy(), arrays["train-images-idx3-ubyte"])
    assert np.array_equal(loaded.test_images[:, 0].numpy(), arrays["t10k-images-idx3-ubyte"])
    assert loaded.train_labels.dtype == loaded.test_labels.dtype == torch.int64
    assert np.array_equal(loaded.train_labels.numpy(), arrays["train-labels-idx1-ubyte"])
    assert np.array_equal(loaded.test_labels.numpy(), arrays["t10k-labels-idx1-ubyte"])


@pytest.mark.parametrize("name", ["auto", "mnist"])
@pytest.mark.parametrize("kind", ["extracted", "archives"])
def test_mnist_is_read_from_the_disk_without_a_network(raw, mnist_files, mnist_arrays, opened, capsys, kind, name):
    write(raw, mnist_files, kind)
    assert_is_mnist(datasets.load(name, raw.parent.parent, 1, 28), mnist_arrays)
    assert opened == []
    assert capsys.readouterr().err == ""
    assert {name for name in contents(raw) if not name.endswith(".gz")} == set(datasets.MNIST_MD5)


@pytest.mark.parametrize("kind", ["extracted", "archives"])
def test_what_an_old_torchvision_left_beside_mnist_is_not_read(raw, mnist_files, mnist_arrays, kind):
    write(raw, mnist_files, kind)
    (raw.parent / "processed").mkdir()
    for part in ("training", "test"):
        black = torch.zeros(5, 28, 28, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64)
        torch.save(black, raw.parent / "processed" / f"{part}.pt")
    assert_is_mnist(datasets.load("mnist", raw.parent.parent, 1, 28), mnist_arrays)


@pytest.mark.parametrize("name", ["auto", "mnist"])
@pytest.mark.parametrize("kind", ["extracted", "archives"])
@pytest.mark.parametrize("damage", ["cut short", "changed", "empty"])
@pytest.mark.parametrize("which", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_damaged_file_of_mnist_is_refused_by_its_name(raw, mnist_files, opened, which, damage, kind, name):
    write(raw, mnist_files, kind)
    path = raw / (which + (".gz" if kind == "archives" else ""))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"cut short": content[:-1], "changed": content, "empty": b""}[damage])
    message = refusal(datasets.load, name, raw.parent.parent, 1, 28)
    assert message.startswith(f"{path} is damaged")
    assert "delete it and run again" in message
    assert opened == []


def test_a_folder_where_a_file_of_mnist_should_be_is_refused_by_its_name(raw, mnist_files):
    write(raw, mnist_files, "extracted")
    path = raw / "t10k-labels-idx1-ubyte"
    path.unlink()
    path.mkdir()
    assert str(path) in refusal(datasets.load, "auto", raw.parent.parent, 1, 28)


def test_without_mnist_auto_takes_the_digits_and_says_so_in_one_line(tmp_path, digits, capsys):
    loaded = datasets.load("auto", tmp_path, 1, 28)
    assert loaded.name == "digits"
    assert torch.equal(loaded.train_images, digits.train_images)
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "MNIST" / "raw") in line
    assert "network" in line
    assert "1,797 handwritten digits" in line


def test_mnist_by_name_and_out_of_reach_is_an_error_that_says_where_its_files_go(tmp_path):
    message = unavailable(datasets.load, "mnist", tmp_path, 1, 28)
    assert str(tmp_path / "MNIST" / "raw") in message
    assert "put its files there" in message
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_may_be_downloaded_the_network_is_left_alone(tmp_path, mnist_files, opened, capsys):
    assert "dry run" in unavailable(datasets.load, "mnist", tmp_path, 1, 28, download=False)
    assert datasets.load("auto", tmp_path, 1, 28, download=False).name == "digits"
    assert "dry run" in capsys.readouterr().err
    assert opened == []
    assert list(tmp_path.iterdir()) == []


def test_mnist_is_downloaded_once(tmp_path, shelf, mnist_arrays, monkeypatch, capsys):
    with serving(partial(Quiet, directory=str(shelf))) as address:
        monkeypatch.setattr(MNIST, "mirrors", [address])
        assert_is_mnist(datasets.load("auto", tmp_path / "data", 1, 28), mnist_arrays)
    assert f"Downloading MNIST into {tmp_path / 'data'}" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["MNIST"]
    assert set(contents(tmp_path / "data" / "MNIST" / "raw")) >= set(datasets.MNIST_MD5)
    assert_is_mnist(datasets.load("mnist", tmp_path / "data", 1, 28, download=False), mnist_arrays)


def test_one_mirror_of_two_is_enough(tmp_path, shelf, mnist_arrays, monkeypatch):
    with serving(partial(Quiet, directory=str(shelf))) as address:
        monkeypatch.setattr(MNIST, "mirrors", [*MNIST.mirrors, address])
        assert_is_mnist(datasets.load("mnist", tmp_path / "data", 1, 28), mnist_arrays)


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("server", [Cut, HangsUp, Misses, NoHTTP, Garbles, FallsSilent])
def test_a_download_that_fails_leaves_nothing_behind(tmp_path, shelf, monkeypatch, server):
    handler = partial(server, directory=str(shelf)) if issubclass(server, Quiet) else server
    with serving(handler) as address:
        monkeypatch.setattr(MNIST, "mirrors", [address])
        message = unavailable(datasets.load, "mnist", tmp_path / "data", 1, 28)
    assert str(tmp_path / "data" / "MNIST" / "raw") in message
    assert contents(tmp_path / "data") == {}
    assert not (tmp_path / "data").exists() or list((tmp_path / "data").iterdir()) == []
    assert socket.getdefaulttimeout() is None


def test_a_download_that_fails_leaves_the_files_that_were_there(raw, shelf, mnist_files, monkeypatch):
    for name in list(mnist_files)[:3]:
        (raw / name).write_bytes(mnist_files[name])
    before = contents(raw.parent.parent)
    with serving(partial(Cut, directory=str(shelf))) as address:
        monkeypatch.setattr(MNIST, "mirrors", [address])
        unavailable(datasets.load, "mnist", raw.parent.parent, 1, 28)
    assert contents(raw.parent.parent) == before


def test_a_download_completes_what_is_there(raw, shelf, mnist_files, mnist_arrays, monkeypatch):
    (raw / "train-images-idx3-ubyte").write_bytes(mnist_files["train-images-idx3-ubyte"])
    with serving(partial(Quiet, directory=str(shelf))) as address:
        monkeypatch.setattr(MNIST, "mirrors", [address])
        assert_is_mnist(datasets.load("auto", raw.parent.parent, 1, 28), mnist_arrays)


def test_a_data_folder_that_cannot_be_written_is_said_before_anything_is_asked_for(tmp_path, opened, monkeypatch):
    monkeypatch.setattr(network.os, "access", lambda *_: False)
    message = unavailable(datasets.load, "mnist", tmp_path / "data", 1, 28)
    assert message == (
        f"MNIST is not in {tmp_path / 'data' / 'MNIST' / 'raw'} and cannot be put there, as {tmp_path} is not "
        "writable: name another folder with --data-dir"
    )
    assert opened == []
