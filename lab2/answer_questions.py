"""Exercise 3.2. How well can an encoder choose among several answers?

Command:  python lab2/answer_questions.py --dataset codah --model sentence-transformers/all-MiniLM-L6-v2 --learning-rate 1e-4
Time:     4 minutes on one core
Expect:   55 % test accuracy on CODAH, where chance is 25 %

    python lab2/answer_questions.py                               SWAG and DistilBERT
    python lab2/answer_questions.py --loss margin                 rank the right choice above the others
    python lab2/answer_questions.py --method likelihood           a language model, as it is: the likeliest choice
    python lab2/answer_questions.py --control length-only         what the data give away: the choices' lengths alone
    python lab2/answer_questions.py --dataset DIR --model FOLDER
    tensorboard --logdir lab2/model

The encoder reads a question and one choice together and gives one number; the choices of a question are compared by
these. DIR has train.jsonl with question, choices and label. Chance is one in the number of choices.
"""  # noqa: E501

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from lab1.engine.config import TrainConfig, flag, require
from lab1.engine.devices import find_precision
from lab1.engine.launch import launch, prepare

MODELS = {"finetune": "distilbert/distilbert-base-uncased", "likelihood": "distilbert/distilgpt2"}


@dataclasses.dataclass
class Config(TrainConfig):
    """The flags of this script."""

    method: Literal["finetune", "likelihood"] = "finetune"
    """finetune: train an encoder; likelihood: the choice that a causal language model finds likeliest, by sum or mean
    over its tokens, whichever is better in validation."""
    model: Annotated[str | None, flag("NAME")] = None
    """The model: a folder, a folder under --data-dir, or a name of the Hugging Face hub; for likelihood a run of
    train_gpt.py, too (default: DistilBERT; for likelihood distilgpt2)."""
    dataset: str = "swag"
    """A folder of train, validation and test as .jsonl with question, choices and label; one such file; or a data set
    of the hub: swag, codah, hellaswag, arc_easy, arc_challenge, commonsense_qa, openbookqa. A line of a .jsonl, where
    label counts the choices from 0, or is a letter or the choice itself:
    {"question": "The sky is", "choices": ["blue", "green"], "label": 0}"""
    loss: Literal["cross-entropy", "margin"] = "cross-entropy"
    """cross-entropy: over the choices of a question; margin: max(0, margin - right + wrong) for each wrong choice."""
    control: Annotated[Literal["random-labels", "length-only"] | None, flag("{random-labels,length-only}")] = None
    """What is right for the wrong reason? random-labels: fine-tune on right choices that were drawn at random;
    length-only: logistic regression on how long the choices are, which reads no word."""
    margin: float = 1.0
    """How far ahead the right choice should be, for --loss margin."""
    epochs: int = 3
    batch_size: int = 16
    learning_rate: float = 5e-5
    patience: int = 0
    """Epochs without a better validation loss before training stops; 0 never stops early."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of matrix products; bf16 is autocast. auto: bf16 where this device is faster in it."""
    max_length: int = 128
    """Tokens of a question and a choice together, at most; the rest is cut off."""

    def __post_init__(self) -> None:
        self.model = self.model or MODELS[self.method]

    def check(self) -> None:
        super().check()
        require(self.margin > 0, f"--margin {self.margin}: a positive number is needed, such as 1")
        require(self.max_length >= 8, f"--max-length {self.max_length}: at least 8 tokens are needed")
        quick = self.method == "likelihood"
        require(not quick or self.resume is None, "--resume: --method likelihood trains nothing; run it again")
        require(not quick or self.control is None, f"--control {self.control}: leave out --method likelihood")
        lengths = self.control == "length-only"
        require(not lengths or self.resume is None, "--resume: --control length-only takes a second; run it again")

    def describe(self) -> str:
        parts = ["answer", Path(self.dataset).name.split(".")[0]]
        if self.control == "length-only":
            return "-".join([*parts, self.control])
        parts += [self.method, Path(self.model).name]
        if self.method == "likelihood":
            return "-".join(parts)
        parts += (["margin"] if self.loss == "margin" else []) + ([self.control] if self.control else [])
        return "-".join([*parts, f"seed{self.seed}"])


def about(data) -> dict[str, Any]:
    """What ``results.json`` says of the data: the accuracy of guessing, too."""
    from lab2.tasks.choices import chance

    items, _ = data.parts["test"]
    return data.about() | {"choices": sorted({len(choices) for _, choices in items}), "chance": chance(items)}


def train(config: Config, data, device) -> dict[str, Any]:
    """Fine-tune an encoder; returns the test metrics."""
    from lab2.tasks import encoders
    from lab2.tasks.batches import TextBatches, encode
    from lab2.tasks.trainer import TaskTrainer, choice_loss, margin_ranking_loss

    places = config.data_folder(), not config.dry_run
    tokenizer = encoders.load_tokenizer(config.model, *places)
    model, _ = encoders.load_encoder(config.model, "choice", places[0], device, places[1])
    length = encoders.longest(tokenizer, model.network, config.max_length)

    def batches(part: str) -> TextBatches:
        items, labels = data.parts[part]
        size, seed = (config.batch_size, config.seed) if part == "train" else (max(64, config.batch_size), None)
        limit = 3 if config.dry_run else None
        tokens, counts = encode(tokenizer, items, length), [len(choices) for _, choices in items]
        return TextBatches(tokens, labels, size, tokenizer.pad_token_id, seed, limit, counts)

    loss = choice_loss if config.loss == "cross-entropy" else partial(margin_ranking_loss, margin=config.margin)
    trainer = TaskTrainer(model, config, about(data), loss, tokenizer)
    trainer.train(batches("train"), batches("validation"))
    return trainer.test(batches("test"))


def measure_lengths(config: Config, data, device) -> dict[str, Any]:
    """Answer by the lengths of the choices alone; returns the test metrics."""
    from lab1.engine import distributed
    from lab2.tasks import runs, shallow

    require(distributed.world_size() == 1, "--control length-only runs in one process, without torchrun")
    began = time.perf_counter()
    accuracy, parameters = shallow.answer_by_length(data)
    results = about(data) | {
        "parameters": parameters,
        "seconds": round(time.perf_counter() - began, 2),
        "validation": {"accuracy": accuracy["validation"]},
        "test": {"accuracy": accuracy["test"], "trainable_parameters": parameters},
    }
    runs.write_run(config, device, results)
    print(f"the choices' lengths alone: test accuracy {accuracy['test']:.2%}".replace("%", " %"))
    return results["test"]


def measure(config: Config, data, device) -> dict[str, Any]:
    """Answer by likelihood; returns the test metrics."""
    from lab1.engine import distributed
    from lab2.tasks import likelihood, runs

    require(distributed.world_size() == 1, "--method likelihood runs in one process, without torchrun")
    model = likelihood.load(config.model, config.data_folder(), config.runs_folder(), device, not config.dry_run)
    began, correct = time.perf_counter(), {}
    for part in ("validation", "test"):
        items, labels = data.parts[part]
        scores = likelihood.ending_scores(model, items, config.max_length, 64, device, config.precision)
        correct[part] = {rule: (each.argmax(1) == labels).double().mean().item() for rule, each in scores.items()}
    rule = max(likelihood.RULES, key=correct["validation"].get)
    results = about(data) | {
        "parameters": model.parameters,
        "seconds": round(time.perf_counter() - began, 2),
        "chosen": {"likelihood": rule},
        "validation": {"accuracy": correct["validation"][rule]} | correct["validation"],
        "test": {"accuracy": correct["test"][rule], "trainable_parameters": 0} | correct["test"],
    }
    runs.write_run(config, device, results)
    print(f"{rule} of the log-likelihood: test accuracy {results['test']['accuracy']:.2%}".replace("%", " %"))
    return results["test"]


def main(config: Config) -> dict[str, Any]:
    """Returns the test metrics."""
    from lab2.tasks import choices, runs

    device = prepare(config)
    config.precision = find_precision(config.precision, device)
    kind = None if config.control == "length-only" else "bert" if config.method == "finetune" else "gpt2"
    runs.name_in_full(config)
    runs.use_tiny(config, "choices", kind)
    data = choices.load_choices(config.dataset, config.data_folder(), not config.dry_run)
    data = data.thinned(3 * config.batch_size) if config.dry_run else data
    if config.control == "length-only":
        return measure_lengths(config, data, device)
    if config.control == "random-labels":
        data = choices.with_random_labels(data, config.seed)
    return (train if config.method == "finetune" else measure)(config, data, device)


if __name__ == "__main__":
    launch(main, Config)
