"""The Trainer with the recipe for convolutional networks: momentum, one cycle of the learning rate, smoothed labels."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lab1.engine import distributed
from lab1.engine.config import require
from lab1.engine.optimizer import KernelMuon, Together, remaining
from lab1.images.augment import mirrored_and_shifted
from lab1.trainer import Trainer, warmup_cosine

SHIFT_FACTOR = 64  # how much faster the norms' shifts learn than the rest, in the recipe of the speed runs
LOOKAHEAD_STEPS = 5


class CNNTrainer(Trainer):
    """Stochastic gradient descent with Nesterov momentum on one cycle of the learning rate (Smith & Topin 2018), and,
    where the configuration has it, Muon for the convolutions and label smoothing (Szegedy et al. 2016)."""

    def make_optimizer(self) -> torch.optim.Optimizer:
        """SGD with Nesterov momentum 0.9; weight decay as a term of the loss, on every parameter (He et al. 2016). With
        ``--optimizer muon``, convolutions learn by Muon instead, without decay (see ``kernels``)."""
        rate, decay, kernels = self.config.learning_rate, self.config.weight_decay, self.kernels()
        rest = remaining(self.model.parameters(), kernels)
        settings = {"lr": rate, "momentum": 0.9, "nesterov": True, "weight_decay": decay, "fused": True}
        sgd = torch.optim.SGD(rest, **settings)
        return Together(sgd, KernelMuon(kernels, rate)) if kernels else sgd

    def kernels(self) -> list[torch.nn.Parameter]:
        """What learns by Muon (Jordan et al. 2024), which makes the singular values of each update about equal: the
        convolutions, with ``--optimizer muon``.

        Raises:
            UsageError: where there are none.
        """
        if self.config.optimizer != "muon":
            return []
        found = [each for each in self.model.parameters() if each.requires_grad and each.ndim == 4]
        require(len(found) > 0, "--optimizer muon: this network has no convolution to learn by it")
        return found

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0: a rise over the first fifth, then a cosine to zero."""
        total = self.epochs * self.steps_per_epoch
        return self.config.learning_rate * warmup_cosine(step, total, total // 5)

    def criterion(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy: in training against smoothed labels, in evaluation always against the labels themselves."""
        loss, metrics = super().criterion(logits, labels)
        if self.model.training and self.config.label_smoothing > 0:
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.config.label_smoothing)
        return loss, metrics


class FastTrainer(CNNTrainer):
    """The recipe of the speed runs (Page 2018; Jordan 2024, arXiv 2404.00498): norm shifts that learn faster than the
    rest, one triangle of the learning rate, weights averaged on the way, and a test that looks at an image six times.

    The configuration's ``uses(trick)`` says which of the tricks of train_fast.py are in.
    """

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.slow = [each.detach().clone() for each in self.model.parameters()]  # of Lookahead

    def make_optimizer(self) -> torch.optim.Optimizer:
        """SGD with Nesterov momentum 0.85; the shifts of the norms at SHIFT_FACTOR times the learning rate of the rest.
        With ``--optimizer muon``, convolutions learn by Muon instead (see ``kernels``)."""
        learned = {name: each for name, each in self.model.named_parameters() if each.requires_grad}
        shifts = [each for name, each in learned.items() if name.endswith("bias")]
        kernels = self.kernels()
        rest = remaining(learned.values(), [*shifts, *kernels])
        factor = SHIFT_FACTOR if self.config.uses("fast-shifts") else 1
        rate, decay = self.config.learning_rate, self.config.weight_decay
        groups = [
            {"params": rest, "weight_decay": decay},
            # The decay of a step is that of the rest: it falls as the rate rises.
            {"params": shifts, "weight_decay": decay / factor, "factor": factor},
        ]
        sgd = torch.optim.SGD(groups, lr=rate, momentum=0.85, nesterov=True)
        return Together(sgd, KernelMuon(kernels, rate)) if kernels else sgd

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0: from a fifth of the peak up to it over the first 23 % of the
        steps, then down to 7 % of it, on straight lines."""
        total = self.total_steps()
        return self.config.learning_rate * float(np.interp((step + 1) / total, (0, 0.23, 1), (0.2, 1, 0.07)))

    def train_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """A step and, after every fifth, one of Lookahead (Zhang et al. 2019): slow weights take a part of the way to
        the fast ones, which go on from there. The part is almost all of it at first and a fifth at the end."""
        metrics = super().train_step(batch)
        if self.config.uses("averaging") and self.step % LOOKAHEAD_STEPS == 0:
            part = 1 - 0.95**LOOKAHEAD_STEPS * (self.step / self.total_steps()) ** 3
            with torch.no_grad():
                for slow, fast in zip(self.slow, self.model.parameters(), strict=True):
                    fast.copy_(slow.lerp_(fast, part))
        return metrics

    def more_state(self) -> dict[str, Any]:
        return {"slow": self.slow}

    def restore_more(self, content: dict[str, Any]) -> None:
        for slow, saved in zip(self.slow, content["slow"], strict=True):
            slow.copy_(saved)

    @torch.no_grad()
    def report(self, batches: Iterable) -> dict[str, Any]:
        """What every test says, and the accuracy where each image is looked at six times (``mirrored_and_shifted``)."""
        self.model.eval()
        right = count = 0
        for images, labels in batches:
            logits = sum(weight * self.logits(view).float() for weight, view in mirrored_and_shifted(images))
            right += int((logits.argmax(1) == labels.to(logits.device)).sum())
            count += len(labels)
        right, count = distributed.total([right, count])
        return super().report(batches) | {"accuracy_with_views": right / count}

    def illustrate(self, test: dict[str, Any]) -> None:
        """What every test shows, and this accuracy."""
        self.log.scalars({"accuracy with views/test": test["accuracy_with_views"]}, self.epoch)
        super().illustrate(test)
