"""``--resume auto``: one command that can be issued again and again."""

import json
import signal
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lab1 import sweep_depth
from lab1.engine import series
from lab1.engine.config import Interrupted, TrainConfig, UsageError
from lab1.engine.launch import parse
from lab1.engine.workers import SeriesConfig
from lab1.trainer import Trainer


def run(folder: Path, stop_after: int | None = None, **flags) -> tuple[Path, str]:
    """Train on 20 examples, 5 steps an epoch, with ``--resume auto``; returns the folder and how it ended."""
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(20, 6, generator=generator), torch.randint(0, 3, (20,), generator=generator)
    batches = DataLoader(TensorDataset(inputs, labels), 4)
    torch.manual_seed(0)
    config = TrainConfig(**{"model_dir": folder, "epochs": 2, "device": "cpu", "resume": "auto"} | flags)
    trainer = Trainer(nn.Linear(6, 3), config, {"dataset": "noise", "classes": ["a", "b", "c"]})
    train_step = trainer.train_step

    def counted(batch):
        if trainer.step + 1 == stop_after:
            trainer.signals.received = signal.SIGTERM
        return train_step(batch)

    trainer.train_step = counted
    try:
        trainer.train(batches, batches)
        trainer.test(batches)
    except Interrupted:
        return trainer.folder, "stopped"
    return trainer.folder, "finished before" if trainer.over else "finished"


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_it_begins_goes_on_and_leaves_alone(tmp_path, capsys):
    first = tmp_path / "run-seed0"
    assert run(tmp_path, stop_after=3) == (first, "stopped")
    assert run(tmp_path, stop_after=7) == (first, "stopped")
    assert run(tmp_path) == (first, "finished")
    assert f"resuming {first} in epoch 2, after step 7" in capsys.readouterr().out
    before = snapshot(tmp_path)
    assert run(tmp_path) == (first, "finished before")
    assert "is finished and tested: test loss" in capsys.readouterr().out
    assert snapshot(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["run-seed0"]


def test_other_flags_of_an_unfinished_run_are_named(tmp_path):
    first, _ = run(tmp_path, stop_after=3)
    before = snapshot(tmp_path)
    with pytest.raises(UsageError) as refused:
        run(tmp_path, epochs=3, batch_size=64)
    assert str(refused.value) == (
        f"--resume auto: {first} is unfinished and has other flags than --epochs 3, --batch-size 64; give its own, "
        f"go on with --resume {first}, or choose another --name"
    )
    assert snapshot(tmp_path) == before
    assert run(tmp_path, device="auto", data_dir=tmp_path) == (first, "finished")  # where it computes does not count


def test_a_finished_run_with_other_flags_is_no_obstacle(tmp_path):
    first, second = tmp_path / "run-seed0", tmp_path / "run-seed0-2"
    assert run(tmp_path) == (first, "finished")
    assert run(tmp_path, epochs=3, stop_after=3) == (second, "stopped")
    assert run(tmp_path) == (first, "finished before")  # what was asked for is there, whatever is unfinished
    assert run(tmp_path, epochs=3) == (second, "finished")
    assert run(tmp_path, epochs=3) == (second, "finished before")


def test_the_newest_of_several_unfinished_ones(tmp_path):
    for number in range(1, 4):
        folder, _ = run(tmp_path, stop_after=number, resume=None)
    assert folder.name == "run-seed0-3"
    assert run(tmp_path) == (folder, "finished")
    assert run(tmp_path) == (tmp_path / "run-seed0-2", "finished")


def test_a_run_made_longer_is_unfinished_until_it_is_tested_again(tmp_path):
    folder, _ = run(tmp_path)
    assert run(tmp_path, stop_after=12, resume=str(folder), epochs=3) == (folder, "stopped")
    assert (folder / "results.json").exists()
    assert run(tmp_path, epochs=3) == (folder, "finished")


def test_what_is_no_run_of_this_name(tmp_path):
    other, _ = run(tmp_path, stop_after=3, name="mine-2")  # not the second one of the name "mine"
    foreign = tmp_path / "mine"
    foreign.mkdir()
    settings = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (foreign / "config.json").write_text(
        json.dumps(settings | {"name": "mine", "hidden": [3]}), encoding="utf-8"
    )  # another script's
    (tmp_path / "mine-4").mkdir()
    (tmp_path / "mine-5").mkdir()
    (tmp_path / "mine-5" / "config.json").write_text("[]", encoding="utf-8")
    assert run(tmp_path, name="mine") == (tmp_path / "mine-3", "finished")
    assert run(tmp_path, name="mine-2") == (other, "finished")


def test_results_that_cannot_be_read_are_named(tmp_path):
    folder, _ = run(tmp_path, stop_after=3)
    (folder / "results.json").write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match=f"{folder}.*cannot be read"):
        run(tmp_path)


def test_on_the_command_line_flags_are_checked_as_always(tmp_path):
    assert parse(TrainConfig, ["--resume", "auto", "--epochs", "3"], "") == TrainConfig(resume="auto", epochs=3)
    with pytest.raises(UsageError, match="--name 'a/b'"):
        parse(TrainConfig, ["--resume", "auto", "--name", "a/b"], "")


def test_series(tmp_path, capsys):
    def open_series(*flags: str):
        given = ["--family", "mlp", "--dataset", "digits", "--width", "8", "--resume", "auto", *flags]
        config = parse(sweep_depth.Config, [*given, "--model-dir", str(tmp_path)], "")
        config.dataset = "digits"
        folder, entries, plan, left = series.open_series(config, sweep_depth.networks)
        return folder, entries, left, config, plan

    def write(folder, entries, config):
        series.write_series("lab1/sweep_depth.py", config, torch.device("cpu"), folder, [], entries)

    small = "--depths", "2", "4", "--seeds", "0"
    folder, entries, left, config, plan = open_series(*small)
    assert (folder.name, entries, len(left)) == ("depth-mlp-digits", [], 4)
    write(folder, plan[:3], config)
    again, entries, left, *_ = open_series(*small)
    assert (again, entries, left) == (folder, plan[:3], plan[3:])
    with pytest.raises(UsageError, match="is unfinished and has other flags than --seeds 0 1;"):
        open_series("--depths", "2", "4", "--seeds", "0", "1")

    write(folder, plan, config)
    capsys.readouterr()
    assert open_series(*small)[:3] == (folder, plan, [])
    assert "is finished: its results.json stands" in capsys.readouterr().out
    more, entries, left, *_ = open_series("--depths", "2", "4", "--seeds", "0", "1")
    assert (more.name, entries, len(left)) == ("depth-mlp-digits-2", [], 8)

    # One that is resumed with further seeds keeps those that it had, and that are not done.
    *_, left, config, plan = open_series("--depths", "4", "6", "--seeds", "2", "1", "--resume", str(more))
    assert (config.depths, config.seeds) == ((2, 4, 6), (0, 1, 2))
    assert len(left) == len(plan) == 18


@pytest.mark.parametrize(
    ("flags", "others"),
    [
        (["--kinds", "plain"], ["--kinds", "plain", "residual"]),
        (["--rates", "0.1", "0.2"], ["--rates", "0.1", "0.2", "--epochs", "2"]),
        (["--tuned", "rates"], ["--tuned", "rates", "--epochs", "2"]),
    ],
)
def test_a_finished_series_of_any_sort_is_known_as_finished(tmp_path, flags, others):
    def open_series(*flags: str):
        given = ["--family", "mlp", "--dataset", "digits", "--depths", "2", "4", "--resume", "auto", *flags]
        config = parse(sweep_depth.Config, [*given, "--model-dir", str(tmp_path)], "")
        return (*series.open_series(config, sweep_depth.networks), config)

    made = {"parameters": 1, "macs": 1, "seconds": 1.0, "validation": {"accuracy": 0.5}}
    rated = [
        made | {"depth": 2, "residual": residual, "learning_rate": rate}
        for residual, rate in ((False, 0.1), (True, 0.2))
    ]
    (tmp_path / "rates").mkdir()
    for name, content in (("results", {"script": "lab1/sweep_depth.py", "runs": rated}), ("config", {"family": "mlp"})):
        (tmp_path / "rates" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    folder, _, plan, left, config = open_series(*flags)
    assert left == plan
    entries = [one | made for one in plan]
    series.write_series("lab1/sweep_depth.py", config, torch.device("cpu"), folder, [], entries)
    assert open_series(*flags)[0] == folder
    another, _, plan, left, _ = open_series(*others)
    assert another == folder.with_name(f"{folder.name}-2")
    assert left == plan


def test_a_series_that_left_its_number_format_to_a_cluster_goes_on_here(tmp_path):
    def open_series(precision: str, *flags: str):
        given = ["--family", "mlp", "--dataset", "digits", "--depths", "2", "--model-dir", str(tmp_path), *flags]
        config = parse(sweep_depth.Config, given, "")
        config.precision = precision
        return series.open_series(config, sweep_depth.networks)[0], config.precision

    folder, _ = open_series("auto")
    for flags in (["--resume", str(folder)], ["--resume", "auto"]):
        assert open_series("bf16", *flags) == (folder, "bf16")
        assert open_series("auto", *flags) == (folder, "bf16")  # and back
    with pytest.raises(UsageError, match="--precision: changed since"):
        open_series("fp32", "--resume", str(folder))


def test_a_series_on_a_cluster_leaves_device_and_number_format_to_its_jobs():
    config = SeriesConfig(cluster="slurm", device="cuda")
    config.precision = "auto"
    assert series.prepare_series(config) == torch.device("cpu")
    assert config.precision == "auto"
    config.cluster, config.device = None, "cpu"
    series.prepare_series(config)
    assert config.precision in ("fp32", "bf16")
