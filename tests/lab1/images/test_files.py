"""Image files: every depth, orientation and kind of transparency read as RGB of 8 bits, and what is refused."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lab1.explanation.sheet import network_input, read_example
from lab1.images import datasets, files
from lab1.images.files import FORMATS, find_images, read_image
from tests.refusals import refusal

DEEP = np.array([[0, 257, 1000], [32896, 40000, 65535]], np.uint16)
OF_8_BITS = [[0, 1, 4], [128, 156, 255]]  # DEEP / 257, rounded


def greys(path: Path) -> list[list[int]]:
    """The values of an image that must be read as grey."""
    image = read_image(path)
    assert image.mode == "RGB"
    pixels = np.asarray(image)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0].tolist()


def saved(path: Path, values: np.ndarray, **options) -> Path:
    Image.fromarray(values).save(path, **options)
    return path


def png(path: Path, width: int, depth: int, color: int, row: bytes) -> Path:
    """A PNG of one row, for the kinds that Pillow does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, 1, depth, color, 0, 0, 0)
    parts = (b"IHDR", head), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    return path


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_keep_their_range(tmp_path, suffix):
    assert greys(saved(tmp_path / f"deep.{suffix}", DEEP)) == OF_8_BITS


def test_16_bits_of_a_pgm_keep_their_range(tmp_path):
    path = tmp_path / "deep.pgm"
    path.write_bytes(b"P5 3 2 65535\n" + DEEP.astype(">u2").tobytes())
    assert greys(path) == OF_8_BITS


def test_16_bits_of_colour_keep_their_upper_8(tmp_path):
    colours = png(tmp_path / "rgb.png", 2, 16, 2, struct.pack(">6H", 0x0110, 0x80FF, 0xFFFF, 0, 0x1200, 0x3400))
    assert np.asarray(read_image(colours)).tolist() == [[[1, 128, 255], [0, 18, 52]]]
    with_alpha = png(tmp_path / "rgba.png", 2, 16, 6, struct.pack(">8H", 0x0110, 0x80FF, 0, 0xFFFF, 0, 0, 0, 0))
    assert np.asarray(read_image(with_alpha)).tolist() == [[[1, 128, 0], [255, 255, 255]]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0.0, 0.5, 1.0]], [[0, 128, 255]]),
        ([[0.25, 0.5, 0.5]], [[64, 128, 128]]),  # 0 to 1, though it fills less
        ([[0.0, 100.0, 200.0]], [[0, 100, 200]]),
        ([[-1.0, 0.0, 1.0]], [[0, 128, 255]]),
        ([[500.0, 1000.0, 3000.0]], [[0, 51, 255]]),
        ([[7000.0, 7000.0, 7000.0]], [[0, 0, 0]]),
    ],
)
def test_floats_are_scaled_from_0_to_1_or_255_or_from_least_to_largest(tmp_path, values, expected):
    assert greys(saved(tmp_path / "float.tif", np.array(values, np.float32))) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0, 1000, 65535]], [[0, 4, 255]]),
        ([[0, 400_000, 2_000_000]], [[0, 51, 255]]),
        ([[-300, 0, 300]], [[0, 128, 255]]),
    ],
)
def test_integers_of_32_bits_are_those_of_16_or_scaled_from_least_to_largest(tmp_path, values, expected):
    assert greys(saved(tmp_path / "whole.tif", np.array(values, np.int32))) == expected


def test_one_bit_is_black_and_white(tmp_path):
    assert greys(saved(tmp_path / "bit.png", np.array([[True, False]]))) == [[255, 0]]


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
@pytest.mark.parametrize(
    ("orientation", "corner", "shape"),
    [
        (1, (0, 0), (16, 32)),
        (2, (0, 31), (16, 32)),
        (3, (15, 31), (16, 32)),
        (4, (15, 0), (16, 32)),
        (5, (0, 0), (32, 16)),
        (6, (0, 15), (32, 16)),
        (7, (31, 15), (32, 16)),
        (8, (31, 0), (32, 16)),
    ],
)
def test_an_image_is_turned_as_its_exif_says(tmp_path, orientation, corner, shape, suffix):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = np.asarray(read_image(saved(tmp_path / f"turned.{suffix}", pixels, exif=exif)))
    assert turned.shape == (*shape, 3)
    others = [(row, column) for row in (0, shape[0] - 1) for column in (0, shape[1] - 1) if (row, column) != corner]
    assert turned[corner].min() > 250
    assert max(turned[other].max() for other in others) < 5


def test_what_is_transparent_lies_on_white(tmp_path):
    half = np.array([[[200, 0, 0, 255], [200, 0, 0, 51], [200, 0, 0, 0]]], np.uint8)
    for name, options in (("a.png", {}), ("a.webp", {"lossless": True, "exact": True}), ("a.tif", {})):
        # A fifth of (200, 0, 0), four fifths of white.
        expected = [[[200, 0, 0], [244, 204, 204], [255, 255, 255]]]
        assert np.asarray(read_image(saved(tmp_path / name, half, **options))).tolist() == expected, name
    grey = png(tmp_path / "la.png", 2, 8, 4, bytes([100, 255, 100, 0]))
    assert greys(grey) == [[100, 255]]


@pytest.mark.parametrize(
    ("name", "transparency", "expected"),
    [
        ("p.png", 0, [[255, 255, 255], [200, 0, 0]]),
        ("p.gif", 1, [[10, 20, 30], [255, 255, 255]]),
        ("p.png", bytes([51, 255]), [[206, 208, 210], [200, 0, 0]]),
        ("p.png", None, [[10, 20, 30], [200, 0, 0]]),
    ],
)
def test_a_palette_has_its_colours_and_what_is_transparent_lies_on_white(tmp_path, name, transparency, expected):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / name, **({} if transparency is None else {"transparency": transparency}))
    assert np.asarray(read_image(tmp_path / name)).tolist() == [expected]


def test_one_value_of_16_bits_that_is_transparent_is_white(tmp_path):
    assert greys(saved(tmp_path / "deep.png", DEEP, transparency=1000)) == [[0, 1, 255], OF_8_BITS[1]]


def test_of_several_frames_it_is_the_first(tmp_path):
    red, blue = (Image.new("RGB", (4, 3), color) for color in ((255, 0, 0), (0, 0, 255)))
    for name in ("a.gif", "a.tif", "a.webp", "a.png"):
        red.save(tmp_path / name, save_all=True, append_images=[blue], **({"lossless": True} if "w" in name else {}))
        assert read_image(tmp_path / name).getpixel((1, 1)) == (255, 0, 0), name


def test_the_inks_of_a_cmyk_jpeg_are_colours(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "inks.jpg")
    assert read_image(tmp_path / "inks.jpg").getpixel((4, 4)) == pytest.approx((255, 0, 0), abs=2)


def test_the_format_is_that_of_the_content_and_not_of_the_name(tmp_path):
    saved(tmp_path / "a.jpg", np.full((3, 3), 77, np.uint8), format="PNG")
    assert greys(tmp_path / "a.jpg") == [[77] * 3] * 3


@pytest.mark.parametrize("name", ["a.jpg", "a.eps"])
def test_an_eps_is_not_handed_to_another_program(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    assert Image.open(path).format == "EPS"  # what Pillow would take it for
    assert refusal(read_image, path) == (
        f"{path} cannot be read as an image: it is no image of these formats: {', '.join(FORMATS)}"
    )


def test_an_image_too_large_for_memory_is_refused(tmp_path):
    path = tmp_path / "huge.pbm"
    path.write_bytes(b"P4 20000 20000\n")
    assert "more than 178,956,970 pixels; make it smaller" in refusal(read_image, path)


def test_a_large_image_is_read_without_a_remark(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    assert greys(saved(tmp_path / "large.png", DEEP)) == OF_8_BITS
    assert len(recwarn) == 0


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.bmp", "a.webp", "a.tif", "a.ppm"])
def test_a_file_cut_short_is_refused_by_its_name(tmp_path, name):
    path = tmp_path / name
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    for size in (0, 1, 10, len(content) // 2):
        path.write_bytes(content[:size])
        assert refusal(read_image, path).startswith(f"{path} cannot be read as an image: it is ")


def test_values_that_are_no_numbers_are_refused(tmp_path):
    path = saved(tmp_path / "nan.tif", np.array([[0.0, np.nan]], np.float32))
    assert refusal(read_image, path) == f"{path} cannot be read as an image: some of its values are not finite"


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "link.png").symlink_to("nowhere.png")
    assert refusal(read_image, tmp_path / "link.png").endswith("image: it is a link to a file that is not there")
    assert refusal(read_image, tmp_path).endswith("image: it is no file")
    assert refusal(read_image, tmp_path / "no.png").endswith("image: No such file or directory")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert refusal(read_image, tmp_path / "pipe.png").endswith("image: it is no file")


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", DEEP)

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", forbidden)
    assert refusal(read_image, path) == f"{path} cannot be read as an image: Permission denied"


def test_a_network_is_shown_a_file_as_it_was_shown_its_training_images(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (90, 50, 4), dtype=np.uint8)
    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.fromarray(noise).save(tmp_path / part / name / "1.png")
    images = datasets.load("folder", tmp_path, channels=3, size=32).train_images
    example = read_example(tmp_path / "train" / "a" / "1.png")
    shown = network_input(example.pixels, {"mean": [0, 0, 0], "std": [1, 1, 1]})
    assert np.array_equal((shown * 255).round().numpy(), images[:1].numpy())


# What a folder holds


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_hidden_files_and_folders_count_as_neither_classes_nor_images(tmp_path):
    touch(tmp_path / "cat" / "b.PNG", tmp_path / "cat" / "a.jpeg", tmp_path / "cat" / "more" / "c.gif")
    touch(tmp_path / ".ipynb_checkpoints" / "a.png", tmp_path / "cat" / ".thumbnails" / "a.png")
    touch(tmp_path / "cat" / "._a.png", tmp_path / ".DS_Store", tmp_path / "cat" / ".DS_Store")
    touch(tmp_path / "cat" / "labels.csv", tmp_path / "stray.png")
    classes, left_out = find_images(tmp_path)
    cat = tmp_path / "cat"
    assert classes == {"cat": [cat / "a.jpeg", cat / "b.PNG", cat / "more" / "c.gif"]}
    assert left_out == [tmp_path / "stray.png", cat / "labels.csv"]


def test_a_link_to_a_folder_that_it_lies_in_is_not_followed_for_ever(tmp_path):
    touch(tmp_path / "cat" / "a.png")
    (tmp_path / "cat" / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "cat" / "self").symlink_to(tmp_path / "cat", target_is_directory=True)
    assert find_images(tmp_path) == ({"cat": [tmp_path / "cat" / "a.png"]}, [])


def test_a_class_may_be_a_link_to_a_folder(tmp_path):
    touch(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "cat").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert find_images(tmp_path / "train") == ({"cat": [tmp_path / "train" / "cat" / "a.png"]}, [])


def test_a_folder_that_may_not_be_listed_is_refused_by_its_name(tmp_path, monkeypatch):
    touch(tmp_path / "cat" / "a.png", tmp_path / "dog" / "a.png")
    scandir = os.scandir

    def listed(path):
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(files.os, "scandir", listed)
    assert refusal(find_images, tmp_path) == f"{tmp_path / 'dog'} cannot be listed: Permission denied"
