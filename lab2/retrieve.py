"""Exercise 3.3. Which documents answer a query: by words, by vectors, or by both?

Command:  python lab2/retrieve.py --dataset cranfield
Time:     a minute on one core
Expect:   nDCG@10 of 0.50 for BM25, 0.49 for vectors, 0.54 for both, on the 112 test queries of Cranfield

    python lab2/prepare_data.py --datasets cranfield          fetch Cranfield first
    python lab2/retrieve.py --dataset cranfield --finetune    learn from the training queries first: ten minutes
    python lab2/retrieve.py                                   SciFact, from the hub
    python lab2/retrieve.py --dataset DIR --model FOLDER
    tensorboard --logdir lab2/model

DIR is in BEIR's format: corpus.jsonl, queries.jsonl, qrels/train.tsv and qrels/test.tsv. Fine-tuning is contrastive:
the other documents of a batch are the negatives; a fifth of the training queries chooses the epoch and the weight of
BM25 in the hybrid (without fine-tuning: all of them choose the weight). Measures are in lab2/tasks/ranking.py.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal

from lab1.engine.config import TrainConfig, require
from lab1.engine.devices import find_precision
from lab1.engine.launch import launch, prepare


@dataclasses.dataclass
class Config(TrainConfig):
    """The flags of this script."""

    finetune: bool = False
    """Train the bi-encoder on the training queries first."""
    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    """The encoder: a folder, a folder under --data-dir, or a name of the Hugging Face hub."""
    dataset: str = "scifact"
    """A folder in BEIR's format, or a data set of the hub with the parts corpus, queries, default, such as scifact.
    A line of corpus.jsonl: {"_id": "d1", "title": "Lift", "text": "Wings make it."}
    A line of queries.jsonl: {"_id": "q1", "text": "what makes lift"}
    Of qrels/test.tsv, with tabs between the columns, the first line and another: query-id corpus-id score, q1 d1 1"""
    epochs: int = 10
    """Passes over the training queries, each time with a document drawn anew for each query."""
    batch_size: int = 32
    """Queries in one step; a query's negatives are the documents of the others."""
    learning_rate: float = 5e-5
    patience: int = 0
    """Epochs without a better validation loss before training stops; 0 never stops early."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of matrix products; bf16 is autocast. auto: bf16 where this device is faster in it."""
    temperature: float = 0.05
    """What dot products are divided by in the contrastive loss."""
    max_length: int = 256
    """Tokens of a query or a document, at most; the rest is cut off. BM25 reads all of it."""
    k1: float = 1.2
    """BM25: how soon more of the same word stops counting."""
    b: float = 0.75
    """BM25: how much long documents are discounted, 0 to 1."""

    def check(self) -> None:
        super().check()
        require(self.temperature > 0, f"--temperature {self.temperature}: a positive number is needed, such as 0.05")
        require(self.max_length >= 8, f"--max-length {self.max_length}: at least 8 tokens are needed")
        require(self.batch_size >= 2, f"--batch-size {self.batch_size}: at least 2, or there are no negatives")
        require(self.k1 >= 0, f"--k1 {self.k1}: 0 or more is needed, such as 1.2")
        require(0 <= self.b <= 1, f"--b {self.b}: a number from 0 to 1 is needed, such as 0.75")
        require(self.finetune or self.resume is None, "--resume: without --finetune nothing is trained; run it again")

    def describe(self) -> str:
        parts = ["retrieve", Path(self.dataset).name, Path(self.model).name]
        return "-".join(parts + (["finetune", f"seed{self.seed}"] if self.finetune else []))


def main(config: Config) -> dict[str, Any]:
    """Search, after fine-tuning where asked for; returns the test metrics."""
    from lab1.engine import distributed
    from lab2.tasks import encoders, retrieval, runs
    from lab2.tasks.search import load_search

    device = prepare(config)
    config.precision = find_precision(config.precision, device)
    runs.name_in_full(config)
    runs.use_tiny(config, "search", "bert")
    places = config.data_folder(), not config.dry_run
    data = load_search(config.dataset, *places)
    if config.dry_run:
        data, config.max_length = data.head(8, 50), min(config.max_length, 64)
    tokenizer = encoders.load_tokenizer(config.model, *places)
    encoder, _ = encoders.load_encoder(config.model, "features", places[0], device, places[1])
    length = encoders.longest(tokenizer, encoder.network, config.max_length)

    def vectors(texts):
        return encoders.sentence_vectors(encoder, tokenizer, texts, length, 32, device, config.precision)

    learning = data.judgements.get("train")
    if not config.finetune:
        require(distributed.world_size() == 1, "without --finetune this runs in one process, without torchrun")
        began = time.perf_counter()
        test = retrieval.search(data, learning, vectors, config.k1, config.b)
        results = data.about() | {
            "parameters": sum(parameter.numel() for parameter in encoder.parameters()),
            "seconds": round(time.perf_counter() - began, 2),
            "test": test,
        }
        runs.write_run(config, device, results)
        print(retrieval.table(test))
        return test

    require(learning is not None, f"{config.dataset} has no judgements to learn from (qrels/train.tsv)")
    learning, choosing = retrieval.hold_out(learning, 0.2, config.seed)

    def batches(judgements, seed=None):
        limit = 3 if config.dry_run else None
        size = config.batch_size
        return retrieval.PairBatches(data, judgements, tokenizer, length, size, seed, limit)

    def search():
        return retrieval.search(data, choosing, vectors, config.k1, config.b)

    model = retrieval.BiEncoder(encoder)
    trainer = retrieval.RetrievalTrainer(model, config, data.about(), search)
    trainer.train(batches(learning, config.seed), batches(choosing))
    test = trainer.test(batches(data.judgements["test"]))
    trainer.say(retrieval.table(test))
    return test


if __name__ == "__main__":
    launch(main, Config)
