"""Tokenize: sampled shards of documents are encoded again, and compared byte for byte with the token shards of them.

A tokenizer that was trained from this text is trained again when the text is small, or when there is no limit to the
sample: then the whole stage is run again.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cairn.audit.replay.job import Job
from cairn.audit.replay.whole import run_again
from cairn.audit.verdicts import Finding
from cairn.errors import ArtifactError, StageError
from components.tokenize.fertility import GROUPS
from components.tokenize.index import DocumentIndex, Place
from components.tokenize.sidecar import documents_of, places_of
from components.tokenize.tokenize import SPLITS, SUFFIXES, Unit, encode_shard, entry

TRAIN_AGAIN = 16_000_000
"""Bytes of text of the train split up to which the tokenizer is trained again: some 3 seconds on two cores."""


def replay(job: Job) -> Finding:
    """Encode the sample again; train the tokenizer again where that is cheap."""
    if job.sample.size is None:
        odd = job.compare(run_again(job, {"documents": job.input("documents")}))
        if odd:
            return job.other("the stage was run again and made another tokenizer or other tokens", odd)
        return job.same("the tokenizer was made, and all documents were encoded again, to the same bytes")
    try:
        ledger = json.loads((job.input("documents", ["ledger.json"]) / "ledger.json").read_bytes())
        manifest = json.loads((job.output("tokens", ["tokens.json"]) / "tokens.json").read_bytes())
        return _sampled(job, ledger, manifest)
    except (ValueError, KeyError, TypeError) as error:
        return job.wrong("documents or tokens are not in the form of their kind", [f"{type(error).__name__}: {error}"])


def _sampled(job: Job, ledger: dict[str, Any], manifest: dict[str, Any]) -> Finding:
    tokenizer = job.output("tokenizer") / "tokenizer.json"
    odd, made = _tokenizer(job, ledger, manifest, tokenizer.read_bytes())
    documents, tokens = (
        job.files(digest) for digest in (job.attested.inputs["documents"], job.attested.outputs["tokens"])
    )
    shards = sorted(path for path in documents if path.partition("/")[0] in SPLITS)
    drawn = job.draw(shards)
    odd += _strangers(tokens, manifest)
    odd += _counts(manifest)
    index = _Index(job, tokens, manifest)
    odd += index.odd
    positions: list[tuple[str, ...]] = []
    folder = job.input("documents", [*drawn, "ledger.json"])
    for number, path in enumerate(drawn):
        split = path.partition("/")[0]
        unit = Unit(
            shard=folder / path,
            split=split,
            index=number,
            tokenizer=tokenizer,
            end_of_text=job.section.end_of_text,
            dtype=manifest["dtype"],
            folder=job.scratch / "shards",
            shard_tokens=job.section.shard_tokens,
        )
        try:
            again = encode_shard(unit)["shards"]
        except (StageError, ArtifactError) as error:
            odd.append(str(error))
            continue
        found, names = _compared(again, split, path, tokens, manifest["splits"][split]["shards"], index)
        odd += found
        positions.append(tuple(names))
    in_order = [name for names in positions for name in names]
    if in_order != sorted(in_order):
        odd.append("tokens: the shards are in another order than the documents")
    said = f"{len(drawn)} of {len(shards)} shards of documents were encoded again (seed {job.sample.seed}); {made}"
    if odd:
        return job.other(f"{said}: not the same", odd)
    besides = "the tokenizer was not trained again" if "not trained again" in made else ""
    remains = job.remains(len(shards), "shards of documents", besides)
    return replace(job.same(f"{said}: the same bytes"), remains=remains)


def _tokenizer(job: Job, ledger: dict[str, Any], manifest: dict[str, Any], data: bytes) -> tuple[list[str], str]:
    """What is wrong with the tokenizer and what the manifest says of the whole; and how the tokenizer was looked at."""
    from components.tokenize.bpe import train
    from components.tokenize.encoding import load, mask_of

    odd: list[str] = []
    loaded, end = load(data, job.section.end_of_text, "tokenizer.json")
    size = max(loaded.get_vocab(with_added_tokens=True).values()) + 1
    digest = hashlib.sha256(data).hexdigest()
    says = {
        "tokenizer": digest,
        "vocab_size": size,
        "end_of_text": end,
        "dtype": "uint16" if size <= 1 << 16 else "uint32",
        "mask": None if job.section.mask_token is None else mask_of(loaded, job.section.mask_token, "tokenizer.json"),
    }
    odd += [
        f"tokens.json: {name} is {manifest.get(name)}, not {value}"
        for name, value in says.items()
        if manifest.get(name) != value
    ]
    for split in SPLITS:
        told = sum(row["documents"] for row in ledger["splits"][split].values())
        there = sum(shard["documents"] for shard in manifest["splits"][split]["shards"])
        if told != there:
            odd.append(f"tokens.json: the split {split} has {there} documents, and was made of {told}")
    text = sum(row["bytes"] for row in ledger["splits"]["train"].values())
    if job.section.tokenizer is not None:
        if digest != job.section.tokenizer_sha256:
            odd.append("tokenizer.json is not the one that the recipe names")
        return odd, "the tokenizer is the one that the recipe names"
    if text > TRAIN_AGAIN:
        return odd, f"the tokenizer was not trained again (its {text / 1e6:,.0f} MB of text: `--sample all` does)"
    if train(job.section, job.input("documents")) != data:
        odd.append("tokenizer.json: trained again on the train split, it is another")
    return odd, "the tokenizer was trained again"


def _compared(
    again: Sequence[dict[str, Any]],
    split: str,
    path: str,
    tokens: dict[str, str],
    shards: Sequence[dict[str, Any]],
    index: "_Index",
) -> tuple[list[str], list[str]]:
    """Where the token shards of a shard of documents are not what came out again; and their names, in order."""
    odd: list[str] = []
    names: list[str] = []
    for made in again:
        sidecar = Path(made["path"]).with_suffix(".parquet")
        name = index.named(sidecar, split)
        if name is None:
            odd.append(f"documents {path}: no token shard begins with its documents")
            continue
        names.append(name)
        odd += index.compared(sidecar, split, name)
        odd += [
            f"tokens {name}{suffix}: other bytes than {path} gives"
            for suffix in SUFFIXES
            if tokens.get(f"{name}{suffix}") != made["sha256"][suffix]
        ]
        if entry(name, made) not in shards:
            odd.append(f"tokens.json: tells other numbers of {name}")
    return odd, names


def _strangers(tokens: dict[str, str], manifest: dict[str, Any]) -> list[str]:
    """Files that `tokens.json` does not name, and shards that it names in another way than they are named."""
    named = {split: [shard["name"] for shard in manifest["splits"][split]["shards"]] for split in SPLITS}
    odd = [
        f"tokens.json: the shards of {split} are not numbered from 0"
        for split, names in named.items()
        if names != [f"{split}/{number:05d}" for number in range(len(names))]
    ]
    known = {f"{name}{suffix}" for names in named.values() for name in names for suffix in SUFFIXES}
    known |= {f"{split}.index" for split, names in named.items() if names}
    return odd + [
        f"tokens {path}: tokens.json does not name it" for path in sorted(tokens.keys() - known - {"tokens.json"})
    ]


def _counts(manifest: dict[str, Any]) -> list[str]:
    """Groups whose counts do not add up to those of the shards."""
    odd: list[str] = []
    for split in SPLITS:
        said = manifest["splits"][split]
        for unit in ("documents", "bytes", "tokens"):
            total = sum(shard[unit] for shard in said["shards"])
            odd += [
                f"tokens.json: the {unit} by {GROUPS[group]} of {split} do not add up to {total}"
                for group in GROUPS
                if sum(counts[unit] for counts in said[group].values()) != total
            ]
    return odd


class _Index:
    """The indexes of the documents; they find the token shard that belongs to a table that was made again."""

    def __init__(self, job: Job, tokens: dict[str, str], manifest: dict[str, Any]) -> None:
        self.odd: list[str] = []
        self.opened: dict[str, DocumentIndex] = {}
        for split in SPLITS:
            count = sum(shard["documents"] for shard in manifest["splits"][split]["shards"])
            if not count:
                continue
            path = f"{split}.index"
            if path not in tokens:
                self.odd.append(f"tokens {path}: is missing")
                continue
            try:
                self.opened[split] = DocumentIndex(job.output("tokens", [path]) / path, count)
            except ArtifactError:
                self.odd.append(f"tokens {path}: is not of {count} documents")

    def named(self, made: Path, split: str) -> str | None:
        """The name of the token shard that begins with the documents of a table; None when there is none."""
        if split not in self.opened:
            return None
        found = self.opened[split].find(documents_of(made)[0])
        return next((f"{split}/{place.shard:05d}" for place in found if place.offset == 0), None)

    def compared(self, made: Path, split: str, name: str) -> list[str]:
        """Where the index leads elsewhere than a table that was made again."""
        number = int(name.rpartition("/")[2])
        for document, offset, length in places_of(made):
            if Place(number, offset, length) not in self.opened[split].find(document):
                return [f"tokens {split}.index: leads elsewhere for document {document[:12]}"]
        return []
