"""Exercise 2. How long is a text in tokens, and how do ways to decode differ?

Command:  python lab2/generate.py
Time:     a minute or so
Expect:   32 % of greedy text's 4-grams repeated, 0 % of sampled text's; 17 and 0 % once exercise 1 has trained its GPT

    python lab2/generate.py --model openai-community/gpt2 --text FILE    any causal language model
    python lab2/generate.py --prompt "Nel mezzo"                         continue this, and not passages of the text
    python lab2/generate.py --tokenizers characters bpe-512 openai-community/gpt2

How long the test part of the text is for each tokenizer; what greedy decoding, sampling, a lower temperature, top-k and
top-p write after the same prompts; and how much of it is repetition, beside what follows in the text itself.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

from lab1.engine.config import RunConfig, UsageError, find_run, flag, require
from lab1.engine.files import read_object
from lab1.engine.launch import launch, prepare

RUN = "gpt-6x192-seed0"  # what train_gpt.py leaves
PUBLISHED = "gpt-5x96-seed0"  # a smaller one, whose weights are in the repository
TOKENIZERS = ("characters", "bpe-512", "bpe-4096", "openai-community/gpt2")
SHOWN = 240  # characters of a text to print


@dataclasses.dataclass
class Config(RunConfig):
    """The flags of this script."""

    run: Annotated[str | None, flag("RUN")] = None
    """A run of train_gpt.py, a folder or a name under --model-dir (default: gpt-6x192-seed0, which that script leaves;
    while there is none, gpt-5x96-seed0, which is published; a dry run takes a network that has learned nothing)."""
    model: Annotated[str | None, flag("NAME")] = None
    """Instead of a run: a causal language model of transformers, a folder or hub name."""
    text: Annotated[str | None, flag("FILE")] = None
    """The text that tokens are counted in and prompts are taken from, as of train_gpt.py (default: the run's own)."""
    tokenizers: Annotated[tuple[str, ...], flag("NAME ...")] = ()
    """What to count tokens with: characters, bpe-512 for byte pairs learned from the text, or pretrained ones
    (default: characters bpe-512 bpe-4096 openai-community/gpt2)."""
    prompt: Annotated[str | None, flag("TEXT")] = None
    """What to continue (default: passages of the text's test part). Each text is then measured alone, and where the
    text of --text cannot be had, no token is counted."""
    prompt_tokens: int = 64
    """Length of each passage that is continued."""
    samples: int = 10
    """Texts to write with each way of decoding."""
    length: int = 500
    """Tokens of each."""
    temperature: float = 0.7
    """Logits are divided by it: below 1 the probable becomes more probable."""
    top_k: int = 10
    """Sample from so many most probable tokens."""
    top_p: float = 0.9
    """Sample from the most probable tokens that have this probability together."""

    def __post_init__(self) -> None:
        if self.prompt is not None:  # Python reads a command line by the locale, which under LC_ALL=C knows no accents
            self.prompt = self.prompt.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def check(self) -> None:
        super().check()
        for name in ("prompt_tokens", "samples", "length", "top_k"):
            require(getattr(self, name) >= 1, f"--{name.replace('_', '-')} {getattr(self, name)}: at least 1 is needed")
        require(self.temperature > 0, f"--temperature {self.temperature}: a positive number is needed")
        require(0 < self.top_p <= 1, f"--top-p {self.top_p}: a probability above 0 and up to 1 is needed")
        require(self.prompt != "", "--prompt: at least one character is needed")
        require(self.resume is None, "--resume: this takes a minute or so and starts anew")

    def describe(self) -> str:
        return f"generate-{Path(self.model or self.run or ('untrained' if self.dry_run else self.default_run())).name}"

    def default_run(self) -> str:
        """The GPT that exercise 1 trains or, as long as it is not there, the smaller one that is published."""
        return RUN if (self.runs_folder() / RUN / "best.pt").is_file() else PUBLISHED


def load_model(config: Config, device, download: bool):
    """The language model, its tokenizer, and where the text comes from."""
    from lab2 import hub, models
    from lab2.language import tokens
    from lab2.language.corpus import EMBEDDED, python_source

    if config.model is not None:
        from transformers import AutoModelForCausalLM

        model, _ = hub.network(AutoModelForCausalLM, config.model, config.data_folder(), download)
        model = model.to(device).eval()
        tokenizer = tokens.Pretrained(config.model, config.data_folder(), download)
        limit, given = getattr(model.config, "max_position_embeddings", None), config.prompt_tokens
        if config.prompt is not None:
            given = len(tokenizer.encode(config.prompt))
        what = "--prompt-tokens" if config.prompt is None else f"--prompt, of {given} tokens,"
        fits = limit is None or given + config.length <= limit
        require(fits, f"{config.model} reads {limit} tokens: {what} and --length together are {given + config.length}")
        return model, tokenizer, config.text or "auto"
    if config.dry_run and config.run is None:
        tokenizer = tokens.Characters(python_source())
        return models.GPT(len(tokenizer), 64, 2, 2, 32).to(device), tokenizer, EMBEDDED
    if config.run is None:
        config.run = config.default_run()  # what was used, not what was asked for
        if config.run == PUBLISHED:
            print(f"{RUN} is not trained yet. Taking {PUBLISHED} instead, a smaller GPT, published.", file=sys.stderr)
    folder = find_run(config.run, config.runs_folder(), config.published_folder(), "best.pt")
    model, about = models.load(folder / "best.pt", device)
    learned = read_object(folder / "config.json").get("text")
    require(
        config.text is not None or isinstance(learned, str),
        f"{folder / 'config.json'} names no text; say with --text which to use",
    )
    return model, tokens.build(about.get("tokenizer"), config.data_folder(), download), config.text or learned


def count_tokens(config: Config, parts: dict[str, str], whole: str, download: bool) -> dict[str, Any]:
    """The length of the test part for each tokenizer; of the default ones, those that cannot be had are left out."""
    from lab1.engine.network import Unavailable
    from lab2.language import decoding, tokens

    rows = {}
    for name in config.tokenizers or TOKENIZERS:
        learned = whole if name == "characters" else parts["train"]
        try:
            tokenizer = tokens.make(name, learned, config.data_folder(), download)
        except Unavailable as error:
            if config.tokenizers:
                raise
            print(f"{error}. It is left out.", file=sys.stderr)
            continue
        rows[name] = decoding.token_lengths(tokenizer, parts["test"])
    return rows


def passages(config: Config, encoded: list[int]):
    """Prompts ``[samples, P]`` from places spread evenly over the test part, and what follows there
    ``[samples, length]``; fewer where so many would overlap, and be counted as repetitions of each other."""
    import torch

    each = config.prompt_tokens + config.length
    room = len(encoded) - each
    require(room >= 0, f"the text's test part has {len(encoded)} tokens: prompt and length together are {each}")
    if (count := min(config.samples, len(encoded) // each)) < config.samples:
        print(f"The text's test part, {len(encoded)} tokens, has room for {count} passages.", file=sys.stderr)
    starts = [room * number // max(1, count - 1) for number in range(count)]
    rows = torch.tensor([encoded[start : start + each] for start in starts])
    return rows[:, : config.prompt_tokens], rows[:, config.prompt_tokens :]


def main(config: Config) -> dict[str, Any]:
    """Count, write, measure; returns what ``results.json`` holds."""
    import torch

    from lab1.engine import logbook
    from lab1.engine.network import Unavailable
    from lab2 import models
    from lab2.language import decoding
    from lab2.language.corpus import load_corpus

    if config.dry_run:
        config.samples, config.length = min(config.samples, 2), min(config.length, 20)
    device, download = prepare(config), not config.dry_run
    model, tokenizer, source = load_model(config, device, download)
    corpus, follows, lengths, written = None, None, {}, {}
    if config.prompt is not None:
        prompt = tokenizer.encode(config.prompt)
        require(len(prompt) > 0, f"--prompt {config.prompt!r}: the tokenizer makes nothing of it; give it a word")
        prompts = torch.tensor([prompt]).expand(config.samples, -1)
    try:
        corpus = load_corpus(source, config.data_folder(), download)
    except Unavailable as error:
        if config.prompt is None:
            raise UsageError(f"{error}. --prompt TEXT needs no text beside it") from None
        print(f"{error}. No token is counted.", file=sys.stderr)
    if corpus is not None:
        parts = corpus.parts()
        lengths = count_tokens(config, parts, corpus.text, download)
        print(decoding.token_table(lengths), flush=True)
        encoded = tokenizer.encode(parts["test"])
        if config.prompt is None or len(encoded) >= config.prompt_tokens + config.length:
            places, follows = passages(config, encoded)
            prompts = places if config.prompt is None else prompts
    for name, way in decoding.strategies(config.temperature, config.top_k, config.top_p).items():
        rows = models.write(model, prompts.to(device), config.length, way, config.seed)
        written[name] = [tokenizer.decode(row) for row in rows.tolist()]
    if follows is not None:
        written["the text itself"] = [tokenizer.decode(row) for row in follows.tolist()]
    found = {name: decoding.measures(texts, config.prompt is None) for name, texts in written.items()}

    folder = logbook.new_run_folder(config.runs_folder(), config.run_name(), config.as_dict())
    start = tokenizer.decode(prompts[0].tolist())
    log = logbook.Logbook(folder)
    log.text("prompt", start, 0)
    for name, texts in written.items():
        log.text(f"text/{name}", texts[0], 0)
        print(f"\n--- {name} ---\n{texts[0][:SHOWN]}")
    log.close()
    results = {"script": logbook.script_name(config), "config": config.as_dict(), "dataset": corpus and corpus.name}
    results |= {"tokenizers": lengths, "decoding": found, "prompt": start}
    results |= {"samples": {name: texts[0] for name, texts in written.items()}}
    logbook.write_results(results | {"environment": logbook.environment(device)}, folder / "results.json")
    print(f"\n{decoding.measure_table(found)}\n{folder} holds the texts and figures")
    return results


if __name__ == "__main__":
    launch(main, Config)
