"""A small GPT with this repository, against the recipe that nanoGPT documents for a laptop, and against transformers.

    python tests/benchmarks/bench_gpt.py                 2,000 steps each, then 500 tokens each: some minutes
    python tests/benchmarks/bench_gpt.py --steps 300 --rounds 1

Training: 4 layers, 4 heads, 128 wide, context 64, batches of 12, learning rate 1e-3, on the Divina Commedia (where it
cannot be had: Python's standard library). Ours is what ``train_gpt.py --preset nano`` does, with its accuracy, losses
and progress. The other side is written out below: fp32, fused attention, AdamW as it comes, a batch stacked from slices
of an array, the loss read at every step; rate to a tenth, no biases. Both take turns of 100 steps in one process; the
ratio is the median over the turns of that turn's ratio, and both are evaluated on the same text at the end.

Generation: 500 tokens after one, greedy, from the same weights with a context of 512, against ``generate`` of
transformers with and without its cache. The texts must be equal.

Seconds are of this process's own time, so that a busy machine disturbs them less.
"""

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import report
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from lab2 import train_gpt
from lab2.models import GPT

TURN = 100  # steps
CONTEXT, BATCH, LAYERS, HEADS, WIDTH = 64, 12, 4, 4, 128


class PlainBlock(nn.Module):
    """A pre-norm block without biases, with torch's fused attention."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = (part.view(B, T, HEADS, -1).transpose(1, 2) for part in self.qkv(self.norm1(x)).split(C, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).contiguous().view(B, T, C))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class PlainGPT(nn.Module):
    """The same network as ``--preset nano``, without biases."""

    def __init__(self, vocabulary: int):
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(PlainBlock() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH, bias=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                last = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * LAYERS) if last else 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1]))
        return F.linear(self.norm(self.blocks(x)), self.tokens.weight)


def plain_steps(model: PlainGPT, data: np.ndarray, steps: int):
    """nanoGPT's loop, a step at each ``next``."""
    groups = [[p for p in model.parameters() if (p.ndim >= 2) is matrices] for matrices in (True, False)]
    optimizer = torch.optim.AdamW(
        [{"params": groups[0], "weight_decay": 0.1}, {"params": groups[1], "weight_decay": 0.0}],
        lr=1e-3,
        betas=(0.9, 0.99),
    )
    model.train()
    for step in range(steps):
        share = max(0.0, (step - 100) / (steps - 100))
        rate = 1e-3 * (step + 1) / 101 if step < 100 else 1e-4 + 0.5 * (1 + math.cos(math.pi * share)) * 9e-4
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = torch.randint(len(data) - CONTEXT, (BATCH,)).tolist()
        inputs = torch.stack([torch.from_numpy(data[i : i + CONTEXT].astype(np.int64)) for i in starts])
        targets = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + CONTEXT].astype(np.int64)) for i in starts])
        logits = model(inputs)
        loss = F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        yield


def seconds(work) -> float:
    """This process's own time for one call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def training(steps: int) -> dict[str, Any]:
    """Train both, a turn each; print speeds and losses, and return them."""
    folder = Path(tempfile.mkdtemp())
    config = train_gpt.Config(preset="nano", steps=steps, eval_interval=TURN, model_dir=folder)
    trainer, (train, validation, _) = train_gpt.set_up(config)
    sizes = (config.context, config.batch_size, config.layers, config.heads, config.width)
    assert sizes == (CONTEXT, BATCH, LAYERS, HEADS, WIDTH)
    trainer.steps_per_epoch = len(train)
    trainer.open()
    plain = PlainGPT(len(trainer.tokenizer))
    plain_loop = plain_steps(plain, train.tokens.numpy().astype(np.uint16), steps)
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    while not trainer.finished():
        count = min(TURN, steps - trainer.step)
        times["ours"].append(seconds(lambda: trainer.train_epoch(train, tqdm(disable=True))))
        times["plain"].append(seconds(lambda count=count: [next(plain_loop) for _ in range(count)]))
        trainer.epoch, trainer.batch = trainer.epoch + 1, 0
    found = {"ours": trainer.evaluate(validation)["loss"]}
    trainer.model, trainer.compiled, trainer.autocast = plain, plain, torch.autocast("cpu", enabled=False)
    found["plain"] = trainer.evaluate(validation)["loss"]
    ratios = [b / a for a, b in zip(times["ours"], times["plain"], strict=True)][1:]  # the first turn warms up
    print(f"{steps:,} steps on {config.text}, {torch.get_num_threads()} threads, ours in {config.precision}")
    print(f"{'':14s}{'tokens/s':>10s}{'seconds':>10s}{'validation loss':>17s}")
    for name, spent in times.items():
        print(f"{name:14s}{steps * BATCH * CONTEXT / sum(spent):10,.0f}{sum(spent):10.1f}{found[name]:17.4f}")
    print(f"ours is faster by {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})\n", flush=True)
    # The first turn, which warms up, stands in the seconds and not in the ratio.
    return {"text": config.text, "seconds": times, "ratio": {"plain": statistics.median(ratios)}, "validation": found}


def generation(rounds: int, count: int = 500) -> dict[str, Any]:
    """Generate with ours and with transformers; print speeds, and return them."""
    from transformers import GPT2LMHeadModel

    from lab2.hub import quiet

    quiet()
    torch.manual_seed(0)
    ours = GPT(80, 512, LAYERS, HEADS, WIDTH).eval()
    for weight in ours.parameters():
        weight.data.mul_(8 if weight.ndim == 2 else 1)  # so that the text is not one token again and again
    folder = tempfile.mkdtemp()
    ours.save_pretrained(folder)
    theirs = GPT2LMHeadModel.from_pretrained(folder).eval()
    prompt, texts = torch.tensor([[1]]), {}

    def their(cached: bool):
        settings = {"max_new_tokens": count, "do_sample": False, "pad_token_id": 0, "use_cache": cached}
        return lambda: theirs.generate(prompt, attention_mask=torch.ones_like(prompt), **settings)

    ways = {
        "ours": lambda: ours.generate(prompt, count, greedy=True),
        "transformers": their(True),
        "without cache": their(False),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, work in ways.items():
            if number == 0 and name == "without cache":
                continue
            spent = seconds(lambda name=name, work=work: texts.update({name: work()}))
            if number > 0:  # the first round warms up
                times[name].append(spent)
    equal = all(torch.equal(texts["ours"], text) for text in texts.values())
    print(f"{count} tokens, {len(texts['ours'].unique())} different ones, the same text: {'yes' if equal else 'NO'}")
    for name, spent in times.items():
        ratio = report.ratio(times["ours"], spent)
        print(f"{name:14s}{count / statistics.median(spent):10,.0f} tokens/s   ours is faster by {ratio:.1f}")
    return {"tokens": count, "equal": equal, "seconds": times, "ratio": report.ratios(times)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="of training, each (at least 200)")
    parser.add_argument("--rounds", type=int, default=3, help="of generation")
    flags = report.parse(parser)
    found = {"training": training(flags.steps)} if flags.steps >= 200 else {}
    report.write(__file__, flags, found | {"generation": generation(flags.rounds)})


if __name__ == "__main__":
    main()
