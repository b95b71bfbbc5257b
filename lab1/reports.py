"""What a test says beyond its mean loss and accuracy: how each class fares, and what is taken for what."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lab1 import distributed
from lab1.metrics import confusion_matrix, macro_f1

if TYPE_CHECKING:
    from lab1.trainer import Trainer

SHOWN = 64  # mistakes to show in TensorBoard


@torch.no_grad()
def classification_report(trainer: "Trainer", batches: Iterable) -> dict[str, Any]:
    """What ``results.json`` says of a classifier's test (see ``by_class``); with the confusion matrix as a figure, in
    the run's folder and in TensorBoard, and there also, of images, those that were taken for another class."""
    classes = trainer.about["classes"]
    confusion, mistakes = torch.zeros(len(classes), len(classes)), []
    trainer.model.eval()
    for inputs, labels in batches:
        labels, predicted = labels.cpu(), trainer.logits(inputs).argmax(1).cpu()
        confusion += confusion_matrix(predicted, labels, len(classes))
        if isinstance(inputs, Tensor) and inputs.ndim == 4:
            mistakes.append(inputs.cpu()[predicted != labels])
    counts = torch.tensor(distributed.total(confusion.flatten().tolist())).view_as(confusion).long()
    found = by_class(counts, classes)
    if distributed.rank() == 0:
        figure = confusion_figure(counts.numpy(), classes)
        figure.savefig(trainer.folder / "confusion.png", dpi=120)
        trainer.log.figure("confusion matrix/test", figure, trainer.epoch)
        trainer.log.scalars({"macro_f1/test": found["macro_f1"]}, trainer.epoch)
        if mistakes:
            trainer.log.images("mistakes/test", torch.cat(mistakes)[:SHOWN], trainer.epoch)
    return found


def by_class(confusion: Tensor, classes: list[str]) -> dict[str, Any]:
    """Macro F1, each class's accuracy (its recall), and the counts themselves, of a confusion matrix
    ``[true, predicted]``."""
    accuracy = confusion.diagonal() / confusion.sum(1).clamp(min=1)
    return {
        "macro_f1": macro_f1(confusion),
        "per_class_accuracy": dict(zip(classes, accuracy.tolist(), strict=True)),
        "confusion": confusion.tolist(),
    }


def confusion_figure(confusion: np.ndarray, classes: list[str]):
    """A Matplotlib figure of a confusion matrix ``[true class, predicted class]`` of counts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = figure.add_subplot()
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 20:
        axes.set_xticks(range(len(classes)), classes, rotation=45 if max(map(len, classes)) > 3 else 0)
        axes.set_yticks(range(len(classes)), classes)
        for (row, column), count in np.ndenumerate(confusion):
            if count:
                color = "white" if share[row, column] > 0.5 else "black"
                axes.text(column, row, int(count), ha="center", va="center", color=color, fontsize=8)
    axes.set(xlabel="predicted class", ylabel="true class", title="Test set, number of examples")
    return figure
