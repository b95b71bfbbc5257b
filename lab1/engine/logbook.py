"""What a run leaves for TensorBoard, and the run folder's small files."""

import contextlib
import json
import logging
import os
import platform
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lab1.engine.config import REPOSITORY, RunConfig, UsageError


def new_run_folder(parent: Path, name: str) -> Path:
    """Make and return ``parent/name``, or ``parent/name-2``, ``-3``, ... where that is taken: nothing is overwritten.

    Raises:
        UsageError: where it cannot be made.
    """
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
        except OSError as error:
            raise UsageError(f"--model-dir {parent}: {folder} cannot be made: {error.strerror}") from None


def write_json(content: Any, path: Path) -> None:
    """Write a file of JSON, atomically."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def environment(device: torch.device) -> dict[str, Any]:
    """Where a run was made: versions, the device's name, threads."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": f"{device.type}: {name}",
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def script_name(config: RunConfig) -> str:
    """The script that a Config belongs to, such as ``lab1/train_mlp.py``."""
    path = Path(__import__("inspect").getfile(type(config))).resolve()
    return path.relative_to(REPOSITORY).as_posix() if path.is_relative_to(REPOSITORY) else path.name


class Logbook:
    """A run's TensorBoard event file. One that is not ``enabled`` (any process but the first) writes nothing."""

    def __init__(self, folder: Path, purge_step: int | None = None, enabled: bool = True):
        """``purge_step``: TensorBoard forgets what an earlier part of the run logged at this step or later."""
        self.writer = None
        if enabled:
            from torch.utils.tensorboard import SummaryWriter

            # TensorBoard reads a run's files in the order of their names, which tell time in whole seconds: a run that
            # is resumed within a second would be read before what it goes on from.
            taken = {path.name.split(".")[3] for path in folder.glob("events.out.tfevents.*")}
            while str(int(time.time())) in taken:
                time.sleep(0.02)
            self.writer = SummaryWriter(str(folder), purge_step=purge_step)

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Points ``{"loss/train": 0.1, ...}`` at this step."""
        if self.writer is not None:
            for tag, value in values.items():
                self.writer.add_scalar(tag, value, step)

    def configuration(self, config: dict[str, Any], charted: Sequence[str] = ("loss", "accuracy")) -> None:
        """The configuration as a table of text and as hparams, and charts of training beside validation."""
        if self.writer is None:
            return
        rows = "\n".join(f"| {name} | `{value}` |" for name, value in config.items())
        self.writer.add_text("configuration", f"| flag | value |\n|---|---|\n{rows}", 0)
        charts = {tag: ["Multiline", [f"{tag}/train", f"{tag}/validation"]] for tag in charted}
        self.writer.add_custom_scalars({"training and validation": charts})
        self._hparams(config, {f"{tag}/test": 0.0 for tag in charted}, parts=("experiment", "start"))

    def end(self, config: dict[str, Any], metrics: dict[str, float], step: int) -> None:
        """The final metrics, as scalars and beside the hparams of this same run."""
        if self.writer is not None:
            self.scalars(metrics, step)
            self._hparams(config, metrics, parts=("experiment", "start", "end"))

    def _hparams(self, config, metrics, parts):
        # SummaryWriter.add_hparams would open a second run beside this one; its three records fit into this one too.
        from torch.utils.tensorboard.summary import hparams

        aside = ("name", "model_dir", "data_dir", "dry_run")
        shown = {name: value for name, value in config.items() if name not in aside}
        number = (int, float)
        plain = {
            name: v if type(v) in number else " ".join(map(str, v)) if type(v) is list else str(v)
            for name, v in shown.items()
        }
        records = dict(zip(("experiment", "start", "end"), hparams(plain, metrics), strict=True))
        for part in parts:
            self.writer.file_writer.add_summary(records[part])

    def text(self, tag: str, text: str, step: int) -> None:
        """A text, shown line by line as it is."""
        if self.writer is not None:
            self.writer.add_text(tag, "\n".join("    " + line for line in text.splitlines()), step)

    def graph(self, model: torch.nn.Module, example: torch.Tensor) -> None:
        """The network's graph, traced on an example batch; the network is left as it was."""
        if self.writer is None:
            return
        training = model.training
        model.eval()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit.trace, which add_graph still uses, is deprecated
            logging.disable(logging.WARNING)
            try:
                self.writer.add_graph(model, example)
            finally:
                logging.disable(logging.NOTSET)
                model.train(training)

    def images(self, tag: str, images: torch.Tensor, step: int, columns: int = 8) -> None:
        """A grid of images ``[N, C, H, W]`` of any range; each is stretched to 0 .. 1 for the eye."""
        if self.writer is None or len(images) == 0:
            return
        from torchvision.utils import make_grid

        grid = make_grid(images.float().cpu(), nrow=columns, normalize=True, scale_each=True)
        self.writer.add_image(tag, grid, step)

    def figure(self, tag: str, figure: Any, step: int) -> None:
        """A Matplotlib figure."""
        if self.writer is not None:
            self.writer.add_figure(tag, figure, step)

    def flush(self) -> None:
        """Write out what is pending."""
        if self.writer is not None:
            self.writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self.writer is not None:
            self.writer.close()
