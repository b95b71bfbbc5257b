"""The Trainer with the recipe for convolutional networks: momentum, one cycle of the learning rate, smoothed labels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lab1.trainer import Trainer, warmup_cosine


class CNNTrainer(Trainer):
    """Stochastic gradient descent with Nesterov momentum on one cycle of the learning rate (Smith & Topin 2018), and,
    where the configuration has it, label smoothing (Szegedy et al. 2016)."""

    def make_optimizer(self) -> torch.optim.Optimizer:
        """SGD with Nesterov momentum 0.9; weight decay as a term of the loss, on every parameter (He et al. 2016)."""
        rate, decay = self.config.learning_rate, self.config.weight_decay
        settings = {"lr": rate, "momentum": 0.9, "nesterov": True, "weight_decay": decay, "fused": True}
        return torch.optim.SGD(self.model.parameters(), **settings)

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
