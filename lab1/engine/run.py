"""A run on disk: its folder opened or gone on with, checkpoints of everything, the best weights, the results."""

import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lab1.engine import checkpoint, distributed, logbook
from lab1.engine.config import UsageError
from lab1.engine.metrics import Averages, in_words
from lab1.engine.registry import describe


class Run:
    """What a Trainer keeps of itself in ``folder``: ``config.json``, ``last.pt`` and ``previous.pt`` (from which it
    resumes), ``best.pt``, ``results.json`` and TensorBoard's event file. The fields are the Trainer's.
    """

    folder: Path | None = None
    charted = ("loss", "accuracy")  # what TensorBoard shows of training beside validation

    def settings(self) -> dict[str, Any]:
        """What ``config.json`` holds."""
        return self.config.as_dict()

    def open(self) -> None:
        """Make the run's folder, or go on in the one to resume, from its newest good checkpoint."""
        if self.folder is not None:
            return
        resumed = self.config.resume is not None
        if resumed:
            self.folder = Path(self.config.resume)
            self._restore()
        elif distributed.rank() == 0:
            self.folder = logbook.new_run_folder(self.config.runs_folder(), self.config.run_name())
        self.folder = Path(distributed.from_first_process(str(self.folder)))
        over = self.finished() and (self.folder / "results.json").exists()
        first = distributed.rank() == 0 and not over
        self.log = logbook.Logbook(self.folder, self.clock() + 1 if resumed else None, enabled=first)
        if first:
            logbook.write_json(self.settings(), self.folder / "config.json")
            if not resumed:
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
        }
        content |= {name: getattr(self, name) for name in PROGRESS}
        content |= self.more_state()
        checkpoint.save_newest(content, self.folder)

    def _restore(self) -> None:
        content = checkpoint.load_newest(self.folder)  # on the CPU: MPS could not hold the float64 in it
        if content is None:
            self.say(f"{self.folder} stopped before its first checkpoint: it starts again")
            return
        try:
            self.model.load_state_dict(content["weights"])
            self.optimizer.load_state_dict(content["optimizer"])
            for name in PROGRESS:
                setattr(self, name, content[name])
            self.restore_more(content)
        except (KeyError, RuntimeError, ValueError) as error:
            raise UsageError(f"{self.folder} does not fit this network: {str(error).splitlines()[0]}") from None
        if distributed.rank() == 0:
            self.averages = Averages(content["sums"], content["weight"])
        if distributed.rank() < len(content["random_states"]):
            checkpoint.restore_random_states(content["random_states"][distributed.rank()])
        self.say(f"resuming {self.folder} {self.where()}")

    def _save_best(self) -> None:
        if distributed.rank() == 0:
            content = {"model": describe(self.model), "weights": self.model.state_dict(), "about": self.about}
            checkpoint.save(content | {"epoch": self.epoch, "loss": self.best_loss}, self.folder / "best.pt")

    def more_state(self) -> dict[str, Any]:
        """What a checkpoint must hold beyond the Trainer's own fields: tensors and plain values by name."""
        return {}

    def restore_more(self, content: dict[str, Any]) -> None:
        """Put back what ``more_state`` returned; it stands among the rest of the checkpoint's content."""

    def tested(self) -> dict[str, Any] | None:
        """What the test found, of a run that was tested already and did not train since; None of any other."""
        path = self.folder / "results.json"
        if self.trained or not path.exists():
            return None
        test = json.loads(path.read_text(encoding="utf-8"))["test"]
        self.say(f"{self.folder} is finished and tested: test {in_words(test)}")
        return test

    def outcome(self) -> dict[str, Any]:
        """What ``results.json`` says of how the training went."""
        return {
            "epochs": self.epoch,
            "best_epoch": self.best_epoch,
            "seconds": round(self.seconds, 2),
            "validation": self.history[self.best_epoch - 1]["validation"],
        }

    def _write_results(self, test: dict[str, Any]) -> None:
        results = {
            "script": logbook.script_name(self.config),
            "config": self.settings(),
            "dataset": self.about.get("dataset"),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            **self.outcome(),
            "test": test,
            "history": self.history,
            "environment": logbook.environment(self.device),
        }
        logbook.write_json(results, self.folder / "results.json")

    def say(self, line: str) -> None:
        """Print a line, from the first process alone, above the progress bar."""
        if distributed.rank() == 0:
            tqdm.write(line)


# What a checkpoint holds of the Trainer's own fields.
PROGRESS = ("epoch", "batch", "step", "history", "best_epoch", "best_loss", "seconds", "epoch_seconds")
