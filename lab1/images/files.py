"""Image files: one reader, for folders of one's own and ``explain_cam.py --images``, and what such a folder holds."""

import logging
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lab1.engine.config import UsageError

# Whatever a file is called, nothing else is opened: Pillow hands an EPS to an external program.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
logging.getLogger("PIL").addHandler(logging.NullHandler())  # what is wrong with a file, UsageError says


def read_image(path: Path) -> Image.Image:
    """An image file as RGB of 8 bits a channel: turned as its EXIF orientation says, on white where it is transparent;
    the first frame, where there are several.

    Deeper grey values are scaled to 0 .. 255: integers from 0 .. 65535, as 16 bits have them; floats from 0 .. 1, or
    from 0 .. 255 where one is above 1. Values beyond these, such as counts of 32 bits, are stretched from the image's
    least to its largest. Colours of 16 bits a channel keep their upper 8.

    Raises:
        UsageError: where it cannot be read as an image; the message has its path, and why.
    """
    try:
        if path.exists() and not path.is_file():
            raise UsageError("it is no file")  # a pipe would be waited for
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow on what it overlooks, such as damaged EXIF data
            with Image.open(path, formats=FORMATS) as image:
                return _rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # a damaged file can raise anything in Pillow's readers
        raise UsageError(f"{path} cannot be read as an image: {_reason(path, error)}") from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_grey(image)).convert("RGB")
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _grey(image: Image.Image) -> np.ndarray:
    """Grey values of 16 or 32 bits -> uint8 ``[H, W]``."""
    values = np.asarray(image, dtype=np.float32)
    if not np.isfinite(values).all():
        raise UsageError("some of its values are not finite")
    low, high = float(values.min()), float(values.max())
    usual = [1, 255] if image.mode == "F" else [65535]
    least, largest = next(((0, top) for top in usual if low >= 0 and high <= top), (low, high))
    scaled = np.rint((values - least) * (255 / ((largest - least) or 1))).astype(np.uint8)
    if "transparency" in image.info:  # this one value is transparent
        scaled[values == image.info["transparency"]] = 255
    return scaled


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, UsageError):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return f"it is no image of these formats: {', '.join(FORMATS)}"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels; make it smaller"
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return "it is a link to a file that is not there"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"it is damaged ({(str(error).splitlines() or [type(error).__name__])[0]})"


def find_images(folder: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """What a folder with a subfolder for each class holds: the image files of each class, at any depth, and the files
    that are left out because they are no images by their names, or lie in no class's folder. Hidden files and folders,
    whose names begin with a dot, count as neither.

    Raises:
        UsageError: where a folder cannot be listed.
    """
    classes: dict[str, list[Path]] = {}
    left_out = []
    entered = set()

    def refuse(error: OSError) -> None:
        raise UsageError(f"{error.filename} cannot be listed: {error.strerror}")

    for place, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        place = Path(place)
        entered.add(place.resolve())
        # A link to a folder that it lies in would be followed for ever.
        folders[:] = sorted(name for name in folders if name[0] != "." and (place / name).resolve() not in entered)
        if place == folder:
            classes = {name: [] for name in folders}
        for name in sorted(name for name in names if name[0] != "."):
            path = place / name
            if place != folder and path.suffix.lower() in SUFFIXES:
                classes[path.relative_to(folder).parts[0]].append(path)
            else:
                left_out.append(path)
    return classes, left_out
