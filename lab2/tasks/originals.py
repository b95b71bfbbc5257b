"""The data sets of exercises 3.1 to 3.3, made of the files that their authors, or those who keep copies, give away.

ORIGINALS says where these are, at one version for good. Each function takes the text of the originals by name and
returns the text of the files to write, by their path in the data set's folder. The splits are those of the published
runs. Nothing here imports torch.
"""

import csv
import io
import json
import random
import re
from collections.abc import Iterable

GITHUB = "https://raw.githubusercontent.com"
CORNELL = f"{GITHUB}/dennybritz/cnn-text-classification-tf/18762b459e21d9c70e5c242f8d43fc4e6db37a0d/data"
ALPS = f"{GITHUB}/forest-snow/alps/3c7ef2c98249fc975a897b27f275695f97d5b7a9/data"
ZHANG = f"{GITHUB}/suuuch/TransformerClassification/0d9808e1978c8468b4f8f08a44c5be99d058aa7b/data"
WEBSAIL = f"{GITHUB}/Websail-NU/CODAH/acf7ffa4041ade86c6f7dd2f92fb08c957350280/data"
GLASGOW = f"{GITHUB}/cky008/CS7IS3A1/cfc893ff4a401300b6f69d7887d6088f83c5edec"

# Of each data set the address and the MD5 of each original.
ORIGINALS = {
    "rotten_tomatoes": {
        f"{CORNELL}/rt-polaritydata/rt-polarity.pos": "819e2ab972d5f1314804c62921cf21a8",
        f"{CORNELL}/rt-polaritydata/rt-polarity.neg": "efd38e162b1a4ede8fbf024de182eb4a",
    },
    "ag_news": {
        f"{ALPS}/agnews/dev.tsv": "a31d96667fa9d52b92623729b39210b5",
        f"{ZHANG}/ag_news_csv/test.csv": "03670a2ad4ee160c64161cdfa45ef134",
    },
    "codah": {
        f"{WEBSAIL}/cv_split/fold_0/train.tsv": "1008c10619fa5ec31fa65d133e034855",
        f"{WEBSAIL}/cv_split/fold_0/dev.tsv": "16eea502c6186768edfa6993212bd2a6",
        f"{WEBSAIL}/cv_split/fold_0/test.tsv": "808a15e098469e43090b3a5100067674",
    },
    "cranfield": {
        f"{GLASGOW}/cran/cran.all.1400": "099b68a32bf9157a6868b7a2a656e2fa",
        f"{GLASGOW}/cran/cran.qry": "10778cd89a85e47cf299fea06f098ac0",
        f"{GLASGOW}/cran/cranqrel": "c62b979aa6edfe65aa9dcbcf74f99c62",
    },
}
# Of each data set the files that are made, and the MD5 that they had when the published runs read them.
MADE = {
    "rotten_tomatoes": {
        "train.csv": "c918ce317ebcbd61575ed967aea952f0",
        "validation.csv": "80857defe3bfb0f09a905ceba4b63e83",
        "test.csv": "e150889f291ee34c54d23776c572bd99",
    },
    "ag_news": {
        "train.csv": "6113fd0c3c98d8eebf47408290968fd4",
        "validation.csv": "a3bed5c6ed522146f9f8310fd99ec460",
        "test.csv": "6b9e525e70f1b8c3735afbf410fbcbe9",
    },
    "codah": {
        "train.jsonl": "08cc89ea36e6d79e71dafc206f9a5bcf",
        "validation.jsonl": "87fc89ee4274ac3d0da90869720b1393",
        "test.jsonl": "7b9c1a087aff17d3af092041ec323202",
    },
    "cranfield": {
        "corpus.jsonl": "e4bb06c75d75203915a811d4af9366bc",
        "queries.jsonl": "9d6bcddc17b5fe1faadf3aa7602606cf",
        "qrels/train.tsv": "dfa7f1b456183a324b8f3bb8655b99d1",
        "qrels/test.tsv": "21e221d31b6213ac1ee135fc5901cf3c",
    },
}

PARTS = ("train", "validation", "test")
AG_NEWS_CLASSES = ("World", "Sports", "Business", "Sci/Tech")
AG_NEWS_HELD_OUT = 250  # validation texts of each class
CRANFIELD_TESTS = 112  # test queries
# Scores, larger is better, of the original grades: 1 is a complete answer, 4 of minimum interest, -1 the best match.
CRANFIELD_SCORES = {"1": 4, "2": 3, "3": 2, "4": 1, "-1": 4}

Files = dict[str, str]


def rotten_tomatoes(files: Files) -> Files:
    """Sentences of film reviews (Pang & Lee 2005), a line each: the first 4,265 of either file are learned from, 533
    validate, 533 test, which is the split of the data set on the hub, too."""
    parts: dict[str, list] = {part: [] for part in PARTS}
    for name, label in (("rt-polarity.pos", 1), ("rt-polarity.neg", 0)):
        texts = [line.strip() for line in files[name].split("\n") if line.strip()]
        first, second = len(texts) - 2 * (len(texts) // 10), len(texts) - len(texts) // 10
        for part, each in zip(PARTS, (texts[:first], texts[first:second], texts[second:]), strict=True):
            parts[part] += [(text, label) for text in each]
    return {f"{part}.csv": as_csv(rows) for part, rows in parts.items()}


def ag_news(files: Files) -> Files:
    """News in four classes (Zhang et al. 2015). ``dev.tsv`` holds 10,001 texts of the official 120,000 training ones:
    what stands there twice, or in the test set, is left out; 250 texts of each class validate, drawn with seed 0. The
    test set is the official one, its descriptions without their titles."""
    rows = csv.reader(io.StringIO(files["test.csv"], newline=""))
    test = [(text.strip(), int(label) - 1) for label, _, text in rows]
    seen = {text for text, _ in test}
    by_class: list[list[tuple[str, int]]] = [[] for _ in AG_NEWS_CLASSES]
    for line in files["dev.tsv"].split("\n"):
        text, _, name = line.partition("\t")
        if line and text.strip() not in seen:
            seen.add(text.strip())
            label = AG_NEWS_CLASSES.index(name.strip())
            by_class[label].append((text.strip(), label))
    generator = random.Random(0)
    train, validation = [], []
    for found in by_class:
        generator.shuffle(found)
        validation += found[:AG_NEWS_HELD_OUT]
        train += found[AG_NEWS_HELD_OUT:]
    generator.shuffle(train)
    generator.shuffle(validation)
    return {f"{part}.csv": as_csv(rows) for part, rows in zip(PARTS, (train, validation, test), strict=True)}


def codah(files: Files) -> Files:
    """Unfinished sentences with four endings (Chen et al. 2019): one of the five folds that its authors divided them
    into, as it is."""
    made = {}
    for part, name in zip(PARTS, ("train.tsv", "dev.tsv", "test.tsv"), strict=True):
        rows = []
        for number, line in enumerate(line for line in files[name].split("\n") if line):
            category, question, *choices, label = line.split("\t")
            row = {"id": f"codah-{part}-{number}", "category": category, "question": question}
            rows.append(row | {"choices": choices, "label": int(label)})
        made[f"{part}.jsonl"] = as_json_lines(rows)
    return made


def cranfield(files: Files) -> Files:
    """Abstracts on aerodynamics, and questions that they answer (Cleverdon 1967), in BEIR's format. Queries are
    numbered 1 to 225, as the judgements number them; 112 of them, drawn with seed 0, are the test."""
    documents = []
    for number, fields in sections(files["cran.all.1400"]):
        title, text = fields["T"].strip(" ."), fields["W"]
        if text.startswith(title):  # most abstracts repeat it
            text = text[len(title) :].strip(" .")
        documents.append({"_id": number, "title": title, "text": text})
    queries = [
        {"_id": str(place), "text": fields["W"].strip(" .")}
        for place, (_, fields) in enumerate(sections(files["cran.qry"]), 1)
    ]
    numbers = list(range(1, len(queries) + 1))
    random.Random(0).shuffle(numbers)
    test = set(map(str, numbers[:CRANFIELD_TESTS]))
    made = {"corpus.jsonl": as_json_lines(documents), "queries.jsonl": as_json_lines(queries)}
    judged = [line.split() for line in files["cranqrel"].split("\n") if line.strip()]
    judged.sort(key=lambda row: (int(row[0]), int(row[1])))
    for part in ("train", "test"):
        rows = [row for row in judged if (row[0] in test) == (part == "test")]
        lines = [f"{query}\t{document}\t{CRANFIELD_SCORES[grade]}" for query, document, grade in rows]
        made[f"qrels/{part}.tsv"] = "\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n"
    return made


def sections(text: str) -> Iterable[tuple[str, dict[str, str]]]:
    """The documents or queries of a file of Cranfield, each its number after ``.I`` and its fields by their letters: T
    title, A author, B where it appeared, W words, which come last. Line breaks become spaces."""
    parts = re.split(r"^\.I (\d+)\n", text, flags=re.MULTILINE)[1:]
    for number, body in zip(parts[::2], parts[1::2], strict=True):
        head, words = re.split(r"^\.W\n", body, maxsplit=1, flags=re.MULTILINE)
        fields = re.split(r"^\.([TAB])\n", head, flags=re.MULTILINE)[1:]
        found = dict(zip(fields[::2], fields[1::2], strict=True))
        found["W"] = words.split("\n.A\n")[0]  # one document's author stands there a second time
        yield number, {letter: " ".join(field.split()) for letter, field in found.items()}


def as_csv(rows: Iterable[tuple[str, int]]) -> str:
    """Texts with their labels as a .csv."""
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([("text", "label"), *rows])
    return written.getvalue()


def as_json_lines(rows: Iterable[dict]) -> str:
    """A JSON object on each line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
