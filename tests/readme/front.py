"""The numbers of README.md."""

from statistics import fmean, median

from lab1.engine.metrics import paired_interval
from tests.readme import benchmarks, lab1, lab2, lab3
from tests.readme.pages import Page
from tests.readme.runs import each, mean_sd, percent, read


def check(page: Page) -> None:
    """Everything, in the order of the page."""
    for part in (pictures, found, exercises, times):
        page.part(part)
    page.leave(
        'what the section "Changing it" says, which tests/test_changing.py does', r"All 200 test images|returns -5 on"
    )
    page.leave("cells of the section's corridor", r"`channels=1` are for `train_mlp.py`, those with 3 for")
    page.leave("exit statuses", r"Exit status: 0 done; 2 an\s|; 1 the run failed; 130 / 143 stopped")
    page.leave("versions", r"Python 3\.11 or newer")
    page.leave("sizes of data sets", r"the 1,797 digits")


def pictures(page: Page) -> None:
    run = read("lab2", "gpt-6x192-seed0")
    page.says("A GPT of {} million parameters, after {} minutes of Dante", run["parameters"] / 1e6, run["seconds"] / 60)


def found(page: Page) -> None:
    """What we found."""
    mnist = {name: percent(lab1.runs(name)) for name in ("mlp-128-64", "mlp-128-64-augment")}
    values = [number for runs in mnist.values() for number in mean_sd(runs)]
    page.says("| {} ± {} % of the test set; {} ± {} % if training images are distorted (n = {}) |", *values, 5)
    (few, many), (few_too, many_too) = zip(*(lab1.twins("depth-cnn-tuned", depth) for depth in (5, 20)), strict=True)
    page.says(
        "From {} blocks to {} a residual CNN gains {} [{}, {}] points", 5, 20, *paired_interval(many_too, few_too)
    )
    page.says("its plain twin loses {} [{}, {}] (n = {})", *paired_interval(few, many), len(few))
    (*_, plain), (*_, residual) = (lab1.measured("batch", 20, kind, "start") for kind in ("plain", "residual"))
    page.says("cosine is {} in the plain network of {} blocks, {} in", abs(round(plain[0], 2)), 20, residual[0])
    page.says("before training (n = {})", len(read("lab1", "gradients-batch")["config"]["seeds"]))
    cam, none = (
        [100 * each for each in lab1.over_networks("pointing_game", which)] for which in ("cam", "random weights")
    )
    images = read("lab1", "cam-rescnn3-16-shapes-seed0")["test"]["images"]
    page.says(
        "in {} ± {} % of {} images (n = {}), with random weights in {} %", *mean_sd(cam), images, len(cam), fmean(none)
    )
    dante = lab2.runs("gpt-6x192")
    loss, perplexity = (mean_sd(each(dante, "test", name)) for name in ("loss", "perplexity"))
    page.says("| {} ± {} nats a character on the last cantos, perplexity {} (n = {})", *loss, perplexity[0], len(dante))
    modern = each(lab2.runs(lab2.MODERN), "test", "loss")
    page.says("); {} ± {} in half the steps with", *mean_sd(modern))
    page.says("with what came after GPT-2 (n = {})", len(modern))
    words = percent(lab2.films()["TF-IDF"])
    lora, full = (percent(lab2.at_rate(*chosen)) for chosen in lab2.CHOSEN.items())
    page.says(
        "{} ± {} % with LoRA, {} ± {} % fully fine-tuned (n = {}); {} % by",
        *mean_sd(lora),
        *mean_sd(full),
        len(full),
        *words,
    )
    bm25, hybrid = (read("lab2", lab2.SEARCH)["test"][name]["queries"] for name in ("bm25", "hybrid"))
    page.says("together nDCG@10 rises by {} [{}, {}] over BM25", *paired_interval(hybrid, bm25))
    cartpole, lander = (lab3.runs(lab3.PPO[name]) for name in ("CartPole-v1, AMD", "LunarLander-v3"))
    seconds = fmean(lab3.seconds(lab3.PPO["CartPole-v1, AMD"]))
    page.says(
        "PPO solves CartPole ({} ± {}, n = {}) in {} seconds",
        *mean_sd(each(cartpole, "test", "return")),
        len(cartpole),
        seconds,
    )
    page.says("it returns {} ± {} (n = {}) after", *mean_sd(each(lander, "test", "return")), len(lander))
    page.says("after {} to {} minutes |", *(end(each(lander, "seconds")) / 60 for end in (min, max)))


def exercises(page: Page) -> None:
    """The table of all exercises: minutes and what to expect."""
    page.leave("sizes of downloads", r"\| [\d.]+ MB \|$")
    mnist = fmean(percent(lab1.runs("mlp-128-64")))
    page.says("| {} % test accuracy on MNIST |", mnist)
    plain, residual = (fmean(kind) for kind in lab1.twins("depth-mlp", 50))
    page.says("{} % test accuracy at depth {} with residual connections, {} % without", residual, 50, plain)
    page.says("| {} % test accuracy on CIFAR-10 |", *percent(lab1.runs("rescnn9-16")))
    fast = lab1.runs("fast-64")
    six = fmean(lab1.with_views(fast))
    page.says("| {} % test accuracy on CIFAR-10, {} % looking six times at each image |", fmean(percent(fast)), six)
    whole = fmean(percent(lab1.variant("all"))) - fmean(percent(lab1.variant("none")))
    page.says("what each trick is worth, {} points all together |", whole)
    rows = read("lab1", "gradients-batch")["summary"]
    plain, residual = (row["first_to_last"][0] for row in rows if (row["depth"], row["moment"]) == (20, "start"))
    page.says("layer's gradient is {} times the last one's at depth {}, {} times in its twin", plain, 20, residual)
    lenet = read("lab1", "detect-lenet-seed0")["test"]
    page.says("F1 of {} on random canvases, {} on grids", lenet["f1"], lenet["grid"]["f1"])
    cam = read("lab1", "cam-rescnn3-16-shapes-seed0")["test"]
    page.says("lies on the object in {} % of {} test images", 100 * cam["pointing_game"]["cam"]["mean"], cam["images"])
    loss, perplexity = (fmean(each(lab2.runs("gpt-6x192"), "test", name)) for name in ("loss", "perplexity"))
    page.says("{} nats a character (perplexity {}) on the last {} % of the poem", loss, perplexity, 5)
    small, large = (read("lab2", f"generate-gpt-{size}-seed0")["decoding"] for size in ("5x96", "6x192"))
    repeated = [100 * decoding[way]["repetition"] for decoding in (small, large) for way in ("greedy", "sampling")]
    page.says("{} % of greedy text's 4-grams repeated, {} % of sampled text's; {} and {} % once", *repeated)
    page.says(
        "{}, {}, {} and {} % test accuracy on Rotten Tomatoes",
        *(fmean(percent(runs)) for runs in lab2.films().values()),
    )
    answers = fmean(percent(lab2.runs(f"answer-codah-finetune-{lab2.ENCODER}")))
    page.says("{} % test accuracy on CODAH, where chance is {} %", answers, 25)
    search = read("lab2", lab2.SEARCH)["test"]
    scores = [search[system]["ndcg@10"] for system in ("bm25", "dense", "hybrid")]
    page.says(
        "nDCG@10 of {} for BM25, {} for vectors, {} for both, on the {} test", *scores, len(search["bm25"]["queries"])
    )
    value = lab3.returns(lab3.baseline("learned value", "AMD"))
    page.says("a test return of {} on CartPole-v1 in the mean of {} seeds, with a learned", fmean(value), len(value))
    page.says("a test return of {} on CartPole-v1 |", fmean(lab3.returns(lab3.DQN["CartPole-v1, returns of 10 steps"])))
    solved = lab3.PPO["CartPole-v1, AMD"], lab3.DQN["CartPole-v1, returns of 10 steps"]
    three = *(fmean(lab3.returns(name)) for name in solved), fmean(value)
    page.says("a mean test return of {} to {} for PPO, DQN and REINFORCE", min(three), max(three))
    lander = lab3.returns("ppo-LunarLander-v3")
    page.says(
        "a test return of {} on LunarLander-v3, the mean of five seeds between {} and {}",
        fmean(lander),
        min(lander),
        max(lander),
    )
    played = lab3.played("ppo-LunarLander-v3-seed0", "greedy")
    numbers = played["return"], played["return_sd"], played["episodes"], lander[0]
    page.says("a return of {} ± {} over {} episodes of LunarLander-v3; that of its test was {}", *numbers)


def times(page: Page) -> None:
    """How long each command takes; some of these runs were made on a busy machine."""

    def spent(runs, unit: float = 60) -> float:
        return fmean(each(runs, "seconds")) / unit

    depth = sum(each(read("lab1", "depth-mlp")["runs"], "seconds"))
    classify = sum(min(each(runs, "seconds")) for runs in lab2.films().values())
    compared = (lab3.PPO["CartPole-v1, AMD"], *list(lab3.DQN.values())[:1], lab3.baseline("learned value", "AMD"))
    page.about("`python lab1/train_mlp.py` | {} seconds |", spent(lab1.runs("mlp-128-64"), 1))
    page.about("--family mlp` | {} minutes |", depth / 60)
    page.about("--learning-rate 0.2` | {} hours |", spent(lab1.runs("rescnn9-16"), 3600))
    cpu = benchmarks.on_a_processor()["seconds"]
    page.about(
        "train_fast.py` | {} minutes with AMX, {} seconds on a GPU |",
        cpu / 60,
        spent(lab1.runs("fast-64"), 1),
    )
    ablation = sum(each(read("lab1", lab1.ABLATION)["runs"], "seconds"))
    page.about("--goal 0.9` | {} minutes on a GPU, hours without |", ablation / 60)
    page.about("`python lab1/detect_digits.py` | {} minutes |", spent(lab1.runs("detect-lenet")))
    page.about("`python lab2/train_gpt.py` | {} minutes on one core |", spent(lab2.runs("gpt-6x192")[:1]))
    page.about("| {} minutes on one core | 77,", classify / 60)
    page.about("| {} minutes on one core | 55", spent(lab2.runs(f"answer-codah-finetune-{lab2.ENCODER}-margin")))
    page.about("`python lab3/train_reinforce.py` | {} seconds on one core |", spent(lab3.runs(compared[2]), 1))
    page.about("--env LunarLander-v3` | {} minutes on one core |", spent(lab3.runs("ppo-LunarLander-v3")))
    page.about(
        "| {} minutes on one core | a mean", sum(5 * median(each(lab3.runs(name), "seconds")) for name in compared) / 60
    )
    taken = {name: benchmarks.result("commands")[name]["seconds"] for name in ("compare_gradients", "explain_cam")}
    page.about("compare_gradients.py` | {} minutes |", taken["compare_gradients"] / 60)
    page.about("--evaluate` | {} seconds |", taken["explain_cam"])
