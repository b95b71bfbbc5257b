"""What a run leaves for TensorBoard, and the run folder's small files."""

import contextlib
import functools
import json
import logging
import platform
import time
import warnings
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_info

from lab1.engine import files
from lab1.engine.config import UsageError
from lab1.engine.finished import script_name as script_name

# TensorBoard ticks five hyperparameters, first those that are said to differ between runs: the first five of these.
TICKED = (
    *("env", "dataset", "text", "learning_rate", "method", "hidden", "depth", "residual", "num_envs", "seed"),
    *("model", "width", "steps", "epochs", "batch_size"),
)
# What never matters when runs are compared: where files lie, how it is computed, how often it is looked at.
ASIDE = (
    *("name", "model_dir", "data_dir", "resume", "dry_run", "device", "compile", "threads", "vectorization"),
    "workers",
    *("evaluations", "evaluation_episodes", "test_episodes", "eval_interval", "patience"),
)
# Libraries that a number can depend on, as pip names them.
LIBRARIES = (
    *("numpy", "scipy", "scikit-learn", "gymnasium", "torchvision", "opencv-python"),
    *("transformers", "tokenizers", "peft", "datasets"),
)


def new_run_folder(parent: Path, name: str, settings: dict[str, Any]) -> Path:
    """Make and return ``parent/name``, or ``parent/name-2``, ``-3``, ... where that is taken: nothing is overwritten.
    It appears with its ``config.json`` in it, so that a run that is killed at any moment can be resumed.

    Raises:
        UsageError: where it cannot be made.
    """
    try:
        return files.new_folder(parent, name, lambda folder: write_json(settings, folder / "config.json"))
    except OSError as error:
        raise UsageError(f"--model-dir {parent}: {parent / name} cannot be made: {error.strerror}") from None


def forget(folder: Path, suffix: str = "") -> None:
    """Remove a run's event files, where it was stopped before its first checkpoint and begins once more; with a suffix,
    those that end with it."""
    for path in folder.glob(f"events.out.tfevents.*{suffix}"):
        path.unlink()


def write_json(content: Any, path: Path) -> None:
    """Write a file of JSON, atomically."""
    files.write_text(json.dumps(content, indent=1) + "\n", path)


def write_results(content: dict[str, Any], path: Path) -> None:
    """Write a ``results.json``, atomically: a line for each thing it says, so that it stays small and can be read."""
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(value)}" for name, value in content.items())
    files.write_text(f"{{\n{lines}\n}}\n", path)


def environment(device: torch.device) -> dict[str, Any]:
    """Where a run was made, as far as its numbers can depend on it: versions of Python, torch and the other libraries;
    the device's name, threads, the system; the processor's name, the instructions that torch's own kernels use there
    (``AVX2``, ``AVX512``; ``DEFAULT`` without either), and what multiplies NumPy's matrices."""
    processor = _processor()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": f"{device.type}: {name}",
        "threads": torch.get_num_threads(),
        "libraries": dict(_versions(LIBRARIES)),
        "system": platform.platform(),
        "processor": processor,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "blas": _blas(),
    }


def _versions(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            yield name, metadata.version(name)


def _blas() -> str | None:
    # Such as "openblas 0.3.31 SkylakeX", with the processor that its kernels are for; None where NumPy brings none.
    for one in threadpool_info():
        if one["user_api"] == "blas" and "numpy" in one["filepath"]:
            return " ".join(filter(None, (one["internal_api"], one["version"], one.get("architecture"))))
    return None


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def tagged(metrics: dict[str, float], part: str) -> dict[str, float]:
    """Metrics under their tags in TensorBoard: ``{"macro_f1": 0.9}`` of the test is ``{"macro f1/test": 0.9}``."""
    return {f"{name.replace('_', ' ')}/{part}": value for name, value in metrics.items()}


class Logbook:
    """A run's TensorBoard event file. One that is not ``enabled`` (any process but the first) writes nothing."""

    TEST = ".test"  # what the file of a test ends with

    def __init__(self, folder: Path, purge_step: int | None = None, enabled: bool = True, test: bool = False):
        """``purge_step``: TensorBoard forgets what an earlier part of the run logged at this step or later. ``test``:
        the file is that of a test, in place of what an earlier one wrote, which was stopped or of a shorter run."""
        self.writer = None
        if enabled:
            from torch.utils.tensorboard import SummaryWriter

            if test:
                forget(folder, self.TEST)
                self.writer = SummaryWriter(str(folder), filename_suffix=self.TEST)
                return
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
        """The configuration as a table of text and, where something is ``charted``, as hparams, and charts of training
        beside validation."""
        if self.writer is None:
            return
        rows = "\n".join(f"| {name} | `{value}` |" for name, value in config.items())
        self.writer.add_text("configuration", f"| flag | value |\n|---|---|\n{rows}", 0)
        if not charted:
            return
        charts = {tag: ["Multiline", [f"{tag}/train", f"{tag}/validation"]] for tag in charted}
        self.writer.add_custom_scalars({"training and validation": charts})
        self._hparams(config, {f"{tag}/test": 0.0 for tag in sorted(charted)}, parts=("experiment", "start"))

    def end(self, config: dict[str, Any], metrics: dict[str, float], step: int) -> None:
        """The final metrics, as scalars and beside the hparams of this same run."""
        if self.writer is not None:
            self.scalars(metrics, step)
            self._hparams(config, metrics, parts=("experiment", "start", "end"))

    def _hparams(self, config, metrics, parts):
        # SummaryWriter.add_hparams would open a second run beside this one; its three records fit into this one too.
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
        from torch.utils.tensorboard.summary import hparams

        plain = {}
        for name, value in config.items():
            if name not in ASIDE:
                number = type(value) in (int, float) and name != "seed"  # a seed is a name: 0, not 0.0000
                plain[name] = value if number else " ".join(map(str, value)) if type(value) is list else str(value)
        records = dict(zip(("experiment", "start", "end"), hparams(plain, metrics), strict=True))
        stored = records["experiment"].value[0].metadata.plugin_data
        content = HParamsPluginData.FromString(stored.content)
        ticked = [name for name in TICKED if name in plain][:5]
        for info in content.experiment.hparam_infos:
            info.differs = info.name in ticked
        stored.content = content.SerializeToString()
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
        training, trace = model.training, torch.jit.trace
        model.eval()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit.trace, which add_graph still uses, is deprecated
            logging.disable(logging.WARNING)
            # Without the tracer's check: to compare two traces it imports half a second of torch.distributed.
            torch.jit.trace = functools.partial(trace, check_trace=False)
            try:
                self.writer.add_graph(model, example)
            finally:
                torch.jit.trace = trace
                logging.disable(logging.NOTSET)
                model.train(training)

    def images(self, tag: str, images: torch.Tensor, step: int) -> None:
        """A grid of images ``[N, C, H, W]`` of any range, eight in a row; each is stretched to 0 .. 1 for the eye.
        Images that are neither grey nor RGB are left out."""
        if self.writer is None or len(images) == 0 or images.shape[1] not in (1, 3):
            return
        images = images.float().cpu()
        low, high = (limit(images, (1, 2, 3), keepdim=True) for limit in (torch.amin, torch.amax))
        stretched = (images - low) / (high - low).clamp(min=1e-5)
        self.writer.add_images(tag, torch.nn.functional.pad(stretched, [1] * 4), step)

    def figure(self, tag: str, figure: Any, step: int) -> None:
        """A Matplotlib figure, drawn by Agg whatever backend is set."""
        if self.writer is not None:
            from matplotlib.backends.backend_agg import FigureCanvasAgg

            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            self.writer.add_image(tag, np.asarray(canvas.buffer_rgba())[..., :3], step, dataformats="HWC")

    def flush(self) -> None:
        """Write out what is pending."""
        if self.writer is not None:
            self.writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self.writer is not None:
            self.writer.close()
