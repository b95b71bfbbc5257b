"""The Trainer that all three labs share: one loop in reading order, stopped anywhere and resumed exactly."""

import contextlib
import math
import signal
import time
from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from lab1.engine import distributed
from lab1.engine.config import Diverged, Interrupted, TrainConfig, require
from lab1.engine.devices import find_device
from lab1.engine.figures import confusion_figure
from lab1.engine.finished import shown
from lab1.engine.logbook import tagged
from lab1.engine.metrics import Averages, by_class, classification_loss, confusion_matrix, in_words
from lab1.engine.optimizer import bare_step, spare_the_compiler
from lab1.engine.registry import load_weights
from lab1.engine.run import Run
from lab1.engine.signals import StopSignals

HOUSEKEEPING_SECONDS = 0.2  # how often the loop looks at the losses, the progress bar and the clock
SHOWN_MISTAKES = 64  # wrongly classified images in TensorBoard, at most
SAVE_SECONDS = 300  # a checkpoint is due after this long, besides the one at the end of each epoch


def warmup_cosine(step: int, total_steps: int, warmup_steps: int) -> float:
    """The learning rate at a step (from 0), as a share of its peak: a linear rise, then half a cosine down to zero
    (Loshchilov & Hutter 2017)."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, total_steps - warmup_steps)))


class Trainer(Run):
    """Trains a model: epochs of ``train_step``, validation, TensorBoard, checkpoints, early stopping, one test.

    A lab overrides ``loss``, or ``logits`` or ``criterion`` alone; ``make_optimizer``, ``weight``, ``learning_rate``,
    ``report`` and ``illustrate`` where it must. The batches are any iterable of ``(inputs, targets)``; one with
    ``epoch(number, start)``, such as ``lab1.images.batches.Batches``, resumes exactly in the middle of an epoch.
    """

    counted = "examples"  # what ``weight`` counts
    max_gradient_norm: float | None = None  # gradients are scaled down to this norm; None leaves them
    chosen_by = "loss"  # the metric of validation that chooses the best weights: the loss, or accuracy

    def __init__(self, model: nn.Module, config: TrainConfig, about: dict[str, Any] | None = None):
        """Args:
        model: any network that returns logits ``[B, K]``; for scripts to load it again see ``lab1.engine.registry``.
        config: see ``lab1.engine.config``.
        about: what ``best.pt`` says of the data: ``dataset``, ``classes``, ``mean``, ``std`` (see ``about_data``).
        """
        self.config, self.about = config, about or {}
        self.device = find_device(config.device)
        distributed.start(self.device)
        self.model = distributed.shared_statistics(model, self.device).to(self.device)
        if not config.compile:
            spare_the_compiler()
        self.compiled = torch.compile(self.model) if config.compile else self.model
        self.network = DistributedDataParallel(self.compiled) if distributed.world_size() > 1 else self.compiled
        if distributed.rank() > 0:
            torch.manual_seed(config.seed + 1_000_003 * distributed.rank())  # other dropout than the first process's
        self.optimizer = self.make_optimizer()
        self.optimizer_step = self.optimizer.step if config.compile else bare_step(self.optimizer)
        bf16 = config.precision == "bf16"
        self.autocast = torch.autocast(self.device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()
        self.epochs = min(config.epochs, 2) if config.dry_run else config.epochs

        self.epoch = self.batch = self.step = 0  # epochs done; batches done in this epoch; steps done in all
        self.steps_per_epoch = 0
        self.averages = Averages()
        self.history: list[dict[str, Any]] = []
        self.forget_best()
        self.seconds = self.epoch_seconds = 0.0  # of training, in the epochs done and in this one
        self.mistakes: list[Tensor] = []  # images of the test set that were taken for another class
        self.signals, self.stop_signal = StopSignals(), 0  # what this process is told; what all processes act on
        self.save_due, self.save_now = math.inf, False

    # What a lab may override.

    def loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one batch, to be minimised, and further metrics, each a scalar mean over the batch."""
        inputs, targets = batch
        return self.criterion(self.logits(inputs), targets.to(self.device, non_blocking=True))

    def logits(self, inputs: Tensor) -> Tensor:
        """The model on the inputs of a batch, in the precision that was asked for: ``[B, K]``."""
        with self.autocast:
            return self.forward(inputs.to(self.device, non_blocking=True))

    def criterion(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What ``loss`` makes of logits ``[B, K]`` and targets ``[B]``."""
        return classification_loss(logits, targets)

    def weight(self, batch: tuple[Tensor, Tensor]) -> int:
        """What a batch counts for in a mean: its examples (or, for a language model, its tokens)."""
        return len(batch[1])

    def make_optimizer(self) -> torch.optim.Optimizer:
        """AdamW (Loshchilov & Hutter 2019), fused into one kernel."""
        rate, decay = self.config.learning_rate, self.config.weight_decay
        return torch.optim.AdamW(self.model.parameters(), lr=rate, weight_decay=decay, fused=True)

    def total_steps(self) -> int:
        """The steps of the whole run, if it is not stopped early."""
        return self.epochs * self.steps_per_epoch

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0: warm-up over the first twentieth, then a cosine to zero."""
        total = self.total_steps()
        return self.config.learning_rate * warmup_cosine(step, total, total // 20)

    def report(self, batches: Iterable) -> dict[str, Any]:
        """What ``test`` should say beyond the metrics; here, where the classes have names, how each of them fares (see
        ``by_class``)."""
        if "classes" not in self.about:
            return {}
        classes = self.about["classes"]
        confusion = torch.zeros(len(classes), len(classes))
        self.model.eval()
        with torch.no_grad():
            for inputs, labels in batches:
                labels, predicted = labels.cpu(), self.logits(inputs).argmax(1).cpu()
                confusion += confusion_matrix(predicted, labels, len(classes))
                if isinstance(inputs, Tensor) and inputs.ndim == 4:
                    self.mistakes.append(inputs.cpu()[predicted != labels])
        counts = torch.tensor(distributed.total(confusion.flatten().tolist())).view_as(confusion).long()
        return by_class(counts, classes)

    def illustrate(self, test: dict[str, Any]) -> None:
        """The confusion matrix, in the run's folder and in TensorBoard; and there also the macro F1 and, of images,
        those that were taken for another class."""
        if "confusion" not in test:
            return
        self.log.scalars({"macro f1/test": test["macro_f1"]}, self.epoch)
        figure = confusion_figure(np.array(test["confusion"]), self.about["classes"])
        figure.savefig(self.folder / "confusion.png", dpi=120)
        self.log.figure("confusion matrix/test", figure, self.epoch)
        if self.mistakes:
            self.log.images("mistakes/test", torch.cat(self.mistakes)[:SHOWN_MISTAKES], self.epoch)

    def clip_gradients(self, norm: float) -> None:
        """Scale the gradients down to this norm, over all parameters, where theirs is greater."""
        nn.utils.clip_grad_norm_(self.model.parameters(), norm)

    def clock(self) -> int:
        """What TensorBoard shows things over: the epochs done."""
        return self.epoch

    def where(self) -> str:
        """How far the run is, as people read it."""
        return f"in epoch {self.epoch + 1}, after step {self.step}"

    # One unit of learning.

    def forward(self, inputs: Tensor) -> Tensor:
        """The model on a batch, compiled and data-parallel where asked for; evaluation shares no gradients."""
        return (self.network if self.model.training else self.compiled)(inputs)

    def train_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Forward, loss, backward, clip, step. Returns the batch's metrics, still on the device."""
        rate = self.learning_rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1)
        loss, metrics = self.loss(batch)
        self.optimizer.zero_grad()
        share = self._agree(self._weight(batch))
        (loss if share == 1 else loss * share).backward()
        if self.max_gradient_norm is not None:
            self.clip_gradients(self.max_gradient_norm)
        self.optimizer_step()
        self.step += 1
        return {"loss": loss.detach(), **metrics}

    def _weight(self, batch: tuple[Tensor, Tensor]) -> int:
        return 0 if isinstance(batch, distributed.StandIn) else self.weight(batch)

    def _agree(self, weight: float = 1.0) -> float:
        """What all processes must know alike: whether to stop or to save after this step; and this one's share.

        Returns what to scale this process's loss by, so that the mean over the processes' gradients is that of the
        whole batch however it was divided: 1 for a single process, 0 for a ``StandIn``.
        """
        self.stop_signal, self.save_now = self.signals.received, time.monotonic() >= self.save_due
        if distributed.world_size() == 1:
            return 1.0
        whole, stop, save = distributed.total([weight, self.stop_signal > 0, distributed.rank() == 0 and self.save_now])
        self.stop_signal, self.save_now = (self.stop_signal or signal.SIGTERM) if stop else 0, bool(save)
        return weight * distributed.world_size() / whole

    # The loop.

    def train(self, train_batches: Iterable, val_batches: Iterable) -> list[dict[str, Any]]:
        """Train until ``epochs`` or until ``patience`` runs out; returns the history, an entry an epoch.

        Raises:
            Interrupted: after SIGINT or SIGTERM, once the step is finished and the run saved.
            Diverged: where a loss is not finite; the last good checkpoint stays.
        """
        self.steps_per_epoch = len(train_batches)
        require(self.steps_per_epoch > 0, "there is nothing to train on: no example")
        self.open(self.task(train_batches, val_batches))
        with self.signals, self._progress() as bar:
            while not self.finished():
                self.train_epoch(train_batches, bar)
                self.end_epoch(self.evaluate(val_batches))
                if self.finished() and self.epoch < self.epochs:
                    self.say(
                        f"stopped early after epoch {self.epoch}: {self.config.patience} "
                        f"epoch{'s' * (self.config.patience > 1)} without a better validation {self.chosen_by}; "
                        f"epoch {self.best_epoch} is the best"
                    )
                self._agree()
                if self.stop_signal:
                    raise Interrupted(self.stop_signal, self.folder)
        return self.history

    def finished(self) -> bool:
        """Whether the last epoch is done, or ``patience`` epochs brought no better validation loss (or accuracy)."""
        patience = self.config.patience
        return self.over or self.epoch >= self.epochs or (0 < patience <= self.epoch - self.best_epoch)

    def train_epoch(self, batches: Iterable, bar: tqdm) -> None:
        """The rest of one epoch: all of it, or from where a checkpoint left off."""
        self.network.train()
        began, next_look = time.monotonic(), 0.0
        self.save_due = began + SAVE_SECONDS
        for batch in epoch_of(batches, self.epoch, self.batch):
            if self.step == 0:
                self.log_first_batch(batch)
            self.averages.add(self.train_step(batch), self._weight(batch))
            self.batch += 1
            now = time.monotonic()
            if now >= next_look or self.stop_signal or self.save_now:
                next_look = now + HOUSEKEEPING_SECONDS
                self._look(bar)
            if self.stop_signal or self.save_now:
                self.epoch_seconds, began, self.save_due = self.epoch_seconds + now - began, now, now + SAVE_SECONDS
                self.save()
            if self.stop_signal:
                raise Interrupted(self.stop_signal, self.folder)
        self._look(bar)
        distributed.share_buffers(self.model)
        self.epoch_seconds += time.monotonic() - began

    def _look(self, bar: tqdm) -> None:
        """Read the losses since the last look, stop at one that is not finite, move the progress bar."""
        losses = self.averages.read()
        for place, loss in enumerate(losses):
            if not math.isfinite(loss):
                step = self.step - len(losses) + place + 1
                raise Diverged(
                    f"the loss is {loss} at step {step}, in epoch {self.epoch + 1}; a lower --learning-rate often helps"
                )
        if losses and not bar.disable:
            bar.set_postfix_str(f"epoch {self.epoch + 1}/{self.epochs}, loss {losses[-1]:.4f}", refresh=False)
            bar.update(self.step - bar.n)

    def end_epoch(self, validation: dict[str, float]) -> None:
        """Take down one epoch: history, best weights, TensorBoard, checkpoint. Without validation the last are best."""
        train, rate = self.averages.means(), self.learning_rate(self.step - 1)
        speed = self.averages.totals()[1] / max(self.epoch_seconds, 1e-9)
        self.seconds, self.epoch_seconds = self.seconds + self.epoch_seconds, 0.0
        self.epoch, self.batch, self.averages = self.epoch + 1, 0, Averages()
        self.history.append({"epoch": self.epoch, "learning_rate": rate, "train": train, "validation": validation})
        chosen_by = -float(self.epoch)
        if validation:
            chosen_by = validation["loss"] if self.chosen_by == "loss" else -validation[self.chosen_by]
        better = chosen_by < self.best_loss
        if better:
            self.best_epoch, self.best_loss = self.epoch, chosen_by
            self._save_best()
        points = tagged(train, "train") | tagged(validation, "validation")
        points |= {"update/learning rate": rate, f"speed/{self.counted} per second": speed}
        self.log.scalars(points, self.epoch)
        self.log.flush()
        self.save()
        held_out = f"  validation {in_words(validation)}{'  *' * better}" if validation else ""
        self.say(f"epoch {self.epoch:3d}  train {in_words(train)}{held_out}")

    @torch.no_grad()
    def evaluate(self, batches: Iterable) -> dict[str, float]:
        """Mean loss and metrics over all batches; the mode (training or evaluation) is what it was before."""
        training, averages = self.model.training, Averages()
        self.model.eval()
        for batch in batches:
            loss, metrics = self.loss(batch)
            averages.add({"loss": loss, **metrics}, self.weight(batch))
        self.model.train(training)
        return averages.means()

    def test(self, batches: Iterable) -> dict[str, Any]:
        """Evaluate the best weights on the test set, once; writes ``results.json``. A run that was tested already and
        did not train since returns what was found then."""
        if (before := self.tested()) is not None:
            return before
        if self.best_epoch == 0:
            raise Diverged("the validation loss was finite after no epoch; a lower --learning-rate often helps")
        load_weights(self.model, self.folder / "best.pt", self.device)
        metrics = self.evaluate(batches)
        test = metrics | self.report(batches)
        self.end(test, tagged(metrics, "test"))
        chosen = "best" if self.history[-1]["validation"] else "last"
        self.say(f"{chosen} epoch {self.best_epoch}: test {in_words(metrics)}   ({self.seconds:.1f} s of training)")
        self.say(f"{shown(self.folder)} holds the run; curves: tensorboard --logdir {shown(self.folder.parent)}")
        return test

    # What people see.

    def task(self, train_batches: Iterable, val_batches: Iterable) -> str:
        """What is learned, as people read it: ``mnist (55,000 images to learn from, 5,000 for validation)``."""
        count, unit = self.amount(train_batches)
        held_out = ""
        with contextlib.suppress(TypeError):  # batches that do not know how many they are
            examples = self.amount(val_batches)[0]
            held_out = f", {examples:,} for validation" if examples else ", none held out"
        return f"{self.about.get('dataset', 'its data')} ({count:,} {unit} to learn from{held_out})"

    def amount(self, batches: Iterable) -> tuple[int, str]:
        """How much there is in batches, and what it is counted in: examples, or batches where they tell no more."""
        examples = getattr(batches, "labels", getattr(batches, "dataset", None))
        if not isinstance(examples, Sized):
            return len(batches), "batches"
        limit = getattr(batches, "limit", None)
        count = len(examples) if limit is None else min(len(examples), limit * batches.batch_size)
        return count, "images" if hasattr(batches, "images") else self.counted

    def log_first_batch(self, batch: tuple[Tensor, Tensor]) -> None:
        """The network's graph and the first batch of images, as the network sees it, in TensorBoard."""
        inputs = batch[0].to(self.device)
        self.log.graph(self.model, inputs[:1])
        if inputs.ndim == 4:
            self.log.images("first batch/train", inputs[:64], 0)

    def _progress(self) -> tqdm:
        return self.bar(self.total_steps(), self.step)


def epoch_of(batches: Iterable, epoch: int, start: int) -> Iterator:
    """The batches of one epoch from number ``start`` on, of ``Batches`` or of any other iterable."""
    if hasattr(batches, "epoch"):
        return batches.epoch(epoch, start)
    return islice(iter(batches), start, None)
