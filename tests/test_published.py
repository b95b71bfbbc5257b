"""The published runs: small, complete for what is drawn and typed, and readable in TensorBoard at first sight."""

import hashlib
import json
import re
import subprocess
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams import metadata

from lab1.engine.config import REPOSITORY, without_seed

LABS = ("lab1", "lab2", "lab3")
HEAVIEST = 14_000_000  # bytes of all labs' published runs and figures
MOST_RUNS = 25  # above 40 TensorBoard unticks all: a reader's own runs come on top of these
ALWAYS = {"script", "config", "dataset", "environment"}
TRAINED = ALWAYS | {"parameters", "seconds", "validation", "test", "history"}
SERIES = ALWAYS | {"summary", "runs"}
# What these leave: a sheet of pictures, gradients that gradients-batch shows the like of, agents whose like lie beside,
# series whose results.json has all that is told of them.
COMPARED = (
    "compare-CartPole-v1",
    "compare-CartPole-v1-dqn",
    "compare-CartPole-v1-intel",
    "compare-CartPole-v1-intel-lr0.0027",
    "compare-CartPole-v1-intel-lr0.024",
    "compare-CartPole-v1-lr0.0027",
    "compare-CartPole-v1-lr0.024",
    "compare-CartPole-v1-plain",
    "compare-LunarLander-v3",
)
CONTROLS = tuple(f"answer-codah-finetune-all-MiniLM-L6-v2-random-labels-seed{seed}" for seed in (0, 1, 2))
AT_RATES = tuple(
    f"classify-rotten_tomatoes-{way}-by-accuracy-seed0"
    for way in (
        *(f"lora-all-MiniLM-L6-v2{rate}" for rate in ("", "-lr0.0005", "-lr0.002")),
        *(f"finetune-all-MiniLM-L6-v2{rate}" for rate in ("", "-lr2e-05", "-lr0.0001")),
    )
)
WITH_FIGURES = (
    "ablate-gpt-4x128",
    "gpt-4x128-900steps-seed0",
    "gpt-modern-6x192-6600steps-seed0",
    "gpt-modern-6x192-seed0",
    "gpt-modern-6x192-tinyshakespeare-seed0",
    "gpt-6x192-decay0.1-seed0",
)
ON_A_GPU = ("depth-cnn-10000images-rates", "depth-cnn-tuned-30epochs", "ablate-fast-32")
WITHOUT_CURVES = (
    "cam-rescnn3-16-shapes-seed0",
    "cam-rescnn9-16-seed0",
    "detect-mlp-128-64-seed0",
    "fast-64-0held-out-seed0",
    "gradients-none",
    "rescnn5-16-10000images-fp32-seed0",
    *ON_A_GPU,
    *WITH_FIGURES,
    *COMPARED,
    *CONTROLS,
    *AT_RATES,
)
WITHOUT_WEIGHTS = (
    "ppo-CarRacing-v3",
    "dqn-Acrobot-v1",
    "fast-64",
    "fast-64-0held-out",
    *COMPARED,
)  # too large; agents whose like lie beside


@cache
def files() -> list[Path]:
    """What is published, or would be with the next commit; all files where this is no checkout of git."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run([*command, "--", *LABS], cwd=REPOSITORY, capture_output=True, text=True)
    found = [REPOSITORY / name for name in listed.stdout.split("\0") if name]
    if listed.returncode != 0:
        found = [path for lab in LABS for path in (REPOSITORY / lab).rglob("*")]
    kept = [path for path in found if path.is_file() and path.relative_to(REPOSITORY).parts[1] in ("model", "figures")]
    assert kept
    return sorted(kept)


def event_files(lab: str) -> list[Path]:
    """The event files of a lab's published runs."""
    return [path for path in files() if path.name.startswith("events.out.") and (REPOSITORY / lab) in path.parents]


@cache
def values(lab: str) -> list[Summary.Value]:
    """What TensorBoard shows of a lab, in no order that matters."""
    found = []
    for path in event_files(lab):
        events = [Event.FromString(record) for record in RawEventFileLoader(str(path)).Load()]
        assert events[0].file_version == "brain.Event:2", path
        found += [value for event in events for value in event.summary.value]
    return found


def rows(lab: str) -> dict[str, list[Path]]:
    """The folders of runs that differ in nothing but the seed, the lowest seed first."""
    groups = defaultdict(list)
    for path in files():
        if path.name == "results.json" and path.parent.parent == REPOSITORY / lab / "model" / "published":
            groups[without_seed(path.parent.name)].append(path.parent)
    return {row: sorted(folders, key=lambda folder: (len(folder.name), folder.name)) for row, folders in groups.items()}


def scalar_tags(lab: str) -> set[str]:
    return {value.tag for value in values(lab) if value.WhichOneof("value") == "simple_value"}


def test_published_runs_and_figures_are_small():
    assert sum(path.stat().st_size for path in files()) <= HEAVIEST


def test_nothing_published_lies_there_twice():
    contents = defaultdict(list)
    for path in files():
        if path.stat().st_size > 10_000:
            contents[hashlib.sha256(path.read_bytes()).hexdigest()].append(path)
    assert [paths for paths in contents.values() if len(paths) > 1] == []


def test_no_checkpoint_to_go_on_from_is_published():
    assert [path for path in files() if path.name in ("last.pt", "previous.pt")] == []


def test_no_file_names_a_place_on_the_machine_that_made_it():
    speeds = sorted((REPOSITORY / "tests" / "benchmarks" / "results").glob("*.json"))
    assert speeds
    for path in [*speeds, *(path for path in files() if path.suffix == ".json")]:
        strings = re.findall(r'"(?:/|[A-Z]:\\\\|~)[^"]*"', path.read_text(encoding="utf-8"))
        assert strings == [], path
    texts = [
        value.tensor.string_val[0] for lab in LABS for value in values(lab) if value.tag.startswith("configuration")
    ]
    assert texts
    assert [text for text in texts if re.search(rb"`(?:/|[A-Z]:\\|~)", text)] == []


@pytest.mark.parametrize("lab", LABS)
def test_every_result_says_what_was_run_and_what_came_out(lab):
    paths = [path for path in files() if path.name == "results.json" and (REPOSITORY / lab) in path.parents]
    assert paths
    for path in paths:
        text = path.read_text(encoding="utf-8")
        results = json.loads(text)
        needed = SERIES if "runs" in results else TRAINED if "history" in results else ALWAYS
        assert needed <= set(results), path
        if "history" in results:
            assert {"epochs", "best_epoch"} <= set(results) or {"steps", "best_step"} <= set(results), path
        assert {"python", "torch", "device", "threads"} <= set(results["environment"]), path
        assert len(text.splitlines()) == len(results) + 2, f"{path}: a line for each thing it says"
        assert json.loads(path.with_name("config.json").read_text(encoding="utf-8")) == results["config"], path


@pytest.mark.parametrize("lab", LABS)
def test_of_every_row_the_lowest_seed_has_its_curves_and_no_other(lab):
    with_events = {path.parent for path in event_files(lab)}
    for row, (lowest, *others) in rows(lab).items():
        here = [folder for folder in with_events if folder == lowest or lowest in folder.parents]
        assert bool(here) is (lowest.name not in WITHOUT_CURVES), row
        assert not with_events & set(others), row


@pytest.mark.parametrize("lab", LABS)
def test_tensorboard_ticks_every_run(lab):
    assert 1 <= len({path.parent for path in event_files(lab)}) <= MOST_RUNS


@pytest.mark.parametrize("lab", LABS)
def test_tags_are_spelled_alike(lab):
    tags = defaultdict(set)
    for value in values(lab):
        plugin = value.metadata.plugin_data.plugin_name
        tags[value.WhichOneof("value") if plugin == "" else plugin].add(value.tag)
    assert set(tags) <= {"simple_value", "image", "text", "custom_scalars", "hparams"}
    for tag in tags["simple_value"] | tags["image"]:
        assert re.fullmatch(r"[^_/A-Z]+/[^_/A-Z]+", tag), tag
    for tag in tags["text"]:
        assert re.fullmatch(r"[^_A-Z]+", tag.removesuffix("/text_summary")), tag


def test_lab_3_opens_on_returns():
    assert min(scalar_tags("lab3")).startswith("return/")
    assert {tag.split("/")[0] for tag in scalar_tags("lab3")} == {"return", "speed", "update"}


@pytest.mark.parametrize("lab", LABS)
def test_the_charts_of_training_beside_validation_have_curves(lab):
    layouts = [value.tensor.string_val[0] for value in values(lab) if value.tag == "custom_scalars__config__"]
    assert layouts
    for layout in {bytes(layout) for layout in layouts}:
        for category in Layout.FromString(layout).category:
            for chart in category.chart:
                assert set(chart.multiline.tag) <= scalar_tags(lab)


@pytest.mark.parametrize(("lab", "ticked"), [("lab1", "dataset"), ("lab2", "dataset"), ("lab3", "env")])
def test_the_table_of_hyperparameters_begins_with_what_matters(lab, ticked):
    parse = metadata.parse_experiment_plugin_data
    contents = [value.metadata.plugin_data.content for value in values(lab) if value.tag == metadata.EXPERIMENT_TAG]
    assert contents
    for experiment in map(parse, contents):
        names = {info.name: info.differs for info in experiment.hparam_infos}
        assert not {"name", "model_dir", "data_dir", "compile", "device", "threads"} & set(names)
        assert sum(names.values()) == 5  # as many as TensorBoard ticks
        assert names[ticked]
        assert names["learning_rate"]
        assert {metric.name.tag for metric in experiment.metric_infos} <= scalar_tags(lab)


def test_the_weights_that_a_command_names_are_there():
    texts = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("lab*/*.md"), *REPOSITORY.glob("lab*/*.py")]
    named = {name for path in texts for name in re.findall(r"--run ([\w.-]+-seed\d+)", path.read_text("utf-8"))}
    assert {"mlp-128-64-seed0", "rescnn3-16-shapes-seed0", "ppo-LunarLander-v3-seed0"} <= named
    # Too large, or an example: to be trained by oneself.
    without = {"gpt-6x192-seed0", "ppo-CarRacing-v3-seed0", "ppo-Corridor-v0-seed0"}
    folders = {path.parent.name for path in files() if path.name == "best.pt"}
    assert named - without <= folders


def test_of_every_agent_the_weights_of_the_lowest_seed_are_there():
    for row, (lowest, *_) in rows("lab3").items():
        assert (lowest / "best.pt").is_file() is (row not in WITHOUT_WEIGHTS), row
    # How many goals each of these reaches is counted with play.py.
    assert all((folder / "best.pt").is_file() for folder in rows("lab3")["ppo-NavigationGoal-v0"])
