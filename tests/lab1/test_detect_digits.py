"""The detector of digits: surgery, canvases, boxes, what counts as right, the script."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops import box_iou

from lab1 import detect_digits, models
from lab1.detection import canvases, detector
from lab1.engine import checkpoint, launch, metrics
from lab1.engine.config import UsageError
from lab1.engine.randomness import stratified_split
from lab1.images import datasets
from lab1.images.batches import Batches, pixel_statistics


@pytest.fixture(scope="module")
def digits():
    images = datasets.load_digits()
    return images.train_images[:, 0].numpy(), images.train_labels.numpy()


NETWORKS = {
    "mlp": lambda: models.MLP((784, 20, 12, 11), dropout=0.5),
    "residual mlp": lambda: models.MLP((784, 16, 16, 16, 11), residual=True),
    "lenet": lambda: models.LeNet(11),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    return NETWORKS[request.param]().eval()


def test_surgery_keeps_the_logits_of_a_single_digit(network):
    images = torch.randn(7, 1, 28, 28)
    with torch.no_grad():
        maps = detector.convolutional(network)(images)
        assert maps.shape == (7, 11, 1, 1)
        torch.testing.assert_close(maps[:, :, 0, 0], network(images))


def test_every_place_of_the_map_is_the_classifier_on_that_window(network):
    images = torch.randn(2, 1, 44, 37)
    with torch.no_grad():
        maps = detector.convolutional(network)(images)
        assert maps.shape == (2, 11, 5, 3)
        for row in range(5):
            for column in range(3):
                window = images[:, :, 4 * row : 4 * row + 28, 4 * column : 4 * column + 28]
                torch.testing.assert_close(maps[:, :, row, column], network(window), atol=1e-5, rtol=1e-5)


def test_surgery_leaves_no_linear_layer_and_the_same_number_of_parameters(network):
    cut = detector.convolutional(network)
    assert not any(isinstance(module, nn.Linear) for module in cut.modules())
    assert sum(p.numel() for p in cut.parameters()) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("model", [models.CNN(1, width=2), models.MLP((64, 8, 10))])
def test_surgery_refuses_what_it_cannot_cut(model):
    with pytest.raises(UsageError, match="cannot be cut into a detector"):
        detector.convolutional(model)


@pytest.mark.parametrize("kind", ["grid", "random"])
def test_canvases_are_a_function_of_their_seed(digits, kind):
    first, again, other = (canvases.draw(kind, *digits, 3, seed) for seed in (5, 5, 6))
    assert np.array_equal(first.images, again.images)
    assert all(map(torch.equal, first.boxes, again.boxes))
    assert not np.array_equal(first.images, other.images)


def test_a_grid_holds_the_digits_where_their_boxes_are(digits):
    drawn = canvases.draw("grid", *digits, 2, seed=0)
    assert drawn.images.shape == (2, 160, 160)
    for image, boxes, labels in zip(drawn.images, drawn.boxes, drawn.labels, strict=True):
        assert boxes[0].tolist() == [10, 10, 30, 30]  # a cell of 40, a digit's image of 28, a box of 20
        assert boxes[15].tolist() == [130, 130, 150, 150]
        for (x, y, _, _), label in zip(boxes.int().tolist(), labels.tolist(), strict=True):
            cut = image[y - 4 : y + 24, x - 4 : x + 24]
            assert label in digits[1][(digits[0] == cut).all((1, 2))]


def test_random_canvases_keep_their_promises(digits):
    drawn = canvases.draw("random", *digits, 40, seed=0)
    sides = torch.cat([boxes[:, 2] - boxes[:, 0] for boxes in drawn.boxes])
    assert 0.7 * 20 - 0.5 <= sides.min() < 16
    assert 27 < sides.max() <= 1.5 * 20 + 0.5
    for boxes in drawn.boxes:
        assert 1 <= len(boxes) <= 8
        assert boxes.min() >= 0
        assert boxes.max() <= 160
        assert (box_iou(boxes, boxes) - torch.eye(len(boxes))).abs().max() < 1e-6


def test_windows_are_labelled_by_their_overlap(digits):
    drawn = canvases.draw("random", *digits, 30, seed=0)
    images, labels = canvases.windows(drawn, seed=0)
    again, _ = canvases.windows(drawn, seed=0)
    assert torch.equal(images, again)
    assert images.shape == (len(labels), 1, 28, 28)
    assert 0.25 < (labels == canvases.BACKGROUND).float().mean() < 0.7
    assert set(labels.tolist()) == set(range(11))
    middle = images[:, 0, 8:20, 8:20].float().mean((1, 2))
    assert middle[labels < 10].mean() > 1.5 * middle[labels == 10].mean()


class OneTemplate(nn.Module):
    """A classifier that knows one picture: logit 20 of class 3 for exactly that window, else of class 10."""

    def __init__(self, picture):
        super().__init__()
        self.conv = nn.Conv2d(1, 11, 28, stride=4)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)
        with torch.no_grad():
            self.conv.weight[3, 0] = picture / picture.norm() ** 2 * 400
            self.conv.bias[3] = -380

    def forward(self, x):
        return self.conv(x)


def test_a_detector_says_where_a_digit_is_and_how_large(digits, monkeypatch):
    """Boxes in pixels of the canvas, by a classifier that answers to one picture in one size."""
    picture = torch.from_numpy(digits[0][0]).float() / 255
    monkeypatch.setattr(detector, "convolutional", lambda model: model)
    monkeypatch.setattr(detector, "SCALES", (1.0, 1.0))
    monkeypatch.setattr(detector, "LEVELS", 1)
    canvas = np.zeros((2, 160, 160), np.uint8)
    canvas[0, 40:68, 100:128] = digits[0][0]
    finder = detector.Detector(OneTemplate(picture), [0.0], [1.0])
    found, nothing = finder.detect(canvas)
    assert found.boxes.tolist() == [[104, 44, 124, 64]]
    assert found.labels.tolist() == [3]
    assert len(nothing.boxes) == len(nothing.scores) == 0
    heat = finder.heat_maps(canvas[0])
    assert heat.shape == (10, 160, 160)
    assert divmod(heat[3].argmax().item(), 160) in {(y, x) for y in (53, 54) for x in (113, 114)}  # the centre


def test_suppression_by_hand():
    candidates = torch.tensor(
        [
            [0, 0, 20, 20, 0.9, 5],
            [4, 0, 24, 20, 0.6, 5],  # agrees with the first: intersection 320 of 480
            [1, 0, 21, 20, 0.95, 8],  # the most probable of all, and alone in its class
            [100, 100, 120, 120, 0.7, 8],
        ]
    )
    found = detector.suppress(candidates)
    share = 320 / 480
    assert found.labels.tolist() == [5, 8]
    assert found.scores.tolist() == pytest.approx([0.9 + share * 0.6, 0.7])
    x0 = share * 0.6 * 4 / (0.9 + share * 0.6)
    assert found.boxes[0].tolist() == pytest.approx([x0, 0, x0 + 20, 20])
    assert found.boxes[1].tolist() == [100, 100, 120, 120]


BOXES = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0], [50.0, 50.0, 60.0, 60.0]])
LABELS = torch.tensor([1, 2, 3])
FOUND = detector.Detections(
    torch.tensor(
        [
            [0.0, 0.0, 10.0, 10.0],  # right
            [0.0, 0.0, 10.0, 9.0],  # the same digit again
            [20.0, 0.0, 30.0, 10.0],  # another class
            [50.0, 50.0, 60.0, 56.0],  # right: 60 of 100
            [50.0, 50.0, 60.0, 54.0],  # overlaps by 40 of 100 only
        ]
    ),
    torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5]),
    torch.tensor([1, 1, 4, 3, 3]),
)


def canvas_of(*labelled) -> canvases.Canvases:
    """Canvases, of which only the boxes and classes matter."""
    return canvases.Canvases(np.zeros((len(labelled), 1, 1)), *map(list, zip(*labelled, strict=True)))


def test_what_is_right_by_hand():
    assert detector.right(FOUND, BOXES, LABELS).tolist() == [True, False, False, True, False]
    none = detector.Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    assert detector.right(none, BOXES, LABELS).tolist() == []
    assert detector.right(FOUND, BOXES[:0], LABELS[:0]).tolist() == [False] * 5


def test_precision_recall_and_f1_by_hand():
    drawn = canvas_of((BOXES, LABELS))
    measured = detector.measure([FOUND], drawn, threshold=0.55)
    assert measured["precision"] == pytest.approx(2 / 4)
    assert measured["recall"] == pytest.approx(2 / 3)
    assert measured["f1"] == pytest.approx(4 / 7)
    assert measured["f1_interval"] == pytest.approx([4 / 7, 4 / 7])  # one canvas, resampled
    assert measured["digits"] == 3


def test_the_threshold_is_the_best_there_is():
    drawn = canvas_of((BOXES, LABELS), (BOXES[:1], LABELS[:1]))
    found = [FOUND, FOUND]
    threshold = detector.best_threshold(found, drawn)
    every = [detector.measure(found, drawn, each)["f1"] for each in (0.45, 0.55, 0.65, 0.75, 0.85, 0.95)]
    assert detector.measure(found, drawn, threshold)["f1"] == pytest.approx(max(every))
    assert threshold == pytest.approx(0.85)


def test_the_bootstrap_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = torch.randn(400, 1, generator=torch.Generator().manual_seed(0))
    low, high = metrics.bootstrap_interval(values, lambda means: means[:, 0])
    half = 1.96 * values.std().item() / 20
    assert low == pytest.approx(values.mean().item() - half, abs=0.01)
    assert high == pytest.approx(values.mean().item() + half, abs=0.01)
    assert metrics.bootstrap_interval(values, lambda means: means[:, 0]) == (low, high)


def test_digits_of_validation_are_those_that_the_network_held_out(monkeypatch):
    drawn = []
    monkeypatch.setattr(canvases, "draw", lambda kind, digits, labels, count, seed: drawn.append(digits))
    images = datasets.load_digits()
    for seed in (0, 3):
        drawn.clear()
        detect_digits.draw(images, detect_digits.Config(run="mine"), seed)
        held_out = stratified_split(images.train_labels, len(images.train_labels) // 10, seed)[1]
        assert np.array_equal(drawn[0], images.train_images[held_out, 0].numpy())


# The script


@pytest.mark.parametrize("network", ["lenet", pytest.param("mlp", marks=pytest.mark.slow)])
def test_detect_digits(run_script, tmp_path, network):
    places = "--model-dir", tmp_path / "model", "--data-dir", tmp_path / "data"
    done = run_script("lab1/detect_digits.py", "--dry-run", "--network", network, *places)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert "1,797 handwritten digits" in line
    folder = tmp_path / "model" / f"dry-run-detect-{network}-digits-seed0"
    assert torch.load(folder / "last.pt", weights_only=True)["step"] == 6
    test = json.loads((folder / "results.json").read_text(encoding="utf-8"))["test"]
    for part in (test, test["grid"]):
        assert part["canvases"] == 16
        assert 0 <= part["f1_interval"][0] <= part["f1"] <= part["f1_interval"][1] <= 1
    assert test["grid"]["digits"] == 16 * 16
    assert len(test["confusion"]) == 11
    assert (folder / "detections.png").stat().st_size > 10_000
    _, about = models.load(folder / "best.pt")
    assert about["classes"][10] == "background"
    if network == "lenet":  # a trained detector, detecting again
        done = run_script("lab1/detect_digits.py", "--dry-run", "--run", folder, *places)
        assert done.returncode == 0, done.stderr
        again = json.loads(
            (tmp_path / "model" / f"dry-run-detect-{folder.name}" / "results.json").read_text(encoding="utf-8")
        )
        assert again["test"]["f1"] == test["f1"]
        assert not set(detect_digits.TRAINING) & set(again["config"])


def test_a_detector_is_learned(digits):
    """A few hundred steps on canvases of the embedded digits."""
    images, labels = canvases.windows(canvases.draw("random", *digits, 500, seed=0), seed=0)
    mean, std = pixel_statistics(images)
    torch.manual_seed(0)
    model, batches = models.LeNet(11), Batches(images, labels, 64, mean, std, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for epoch in range(2):
        for inputs, targets in batches.epoch(epoch):
            loss, _ = metrics.classification_loss(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    held_out = datasets.load_digits()
    held_out = held_out.test_images[:, 0].numpy(), held_out.test_labels.numpy()
    drawn = canvases.draw("random", *held_out, 20, seed=1)
    found = detector.Detector(model.eval(), batches.mean, batches.std).detect(drawn.images)
    assert detector.measure(found, drawn, detector.best_threshold(found, drawn))["f1"] > 0.7


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--run", "nowhere"], "no run 'nowhere'"),
        (["--run", "shapes"], "it was trained on shapes, not on digits"),
        (["--run", "convolutional"], "a CNN cannot be cut into a detector"),
        (["--canvases", "0"], "--canvases 0: at least 1"),
        (["--run", "nowhere", "--resume", "auto"], "--resume: with --run nothing is trained"),
        (["--run", "nowhere", "--epochs", "9"], "--epochs: with --run nothing is trained; leave it out"),
        (["--run", "nowhere", "--network", "mlp", "--precision", "fp32"], "--network, --precision: with --run nothing"),
        (["--train-canvases", "7"], "--train-canvases 7: at least 8"),
        (["--dataset", "mnist", "--data-dir", "no-such-folder"], "is not downloaded in a dry run"),
    ],
)
def test_what_detect_digits_refuses(tmp_path, flags, complaint):
    classes = [str(digit) for digit in range(10)]
    about = {"dataset": "digits", "classes": classes, "mean": [0.1], "std": [0.3]}
    for name, of in (
        ("shapes", {"dataset": "shapes", "classes": ["circle"], "mean": [0.5], "std": [0.5]}),
        ("convolutional", about),
    ):
        model = models.CNN(1, width=2, in_channels=1)
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}", encoding="utf-8")
        content = {"model": models.describe(model), "weights": model.state_dict(), "about": of}
        checkpoint.save(content, tmp_path / name / "best.pt")
    flags = ["--dry-run", "--dataset", "digits", *flags, "--model-dir", str(tmp_path)]
    with pytest.raises(UsageError) as caught:
        detect_digits.main(launch.parse(detect_digits.Config, flags, ""))
    assert complaint in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["convolutional", "shapes"]  # nothing half made
