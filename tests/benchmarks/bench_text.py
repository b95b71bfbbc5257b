"""An encoder on short texts with this repository, against padding every text to the maximum length in fp32, in turn.

    python tests/benchmarks/bench_text.py --model FOLDER --dataset DIR

The encoder, the texts, the batch size, AdamW and the learning rate are the same on both sides. Ours is what a user of
classify_text.py gets: texts of about the same length together, padded to the longest of their batch, in the precision
that it finds best, with plain attention on a processor; for fine-tuning its Trainer, with accuracy and clipping. The
other side is what tutorials do: ``padding="max_length"`` to 128 tokens, fp32, batches in random order, a loop that
reports nothing. Each round times all four, one after the other, in one process that has warmed up; a ratio is the
median over the rounds of that round's ratio. Seconds are of this process's own time, so that a busy machine disturbs
them less.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import report
import torch

from lab1.engine.config import REPOSITORY
from lab1.engine.devices import find_precision
from lab2.classify_text import Config
from lab2.tasks import datasets, encoders
from lab2.tasks.batches import TextBatches, encode
from lab2.tasks.trainer import TaskTrainer

CPU, LENGTH = torch.device("cpu"), 128


def load(name: str, task: str):
    """The encoder as this repository loads it, and its tokenizer."""
    encoder, _ = encoders.load_encoder(name, task, REPOSITORY / "data", CPU, classes=2)
    return encoder, encoders.load_tokenizer(name, REPOSITORY / "data")


def usual(encoder, tokenizer, texts, batch_size: int):
    """Batches in order, padded to the maximum length, and attention as transformers chooses it."""
    encoder.network.set_attn_implementation("sdpa")
    settings = {"padding": "max_length", "truncation": True, "max_length": LENGTH, "return_tensors": "pt"}
    return [dict(tokenizer(texts[at : at + batch_size], **settings)) for at in range(0, len(texts), batch_size)]


def features(name: str, texts: list[str], batch_size: int, precision: str) -> dict[str, Callable[[], None]]:
    """Ways to get sentence vectors of all texts, tokenizing included."""
    ours, tokenizer = load(name, "features")
    theirs, _ = load(name, "features")

    def padded() -> None:
        with torch.no_grad():
            for inputs in usual(theirs, tokenizer, texts, batch_size):
                theirs(inputs)

    theirs.eval()
    return {
        "ours": lambda: encoders.sentence_vectors(ours, tokenizer, texts, LENGTH, batch_size, CPU, precision),
        "usual": padded,
    }


def training(name: str, data, count: int, batch_size: int, precision: str) -> dict[str, Callable[[], None]]:
    """Ways to fine-tune on ``count`` texts; each call takes as many steps again, on other texts."""
    texts, labels = data.parts["train"]
    rate = 5e-5

    def our_steps():
        model, tokenizer = load(name, "classification")
        settings = Config(batch_size=batch_size, learning_rate=rate, precision=precision, epochs=1000)
        settings.model_dir = Path(tempfile.mkdtemp())
        batches = TextBatches(encode(tokenizer, texts, LENGTH), labels, batch_size, tokenizer.pad_token_id, seed=0)
        trainer = TaskTrainer(model, settings, {})
        trainer.steps_per_epoch = len(batches)
        trainer.open()
        trainer.network.train()
        for number in range(settings.epochs):
            for batch in batches.epoch(number):
                trainer.averages.add(trainer.train_step(batch), trainer.weight(batch))
                trainer.averages.read()
                yield

    def usual_steps():
        model, tokenizer = load(name, "classification")
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
        model.train()
        while True:
            order = torch.randperm(len(texts)).tolist()
            batches = usual(model, tokenizer, [texts[row] for row in order[: 4 * count]], batch_size)
            for number, inputs in enumerate(batches):
                rows = order[number * batch_size : (number + 1) * batch_size]
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(inputs), labels[rows]).backward()
                optimizer.step()
                yield

    def run(steps) -> Callable[[], None]:
        return lambda: [None for _ in islice(steps, count // batch_size)] and None

    return {"ours": run(our_steps()), "usual": run(usual_steps())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--dataset", default="rotten_tomatoes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=512, help="texts to get features of in a round")
    parser.add_argument("--train-texts", type=int, default=256, help="texts to learn from in a round")
    parser.add_argument("--batch-size", type=int, default=32)
    flags = report.parse(parser)
    data, precision = datasets.load_texts(flags.dataset, REPOSITORY / "data"), find_precision("auto", CPU)
    order = torch.randperm(len(data.parts["train"][0]), generator=torch.Generator().manual_seed(0)).tolist()
    texts = [data.parts["train"][0][row] for row in order[: flags.texts]]
    kinds = {
        "features": (features(flags.model, texts, flags.batch_size, precision), len(texts)),
        "fine-tuning": (
            training(flags.model, data, flags.train_texts, flags.batch_size, precision),
            flags.train_texts // flags.batch_size * flags.batch_size,
        ),
    }
    print(
        f"{flags.model}, {data.name}, batch {flags.batch_size}, {torch.get_num_threads()} threads, ours in {precision}"
    )
    print(f"{'':14s}{'ours, texts/s':>15s}{'usual, texts/s':>16s}{'ours is faster by':>20s}")
    found = {}
    for kind, (ways, count) in kinds.items():
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(flags.rounds + 1):
            for name, work in ways.items():
                began = time.process_time()
                work()
                if number > 0:  # the first round warms up
                    seconds[name].append(time.process_time() - began)
        ratio = report.ratio(seconds["ours"], seconds["usual"])
        ours, usual_speed = (count / statistics.median(seconds[name]) for name in ("ours", "usual"))
        print(f"{kind:14s}{ours:15.0f}{usual_speed:16.0f}{ratio:19.1f}x", flush=True)
        found[kind] = {"texts": count, "seconds": seconds, "ratio": report.ratios(seconds)}
    report.write(__file__, flags, {"precision": precision, **found})


if __name__ == "__main__":
    main()
