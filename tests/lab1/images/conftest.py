"""What the tests of images share: small files of MNIST's and CIFAR-10's formats, and no network."""

import gzip
import hashlib
import pickle
import socket
import struct
import urllib.request

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, MNIST

from lab1.engine import network
from lab1.images import datasets


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whatever would be downloaded is asked of a port of this machine where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{port}/"])


@pytest.fixture(autouse=True)
def short_timeout(monkeypatch):
    monkeypatch.setattr(network, "NETWORK_SECONDS", 1)


@pytest.fixture
def opened(monkeypatch):
    """The addresses that are opened from here on; none of them answers."""
    addresses = []

    def urlopen(address, *_, **__):
        addresses.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return addresses


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits", "there is no such folder", channels=1, size=28)


def idx(array: np.ndarray) -> bytes:
    """An array in the format of MNIST's files."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture(scope="module")
def mnist_arrays():
    random = np.random.default_rng(0)
    draw, digits = random.integers, np.arange(10, dtype=np.uint8)
    return {
        "train-images-idx3-ubyte": draw(0, 256, (20, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte": random.permutation(np.tile(digits, 2)),
        "t10k-images-idx3-ubyte": draw(0, 256, (10, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": random.permutation(digits),
    }


@pytest.fixture
def mnist_files(mnist_arrays, monkeypatch):
    """The four files' names and bytes, whose MD5 sums are taken for the published ones."""
    files = {name: idx(array) for name, array in mnist_arrays.items()}
    archives = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in files.items()}
    monkeypatch.setattr(datasets, "MNIST_MD5", {name: hashlib.md5(files[name]).hexdigest() for name in files})
    sums = [(name, hashlib.md5(content).hexdigest()) for name, content in archives.items()]
    monkeypatch.setattr(MNIST, "resources", sums)
    return files | archives


def write(folder, files, kind):
    """Write the extracted files, or the archives, into a folder."""
    for name, content in files.items():
        if name.endswith(".gz") == (kind == "archives"):
            (folder / name).write_bytes(content)


@pytest.fixture
def raw(tmp_path):
    """Where MNIST's files lie."""
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def shelf(tmp_path, mnist_files):
    """A folder of archives to be served."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    write(folder, mnist_files, "archives")
    return folder


CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def cifar_files(monkeypatch) -> dict[str, bytes]:
    """The seven files by name, six of them with an image of each class; torchvision's tables say that these are the
    published ones."""
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    random = np.random.default_rng(0)
    files = {}
    for name in names:
        pixels = random.integers(0, 256, (10, 3072), dtype=np.uint8)
        files[name] = pickle.dumps({"data": pixels, "labels": random.permutation(10).tolist()})
    files["batches.meta"] = pickle.dumps({"label_names": CLASSES})
    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in names[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": sums["batches.meta"]})
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")  # nothing listens there
    monkeypatch.setenv("no_proxy", "*")
    return files


@pytest.fixture
def cifar(tmp_path, cifar_files):
    """The folder of the data sets, with CIFAR-10 in it."""
    (tmp_path / CIFAR10.base_folder).mkdir()
    for name, content in cifar_files.items():
        (tmp_path / CIFAR10.base_folder / name).write_bytes(content)
    return tmp_path
