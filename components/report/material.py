"""What the report is made from: a few small files of five artifacts, read and checked.

The weights, the documents and the tokens themselves are not read; a door that fetches artifacts may leave them out.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cairn.errors import ArtifactError, one_line
from trainer.manifest import read_manifest
from trainer.recipe import ModelShape

# Input to the files of it that are read.
READS = {
    "documents": ("ledger.json",),
    "tokens": ("tokens.json",),
    "checkpoint": ("checkpoint.json", "training.jsonl"),
    "model": ("README.md", "config.json"),
    "scores": ("scores.json", "samples.json"),
}
MADE_BY = {
    "documents": "ingest",
    "tokens": "tokenize",
    "checkpoint": "pretrain",
    "model": "export",
    "scores": "evaluate",
}
DEVELOPMENT = ("development_bits_per_byte.", "development_masked_loss_15.")
BY_DOMAIN = "loss."
COLUMNS = ("tokens", "loss", "lr", "grad_norm")
MOST_STEPS = 10**12


class File(BaseModel):
    """The form of a file that another stage wrote. Keys that are not named here may be there too."""

    model_config = ConfigDict(frozen=True, strict=True)


class Tally(File):
    """Documents, and their bytes."""

    documents: int
    bytes: int


class Source(File):
    """One source in the ledger. Bytes are of raw text."""

    domain: str
    licence: str
    came: Tally = Field(alias="in")
    kept: Tally
    dropped: dict[str, Tally]
    """By reason."""


class Ledger(File):
    """`documents/ledger.json`."""

    sources: dict[str, Source]
    splits: dict[str, dict[str, Tally]]
    """Split to domain. Bytes are of the final text."""


class Shard(File):
    tokens: int
    bytes: int


class Fertility(File):
    """Text and the tokens that it takes; each document has one more, which ends it."""

    documents: int
    bytes: int
    words: int
    tokens: int


class TokenSplit(File):
    shards: list[Shard]
    domains: dict[str, Fertility] = {}
    sources: dict[str, Fertility] = {}


class TokenSet(File):
    """`tokens/tokens.json`."""

    vocab_size: int = Field(gt=0)
    tokenizer: str
    """sha256 of tokenizer.json."""
    splits: dict[str, TokenSplit]

    def count(self, split: str) -> int:
        """Tokens of a split."""
        return sum(shard.tokens for shard in self.splits[split].shards) if split in self.splits else 0


class Manifest(File):
    """`checkpoint/checkpoint.json`."""

    parameters: int
    tokens_seen: int
    step: int
    seed: int
    precision: str
    model: ModelShape


class Score(File):
    """Held-out text of one domain, all of it or what the leak filter leaves. Without documents there is no score."""

    documents: int
    bytes: int
    bits_per_byte: float = math.nan
    low: float = math.nan
    high: float = math.nan
    compressors: dict[str, float] = {}


class Domain(File):
    """The two scores of a domain."""

    naive: Score
    filtered: Score


class Setting(File):
    """How the model was scored."""

    context: int
    stride: int
    leak_threshold: float


class Scores(File):
    """`scores/scores.json`."""

    bits_per_byte: dict[str, Domain]
    setting: Setting


class Measure(File):
    """A number with its interval."""

    value: float
    low: float
    high: float


class MaskedScore(File):
    """Masked tokens of held-out text of one domain, all of it or what the leak filter leaves."""

    documents: int
    tokens: int
    bytes: int
    bits_per_byte: Measure | None = None
    """Bits per byte of the masked tokens; None without any."""
    bits_per_token: Measure | None = None
    accuracy: Measure | None = None


class MaskedDomain(File):
    """The two scores of a domain."""

    naive: MaskedScore
    filtered: MaskedScore


class MaskedScores(File):
    """`scores/scores.json` of a model that guesses masked tokens."""

    masked: dict[str, dict[str, MaskedDomain]] = Field(min_length=1)
    """Rate to domain."""
    setting: Setting


class Sample(File):
    """How the model goes on after the beginning of a held-out document."""

    domain: str
    document: str
    prompt: str
    continuation: str


class Piece(File):
    """Some held-out text that was shown, or a masked token."""

    text: str = ""
    was: str | None = None
    guess: str = ""


class MaskedSample(File):
    """How the model fills in masked tokens of a held-out document."""

    domain: str
    document: str
    pieces: list[Piece]


class Samples(File):
    """`scores/samples.json`."""

    samples: list[Sample | MaskedSample]


@dataclass(frozen=True)
class Log:
    """`checkpoint/training.jsonl`, by column: one value for each logged step, NaN where it is missing or no number."""

    steps: list[int]
    """Ascending."""
    tokens: list[float]
    loss: list[float]
    lr: list[float]
    grad_norm: list[float]
    development: dict[str, dict[int, float]]
    """Domain to bits per byte, or of a masked model to the loss at 15 %, by the index of the logged step, where it was
    measured."""
    by_domain: dict[str, dict[int, float]]
    """Domain to training loss, likewise; empty where there is one domain."""
    skipped: int | None
    """Steps that were left out because they stood out; None where none ever is."""


@dataclass(frozen=True)
class Material:
    """All that the page is drawn from."""

    name: str
    """What the model card calls the model."""
    architecture: str
    """The class that loads it."""
    manifest: Manifest
    tokens: TokenSet
    ledger: Ledger
    log: Log
    scores: Scores | MaskedScores
    samples: list[Sample | MaskedSample]
    digests: Mapping[str, str]
    """Artifact to digest."""

    @property
    def masked(self) -> bool:
        """Whether the model guesses masked tokens, rather than the next."""
        return isinstance(self.scores, MaskedScores)

    @property
    def development_name(self) -> str:
        """What the development split was scored in."""
        return "masked loss" if self.masked else "bits per byte"

    @property
    def development_unit(self) -> str:
        """The same, in full."""
        return "nats per masked token, 15 % masked" if self.masked else "bits per byte"

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes that were scored, by domain."""
        if isinstance(self.scores, Scores):
            return {name: domain.naive.bytes for name, domain in self.scores.bits_per_byte.items()}
        first = next(iter(self.scores.masked.values()))
        return {name: domain.naive.bytes for name, domain in first.items()}


M = TypeVar("M", bound=File)


def read(inputs: Mapping[str, Path], digests: Mapping[str, str]) -> Material:
    """Read what the report needs.

    Raises ArtifactError when a file is missing, damaged, or of a format that this version does not know.
    """
    config = _json(inputs["model"] / "config.json", "model")
    manifest, samples = inputs["checkpoint"] / "checkpoint.json", inputs["scores"] / "samples.json"
    architectures = config.get("architectures") if isinstance(config, dict) else None
    return Material(
        name=_name(inputs["model"] / "README.md"),
        architecture=str(architectures[0]) if isinstance(architectures, list) and architectures else "",
        manifest=_as(Manifest, read_manifest(inputs["checkpoint"]), manifest, "checkpoint"),
        tokens=_file(TokenSet, inputs["tokens"] / "tokens.json", "tokens", "cairn-tokens-v1"),
        ledger=_file(Ledger, inputs["documents"] / "ledger.json", "documents", "cairn-documents-v1"),
        log=_log(inputs["checkpoint"] / "training.jsonl"),
        scores=_scores(inputs["scores"] / "scores.json"),
        samples=_as(Samples, {"samples": _json(samples, "scores")}, samples, "scores").samples,
        digests=dict(digests),
    )


def _scores(path: Path) -> Scores | MaskedScores:
    data = _json(path, "scores")
    masked = isinstance(data, dict) and "masked" in data
    return _as(MaskedScores, data, path, "scores") if masked else _as(Scores, data, path, "scores")


def _file(model: type[M], path: Path, artifact: str, known: str | None = None) -> M:
    data = _json(path, artifact)
    said = data.get("format") if isinstance(data, dict) else None
    if known is not None and said != known:
        raise ArtifactError(f"{path}: is of format {said!r}; this version reads {known}")
    return _as(model, data, path, artifact)


def _as(model: type[M], data: Any, path: Path, artifact: str) -> M:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "the file"
        raise ArtifactError(
            f"{path}: {one_line(where)[:200]}: {fault['msg']}: run the {MADE_BY[artifact]} stage again"
        ) from None


def _json(path: Path, artifact: str) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file: run the {MADE_BY[artifact]} stage first") from None
    except ValueError as error:
        raise ArtifactError(
            f"{path}: is damaged: {one_line(error)[:200]}: run the {MADE_BY[artifact]} stage again"
        ) from None


def _log(path: Path) -> Log:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file: run the pretrain stage first") from None
    steps: list[int] = []
    columns: dict[str, list[float]] = {name: [] for name in COLUMNS}
    development: dict[str, dict[int, float]] = {}
    by_domain: dict[str, dict[int, float]] = {}
    skipped: int | None = None
    for index, line in enumerate(lines):
        try:
            row = _line(line)
            steps.append(_step(row["step"], steps[-1] if steps else -1))
            for name, column in columns.items():
                column.append(_number(row.get(name)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"{path}: line {index + 1}: is damaged: {one_line(error)[:200]}: run the pretrain stage again"
            ) from None
        if len(row) > 1 + len(COLUMNS):
            for name, value in row.items():
                kind = next((prefix for prefix in (*DEVELOPMENT, BY_DOMAIN) if name.startswith(prefix)), None)
                if kind is not None and math.isfinite(_number(value)):
                    into = by_domain if kind == BY_DOMAIN else development
                    into.setdefault(name.removeprefix(kind), {})[index] = _number(value)
                elif name == "skipped" and math.isfinite(_number(value)):
                    skipped = int(value)
    return Log(steps, **columns, development=development, by_domain=by_domain, skipped=skipped)


def _step(value: Any, before: int) -> int:
    if type(value) is not int or not before < value < MOST_STEPS:
        shown = one_line(json.dumps(value))[:40]
        raise ValueError(f"step {shown} is not a whole number" + (f" above {before}" if before >= 0 else ""))
    return value


def _number(value: Any) -> float:
    if type(value) is float or (type(value) is int and abs(value) < 2**1023):
        return float(value)
    return math.nan


def _line(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line)  # it knows NaN and Infinity


def _name(card: Path) -> str:
    try:
        lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        raise ArtifactError(f"{card}: no such file: run the export stage first") from None
    return next((line.removeprefix("# ").strip() for line in lines if line.startswith("# ")), "model")
