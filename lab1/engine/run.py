"""A run on disk: its folder opened or gone on with, checkpoints of everything, the best weights, the results."""

import contextlib
import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from lab1.engine import checkpoint, distributed, finished, logbook, workers
from lab1.engine.config import Interrupted, UsageError, require
from lab1.engine.files import MISFITS, reason
from lab1.engine.files import in_words as kind_of
from lab1.engine.metrics import Averages, in_words
from lab1.engine.registry import check, describe
from lab1.engine.unfinished import find_unfinished, is_tested, read_settings


class Run:
    """What a Trainer keeps of itself in ``folder``: ``config.json``, ``last.pt`` and ``previous.pt`` (from which it
    resumes), ``best.pt``, ``results.json`` and TensorBoard's event file. The fields are the Trainer's.
    """

    folder: Path | None = None
    over = False  # whether it was resumed though it is finished: its results stand, and nothing of it is touched
    charted = ("loss", "accuracy")  # what TensorBoard shows of training beside validation
    counted_by = ("--batch-size",)  # flags that what is done goes by: its steps are counted in batches

    def settings(self) -> dict[str, Any]:
        """What ``config.json`` holds."""
        return self.config.as_dict()

    def open(self, task: str = "its data") -> None:
        """Make the run's folder and say what begins there; or go on in the one to resume, from its newest good
        checkpoint, unless it is finished.

        Args:
            task: what is learned, as people read it: "mnist (55,000 images to learn from, 5,000 for validation)".

        Raises:
            UsageError: where the network was made with something that no file can hold, or the run cannot go on.
        """
        if self.folder is not None:
            return
        self.config.resume = self._to_resume()
        resumed = self.config.resume is not None
        if resumed:
            self.folder = Path(self.config.resume)
            self._resume()
        if not self.over and (note := check(self.model)) is not None:
            self.say(note)
        if not resumed:
            if distributed.rank() == 0:
                self.folder = logbook.new_run_folder(self.config.runs_folder(), self.config.run_name(), self.settings())
                distributed.note(self.config.run_name(), str(self.folder))
            self.folder = Path(distributed.from_first_process(str(self.folder)))
            self.say(f"{self._network_in_words()} on {task}, {self._place_in_words()}")
        first = distributed.rank() == 0 and not self.over
        begins = self.step == self.clock() == 0  # also where it was stopped before its first checkpoint
        if first and begins:
            logbook.forget(self.folder)
        self.log = logbook.Logbook(self.folder, self.clock() + 1 if resumed else None, enabled=first)
        if first and resumed:
            if not begins:
                finished.note_flags(self.config, self.folder, *self.lasted())
            logbook.write_json(self.settings(), self.folder / "config.json")
        if first and begins:
            self.log.configuration(self.settings(), self.charted)

    def save(self) -> None:
        """Write a checkpoint of everything that the rest of the run depends on."""
        sums, weight = self.averages.totals()
        random_states = distributed.from_every_process(checkpoint.random_states())
        if distributed.rank() > 0:
            return
        content = {
            "weights": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random_states": random_states,
            "sums": sums,
            "weight": weight,
            "about": self.about,
            "model": describe(self.model),
        }
        content |= {name: getattr(self, name) for name in PROGRESS}
        content |= self.more_state()
        self.log.flush()  # a run that goes on from here logs nothing of this again
        checkpoint.save_newest(content, self.folder)

    def _to_resume(self) -> str | None:
        """The run to go on with: of processes that torchrun started again, the one that those before them began; or
        what ``--resume`` names, or auto finds."""
        found, config = self.config.resume, self.config
        if distributed.rank() == 0:
            begun = distributed.noted(config.run_name())
            found = begun or (find_unfinished(config, partial(is_tested, config)) if found == "auto" else found)
        return distributed.from_first_process(found)

    def _network_in_words(self) -> str:
        count = sum(parameter.numel() for parameter in self.model.parameters())
        return f"{type(self.model).__name__} with {count:,} parameters"

    def _place_in_words(self) -> str:
        count = distributed.world_size()
        several = f" in {count} processes" if count > 1 else ""
        return f"{self.device}{several}, {self.config.precision} -> {finished.shown(self.folder)}"

    def _resume(self) -> None:
        self.over = finished.stands(self.config) is not None
        if self.over:
            return
        restored = self._restore()
        results = finished.read_results(self.config, self.folder) or {}
        # A run that was made longer and stopped before its new test still has the results of the shorter one.
        done = results.get("steps", results.get("epochs"))
        self.over = self.finished() and "test" in results and done == self.clock()
        shown = finished.shown(self.folder)
        if self.over:
            changed = ", ".join(finished.changed_flags(self.config, self.folder))
            stopped = getattr(self.config, "patience", 0) > 0 and self.epoch < self.epochs
            early = ", or --patience 0 to let this one go on, which stopped early" if stopped else ""
            require(
                not changed,
                f"{shown} is finished and tested, so {changed} would change nothing in it; leave out --resume to train "
                f"a new run{early}",
            )
            self.say(f"{shown} is finished and tested: test {in_words(results['test'])}")
        elif restored:
            changed = finished.changed_flags(self.config, self.folder)
            counted = ", ".join(flag for flag in changed if flag.split()[0] in self.counted_by)
            again = "leave out --resume to train a new run"
            require(not counted, f"{counted}: {shown} has gone by another so far; {again}")
            trained = self.finished()
            self.say(f"{shown} has been trained, and is tested now" if trained else f"resuming {shown} {self.where()}")

    def _restore(self) -> bool:
        """Put back all that the newest checkpoint holds; whether there is one.

        Raises:
            UsageError: where the run cannot be gone on with as it is asked.
        """
        content = checkpoint.load_newest(self.folder)  # on the CPU: MPS could not hold the float64 in it
        if content is None:
            self.say(f"{self.folder} stopped before its first checkpoint: it starts again")
            return False
        changed = finished.changed_flags(self.config, self.folder)
        mixed = [flag for flag in changed if flag.split()[0] in LEARNED_FROM]
        about = content.get("about")  # older checkpoints do not have it
        told = set(DATA) & set(self.about) & set(about if isinstance(about, dict) else ())
        if not all(_alike(about[name], self.about[name]) for name in told):
            mixed = mixed or ["other files"]
        require(
            not mixed,
            f"{', '.join(mixed)}: {finished.shown(self.folder)} was begun with other data, and its results would be of "
            "a mixture; leave out --resume to train a new run",
        )
        try:
            # Networks of different kinds may have parameters of the same names and shapes.
            if not _same_network(content.get("model"), describe(self.model)):
                raise ValueError("it was made otherwise")
            self.model.load_state_dict(content["weights"])
            self.optimizer.load_state_dict(content["optimizer"])
            for name in PROGRESS:
                self._put_back(name, content[name])
            self.restore_more(content)
            self._check_best()
            if distributed.rank() == 0:
                self.averages = Averages(content["sums"], content["weight"])
            if distributed.rank() < len(content["random_states"]):
                checkpoint.restore_random_states(content["random_states"][distributed.rank()])
        except MISFITS as error:
            why = f"it was begun without {', '.join(changed)}" if changed else reason(error)
            raise UsageError(f"{self.folder} does not fit this network: {why}") from None
        flag, done = self.lasted()
        asked = getattr(self.config, flag)
        require(
            asked >= done or asked == read_settings(self.folder).get(flag),
            f"{finished.shown(self.folder)} has done {done} {flag} already, so --{flag} {asked} is too few",
        )
        return True

    def forget_best(self) -> None:
        """From here on any weights are better, and patience counts from here. The best loss is the negative accuracy
        where that chooses."""
        self.best_epoch, self.best_loss = self.epoch, math.inf

    def _check_best(self) -> None:
        """Where the best weights are of an epoch after this checkpoint, as in a run that was killed between the two, or
        fell back on the one before, what is to come decides alone: the weights that were best before are gone."""
        with contextlib.suppress(FileNotFoundError, checkpoint.BrokenCheckpoint):
            best = checkpoint.load(self.folder / "best.pt")
            if best.get("epoch", best.get("step", 0)) > self.clock():
                self.forget_best()

    def _put_back(self, name: str, value: Any) -> None:
        number = (int, float)
        kind = number if isinstance(getattr(self, name), number) else type(getattr(self, name))
        if not isinstance(value, kind):
            raise TypeError(f"its {name} is {kind_of(value)}")
        setattr(self, name, value)

    def _save_best(self) -> None:
        if distributed.rank() == 0:
            content = {"model": describe(self.model), "weights": self.model.state_dict(), "about": self.about}
            checkpoint.save(content | {"epoch": self.epoch, "loss": self.best_loss}, self.folder / "best.pt")

    def lasted(self) -> tuple[str, int]:
        """The flag that says how long the run is, and how much of that is done."""
        return "epochs", self.epoch

    def more_state(self) -> dict[str, Any]:
        """What a checkpoint must hold beyond the Trainer's own fields: tensors and plain values by name."""
        return {}

    def restore_more(self, content: dict[str, Any]) -> None:
        """Put back what ``more_state`` returned; it stands among the rest of the checkpoint's content."""

    def tested(self) -> dict[str, Any] | None:
        """What the test found, of a run that was resumed though it is finished; None of any other."""
        return finished.read_results(self.config, self.folder)["test"] if self.over else None

    def outcome(self) -> dict[str, Any]:
        """What ``results.json`` says of how the training went."""
        return {
            "epochs": self.epoch,
            "best_epoch": self.best_epoch,
            "seconds": round(self.seconds, 2),
            "validation": self.history[self.best_epoch - 1]["validation"],
        }

    def illustrate(self, test: dict[str, Any]) -> None:
        """Pictures of what ``test`` says, in the run's folder and in TensorBoard. A Trainer overrides it."""

    def end(self, test: dict[str, Any], points: dict[str, float]) -> None:
        """Write what the test found: points and pictures, then ``results.json``, by which a run is known to be
        finished. One that is killed before is tested again, and writes all of it anew."""
        if distributed.rank() == 0:
            try:
                self.log.close()
                self.log = logbook.Logbook(self.folder, test=True)
                self.log.end(self.settings(), points, self.clock())
                self.illustrate(test)
                self.log.close()
            except Interrupted:
                raise
            except Exception:
                self._write_results(test)  # no picture can cost them
                raise
            self._write_results(test)

    def _write_results(self, test: dict[str, Any]) -> None:
        results = {
            "script": logbook.script_name(self.config),
            "config": self.settings(),
            "dataset": self.about.get("dataset"),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            **self.outcome(),
            "test": test,
            **self._earlier(),
            "history": self.history,
            "environment": logbook.environment(self.device),
        }
        logbook.write_results(results, self.folder / "results.json")

    def _earlier(self) -> dict[str, Any]:
        """``resumed`` of a run that was gone on with with other flags: those that it had before. And ``earlier_tests``
        of one that was tested before: whoever chooses its length by them has chosen on the test set."""
        flags = finished.earlier_flags(self.folder)
        before = finished.read_results(self.config, self.folder) or {}
        tests, unit = list(before.get("earlier_tests", [])), "steps" if "steps" in before else "epochs"
        if "test" in before and before.get(unit) != self.clock():
            numbers = {name: value for name, value in before["test"].items() if isinstance(value, int | float)}
            tests.append({unit: before.get(unit), "test": numbers})
            self.say(f"this run was tested before, after {unit[:-1]} {before.get(unit)}; results.json keeps both tests")
        return ({"resumed": flags} if flags else {}) | ({"earlier_tests": tests} if tests else {})

    def bar(self, total: int, done: int) -> tqdm:
        """A progress bar; one below the other where runs are made side by side."""
        return tqdm(
            total=total,
            initial=done,
            unit=" steps",
            desc=self.folder.name if workers.number else None,
            position=workers.number or None,
            disable=None if distributed.rank() == 0 else True,  # None: no bar where standard error is no terminal
            leave=False,
        )

    def say(self, line: str) -> None:
        """Print a line, from the first process alone, above the progress bar."""
        if distributed.rank() == 0:
            with contextlib.suppress(BrokenPipeError):  # whoever read it has left, as ``head`` does: the run goes on
                tqdm.write(line)
                sys.stdout.flush()  # at once, also where another program or a file takes it


def _alike(one: Any, other: Any) -> bool:
    """Whether what was noted is the same; means and deviations may be rounded otherwise on another machine."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-3)
    return one == other


def _same_network(before: Any, now: dict[str, Any]) -> bool:
    """Whether a checkpoint's network is this one, as far as it tells: older checkpoints do not, and a class may have
    got arguments since. A number such as the dropout may change, as any flag may; and what other libraries write into
    a dictionary changes with their version."""
    if not isinstance(before, dict):
        return True
    told, arguments = before.get("arguments") or {}, now["arguments"] or {}
    free = {name for each in (told, arguments) for name, value in each.items() if isinstance(value, float | dict)}
    kept = (set(told) & set(arguments)) - free
    return before["class"] == now["class"] and all(_alike(told[name], arguments[name]) for name in kept)


# Flags that say what is learned from, and with what it is measured: split and order, too, come from the seed.
LEARNED_FROM = (
    *("--seed", "--dataset", "--train-images", "--validation-images", "--train-canvases"),
    *("--text", "--tokenizer", "--env", "--dry-run"),
)
# What tells of ``about`` whether data are the same.
DATA = ("dataset", "classes", "mean", "std", "checksum")
# What a checkpoint holds of the Trainer's own fields.
PROGRESS = ("epoch", "batch", "step", "history", "best_epoch", "best_loss", "seconds", "epoch_seconds")
