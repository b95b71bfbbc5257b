"""The figures of exercises 3.1 to 3.3: what is on them, by hand."""

import pytest
from matplotlib import pyplot

from lab1.engine.figures import PARTS
from lab2.tasks import figures


@pytest.fixture(autouse=True)
def without_a_screen():
    pyplot.switch_backend("Agg")
    yield
    pyplot.close("all")


def rows_of(panel) -> list[str]:
    return [label.get_text() for label in panel.get_yticklabels()]


def dots_of(panel, marker="o") -> list[list[tuple[float, float]]]:
    lines = [line for line in panel.lines if line.get_marker() == marker]
    return [[tuple(map(float, point)) for point in line.get_xydata()] for line in lines]


def bars_of(panel) -> list[list[float]]:
    return [collection.get_segments()[0][:, 0].tolist() for collection in panel.collections]


def classified(method, right, seed=0, learning=1000, rate=None, **more):
    """A run of classify_text.py: of 100 test texts so many are right, and of 100 validation texts two fewer."""
    confusion = [[right // 2, 50 - right // 2], [50 - (right - right // 2), right - right // 2]]
    test = {"accuracy": right / 100, "macro_f1": 0.5, "trainable_parameters": learning, "confusion": confusion}
    config = {"method": [method], "model": "hub/mini", "seed": seed, "learning_rate": rate, "epochs": 2}
    return {
        "validation": {"accuracy": (right - 2) / 100},
        "script": "lab2/classify_text.py",
        "dataset": "ag_news",
        "config": config,
        "test": test,
        "seconds": 1,
    } | more


def test_accuracy_by_method_by_hand():
    tuned = [classified("finetune", right, seed) for seed, right in enumerate((80, 90))]
    figure = figures.classification_figure("ag_news", [*tuned, classified("tfidf", 50), classified("lora", 64)])
    (panel,) = figure.axes
    assert rows_of(panel) == [
        "TF-IDF\n1,000 parameters learn",
        "LoRA\n1,000 parameters learn",
        "full fine-tuning, 2 seeds\n1,000 parameters learn",
    ]
    assert dots_of(panel) == [[(50, 0)], [(64, 1)], [(80, 2), (90, 2)]]
    assert dots_of(panel, "|") == [[(pytest.approx(85), 2)]]
    # 1.96 sqrt(p (1 - p) / 100): 9.8 points at 50 %, 9.408 at 64 %, 6.9986 at 85 %
    expected = [[40.2, 59.8], [54.592, 73.408], [78.0014, 91.9986]]
    assert bars_of(panel) == [pytest.approx(each, abs=1e-4) for each in expected]
    assert {line.get_color() for line in panel.lines} == {PARTS["test"]}
    assert panel.get_xlabel() == "test accuracy (%)"
    assert figure.get_suptitle() == "AG News: test accuracy by method, mini"
    assert figure.get_supxlabel() == (
        "Dots: runs. Bars: 95 % interval of an accuracy over 100 test texts (normal approximation), around the mean "
        "over seeds, the stroke."
    )
    alone = figures.classification_figure("ag_news", [classified("tfidf", 50)])
    assert alone.get_supxlabel().endswith("test texts (normal approximation).")
    assert alone.get_suptitle() == "AG News: test accuracy by method"


def test_validation_chooses_the_rate_that_is_drawn():
    runs = [classified("lora", right, rate=1e-3) for right in (90, 94)]
    # Better in validation, worse in the test.
    runs += [classified("lora", 80, seed, rate=2e-3, validation={"accuracy": 0.95}) for seed in range(2)]
    (panel,) = figures.classification_figure("ag_news", runs).axes
    assert rows_of(panel) == ["LoRA, 2 seeds\n1,000 parameters learn"]
    assert dots_of(panel) == [[(80, 0), (80, 0)]]


def test_methods_with_two_models_name_them():
    other = classified("lora", 70)
    other["config"]["model"] = "hub/large"
    figure = figures.classification_figure("ag_news", [classified("tfidf", 50), classified("lora", 64), other])
    names = [row.split("\n")[0] for row in rows_of(figure.axes[0])]
    assert names == ["TF-IDF", "LoRA, large", "LoRA, mini"]


def test_frozen_features_by_layer_by_hand():
    tried = [
        {"pooling": "cls", "layer": 0, "accuracy": 0.5},
        {"pooling": "cls", "layer": 1, "accuracy": 0.6},
        {"pooling": "cls", "layer": 1, "accuracy": 0.7},  # the better classifier of this layer
        {"pooling": "mean", "layer": 1, "accuracy": 0.8},
        {"pooling": "mean", "layer": 0, "accuracy": 0.75},
    ]
    run = classified("features", 78, tried=tried, chosen={"layer": 1, "accuracy": 0.8})
    _, panel = figures.classification_figure("ag_news", [run]).axes
    mean, first, chosen = panel.lines
    assert [line.get_label() for line in panel.lines] == ["mean over tokens", "first token", "chosen"]
    assert mean.get_xydata().tolist() == [[0, 75], [1, 80]]
    assert first.get_xydata().tolist() == [[0, 50], [1, 70]]
    assert chosen.get_xydata().tolist() == [[1, 80]]
    # Both are validation accuracies, and have its colour; they differ in the kind of line.
    assert {mean.get_color(), first.get_color()} == {PARTS["validation"]}
    assert (mean.get_linestyle(), first.get_linestyle()) == ("-", "--")
    assert panel.get_legend().get_bbox_to_anchor().transformed(panel.transAxes.inverted()).y0 < 0  # below the data


def answered(validation, test, seed=0, method="finetune", loss="cross-entropy", model="hub/mini", **more):
    config = {"method": method, "loss": loss, "model": model, "seed": seed} | more
    found = {"validation": {"accuracy": validation}, "test": {"accuracy": test}}
    return found | {"config": config, "choices": [4], "chance": 0.25}


def test_controls_have_rows_of_their_own():
    runs = [answered(0.5, 0.5, control=None), answered(0.3, 0.3, control="length-only")]
    runs += [answered(0.25, 0.26, seed, control="random-labels") for seed in range(2)]
    (panel,) = figures.choice_figure("codah", runs).axes
    assert rows_of(panel) == [
        "control: the choices' lengths alone\nlinear classifier, 1 run",
        "control: fine-tuned on random labels\nmini, 2 runs",
        "fine-tuned, cross-entropy\nmini, 1 run",
    ]


def test_other_flags_are_no_other_seed():
    runs = [answered(0.5, 0.5, seed, epochs=epochs) for seed, epochs in ((0, 1), (1, 1), (0, 3))]
    (panel,) = figures.choice_figure("codah", runs).axes
    assert rows_of(panel) == [
        "fine-tuned, cross-entropy\nmini, epochs 1, 2 runs",
        "fine-tuned, cross-entropy\nmini, epochs 3, 1 run",
    ]
    small = classified("lora", 60)
    small["config"]["batch_size"] = 8
    large = classified("lora", 70, seed=1)
    large["config"]["batch_size"] = 64
    rows = figures.classification_rows([small, large])
    assert [(row["flags"], row["runs"], row["chosen"]) for row in rows] == [
        ("batch size 8", 1, False),
        ("batch size 64", 1, True),
    ]


def test_flags_without_meaning_for_a_method_make_no_other_row():
    words = [classified("tfidf", right) for right in (60, 62)]
    tuned = [classified("lora", 70), classified("finetune", 70)]
    for one, epochs in zip((*words, *tuned), (1, 2, 3, 4), strict=True):
        one["config"] |= {"epochs": epochs, "model": f"hub/{epochs}", "layer": epochs}
    rows = figures.classification_rows([*words, *tuned])
    assert [(row["method"], row["flags"], row["same"]) for row in rows] == [
        ("tfidf", "", words[1:]),
        ("lora", "", tuned[:1]),
        ("finetune", "", tuned[1:]),
    ]


def test_two_data_sets_of_one_name_have_two_figures():
    here, there = classified("tfidf", 60), classified("tfidf", 90)
    here["config"]["dataset"], there["config"]["dataset"] = "here/news", "there/news"
    found = figures.task_figures([here, there])
    assert list(found) == ["classify-ag_news, here/news", "classify-ag_news, there/news"]
    assert [dots_of(figure.axes[0]) for figure in found.values()] == [[[(60, 0)]], [[(90, 0)]]]
    there["config"]["dataset"] = "here/news"
    assert list(figures.task_figures([here, there])) == ["classify-ag_news"]


def test_multiple_choice_by_hand():
    runs = [answered(0.5, value, seed) for seed, value in enumerate((0.5, 0.52, 0.54))]
    runs += [answered(0.6, 0.61, loss="margin"), answered(0.3, 0.28, method="likelihood", model="runs/gpt-seed0")]
    figure = figures.choice_figure("codah", runs)
    (panel,) = figure.axes
    assert rows_of(panel) == [
        "likelihood, not trained\ngpt-seed0, 1 run",
        "fine-tuned, cross-entropy\nmini, 3 runs",
        "fine-tuned, margin ranking\nmini, 1 run",
    ]
    validation, test = -0.17, 0.17
    assert dots_of(panel) == [
        [(30, validation)],
        [(pytest.approx(28), test)],
        [(50, 1 + validation)] * 3,
        [(50, 1 + test), (52, 1 + test), (54, 1 + test)],
        [(60, 2 + validation)],
        [(61, 2 + test)],
    ]
    assert dots_of(panel, "|") == [[(50, 1 + validation)], [(52, 1 + test)]]
    # sd 2, t with 2 degrees of freedom 4.3027: 4.3027 x 2 / sqrt(3) = 4.9683; single runs have no interval
    assert bars_of(panel) == [[50, 50], pytest.approx([47.0317, 56.9683], abs=1e-4)]
    assert panel.lines[-1].get_xdata() == [25, 25]
    legend = panel.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["validation", "test", "chance, four choices"]
    assert legend.get_bbox_to_anchor().transformed(panel.transAxes.inverted()).x0 == 1  # beside the data
    assert figure.get_supxlabel() == (
        "Dots: runs. Strokes and bars: the mean over seeds and its 95 % interval by Student's t."
    )
    mixed = figures.choice_figure("arc", [run | {"choices": [3, 4, 5], "chance": 0.2497} for run in runs]).axes[0]
    assert mixed.lines[-1].get_xdata() == [24.97, 24.97]
    assert mixed.get_legend().get_texts()[-1].get_text() == "chance, three to five choices"
    five = figures.choice_figure("csqa", [run | {"choices": [5], "chance": 0.2} for run in runs]).axes[0]
    assert (five.lines[-1].get_xdata(), five.get_legend().get_texts()[-1].get_text()) == (
        [20, 20],
        "chance, five choices",
    )
    assert figures.choice_figure("codah", runs[-1:]).get_supxlabel() == "Dots: runs."
    assert figure.get_suptitle() == "CODAH: accuracy in multiple choice"


def searched(ndcg: dict[str, list[float]], finetune=False, seed=0, model="hub/mini"):
    """A run of retrieve.py with nDCG@10 by query; every other number is that of the first query."""
    test = {}
    for system, queries in ndcg.items():
        numbers = dict.fromkeys(figures.MEASURES, queries[0])
        intervals = {f"{name}_interval": [queries[0] - 0.1, queries[0] + 0.2] for name in figures.MEASURES}
        test[system] = {"queries": queries} | numbers | intervals
    return {"config": {"finetune": finetune, "model": model, "seed": seed}, "test": test}


BEFORE = searched({"bm25": [0.5, 0.5, 0.5], "dense": [0.4, 0.6, 0.8], "hybrid": [0.7, 0.7, 0.7]})
AFTER = searched({"bm25": [0.5, 0.5, 0.5], "dense": [0.5, 0.7, 0.9], "hybrid": [0.6, 0.7, 0.8]}, finetune=True)


def test_search_by_hand():
    figure = figures.search_figure("cranfield", [AFTER, BEFORE])
    *panels, differences = figure.get_axes()
    assert rows_of(panels[0]) == ["BM25", "dense", "hybrid", "dense, fine-tuned", "hybrid, fine-tuned"]
    assert [panel.get_xlabel() for panel in panels] == ["nDCG@10", "recall@100", "MRR"]
    for panel in panels:
        assert dots_of(panel) == [[(0.5, 0)], [(0.4, 1)], [(0.7, 2)], [(0.5, 3)], [(0.6, 4)]]
        assert bars_of(panel)[:2] == [pytest.approx([0.4, 0.7]), pytest.approx([0.3, 0.6])]
    assert rows_of(differences) == [
        "dense minus BM25",
        "hybrid minus BM25",
        "hybrid minus dense",
        "dense: fine-tuned minus as it is",
        "hybrid: fine-tuned minus as it is",
    ]
    means = [dots[0][0] for dots in dots_of(differences)]
    assert means == [pytest.approx(value, abs=1e-12) for value in (0.1, 0.2, 0.1, 0.1, 0)]
    # Differences -0.1, 0.1, 0.3: sd 0.2, 4.3027 x 0.2 / sqrt(3) = 0.49683. The others: none, sd 0.2, none, sd 0.1.
    half = 0.49683
    expected = [[0.1 - half, 0.1 + half], [0.2, 0.2], [0.1 - half, 0.1 + half], [0.1, 0.1], [-half / 2, half / 2]]
    assert bars_of(differences) == [pytest.approx(each, abs=1e-5) for each in expected]
    texts = [text.get_text() for text in differences.texts]
    assert texts[:2] == ["+0.100 [-0.397, 0.597]", "+0.200 [0.200, 0.200]"]
    assert differences.lines[-1].get_xdata() == [0, 0]
    assert figure.get_suptitle() == "Cranfield, 3 test queries, mini"
    assert "Student's t" in figure.get_supxlabel()
    assert "bootstrap" in figure.get_supxlabel()


def test_what_search_compares_with_several_seeds_and_models():
    alone = [name for name, _, _ in figures.search_pairs([AFTER])]
    assert alone == [f"{pair}, fine-tuned" for pair in ("dense minus BM25", "hybrid minus BM25", "hybrid minus dense")]
    again = AFTER | {"config": AFTER["config"] | {"seed": 1}}
    names = [name for name, _, _ in figures.search_pairs([BEFORE, AFTER, again])]
    assert names[3:] == [
        f"{system}: fine-tuned, seed {seed} minus as it is" for seed in (0, 1) for system in ("dense", "hybrid")
    ]
    short, long = (AFTER | {"config": AFTER["config"] | {"epochs": epochs}} for epochs in (1, 4))
    lines = [name for name, _ in figures.search_lines([short, long])]
    assert lines == ["BM25", *(f"{s}, fine-tuned, epochs {n}" for n in (1, 4) for s in ("dense", "hybrid"))]
    large = BEFORE | {"config": BEFORE["config"] | {"model": "hub/large"}}
    lines = [name for name, _ in figures.search_lines([BEFORE, large])]
    assert lines == ["BM25", "dense, large", "hybrid, large", "dense, mini", "hybrid, mini"]


def test_paired_difference_by_hand():
    mean, low, high = figures.paired_difference({"queries": [0.1, 0.5, 0.9]}, {"queries": [0.3, 0.7, 1.1]})
    assert (mean, low, high) == (pytest.approx(0.2), pytest.approx(0.2), pytest.approx(0.2))
    mean, low, high = figures.paired_difference({"queries": [0.0] * 100}, {"queries": [1.0] * 50 + [0.0] * 50})
    assert mean == 0.5
    # sd sqrt(25 / 99) = 0.50252, t with 99 degrees of freedom 1.98422: 1.98422 x 0.050252 = 0.09971
    assert (low, high) == (pytest.approx(0.40029, abs=1e-5), pytest.approx(0.59971, abs=1e-5))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("rotten_tomatoes", "Rotten Tomatoes"),
        ("divina_commedia", "the Divina Commedia"),
        ("data/ag_news/train.csv", "ag_news/train.csv"),
        ("mood.txt", "mood.txt"),
        ("owner/name", "owner/name"),
    ],
)
def test_data_in_words(data, words):
    assert figures.in_words(data) == words
