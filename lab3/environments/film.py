"""Films of what an environment shows: an animated GIF by Pillow, an MP4 by OpenCV, written whole or not at all."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lab1.engine.config import UsageError
from lab1.engine.files import replace

GIF_WIDTH, GIF_RATE = 320, 25  # pixels and frames a second, at most
# VP9 plays in browsers and players, and opencv-python brings its encoder, unlike that of H.264, along. MPEG-4 is what
# an OpenCV of one's own can write that has no VP9; browsers do not play it.
MP4_CODECS = ("vp09", "mp4v")


class Gif:
    """Collects small pictures of at most 256 colours; every second one, say, where there are 50 a second."""

    def __init__(self, path: Path, rate: float):
        """``rate``: pictures a second that ``add`` is given."""
        self.path, self.every = path, max(1, round(rate / GIF_RATE))
        self.milliseconds = 1000 * self.every / rate
        self.added, self.frames = 0, []

    def add(self, picture: np.ndarray) -> None:
        """Take in an RGB picture ``[H, W, 3]`` of uint8."""
        self.added += 1
        if self.added % self.every == 1 % self.every:
            height, width = picture.shape[:2]
            if width > GIF_WIDTH:
                import cv2

                picture = cv2.resize(
                    picture, (GIF_WIDTH, round(height * GIF_WIDTH / width)), interpolation=cv2.INTER_AREA
                )
            self.frames.append(Image.fromarray(picture).quantize(256))

    def finish(self) -> None:
        """Write the file; it plays for ever."""
        first, *others = self.frames
        first.save(self.path, save_all=True, append_images=others, duration=self.milliseconds, loop=0)


class Mp4:
    """Writes every picture to a video file as it comes."""

    def __init__(self, path: Path, rate: float):
        self.path, self.rate, self.writer = path, rate, None

    def add(self, picture: np.ndarray) -> None:
        """Take in an RGB picture ``[H, W, 3]`` of uint8."""
        height, width = picture.shape[:2]
        if self.writer is None:
            self.writer = self._open(width, height)
        self.writer.write(np.ascontiguousarray(picture[:, :, ::-1]))

    def _open(self, width: int, height: int) -> Any:
        import cv2

        for codec in MP4_CODECS:
            writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter_fourcc(*codec), self.rate, (width, height))
            if writer.isOpened():
                return writer
        raise UsageError("this build of OpenCV cannot write MP4 files; use --output FILE.gif")

    def finish(self) -> None:
        """Close the file."""
        self.writer.release()


@contextlib.contextmanager
def open_film(path: Path | None, rate: float) -> Iterator[Gif | Mp4 | None]:
    """Inside ``with``, what takes in pictures; None without a path. The film is at ``path`` once the block has ended
    well, and nothing is there otherwise. ``rate``: pictures a second."""
    if path is None:
        yield None
        return
    temporary = path.with_name(f"{path.stem}.part{path.suffix.lower()}")
    film = (Gif if temporary.suffix == ".gif" else Mp4)(temporary, rate)
    try:
        yield film
        film.finish()
        replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
