"""The files that a report is drawn from, made up: five artifacts without weights, documents or tokens."""

import json
import math
import random
from pathlib import Path
from typing import Any

from components.report.material import Material, read

DIGESTS = {name: f"{index}" * 64 for index, name in enumerate(("documents", "tokens", "checkpoint", "model", "scores"))}
NAIVE: dict[str, Any] = {
    "documents": 28, "bytes": 487_122, "bits_per_byte": 1.1021, "low": 1.0402, "high": 1.1689,
    "compressors": {"ppmd_5": 1.3093, "ppmd_12": 1.0352, "zstd_19_dict_110k": 1.4452, "zstd_19_dict_1024k": 1.3761},
}  # fmt: skip
FILTERED: dict[str, Any] = {
    "documents": 23, "bytes": 311_874, "bits_per_byte": 1.3431, "low": 1.2817, "high": 1.4102,
    "compressors": {"ppmd_5": 1.4681, "ppmd_12": 1.2254, "zstd_19_dict_110k": 1.6149, "zstd_19_dict_1024k": 1.5233},
}  # fmt: skip
FERTILITY = {"documents": 540, "bytes": 7_900_000, "words": 810_000, "tokens": 2_450_000}
NONE = {"documents": 0, "bytes": 0}


def training_log(steps: int, every: int = 10, development: tuple[str, ...] = ("code",)) -> list[dict[str, Any]]:
    """A run that goes well: the loss falls by a power law, with noise."""
    chance = random.Random(3)
    lines = []
    for step in range(1, steps + 1):
        evaluated = step % 250 == 0 or step == steps
        if step % every and not evaluated and step != 1:
            continue
        warm = min(1.0, step / (0.03 * steps))
        rate = 0.016 * warm * min(1.0, (steps - step) / (0.6 * steps))
        line: dict[str, Any] = {
            "step": step,
            "tokens": step * 2048,
            "loss": round(1.9 + 6.4 * (1 + step / 12) ** -0.45 + chance.gauss(0, 0.09), 6),
            "grad_norm": round(math.exp(chance.gauss(-0.6, 0.25)) + 4 / (1 + step / 20), 6),
            "lr": round(rate, 9),
        }
        if evaluated:
            for index, domain in enumerate(development):
                line[f"development_bits_per_byte.{domain}"] = round(1.1 + 0.3 * index + 4 * (step + 90) ** -0.35, 6)
        lines.append(line)
    return lines


def tally(documents: int, size: int) -> dict[str, int]:
    """A line of the ledger."""
    return {"documents": documents, "bytes": size}


class Files:
    """Folders and contents of the five artifacts; a test changes what it is about, then writes or draws."""

    def __init__(self, steps: int = 400, every: int = 10) -> None:
        self.log: list[dict[str, Any]] | str = training_log(steps, every)
        self.scores: dict[str, Any] = {
            "bits_per_byte": {"code": {"naive": dict(NAIVE), "filtered": dict(FILTERED)}},
            "setting": {"context": 256, "stride": 128, "leak_threshold": 0.2},
        }
        self.samples: list[dict[str, str]] = [
            {
                "domain": "code",
                "document": "4d58cd9dcb5a" + "0" * 52,
                "prompt": "def read(self, size=-1):\n    ",
                "continuation": "if self.closed:\n        raise ValueError",
            }
        ]
        self.ledger: dict[str, Any] = {
            "format": "cairn-documents-v1",
            "sources": {
                "stdlib-code": {
                    "domain": "code",
                    "licence": "PSF-2.0",
                    "objects": 600,
                    "in": tally(640, 8_600_000),
                    "kept": tally(579, 8_400_000),
                    "dropped": {"duplicate": tally(40, 150_000), "min_document_bytes": tally(21, 50_000)},
                }
            },
            "splits": {
                "train": {"code": tally(540, 7_900_000)},
                "development": {"code": tally(11, 13_000)},
                "heldout": {"code": tally(28, 487_122)},
            },
        }
        self.tokens: dict[str, Any] = {
            "format": "cairn-tokens-v1",
            "vocab_size": 4096,
            "tokenizer": "c" * 64,
            "splits": {
                "train": {
                    "shards": [{"name": "train/00000", "tokens": 2_450_000, "bytes": 7_900_000}],
                    "domains": {"code": dict(FERTILITY)},
                    "sources": {"stdlib-code": dict(FERTILITY)},
                }
            },
        }
        self.manifest: dict[str, Any] = {
            "format": "cairn-checkpoint-v1",
            "model": {
                "layers": 2, "width": 256, "heads": 4, "kv_heads": 4, "head_dim": 64, "mlp_width": 704, "context": 256,
                "tied": True, "qk_norm": "head", "rope_theta": 10000.0, "norm_eps": 1e-6,
            },
            "parameters": 2_655_744,
            "tokens_seen": steps * 2048,
            "step": steps,
            "seed": 0,
            "precision": "bf16",
        }  # fmt: skip
        self.card = "---\nlicense: apache-2.0\n---\n\n# cairn-tiny\n\nA base language model.\n"
        self.config: dict[str, Any] = {"architectures": ["Qwen3ForCausalLM"]}

    def write(self, root: Path) -> dict[str, Path]:
        """Write all files; where each artifact lies."""
        log = self.log if isinstance(self.log, str) else "".join(json.dumps(line) + "\n" for line in self.log)
        for path, content in {
            "documents/ledger.json": json.dumps(self.ledger),
            "tokens/tokens.json": json.dumps(self.tokens),
            "checkpoint/checkpoint.json": json.dumps(self.manifest),
            "checkpoint/training.jsonl": log,
            "model/README.md": self.card,
            "model/config.json": json.dumps(self.config),
            "scores/scores.json": json.dumps(self.scores),
            "scores/samples.json": json.dumps(self.samples),
        }.items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content, encoding="utf-8", newline="")
        return {name: root / name for name in DIGESTS}

    def material(self, root: Path) -> Material:
        """What the report reads of them."""
        return read(self.write(root), DIGESTS)
