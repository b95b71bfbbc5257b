"""The Trainer for encoders: its losses as plain functions of tensors, its optimiser, and what it reports of a test."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lab1.engine.config import TrainConfig
from lab1.engine.metrics import classification_loss
from lab1.trainer import Trainer
from lab2.tasks.encoders import Encoder, trainable

Loss = Callable[[Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]
DATA = ("parts", "choices", "chance", "unknown_documents")  # of the data, for results.json
SHOWN = 8  # texts of the first batch to show in TensorBoard

# Cross-entropy over the choices of a question, ``[B, C]``, is cross-entropy over classes.
choice_loss = classification_loss


def margin_ranking_loss(scores: Tensor, labels: Tensor, margin: float = 1.0) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean over questions and wrong choices of max(0, margin - right score + wrong score), and accuracy as a
    fraction, from the choices' scores ``[B, C]`` and the places of the right ones ``[B]``. It asks that the right
    choice be ahead of each wrong one by the margin, and no more. A score of minus infinity is no choice."""
    scores = scores.float()
    right = scores.gather(1, labels[:, None])
    # 1 at the wrong choices, 0 at the right one.
    wrong = (~scores.isneginf()).to(scores.dtype).scatter(1, labels[:, None], 0)
    loss = (F.relu(margin - right + scores) * wrong).sum() / wrong.sum()
    return loss, {"accuracy": (scores.argmax(1) == labels).sum() / len(labels)}


class TaskTrainer(Trainer):
    """Fine-tunes an encoder. Batches are ``lab2.tasks.batches.TextBatches``."""

    max_gradient_norm = 1.0
    counted_by = ("--batch-size", "--select")  # an accuracy cannot be compared with a loss

    def __init__(
        self,
        model: Encoder,
        config: TrainConfig,
        about: dict[str, Any],
        loss_function: Loss = classification_loss,
        tokenizer: Any = None,
    ):
        """Args:
        about: ``dataset``; ``classes`` where the test should be told apart by class; and what of DATA is known.
        loss_function: maps logits ``[B, K]`` and labels ``[B]`` to the loss and further metrics.
        tokenizer: turns the first batch back into text for TensorBoard, if given.
        """
        super().__init__(model, config, about)
        self.loss_function, self.tokenizer = loss_function, tokenizer

    def logits(self, inputs: dict[str, Tensor]) -> Tensor:
        """The model on the inputs of a batch."""
        with self.autocast:
            return self.forward({name: tensor.to(self.device) for name, tensor in inputs.items()})

    def criterion(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss function that was asked for."""
        return self.loss_function(logits, labels)

    def make_optimizer(self) -> torch.optim.Optimizer:
        """AdamW on what learns (with LoRA, little does); weight decay on matrices only, not on biases and norms."""
        learns = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in learns if p.ndim >= 2], "weight_decay": self.config.weight_decay},
            {"params": [p for p in learns if p.ndim < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.config.learning_rate, fused=True)

    def report(self, batches: Iterable) -> dict[str, Any]:
        """How many parameters learned and, where the classes have names, how each of them fares."""
        return {"trainable_parameters": trainable(self.model)} | super().report(batches)

    def outcome(self) -> dict[str, Any]:
        """What ``results.json`` says of the data and of the training."""
        return {name: self.about[name] for name in DATA if name in self.about} | super().outcome()

    def log_first_batch(self, batch: tuple[dict[str, Tensor], Tensor]) -> None:
        """The first texts as the network sees them, with their padding, in TensorBoard."""
        if self.tokenizer is None or self.log.writer is None:
            return
        inputs, labels = batch
        rows = [tokens.view(-1, tokens.shape[-1]) for tokens in inputs["input_ids"][:SHOWN]]
        lines = [
            f"{label}  {' | '.join(self.tokenizer.batch_decode(r))}"
            for r, label in zip(rows, labels.tolist(), strict=False)
        ]
        self.log.text("first batch/train", "\n".join(lines), 0)
