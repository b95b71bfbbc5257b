"""Whatever the files of a run hold, what reads them returns or refuses in one line: random damage, always the same."""

import contextlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib import pyplot

from lab1 import models, train_mlp
from lab1 import plot as lab1_plot
from lab1.engine import checkpoint
from lab1.engine.config import RunFailed, UsageError
from lab1.engine.figures import draw, read_runs
from lab1.engine.finished import stands
from lab1.engine.launch import parse
from lab1.engine.series import read_entries
from lab1.images.batches import ABOUT
from lab1.models import MLP
from lab1.sweep_depth import summary
from lab1.trainer import Trainer
from lab2 import models as gpt_models
from lab2.language import tokens
from lab2.tasks.runs import classification_table
from lab3.environments.agent import load_agent

CLEAN = (UsageError, RunFailed)
JUNK = (None, True, -1, 0, 3, 10**30, 0.5, float("nan"), float("inf"), "", "text", "../..", [], [1, 2], {}, {"a": []})
TENSORS = (torch.zeros(0), torch.zeros(3, 2), torch.full((4,), float("nan")), torch.zeros(2, dtype=torch.bool))


def altered(content: Any, rng: random.Random, junk: tuple) -> Any:
    """The same with one thing in it replaced, left out or added, at random depth."""
    if isinstance(content, dict) and content and rng.random() < 0.9:
        key = rng.choice(list(content))
        if rng.random() < 0.15:
            return {name: value for name, value in content.items() if name != key}
        if rng.random() < 0.05:
            return content | {"unknown": rng.choice(junk)}
        return content | {key: altered(content[key], rng, junk)}
    if isinstance(content, list) and content and rng.random() < 0.7:
        place = rng.randrange(len(content))
        return [*content[:place], altered(content[place], rng, junk), *content[place + 1 :]]
    return rng.choice(junk)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The same bytes, cut short, or some of them changed."""
    if rng.random() < 0.4:
        return content[: rng.randrange(len(content) + 1)]
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 5, 50))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def damage(folder: Path, rng: random.Random) -> str:
    """Something wrong with one file of a run's folder; returns which."""
    path = rng.choice([path for path in sorted(folder.iterdir()) if path.suffix in (".pt", ".json")])
    kind = rng.random()
    if kind < 0.6:  # whole, but with other content
        if path.suffix == ".pt":
            checkpoint.save(altered(checkpoint.load(path), rng, JUNK + TENSORS), path)
        else:
            path.write_text(
                json.dumps(altered(json.loads(path.read_text(encoding="utf-8")), rng, JUNK)), encoding="utf-8"
            )
    elif kind < 0.8:
        path.write_bytes(damaged(path.read_bytes(), rng))
    elif kind < 0.9:
        other = rng.choice([each for each in sorted(folder.iterdir()) if each != path])
        path.write_bytes(other.read_bytes())
    else:
        path.unlink()
        if rng.random() < 0.7:
            path.mkdir() if rng.random() < 0.5 else path.symlink_to(folder / "nowhere")
    return path.name


def ends_cleanly(read: Callable[[], Any]) -> bool:
    """Whether it returns; if not, it refuses in one line. Anything else it raises is a fault."""
    try:
        read()
    except CLEAN as error:
        assert len(str(error).splitlines()) == 1, str(error)
        return False
    return True


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run of train_mlp.py, with the results of a sweep, a table, a GPT and an agent beside it."""
    parent = tmp_path_factory.mktemp("runs")
    flags = dict(dataset="digits", hidden=(4,), epochs=2, batch_size=500, patience=0, device="cpu")
    train_mlp.main(train_mlp.Config(**flags, model_dir=parent, name="run"))
    folder = parent / "run"
    gpt, tokenizer = gpt_models.GPT(4, 8, 1, 1, 8), tokens.Characters("abc\n")
    about = {"dataset": "toy", "tokenizer": tokenizer.describe()}
    description = {"class": "GPT", "arguments": gpt.arguments}
    checkpoint.save({"model": description, "weights": gpt.state_dict(), "about": about}, folder / "gpt.pt")
    for name in ("confusion.png",):
        (folder / name).unlink()
    test = {"accuracy": 0.5, "macro_f1": 0.4, "trainable_parameters": 3}
    entry = {"depth": 2, "seed": 0, "residual": False, "parameters": 5, "macs": 7, "seconds": 1.0, "test": test}
    head = {"script": "lab1/sweep_depth.py", "config": {}, "dataset": "digits"}
    (folder / "sweep.json").write_text(json.dumps(head | {"runs": [entry, entry | {"seed": 1}]}), encoding="utf-8")
    config = {"method": ["tfidf"], "model": "m", "dry_run": False}
    head = {"script": "lab2/classify_text.py", "config": config, "dataset": "toy"}
    (folder / "table.json").write_text(json.dumps(head | {"seconds": 2.0, "test": test}), encoding="utf-8")
    return folder


def resume(folder: Path) -> None:
    """All that --resume reads, up to the first step."""
    config = parse(train_mlp.Config, ["--resume", str(folder)], "")
    config.use("digits")  # as the script does: it fills in what a damaged file may lack
    if stands(config) is None:
        trainer = Trainer(MLP((784, *config.hidden, 10)), config, {"dataset": "digits"})
        trainer.epochs, trainer.steps_per_epoch = config.epochs, 3
        trainer.folder = folder
        trainer._resume()
        trainer.tested()


def readers(folder: Path) -> dict[str, Callable[[], Any]]:
    """Everything that reads a run, by the file that it reads first."""
    return {
        "resume": lambda: resume(folder),
        "best": lambda: models.load(folder / "best.pt", **ABOUT),
        "agent": lambda: load_agent(folder),
        "newest": lambda: checkpoint.load_newest(folder),
        "gpt": lambda: tokens.build(gpt_models.load(folder / "gpt.pt")[1].get("tokenizer")),
        "sweep": lambda: read_entries(folder / "sweep.json", "lab1/sweep_depth.py", summary),
        "figures": lambda: (draw(lab1_plot.figures_of, read_runs(folder.parent)), pyplot.close("all")),
        "table": lambda: classification_table(folder.parent, "toy", False),
    }


def test_undamaged_all_is_read(run, tmp_path):
    folder = Path(shutil.copytree(run, tmp_path / "runs" / "run"))
    read = {name: ends_cleanly(reader) for name, reader in readers(folder).items()}
    assert read == dict.fromkeys(read, True) | {"agent": False}  # a classifier is none


def campaign(run: Path, parent: Path, seeds: range, drawn_every: int) -> dict[str, int]:
    """Damage a run once for each seed and read it in every way; returns how often each way refused it."""
    refused = dict.fromkeys(readers(parent), 0)
    for seed in seeds:
        folder = parent / str(seed) / "run"
        shutil.copytree(run, folder)
        name = damage(folder, random.Random(seed))
        if name == "table.json":
            with contextlib.suppress(OSError):
                shutil.copy(folder / name, folder / "results.json")
        for reader, read in readers(folder).items():
            if reader == "figures" and seed % drawn_every:
                continue  # drawing takes a while
            try:
                refused[reader] += not ends_cleanly(read)
            except BaseException as error:
                error.add_note(f"seed {seed}: damaged {name}, read as {reader}")
                raise
        shutil.rmtree(folder.parent)
    return refused


@pytest.fixture(autouse=True)
def random_states():
    """What is resumed puts the random generators back to where it was: not those of the other tests."""
    states = checkpoint.random_states()
    yield
    checkpoint.restore_random_states(states)


def test_damaged_files_end_in_one_line(run, tmp_path, capsys):
    refused = campaign(run, tmp_path, range(120), drawn_every=15)
    assert all(refused[name] >= 3 for name in ("resume", "best", "gpt", "sweep")), refused
    assert refused["agent"] == 120
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_many_damaged_files_end_in_one_line(run, tmp_path):
    refused = campaign(run, tmp_path, range(1000, 3000), drawn_every=10)
    assert all(refused[name] >= 50 for name in ("resume", "best", "gpt", "sweep")), refused
