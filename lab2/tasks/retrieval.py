"""Finding documents with a bi-encoder: contrastive fine-tuning, and the comparison with BM25."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab1.engine import distributed
from lab1.engine.config import require
from lab1.engine.distributed import StandIn, from_first_process, has_share, own_share
from lab1.engine.metrics import bootstrap_interval, mean_interval
from lab1.engine.randomness import random_generator
from lab2.tasks.batches import TextBatches, encode
from lab2.tasks.encoders import Encoder
from lab2.tasks.ranking import BM25, hybrid, measures, relevance
from lab2.tasks.search import Judgements, SearchData
from lab2.tasks.trainer import TaskTrainer

WEIGHTS = [number / 10 for number in range(11)]  # of BM25 in the hybrid, to choose from


def info_nce(
    queries: Tensor, documents: Tensor, relevant: Tensor, temperature: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """InfoNCE with in-batch negatives (van den Oord et al. 2018; Karpukhin et al. 2020): the mean over queries of
    -log(exp(s_ii / t) / sum over j of exp(s_ij / t)), with s_ij the dot product of query i and document j; and the
    share of queries that are closest to their own document.

    Args:
        queries, documents: vectors of length 1, ``[B, D]``; document i is the one for query i.
        relevant: bool ``[B, B]``: document j is known to answer query i, and so, unless j = i, is no negative of it.
        temperature: t, the smaller the more the closest negatives count.
    """
    scores = queries @ documents.T / temperature
    own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    scores = scores.masked_fill(relevant & ~own, -torch.inf)
    targets = torch.arange(len(scores), device=scores.device)
    return F.cross_entropy(scores, targets), {"accuracy": (scores.argmax(1) == targets).sum() / len(scores)}


class PairBatches:
    """Batches ``(inputs, relevant [B, B])`` of queries, each with a document that answers it: ``inputs["query"]`` and
    ``inputs["document"]`` are what a transformers model takes.

    With a ``seed`` each epoch goes through the queries in another order, each with a document drawn in proportion to
    its judgement, all as a function of (seed, epoch). Without one they come in order, each with its best document.
    Under torchrun each process gets its share of every batch, and a query's negatives are those of this share.
    """

    def __init__(
        self,
        data: SearchData,
        judgements: Judgements,
        tokenizer: Any,
        max_length: int,
        batch_size: int,
        seed: int | None = None,
        limit: int | None = None,
    ):
        """``limit``: at most this many batches. The rest as for ``TextBatches``."""
        ids = list(data.documents)
        # Of a query whose relevant documents are all missing nothing can be learned.
        known = {}
        for query, scores in judgements.items():
            there = {document: score for document, score in scores.items() if document in data.documents}
            if any(score > 0 for score in there.values()):
                known[query] = there
        require(len(known) > 0, f"{data.name}: too few queries have a relevant document in the corpus")
        self.relevance = relevance(known, ids)  # [Q, N]
        texts = [data.queries[query] for query in known], list(data.documents.values())
        none = [torch.zeros(len(part), dtype=torch.int64) for part in texts]
        self.queries, self.documents = (
            TextBatches(encode(tokenizer, part, max_length), labels, batch_size, tokenizer.pad_token_id)
            for part, labels in zip(texts, none, strict=True)
        )
        self.batch_size, self.seed, self.limit = batch_size, seed, limit

    def __len__(self) -> int:
        whole, rest = divmod(len(self.relevance), self.batch_size)
        # A query alone in its batch has no negatives: nothing to learn.
        count = whole + (rest >= (1 if self.seed is None else 2))
        return count if self.limit is None else min(count, self.limit)

    def __iter__(self) -> Iterator[tuple[dict[str, dict[str, Tensor]], Tensor]]:
        return self.epoch(0)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[dict[str, dict[str, Tensor]], Tensor]]:
        """The batches of one epoch, from number ``start`` on."""
        queries, documents = self.order(epoch)
        for number in range(start, len(self)):
            rows = slice(number * self.batch_size, (number + 1) * self.batch_size)
            count = len(queries[rows])
            asked, answers = queries[rows][own_share(count)], documents[rows][own_share(count)]
            inputs = {"query": self.queries.take(asked)[0], "document": self.documents.take(answers)[0]}
            batch = inputs, self.relevance[asked][:, answers] > 0
            if has_share(count):
                yield batch
            elif self.seed is not None:
                yield StandIn(batch)

    def order(self, epoch: int) -> tuple[Tensor, Tensor]:
        """The queries of an epoch ``[Q]`` and the document for each ``[Q]``."""
        if self.seed is None:
            return torch.arange(len(self.relevance)), self.relevance.argmax(1)
        generator = random_generator(self.seed, epoch)
        queries = torch.randperm(len(self.relevance), generator=generator)
        return queries, torch.multinomial(self.relevance[queries], 1, generator=generator)[:, 0]


class BiEncoder(nn.Module):
    """One encoder for both sides: ``inputs`` as of ``PairBatches`` to query and document vectors, ``[B, D]`` each."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder, self.arguments = encoder, encoder.arguments

    def forward(self, inputs: dict[str, dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
        return self.encoder(inputs["query"]), self.encoder(inputs["document"])


class RetrievalTrainer(TaskTrainer):
    """Fine-tunes a bi-encoder on pairs of queries and documents; its test is a search."""

    def __init__(self, model: BiEncoder, config: Any, about: dict[str, Any], search: Callable[[], dict[str, Any]]):
        """``search`` returns what ``results.json`` should say of the search with the trained encoder."""
        super().__init__(model, config, about)
        self.search = search

    def loss(self, batch: tuple[dict[str, dict[str, Tensor]], Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        inputs, relevant = batch
        sides = {side: {name: part.to(self.device) for name, part in tokens.items()} for side, tokens in inputs.items()}
        with self.autocast:
            queries, documents = self.forward(sides)
        return info_nce(queries.float(), documents.float(), relevant.to(self.device), self.config.temperature)

    def report(self, batches: Iterable) -> dict[str, Any]:
        """What the first process finds, in every process: the others wait for its search."""
        found: dict[str, Any] = {}
        if distributed.rank() == 0:
            self.model.eval()
            found = super().report(batches) | self.search()
        return from_first_process(found)


def hold_out(judgements: Judgements, share: float, seed: int) -> tuple[Judgements, Judgements]:
    """Judgements of two groups of queries at random: (the rest, ``share`` of them and at least two)."""
    order = torch.randperm(len(judgements), generator=random_generator(seed)).tolist()
    held = set(order[: max(2, int(share * len(judgements)))])
    items = list(enumerate(judgements.items()))
    return dict(item for n, item in items if n not in held), dict(item for n, item in items if n in held)


def search(
    data: SearchData,
    choosing: Judgements | None,
    vectors: Callable[[Sequence[str]], Tensor],
    k1: float,
    b: float,
    resamples: int = 2000,
) -> dict[str, Any]:
    """BM25, the encoder, and both together on the test queries: for each ``ndcg@10``, ``recall@100`` and ``mrr``, with
    their 95 % bootstrap intervals over queries (``..._interval``), and the nDCG of every query (``queries``). The
    numbers of both together stand by themselves, too.

    Args:
        choosing: the queries on which the weight of BM25 is chosen by nDCG@10; None where there are none: it is 0.5.
        vectors: texts to vectors of length 1, ``[N, D]``.

    Raises:
        UsageError: where the vectors are not finite, or the documents hold no words.
    """
    documents = list(data.documents.values())
    index, encoded = BM25(documents), vectors(documents)
    require(bool(encoded.isfinite().all()), f"{data.name}: the encoder gives vectors that are not finite numbers")

    def scores(judgements: Judgements) -> tuple[Tensor, Tensor, Tensor]:
        asked = [data.queries[query] for query in judgements]
        dense = (vectors(asked) @ encoded.T).cpu().double()
        return index.scores(asked, k1, b), dense, relevance(judgements, list(data.documents))

    weight, tried = 0.5, {}
    if choosing:
        words, dense, relevant = scores(choosing)
        for each in WEIGHTS:
            tried[str(each)] = measures(hybrid(words, dense, each), relevant)["ndcg@10"].mean().item()
        weight = float(max(tried, key=tried.get))
    words, dense, relevant = scores(data.judgements["test"])
    systems = {"bm25": words, "dense": dense, "hybrid": hybrid(words, dense, weight)}
    above = {"bm25": 0.0}  # a document without a word of the query is not found by it
    found = {
        name: summary(measures(each, relevant, above.get(name, -math.inf)), resamples) for name, each in systems.items()
    }
    main = {name: found["hybrid"][name] for name in ("ndcg@10", "recall@100", "mrr")}
    return main | {"weight": weight, "weights_tried": tried} | found


def summary(each: dict[str, Tensor], resamples: int) -> dict[str, Any]:
    """Means over queries of their measures ``[Q]``, with intervals, and the nDCG of every query."""
    found: dict[str, Any] = {}
    for name, values in each.items():
        found[name] = values.mean().item()
        found[f"{name}_interval"] = list(bootstrap_interval(values[:, None], lambda means: means[:, 0], resamples))
    return found | {"queries": [round(value, 4) for value in each["ndcg@10"].tolist()]}


def table(found: dict[str, Any]) -> str:
    """A line a system; then a line for each pair of systems: the mean difference of their nDCG@10 on the same query,
    and its 95 % interval over queries by Student's t. A single query has no interval."""
    several = len(found["bm25"]["queries"]) > 1
    lines = [f"{'':10s}{'nDCG@10':>24s}{'recall@100':>24s}{'MRR':>24s}"]
    for system in ("bm25", "dense", "hybrid"):
        cells = []
        for name in ("ndcg@10", "recall@100", "mrr"):
            low, high = found[system][f"{name}_interval"]
            cells.append(f"{found[system][name]:.3f}" + (f" ({low:.3f}-{high:.3f})" if several else ""))
        lines.append(f"{system:10s}" + "".join(f"{cell:>24s}" for cell in cells))
    lines.append(f"\n{'on the same query':20s}{'difference in nDCG@10':>30s}")
    for first, second in (("bm25", "dense"), ("bm25", "hybrid"), ("dense", "hybrid")):
        pairs = zip(found[first]["queries"], found[second]["queries"], strict=True)
        mean, low, high = mean_interval([after - before for before, after in pairs])
        interval = f"({low:+.3f} to {high:+.3f})" if several else "(a single query)"
        lines.append(f"{f'{second} - {first}':20s}{f'{mean:+.3f} {interval}':>30s}")
    return "\n".join(lines)
