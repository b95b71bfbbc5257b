"""What a dry run falls back on, and the tests start from: a tokenizer and a model with random weights of transformers'
real classes, small enough to be made in a moment, and a few sentences for each exercise. Nothing is learned from them.
"""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path

WHO = ("the cook", "a pilot", "my sister", "the old dog", "a student", "the doctor")
GOOD = ("loves the bright garden", "sings a happy song", "enjoys a warm meal", "wins a fine prize")
BAD = ("hates the cold rain", "breaks a sad toy", "misses the last train", "burns a bitter soup")
WHEN = ("in the morning", "after lunch", "on a sunday")


def sentences() -> list[tuple[str, int]]:
    """144 short sentences, each with its label: 1 for the pleasant ones, 0 for the others."""
    pairs = [(deed, label) for label, deeds in enumerate((BAD, GOOD)) for deed in deeds]
    return [(f"{who} {deed} {when}", label) for who, (deed, label), when in itertools.product(WHO, pairs, WHEN)]


def write_texts(folder: Path) -> Path:
    """A data set of texts: ``train.csv``, ``validation.csv``, ``test.csv`` with ``text,label``."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = sentences()
    # Neighbours differ in one word; every fourth and fifth of them are held out.
    parts = {"train": [row for n, row in enumerate(rows) if n % 5 < 3], "validation": rows[3::5], "test": rows[4::5]}
    for part, found in parts.items():
        lines = [f"{text},{label}" for text, label in found]
        (folder / f"{part}.csv").write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    return folder


def write_choices(folder: Path) -> Path:
    """A multiple-choice data set: ``train.jsonl`` and so on, with ``question, choices, label``. The right ending is the
    pleasant one."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (who, when, good) in enumerate(itertools.product(WHO, WHEN, GOOD)):
        choices = [BAD[(number + place) % len(BAD)] for place in range(3)]
        label = number % 4
        rows.append(
            {"question": f"{when} {who}", "choices": choices[:label] + [good] + choices[label:], "label": label}
        )
    parts = {"train": [row for n, row in enumerate(rows) if n % 5 < 3], "validation": rows[3::5], "test": rows[4::5]}
    for part, found in parts.items():
        (folder / f"{part}.jsonl").write_text("\n".join(map(json.dumps, found)) + "\n", encoding="utf-8")
    return folder


def write_search(folder: Path) -> Path:
    """A collection in BEIR's format: the sentences, and as queries what is done and when; relevant (2) is who does it
    then, and a little (1) who does it at another time."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    documents = [{"_id": f"d{number}", "title": "", "text": text} for number, (text, _) in enumerate(sentences())]
    queries = [
        {"_id": f"q{n}", "text": f"{deed} {when}"} for n, (deed, when) in enumerate(itertools.product(GOOD, WHEN))
    ]
    for name, rows in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    for part, chosen in (("train", queries[::2]), ("test", queries[1::2])):
        lines = ["query-id\tcorpus-id\tscore"]
        for query in chosen:
            deed = next(deed for deed in GOOD if query["text"].startswith(deed))
            for document in documents:
                score = (deed in document["text"]) + (query["text"] in document["text"])
                lines += [f"{query['_id']}\t{document['_id']}\t{score}"] if score else []
        (folder / "qrels" / f"{part}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_model(folder: Path, texts: Iterable[str] | None = None, kind: str = "bert", seed: int = 0) -> Path:
    """A model with random weights and its tokenizer, as a folder that ``from_pretrained`` reads.

    Args:
        texts: whose words and letters make up the vocabulary, by default the sentences above.
        kind: ``bert``, ``distilbert`` or ``gpt2``.
    """
    import torch
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    from lab2.hub import quiet

    quiet()
    texts = [text for text, _ in sentences()] if texts is None else texts
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    found = {word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    letters = sorted(set("".join(found)))
    # Sorted, not learned: WordPieceTrainer numbers its pieces anew in every process, and with them go the weights.
    pieces = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *sorted(found)])
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    words = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    words.normalizer, words.pre_tokenizer = normalizer, splitter
    if kind != "gpt2":
        words.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    inputs = ["input_ids", "attention_mask"] + (["token_type_ids"] if kind == "bert" else [])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words,
        model_max_length=128,
        model_input_names=inputs,
        bos_token="[CLS]",
        eos_token="[SEP]",
        **names,
    )
    size = {"vocab_size": len(tokenizer), "pad_token_id": 0}
    if kind == "bert":
        config = transformers.BertConfig(
            **size,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=128,
        )
    elif kind == "distilbert":
        config = transformers.DistilBertConfig(
            **size, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=128
        )
    else:
        config = transformers.GPT2Config(
            **size, n_embd=32, n_layer=2, n_head=2, n_positions=128, bos_token_id=2, eos_token_id=3
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kinds = {"gpt2": transformers.AutoModelForCausalLM}
        model = kinds.get(kind, transformers.AutoModel).from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
