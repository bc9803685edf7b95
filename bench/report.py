"""The report of a long run: seconds to draw it, and its size.

    python bench/report.py            # seconds long

Makes up the files of a run of 100,000 steps, each of them logged, with 300 domains, and draws its page three times in
fresh processes, from reading the files to the finished text.
"""

import json
import math
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STEPS, DOMAINS = 100_000, 300
SECONDS, BYTES = 2.0, 1_500_000  # budgets
ARTIFACTS = ("documents", "tokens", "checkpoint", "model", "scores")
PROGRAM = """
import json, sys, time
from pathlib import Path
from components.report.material import read
from components.report.page import page
from components.report.recipe import Report

names = sys.argv[2:]
wall, cpu = time.perf_counter(), time.process_time()
html = page(Report(), read({name: Path(sys.argv[1], name) for name in names}, dict.fromkeys(names, "0" * 64)))
spent = time.perf_counter() - wall, time.process_time() - cpu
print(json.dumps([*spent, len(html.encode())]))
"""


def training_log() -> str:
    """A loss that falls with noise; the development split is scored every 250 steps on every domain."""
    chance = random.Random(0)
    lines = []
    for step in range(1, STEPS + 1):
        line = {
            "step": step,
            "tokens": step * 2048,
            "loss": 1.9 + 6.4 * (1 + step / 50) ** -0.4 + chance.gauss(0, 0.08),
            "grad_norm": math.exp(chance.gauss(-0.6, 0.3)),
            "lr": 0.01 * min(1.0, (STEPS - step) / (0.6 * STEPS)),
        }
        if step % 250 == 0:
            line |= {f"development_bits_per_byte.domain-{d:03d}": 1 + d / 300 + step**-0.3 for d in range(DOMAINS)}
        lines.append(json.dumps(line))
    return "\n".join(lines) + "\n"


def scores(chance: random.Random) -> dict[str, Any]:
    """Both scores of a domain, beside six compressors."""
    own = round(chance.uniform(0.9, 1.6), 4)
    names = ("ppmd_5", "ppmd_6", "ppmd_8", "ppmd_12", "zstd_19_dict_110k", "zstd_19_dict_1024k")
    beside = {name: round(own * chance.uniform(0.9, 1.5), 4) for name in names}
    score = {"documents": 40, "bytes": chance.randrange(10**5, 10**7), "bits_per_byte": own, "compressors": beside}
    score |= {"low": round(own - 0.03, 4), "high": round(own + 0.03, 4)}
    return {"naive": score, "filtered": score}


def write(folder: Path) -> None:
    """All files that a report reads."""
    chance = random.Random(1)
    names = [f"domain-{d:03d}" for d in range(DOMAINS)]
    tally = {"documents": 1000, "bytes": 10**7}
    dropped = {f"rule_{r}": {"documents": 10, "bytes": 10**4} for r in range(12)}
    came = {"documents": 1000 + 12 * 10, "bytes": 10**7 + 12 * 10**4}
    source = {"licence": "CC0-1.0", "objects": 9, "in": came, "kept": tally, "dropped": dropped}
    shape = {
        "layers": 12,
        "width": 768,
        "heads": 12,
        "kv_heads": 12,
        "head_dim": 64,
        "mlp_width": 2048,
        "context": 1024,
    }
    sample = {"document": "0" * 64, "prompt": "It was " * 40, "continuation": "and then " * 40}
    ledger = {
        "format": "cairn-documents-v1",
        "sources": {name: {**source, "domain": name} for name in names},
        "splits": {split: dict.fromkeys(names, tally) for split in ("train", "development", "heldout")},
    }
    tokens = {"format": "cairn-tokens-v1", "vocab_size": 50_304, "tokenizer": "0" * 64}
    checkpoint = {"format": "cairn-checkpoint-v1", "model": shape, "step": STEPS, "seed": 0, "precision": "bf16"}
    for path, content in {
        "documents/ledger.json": json.dumps(ledger),
        "tokens/tokens.json": json.dumps(
            {**tokens, "splits": {"train": {"shards": [{"tokens": 75 * 10**7, "bytes": 3 * 10**9}]}}}
        ),
        "checkpoint/checkpoint.json": json.dumps(
            {**checkpoint, "parameters": 124 * 10**6, "tokens_seen": STEPS * 2048}
        ),
        "checkpoint/training.jsonl": training_log(),
        "model/README.md": "# made-up\n",
        "model/config.json": json.dumps({"architectures": ["Qwen3ForCausalLM"]}),
        "scores/scores.json": json.dumps(
            {
                "bits_per_byte": {name: scores(chance) for name in names},
                "setting": {"context": 1024, "stride": 512, "leak_threshold": 0.2},
            }
        ),
        "scores/samples.json": json.dumps([{**sample, "domain": name} for name in names]),
    }.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)


def main() -> int:
    with tempfile.TemporaryDirectory() as temporary:
        write(Path(temporary))
        drawn = []
        for _ in range(3):
            command = [sys.executable, "-c", PROGRAM, temporary, *ARTIFACTS]
            done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
            drawn.append(json.loads(done.stdout))
    wall, cpu, size = min(drawn)
    print(f"{STEPS:,} logged steps, {DOMAINS} domains: {wall:.2f} s ({cpu:.2f} s of CPU), {size:,} bytes")
    result = {
        "bench": "report",
        "ours": round(wall, 3),
        "peer": SECONDS,
        "ratio": round(wall / SECONDS, 3),
        "unit": "s (peer: the budget)",
        "cpu_s": round(cpu, 3),
        "bytes": size,
        "bytes_budget": BYTES,
    }
    print(json.dumps(result))
    return 0 if wall <= SECONDS and size <= BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
