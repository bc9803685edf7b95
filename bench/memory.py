"""Peak memory of a training process beside what trainer/memory.py plans.

    python bench/memory.py            # about a minute

Every case is a process of its own: it imports the trainer, notes its resident memory, and then does what training does:
model, optimizers, two steps, a copy of the state as for a checkpoint, another step beside it, and a batch of the
development split. The peak above what it noted is held against the plan.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

WIDE = {"layers": 6, "width": 384, "heads": 6, "kv_heads": 6, "head_dim": 64, "mlp_width": 1024, "context": 256}
GPT2 = {"named": "gpt2-124m", "layers": 4, "context": 512}
ADAMW = {"optimizer": {"matrices": "adamw"}}
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "micro-batch 4, vocabulary 8k": (8192, {"model": WIDE, "batch": 4, "micro_batch": 4}),
    "micro-batch 16, vocabulary 8k": (8192, {"model": WIDE, "batch": 16, "micro_batch": 16}),
    "4 micro-batches of 4": (8192, {"model": WIDE, "batch": 16, "micro_batch": 4}),
    "vocabulary 50k": (50304, {"model": WIDE, "batch": 8, "micro_batch": 8}),
    "fp32, AdamW": (8192, {"model": WIDE, "batch": 8, "micro_batch": 8, "precision": "fp32", **ADAMW}),
    "gpt-2's shape, 4 layers, context 512": (8192, {"model": GPT2, "batch": 8, "micro_batch": 8}),
}
WITHIN = 0.15


def main() -> int:
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
        return 0
    from components.pretrain.launch import CPU_SPEED

    ratios = {}
    for name in CASES:
        environment = {**os.environ, **CPU_SPEED, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, __file__, name]
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        said = json.loads(done.stdout)
        ratios[name] = said["measured"] / said["planned"]
        sizes = f"measured {said['measured'] / 2**20:6,.0f} MiB, planned {said['planned'] / 2**20:6,.0f}"
        print(f"{name:38s} {sizes}: {ratios[name] - 1:+.0%}   {said['plan']}", flush=True)
    worst = max(ratios, key=lambda name: abs(ratios[name] - 1))
    result = {
        "bench": "memory",
        "ours": round(ratios[worst], 3),
        "peer": 1.0,
        "ratio": round(ratios[worst], 3),
        "unit": "measured peak / planned, where they are furthest apart",
        "within": WITHIN,
        "ratios": {name: round(ratio, 3) for name, ratio in ratios.items()},
    }
    print(json.dumps(result))
    return 0 if abs(ratios[worst] - 1) <= WITHIN else 1


def measure(name: str) -> dict[str, Any]:
    """Bytes of the peak above the bare program, and of the plan."""
    import numpy as np
    import torch

    from cairn.resources import peak_rss
    from trainer import train  # noqa: F401 - the whole program
    from trainer.evaluate import Development
    from trainer.loss import loss, next_token
    from trainer.memory import plan
    from trainer.model import Transformer
    from trainer.optim import Optimizers, clip
    from trainer.parallel import TreeSum
    from trainer.recipe import Training

    vocabulary, said = CASES[name]
    recipe = Training.model_validate({**said, "steps": 1000})
    torch.set_num_threads(1)
    torch.ones(64, 64, requires_grad=True).matmul(torch.ones(64, 64)).sum().backward()  # type: ignore[no-untyped-call]
    bare = peak_rss()
    model = Transformer(recipe.model, vocabulary, torch.bfloat16 if recipe.precision == "bf16" else torch.float32)
    model.initialize(0)
    optimizers = Optimizers(recipe.optimizer, model)
    parameters = list(model.parameters())

    def step() -> None:
        examples = next_token(torch.randint(0, vocabulary, (recipe.batch, recipe.model.context + 1)), end_of_text=0)
        sums = TreeSum()
        for first in range(0, recipe.batch, recipe.micro_batch):
            losses = loss(model, examples.rows(first, first + recipe.micro_batch))
            losses.total.backward()  # type: ignore[no-untyped-call]
            sums.add([p.grad for p in parameters if p.grad is not None])
            for parameter in parameters:
                parameter.grad = None
        for parameter, grad in zip(parameters, sums.total(), strict=True):
            parameter.grad = grad
        targets = torch.tensor(float(recipe.batch * recipe.model.context))
        _, divisor = clip(parameters, 1.0, targets)
        optimizers.step(0.01, divisor=divisor)

    step()
    step()
    state = {**model.state_dict(), **optimizers.state()}
    copy = {name: tensor.clone() for name, tensor in state.items()}
    step()
    ids = np.arange(recipe.model.context + 1, dtype=np.int64)
    Development({"text": [ids] * 16}, {"text": 1}).bits_per_byte(model)
    peak = peak_rss()
    assert copy
    planned = plan(recipe, vocabulary)
    return {"measured": (peak - bare) * 2**30, "planned": planned.total, "plan": str(planned)}


if __name__ == "__main__":
    sys.exit(main())
