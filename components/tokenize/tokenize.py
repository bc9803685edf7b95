"""Token shards: the ids of every document, where each ends, and a sidecar that says which document it was.

    <split>/00000.bin      ids, little-endian; every document is followed by the end-of-text token
    <split>/00000.ends     uint64, little-endian: for each document, how many tokens there are up to its end
    <split>/00000.parquet  one row per document: id, source, licence, domain, offset, length, bytes, words
    <split>.index          where every document is, by its id (`index.py`); a split without documents has none
    tokens.json            what all this is

A position in a shard leads to its document by a search in the ends, a document to its tokens by one in the index. The
held-out split is not tokenized: results are computed from its text.
"""

import errno
import hashlib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from cairn.errors import StageError
from cairn.lineage.artifact import readable, remove, written_aside
from cairn.shards import map_shards
from components.ingest.documents import read_shard, shards
from components.tokenize.bpe import given, train
from components.tokenize.encoding import Ids, load, mask_of
from components.tokenize.engines import REFERENCE, Choice, Encoder, choose
from components.tokenize.engines import encoder as encoder_of
from components.tokenize.fertility import GROUPS, Counts, added, counted, words
from components.tokenize.index import write_index
from components.tokenize.recipe import Tokenize

SPLITS = ("train", "development")
CHECKED = "00"  # of the ids, which are digests: one document in 256 is encoded by `tokenizers` too, whatever its size
SUFFIXES = (".bin", ".ends", ".parquet")
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}  # what file systems without hard links say
SCHEMA = pa.schema(
    [
        ("document", pa.string()),
        ("source", pa.dictionary(pa.int32(), pa.string())),
        ("licence", pa.dictionary(pa.int32(), pa.string())),
        ("domain", pa.dictionary(pa.int32(), pa.string())),
        ("offset", pa.uint64()),
        ("length", pa.uint64()),
        ("bytes", pa.uint64()),
        ("words", pa.uint64()),
    ]
)


@dataclass(frozen=True)
class Unit:
    """A shard of documents to encode."""

    shard: Path
    split: str
    index: int
    tokenizer: Path
    end_of_text: str
    dtype: str
    folder: Path
    shard_tokens: int
    engine: str = REFERENCE


def tokenize(
    section: Tokenize,
    *,
    documents: Path,
    tokenizer: Path,
    tokens: Path,
    work: Path,
    workers: int,
    engine: str | None = None,
) -> Choice:
    """Fill `tokenizer` and `tokens`.

    Args:
        work: keeps the trained tokenizer and the shards that are finished.
        engine: what is to encode; None takes the fastest. It does not change the bytes.

    Returns: what encoded.

    Raises:
        StageError: the text supports no vocabulary of the size asked for, a document does not survive the round trip,
            or the engine is not installed, or gives other ids than `tokenizers`.
        SourceError: the given tokenizer is missing, is none, or is not the one that the recipe means.
        ArtifactError: the documents are damaged.
    """
    # Threads to count words with while the tokenizer is trained; then every worker has one. Neither changes the bytes.
    os.environ["RAYON_NUM_THREADS"] = str(workers)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if workers > 1 else "false"
    trained = work / "tokenizer.json"
    if not trained.exists():
        with written_aside(trained) as aside:
            aside.write_bytes(train(section, documents) if section.tokenizer is None else given(section))
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    data = trained.read_bytes()
    loaded, end = load(data, section.end_of_text, "tokenizer.json")
    # The largest id, added tokens included, decides: `vocab_size` of a tokenizer leaves those out.
    vocab_size = max(loaded.get_vocab(with_added_tokens=True).values()) + 1
    dtype = "uint16" if vocab_size <= 1 << 16 else "uint32"
    choice = choose(data, engine)
    print(f"tokenize: encoding with {choice}", file=sys.stderr, flush=True)
    rest = (trained, section.end_of_text, dtype, work / "shards", section.shard_tokens, choice.engine)
    units = [
        Unit(shard, split, index, *rest) for split in SPLITS for index, shard in enumerate(shards(documents, split))
    ]
    _forget_damaged(units, work / "done")
    said: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    counts: dict[str, list[dict[str, Counts]]] = {split: [] for split in SPLITS}
    for unit, result in zip(
        units, map_shards(encode_shard, units, workers=workers, done=work / "done", label="tokenize"), strict=True
    ):
        for shard in result["shards"]:
            name = f"{unit.split}/{len(said[unit.split]):05d}"
            for suffix in SUFFIXES:
                target = tokens / f"{name}{suffix}"
                target.parent.mkdir(exist_ok=True)
                _link(Path(shard["path"]).with_suffix(suffix), target)
            said[unit.split].append(entry(name, shard))
            counts[unit.split].append({group: shard[group] for group in GROUPS})
    for split in SPLITS:
        if said[split]:
            sidecars = [tokens / f"{shard['name']}.parquet" for shard in said[split]]
            with TemporaryDirectory(dir=work) as scratch:
                write_index(tokens / f"{split}.index", sidecars, Path(scratch))
    manifest = {
        "format": "cairn-tokens-v1",
        "dtype": dtype,
        "vocab_size": vocab_size,
        "end_of_text": end,
        **({} if section.mask_token is None else {"mask": mask_of(loaded, section.mask_token, "tokenizer.json")}),
        "tokenizer": hashlib.sha256(data).hexdigest(),
        "splits": {split: {"shards": said[split], **added(counts[split])} for split in SPLITS},
    }
    (tokens / "tokens.json").write_bytes(readable(manifest))
    (tokenizer / "tokenizer.json").write_bytes(data)
    return choice


def entry(name: str, shard: dict[str, Any]) -> dict[str, Any]:
    """What tokens.json says of a shard that was made."""
    # With the digest of this file alone, whoever reads shards from afar can check each of them.
    return {"name": name, **{key: shard[key] for key in ("tokens", "documents", "bytes", "sha256")}}


def encode_shard(unit: Unit) -> dict[str, Any]:
    """Encode one shard of documents into one or more token shards in the work folder."""
    encoder = encoder_of(unit.tokenizer.read_bytes(), unit.end_of_text, unit.engine)
    folder = unit.folder / unit.split / f"{unit.index:05d}"
    remove(folder)
    folder.mkdir(parents=True)
    made: list[dict[str, Any]] = []
    ids: list[np.ndarray[Any, Any]] = []
    rows: list[dict[str, Any]] = []
    total = 0
    for number, record in enumerate(read_shard(unit.shard)):
        encoded = _encoded(encoder, unit.shard, record, check=number == 0 or record["id"].startswith(CHECKED))
        document = np.append(encoded, np.uint32(encoder.end)).astype(unit.dtype)
        rows.append(
            {
                "document": record["id"],
                **{name: record[name] for name in ("source", "licence", "domain", "bytes")},
                "offset": total,
                "length": len(document),
                "words": words(record["text"].encode()),
            }
        )
        ids.append(document)
        total += len(document)
        if total >= unit.shard_tokens:
            made.append(_write(folder / f"{len(made):05d}", ids, rows))
            ids, rows, total = [], [], 0
    if rows:
        made.append(_write(folder / f"{len(made):05d}", ids, rows))
    return {"shards": made}


def _encoded(encoder: Encoder, shard: Path, record: dict[str, Any], check: bool) -> Ids:
    """The ids of a document, which give back its text. check: whether `tokenizers` encodes it too."""
    text, name = record["text"], f"{shard}: document {record['id'][:12]}"
    try:
        ids = encoder.encode(text)
    except StageError as error:
        raise StageError(f"{name}: {error}") from None
    difference = encoder.difference(text, ids) if check else None
    if difference:
        raise StageError(f"{name}: {difference}")
    if not encoder.gives_back(text, ids):
        raise StageError(
            f"{name}: the tokenizer does not give back its text: use a byte-level tokenizer without a normalizer"
        )
    return ids


def _forget_damaged(units: list[Unit], done: Path) -> None:
    """Let shards be encoded again whose files are no longer what an earlier run wrote: a crash of the machine, or
    somebody who tidied up, may leave the word that a shard is finished and not its bytes."""
    for index, unit in enumerate(units):
        word = done / f"{index}.json"
        if word.exists() and not _sound(word):
            shard = f"{unit.split}/{unit.shard.name}"
            print(f"tokenize: what is kept of {shard} is damaged, it is encoded again", file=sys.stderr, flush=True)
            word.unlink()


def _sound(word: Path) -> bool:
    """Whether the files that a result speaks of are those that were written."""
    try:
        return all(
            _sha256(Path(shard["path"]).with_suffix(suffix)) == shard["sha256"][suffix]
            for shard in orjson.loads(word.read_bytes())["shards"]
            for suffix in SUFFIXES
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def _write(path: Path, ids: list["np.ndarray[Any, Any]"], rows: list[dict[str, Any]]) -> dict[str, Any]:
    tokens = np.concatenate(ids)
    ends = np.cumsum([len(document) for document in ids])
    for suffix, numbers in ((".bin", tokens.astype(tokens.dtype.newbyteorder("<"))), (".ends", ends.astype("<u8"))):
        with open(path.with_suffix(suffix), "wb") as file:  # `tofile` would not say why a full disk fails
            file.write(numbers.data)
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path.with_suffix(".parquet"), compression="zstd")
    size = sum(row["bytes"] for row in rows)
    return {
        "path": str(path),
        "tokens": len(tokens),
        "documents": len(rows),
        "bytes": size,
        **counted(rows),
        "sha256": {suffix: _sha256(path.with_suffix(suffix), settle=True) for suffix in SUFFIXES},
    }


def _sha256(path: Path, settle: bool = False) -> str:
    with open(path, "rb") as file:
        if settle:
            # A finished shard is vouched for by a result that is synced: its bytes must not come later.
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _link(source: Path, target: Path) -> None:
    """Both lie in one work folder: a link costs nothing, and leaves the finished unit for the next run."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(source, target)
