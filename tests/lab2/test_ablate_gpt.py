"""The ablation of the modern preset: its variants and differences by hand, and the script as it is typed."""

import json

import pytest

from lab1.engine.config import UsageError
from lab2 import ablate_gpt
from lab2.train_gpt import TRICKS


def test_variants_are_runs_of_the_script(tmp_path):
    config = ablate_gpt.Config(steps=500, eval_interval=125, learning_rate=3e-3, seeds=(4, 5), text="python")
    assert list(ablate_gpt.variants(config)) == ["none", "all", *(f"- {trick}" for trick in TRICKS)]
    plan = ablate_gpt.networks(config)
    assert plan[:2] == [{"variant": "none", "seed": 4}, {"variant": "all", "seed": 4}]
    assert len(plan) == 2 * (2 + 7)
    made = {variant: ablate_gpt.run_config(config, tmp_path, variant, 4) for variant in ablate_gpt.variants(config)}
    assert made["none"].without == TRICKS
    assert made["all"].without == ()
    assert made["- muon"].without == ("muon",)
    for one in made.values():
        assert (one.preset, one.layers, one.width, one.context) == ("modern-nano", 4, 128, 64)
        assert (one.steps, one.eval_interval, one.learning_rate, one.seed) == (500, 125, 3e-3, 4)
    assert made["- qk-norm"].run_name() == "all-but-qk-norm-seed4"
    assert config.describe() == "ablate-gpt-4x128-python"
    assert ablate_gpt.Config(text="divina_commedia", preset="modern").describe() == "ablate-gpt-6x192"


def test_differences_by_hand():
    def run(variant, seed, validation, test):
        losses = {"validation": {"loss": validation}, "test": {"loss": test}}
        return {"variant": variant, "seed": seed, "cpu_seconds": 10.0 + 2 * seed, **losses}

    runs = [run("none", 0, 1.9, 1.7), run("all", 0, 1.6, 1.5), run("- muon", 0, 1.8, 1.6)]
    runs += [run("none", 1, 2.1, 1.9), run("all", 1, 1.6, 1.5), run("- muon", 1, 1.6, 1.4)]
    runs += [{"variant": "- muon", "seed": 2, "failed": "the loss is nan", "cpu_seconds": 6.0}]
    rows = {row["variant"]: row for row in ablate_gpt.summary(runs)}
    assert rows["none"]["above_all"] == pytest.approx([0.2, 0.4])
    assert rows["- muon"]["above_all"] == pytest.approx([0.1, -0.1])
    assert rows["all"]["above_all"] == []
    assert (rows["none"]["validation"], rows["none"]["test"]) == pytest.approx((2.0, 1.8))
    assert rows["none"]["test_sd"] == pytest.approx(0.02**0.5)
    assert (rows["- muon"]["runs"], rows["- muon"]["trained"]) == (3, 2)
    assert rows["- muon"]["cpu_seconds"] == pytest.approx((10 + 12 + 6) / 3)
    # Student's t for two differences is 12.71: 0.3 +- 12.71 * 0.1.
    assert "+0.300 [-0.971, +1.571]" in ablate_gpt.table(list(rows.values()))
    (row,) = ablate_gpt.summary([{"variant": "all", "seed": 0, "failed": "nan", "cpu_seconds": 6.0}])
    assert (row["test"], row["trained"]) == (None, 0)
    assert "failed" in ablate_gpt.table([row])


@pytest.mark.slow
def test_the_ablation_as_it_is_typed(run_script, tmp_path):
    flags = ("--dry-run", "--data-dir", tmp_path / "data")
    done = run_script("lab2/ablate_gpt.py", *flags, "--model-dir", tmp_path / "model", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "model" / "dry-run-ablate-gpt-4x128-python"
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert (results["script"], results["dataset"]) == ("lab2/ablate_gpt.py", "python")
    assert [(run["variant"], run["seed"], run["steps"]) for run in results["runs"]] == [("none", 0, 6), ("all", 0, 6)]
    assert results["runs"][0]["parameters"] - results["runs"][1]["parameters"] == 64 * 128  # no position embeddings
    assert results["summary"] == ablate_gpt.summary(results["runs"])
    again = run_script("lab2/ablate_gpt.py", *flags, "--resume", folder, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "is finished: its results.json stands" in again.stdout


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"steps": 0}, "--steps 0: at least 1 is needed"),
        ({"learning_rate": -1.0}, "--learning-rate -1.0: a positive number"),
        ({"seed": 1}, "--seed 1: use --seeds 1"),
        ({"seeds": ()}, "--seeds: at least one is needed"),
    ],
)
def test_an_ablation_that_cannot_be_is_refused(flags, says):
    with pytest.raises(UsageError) as error:
        ablate_gpt.Config(**flags).check()
    assert says in str(error.value)
