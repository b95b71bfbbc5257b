"""Data sets that people made themselves, damaged in every way: each is read, and then it is right, or refused in one
line."""

import io

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image

from lab1.images import datasets
from lab2.tasks import retrieval, tiny
from lab2.tasks.choices import load_choices
from lab2.tasks.datasets import load_texts
from lab2.tasks.search import SearchData, load_search
from tests.faults.campaign import ends_cleanly, inputs, snapshot, try_all
from tests.faults.mutations import Changed, altered_cells, altered_rows, damaged, damages, read_folder, write_folder


def change(name: str, content: bytes) -> st.SearchStrategy[Changed]:
    """Damage to a file of a data set, by what kind of file it is."""
    if name.endswith(".jsonl"):
        return altered_rows(content) | damaged(content)
    if name.endswith((".csv", ".tsv")):
        return altered_cells(content, "\t" if name.endswith(".tsv") else ",") | damaged(content)
    return damaged(content)


def rows(files: dict[str, bytes], count: int) -> dict[str, bytes]:
    """The same files with their first lines alone: what is small is read soon."""
    return {name: b"".join(content.splitlines(keepends=True)[:count]) for name, content in files.items()}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """An empty data folder, a place for data sets, and the right ones."""
    data, place, right = (tmp_path_factory.mktemp(name) for name in ("data", "place", "right"))
    for name, write in (("texts", tiny.write_texts), ("choices", tiny.write_choices), ("search", tiny.write_search)):
        write(right / name)
    return data, place, right


def check_examples(items: list, labels: torch.Tensor, choices: list[int]) -> None:
    assert labels.dtype == torch.int64
    assert len(items) == len(labels) > 0
    assert all(0 <= label < count for label, count in zip(labels.tolist(), choices, strict=True))


@inputs(30, 800)
def test_texts_with_a_class(places, count):
    data, place, right = places
    files = rows(read_folder(right / "texts"), 12)

    def check(content: dict) -> None:
        before = snapshot(write_folder(content, place))
        found = ends_cleanly(lambda: load_texts(str(place), data, download=False))
        assert snapshot(place) == before
        for texts, labels in found.parts.values() if found else ():
            check_examples(texts, labels, [len(found.classes)] * len(texts))
            assert all(type(text) is str for text in texts)

    check(files)
    try_all(count, damages(files, change), lambda damage: check(damage.of(files)))


@inputs(30, 800)
def test_questions_with_choices(places, count):
    data, place, right = places
    files = rows(read_folder(right / "choices"), 12)

    def check(content: dict) -> None:
        before = snapshot(write_folder(content, place))
        found = ends_cleanly(lambda: load_choices(str(place), data, download=False))
        assert snapshot(place) == before
        for items, labels in found.parts.values() if found else ():
            check_examples(items, labels, [len(choices) for _, choices in items])
            assert all(type(text) is str for question, choices in items for text in (question, *choices))

    check(files)
    try_all(count, damages(files, change), lambda damage: check(damage.of(files)))


@inputs(20, 500)
def test_a_collection_to_search(places, count):
    data, place, right = places
    files = rows(read_folder(right / "search"), 40)

    def check(content: dict) -> None:
        before = snapshot(write_folder(content, place))
        found = ends_cleanly(lambda: load_search(str(place), data, download=False))
        assert snapshot(place) == before
        if found is not None:
            results = ends_cleanly(lambda: search(found))
            names = ("ndcg@10", "recall@100", "mrr")
            assert results is None or all(0 <= results[name] <= 1 + 1e-9 for name in names), results

    check(files)
    try_all(count, damages(files, change), lambda damage: check(damage.of(files)))


def search(data: SearchData) -> dict:
    """Search with vectors of chance."""

    def vectors(texts):
        assert all(type(text) is str for text in texts)
        drawn = torch.rand(len(texts), 4, generator=torch.Generator().manual_seed(0))
        return drawn / drawn.norm(dim=1, keepdim=True)

    return retrieval.search(data, data.judgements.get("train"), vectors, 1.2, 0.75, resamples=10)


def picture(mode: str, kind: str, size: tuple[int, int] = (5, 4)) -> bytes:
    """An image file."""
    shape = (size[1], size[0], len(Image.new(mode, (1, 1)).getbands()))
    drawn = np.random.default_rng(0).integers(0, 255, shape).astype("uint8")
    if mode.startswith(("I", "F")):
        image = Image.new(mode, size, 3)
    else:
        image = Image.fromarray(drawn[..., 0] if shape[2] == 1 else drawn, {"1": "L", "P": "L"}.get(mode, mode))
        image = image.convert(mode)
    memory = io.BytesIO()
    image.save(memory, kind)
    return memory.getvalue()


PICTURES = [
    *(picture(mode, "PNG") for mode in ("1", "L", "P", "LA", "RGB", "RGBA", "I;16")),
    *(picture(mode, "JPEG") for mode in ("L", "RGB", "CMYK")),
    *(picture(mode, "GIF") for mode in ("L", "P")),
    *(picture(mode, "TIFF") for mode in ("L", "F", "I", "RGB", "CMYK")),
    *(picture("RGB", kind) for kind in ("BMP", "WEBP", "PPM", "EPS", "PDF", "ICO", "TGA")),
    picture("RGB", "PNG", (1, 1)),
    picture("L", "PNG", (3000, 1)),
]
RIGHT = {f"{part}/{name}/{number}.png": PICTURES[4] for part in ("train", "test") for name in "ab" for number in (0, 1)}


@st.composite
def image_folders(draw) -> dict:
    """Folders of images in which some files are odd, are damaged, or should not be there."""
    files: dict = dict(RIGHT)
    for _ in range(draw(st.integers(1, 3))):
        way = draw(st.sampled_from(["other", "damaged", "new file", "lose", "new folder", "file for a folder"]))
        name = draw(st.sampled_from(sorted(files)))
        ending = draw(st.sampled_from([".png", ".PNG", ".jpg", ".jpeg", ".gif", ".tif", ".eps", ".txt", "", ".bmp"]))
        odd = draw(st.sampled_from(["x", ".hidden", ".ipynb_checkpoints", "é", "a b", "~", "#1", "..x", "nul", "🙂"]))
        if way == "other":
            files[name] = draw(st.sampled_from(PICTURES))
        elif way == "damaged":
            files[name], _ = draw(st.sampled_from(PICTURES).flatmap(damaged))
        elif way == "new file":
            where = draw(st.sampled_from(["train/a/", "test/b/", "train/", "", "train/c/", f"train/{odd}/"]))
            files[f"{where}{odd}{ending}"] = draw(st.sampled_from([*PICTURES, b"", b"text"]))
        elif way == "lose":
            del files[name]
        elif way == "new folder":
            where = draw(st.sampled_from(["train/", "test/", "train/a/", "test/a/"]))
            files[f"{where}{odd}{ending}"] = None
        else:
            where = draw(st.sampled_from(["train", "train/a", "test"]))
            files = {path: content for path, content in files.items() if not path.startswith(where)} | {where: b"x"}
        if not files:
            break
    return files


@inputs(30, 800)
def test_folders_of_images(tmp_path, count):
    place = tmp_path / "pictures"

    def check(content: dict, channels: int = 3) -> None:
        before = snapshot(write_folder(content, place))
        found = ends_cleanly(lambda: datasets.load("folder", place, channels, 8, download=False))
        assert snapshot(place) == before
        if found is None:
            return
        assert len(found.classes) == len(set(found.classes)) >= 2
        assert not [name for name in found.classes if name.startswith(".")]
        for part, labels in ((found.train_images, found.train_labels), (found.test_images, found.test_labels)):
            assert part.shape[1:] == (channels, 8, 8)
            check_examples(list(part), labels, [len(found.classes)] * len(part))

    check(RIGHT)
    check(RIGHT, 1)
    try_all(count, image_folders(), check)
