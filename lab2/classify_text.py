"""Exercise 3.1. How well can the class of a text be told, by four methods?

Command:  python lab2/classify_text.py --method tfidf features lora finetune --model sentence-transformers/all-MiniLM-L6-v2
Time:     11 minutes on one core
Expect:   77, 77, 83 and 82 % test accuracy on Rotten Tomatoes

    python lab2/classify_text.py --method tfidf                   counted words and a linear classifier
    python lab2/classify_text.py --method features                a frozen encoder and a linear classifier
    python lab2/classify_text.py --method lora                    low-rank updates learn beside the encoder
    python lab2/classify_text.py --method finetune                all of the encoder learns
    python lab2/classify_text.py --method tfidf features lora --model FOLDER --dataset DIR
    tensorboard --logdir lab2/model

Rotten Tomatoes and DistilBERT unless others are named; DIR has train.csv with text,label. The features are [CLS] or the
mean over tokens of every layer; validation chooses among them, the classifier and its regularisation. At the end comes
a table of all runs so far on this data set.
"""  # noqa: E501

import contextlib
import dataclasses
import time
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

from lab1.engine.config import Real, TrainConfig, Whole, flag, require
from lab1.engine.devices import find_precision
from lab1.engine.launch import launch, prepare

RATES = {"finetune": 5e-5, "lora": 1e-3}


@dataclasses.dataclass
class Config(TrainConfig):
    """The flags of this script."""

    method: tuple[Literal["tfidf", "features", "finetune", "lora"], ...] = ("finetune",)
    """One or several, each a run of its own."""
    model: str = "distilbert/distilbert-base-uncased"
    """The encoder: a folder, a folder under --data-dir, or a name of the Hugging Face hub."""
    dataset: str = "rotten_tomatoes"
    """A folder of train, validation and test as .csv or .jsonl with text and label; one such file; or a data set of the
    hub, such as ag_news. The first lines of a .csv:
    text,label
    "A fine film, and short.",good"""
    epochs: int = 2
    batch_size: int = 32
    learning_rate: Real = None
    """Peak learning rate, per step (default: 5e-5; for lora 1e-3)."""
    patience: int = 0
    """Epochs without a better validation loss before training stops; 0 never stops early."""
    select: Literal["loss", "accuracy"] = "loss"
    """What chooses the epoch in validation; the first of equals."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of matrix products; bf16 is autocast. auto: bf16 where this device is faster in it."""
    max_length: int = 128
    """Tokens of a text, at most; the rest is cut off."""
    layer: Whole = None
    """Take the features after this layer, 0 for the embeddings (default: validation chooses)."""
    pooling: Annotated[Literal["cls", "mean"] | None, flag("{cls,mean}")] = None
    """Take the features of the first token, or their mean over tokens (default: validation chooses)."""
    classifier: Annotated[Literal["logistic", "svm"] | None, flag("{logistic,svm}")] = None
    """Logistic regression, or a linear support vector machine (default: validation chooses)."""
    lora_rank: int = 8
    """Rank of the updates; they are scaled by alpha / rank = 2."""
    workers: int = 1
    """Methods side by side, each in a process of its own; on GPUs each on one of its own."""
    threads: Whole = None
    """Threads that each method computes with (default: all cores, divided by --workers)."""

    def check(self) -> None:
        super().check()
        require(len(self.method) > 0, "--method: at least one is needed, such as --method tfidf features")
        require(len(set(self.method)) == len(self.method), f"--method {' '.join(self.method)}: one is there twice")
        require(self.max_length >= 4, f"--max-length {self.max_length}: at least 4 tokens are needed")
        require(self.layer is None or self.layer >= 0, f"--layer {self.layer}: 0 or more is needed")
        require(self.lora_rank >= 1, f"--lora-rank {self.lora_rank}: at least 1 is needed")
        require(self.workers >= 1, f"--workers {self.workers}: at least 1 is needed")
        threads = self.threads
        require(threads is None or 1 <= threads <= 1024, f"--threads {threads}: a number from 1 to 1024 is needed")
        shallow = {"tfidf", "features"} & set(self.method)
        require(not shallow or self.resume is None, "--resume: --method tfidf and features are quick; run them again")
        require(
            self.name is None or len(self.method) == 1, f"--name {self.name}: with several methods each has its own"
        )

    def describe(self) -> str:
        (method,) = self.method
        parts = ["classify", Path(self.dataset).name.split(".")[0], method]
        parts += [] if method == "tfidf" else [Path(self.model).name]
        if method in RATES:
            parts += [f"lr{self.learning_rate:g}"] if self.learning_rate not in (None, RATES[method]) else []
            parts += [f"by-{self.select}"] if self.select != "loss" else []
            parts += [f"seed{self.seed}"]
        return "-".join(parts)


def train(config: Config, data, device) -> dict[str, Any]:
    """Fine-tune all of the encoder, or low-rank updates beside it; returns the test metrics."""
    from lab2.tasks import encoders
    from lab2.tasks.batches import TextBatches, encode
    from lab2.tasks.trainer import TaskTrainer

    (method,) = config.method
    config.fill({"learning_rate": RATES[method]})
    places = config.data_folder(), not config.dry_run
    tokenizer = encoders.load_tokenizer(config.model, *places)
    model, new = encoders.load_encoder(config.model, "classification", places[0], device, places[1], len(data.classes))
    length = encoders.longest(tokenizer, model.network, config.max_length)
    if method == "lora":
        model = encoders.add_lora(model, config.lora_rank, 2 * config.lora_rank, 0.05, new)

    def batches(part: str) -> TextBatches:
        items, labels = data.parts[part]
        size, seed = (config.batch_size, config.seed) if part == "train" else (max(128, config.batch_size), None)
        limit = 3 if config.dry_run else None
        return TextBatches(encode(tokenizer, items, length), labels, size, tokenizer.pad_token_id, seed, limit)

    trainer = TaskTrainer(model, config, data.about() | {"classes": data.classes}, tokenizer=tokenizer)
    trainer.chosen_by = config.select
    trainer.train(batches("train"), batches("validation"))
    return trainer.test(batches("test"))


def fit(config: Config, data, device) -> dict[str, Any]:
    """A linear classifier on fixed features; returns the test metrics."""
    from lab1.engine import distributed
    from lab1.engine.figures import confusion_figure
    from lab1.engine.metrics import by_class
    from lab2.tasks import encoders, runs, shallow
    from lab2.tasks.datasets import PARTS

    require(distributed.world_size() == 1, "--method tfidf and features run in one process, without torchrun")
    began, encoder_parameters = time.perf_counter(), 0
    classifiers = shallow.CLASSIFIERS if config.classifier is None else (config.classifier,)
    if config.method == ("tfidf",):
        tables, strengths = shallow.tfidf_tables(data), shallow.TFIDF_C
    else:
        places = config.data_folder(), not config.dry_run
        tokenizer = encoders.load_tokenizer(config.model, *places)
        encoder, _ = encoders.load_encoder(config.model, "features", places[0], device, places[1])
        encoder_parameters = sum(parameter.numel() for parameter in encoder.parameters())
        length = encoders.longest(tokenizer, encoder.network, config.max_length)
        layers = encoder.network.config.num_hidden_layers
        require(config.layer is None or config.layer <= layers, f"--layer {config.layer}: this encoder has {layers}")
        texts = [text for part in PARTS for text in data.parts[part][0]]
        features = encoders.hidden_features(encoder, tokenizer, texts, length, 64, device, config.precision)
        sizes = [len(data.parts[part][0]) for part in PARTS]
        tables, strengths = shallow.feature_tables(features, sizes, config.layer, config.pooling), shallow.FEATURE_C
    chosen = shallow.choose(tables, data, strengths, classifiers)
    seconds = time.perf_counter() - began
    confusion = chosen.confusion["test"]
    test = by_class(confusion, data.classes)
    results = {
        "dataset": data.name,
        "parameters": encoder_parameters + chosen.parameters,
        "seconds": round(seconds, 2),
        "parts": data.sources,
        "chosen": chosen.settings,
        "tried": chosen.tried,
        "validation": {"accuracy": accuracy(chosen.confusion["validation"])},
        "test": {"accuracy": accuracy(chosen.confusion["test"]), "trainable_parameters": chosen.parameters} | test,
    }
    runs.write_run(config, device, results, partial(confusion_figure, confusion.numpy(), data.classes))
    return results["test"]


def accuracy(confusion) -> float:
    """The share of a confusion matrix that is on its diagonal."""
    return (confusion.diagonal().sum().double() / confusion.sum()).item()


@cache
def load_data(dataset: str, data_folder: Path, download: bool):
    """The texts: loaded once in each process."""
    from lab2.tasks import datasets

    return datasets.load_texts(dataset, data_folder, download)


def run_method(config: Config) -> dict[str, Any]:
    """One method, from the same seed whichever came before it; returns the test metrics."""
    device = prepare(config)
    data = load_data(config.dataset, config.data_folder(), not config.dry_run)
    data = data.thinned(3 * config.batch_size) if config.dry_run else data
    (method,) = config.method
    return (train if method in RATES else fit)(config, data, device)


def main(config: Config) -> list[dict[str, Any]]:
    """Each method, in turn or side by side; returns the test metrics of each."""
    from lab1.engine import distributed, workers
    from lab2 import classify_text  # by the name under which other processes import it
    from lab2.tasks import runs

    device, count = prepare(config), min(config.workers, len(config.method))
    require(count == 1 or distributed.world_size() == 1, "--workers: methods run side by side without torchrun")
    config.precision = find_precision(config.precision, device)
    runs.name_in_full(config)
    runs.use_tiny(config, data="texts", model="bert" if set(config.method) != {"tfidf"} else None)
    name = load_data(config.dataset, config.data_folder(), not config.dry_run).name
    jobs = [(method, dataclasses.replace(config, method=(method,))) for method in config.method]
    if count > 1:
        print(f"{len(jobs)} methods, {count} at a time", flush=True)
        threads = config.threads or max(1, workers.cores() // count)
        with contextlib.closing(workers.run_all(classify_text.run_method, jobs, count, threads)) as done:
            tests = dict(done)
    else:
        if config.threads is not None:
            workers.limit_threads(config.threads)
        tests = {method: run_method(job) for method, job in jobs}
    print(runs.classification_table(config.runs_folder(), name, config.dry_run, config.dataset))
    return [tests[method] for method in config.method]


if __name__ == "__main__":
    launch(main, Config)
