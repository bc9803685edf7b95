"""Text to ids: MB per CPU-second of every engine that is installed, cold, beside Hugging Face `tokenizers` alone.

    python bench/encoding.py            # some four minutes
    python bench/encoding.py --quick    # a tenth of the text, once

The text is ../shared/data/docs-corpus, or $DOCS_CORPUS; the tokenizer a byte-level BPE of 32,768 tokens trained on an
eighth of it. Every measurement is a process of its own with one thread: the engine is made anew and reads every text
for the first time, and its making counts. Engines alternate. Rows:

- each engine as the stage uses it (`Encoder.encode`), and with the round trip;
- the whole stage (`encode_shard`), from shards of documents to token shards, with the sample that `tokenizers` checks;
- Hugging Face `tokenizers`: `encode_batch_fast`, as fast as it can be called, on an eighth of the text;
- datatrove's `DocumentTokenizer` on a sixteenth, where datatrove is installed: in a virtual environment of its own,
  whose Python is named by $DATATROVE_PYTHON (its dependencies do not live beside ours).

The ids of all engines must be the same. The last line is JSON.
"""

import argparse
import hashlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import zstandard
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from cairn.resources import ENGINES, peak_rss
from components.ingest.documents import ShardWriter
from components.tokenize.byte_level import GPT2
from components.tokenize.engines import REFERENCE, Choice, Encoder, installed
from components.tokenize.tokenize import Unit, encode_shard

ROOT = Path(__file__).resolve().parent.parent
CORPUS = Path(os.environ.get("DOCS_CORPUS", ROOT.parent / "shared" / "data" / "docs-corpus"))
DATATROVE = os.environ.get("DATATROVE_PYTHON")
GOALS = {"gigatoken": 25.0, "tiktoken": 10.0}
VOCABULARY, END = 32_768, "<|endoftext|>"
SHARES = {"tokenizers": 8, "hugging face": 8, "datatrove": 16}
"""One text in so many, for what is slow."""
MB = 1_000_000
PEER = """
import json, sys, time
from datatrove.data import Document
from datatrove.pipeline.tokens import DocumentTokenizer
text, tokenizer, out = sys.argv[1:]
texts = json.load(open(text))
began = time.process_time()
block = DocumentTokenizer(out, tokenizer_name_or_path=tokenizer, eos_token="<|endoftext|>", seed=0)
block.run(Document(text=one, id=str(number)) for number, one in enumerate(texts))
print(json.dumps({"cpu": time.process_time() - began}))
"""


def texts_of(folder: Path) -> list[str]:
    found: list[str] = json.loads((folder / "texts.json").read_bytes())
    return found


def prepare(folder: Path, quick: bool) -> int:
    """Texts, a tokenizer and a shard of documents for the processes that measure; bytes of the text."""
    texts: list[str] = []
    for shard in sorted(CORPUS.glob("*.jsonl.zst")):
        with zstandard.ZstdDecompressor().stream_reader(shard.open("rb")) as stream:
            texts += [json.loads(line)["text"] for line in io.TextIOWrapper(stream, encoding="utf-8")]
    texts = texts[::10] if quick else texts
    (folder / "texts.json").write_text(json.dumps(texts))
    tokenizer = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(GPT2), "isolated"), level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=level.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts[::8], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    with ShardWriter(folder / "documents", 1 << 40) as writer:
        for text in texts:
            data = text.encode()
            said = {"source": "docs", "domain": "docs", "licence": "various", "bytes": len(data)}
            writer.write({"id": hashlib.sha256(data).hexdigest(), "text": text, **said})
    return sum(len(text.encode()) for text in texts)


def measure(what: str, engine: str, folder: Path) -> dict[str, float | str]:
    """One measurement, in this process: bytes, CPU seconds, GiB of peak memory, digest of the ids of the share."""
    data = (folder / "tokenizer.json").read_bytes()
    if what == "stage":
        before = time.process_time()
        shard = folder / "documents" / "00000.jsonl.zst"
        unit = Unit(shard, "train", 0, folder / "tokenizer.json", END, "uint16", folder / "made", 10**9, engine)
        size = encode_shard(unit)["shards"][0]["bytes"]
        return {"bytes": size, "cpu": time.process_time() - before, "gib": peak_rss(), "ids": ""}
    texts = texts_of(folder)[:: SHARES.get(engine, 1)]
    before = time.process_time()
    if engine == "hugging face":
        tokenizer = Tokenizer.from_str(data.decode())
        made = [np.array(one.ids, np.uint32) for one in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    else:
        encoder = Encoder(data, END, engine)
        made = [encoder.encode(text) for text in texts]
        if what == "round trip":
            assert all(encoder.gives_back(text, ids) for text, ids in zip(texts, made, strict=True))
    cpu = time.process_time() - before
    step = max(SHARES.values()) // SHARES.get(engine, 1)
    digest = hashlib.sha256(np.concatenate(made[::step]).tobytes()).hexdigest()
    return {"bytes": sum(len(text.encode()) for text in texts), "cpu": cpu, "gib": peak_rss(), "ids": digest}


def datatrove(folder: Path) -> dict[str, float | str]:
    """datatrove's, in its own environment."""
    texts = texts_of(folder)[:: SHARES["datatrove"]]
    path = folder / "sixteenth.json"
    path.write_text(json.dumps(texts))
    with tempfile.TemporaryDirectory(dir=folder) as out:
        command = [str(DATATROVE), "-c", PEER, str(path), str(folder / "tokenizer.json"), out]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=_environment(own=False))
    return {"bytes": sum(len(text.encode()) for text in texts), **json.loads(done.stdout.splitlines()[-1]), "gib": 0.0}


def _environment(own: bool = True) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if own or name != "PYTHONPATH"}
    path = {"PYTHONPATH": str(ROOT)} if own else {}
    return {**kept, **path, "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a tenth of the text, once")
    parser.add_argument("--one", nargs=3, metavar=("WHAT", "ENGINE", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one[0], given.one[1], Path(given.one[2]))))
        return 0
    if not any(CORPUS.glob("*.jsonl.zst")):
        print(f"{CORPUS}: no text there: nothing to measure")
        return 0
    there = [engine for engine in ENGINES if installed(engine)]
    rows = [("encode", engine) for engine in there] + [("encode", "hugging face")]
    rows += [(what, engine) for what in ("round trip", "stage") for engine in there if engine != REFERENCE]
    rows += [("encode", "datatrove")] if DATATROVE else []
    rates: dict[tuple[str, str], list[float]] = {row: [] for row in rows}
    memory: dict[tuple[str, str], float] = {}
    ids: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="cairn-bench-") as temporary:
        folder = Path(temporary)
        size = prepare(folder, given.quick)
        for _ in range(1 if given.quick else 3):
            for row in rows:
                if row[1] == "datatrove":
                    found = datatrove(folder)
                else:
                    command = [sys.executable, __file__, "--one", *row, str(folder)]
                    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=_environment())
                    found = json.loads(done.stdout)
                    ids.update({str(found["ids"])} - {""})
                rates[row].append(float(found["bytes"]) / MB / float(found["cpu"]))
                memory[row] = max(memory.get(row, 0.0), float(found["gib"]))
    assert len(ids) == 1, "the engines do not give the same ids"
    middle = {row: statistics.median(found) for row, found in rates.items()}
    print(f"{size / MB:.1f} MB; MB per CPU-second, median (least to most), one thread, each in a process of its own\n")
    for row, measured in rates.items():
        name = f"{row[1]}, {row[0]}"
        times = middle[row] / middle["encode", "hugging face"]
        spread = f"({min(measured):.1f} to {max(measured):.1f})"
        print(f"{name:28} {middle[row]:>8.1f} {spread:>18} {times:>7.1f} x Hugging Face {memory[row]:>7.2f} GiB")
    met = {engine: middle["encode", engine] >= goal for engine, goal in GOALS.items() if ("encode", engine) in middle}
    for engine, goal in GOALS.items():
        told = f"{middle['encode', engine]:.1f}" if engine in met else "not installed"
        print(f"goal: {engine} {goal:g} MB per CPU-second, cold: {told}")
    result = {
        "bench": "encoding",
        "mb": round(size / MB, 1),
        "mb_per_cpu_second": {f"{engine}, {what}": round(rate, 2) for (what, engine), rate in middle.items()},
        "gib": {f"{engine}, {what}": round(gib, 3) for (what, engine), gib in memory.items()},
        "versions": {engine: Choice(engine).version for engine in there},
        "same_ids": True,
        "goals_met": met,
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
