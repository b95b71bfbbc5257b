"""The sweep over depths: exact counts, resuming after a real signal, runs that fail, what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lab1 import ablate_fast, compare_gradients, sweep_depth
from lab1.engine.config import REPOSITORY, Interrupted, RunFailed, UsageError
from lab1.engine.launch import parse
from lab1.engine.series import interruptible
from lab1.models import CNN, MLP, count_macs
from tests.exactness import assert_equal, without_clocks
from tests.posix import posix
from tests.struck import run_struck

# 1,295 digits in batches of 256 are 6 steps an epoch.
FLAGS = "--family mlp --dataset digits --depths 2 4 --seeds 0 1 --width 8 --epochs 2 --device cpu --workers 1".split()
STEPS = 12


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sweep(*arguments: object) -> list[dict]:
    return sweep_depth.main(parse(sweep_depth.Config, [str(argument) for argument in arguments], ""))


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def steps(run: Path) -> int:
    return torch.load(run / "last.pt", weights_only=True)["step"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A sweep that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    sweep(*FLAGS, "--model-dir", folder)
    return folder / "depth-mlp-digits"


def test_a_sweep_trains_every_network_once(whole):
    runs = results(whole)["runs"]
    wanted = [(seed, depth, residual) for seed in (0, 1) for depth in (2, 4) for residual in (False, True)]
    assert [(run["seed"], run["depth"], run["residual"]) for run in runs] == wanted
    for run in runs:
        assert steps(whole / run["name"]) == STEPS
        own = results(whole / run["name"])
        assert own["script"] == "lab1/train_mlp.py"
        assert own["config"]["hidden"] == [8] * (run["depth"] + 1)
        assert own["config"]["residual"] is run["residual"]
        assert run["test"] == {name: own["test"][name] for name in ("loss", "accuracy")}
        chosen = own["history"][run["best_epoch"] - 1]
        assert (run["train"], run["validation"]) == (chosen["train"], chosen["validation"])
        assert run["parameters"] == own["parameters"] == 785 * 8 + run["depth"] * 9 * 8 + 9 * 10
        assert run["macs"] == 784 * 8 + run["depth"] * 8 * 8 + 8 * 10


def test_plain_and_residual_differ_in_nothing_but_the_identity(whole):
    names = [run["name"] for run in results(whole)["runs"]]
    for plain in (name for name in names if name.startswith("plain")):
        ours, theirs = (results(whole / name)["config"] for name in (plain, plain.replace("plain", "residual")))
        assert {key for key in ours if ours[key] != theirs[key]} == {"name", "residual"}
    torch.manual_seed(0)
    plain = MLP((6, 8, 8, 8, 3))
    torch.manual_seed(0)
    residual = MLP((6, 8, 8, 8, 3), residual=True)
    for ours, theirs in zip(plain.parameters(), residual.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_summary_is_in_tensorboard_with_both_networks_on_one_chart(whole):
    rows = results(whole)["summary"]
    for residual, network in ((False, "plain"), (True, "residual")):
        shown = EventAccumulator(str(whole / "summary" / network))
        shown.Reload()
        points = shown.Scalars("accuracy over depth/test")
        assert [point.step for point in points] == [2, 4]
        accuracies = [row["accuracy"] for row in rows if row["residual"] is residual]
        assert [point.value for point in points] == pytest.approx(accuracies)


def test_summary_by_hand():
    def run(accuracy, seconds):
        made = {"depth": 2, "residual": False, "parameters": 9, "macs": 8, "seconds": seconds}
        return made | ({"failed": "the loss is nan"} if accuracy is None else {"test": {"accuracy": accuracy}})

    (row,) = sweep_depth.summary([run(0.5, 1.0), run(None, 3.0), run(0.7, 2.0)])
    assert (row["runs"], row["trained"], row["seconds"]) == (3, 2, 2.0)
    assert row["accuracy"] == pytest.approx(0.6)
    assert row["sd"] == pytest.approx(0.02**0.5)
    assert "60.00% ± 14.14%" in sweep_depth.table([row])
    (row,) = sweep_depth.summary([run(None, 1.0)])
    assert (row["accuracy"], row["sd"], row["trained"]) == (None, None, 0)
    assert "failed  0 of 1" in sweep_depth.table([row])


@posix
def test_interrupted_by_a_signal_and_resumed_it_ends_as_if_nothing_had_happened(whole, tmp_path, capsys):
    # Struck in the third run, in the middle of its second epoch.
    done = run_struck("lab1.sweep_depth", 2 * STEPS + 9, *FLAGS, "--model-dir", tmp_path)
    folder = tmp_path / "depth-mlp-digits"
    assert done.returncode == 143, done.stderr
    assert done.stderr.splitlines()[-1] == f"stopped and saved; go on with: --resume {folder}"
    assert len(results(folder)["runs"]) == 2
    assert steps(folder / "plain-depth4-seed0") == 9
    finished = folder / "residual-depth2-seed0" / "last.pt"
    before = finished.stat().st_mtime_ns
    sweep("--resume", folder)
    assert finished.stat().st_mtime_ns == before
    assert "resuming" in capsys.readouterr().out
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 8 + 1  # the runs and the summary
    for ours, theirs in zip(results(folder)["runs"], results(whole)["runs"], strict=True):
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}
        best = [torch.load(place / ours["name"] / "best.pt", weights_only=True)["weights"] for place in (folder, whole)]
        assert all(torch.equal(best[0][name], best[1][name]) for name in best[1])


@posix
def test_two_workers_find_what_one_finds_also_when_they_are_stopped(whole, tmp_path):
    command = [sys.executable, str(REPOSITORY / "lab1" / "sweep_depth.py")]
    flags = [*FLAGS, "--workers", "2", "--epochs", "2", "--model-dir", str(tmp_path)]
    folder = tmp_path / "depth-mlp-digits"
    process = subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(folder.glob("*-seed*/last.pt")):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)  # to the first process alone: it tells the others
    _, said = process.communicate(timeout=120)
    if process.returncode:  # else it was through before
        assert process.returncode == 143, said
        assert said.splitlines()[-1] == f"stopped and saved; go on with: python {command[1]} --resume {folder}"
        resumed = [*command, "--resume", str(folder), "--workers", "2"]
        done = subprocess.run(resumed, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
    assert without_clocks(results(folder)) == without_clocks(results(whole))
    for run in results(whole)["runs"]:
        ours, theirs = (torch.load(place / run["name"] / "best.pt", weights_only=True) for place in (folder, whole))
        assert_equal(ours["weights"], theirs["weights"])


def test_resuming_a_finished_sweep_trains_what_was_added_alone(whole, monkeypatch):
    trained, train = [], sweep_depth.train
    monkeypatch.setattr(sweep_depth, "train", lambda one: trained.append(one.name) or train(one))
    untouched = {path: path.stat().st_mtime_ns for path in (whole, *whole.rglob("*"))}
    sweep("--resume", whole, "--device", "cpu")
    assert trained == []
    assert {path: path.stat().st_mtime_ns for path in (whole, *whole.rglob("*"))} == untouched
    before = (whole / "results.json").read_bytes(), (whole / "config.json").read_bytes()
    sweep("--resume", whole, "--depths", 2, 4, 6, "--seeds", 1)
    assert trained == ["plain-depth6-seed1", "residual-depth6-seed1"]
    assert len(results(whole)["runs"]) == 10
    (whole / "results.json").write_bytes(before[0])  # as the other tests expect it
    (whole / "config.json").write_bytes(before[1])


def test_a_sweep_compares_like_with_like(whole):
    with pytest.raises(UsageError, match=r"^--epochs, --train-images: changed since .* was begun.*start anew$"):
        sweep("--resume", whole, "--epochs", 3, "--train-images", 500)


def test_a_network_that_fails_to_train_is_recorded_and_the_sweep_goes_on(tmp_path):
    rows = sweep(*FLAGS, "--depths", 2, "--learning-rate", 1e30, "--model-dir", tmp_path)
    folder = tmp_path / "depth-mlp-digits"
    assert [row["trained"] for row in rows] == [0, 0]
    for run in results(folder)["runs"]:
        assert "the loss is nan at step" in run["failed"] or "the loss is inf at step" in run["failed"]
        assert "test" not in run
        assert not (folder / run["name"] / "results.json").exists()


def test_what_may_go_well_another_time_is_not_recorded_as_a_failure_to_train(tmp_path, monkeypatch):
    def unreadable(*arguments):
        raise RunFailed("best.pt cannot be read: Input/output error; try again")

    with monkeypatch.context() as patch, pytest.raises(RunFailed, match="try again"):
        patch.setattr("lab1.trainer.Trainer.test", unreadable)
        sweep(*FLAGS, "--depths", 2, "--seeds", 0, "--kinds", "plain", "--model-dir", tmp_path)
    folder = tmp_path / "depth-mlp-digits"
    assert not (folder / "results.json").exists()
    (row,) = sweep("--resume", folder)
    assert row["trained"] == 1


@pytest.mark.parametrize("script", [sweep_depth, ablate_fast, compare_gradients])
def test_runs_may_be_kept_elsewhere_where_the_labs_and_the_current_folder_are_read_only(tmp_path, monkeypatch, script):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).is_relative_to(tmp_path))
    parse(script.Config, ["--model-dir", str(tmp_path / "runs")], "")
    with pytest.raises(UsageError, match="is not writable"):
        parse(script.Config, [], "")


@posix
def test_a_signal_between_two_runs(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match=f"--resume {tmp_path}$") as stopped, interruptible(tmp_path):
        os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.signal_number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_train_images_is_a_stratified_part_with_the_same_test(tmp_path):
    sweep(*FLAGS, "--depths", 2, "--seeds", 0, "--train-images", 500, "--model-dir", tmp_path)
    folder = tmp_path / "depth-mlp-500images-digits"
    assert steps(folder / "plain-depth2-seed0") == 2 * 2  # two batches of 256, the second not full
    assert sum(map(sum, results(folder / "plain-depth2-seed0")["test"]["confusion"])) == 359


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--depths", "0"], "--depths 0: at least 1 block is needed"),
        (["--depths", "5", "-1"], "--depths -1"),
        (["--depths", "5", "5"], "--depths 5 5: one is there twice"),
        (["--family", "mlp", "--depths", "5"], "--depths 5: an MLP needs an even depth"),
        (["--family", "mlp", "--depths", "0"], "--depths 0: an MLP needs an even depth"),
        (["--family", "mlp", "--norm", "batch"], "--norm batch: an MLP has none"),
        (["--family", "rnn"], "--family rnn: use cnn or mlp"),
        (["--norm", "group"], "--norm group: use batch or none"),
        (["--seeds"], "--seeds: at least one is needed"),
        (["--seeds", "0", "1", "0"], "--seeds 0 1 0: one is there twice"),
        (["--seeds", "-3"], "--seed -3"),
        (["--seed", "3"], "--seed 3: use --seeds 3"),
        (["--train-images", "0"], "--train-images 0: at least 1 is needed"),
        (["--width", "0"], "--width 0"),
        (["--kinds", "plain", "plain"], "--kinds plain plain: one is there twice"),
        (["--kinds"], "--kinds: plain, residual, or both are needed"),
        (["--rates", "0.1", "0.1"], "--rates 0.1 0.1: one is there twice"),
        (["--rates", "0.1", "-1"], "--learning-rate -1"),
        (["--rates", "0.1", "--tuned", "some"], "--rates finds rates and --tuned takes them: give one of the two"),
        (["--tuned", "nowhere"], "no run 'nowhere'"),
        (["--norm", "none", "--init", "he-zero"], "--init he-zero: it is for residual networks without norm"),
        (["--family", "mlp", "--init", "he-scaled"], "--init he-scaled: it is for residual networks"),
        (["--resume", "nowhere"], "no run 'nowhere'"),
    ],
)
def test_what_is_refused(flags, line, tmp_path):
    with pytest.raises(UsageError) as refused:
        sweep(*flags, "--model-dir", tmp_path)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def rated(tmp_path_factory) -> Path:
    """A sweep over learning rates."""
    folder = tmp_path_factory.mktemp("rated")
    sweep(*FLAGS, "--seeds", 5, 6, "--rates", 0.0001, 0.01, "--model-dir", folder)
    return folder / "depth-mlp-rates-digits"


def test_a_sweep_over_learning_rates_tests_nothing(rated, capsys):
    content = results(rated)
    runs = content["runs"]
    assert len(runs) == 2 * 2 * 2 * 2
    assert {run["learning_rate"] for run in runs} == {0.0001, 0.01}
    assert runs[1]["name"] == "plain-depth2-rate0.01-seed5"
    assert not any("test" in run or (rated / run["name"] / "results.json").exists() for run in runs)
    for run in runs:
        assert (
            json.loads((rated / run["name"] / "config.json").read_text(encoding="utf-8"))["learning_rate"]
            == run["learning_rate"]
        )
    (row,) = (
        row for row in content["summary"] if (row["depth"], row["residual"], row["learning_rate"]) == (4, True, 0.01)
    )
    same = [run for run in runs if (run["depth"], run["residual"], run["learning_rate"]) == (4, True, 0.01)]
    assert row["accuracy"] == pytest.approx(sum(run["validation"]["accuracy"] for run in same) / 2)
    assert "validation accuracy (mean ± sd)" in sweep_depth.table(content["summary"], sweep_depth.measured(runs))


def test_each_network_is_trained_at_the_rate_that_validation_chose(rated, tmp_path):
    content = results(rated)
    for run in content["runs"]:  # of residual networks the lower rate is the better one at depth 4
        better = (run["learning_rate"] == 0.0001) is (run["residual"] and run["depth"] == 4)
        run["validation"]["accuracy"] = 0.9 if better else 0.1
    failed = content["runs"][1]
    assert failed["learning_rate"] == 0.01
    del failed["validation"]  # it failed to train: as if none were right, and the mean of two is still the better one
    (rated / "results.json").write_text(json.dumps(content), encoding="utf-8")
    sweep(*FLAGS, "--depths", 2, 4, 8, "--seeds", 0, "--tuned", rated, "--model-dir", tmp_path)
    runs = results(tmp_path / "depth-mlp-tuned-digits")["runs"]
    rates = {(run["depth"], run["residual"]): run["learning_rate"] for run in runs}
    assert rates == {
        (2, False): 0.01,
        (2, True): 0.01,
        (4, False): 0.01,
        (4, True): 0.0001,
        (8, False): 0.01,
        (8, True): 0.0001,  # that of the nearest depth
    }
    for run in runs:
        own = results(tmp_path / "depth-mlp-tuned-digits" / run["name"])
        assert own["config"]["learning_rate"] == run["learning_rate"]
        assert "test" in run


def test_a_tuned_series_that_goes_on_keeps_its_rates(rated, tmp_path):
    """Whatever has become of the sweep that they were chosen from: seeds are compared at one rate."""
    series = tmp_path / "depth-mlp-tuned-digits"
    sweep(*FLAGS, "--depths", 2, "--seeds", 0, "--tuned", rated, "--model-dir", tmp_path)
    before = {run["residual"]: run["learning_rate"] for run in results(series)["runs"]}
    content, moved = results(rated), tmp_path / "rated"
    for run in content["runs"]:
        run["validation"] = {"accuracy": 0.1 if run["learning_rate"] == before[run["residual"]] else 0.9}
    moved.mkdir()
    (moved / "results.json").write_text(json.dumps(content), encoding="utf-8")
    (moved / "config.json").write_text((rated / "config.json").read_text(encoding="utf-8"), encoding="utf-8")
    settings = json.loads((series / "config.json").read_text(encoding="utf-8")) | {"tuned": str(moved)}
    (series / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    flags = [*FLAGS, "--depths", 2, "--seeds", 0, "--tuned", moved, "--model-dir", tmp_path]
    assert sweep_depth.networks(parse(sweep_depth.Config, [*map(str, flags), "--resume", "auto"], "")) == [
        {"depth": 2, "residual": residual, "seed": 0, "learning_rate": before[residual]} for residual in (False, True)
    ]
    sweep("--resume", series, "--seeds", 0, 1)
    shutil.rmtree(moved)
    sweep("--resume", series)  # all of its rates are known
    runs = results(series)["runs"]
    assert {(run["seed"], run["residual"]): run["learning_rate"] for run in runs} == {
        (seed, residual): before[residual] for seed in (0, 1) for residual in (False, True)
    }


def test_rates_that_nearly_agree_are_several_runs():
    config = parse(sweep_depth.Config, ["--family", "mlp", "--rates", "1", "0.001", "0.00100000001"], "")
    names = {sweep_depth.run_config(config, Path(), **one).name for one in sweep_depth.networks(config)}
    assert len(names) == len(sweep_depth.networks(config))
    assert {"plain-depth2-rate1-seed0", "plain-depth2-rate0.001-seed0"} < names


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--family", "mlp", "--tuned", "depth-mlp"], "--tuned depth-mlp: it is no sweep with --rates"),
        (["--tuned", "depth-cnn-10000images"], "--tuned depth-cnn-10000images: it is no sweep with --rates"),
    ],
)
def test_rates_are_taken_from_a_sweep_that_has_them(flags, says, tmp_path):
    with pytest.raises(UsageError, match=says):
        sweep(*flags, "--model-dir", tmp_path)


def test_rates_of_another_family_are_none(rated, tmp_path):
    with pytest.raises(UsageError, match="it has no plain network of this family"):
        sweep("--tuned", rated, "--model-dir", tmp_path)


def test_one_kind_of_network_alone(tmp_path):
    flags = ("--depths", 4, "--seeds", 0, "--epochs", 1, "--kinds", "residual", "--init", "he-zero")
    sweep(*FLAGS, *flags, "--model-dir", tmp_path)
    (run,) = results(tmp_path / "depth-mlp-he-zero-digits")["runs"]
    assert (run["depth"], run["residual"]) == (4, True)
    assert results(tmp_path / "depth-mlp-he-zero-digits" / run["name"])["config"]["init"] == "he-zero"


def test_more_images_than_there_are(tmp_path):
    with pytest.raises(UsageError, match="--train-images 5000: digits has 1295 to learn from"):
        sweep(*FLAGS, "--train-images", 5000, "--model-dir", tmp_path)


def test_dry_run_as_it_is_typed(run_script, tmp_path):
    flags = ("--dry-run", "--depths", 1, 2, 3, "--width", 4, "--device", "cpu", "--data-dir", tmp_path / "data")
    done = run_script("lab1/sweep_depth.py", *flags, "--model-dir", tmp_path / "model", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "10,000 images of ten drawn shapes" in done.stderr
    folder = tmp_path / "model" / "dry-run-depth-cnn-shapes"
    runs = results(folder)["runs"]
    assert [(run["depth"], run["residual"]) for run in runs] == [(1, False), (1, True), (2, False), (2, True)]
    for run in runs:
        assert steps(folder / run["name"]) == 6
        assert run["macs"] == count_macs(CNN(run["depth"], width=4), (3, 32, 32))
        assert f"{run['macs']:,}" in done.stdout
    done = run_script("lab1/plot.py", "--runs", tmp_path / "model", "--figures", tmp_path / "figures")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["dry-run-depth-cnn-shapes.png"]


def test_a_mistake_is_one_line_and_exit_2(run_script, tmp_path):
    done = run_script("lab1/sweep_depth.py", "--depths", 0, "--model-dir", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --depths 0: at least 1 block is needed\n"
