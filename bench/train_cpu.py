"""Training on a CPU beside nanoGPT's model, Hugging Face's GPT-2 and litgpt: tokens for each second of CPU time.

    python bench/train_cpu.py                  # about eight minutes on two quiet processors
    python bench/train_cpu.py --quick          # micro-batches of 4 only, fewer turns
    python bench/train_cpu.py --shapes 4x8192 16x50304 --threads 2

Whole steps are measured: forward, backward, clipping and optimizer, of 6 layers, width 384, 6 heads and 256
positions, in bf16 with fp32 weights. Every variant lives in a process of its own, with the trainer's settings of malloc
and libgomp for all of them, and the variants take turns; a number is the median of its turns. CPU time is told
(`process_time`), because wall time follows whatever else the machine does; wall time is printed too, for machines that
do nothing else. Compiling, and the first steps, are not counted.

Like is held against like, each with AdamW for every parameter, and ours with its document mask:

- `gpt2`: the trainer with GPT-2's shape (`ours-gpt2`: LayerNorm, learned positions, biases, an MLP of 4 × the width,
  nanoGPT's form of GELU) beside nanoGPT's model, which has no biases, and Hugging Face's GPT-2.
- `qwen3`: the trainer with its default shape (`ours`: RMSNorm, also of queries and keys, rotary positions, SwiGLU)
  beside litgpt's model, which leaves the norms of queries and keys out.

Of each side the better of eager and compiled counts (`pretrain.compile: true` compiles our blocks). The worst of all
such ratios is the result. The default shape, which does more work than GPT-2's, beside the best of all peers is told
too. `--variants ours-muon ...` measures Muon, which is the default, as well.

litgpt is not among our packages: where it is not installed it is left out and that is said. A scratch environment keeps
it apart:

    python -m venv --system-site-packages SCRATCH && SCRATCH/bin/pip install --no-deps litgpt==0.5.13 lightning \
        lightning-utilities torchmetrics pytorch-lightning
    python bench/train_cpu.py --litgpt SCRATCH/lib/python3.11/site-packages
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

LAYERS, WIDTH, HEADS, CONTEXT = 6, 384, 6, 256
SHAPES = ("4x8192", "16x8192", "4x50304", "16x50304")
FAMILIES = {
    "gpt2": (("ours-gpt2", "ours-gpt2-compiled"), ("nanogpt", "nanogpt-compiled", "hf-gpt2")),
    "qwen3": (("ours", "ours-compiled"), ("litgpt-compiled",)),
}
"""Ours and the peers of one architecture, more or less; all take AdamW for every parameter."""
OURS = tuple(name for ours, _ in FAMILIES.values() for name in ours)
PEERS = tuple(name for _, peers in FAMILIES.values() for name in peers)
GOAL, FLOOR = 1.25, 1.0
Step = Callable[[Any, Any], None]


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--shapes", nargs="+", default=None, metavar="MICRO_BATCHxVOCABULARY")
    asked.add_argument("--threads", nargs="+", type=int, default=[1], help="threads of each process")
    asked.add_argument("--variants", nargs="+", default=[*OURS, *PEERS], choices=[*BUILDERS])
    asked.add_argument("--litgpt", metavar="FOLDER", default=None, help="a site-packages folder that has litgpt")
    asked.add_argument("--turns", type=int, default=None, help="turns of each variant; the default is 3")
    asked.add_argument("--seconds", type=float, default=None, help="CPU seconds of a turn, about")
    asked.add_argument("--quick", action="store_true", help="micro-batches of 4, shorter turns")
    asked.add_argument("--child", nargs=4, metavar=("VARIANT", "MICRO_BATCH", "VOCABULARY", "THREADS"))
    said = asked.parse_args()
    if said.litgpt:
        sys.path.append(said.litgpt)
    if said.child:
        variant, *numbers = said.child
        return child(variant, *map(int, numbers))
    shapes = said.shapes or (SHAPES[::2] if said.quick else SHAPES)
    turns = said.turns or 3
    seconds = said.seconds or (1.0 if said.quick else 1.5)
    print("tokens per CPU second, median of the turns (lowest to highest); wall: tokens per second of wall time")
    print(
        f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors: wall time counts on a quiet machine only"
    )
    ratios: dict[str, tuple[float, float]] = {}
    default: dict[str, float] = {}
    told: dict[str, Any] = {}
    for threads in said.threads:
        for shape in shapes:
            micro_batch, vocabulary = map(int, shape.split("x"))
            rates = _compare(said, micro_batch, vocabulary, threads, turns, seconds)
            name = shape if len(said.threads) == 1 else f"{shape}, {threads} threads"
            told[name] = rates
            for family, (ours, peers) in FAMILIES.items():
                if pair := _beside(rates, ours, peers, f"  {family}: "):
                    ratios[f"{family} {name}"] = pair
            if pair := _beside(rates, FAMILIES["qwen3"][0], PEERS, "  default shape, all peers: "):
                default[name] = round(pair[0] / pair[1], 3)
    if not ratios:
        print("nothing to compare: ask for ours and for a peer of the same family")
        return 2
    worst = min(ratios, key=lambda name: ratios[name][0] / ratios[name][1])
    mine, best = ratios[worst]
    result = {
        "bench": "train_cpu",
        "ours": round(mine),
        "peer": round(best),
        "ratio": round(mine / best, 3),
        "unit": "tokens per CPU second, at the worst shape",
        "shape": worst,
        "goal": GOAL,
        "floor": FLOOR,
        "ratios": {name: round(one / other, 3) for name, (one, other) in ratios.items()},
        "default_shape_beside_the_best_of_all": default,
        "rates": {name: {variant: round(rate) for variant, rate in rates.items()} for name, rates in told.items()},
    }
    print(json.dumps(result))
    return 0 if mine / best >= FLOOR else 1


def _beside(
    rates: dict[str, float], ours: tuple[str, ...], peers: tuple[str, ...], title: str
) -> tuple[float, float] | None:
    """The rates of the best of ours and of the best of the peers, of those that ran; says how they compare."""
    mine = {name: rates[name] for name in ours if name in rates}
    others = {name: rates[name] for name in peers if name in rates}
    if not mine or not others:
        return None
    best = max(others, key=lambda name: others[name])
    said = ", ".join(f"{name} {rate / others[best]:.2f} x" for name, rate in mine.items())
    print(f"{title}{said} {best}", flush=True)
    return max(mine.values()), others[best]


def _compare(
    said: argparse.Namespace, micro_batch: int, vocabulary: int, threads: int, turns: int, seconds: float
) -> dict[str, float]:
    """Tokens per CPU second of every variant that can run; prints them."""
    print(f"micro-batch {micro_batch} x {CONTEXT}, vocabulary {vocabulary:,}, {threads} thread(s)", flush=True)
    running = {}
    for variant in said.variants:
        # All of them start, and compile, at the same time; only turns are measured, and they never overlap.
        running[variant] = Variant(variant, micro_batch, vocabulary, threads, said.litgpt)
    ready = {}
    for name, one in running.items():
        words = one.hear()
        if "parameters" in words:
            ready[name] = words["parameters"]
        else:
            print(f"  {name:17s} {words.get('missing', 'ended without a word')}", flush=True)
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in ready}
    for _ in range(turns):
        for name in ready:
            measured[name].append(running[name].turn(seconds))
    rates = {}
    for name, parameters in ready.items():
        per_cpu = sorted(turn["tokens"] / turn["cpu"] for turn in measured[name])
        per_wall = statistics.median(turn["tokens"] / turn["wall"] for turn in measured[name])
        rates[name] = statistics.median(per_cpu)
        span = f"({per_cpu[0]:,.0f} to {per_cpu[-1]:,.0f})"
        print(
            f"  {name:17s} {rates[name]:8,.0f} {span:20s} wall {per_wall:8,.0f}   {parameters / 1e6:.1f} M parameters",
            flush=True,
        )
    for one in running.values():
        one.end()
    return rates


class Variant:
    """A process that trains when it is told to."""

    def __init__(self, name: str, micro_batch: int, vocabulary: int, threads: int, litgpt: str | None) -> None:
        from components.pretrain.launch import CPU_SPEED

        child = ["--child", name, str(micro_batch), str(vocabulary), str(threads)]
        more = ["--litgpt", litgpt] if litgpt else []
        self.process = subprocess.Popen(
            [sys.executable, __file__, *more, *child],
            env={**os.environ, **CPU_SPEED, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> dict[str, Any]:
        """The next line that it says; empty when it has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        words: dict[str, Any] = json.loads(line) if line else {}
        return words

    def turn(self, seconds: float) -> dict[str, float]:
        """Let it train for so many CPU seconds, about; tokens, and seconds of both kinds."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        words = self.hear()
        if not words:
            sys.exit("a variant ended in the middle of the run: see above")
        return words

    def end(self) -> None:
        """It ends when nothing more can come."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def child(variant: str, micro_batch: int, vocabulary: int, threads: int) -> int:
    """Build a model, take a few steps, then train whenever a line asks for so many CPU seconds."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not for the parent

    def say(words: dict[str, Any]) -> None:
        out.write(json.dumps(words) + "\n")
        out.flush()

    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    try:
        step, parameters = BUILDERS[variant](vocabulary)
    except ModuleNotFoundError as error:
        say({"missing": f"not installed ({error.name}): see the first lines of bench/train_cpu.py"})
        return 0
    batches = [torch.randint(0, vocabulary, (micro_batch, CONTEXT + 1)) for _ in range(4)]
    pairs = [(batch[:, :-1].contiguous(), batch[:, 1:].contiguous()) for batch in batches]
    for pair in pairs[:3]:
        began = time.process_time()
        step(*pair)
        took = time.process_time() - began
    say({"parameters": parameters})
    for line in sys.stdin:
        steps = max(2, round(float(line) / took))
        cpu, wall = time.process_time(), time.perf_counter()
        for index in range(steps):
            step(*pairs[index % len(pairs)])
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        say({"tokens": steps * micro_batch * CONTEXT, "cpu": cpu, "wall": wall})
    return 0


def ours(vocabulary: int, **changes: Any) -> tuple[Step, int]:
    """The trainer's model, kernels and optimizers, put together as the trainer does."""
    import torch

    from trainer.loss import Examples, loss
    from trainer.model import Transformer
    from trainer.optim import Optimizers, clip
    from trainer.recipe import ModelShape, Optimizer

    optimizer = Optimizer(matrices=changes.pop("matrices", "adamw"))
    compiled = changes.pop("compiled", False)
    shape = {"layers": LAYERS, "width": WIDTH, "heads": HEADS, "kv_heads": HEADS, "head_dim": WIDTH // HEADS}
    shape |= {"mlp_width": 1024, "context": CONTEXT}
    model = Transformer(ModelShape(**{**shape, **changes}), vocabulary, torch.bfloat16)
    model.initialize(seed=0)
    if compiled:
        for block in model.blocks:
            block.compile(dynamic=False)
    optimizers = Optimizers(optimizer, model)
    parameters = list(model.parameters())

    def step(inputs: Any, targets: Any) -> None:
        document = (inputs < vocabulary // CONTEXT).cumsum(1)  # about one document in a row ends and another begins
        losses = loss(model, Examples(inputs, targets, document=document))
        losses.total.backward()  # type: ignore[no-untyped-call]
        _, divisor = clip(parameters, 1.0, losses.counted.float())
        optimizers.step(0.01, divisor=divisor)

    return step, sum(parameter.numel() for parameter in parameters)


def nanogpt(vocabulary: int, compiled: bool) -> tuple[Step, int]:
    """GPT-2 as nanoGPT writes it: plain modules, a tied head, fused SDPA, bf16 by autocast, fused AdamW."""
    import torch
    import torch.nn.functional as F
    from torch import Tensor, nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm_1 = nn.LayerNorm(WIDTH, bias=False)
            self.joined = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
            self.output = nn.Linear(WIDTH, WIDTH, bias=False)
            self.norm_2 = nn.LayerNorm(WIDTH, bias=False)
            self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
            self.down = nn.Linear(4 * WIDTH, WIDTH, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            batch, time, width = x.shape
            parts = self.joined(self.norm_1(x)).split(width, dim=2)
            q, k, v = (part.view(batch, time, HEADS, width // HEADS).transpose(1, 2) for part in parts)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.output(y.transpose(1, 2).contiguous().view(batch, time, width))
            out: Tensor = x + self.down(F.gelu(self.up(self.norm_2(x))))
            return out

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(vocabulary, WIDTH)
            self.positions = nn.Embedding(CONTEXT, WIDTH)
            self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
            self.norm = nn.LayerNorm(WIDTH, bias=False)
            self.head = nn.Linear(WIDTH, vocabulary, bias=False)
            self.head.weight = self.tokens.weight
            for parameter in self.parameters():
                if parameter.dim() == 2:
                    nn.init.normal_(parameter, std=0.02)

        def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
            x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
            for block in self.blocks:
                x = block(x)
            logits = self.head(self.norm(x))
            mean: Tensor = F.cross_entropy(logits.view(-1, vocabulary), targets.view(-1))
            return mean

    model = GPT()
    call = torch.compile(model) if compiled else model
    return _with_autocast(model, lambda inputs, targets: call(inputs, targets))


def hugging_face(vocabulary: int) -> tuple[Step, int]:
    """`GPT2LMHeadModel`, stepped by hand: no `Trainer` around it."""
    from transformers import GPT2Config, GPT2LMHeadModel

    shape: dict[str, Any] = {"n_layer": LAYERS, "n_embd": WIDTH, "n_head": HEADS, "n_positions": CONTEXT}
    shape |= {"vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 0, "attn_implementation": "sdpa"}
    config = GPT2Config(**shape, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0)
    model = GPT2LMHeadModel(config).train()
    return _with_autocast(model, lambda inputs, targets: model(input_ids=inputs, labels=inputs, use_cache=False).loss)


def litgpt(vocabulary: int) -> tuple[Step, int]:
    """litgpt's model with our default's shape (RMSNorm, rotary, SwiGLU, tied), compiled and with the loss in chunks, as
    its `pretrain` does; stepped by hand."""
    import torch
    from litgpt.config import Config  # type: ignore[import-not-found]
    from litgpt.model import GPT  # type: ignore[import-not-found]
    from litgpt.utils import chunked_cross_entropy  # type: ignore[import-not-found]

    config = Config(
        name="bench",
        block_size=CONTEXT,
        vocab_size=vocabulary,
        padded_vocab_size=vocabulary,
        n_layer=LAYERS,
        n_embd=WIDTH,
        n_head=HEADS,
        n_query_groups=HEADS,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
        intermediate_size=1024,
    )
    model = GPT(config)
    model.lm_head.weight = model.transformer.wte.weight
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.02)
    call = torch.compile(model)
    return _with_autocast(model, lambda inputs, targets: chunked_cross_entropy(call(inputs), targets))  # type: ignore[no-untyped-call]


def _with_autocast(model: Any, loss: Callable[[Any, Any], Any]) -> tuple[Step, int]:
    import torch

    parameters = list(model.parameters())
    decay = [{"params": [p for p in parameters if p.dim() == 2], "weight_decay": 0.1}]
    decay += [{"params": [p for p in parameters if p.dim() != 2], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(decay, lr=1e-4, betas=(0.9, 0.95), fused=True)

    def step(inputs: Any, targets: Any) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(inputs, targets)
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step, sum(parameter.numel() for parameter in parameters)


GPT2 = {
    "mlp_width": 4 * WIDTH,
    "norm": "layernorm",
    "norm_eps": 1e-5,
    "positions": "learned",
    "qk_norm": "none",
    "activation": "gelu",
    "gated": False,
    "bias": True,
}
BUILDERS: dict[str, Callable[[int], tuple[Step, int]]] = {
    "ours": ours,
    "ours-compiled": lambda vocabulary: ours(vocabulary, compiled=True),
    "ours-gpt2": lambda vocabulary: ours(vocabulary, **GPT2),
    "ours-gpt2-compiled": lambda vocabulary: ours(vocabulary, compiled=True, **GPT2),
    "ours-muon": lambda vocabulary: ours(vocabulary, matrices="muon"),
    "nanogpt": lambda vocabulary: nanogpt(vocabulary, compiled=False),
    "nanogpt-compiled": lambda vocabulary: nanogpt(vocabulary, compiled=True),
    "hf-gpt2": hugging_face,
    "litgpt-compiled": litgpt,
}

if __name__ == "__main__":
    sys.exit(main())
