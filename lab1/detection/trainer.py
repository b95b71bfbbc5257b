"""The Trainer of a detector: it learns from windows and is tested on whole canvases."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import nn

from lab1.detection.canvases import Canvases
from lab1.detection.detector import Detections, Detector, best_threshold, counts, measure
from lab1.detection.figure import Example, detection_figure
from lab1.engine import distributed
from lab1.trainer import Trainer


class DetectorTrainer(Trainer):
    """Trains a classifier on windows; beyond the classifier's test, it tests the detector that it becomes."""

    def __init__(self, model, config, about, validation: Canvases, tests: dict[str, Canvases]):
        """``validation`` canvases choose the threshold; ``tests`` are canvases by kind, see ``evaluate``."""
        super().__init__(model, config, about)
        self.validation, self.tests = validation, tests
        self.draw: Callable[[], Figure] | None = None  # what the detector saw, once it is tested

    def report(self, batches: Iterable) -> dict[str, Any]:
        found = super().report(batches)
        if distributed.rank() == 0:
            detected, self.draw = evaluate(self.model, self.about, self.validation, self.tests, self.device)
            found |= detected
        return found

    def illustrate(self, test: dict[str, Any]) -> None:
        super().illustrate(test)
        self.log.scalars({f"{name}/test": test[name] for name in ("f1", "precision", "recall")}, self.epoch)
        figure = self.draw()
        figure.savefig(self.folder / "detections.png")
        self.log.figure("detections/test", figure, self.epoch)


def evaluate(
    model: nn.Module, about: dict[str, Any], validation: Canvases, tests: dict[str, Canvases], device: torch.device
) -> tuple[dict[str, Any], Callable[[], Figure]]:
    """What ``results.json`` says of a detector, and a function that draws what it sees.

    Args:
        about: what stands in ``best.pt`` beside the weights, with the normalisation.
        validation: canvases to choose the threshold on.
        tests: canvases by kind; the results of the first kind stand by themselves, those of the others by name.
    """
    detector = Detector(model, about["mean"], about["std"], device)
    threshold = best_threshold(detector.detect(validation.images), validation)
    results, shown = {}, []
    for kind, canvases in tests.items():
        found = [each.above(threshold) for each in detector.detect(canvases.images)]
        results[kind] = measure(found, canvases, threshold)
        for row, title in chosen(found, canvases, threshold).items():
            image, boxes, labels = canvases.images[row], canvases.boxes[row], canvases.labels[row]
            heat = detector.heat_maps(image)
            shown.append(Example(f"{kind} canvas,\n{title}", image, boxes, labels, found[row], heat))
        numbers = "  ".join(f"{name} {results[kind][name]:.4f}" for name in ("f1", "precision", "recall"))
        print(f"{len(canvases)} {kind} canvases: {numbers}")
    first, *others = tests
    return results[first] | {kind: results[kind] for kind in others}, partial(detection_figure, shown)


def chosen(found: list[Detections], canvases: Canvases, threshold: float) -> dict[int, str]:
    """The canvases that the figure shows, with their titles: the first one, and the first one with a mistake."""
    correct, reported, digits = counts(found, canvases, threshold).T
    mistakes = ((correct < reported) | (correct < digits)).nonzero()[:, 0].tolist()
    return {0: "the first"} | dict.fromkeys(mistakes[:1], "the first with a mistake")
