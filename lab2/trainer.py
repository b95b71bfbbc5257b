"""The Trainer for language models: loss and measures by token, weight decay on matrices, and samples as it learns; and,
where the configuration has them, Muon and averaged weights."""

import contextlib
import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from lab1.engine.config import require
from lab1.engine.optimizer import Together
from lab1.trainer import Trainer
from lab2.language.corpus import ConsecutiveWindows, RandomWindows
from lab2.language.tokens import Tokenizer
from lab2.models import GPT

SAMPLE_TOKENS = 400


def language_model_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats a token, of logits ``[B, T, V]`` and the tokens that came next ``[B, T]``."""
    return F.cross_entropy(logits.float().flatten(0, -2), targets.flatten())


def text_measures(loss: float, characters_per_token: float) -> dict[str, float]:
    """What a mean loss in nats a token says: perplexity, exp of it, which depends on what a token is; and bits per
    character, which does not, so that models with different tokenizers can be compared."""
    return {
        "perplexity": math.exp(loss) if loss < 700 else math.inf,
        "bits_per_character": loss / math.log(2) / characters_per_token,
    }


def moving_average(average: Tensor, weights: Tensor, steps: Tensor) -> Tensor:
    """The exponential moving average of the weights of so many steps, and of one more (Polyak & Juditsky 1992). Its
    memory grows with the steps, so that the first weights are soon forgotten, up to about a hundred of them."""
    return average.lerp(weights, (9 / (10 + steps)).clamp(min=0.01))


class LanguageModelTrainer(Trainer):
    """Trains a GPT on windows of a text. An epoch is a stretch of steps between two validations."""

    max_gradient_norm = 1.0
    counted = "tokens"
    counted_by = ("--batch-size", "--preset")  # a preset says what flags are, and these are the run's own

    def __init__(self, model: GPT, config, about: dict[str, Any], tokenizer: Tokenizer, prompt: list[int]):
        """Args:
        config: has ``steps`` and ``epochs`` (see ``lab2.train_gpt``), and the fields of a ``TrainConfig``.
        about: what ``best.pt`` says of the text: ``dataset``, ``tokenizer``.
        prompt: tokens that samples begin with, at least one.
        """
        super().__init__(model, config, about)
        self.tokenizer, self.prompt = tokenizer, prompt
        self.average = AveragedModel(self.model, avg_fn=moving_average) if config.uses("averaging") else None

    def criterion(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss a token, and how often the most probable token is the next one."""
        correct = (logits.detach().argmax(-1) == targets).sum()
        return language_model_loss(logits, targets), {"accuracy": correct / targets.numel()}

    def weight(self, batch: tuple[Tensor, Tensor]) -> int:
        """The tokens of a batch."""
        return batch[1].numel()

    def total_steps(self) -> int:
        """As asked for: the last stretch may be shorter than the others."""
        return self.config.steps if not self.config.dry_run else super().total_steps()

    def lasted(self) -> tuple[str, int]:
        return "steps", self.step

    def more_state(self) -> dict[str, Any]:
        return {} if self.average is None else {"average": self.average.state_dict()}

    def restore_more(self, content: dict[str, Any]) -> None:
        """Refuse to go on from where no stretch ends: windows of the text would be left out."""
        if self.average is not None:
            self.average.load_state_dict(content["average"])
        interval, total = self.config.eval_interval, self.total_steps()
        require(
            self.config.dry_run or self.step >= total or self.step == self.epoch * interval + self.batch,
            f"{self.folder} cannot go on from its step {self.step} with --steps {total} and --eval-interval {interval}"
            ": train a new run, or first finish it as it was begun",
        )

    def make_optimizer(self) -> torch.optim.Optimizer:
        """AdamW with a shorter memory of squares, since a text's gradients change (Brown et al. 2020); weight decay on
        matrices only, not on biases and norms. With Muon (Jordan et al. 2024) the blocks' matrices learn by that: the
        singular values of each update are about equal, its size is that of AdamW's (Liu et al. 2025)."""
        rate, decay = self.config.learning_rate, self.config.weight_decay
        by_muon = [p for p in self.model.h.parameters() if p.ndim == 2 and self.config.uses("muon")]
        rest = [p for p in self.model.parameters() if all(p is not other for other in by_muon)]
        groups = [
            {"params": [p for p in rest if p.ndim >= 2], "weight_decay": decay},
            {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        ]
        adam = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99), fused=True)
        if not by_muon:
            return adam
        known = hasattr(torch.optim, "Muon")
        require(known, f"torch {torch.__version__} has no Muon; use torch 2.9 or newer, or add --without muon")
        return Together(adam, torch.optim.Muon(by_muon, rate, decay, adjust_lr_fn="match_rms_adamw"))

    def train_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """A step, after which the average takes a part of the new weights in."""
        metrics = super().train_step(batch)
        if self.average is not None:
            self.average.update_parameters(self.model)
        return metrics

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside ``with``, the model is that of the averaged weights, where there are any."""
        model, compiled = self.model, self.compiled
        if self.average is not None:
            self.model = self.compiled = self.average.module
        try:
            yield
        finally:
            self.model, self.compiled = model, compiled

    def amount(self, batches: RandomWindows | ConsecutiveWindows) -> tuple[int, str]:
        """The tokens of a text."""
        if isinstance(batches, RandomWindows):
            return len(batches.tokens), "tokens"
        return sum(targets.numel() for _, targets in batches.batches), "tokens"

    def evaluate(self, batches: ConsecutiveWindows) -> dict[str, float]:
        """Loss and accuracy by token, perplexity, and bits per character; of the averaged weights, if there are any."""
        with self.averaged():
            metrics = super().evaluate(batches)
        return metrics | text_measures(metrics["loss"], batches.characters_per_token)

    def end_epoch(self, validation: dict[str, float]) -> None:
        """Take down the stretch, with a text that the model writes at this moment."""
        if self.log.writer is not None:
            with self.averaged():
                self.log.text("sample", self.sample(self.epoch + 1), self.epoch + 1)
        super().end_epoch(validation)

    def _save_best(self) -> None:
        with self.averaged():
            super()._save_best()

    def test(self, batches: ConsecutiveWindows) -> dict[str, Any]:
        """As every Trainer does; the best weights are averages already."""
        self.average = None
        return super().test(batches)

    def report(self, batches: Iterable) -> dict[str, Any]:
        """A text that the tested model writes."""
        return {"sample": self.sample(0)}

    def sample(self, number: int) -> str:
        """A text drawn with random numbers of its own: training is not disturbed."""
        generator = torch.Generator(self.device).manual_seed(number)
        start = torch.tensor([self.prompt], device=self.device)
        tokens = self.model.generate(start, SAMPLE_TOKENS, top_p=0.95, generator=generator)
        return self.tokenizer.decode(tokens[0].tolist()).lstrip("\n")

    def log_first_batch(self, batch: tuple[Tensor, Tensor]) -> None:
        """The network's graph, and the first windows as text, in TensorBoard."""
        super().log_first_batch(batch)
        if self.log.writer is not None:
            windows = [self.tokenizer.decode(row) for row in batch[0][:4].tolist()]
            self.log.text("first batch/train", "\n---\n".join(windows), 0)
