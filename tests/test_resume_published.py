"""The published runs stay as they are, whatever is resumed: byte for byte, and with no file more."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from lab1 import compare_gradients, sweep_depth, train_mlp
from lab1.engine.config import REPOSITORY, UsageError
from lab1.engine.launch import parse
from lab1.images import datasets
from lab1.images.batches import ImageData
from lab2 import train_gpt
from lab2.language import corpus
from lab3 import compare_agents, train_ppo


def snapshot(*folders: Path) -> dict[str, tuple[int, int]]:
    """When each file was written last, and its size; a folder's time tells of files that came and went."""
    paths = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}


@pytest.mark.parametrize(
    ("script", "run", "changed"),
    [
        (train_mlp, "lab1/model/published/mlp-128-64-digits-seed0", "--epochs 200"),
        (train_gpt, "lab2/model/published/gpt-6x192-seed0", "--seed 1"),
        (train_ppo, "lab3/model/published/ppo-CartPole-v1-seed0", "--steps 1000000"),
    ],
)
def test_resuming_a_published_run_leaves_all_of_them_as_they_are(tmp_path, monkeypatch, capsys, script, run, changed):
    monkeypatch.chdir(REPOSITORY)
    text = "Nel mezzo del cammin di nostra vita\n" * 100  # never learned from
    (tmp_path / "divina_commedia.txt").write_text(text, encoding="utf-8")
    monkeypatch.setattr(corpus, "COMMEDIA_SHA256", hashlib.sha256(text.encode()).hexdigest())
    models = [REPOSITORY / lab / "model" for lab in ("lab1", "lab2", "lab3")]
    published = [folder / "published" for folder in models]
    before, bytes_before = snapshot(*published), [path.read_bytes() for path in sorted(Path(run).iterdir())]
    runs_before = [sorted(folder.iterdir()) for folder in models]

    test = script.main(parse(script.Config, ["--resume", run, "--data-dir", str(tmp_path)], ""))
    assert test == json.loads((Path(run) / "results.json").read_text(encoding="utf-8"))["test"]
    said = capsys.readouterr()
    stands = f"{run} is finished: its results.json stands; it has no checkpoint to go on from (test "
    assert said.out.startswith(stands)
    assert said.err == ""
    with pytest.raises(UsageError) as refused:
        script.main(parse(script.Config, ["--resume", run, "--data-dir", str(tmp_path), *changed.split()], ""))
    assert str(refused.value) == (
        f"{run}: published runs stay as they are; to train one of your own, leave out --resume and give the flags of "
        f"its config.json with {changed}"
    )

    assert snapshot(*published) == before
    assert [path.read_bytes() for path in sorted(Path(run).iterdir())] == bytes_before
    assert [sorted(folder.iterdir()) for folder in models] == runs_before


def test_a_copy_of_a_published_run_is_ones_own_and_stands_too(tmp_path, capsys):
    folder = tmp_path / "mine" / "digits"
    shutil.copytree(REPOSITORY / "lab1" / "model" / "published" / "mlp-128-64-digits-seed1", folder)
    before = snapshot(folder)
    test = train_mlp.main(parse(train_mlp.Config, ["--resume", str(folder)], ""))
    assert "finished: its results.json stands; it has no checkpoint" in capsys.readouterr().out
    assert test["accuracy"] > 0.9
    with pytest.raises(UsageError, match="has no checkpoint to go on from with --epochs 150"):
        train_mlp.main(parse(train_mlp.Config, ["--resume", str(folder), "--epochs", "150"], ""))
    assert snapshot(folder) == before


@pytest.mark.parametrize(
    ("script", "name", "dataset", "more"),
    [
        (sweep_depth, "depth-mlp", "mnist", "--depths 2 4 6 8"),
        (sweep_depth, "depth-cnn-10000images", "cifar10", "--seeds 0 1 2 3"),
        (compare_gradients, "gradients-batch", "cifar10", "--depths 5 10 20 25 30"),
    ],
)
def test_a_published_series_stands(tmp_path, monkeypatch, capsys, script, name, dataset, more):
    images = torch.zeros(20, 3, 32, 32, dtype=torch.uint8)
    labels = torch.arange(20) % 2
    data = ImageData(dataset, ["a", "b"], images, labels, images, labels)
    monkeypatch.setattr(datasets, "load", lambda *arguments, **keywords: data)
    folder = tmp_path / "model" / "published" / name
    shutil.copytree(REPOSITORY / "lab1" / "model" / "published" / name, folder)
    before = snapshot(folder)
    rows = script.main(parse(script.Config, ["--resume", str(folder)], ""))
    assert len(rows) > 0
    assert f"{folder} is finished: its results.json stands" in capsys.readouterr().out
    with pytest.raises(UsageError, match="published runs stay as they are"):
        script.main(parse(script.Config, ["--resume", str(folder), *more.split()], ""))
    with pytest.raises(UsageError, match="--batch-size: changed since"):
        script.main(parse(script.Config, ["--resume", str(folder), "--batch-size", "999"], ""))
    assert snapshot(folder) == before


def test_a_published_comparison_stands_and_shows_its_tables(tmp_path, capsys):
    folder = tmp_path / "model" / "published" / "compare-CartPole-v1"
    shutil.copytree(REPOSITORY / "lab3" / "model" / "published" / folder.name, folder)
    before = snapshot(folder)
    rows = compare_agents.main(parse(compare_agents.Config, ["--resume", str(folder)], ""))
    assert [row["runs"] for row in rows[:3]] == [40] * 3
    said = capsys.readouterr().out
    assert f"{folder} is finished: its results.json stands" in said
    (line,) = [line for line in said.splitlines() if line.startswith("reinforce less reinforce-none ")]
    shown = ["40", "38.5 [7.8, 69.2]", "147.4 [94.6, 200.2]", "127.9 [83.5, 172.2]"]  # as in lab3/README.md
    assert re.split(r"  +", line)[1:] == shown
    with pytest.raises(UsageError, match="published runs stay as they are"):
        compare_agents.main(parse(compare_agents.Config, ["--resume", str(folder), "--seeds", "40"], ""))
    with pytest.raises(UsageError, match="--learning-rate: changed since"):
        compare_agents.main(parse(compare_agents.Config, ["--resume", str(folder), "--learning-rate", "0.1"], ""))
    assert snapshot(folder) == before
