"""Class activation maps: identities with the logits and with Grad-CAM, scores worked out by hand, the script."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lab1 import explain_cam, models
from lab1.engine import checkpoint, launch
from lab1.engine.config import UsageError
from lab1.explanation import cam, evaluation
from lab1.explanation.sheet import Example, contact_sheet
from lab1.images import datasets
from lab1.images.batches import ImageData


@pytest.fixture(params=["CNN", "ResCNN"])
def network(request):
    torch.manual_seed(0)
    model = getattr(models, request.param)(depth=3, width=4).eval()
    nn.init.normal_(model.head.bias)
    return model


def test_a_cam_by_hand():
    head = nn.Linear(2, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0]]))
    features = torch.tensor([[[[1.0, 0.0]], [[3.0, 5.0]]]])  # two channels of 1 x 2
    assert torch.equal(cam.class_activation_map(features, head), torch.tensor([[[[7.0, 10.0]], [[-3.0, -5.0]]]]))


def test_the_mean_of_the_cam_plus_the_bias_is_the_logit(network):
    images = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        maps = cam.class_activation_map(network.features(images), network.head)
        logits = network(images)
    assert maps.shape == (5, 10, 8, 8)
    torch.testing.assert_close(maps.mean((2, 3)) + network.head.bias, logits, atol=1e-5, rtol=1e-5)


def test_grad_cam_at_the_last_layer_is_the_positive_part_of_the_cam(network):
    images, classes = torch.randn(5, 3, 32, 32), torch.tensor([0, 3, 9, 3, 1])
    with torch.no_grad():
        maps = cam.class_activation_map(network.features(images), network.head)[torch.arange(5), classes]
    assert maps.min() < 0 < maps.max()
    torch.testing.assert_close(cam.grad_cam(network, images, classes), maps.relu() / 64)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_grad_cam_at_an_earlier_layer_against_hooks(network):
    """The usual implementation, written out: one image, a forward hook, a backward pass."""
    layer, images = 5, torch.randn(2, 3, 32, 32)
    found = cam.grad_cam(network, images, torch.tensor([2, 7]), layer)
    assert found.shape == (2, 16, 16)
    for image, label, each in zip(images, (2, 7), found, strict=True):
        kept = []
        hook = network.body[layer].register_forward_hook(lambda module, inputs, output, kept=kept: kept.append(output))
        logit = network(image[None])[0, label]
        hook.remove()
        (gradient,) = torch.autograd.grad(logit, kept[0])
        expected = sum(gradient[0, c].mean() * kept[0][0, c] for c in range(len(gradient[0]))).clamp(min=0)
        torch.testing.assert_close(each, expected.detach())


def test_the_pointing_game_by_hand():
    maps = torch.zeros(4, 4, 4)
    maps[0, 1, 2] = maps[1, 3, 0] = 1.0
    maps[2, 0, 0] = maps[2, 3, 3] = 5.0  # two largest values, one of them in the box
    boxes = torch.tensor([[2, 1, 3, 2], [0, 0, 4, 3], [0, 0, 2, 2], [0, 0, 2, 2]])  # the last map is flat
    assert cam.pointing_game(maps, boxes).tolist() == [1.0, 0.0, 0.5, 0.25]


class LeftHalf(nn.Module):
    """The logit of class 0 is twice the mean of the left half of an 8 x 8 image, that of class 1 is 0."""

    def forward(self, x):
        return torch.stack([2 * x[:, 0, :, :4].mean((1, 2)), torch.zeros(len(x))], 1)


def test_deletion_and_insertion_by_hand():
    images, left = torch.zeros(1, 1, 8, 8), torch.zeros(1, 8, 8)
    images[0, 0, :, :4] = left[0, :, :4] = 1.0
    p = [torch.tensor(float(logit)).sigmoid().item() for logit in range(3)]
    good, bad = (cam.deletion_insertion_auc(LeftHalf(), images, each, torch.tensor([0]), 4) for each in (left, -left))
    # As a quarter of the pixels is deleted at a time, the logit goes 2, 1, 0, 0, 0; in the wrong order 2, 2, 2, 1, 0.
    assert good[0].item() == pytest.approx((p[2] / 2 + p[1] + p[0] + p[0] + p[0] / 2) / 4)
    assert bad[0].item() == pytest.approx((p[2] / 2 + p[2] + p[2] + p[1] + p[0] / 2) / 4)
    assert p[0] < bad[1].item() < good[1].item() < p[2]


def test_a_flat_map_divides_by_nothing():
    image = np.full((20, 30, 3), 200, np.uint8)
    with np.errstate(all="raise"):
        flat = cam.overlay(image, np.zeros((8, 8), np.float32), 0.0)
        some = cam.overlay(image, np.eye(8, dtype=np.float32), 1.0)
    assert flat.shape == some.shape == image.shape
    assert len(np.unique(flat.reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(some.reshape(-1, 3), axis=0)) > 5


def test_the_end_of_the_second_stage_is_the_last_map_of_16_x_16():
    for depth in (1, 2, 3, 9):
        model = models.CNN(depth, width=2).eval()
        last = evaluation.end_of_second_stage(model)
        widths = [model.body[: layer + 1](torch.zeros(1, 3, 32, 32)).shape[-1] for layer in (last, last + 1)]
        assert widths == [16, 8]


def sheet(examples, method="cam"):
    """The sheet of an untrained network, of its two most probable classes."""
    torch.manual_seed(0)
    classes = [f"class {k}" for k in range(10)]
    about = {"classes": classes, "mean": [0.5] * 3, "std": [0.25] * 3}
    return contact_sheet(examples, models.ResCNN(3, width=4).eval(), about, method, top=2)


def test_what_is_on_a_sheet():
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    figure, (with_box, without) = sheet([Example("one", pixels, 3, [4, 8, 16, 32]), Example("two", pixels)])
    assert figure.get_suptitle() == "Class activation maps\ndashed: the object's box"
    rows = np.array(figure.axes[:6]).reshape(2, 3)
    assert rows[0, 0].get_title() == "one\nlabel: class 3"
    assert rows[1, 0].get_title() == "two\n"
    for row, said in zip(rows, (with_box, without), strict=True):
        for panel, (name, share) in zip(row[1:], said["probabilities"].items(), strict=True):
            label = " (label)" if name == said["class"] else ""
            assert panel.get_title() == f"{name}{label}\n{100 * share:.1f} %"
            assert panel.title.get_weight() == ("bold" if label else "normal")
    assert "class 3" in with_box["probabilities"]
    for panel in rows[0]:  # the image is drawn five times as large, its first pixel's edge at -0.5
        assert {patch.get_bbox().bounds for patch in panel.patches} == {(19.5, 39.5, 60, 120)}
        assert [patch.get_edgecolor()[:3] for patch in panel.patches] == [(0, 0, 0), (1, 1, 1)]
    assert all(not panel.patches for panel in rows[1])
    lowest, largest = (label.get_text() for label in figure.axes[6].get_xticklabels())
    assert lowest == "nothing for the class,\nor against it"
    assert largest == "most for the class,\nof all maps in the row"


def test_a_photograph_is_shown_smaller_and_judged_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 255, (700, 1280, 3), dtype=np.uint8)
    figure, (said,) = sheet([Example("one", pixels)])
    assert figure.axes[0].images[0].get_array().shape == (350, 640, 3)
    shown = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR))
    _, (small,) = sheet([Example("one", shown)])
    assert said["probabilities"] == small["probabilities"]


def test_a_sheet_of_grad_cam_without_boxes():
    figure, _ = sheet([Example("one", np.zeros((32, 32, 3), np.uint8))], "grad-cam")
    assert figure.get_suptitle() == "Grad-CAM"
    assert figure.axes[3].get_xticklabels()[0].get_text() == "nothing\nfor the class"


def test_the_colors_of_the_bar_are_those_of_the_maps():
    grey = np.full((1, 1, 3), 128, np.uint8)
    figure, _ = sheet([Example("one", np.zeros((32, 32, 3), np.uint8))])
    colors = figure.axes[3].collections[-1].get_cmap()
    for place, value in ((0, 0.0), (255, 1.0)):
        shown = cam.overlay(grey, np.full((1, 1), value, np.float32), 1.0)[0, 0]
        assert (255 * np.array(colors(place)[:3])).round().tolist() == shown.tolist()


# The script


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a run of an untrained ResCNN on shapes and one of an MLP."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    about = {"dataset": "shapes", "classes": [f"class {k}" for k in range(10)], "mean": [0.5] * 3, "std": [0.25] * 3}
    for name, model, of in (
        ("shapes", models.ResCNN(3, width=4), about),
        ("pictures", models.CNN(1, width=2), about | {"dataset": "cifar10"}),
        ("mlp", models.MLP((784, 8, 10)), about | {"dataset": "mnist"}),
    ):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text("{}", encoding="utf-8")
        content = {"model": models.describe(model), "weights": model.state_dict(), "about": of}
        checkpoint.save(content, folder / name / "best.pt")
    return folder


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "wide.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (40, 90, 3), dtype=np.uint8))
    return path


def test_explain_cam(run_script, runs, tmp_path, picture):
    done = run_script(
        "lab1/explain_cam.py",
        *("--run", runs / "shapes", "--model-dir", tmp_path, "--evaluate", "--dry-run"),
        *("--images", picture, "--indices", 0, 1999, "--mistakes", 2, "--top", 2),
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "dry-run-cam-shapes"
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert [each["image"] for each in results["images"]][:3] == ["wide.png", "test image 0", "test image 1999"]
    assert len(results["images"]) == 5
    assert results["images"][0]["class"] is None
    for each in results["images"]:
        assert len(each["probabilities"]) == 2
    for each in results["images"][3:]:  # the mistakes: the class that was taken for it, and the true one
        assert each["class"] == list(each["probabilities"])[1]
    test = results["test"]
    assert test["images"] == 16
    assert {"cam", "random weights", "random map", "centre", "chance"} <= set(test["pointing_game"])
    for metric in ("pointing_game", "deletion_auc", "insertion_auc"):
        for cell in test[metric].values():
            assert 0 <= cell["interval"][0] <= cell["mean"] <= cell["interval"][1] <= 1
    assert cv2.imread(str(folder / "sheet.png")).shape[0] > 5 * 100
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["indices"] == [0, 1999]


def test_explain_cam_of_files_alone_needs_no_data_set(runs, tmp_path, picture):
    flags = "--run", "pictures", "--model-dir", runs, "--data-dir", tmp_path, "--name", "mine", "--method", "grad-cam"
    explain_cam.main(launch.parse(explain_cam.Config, [*map(str, flags), "--images", str(picture)], ""))
    assert (runs / "mine" / "sheet.png").exists()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--run", "nowhere"], "no run 'nowhere'"),
        (["--run", "mlp"], "an MLP has no map to explain"),
        (["--run", "shapes", "--indices", "2000"], "--indices 2000: the test set of shapes has the images 0 to 1999"),
        (["--run", "shapes", "--indices", "-1"], "--indices -1: the test set"),
        (["--run", "shapes", "--images", __file__], "it is no image"),
        (["--run", "shapes", "--images", "no-such.png"], "No such file"),
        (["--run", "shapes", "--top", "0"], "--top 0: at least 1"),
        (["--run", "shapes", "--precision", "bf16"], "maps are computed in fp32"),
        (
            ["--run", "shapes", "--indices", "1", "2", "3", "--mistakes", "101"],
            "104 images: at most 100 fit on a sheet",
        ),
        (["--run", "pictures", "--images", "PICTURE", "--evaluate"], "no boxes are known in cifar10"),
        (["--run", "pictures", "--dry-run", "--data-dir", "no-such-folder"], "is not downloaded in a dry run"),
    ],
)
def test_what_explain_cam_refuses(runs, picture, flags, complaint):
    flags = [str(picture) if each == "PICTURE" else each for each in flags]
    with pytest.raises(UsageError) as caught:
        explain_cam.main(launch.parse(explain_cam.Config, [*flags, "--model-dir", str(runs)], ""))
    assert complaint in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not (runs / "cam-shapes").exists()


def test_a_published_run_is_found_wherever_runs_are_written(tmp_path, picture):
    flags = "--model-dir", str(tmp_path / "mine"), "--name", "cat", "--images", str(picture)
    explain_cam.main(launch.parse(explain_cam.Config, list(flags), ""))
    results = json.loads((tmp_path / "mine" / "cat" / "results.json").read_text(encoding="utf-8"))
    assert results["config"]["run"] == "rescnn3-16-shapes-seed0"
    assert results["dataset"] == "shapes"


def test_the_run_of_a_folder_of_images_knows_the_folder(runs, tmp_path):
    """Two classes, and a network that never saw them: enough to see where the images come from."""
    for part, count in (("train", 2), ("test", 1)):
        for name in ("cat", "dog"):
            (tmp_path / "mine" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.full((32, 32, 3), 40 * number, dtype=np.uint8)
                cv2.imwrite(str(tmp_path / "mine" / part / name / f"{number}.png"), pixels)
    model = models.CNN(depth=3, width=4, classes=2)
    about = {"dataset": "folder", "classes": ["cat", "dog"], "mean": [0.5] * 3, "std": [0.2] * 3}
    content = {"model": models.describe(model), "weights": model.state_dict(), "about": about}
    (tmp_path / "run").mkdir()
    checkpoint.save(content, tmp_path / "run" / "best.pt")
    (tmp_path / "run" / "config.json").write_text(json.dumps({"data_dir": str(tmp_path / "mine")}), encoding="utf-8")
    flags = ["--run", str(tmp_path / "run"), "--indices", "1", "--model-dir", str(tmp_path), "--name", "sheet"]
    explain_cam.main(launch.parse(explain_cam.Config, flags, ""))
    assert json.loads((tmp_path / "sheet" / "config.json").read_text(encoding="utf-8"))["data_dir"] == str(
        tmp_path / "mine"
    )
    (tmp_path / "mine").rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError) as caught:
        explain_cam.main(launch.parse(explain_cam.Config, flags, ""))
    assert str(caught.value) == (
        f"--run {tmp_path / 'run'}: it learned from your own images, and {tmp_path / 'mine'} holds no folders train "
        "and test; say with --data-dir where they are"
    )
    explain_cam.main(launch.parse(explain_cam.Config, [*flags, "--data-dir", str(tmp_path / "elsewhere")], ""))
    assert (tmp_path / "sheet-2" / "sheet.png").exists()
    shutil.copytree(tmp_path / "elsewhere" / "train" / "cat", tmp_path / "elsewhere" / "train" / "ant")
    shutil.copytree(tmp_path / "elsewhere" / "test" / "cat", tmp_path / "elsewhere" / "test" / "ant")
    with pytest.raises(UsageError, match=r"it learned the classes cat, dog, and .*elsewhere has ant, cat, dog now"):
        explain_cam.main(launch.parse(explain_cam.Config, [*flags, "--data-dir", str(tmp_path / "elsewhere")], ""))


@pytest.mark.parametrize(("channels", "size"), [(3, 64), (1, 40)])
def test_an_image_is_explained_as_the_network_learned_it(tmp_path, channels, size):
    """A data set of one's own, whose classes are told apart by stripes that a smaller image would not show."""
    generator, classes = torch.Generator().manual_seed(0), ["flat", "striped"]
    labels = torch.arange(40) % 2
    images = torch.randint(0, 2, (40, channels, size, size), generator=generator) * 20 + 100
    images[labels == 1] += torch.arange(size)[:, None] % 2 * 100
    images = images.to(torch.uint8)
    datasets.register_dataset("stripes")(lambda: ImageData("stripes", classes, images, labels, images, labels))
    try:
        about = {"dataset": "stripes", "classes": classes, "mean": [0.5] * channels, "std": [0.2] * channels}
        torch.manual_seed(0)
        model = models.CNN(1, width=4, in_channels=channels, classes=2)
        content = {"model": models.describe(model), "weights": model.state_dict()}
        (tmp_path / "run").mkdir()
        checkpoint.save(content | {"about": about | {"size": [size, size]}}, tmp_path / "run" / "best.pt")
        (tmp_path / "run" / "config.json").write_text("{}", encoding="utf-8")
        Image.fromarray(images[1].permute(1, 2, 0).squeeze().numpy()).save(tmp_path / "one.png")
        flags = ["--run", str(tmp_path / "run"), "--indices", "1", "2", "--images", str(tmp_path / "one.png")]
        flags += ["--model-dir", str(tmp_path), "--name", "sheet"]
        explain_cam.main(launch.parse(explain_cam.Config, flags, ""))
    finally:
        del datasets.DATASETS["stripes"]
    said = json.loads((tmp_path / "sheet" / "results.json").read_text(encoding="utf-8"))["images"]
    normalised = (images[[1, 1, 2]].float() / 255 - 0.5) / 0.2  # the file, and the two of the test set
    with torch.no_grad():
        expected = model.eval()(normalised).softmax(1)
    found = torch.tensor([[each["probabilities"][name] for name in classes] for each in said])
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_size_that_is_none_is_refused(runs, tmp_path, picture):
    content = checkpoint.load(runs / "pictures" / "best.pt", "cpu")
    for size in (32, [32], [32, 0], ["32", 32]):
        content["about"]["size"] = size
        (tmp_path / "run").mkdir(exist_ok=True)
        checkpoint.save(content, tmp_path / "run" / "best.pt")
        (tmp_path / "run" / "config.json").write_text("{}", encoding="utf-8")
        flags = ["--run", str(tmp_path / "run"), "--images", str(picture), "--model-dir", str(tmp_path)]
        with pytest.raises(UsageError, match="holds no network of this lab: its size is"):
            explain_cam.main(launch.parse(explain_cam.Config, flags, ""))


def test_a_refusal_is_one_line_and_status_2(run_script, runs):
    done = run_script("lab1/explain_cam.py", "--run", "mlp", "--model-dir", runs)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert done.stderr.startswith("error: --run mlp: an MLP has no map")
