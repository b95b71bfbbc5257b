"""The figures of the GPT and of decoding: what is on them, by hand."""

import math

import pytest
from matplotlib import pyplot

from lab1.engine.figures import PARTS
from lab2 import plot


@pytest.fixture(autouse=True)
def without_a_screen():
    pyplot.switch_backend("Agg")
    yield
    pyplot.close("all")


SETTINGS = {"text": "divina_commedia", "tokenizer": "characters", "layers": 6, "heads": 6, "width": 192}
SETTINGS |= {"context": 128, "dropout": 0.1, "steps": 100, "batch_size": 12, "learning_rate": 0.002}


def trained(name, losses, interval=20, decay=0.5, per_token=1.0, **settings):
    """A run of train_gpt.py with the (train, validation) losses of its evaluations; the last one was chosen."""
    history = [
        {"epoch": epoch, "train": {"loss": train}, "validation": {"loss": validation}}
        for epoch, (train, validation) in enumerate(losses, start=1)
    ]
    loss = losses[-1][1]
    bits = {"bits_per_character": loss / math.log(2) / per_token}
    config = SETTINGS | {"eval_interval": interval, "weight_decay": decay} | settings
    run = {"name": name, "script": "lab2/train_gpt.py", "parameters": 1234, "config": config, "history": history}
    return run | {"best_epoch": len(losses), "validation": {"loss": loss} | bits, "test": {"loss": loss - 0.1}}


STRONG = trained("gpt-seed0", [(4, 3), (3, 2.5), (2.5, 2.2), (2.2, 2.1), (2.0, 2.05)])
WEAK = trained("gpt-decay0.1-seed0", [(3.5, 2.8), (1.9, 2.1)], interval=60, decay=0.1)


def test_one_figure_for_a_model_whatever_its_seed_and_weight_decay():
    other_seed = trained("gpt-seed1", [(4, 3)])
    news = trained("gpt-news-seed0", [(4, 3)], text="news.csv")
    again = trained("gpt-seed0-2", [(4, 3)], steps=200)  # of the same name, and another experiment
    figures = plot.models([WEAK, STRONG, news, other_seed])
    assert figures == {"gpt": [STRONG, other_seed, WEAK], "gpt-news": [news]}
    assert plot.models([STRONG, again]) == {"gpt, steps 100": [STRONG], "gpt, steps 200": [again]}


def test_learning_curves_by_hand():
    figure = plot.learning_curves([STRONG, WEAK])
    whole, end = figure.axes
    curves = {
        (line.get_color(), line.get_linestyle()): line.get_xydata().tolist()
        for line in whole.lines
        if line.get_marker() == "None"
    }
    assert curves == {
        (PARTS["train"], "-"): [[20, 4], [40, 3], [60, 2.5], [80, 2.2], [100, 2.0]],
        (PARTS["validation"], "-"): [[20, 3], [40, 2.5], [60, 2.2], [80, 2.1], [100, 2.05]],
        (PARTS["train"], "--"): [[60, 3.5], [100, 1.9]],  # the second evaluation is due after 120 steps: the last one
        (PARTS["validation"], "--"): [[60, 2.8], [100, 2.1]],
    }
    for panel in (whole, end):
        marks = {marker: [line for line in panel.lines if line.get_marker() == marker] for marker in "ox"}
        assert [line.get_xydata().tolist() for line in marks["o"]] == [[[100, 2.05]], [[100, 2.1]]]
        assert [line.get_xydata().tolist()[0] for line in marks["x"]] == [[100, pytest.approx(1.95)], [100, 2.0]]
        assert {line.get_color() for line in marks["x"]} == {PARTS["test"]}
    assert end.lines[0].get_xydata().tolist() == [[60, 2.5], [80, 2.2], [100, 2.0]]  # the last two fifths
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "training, with dropout",
        "validation, dot: chosen",
        "test of the chosen weights",
        "weight decay 0.5: validation 2.050, test 1.950",
        "weight decay 0.1: validation 2.100, test 2.000",
    ]
    assert not any(panel.get_legend() for panel in figure.axes)
    assert figure.get_suptitle() == ("GPT on the Divina Commedia: 6 layers of width 192, 1,234 parameters, 1 seed each")


def test_a_loss_is_per_character_where_a_token_is_one_and_per_token_elsewhere():
    whole, end = plot.learning_curves([STRONG]).axes
    (right,) = end.child_axes
    assert (whole.get_ylabel(), right.get_ylabel()) == ("loss (nats per character)", "bits per character")
    assert right._functions[0](math.log(2)) == pytest.approx(1)
    whole, end = plot.learning_curves([trained("gpt-seed0", [(4, 3)], per_token=2, dropout=0.0)]).axes
    (right,) = end.child_axes
    assert (whole.get_ylabel(), right.get_ylabel()) == ("loss (nats per token)", "bits per character (validation)")
    assert right._functions[0](math.log(2)) == pytest.approx(0.5)


def test_several_seeds_have_a_mean_in_the_legend_and_no_dropout_is_not_named():
    runs = [trained(f"gpt-seed{seed}", [(4, loss)], dropout=0.0) for seed, loss in enumerate((3.0, 4.0))]
    figure = plot.learning_curves(runs)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[0] == "training"
    assert texts[3:] == ["weight decay 0.5: validation 3.500, test 3.400"]
    assert figure.get_suptitle().endswith("1,234 parameters, 2 seeds")


def test_decoding_by_hand():
    shares = {"greedy": (0.1, 0.2, 0.3), "sampling": (0.6, 0.9, 0.0), plot.ITSELF: (0.5, 0.95, 0.01)}
    run = {
        "dataset": "divina_commedia",
        "config": {"samples": 10, "length": 500, "model": None, "run": "folder/gpt-seed0"},
        "tokenizers": {
            "characters": {"characters_per_token": 1.0, "lines": [[3, 3], [5, 5]]},
            "folder/bpe-4096": {"characters_per_token": 2.5, "lines": [[3, 1], [5, 2]]},
        },
        "decoding": {name: dict(zip(plot.MEASURES, each, strict=True)) for name, each in shares.items()},
    }
    figure = plot.decoding_figure([run])
    lines, *panels = figure.get_axes()
    assert [line.get_xydata().tolist() for line in lines.lines] == [[[3, 3], [5, 5]], [[3, 1], [5, 2]]]
    legend = lines.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [
        "characters:\n1.00 characters per token",
        "byte pairs, 4,096 tokens:\n2.50 characters per token",
    ]
    assert legend.get_bbox_to_anchor().transformed(lines.transAxes.inverted()).x0 == 1  # beside the data
    assert len({line.get_marker() for line in lines.lines}) == 2
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["greedy", "sampling", plot.ITSELF]
    widths = [[bar.get_width() for bar in panel.patches] for panel in panels]
    assert widths == [pytest.approx(each) for each in ([10, 60, 50], [20, 90, 95], [30, 0, 1])]
    assert [panel.lines[0].get_xdata()[0] for panel in panels] == pytest.approx([50, 95, 1])
    assert [text.get_text() for text in panels[2].texts] == ["30.0 %", "0.0 %", "1.0 %"]
    assert [panel.get_title() for panel in panels] == list(plot.MEASURES.values())
    assert figure.get_suptitle() == (
        "Lines of the Divina Commedia in tokens, and 10 texts of 500 tokens by each way of decoding, gpt-seed0"
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("characters", "characters"),
        ("bpe-512", "byte pairs, 512 tokens"),
        ("openai-community/gpt2", "gpt2"),
        ("bpe-mine", "bpe-mine"),
    ],
)
def test_tokenizers_in_words(name, words):
    assert plot.tokenizer_in_words(name) == words


def test_weights_chosen_early_are_marked_on_the_left_alone():
    early = STRONG | {"best_epoch": 1, "validation": {"loss": 3.0, "bits_per_character": 4.0}, "test": {"loss": 2.9}}
    whole, end = plot.learning_curves([early]).axes
    assert [line.get_xydata().tolist() for line in whole.lines if line.get_marker() == "o"] == [[[20, 3.0]]]
    assert [line.get_marker() for line in end.lines] == ["None", "None"]
    stopped = trained("gpt-seed0", [(4, 3), (3, 3.1)])  # after 40 of 100 steps
    assert plot.learning_curves([stopped]).axes[1].lines[0].get_xydata().tolist() == [[40, 3]]


def test_published_runs_of_one_model_are_on_one_figure():
    runs = plot.Config().read()
    trained = plot.models([run for run in runs if run["script"] == "lab2/train_gpt.py"])
    assert {name: len(same) for name, same in trained.items()} == {
        "gpt-6x192": 6,  # three seeds at two weight decays
        "gpt-5x96": 1,
        "gpt-4x128-900steps": 3,
        "gpt-modern-6x192": 3,
        "gpt-modern-6x192-6600steps": 1,
        "gpt-modern-6x192-tinyshakespeare": 1,
        "gpt-ag_news-bpe1024": 1,
    }
