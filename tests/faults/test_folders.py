"""Folders of runs and of models, damaged in every way, and checkpoints that are whole but hold something else: what
reads them goes on, or says in one line why it cannot."""

import hashlib
import io
import json
import random

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from matplotlib import pyplot
from PIL import Image

from lab1.engine.config import REPOSITORY
from lab2.tasks import encoders, tiny
from tests.faults.campaign import ends_cleanly, inputs, launched, snapshot, try_all
from tests.faults.mutations import JUNK, TENSORS, Changed, altered, damaged, damages, read_folder, write_folder

CPU = torch.device("cpu")
DIGITS = "--dataset digits --hidden 4 --epochs 2 --batch-size 500 --patience 0 --device cpu".split()


def with_digest(content: object) -> bytes:
    """A checkpoint whose bytes are as they were written, whatever it holds."""
    memory = io.BytesIO()
    torch.save(content, memory)
    return memory.getvalue() + hashlib.sha256(memory.getvalue()).digest()


def change(name: str, content: bytes) -> st.SearchStrategy[Changed]:
    """Damage to a file of a run or a model, by what kind of file it is."""
    if name.endswith(".json"):
        document = json.loads(content)
        return altered(document).map(lambda new: (json.dumps(new[0]).encode(), new[1])) | damaged(content)
    if name.endswith(".pt"):
        document = torch.load(io.BytesIO(content), weights_only=True)
        return altered(document, JUNK | TENSORS).map(lambda new: (with_digest(new[0]), new[1])) | damaged(content)
    return damaged(content)


@pytest.fixture(autouse=True)
def random_states():
    """What is resumed puts every random generator back to where it was: not those of the other tests."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> dict[str, bytes]:
    """The files of a run of train_mlp.py that is over."""
    folder = tmp_path_factory.mktemp("finished")
    assert launched("lab1/train_mlp", *DIGITS, "--model-dir", folder, "--name", "run") == 0
    return {name: content for name, content in read_folder(folder / "run").items() if not name.endswith(".png")}


@pytest.mark.parametrize("state", ["finished", "unfinished"])
@inputs(6, 300)
def test_a_run_is_resumed_or_refused(tmp_path, finished, state, count):
    files = dict(finished)
    if state == "unfinished":
        files["last.pt"] = files.pop("previous.pt")
        del files["results.json"]
    place = tmp_path / "runs" / "run"

    def check(content: dict) -> None:
        write_folder(content, place)
        # What the damage may have made of these would take for ever, and so it is given anew.
        launched("lab1/train_mlp", "--resume", place, "--epochs", 2, "--no-compile", "--batch-size", 500)
        assert [path.name for path in tmp_path.iterdir()] == ["runs"]
        assert [path.name for path in place.parent.iterdir()] == ["run"]

    check(files)
    try_all(count, damages(files, change), lambda damage: check(damage.of(files)))


@inputs(8, 300)
def test_an_agent_plays_or_is_refused(tmp_path, count):
    files = read_folder(REPOSITORY / "lab3" / "model" / "published" / "dqn-CartPole-v1-seed0")
    files = {name: files[name] for name in ("best.pt", "config.json")}
    place = tmp_path / "run"

    def check(content: dict) -> int:
        before = snapshot(write_folder(content, place))
        status = launched("lab3/play", "--run", place, "--dry-run")
        assert snapshot(tmp_path) == before | {str(place): (0, 0)}
        return status

    assert check(files) == 0
    try_all(count, damages(files, change), lambda damage: check(damage.of(files)))


@inputs(3, 100)
def test_a_network_is_explained_or_refused(tmp_path, count):
    files = read_folder(REPOSITORY / "lab1" / "model" / "published" / "rescnn3-16-shapes-seed0")
    files = {name: files[name] for name in ("best.pt", "config.json")}
    place, picture = tmp_path / "run", tmp_path / "picture.png"
    Image.new("RGB", (40, 30), "red").save(picture)

    def check(content: dict) -> int:
        before = snapshot(write_folder(content, place))
        status = launched("lab1/explain_cam", "--run", place, "--images", picture, "--model-dir", tmp_path / "new")
        assert snapshot(place) == before
        return status

    assert check(files) == 0
    try_all(count, damages(files, change), lambda damage: check(damage.of(files)))


@inputs(4, 200)
def test_a_language_model_writes_or_is_refused(tmp_path, count):
    text = tmp_path / "rhymes.txt"
    text.write_text("\n".join(words for words, _ in tiny.sentences()), encoding="utf-8")
    small = "--layers 1 --heads 1 --width 4 --context 8 --steps 2 --eval-interval 1 --batch-size 2".split()
    trained = "--text", text, *small, "--model-dir", tmp_path / "runs", "--name", "run"
    assert launched("lab2/train_gpt", *trained) == 0
    files = read_folder(tmp_path / "runs" / "run")
    files = {name: files[name] for name in ("best.pt", "config.json")}
    place, new = tmp_path / "run", ("--model-dir", tmp_path / "new", "--dry-run")

    def check(content: dict) -> int:
        before = snapshot(write_folder(content, place))
        status = launched("lab2/generate", "--run", place, "--text", text, "--tokenizers", "characters", *new)
        assert snapshot(place) == before
        return status

    assert check(files) == 0
    try_all(count, damages(files, change), lambda damage: check(damage.of(files)))


@pytest.mark.parametrize("lab", ["lab1", "lab2", "lab3"])
@inputs(2, 100)
def test_results_are_drawn_or_refused(tmp_path, monkeypatch, lab, count):
    """The smallest results of each kind of experiment, in small figures."""
    monkeypatch.setattr("lab1.engine.figures.write_png", lambda figure, path: figure.savefig(path, dpi=20))
    published = REPOSITORY / lab / "model" / "published"
    paths = sorted(published.glob("*/results.json"), key=lambda path: path.stat().st_size)
    kinds = {json.loads(path.read_text(encoding="utf-8"))["script"]: path for path in reversed(paths)}
    files = {f"{path.parent.name}/results.json": path.read_bytes() for path in kinds.values()}
    place = tmp_path / "runs"

    def check(content: dict) -> int:
        before = snapshot(write_folder(content, place))
        status = launched(f"{lab}/plot", "--runs", place, "--figures", tmp_path / "figures")
        pyplot.close("all")
        assert snapshot(place) == before
        return status

    assert check(files) == 0
    try_all(count, damages(files, change), lambda damage: check(damage.of(files)))


@inputs(10, 400)
def test_a_model_folder_is_read_or_refused(tmp_path, count):
    files = read_folder(tiny.write_model(tmp_path / "bert"))
    place, data = tmp_path / "model", tmp_path / "data"

    def check(content: dict) -> None:
        before = snapshot(write_folder(content, place))
        ends_cleanly(use)
        assert snapshot(place) == before
        assert not data.exists()

    def use() -> None:
        tokenizer = encoders.load_tokenizer(str(place), data, download=False)
        encoder, _ = encoders.load_encoder(str(place), "features", data, CPU, download=False)
        encoders.sentence_vectors(encoder, tokenizer, ["the cook sings"], 8, 1, CPU, "fp32")

    write_folder(files, place)
    use()
    try_all(count, damages(files, change), lambda damage: check(damage.of(files)))
