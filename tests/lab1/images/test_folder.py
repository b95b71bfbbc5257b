"""A folder of one's own images, and what is refused of it."""

import shutil
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from lab1.images import datasets
from tests.refusals import refusal

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
    (pictures / "train" / "green" / "notes.txt").write_text("none yet", encoding="utf-8")
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
    assert message == (
        "--dataset folder: train and test must have the same classes, "
        f"but {pictures / 'train'} lacks green; {pictures / 'test'} lacks red"
    )
    shutil.rmtree(pictures / "test" / "green")
    assert refusal(datasets.load, "folder", pictures, 3, 8).endswith(f"but {pictures / 'test'} lacks red")
    shutil.rmtree(pictures / "train" / "blue")
    draw(pictures / "test" / "red" / "1.png")
    assert refusal(datasets.load, "folder", pictures, 3, 8).endswith(f"but {pictures / 'train'} lacks blue")


def test_a_single_class_is_refused(pictures):
    for part in ("train", "test"):
        shutil.rmtree(pictures / part / "blue")
    assert "at least two" in refusal(datasets.load, "folder", pictures, 3, 8)


def test_what_is_left_out_is_said_in_one_line(pictures, capsys):
    datasets.load("folder", pictures, 3, 8)
    assert capsys.readouterr().err == ""
    (pictures / "train" / ".ipynb_checkpoints").mkdir()
    draw(pictures / "test" / "stray.png")
    datasets.load("folder", pictures, 3, 8)
    said = "no images by their names or in no class's folder"
    assert capsys.readouterr().err == f"Left out 1 file, {said}: stray.png\n"
    for name in ("labels.csv", "notes.txt", "Thumbs.db"):
        (pictures / "train" / "red" / name).touch()
    loaded = datasets.load("folder", pictures, 3, 8)
    assert loaded.classes == ["blue", "red"]
    names = "Thumbs.db, labels.csv, notes.txt, ..."
    assert capsys.readouterr().err == f"Left out 4 files, {said}: {names}\n"


def test_a_gif_is_an_image_of_the_folder(pictures):
    draw(pictures / "train" / "blue" / "2.gif", COLORS["blue"])
    loaded = datasets.load("folder", pictures, 3, 8)
    assert loaded.train_labels.tolist() == [0, 0, 1, 1]
    assert loaded.train_images[1, :, 0, 0].tolist() == list(COLORS["blue"])


def test_16_bits_of_grey_are_no_white_images(pictures):
    values = np.full((9, 9), 0x4040, np.uint16)
    Image.fromarray(values).save(pictures / "train" / "red" / "1.png")
    for channels in (1, 3):
        loaded = datasets.load("folder", pictures, channels, 8)
        assert loaded.train_images[1].unique().tolist() == [0x40]
