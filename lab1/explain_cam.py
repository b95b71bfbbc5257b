"""Exercise 2.3. Where does a convolutional network look?

Command:  python lab1/explain_cam.py --run rescnn3-16-shapes-seed0 --evaluate
Time:     30 seconds
Expect:   the map's maximum lies on the object in 97.9 % of 2,000 test images

    python lab1/explain_cam.py --run RUN                                     a sheet of maps, mistakes among it
    python lab1/explain_cam.py --run RUN --images cat.jpg dog.png            your own images
    python lab1/explain_cam.py --run RUN --indices 0 5 7 --method grad-cam   images of the test set

It writes a folder with sheet.png: of each image the most probable classes and the map of each. All maps of an image
share one scale. Where the true class is not among them, its map comes last. The formulas: lab1/explanation/cam.py.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from lab1.engine.config import RunConfig, Whole, find_run, flag, require
from lab1.engine.files import read_object
from lab1.engine.launch import launch, prepare

MOST_ROWS = 100  # of a sheet: an image with far more could not be drawn, nor be looked at


@dataclasses.dataclass
class Config(RunConfig):
    """The flags of this script."""

    run: Annotated[str, flag("RUN")] = "rescnn3-16-shapes-seed0"
    """The run of train_cnn.py to explain, a folder or a name under --model-dir or among the published ones."""
    images: Annotated[tuple[Path, ...], flag("FILE ...")] = ()
    """Image files to explain."""
    indices: Annotated[tuple[int, ...], flag("INT ...")] = ()
    """Images of the test set to explain, counted from 0."""
    mistakes: Whole = None
    """Wrongly classified images of the test set to explain, the most confident first (default: 3, or 0 with --images
    or --indices)."""
    method: Literal["cam", "grad-cam"] = "cam"
    """cam: what each place gives to the class, of either sign (Zhou et al. 2016); grad-cam: Selvaraju et al. 2017."""
    top: int = 3
    """Classes to show for each image."""
    evaluate: bool = False
    """Measure the maps on shapes, whose boxes are known: pointing game, deletion and insertion."""

    def check(self) -> None:
        super().check()
        require(self.resume is None, "--resume: there is nothing to resume here; run it again")
        untouched = self.precision == "fp32" and not self.compile
        require(untouched, "--precision and --compile: maps are computed in fp32, as they are; leave them out")
        require(self.top >= 1, f"--top {self.top}: at least 1 class is needed")
        require(self.mistakes is None or self.mistakes >= 0, f"--mistakes {self.mistakes}: 0 or more is needed")
        if not self.images and not self.indices:
            self.indices = (0, 1, 2)
            self.mistakes = 3 if self.mistakes is None else self.mistakes
        self.mistakes = self.mistakes or 0
        count = len(self.images) + len(self.indices) + self.mistakes
        require(count <= MOST_ROWS, f"{count} images: at most {MOST_ROWS} fit on a sheet")

    def describe(self) -> str:
        return f"{self.method}-{Path(self.run).resolve().name}"


def choose(images, probabilities, config: Config) -> list[int]:
    """The rows of the test set to explain: those asked for, then mistakes, the most confident first; what the network
    says of the test set is a function, ``probabilities()``, as it is only needed for mistakes.

    Raises:
        UsageError: for an index out of range.
    """
    count = len(images.test_labels)
    for index in config.indices:
        require(0 <= index < count, f"--indices {index}: the test set of {images.name} has the images 0 to {count - 1}")
    if not config.mistakes:
        return list(config.indices)
    confidence, predicted = (each.cpu() for each in probabilities().max(1))
    wrong = (predicted != images.test_labels).nonzero()[:, 0]
    return [*config.indices, *wrong[confidence[wrong].argsort(descending=True)][: config.mistakes].tolist()]


def folder_of_images(config: Config, run: Path) -> Path:
    """Where the images are of a run with ``--dataset folder``: under ``--data-dir``, or where the run had them.

    Raises:
        UsageError: where they are not there.
    """
    saved = read_object(run / "config.json").get("data_dir")
    folder = config.data_folder() if config.data_dir is not None or saved is None else Path(str(saved))
    require(
        (folder / "train").is_dir() and (folder / "test").is_dir(),
        f"--run {config.run}: it learned from your own images, and {folder} holds no folders train and test; say with "
        "--data-dir where they are",
    )
    return folder


def main(config: Config) -> dict:
    """Explain images, evaluate where asked for; returns what results.json holds under "test"."""
    # Imported here, not above: torch takes seconds to import, and --help should not wait for it.
    from lab1 import models
    from lab1.engine import distributed, logbook
    from lab1.explanation import evaluation
    from lab1.explanation.sheet import Example, contact_sheet, network_input, predict, read_example
    from lab1.images import datasets
    from lab1.images.batches import ABOUT

    device = prepare(config)
    require(distributed.world_size() == 1, "images are explained in one process, without torchrun")
    source = find_run(config.run, config.runs_folder(), config.published_folder(), "best.pt")
    model, about = models.load(source / "best.pt", device, **ABOUT)
    kind, dataset, size = type(model).__name__, about["dataset"], about.get("size", [32, 32])
    article = "an" if kind == "MLP" else "a"
    require(
        isinstance(model, models.CNN),
        f"--run {config.run}: {article} {kind} has no map to explain; a CNN or ResCNN has",
    )
    require(
        dataset == "shapes" or not config.evaluate,
        f"--evaluate: no boxes are known in {dataset}; use a network that train_cnn.py trained with --dataset shapes",
    )
    channels = len(about["mean"])
    require(channels in (1, 3), f"--run {config.run}: its images have {channels} channels; grey and RGB can be drawn")
    fits = isinstance(size, list) and len(size) == 2 and all(isinstance(each, int) and each > 0 for each in size)
    require(fits, f"{source / 'best.pt'} holds no network of this lab: its size is {size!r}")
    examples, test = [read_example(path) for path in config.images], {}
    if config.indices or config.mistakes or config.evaluate:
        own = dataset == "folder"
        config.data_dir = folder_of_images(config, source) if own else config.data_dir
        images = datasets.load(dataset, config.data_folder(), channels=3, size=32, download=not config.dry_run)
        named = about.get("classes", images.classes)
        require(
            not own or images.classes == named,
            f"--run {config.run}: it learned the classes {', '.join(named)}, and {config.data_dir} has "
            f"{', '.join(images.classes)} now",
        )
        about["size"] = list(images.test_images.shape[-2:])
        pixels = images.test_images.permute(0, 2, 3, 1).numpy()
        inputs = network_input(pixels, about).to(device)
        for row in choose(images, lambda: predict(model, inputs), config):
            box = None if images.test_boxes is None else images.test_boxes[row].tolist()
            examples.append(Example(f"test image {row}", pixels[row], images.test_labels[row].item(), box))
    figure, said = contact_sheet(examples, model, about, config.method, config.top)
    if config.evaluate:
        limit = 16 if config.dry_run else None
        test = evaluation.evaluate(
            model, inputs[:limit], images.test_labels[:limit], images.test_boxes[:limit], config.seed
        )
        print(evaluation.table(test))

    settings = config.as_dict()
    folder = logbook.new_run_folder(config.runs_folder(), config.run_name(), settings)
    results = {
        "script": logbook.script_name(config),
        "config": settings,
        "dataset": dataset,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "images": said,
        "test": test,
        "environment": logbook.environment(device),
    }
    logbook.write_results(results, folder / "results.json")
    figure.savefig(folder / "sheet.png")
    log = logbook.Logbook(folder)
    log.figure("class activation maps/test", figure, 0)
    log.close()
    print(f"{folder / 'sheet.png'} shows the maps")
    return test


if __name__ == "__main__":
    launch(main, Config)
