"""Exercise 1.2, the fast recipe: the script itself, and the ladder of its tricks."""

import json

import pytest
import torch

from lab1 import ablate_fast, models, plot, train_fast
from lab1.engine.figures import read_runs
from lab1.engine.launch import parse
from lab1.images import shapes
from lab1.images.batches import ImageData
from lab1.train_fast import TRICKS, Config
from tests.refusals import refusal


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ({}, "fast-64-seed0"),
        ({"width": 16, "optimizer": "sgd", "seed": 2}, "fast-16-sgd-seed2"),
        ({"without": ("averaging", "whitening")}, "fast-64-no-whitening-no-averaging-seed0"),
        ({"train_images": 900, "augment": False, "dataset": "shapes"}, "fast-64-noaugment-900images-shapes-seed0"),
        ({"validation_images": 0}, "fast-64-0held-out-seed0"),
    ],
)
def test_the_name_of_a_run_says_what_matters_in_it(flags, name):
    assert Config(**{"dataset": "cifar10", **flags}).run_name() == name


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"width": 0}, "--width 0: at least 1 channel is needed"),
        ({"train_images": 0}, "--train-images 0: at least 1 is needed"),
        ({"validation_images": -1}, "--validation-images -1: it cannot be negative"),
        (
            {"validation_images": 0, "patience": 3},
            "--patience 3: with --validation-images 0 nothing says when to stop",
        ),
        ({"without": ("identity", "identity")}, "--without identity identity: one is there twice"),
        ({"without": ("shifting",), "augment": False}, "--without shifting: --no-augment leaves it out already"),
    ],
)
def test_flags_out_of_range_are_refused(flags, says):
    assert refusal(Config(**flags).check) == says


def test_an_unknown_trick_is_refused_with_those_there_are():
    said = refusal(parse, Config, ["--without", "magic"], "")
    assert "magic" in said
    assert "whitening" in said


@pytest.mark.parametrize(
    "flags", [(), pytest.param(("--optimizer", "sgd", "--without", *TRICKS), marks=pytest.mark.slow)]
)
def test_train_fast_as_it_is_typed(run_script, tmp_path, flags):
    folders = ("--model-dir", tmp_path / "model", "--data-dir", tmp_path / "data")
    done = run_script("lab1/train_fast.py", "--dry-run", "--width", 2, "--batch-size", 40, *folders, *flags)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert "ten drawn shapes" in line
    (folder,) = (tmp_path / "model").iterdir()
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["script"] == "lab1/train_fast.py"
    assert 0 <= results["test"]["accuracy_with_views"] <= 1
    assert torch.load(folder / "last.pt", weights_only=True)["step"] == 6
    model, about = models.load(folder / "best.pt")
    assert type(model) is models.FastCNN
    assert about["classes"] == shapes.CLASSES
    kernel = model.body[0].weight
    assert torch.equal(kernel[:12], -kernel[12:]) is not bool(flags)  # whitened, or learned


def test_with_nothing_held_out_all_is_learned_from_and_the_last_weights_are_tested(tmp_path, capsys):
    pixels, labels, _ = shapes.draw(400, seed=0)
    images = ImageData("shapes", shapes.CLASSES, pixels, labels, pixels[:100], labels[:100])
    config = Config(dataset="shapes", width=2, batch_size=50, epochs=2, validation_images=0, model_dir=tmp_path)
    trainer, (train, validation, test) = train_fast.set_up(config, images)
    assert torch.equal(train.images, pixels)
    assert len(validation) == 0
    trainer.train(train, validation)
    assert "400 images to learn from, none held out" in capsys.readouterr().out
    trainer.test(test)
    saved, _ = models.load(trainer.folder / "best.pt")
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(saved.state_dict()[name], value)
    results = json.loads((trainer.folder / "results.json").read_text(encoding="utf-8"))
    assert (results["best_epoch"], results["validation"]) == (2, {})
    figure = plot.learning_curves("fast", [results])
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert labels == {"training", "test, at the last epoch"}
    assert "nothing held out" in figure.get_suptitle()


def test_its_map_is_refused_by_the_script_of_maps(tmp_path):
    from lab1 import explain_cam

    config = parse(Config, f"--dry-run --width 2 --dataset shapes --name fast --model-dir {tmp_path}".split(), "")
    train_fast.main(config)
    said = refusal(explain_cam.main, explain_cam.Config(run="fast", model_dir=tmp_path))
    assert said == "--run fast: a FastCNN has no map to explain; a CNN or ResCNN has"


# The ladder.


def test_variants_by_hand():
    found = ablate_fast.variants(ablate_fast.Config())
    names = ["none", *(f"+ {trick}" for trick in TRICKS), "all", *(f"- {trick}" for trick in TRICKS)]
    assert list(found) == names
    assert found["none"] == (*TRICKS, "muon")
    assert found["+ identity"] == (
        "frozen-scales",
        "fast-shifts",
        "smoothing",
        "averaging",
        "shifting",
        "alternating",
        "muon",
    )
    assert found["+ alternating"] == ("muon",)
    assert found["all"] == ()
    assert found["- shifting"] == ("shifting",)
    assert list(ablate_fast.variants(ablate_fast.Config(kinds=("left-out",)))) == names[9:]


def test_a_variant_is_a_run_of_its_script(tmp_path):
    config = ablate_fast.Config(width=8, epochs=3, train_images=500, seeds=(4,))
    made = ablate_fast.run_config(config, tmp_path, "+ smoothing", 4)
    assert (made.optimizer, made.without) == ("sgd", ("averaging", "shifting", "alternating"))
    assert (made.width, made.epochs, made.train_images, made.seed) == (8, 3, 500, 4)
    assert made.run_name() == "up-to-smoothing-seed4"
    whole = ablate_fast.run_config(config, tmp_path, "all", 4)
    assert (whole.optimizer, whole.without, whole.run_name()) == ("muon", (), "all-seed4")
    assert ablate_fast.run_config(config, tmp_path, "- averaging", 4).run_name() == "all-but-averaging-seed4"


def test_what_a_trick_is_worth_by_hand():
    def run(variant, seed, accuracy):
        return {"variant": variant, "seed": seed, "test": {"accuracy": accuracy}}

    runs = [run("none", 0, 0.5), run("+ whitening", 0, 0.6), run("all", 0, 0.8), run("- averaging", 0, 0.75)]
    runs += [run("none", 1, 0.4), run("+ whitening", 1, 0.7), run("all", 1, 0.9), run("- averaging", 1, 0.95)]
    rows = {row["variant"]: row for row in ablate_fast.summary(runs)}
    assert rows["+ whitening"]["worth"] == pytest.approx([0.1, 0.3])
    assert rows["- averaging"]["worth"] == pytest.approx([0.05, -0.05])
    assert rows["all"]["worth"] == []  # there is no variant with all but Muon
    assert rows["none"]["accuracy"] == pytest.approx(0.45)
    assert rows["none"]["sd"] == pytest.approx(0.005**0.5)
    shown = ablate_fast.table(list(rows.values()))
    assert "+20.00 [-107.06, +147.06]" in shown
    failed = {"variant": "all", "seed": 2, "failed": "the loss is nan"}
    (row,) = (row for row in ablate_fast.summary([*runs, failed]) if row["variant"] == "all")
    assert (row["runs"], row["trained"]) == (3, 2)


@pytest.mark.slow
def test_the_ladder(tmp_path, capsys):
    flags = ["--dry-run", "--width=2", "--batch-size=40", "--goal=0.01", f"--data-dir={tmp_path / 'data'}"]
    ablate_fast.main(parse(ablate_fast.Config, [*flags, f"--model-dir={tmp_path / 'model'}"], ""))
    folder = tmp_path / "model" / "dry-run-ablate-fast-2-shapes"
    runs = json.loads((folder / "results.json").read_text(encoding="utf-8"))["runs"]
    assert [(run["variant"], run["seed"]) for run in runs] == [("none", 0), ("+ whitening", 0)]
    for run in runs:
        assert (run["steps"], run["steps_to_goal"]) == (6, 3)
        assert len(run["validation_accuracy"]) == 2
    again = [*flags, "--resume", str(folder)]
    assert ablate_fast.main(parse(ablate_fast.Config, again, "")) == ablate_fast.summary(runs)
    assert "is finished: its results.json stands" in capsys.readouterr().out
    (figure,) = plot.figures_of(read_runs(tmp_path / "model")).values()
    assert "FastCNN of width 2 on drawn shapes, 12 epochs" in figure.get_suptitle()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"goal": 1.5}, "--goal 1.5: an accuracy between 0 and 1 is needed, such as 0.92"),
        ({"kinds": ()}, "--kinds: added, left-out, or both are needed"),
        ({"width": 0}, "--width 0: at least 1 channel is needed"),
        ({"seed": 1}, "--seed 1: use --seeds 1"),
    ],
)
def test_a_ladder_that_cannot_be_is_refused(flags, says):
    assert refusal(ablate_fast.Config(**flags).check) == says
