"""Images in memory: every source, what is refused and how, and batches whose order is a function of seed and epoch."""

import contextlib
import gzip
import hashlib
import itertools
import math
import shutil
import socket
import socketserver
import struct
import threading
import time
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import MNIST

from lab1 import train_mlp
from lab1.engine import network
from lab1.engine.config import UsageError
from lab1.engine.launch import parse
from lab1.engine.network import Unavailable, require_network
from lab1.engine.randomness import random_generator, stratified_split
from lab1.images import datasets
from lab1.images.augment import NOISE, random_affine
from lab1.images.batches import Batches, ImageData, about_data, pixel_statistics, split_batches

PATIENCE = 30  # seconds after which a test takes a call for hanging


def refusal(call, *arguments, **options) -> str:
    """The one line with which a call is refused for good: not as a data set that is merely out of reach."""
    with pytest.raises(UsageError) as caught:
        call(*arguments, **options)
    assert not isinstance(caught.value, Unavailable)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def unavailable(call, *arguments, **options) -> str:
    """The one line that says that a data set is out of reach."""
    with pytest.raises(Unavailable) as caught:
        call(*arguments, **options)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def contents(folder) -> dict[str, bytes]:
    """Every file below a folder, and what is in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Digits


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits", "there is no such folder", channels=1, size=28)


def test_digits_are_1797_images_in_two_parts(digits):
    assert digits.name == "digits"
    assert digits.classes == list("0123456789")
    assert digits.train_images.shape == (1438, 1, 28, 28)
    assert digits.test_images.shape == (359, 1, 28, 28)
    for images, labels in ((digits.train_images, digits.train_labels), (digits.test_images, digits.test_labels)):
        assert images.dtype == torch.uint8
        assert (images.min(), images.max()) == (0, 255)
        assert labels.dtype == torch.int64
        assert labels.unique().tolist() == list(range(10))


def test_digits_are_scikit_learns_scaled(digits):
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    _, test = stratified_split(torch.tensor(labels), 359, seed=0)
    assert digits.test_labels.tolist() == labels[test].tolist()
    # The mean of an image survives the scaling, up to rounding and the edges.
    before, after = images[test].mean(1) * 255 / 16, digits.test_images.float().mean((1, 2, 3)).numpy()
    assert np.corrcoef(before, after)[0, 1] > 0.95


def test_the_test_part_of_the_digits_is_always_the_same(digits):
    torch.manual_seed(1)
    np.random.seed(1)
    again = datasets.load_digits()
    assert torch.equal(again.test_images, digits.test_images)
    assert torch.equal(again.train_labels, digits.train_labels)


def test_an_unknown_data_set_is_refused(tmp_path):
    assert refusal(datasets.load, "cifar", tmp_path, 1, 28) == "--dataset cifar: use mnist, digits or folder"


# One's own, by its name


@pytest.fixture
def register(monkeypatch):
    """``register_dataset`` for the time of a test."""
    monkeypatch.setattr(datasets, "DATASETS", dict(datasets.DATASETS))
    return datasets.register_dataset


def own(dtype=torch.uint8, shape=(20, 1, 5, 4), labels=2, label_dtype=torch.int64, classes=2) -> ImageData:
    """A small data set that says of itself that it is another's."""
    images, numbers = torch.ones(shape).to(dtype), (torch.arange(20) % labels).to(label_dtype)
    return ImageData("another", [f"class {k}" for k in range(classes)], images, numbers, images[:6], numbers[:6])


def test_a_registered_data_set_is_loaded_by_its_name_for_its_channels_alone(register, tmp_path):
    asked = []

    @register("mine", channels=1)
    def load_mine(data_dir, download):
        asked.append((data_dir, download))
        return own()

    loaded = datasets.load("mine", str(tmp_path), channels=1, size=28, download=False)
    assert (loaded.name, loaded.train_images.shape) == ("mine", (20, 1, 5, 4))
    assert asked == [(tmp_path, False)]
    assert load_mine(1, 2).name == "another"  # the function itself is as it was
    assert refusal(datasets.load, "min", tmp_path, 1, 28) == "--dataset min: use mnist, digits, folder or mine"
    assert refusal(datasets.load, "mine", tmp_path, 3, 32) == "--dataset mine: use cifar10, shapes or folder"
    assert len(asked) == 2


def test_a_data_set_of_any_channels_is_told_what_the_script_would_like(register, tmp_path):
    register("mine")(lambda channels, size: own(shape=(20, channels, size, size)))
    for channels, size in ((1, 28), (3, 32)):
        loaded = datasets.load("mine", tmp_path, channels, size)
        assert loaded.test_images.shape == (6, channels, size, size)


@pytest.mark.parametrize("name", ["mnist", "auto"])
def test_a_name_that_is_taken_is_refused_where_it_is_registered(register, name):
    with pytest.raises(TypeError, match=f"there is a data set {name} already"):
        register(name)(own)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"dtype": torch.float32}, "train_images must be uint8 [N, 1, H, W], not float32 [20, 1, 5, 4]"),
        ({"shape": (20, 5, 4)}, "train_images must be uint8 [N, 1, H, W], not uint8 [20, 5, 4]"),
        ({"shape": (20, 3, 5, 4)}, "train_images must be uint8 [N, 1, H, W], not uint8 [20, 3, 5, 4]"),
        ({"shape": (0, 1, 5, 4)}, "train_images must be uint8 [N, 1, H, W], not uint8 [0, 1, 5, 4]"),
        ({"shape": (19, 1, 5, 4)}, "train_labels must be int64 [19], not int64 [20]"),
        ({"label_dtype": torch.int32}, "train_labels must be int64 [20], not int32 [20]"),
        ({"labels": 3}, "train_labels must be from 0 to 1, as it names 2 classes"),
    ],
)
def test_images_of_the_wrong_kind_are_refused_in_one_line(register, tmp_path, wrong, says):
    register("mine", channels=1)(lambda: own(**wrong))
    assert refusal(datasets.load, "mine", tmp_path, 1, 28) == f"--dataset mine: its {says}"


def test_an_mlp_takes_images_of_another_size(register, tmp_path):
    register("mine", channels=1)(lambda: own(shape=(20, 1, 5, 4)))
    flags = ["--dataset", "mine", "--batch-size", "4", "--device", "cpu", "--augment", "--model-dir", str(tmp_path)]
    trainer, (train, _, _) = train_mlp.set_up(parse(train_mlp.Config, flags, ""))
    assert trainer.model.arguments["sizes"] == (20, 128, 64, 2)
    assert trainer.config.run_name() == "mlp-128-64-augment-mine-seed0"
    assert trainer.train_step(next(iter(train)))["loss"].isfinite()


# MNIST, from small files of the same format


def idx(array: np.ndarray) -> bytes:
    """An array in the format of MNIST's files."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture(scope="module")
def mnist_arrays():
    draw = np.random.default_rng(0).integers
    return {
        "train-images-idx3-ubyte": draw(0, 256, (20, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte": draw(0, 10, 20, dtype=np.uint8),
        "t10k-images-idx3-ubyte": draw(0, 256, (10, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": draw(0, 10, 10, dtype=np.uint8),
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


@pytest.fixture
def raw(tmp_path):
    """Where MNIST's files lie."""
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whatever would be downloaded is asked of a port of this machine where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{port}/"])


@pytest.fixture
def opened(monkeypatch):
    """The addresses that are opened from here on; none of them answers."""
    addresses = []

    def urlopen(address, *_, **__):
        addresses.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return addresses


def write(folder, files, kind):
    """Write the extracted files, or the archives, into a folder."""
    for name, content in files.items():
        if name.endswith(".gz") == (kind == "archives"):
            (folder / name).write_bytes(content)


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


@contextlib.contextmanager
def serving(handler):
    """A server on this machine; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder."""

    def log_message(self, *_):
        pass


class Cut(Quiet):
    """Serves archives that lack their last byte."""

    def do_GET(self):
        content = b"" if self.path == "/" else Path(self.translate_path(self.path)).read_bytes()[:-1]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class HangsUp(Quiet):
    """Promises more than it sends."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 500)


class Misses(Quiet):
    """Answers, but does not have the files."""

    def do_GET(self):
        self.send_error(404)


class NoHTTP(socketserver.StreamRequestHandler):
    """Answers in another protocol."""

    def handle(self):
        self.wfile.write(b"220 mail.example.org ready\r\n")


class Garbles(Quiet):
    """Answers the first request and then in another protocol."""

    def do_GET(self):
        if self.path == "/":
            self.send_response(200)
            self.end_headers()
        else:
            self.wfile.write(b"220 mail.example.org ready\r\n")


class FallsSilent(Quiet):
    """Answers the first request and no further one."""

    def do_GET(self):
        if self.path != "/":
            time.sleep(PATIENCE)
        self.send_response(200)
        self.end_headers()


@pytest.fixture
def shelf(tmp_path, mnist_files):
    """A folder of archives to be served."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    write(folder, mnist_files, "archives")
    return folder


@pytest.fixture(autouse=True)
def short_timeout(monkeypatch):
    monkeypatch.setattr(network, "NETWORK_SECONDS", 1)


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


# A folder of one's own images

COLORS = {"blue": (10, 20, 200), "red": (210, 30, 40)}


def draw(path, color=(1, 2, 3), size=(20, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


@pytest.fixture
def pictures(tmp_path):
    """``train/`` with two red images and a blue one, ``test/`` with one of each, of several sizes and formats."""
    draw(tmp_path / "train" / "red" / "1.png", COLORS["red"])
    draw(tmp_path / "train" / "red" / "2.bmp", COLORS["red"], size=(5, 40))
    draw(tmp_path / "train" / "blue" / "1.png", COLORS["blue"], size=(7, 7))
    draw(tmp_path / "test" / "red" / "1.png", COLORS["red"], size=(100, 90))
    draw(tmp_path / "test" / "blue" / "1.ppm", COLORS["blue"])
    return tmp_path


@pytest.mark.parametrize("size", [8, 28])
def test_a_folder_of_colour_images(pictures, size):
    loaded = datasets.load("folder", pictures, channels=3, size=size)
    assert loaded.name == "folder"
    assert loaded.classes == ["blue", "red"]
    assert loaded.train_labels.tolist() == [0, 1, 1]
    assert loaded.test_labels.tolist() == [0, 1]
    assert loaded.train_labels.dtype == torch.int64
    for images, labels in ((loaded.train_images, loaded.train_labels), (loaded.test_images, loaded.test_labels)):
        expected = torch.tensor([COLORS[loaded.classes[label]] for label in labels], dtype=torch.uint8)
        assert torch.equal(images, expected[:, :, None, None].expand(len(labels), 3, size, size))


def test_a_folder_of_images_read_as_grey(pictures):
    loaded = datasets.load("folder", pictures, channels=1, size=16)
    luma = [round(0.299 * red + 0.587 * green + 0.114 * blue) for red, green, blue in COLORS.values()]
    assert loaded.test_images.shape == (2, 1, 16, 16)
    assert loaded.test_images.flatten(1).unique(dim=1).flatten().tolist() == pytest.approx(luma, abs=1)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_folder_without_a_part_is_refused(pictures, part):
    shutil.rmtree(pictures / part)
    message = refusal(datasets.load, "folder", pictures, 3, 8)
    assert f"no folder {pictures / part}" in message
    assert "<class>" in message


def test_a_part_without_classes_is_refused(pictures):
    shutil.rmtree(pictures / "train")
    (pictures / "train").mkdir()
    assert str(pictures / "train") in refusal(datasets.load, "folder", pictures, 3, 8)


def test_a_class_without_images_is_refused(pictures):
    (pictures / "train" / "green").mkdir()
    (pictures / "train" / "green" / "notes.txt").write_text("none yet")
    assert "green" in refusal(datasets.load, "folder", pictures, 3, 8)


def short_chunk(content: bytes) -> bytes:
    """A PNG whose chunk of pixels claims to be one byte long, so that what follows has no name."""
    at = content.index(b"IDAT")
    return content[: at - 4] + struct.pack(">I", 1) + content[at:]


@pytest.mark.parametrize(
    "damage",
    [lambda content: b"not an image", lambda content: b"", lambda content: content[: len(content) // 2], short_chunk],
    ids=["text", "empty", "cut short", "short chunk"],
)
def test_a_file_that_is_no_image_is_refused_by_its_name(pictures, damage):
    path = pictures / "test" / "red" / "1.png"
    path.write_bytes(damage(path.read_bytes()))
    assert f"{path} cannot be read as an image" in refusal(datasets.load, "folder", pictures, 3, 8)


def test_parts_with_different_classes_are_refused(pictures):
    (pictures / "test" / "red").rename(pictures / "test" / "green")
    message = refusal(datasets.load, "folder", pictures, 3, 8)
    assert "blue, red" in message
    assert "blue, green" in message


def test_a_single_class_is_refused(pictures):
    for part in ("train", "test"):
        shutil.rmtree(pictures / part / "blue")
    assert "at least two" in refusal(datasets.load, "folder", pictures, 3, 8)


# Splits


def test_a_split_is_disjoint_and_complete_and_has_equal_class_shares():
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[torch.randperm(100)]
    rest, held_out = stratified_split(labels, 20, seed=3)
    assert sorted([*rest.tolist(), *held_out.tolist()]) == list(range(100))
    assert labels[held_out].bincount().tolist() == [12, 6, 2]
    assert labels[rest].bincount().tolist() == [48, 24, 8]


def test_a_split_is_a_function_of_its_seed():
    labels = torch.arange(200) % 4
    one, again, other = (stratified_split(labels, 40, seed)[1] for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    stratified_split(labels, 40, seed=2**63 - 1)


@pytest.mark.parametrize(("labels", "held_out"), [([0, 0, 0, 1], 1), ([0, 1, 0, 1], 0), ([0, 0, 1, 1], 1)])
def test_a_data_set_too_small_to_split_is_refused(labels, held_out):
    assert "too small" in refusal(stratified_split, torch.tensor(labels), held_out, seed=0)


# Batches


def numbered(count: int, size: int = 1, **options) -> Batches:
    """Batches of images of which each pixel, and each label, is the number of its row."""
    rows = torch.arange(count)
    images = rows.to(torch.uint8).reshape(-1, 1, 1, 1).expand(count, 1, 4, 4).contiguous()
    return Batches(images, rows, size, torch.tensor([0.0]), torch.tensor([1.0]), **options)


def rows_of(batches) -> list[list[int]]:
    """The rows of each batch; its images are those of its labels."""
    rows = []
    for images, labels in batches:
        assert torch.equal((images * 255).round().long(), labels.reshape(-1, 1, 1, 1).expand(images.shape))
        rows.append(labels.tolist())
    return rows


@pytest.mark.parametrize(
    ("count", "size", "limit", "sizes"),
    [
        (10, 5, None, [5, 5]),
        (10, 4, None, [4, 4, 2]),
        (3, 8, None, [3]),
        (10, 4, 2, [4, 4]),
        (10, 4, 9, [4, 4, 2]),
        (0, 4, None, []),
    ],
)
@pytest.mark.parametrize("seed", [None, 0])
def test_the_count_of_batches_and_their_sizes_are_exact(count, size, limit, sizes, seed):
    batches = numbered(count, size, limit=limit, seed=seed)
    assert len(batches) == len(sizes)
    assert [len(rows) for rows in rows_of(batches)] == sizes


def test_without_a_seed_images_come_in_order():
    batches = numbered(7, 3)
    assert rows_of(batches) == rows_of(batches.epoch(5)) == [[0, 1, 2], [3, 4, 5], [6]]


def test_with_a_seed_an_epoch_holds_each_image_once_in_an_order_of_its_own():
    batches = numbered(50, 8, seed=0)
    orders = [list(itertools.chain(*rows_of(batches.epoch(epoch)))) for epoch in range(3)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in [*orders, range(50)]}) == 4


def test_the_order_is_a_function_of_seed_and_epoch_alone():
    torch.manual_seed(0)
    one = rows_of(numbered(50, 8, seed=4).epoch(2))
    torch.manual_seed(1)
    batches = numbered(50, 8, seed=4)
    rows_of(batches.epoch(0))
    assert rows_of(batches.epoch(2)) == one
    assert rows_of(numbered(50, 8, seed=5).epoch(2)) != one
    assert rows_of(numbered(50, 8, seed=2).epoch(4)) != one


def test_drawing_batches_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    list(numbered(50, 8, seed=4, augment=random_affine))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("start", [0, 1, 3, 6, 7])
@pytest.mark.parametrize("augment", [None, random_affine])
def test_an_epoch_begun_in_the_middle_is_the_tail_of_the_whole(start, augment):
    batches = numbered(50, 8, seed=4, augment=augment)
    whole, tail = list(batches.epoch(1)), list(batches.epoch(1, start))
    assert len(whole) == 7
    assert len(tail) == 7 - start
    for (images, labels), (tail_images, tail_labels) in zip(whole[start:], tail, strict=True):
        assert torch.equal(labels, tail_labels)
        assert torch.equal(images, tail_images)


def random_images(count: int, channels: int = 3, size: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)


def test_normalisation_is_the_formula():
    images, mean, std = random_images(5), torch.tensor([0.2, 0.5, 0.7]), torch.tensor([0.1, 0.3, 0.9])
    before = images.clone()
    ((batch, labels),) = Batches(images, torch.arange(5), 5, mean, std)
    expected = (images.double() / 255 - mean.double().reshape(3, 1, 1)) / std.double().reshape(3, 1, 1)
    assert batch.dtype == torch.float32
    assert torch.allclose(batch.double(), expected, atol=1e-5)
    assert torch.equal(images, before)
    assert labels.tolist() == list(range(5))


def test_augmentation_gets_images_from_0_to_1_and_fresh_numbers_for_each_image_batch_and_epoch():
    seen = []

    def augment(images, noise):
        seen.append((images.clone(), noise.clone()))
        return images

    batches = Batches(random_images(8), torch.arange(8), 4, torch.zeros(3), torch.ones(3), seed=1, augment=augment)
    plain = Batches(random_images(8), torch.arange(8), 4, torch.zeros(3), torch.ones(3), seed=1)
    for epoch in (0, 1):
        for (images, _), (expected, _) in zip(batches.epoch(epoch), plain.epoch(epoch), strict=True):
            assert torch.allclose(images, expected, atol=1e-6)
    assert all(0 <= images.min() < 0.1 and 0.9 < images.max() <= 1 for images, _ in seen)
    noise = torch.cat([numbers for _, numbers in seen])
    assert noise.shape == (16, NOISE)
    assert noise.min() >= 0
    assert noise.max() < 1
    assert len(noise.unique()) == noise.numel()


@pytest.mark.parametrize("augment", [None, random_affine])
@pytest.mark.parametrize("count", [20, 23])
def test_the_shares_of_two_processes_make_up_the_batches_of_one(monkeypatch, count, augment):
    images, labels = random_images(count), torch.arange(count)

    def epoch():
        return list(Batches(images, labels, 5, torch.zeros(3), torch.ones(3), seed=1, augment=augment).epoch(3))

    alone = epoch()
    monkeypatch.setenv("WORLD_SIZE", "2")
    shares = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        shares.append(epoch())
    for (whole, whole_labels), *parts in zip(alone, *shares, strict=True):
        for rank, (part, part_labels) in enumerate(parts):
            assert torch.equal(part_labels, whole_labels[rank::2])
            assert torch.allclose(part, whole[rank::2], atol=1e-6)


def test_every_process_gets_as_many_training_batches_and_evaluation_leaves_no_image_out(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    training, evaluation = [], []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        training.append(rows_of(numbered(9, 4, seed=0)))
        evaluation += rows_of(numbered(9, 4))
        assert len(numbered(9, 4, seed=0)) == 2
    assert [len(rows) for rows in training[0]] == [len(rows) for rows in training[1]] == [2, 2]
    assert sorted(itertools.chain(*evaluation)) == list(range(9))


# Statistics and the three sets of batches


def test_pixel_statistics_are_torchs():
    images = random_images(30)
    images[:, 1] //= 3
    mean, std = pixel_statistics(images)
    pixels = images.double() / 255
    assert mean.dtype == std.dtype == torch.float32
    assert torch.allclose(mean.double(), pixels.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(std.double(), pixels.transpose(0, 1).flatten(1).std(1, correction=0), atol=1e-6)


def test_images_of_one_colour_can_be_normalised():
    images = torch.full((4, 1, 3, 3), 51, dtype=torch.uint8)
    mean, std = pixel_statistics(images)
    ((batch, _),) = Batches(images, torch.arange(4), 4, mean, std)
    assert mean.item() == pytest.approx(0.2)
    assert torch.allclose(batch, torch.zeros_like(batch), atol=1e-3)


def image_data(count: int, tests: int = 7) -> ImageData:
    """Tiny images of ten classes; the green and red of a training image spell its number."""
    numbers = torch.arange(count)
    images = torch.stack([numbers // 256, numbers % 256, numbers % 97], 1).to(torch.uint8)[:, :, None, None]
    return ImageData("tiny", list("0123456789"), images, numbers % 10, random_images(tests, 3, 1), torch.arange(tests))


@pytest.mark.parametrize(("count", "held_out"), [(60_000, 5000), (1438, 143), (200, 20)])
def test_validation_is_a_part_of_the_training_set_of_its_own(count, held_out):
    tiny = image_data(count)
    train, validation, test = split_batches(tiny, 32, seed=0)
    assert [len(part.labels) for part in (train, validation, test)] == [count - held_out, held_out, 7]
    codes = [part.images[:, 0].long() * 256 + part.images[:, 1] for part in (train, validation)]
    assert torch.equal(torch.cat(codes).flatten().sort().values, torch.arange(count))
    assert torch.equal(codes[1].flatten() % 10, validation.labels)
    assert validation.labels.bincount().max() - validation.labels.bincount().min() <= 1
    assert torch.equal(test.images, tiny.test_images)


def test_pixels_are_normalised_by_what_is_left_to_learn_from():
    tiny = image_data(2000)
    train, validation, test = split_batches(tiny, 32, seed=0)
    mean, std = pixel_statistics(train.images)
    for part in (train, validation, test):
        assert (part.mean, part.std) == (mean.tolist(), std.tolist())
    assert train.mean != pixel_statistics(tiny.train_images)[0].tolist()
    learned = torch.cat([images for images, _ in train])
    assert torch.allclose(learned.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(learned.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4)


def test_only_training_is_shuffled_and_augmented_and_every_part_is_limited():
    train, validation, test = split_batches(image_data(60_000), 32, 0, augment=random_affine, limit=2)
    assert (train.seed, train.augment) == (0, random_affine)
    assert (validation.seed, validation.augment) == (test.seed, test.augment) == (None, None)
    assert [len(part) for part in (train, validation, test)] == [2, 2, 1]
    assert next(iter(train))[0].shape[0] == 32


# Augmentation: noise is angle, size, right, down; 0.5 is none of it

STILL = torch.full((1, NOISE), 0.5)


def noise(**values: float) -> torch.Tensor:
    numbers = STILL.clone()
    for name, value in values.items():
        numbers[0, ("angle", "size", "right", "down").index(name)] = value
    return numbers


def lone_pixel(row: int, column: int, height: int = 28, width: int = 28) -> torch.Tensor:
    image = torch.zeros(1, 1, height, width)
    image[0, 0, row, column] = 1
    return image


def centre_of_mass(image: torch.Tensor) -> tuple[float, float]:
    """Row and column, counted from the centre of the image."""
    mass = image[0, 0] / image.sum()
    rows, columns = (torch.arange(size) - (size - 1) / 2 for size in mass.shape)
    return (mass.sum(1) @ rows).item(), (mass.sum(0) @ columns).item()


def test_noise_in_the_middle_changes_nothing():
    images = torch.rand(3, 2, 28, 28)
    assert torch.allclose(random_affine(images, STILL.expand(3, -1)), images, atol=1e-5)


@pytest.mark.parametrize("pixels", [1, 2, 3])
@pytest.mark.parametrize(("direction", "row", "column"), [("right", 0, 1), ("down", 1, 0)])
def test_a_shift_moves_a_pixel_by_the_stated_pixels(pixels, direction, row, column):
    reached = []
    for value in (0.0, 1.0):
        moved = random_affine(lone_pixel(14, 10), noise(**{direction: value}), pixels=pixels)
        assert moved.max().item() == pytest.approx(1, abs=1e-4)
        reached.append(divmod(moved.argmax().item(), 28))
    step = (pixels * row, pixels * column)
    assert sorted(reached) == [(14 - step[0], 10 - step[1]), (14 + step[0], 10 + step[1])]


@pytest.mark.parametrize("degrees", [12, 40])
@pytest.mark.parametrize(("height", "width"), [(28, 28), (28, 42)])
def test_a_rotation_moves_a_pixel_where_trigonometry_says(degrees, height, width):
    image = lone_pixel(8, 18, height, width)
    row, column = centre_of_mass(image)
    turn = math.radians(degrees)
    expected = [
        (row * math.cos(turn) + sign * column * math.sin(turn), column * math.cos(turn) - sign * row * math.sin(turn))
        for sign in (1, -1)
    ]
    reached = [centre_of_mass(random_affine(image, noise(angle=value), degrees=degrees)) for value in (0.0, 1.0)]
    for found, wanted in zip(sorted(reached), sorted(expected), strict=True):
        assert found == pytest.approx(wanted, abs=0.25)


def test_a_quarter_turn_is_exact():
    images = torch.rand(2, 3, 28, 28)
    turned = [random_affine(images, noise(angle=value).expand(2, -1), degrees=90) for value in (0.0, 1.0)]
    one, other = (torch.rot90(images, k, (2, 3)) for k in (1, -1))
    straight = torch.allclose(turned[0], one, atol=1e-4) and torch.allclose(turned[1], other, atol=1e-4)
    crossed = torch.allclose(turned[0], other, atol=1e-4) and torch.allclose(turned[1], one, atol=1e-4)
    assert straight != crossed


@pytest.mark.parametrize(("value", "factor"), [(0.0, 0.8), (1.0, 1.2)])
def test_scaling_moves_a_pixel_away_from_the_centre_by_the_stated_share(value, factor):
    image = lone_pixel(6, 20)
    scaled = centre_of_mass(random_affine(image, noise(size=value), scale=0.2))
    assert scaled == pytest.approx([factor * place for place in centre_of_mass(image)], abs=0.35)


def test_what_comes_from_outside_is_black():
    moved = random_affine(torch.ones(1, 1, 28, 28), noise(right=1.0, down=0.0), pixels=2)[0, 0]
    black = moved < 1e-4
    assert black.sum() == 28 * 28 - 26 * 26
    assert torch.allclose(moved[~black], torch.ones(26 * 26), atol=1e-4)


def test_each_image_is_treated_by_its_own_numbers_alone():
    images, numbers = torch.rand(4, 1, 28, 28), torch.rand(4, NOISE)
    together = random_affine(images, numbers)
    assert torch.equal(random_affine(images, numbers), together)
    for row in range(4):
        alone = random_affine(images[row : row + 1], numbers[row : row + 1])
        assert torch.allclose(alone[0], together[row], atol=1e-5)
    assert not torch.allclose(random_affine(images, numbers.flip(0)), together, atol=1e-2)


def test_a_random_generator_is_a_function_of_its_numbers():
    draws = [torch.rand(3, generator=random_generator(*numbers)) for numbers in ((1, 2), (1, 2), (2, 1), (1, 3))]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[3])


def test_what_a_checkpoint_says_of_its_data():
    tiny = image_data(200)
    train, _, _ = split_batches(tiny, 32, seed=0)
    assert about_data(tiny, train) == {
        "dataset": "tiny",
        "classes": list("0123456789"),
        "mean": train.mean,
        "std": train.std,
    }
