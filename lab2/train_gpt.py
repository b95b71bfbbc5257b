"""Exercise 1. How well can a small GPT learn the Divina Commedia, character by character?

Command:  python lab2/train_gpt.py
Time:     26 minutes on one core
Expect:   1.38 nats a character (perplexity 3.96) on the last 5 % of the poem

    python lab2/train_gpt.py --preset nano               0.8M parameters instead of 2.7M, 2,000 smaller steps
    python lab2/train_gpt.py --preset modern             what GPTs have learned since GPT-2: 1.34 in half the steps
    python lab2/train_gpt.py --preset modern --without muon      leave one of these out
    python lab2/ablate_gpt.py                            what each of them is worth
    python lab2/train_gpt.py --text FILE_OR_URL          any text, such as --text python, the standard library's source
    python lab2/train_gpt.py --tokenizer bpe-1024        tokens of several characters, learned from the text
    tensorboard --logdir lab2/model                      curves, and what the network writes as it learns

The first 90 % of the text are learned from, the next 5 % choose the best weights, the last 5 % are the test. Without a
network and without the Divina Commedia in data/ it takes the source code of Python's standard library.
"""

import dataclasses
import math
import zlib
from pathlib import Path
from typing import Any, Literal

from lab1.engine.config import Real, RunConfig, Whole, require
from lab1.engine.devices import find_precision
from lab1.engine.launch import launch, prepare

# laptop: the best of four on validation, each within three quarters of an hour on one busy core; the other three had a
# weight decay of 0.1. nano: the size that nanoGPT documents for a laptop's processor.
PRESETS = {
    "laptop": dict(
        layers=6,
        heads=6,
        width=192,
        context=128,
        dropout=0.1,
        weight_decay=0.5,
        steps=6600,
        eval_interval=330,
        batch_size=12,
        learning_rate=2e-3,
    ),
    "nano": dict(
        layers=4,
        heads=4,
        width=128,
        context=64,
        dropout=0.0,
        weight_decay=0.1,
        steps=2000,
        eval_interval=250,
        batch_size=12,
        learning_rate=1e-3,
    ),
}
# What the speed runs do and GPT-2 does not. Of the network: lab2/models.py, lab2/language/positions.py; of learning:
# lab2/trainer.py; of windows: lab2/language/corpus.py.
Trick = Literal["rotary", "qk-norm", "squared-relu", "zero-init", "muon", "averaging", "shuffling"]
TRICKS: tuple[str, ...] = Trick.__args__
# It needs half the steps for a lower loss; after 5,000 the large one begins to overfit on half a million characters.
PRESETS |= {"modern": PRESETS["laptop"] | {"steps": 3300, "eval_interval": 165}, "modern-nano": PRESETS["nano"]}


@dataclasses.dataclass
class Config(RunConfig):
    """The flags of this script. Those without a default take it from PRESETS."""

    text: str = "auto"
    """What to learn from: a text file or the URL of one, divina_commedia, or python for the source code of Python's
    standard library. auto: the Divina Commedia, or python where it cannot be had."""
    preset: Literal["laptop", "nano", "modern", "modern-nano"] = "laptop"
    """Size of the network and length of training; each flag below that is given takes precedence. modern and
    modern-nano: as laptop, in half the steps, and as nano, with all the tricks of --without."""
    without: tuple[Trick, ...] = ()
    """Tricks of a modern preset to leave out. rotary: places are learned embeddings; qk-norm: queries and keys are not
    normalised; squared-relu: GELU; zero-init: what blocks add begins at random; muon: AdamW learns everything;
    averaging: no averaged weights; shuffling: windows are drawn with replacement."""
    tokenizer: str = "characters"
    """characters; bpe-1024, byte pairs learned from the text, with so many tokens; or a pretrained one, a folder or hub
    name."""
    layers: Whole = None
    """Number of blocks (default: 6; nano 4)."""
    heads: Whole = None
    """Attention heads in a block (default: 6; nano 4)."""
    width: Whole = None
    """Numbers that stand for a token between blocks, a multiple of the heads (default: 192; nano 128)."""
    context: Whole = None
    """Most tokens that it sees at once (default: 128; nano 64)."""
    dropout: Real = None
    """Of embeddings, attention weights, and what each block adds (default: 0.1; nano 0)."""
    steps: Whole = None
    """Steps of the optimiser (default: 6600; modern 3300; nano 2000)."""
    eval_interval: Whole = None
    """Steps between two validations, called an epoch in what is written; there the best weights are chosen (default:
    330; modern 165; nano 250)."""
    batch_size: Whole = None
    """Windows of the text in one step, over all processes (default: 12)."""
    learning_rate: Real = None
    """Peak learning rate: reached after a twentieth of the steps, zero at the last (default: 0.002; nano 0.001)."""
    weight_decay: Real = None
    """Decoupled weight decay of matrices, per unit of learning rate (default: 0.5; nano 0.1)."""
    patience: int = 0
    """Validations without a better loss before training stops; 0 never stops early."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of matrix products; bf16 is autocast, the weights stay fp32. auto: bf16 where this device is
    faster in it, else fp32."""

    def __post_init__(self) -> None:
        for name, value in PRESETS[self.preset].items():
            if getattr(self, name) is None:
                setattr(self, name, value)

    @property
    def epochs(self) -> int:
        """How many stretches of ``eval_interval`` steps there are; the last may be shorter."""
        return math.ceil(self.steps / self.eval_interval)

    def check(self) -> None:
        super().check()
        modern, twice = self.preset.startswith("modern"), len(set(self.without)) < len(self.without)
        require(not twice, f"--without {' '.join(self.without)}: one is there twice")
        require(modern or not self.without, f"--without {' '.join(self.without)}: it needs --preset modern")
        counts = ("layers", "heads", "width", "context", "steps", "eval_interval", "batch_size")
        for name, least in (*((name, 1) for name in counts), ("patience", 0)):
            value = getattr(self, name)
            require(value >= least, f"--{name.replace('_', '-')} {value}: at least {least} is needed")
        require(self.width % self.heads == 0, f"--width {self.width}: a multiple of the {self.heads} heads is needed")
        require(0 <= self.dropout < 1, f"--dropout {self.dropout}: a probability from 0 to below 1 is needed")
        rate, decay = self.learning_rate, self.weight_decay
        require(math.isfinite(rate) and rate > 0, f"--learning-rate {rate}: a positive number is needed, such as 0.001")
        require(math.isfinite(decay) and decay >= 0, f"--weight-decay {decay}: 0 or a positive number is needed")

    def uses(self, trick: str) -> bool:
        """Whether this trick is in."""
        return self.preset.startswith("modern") and trick not in self.without

    def describe(self) -> str:
        parts = ["gpt", *(["modern"] if self.preset.startswith("modern") else []), f"{self.layers}x{self.width}"]
        parts += [f"no-{trick}" for trick in TRICKS if trick in self.without]
        parts += [Path(self.text).stem] if self.text != "divina_commedia" else []
        parts += [Path(self.tokenizer).name] if self.tokenizer != "characters" else []
        return "-".join([*parts, f"seed{self.seed}"])


def find_text(config: RunConfig, download: bool):
    """The ``Corpus`` that ``config.text`` names, which from now on names what was found."""
    from lab2.language.corpus import load_corpus

    corpus = load_corpus(config.text, config.data_folder(), download)
    if config.text == "auto":
        config.text = corpus.name  # what was used, not what was asked for
    elif Path(config.text).is_file():
        config.text = str(Path(config.text).resolve())  # --resume may come from another folder
    return corpus


def set_up(config: Config) -> tuple[Any, tuple]:
    """The GPT in its Trainer, and the windows to train, validate and test it on: ``(trainer, (train, validation,
    test))``."""
    # Imported here, not above: torch takes seconds to import, and --help should not wait for it.
    import torch

    from lab1.engine.network import Unavailable
    from lab2.language import tokens
    from lab2.language.corpus import ConsecutiveWindows, RandomWindows, ShuffledWindows
    from lab2.models import GPT
    from lab2.trainer import LanguageModelTrainer

    device = prepare(config)
    config.precision = find_precision(config.precision, device)
    download = not config.dry_run
    corpus = find_text(config, download)
    parts = corpus.parts()
    # Characters of the whole text, so that every part can be read; byte pairs of what is learned from alone.
    learned = corpus.text if config.tokenizer == "characters" else parts["train"]
    try:
        tokenizer = tokens.make(config.tokenizer, learned, config.data_folder(), download)
    except Unavailable as error:
        raise Unavailable(f"--tokenizer {config.tokenizer}: {error}; characters and bpe-512 need none") from None
    encoded = {name: torch.tensor(tokenizer.encode(part), device=device) for name, part in parts.items()}
    steps, interval = (6, 3) if config.dry_run else (config.steps, config.eval_interval)
    windows = ShuffledWindows if config.uses("shuffling") else RandomWindows
    train = windows(encoded["train"], config.context, config.batch_size, config.seed, steps, interval)
    validation, test = (
        ConsecutiveWindows(
            encoded[name], config.context, config.batch_size, len(parts[name]), limit=3 if config.dry_run else None
        )
        for name in ("validation", "test")
    )
    model = GPT(
        *(len(tokenizer), config.context, config.layers, config.heads, config.width, config.dropout),
        activation="relu2" if config.uses("squared-relu") else "gelu",
        rotary=config.uses("rotary"),
        qk_norm=config.uses("qk-norm"),
        zero_init=config.uses("zero-init"),
    )
    about = {"dataset": corpus.name, "tokenizer": tokenizer.describe(), "checksum": zlib.crc32(corpus.text.encode())}
    prompt = tokenizer.encode("\n" if "\n" in corpus.text else corpus.text[0]) or [0]  # samples begin with a new line
    return LanguageModelTrainer(model, config, about, tokenizer, prompt), (train, validation, test)


def main(config: Config) -> dict:
    """Train, validate, test; returns the test metrics."""
    trainer, (train, validation, test) = set_up(config)
    trainer.train(train, validation)
    found = trainer.test(test)
    trainer.say(found["sample"])
    return found


if __name__ == "__main__":
    launch(main, Config)
