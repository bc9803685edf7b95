"""Training on one GPU: tokens/s and MFU of gpt2-124m and llama-1b in bf16, beside Hugging Face's model.

    python bench/train_gpu.py                       # minutes, most of them compiling
    python bench/train_gpu.py --device cpu --smoke  # the same lines with tiny shapes: proves the script, not the speed

Both models have the same shape, batch, compiled blocks or model, and fused AdamW; they take turns, and a number is the
median of its turns. Of ours the step is taken apart (data, forward, backward, optimizer), and what `strict` costs
(deterministic kernels) is told. MFU is that of PaLM, appendix B, against the dense bf16 peak of the device's data
sheet.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from trainer.loss import loss, next_token  # noqa: E402
from trainer.metrics import peak_of_device  # noqa: E402
from trainer.model import Transformer  # noqa: E402
from trainer.optim import Optimizers, clip  # noqa: E402
from trainer.recipe import ModelShape, Optimizer  # noqa: E402

CASES: dict[str, tuple[dict[str, Any], int, int]] = {  # shape, vocabulary, micro-batch
    "gpt2-124m": ({"named": "gpt2-124m"}, 50_304, 32),
    "llama-1b": ({"named": "llama-1b"}, 128_256, 2),
}
TINY: dict[str, Any] = {"layers": 2, "width": 64, "heads": 4, "kv_heads": 4, "head_dim": 16, "mlp_width": 128}
TINY["context"] = 64
GOALS = {"gpt2-124m": 0.50, "llama-1b": 0.55}  # MFU on an H200
Parts = dict[str, float]


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    asked.add_argument("--smoke", action="store_true", help="tiny shapes, nothing compiled, two turns")
    asked.add_argument("--models", nargs="+", default=list(CASES), choices=list(CASES))
    asked.add_argument("--steps", type=int, default=None, help="steps of a turn")
    said = asked.parse_args()
    if said.device == "cuda" and not torch.cuda.is_available():
        print("no GPU can be used here: --device cpu --smoke shows that the script runs", file=sys.stderr)
        return 2
    device = torch.device(said.device)
    steps, turns = said.steps or (2 if said.smoke else 20), 2 if said.smoke else 5
    peak = peak_of_device() if device.type == "cuda" else None
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{'SMOKE: these are no measurements. ' if said.smoke else ''}{name}, torch {torch.__version__}")
    told = {model: _case(model, device, said.smoke, steps, turns, peak) for model in said.models}
    worst = min(told, key=lambda model: told[model]["ratio"])
    result = {
        "bench": "train_gpu",
        "ours": told[worst]["ours"],
        "peer": told[worst]["peer"],
        "ratio": told[worst]["ratio"],
        "unit": "tokens/s",
        "device": name,
        "smoke": said.smoke,
        "goals": GOALS,
        "models": told,
    }
    print(json.dumps(result))
    return 0


def _case(model: str, device: torch.device, smoke: bool, steps: int, turns: int, peak: float | None) -> dict[str, Any]:
    said, vocabulary, micro_batch = CASES[model]
    if smoke:
        said, vocabulary, micro_batch = {**said, **TINY}, 512, 2
    shape = ModelShape(**said)
    rows = torch.randint(0, vocabulary, (4, micro_batch, shape.context + 1))
    rows = rows.pin_memory() if device.type == "cuda" else rows
    flops = shape.flops_per_token(vocabulary)
    tokens = micro_batch * shape.context
    print(f"\n{model}: {shape.parameters(vocabulary):,} parameters, micro-batch {micro_batch} x {shape.context}")
    strict, fast = (_ours(shape, vocabulary, device, compiled=not smoke) for _ in range(2))
    peer = _hugging_face(shape, vocabulary, device, compiled=not smoke)
    kinds: dict[str, tuple[Callable[[Tensor], Parts], bool]] = {
        "ours": (fast, False),
        "ours, strict": (strict, True),
        "hugging face": (peer, False),
    }
    measured: dict[str, list[Parts]] = {kind: [] for kind in kinds}
    for turn in range(turns + 1):
        for kind, (step, deterministic) in kinds.items():
            torch.use_deterministic_algorithms(deterministic, warn_only=True)
            parts = [_timed(step, rows[index % len(rows)], device) for index in range(steps)]
            if turn:  # the first compiles
                measured[kind].append({part: statistics.median(one[part] for one in parts) for part in parts[0]})
    torch.use_deterministic_algorithms(False)
    rates = {}
    for kind, all_turns in measured.items():
        took = {part: statistics.median(one[part] for one in all_turns) for part in all_turns[0]}
        rates[kind] = tokens / took["step"]
        mfu = "no MFU" if peak is None else f"{rates[kind] * flops / peak:.1%} MFU"
        split = ", ".join(f"{part} {seconds * 1e3:.1f} ms" for part, seconds in took.items() if part != "step")
        print(f"  {kind:14s} {rates[kind]:12,.0f} tokens/s, {mfu}; {split}", flush=True)
    price = rates["ours"] / rates["ours, strict"] - 1
    print(f"  strict costs {price:.1%}; ours beside Hugging Face's: {rates['ours'] / rates['hugging face']:.2f} x")
    return {
        "ours": round(rates["ours"]),
        "peer": round(rates["hugging face"]),
        "ratio": round(rates["ours"] / rates["hugging face"], 3),
        "strict": round(rates["ours, strict"]),
        "mfu": None if peak is None else round(rates["ours"] * flops / peak, 4),
    }


def _timed(step: Callable[[Tensor], Parts], rows: Tensor, device: torch.device) -> Parts:
    _wait(device)
    began = time.perf_counter()
    parts = step(rows)
    _wait(device)
    return {**parts, "step": time.perf_counter() - began}


class Clock:
    """Seconds between marks: of the device's own events on a GPU, so that nothing waits for the host."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.marks: list[tuple[str, Any]] = []

    def mark(self, name: str) -> None:
        """What comes before it is called so."""
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self.marks.append((name, event))
        else:
            self.marks.append((name, time.perf_counter()))

    def parts(self) -> Parts:
        """Seconds of each part."""
        _wait(self.device)
        pairs = zip(self.marks, self.marks[1:], strict=False)
        if self.device.type == "cuda":
            return {name: before.elapsed_time(mark) / 1e3 for (_, before), (name, mark) in pairs}
        return {name: mark - before for (_, before), (name, mark) in pairs}


def _ours(shape: ModelShape, vocabulary: int, device: torch.device, compiled: bool) -> Callable[[Tensor], Parts]:
    model = Transformer(shape, vocabulary, torch.bfloat16)
    model.initialize(seed=0)
    model.to(device)
    if compiled:
        for block in model.blocks:
            block.compile(dynamic=False)
    optimizers = Optimizers(Optimizer(matrices="adamw"), model)
    parameters = list(model.parameters())

    def step(rows: Tensor) -> Parts:
        clock = Clock(device)
        clock.mark("begin")
        examples = next_token(rows.to(device, non_blocking=True), end_of_text=None)
        clock.mark("data")
        losses = loss(model, examples)
        clock.mark("forward")
        losses.total.backward()  # type: ignore[no-untyped-call]
        clock.mark("backward")
        _, divisor = clip(parameters, 1.0, losses.counted.float())
        optimizers.step(0.01, divisor=divisor)
        clock.mark("optimizer")
        return clock.parts()

    return step


def _hugging_face(
    shape: ModelShape, vocabulary: int, device: torch.device, compiled: bool
) -> Callable[[Tensor], Parts]:
    model = _peer(shape, vocabulary).to(device).train()
    call = torch.compile(model) if compiled else model
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.95), fused=True)

    def step(rows: Tensor) -> Parts:
        clock = Clock(device)
        clock.mark("begin")
        tokens = rows[:, :-1].to(device, non_blocking=True)
        clock.mark("data")
        with torch.autocast(device.type, torch.bfloat16):
            value = call(input_ids=tokens, labels=tokens, use_cache=False).loss
        clock.mark("forward")
        value.backward()
        clock.mark("backward")
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.mark("optimizer")
        return clock.parts()

    return step


def _peer(shape: ModelShape, vocabulary: int) -> Any:
    import transformers

    common: dict[str, Any] = {"vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 0}
    common["attn_implementation"] = "sdpa"
    if shape.positions == "learned":
        sizes: dict[str, Any] = {
            "n_layer": shape.layers,
            "n_embd": shape.width,
            "n_head": shape.heads,
            "n_positions": shape.context,
        }
        dropout: dict[str, Any] = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
        config: Any = transformers.GPT2Config(**common, **sizes, **dropout, n_inner=shape.mlp_width)
        return transformers.GPT2LMHeadModel(config)
    config = transformers.LlamaConfig(
        **common,
        num_hidden_layers=shape.layers,
        hidden_size=shape.width,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.mlp_width,
        max_position_embeddings=shape.context,
        tie_word_embeddings=shape.tied,
    )
    return transformers.LlamaForCausalLM(config)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
