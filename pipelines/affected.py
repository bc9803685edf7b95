"""What a source reached: every artifact made from it, how much of its text is in each, and which models saw it.

That an artifact lies downstream of a source does not say that its text is in it: the rules may have dropped all of it,
or no step of training may have drawn it. So documents are counted, then tokens, then the positions that were drawn.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cairn.errors import ArtifactError, SourceError, StoreError, one_line
from cairn.lineage.attestation import Attestation
from cairn.lineage.graph import Graph
from cairn.lineage.store import Store
from cairn.shards import map_shards
from components.ingest.documents import SPLITS, read_shard, shards
from components.snapshot.lock import parse_lock
from components.tokenize.index import DocumentIndex
from components.tokenize.sidecar import stretches_of
from pipelines.naming import DIGEST
from pipelines.stages import stages
from trainer.order import Order
from trainer.recipe import Training
from trainer.tokens import ALL, Runs, domains_of, whole

MANY = 64
"""One document in so many is many: then the tables of all are read rather than the index searched."""
ORDERED_SINCE = (0, 4, 0)
"""The version of pretrain since which rows are drawn in the order of `trainer.order`."""


@dataclass(frozen=True)
class Hit:
    """One artifact that was made from the source."""

    name: str
    """What its stage calls it."""
    digest: str
    stage: str
    """Component and version."""
    documents: dict[str, int] | None = None
    """Of a documents artifact: how many documents of the source are in each split. None where it was not counted."""
    tokens: int | None = None
    """Of a tokens artifact: how many tokens of the source are in the train split."""
    drawn: int | None = None
    """Of a checkpoint: how many tokens of the source were trained on, each as often as it was drawn."""
    of: int | None = None
    """How many tokens there are in all: in the train split, or drawn."""
    unknown: str = ""
    """Why nothing was counted."""


@dataclass(frozen=True)
class Model:
    """One exported model of the store."""

    name: str
    digest: str
    verdict: str
    """`trained on it`, `not trained on it`, `has none of it`, `not made from it`, or `not known`."""
    why: str


@dataclass(frozen=True)
class Affected:
    """What a source reached."""

    source: str
    objects: tuple[str, ...]
    """URIs of its objects, in any lock of the store."""
    hits: tuple[Hit, ...]
    models: tuple[Model, ...]
    distrusted: int
    unknown: tuple[str, ...]
    """Locks that could not be read."""


Names = set[tuple[str, str]]


@dataclass(frozen=True)
class _Part:
    """One shard of documents to look through."""

    shard: Path
    split: str
    names: frozenset[tuple[str, str]]
    identity: str
    """The beginning of a document's id; empty where it is not a document that is asked for."""


def affected(
    source: str,
    graph: Graph,
    store: Store,
    fetch: Callable[..., Path],
    *,
    scratch: Path,
    workers: int,
) -> Affected:
    """What a source, an object of one, or one document reached.

    Args:
        source: the name of a source; the URI of an object, or a glob of URIs; the beginning of an object's sha256, or
            of a document's id.
        fetch: brings artifacts; see `cairn.lineage.places`.

    Raises SourceError when no lock and no documents of the store know it.
    """
    locks: dict[str, Names] = {}
    alike: set[str] = set()
    unknown: list[str] = []
    for attested in _runs(graph, "snapshot"):
        digest = attested.outputs["sources"]
        try:
            lock = parse_lock(store.read_member(digest, ""), f"sources {digest[:12]}")
        except (StoreError, SourceError) as error:
            unknown.append(one_line(error))
            continue
        found = {
            (one.name, each.uri) for one in lock.sources for each in one.objects if _matches(source, one.name, each)
        }
        if found:
            locks[digest] = found
        alike |= {each.uri for one in lock.sources for each in one.objects if each.uri.endswith(f"/{source}")}
    counter = _Counter(graph, fetch, scratch, workers)
    identity = ""
    if not locks and DIGEST.fullmatch(source):
        identity = source
        locks = {attested.outputs["sources"]: set() for attested in _runs(graph, "snapshot")}
    hits = list(counter.hits(locks, identity))
    if identity:
        with_it = [hit for hit in hits if hit.documents and any(hit.documents.values())]
        if not with_it:
            raise SourceError(_nobody(source, store, unknown, alike))
        below = {digest for hit in with_it for digest in graph.forward(hit.digest).nodes}
        hits = [hit for hit in hits if hit.digest in below]
    elif not locks:
        raise SourceError(_nobody(source, store, unknown, alike))
    objects = sorted({uri for names in locks.values() for _, uri in names} | counter.origins)
    models = tuple(_models(graph, hits))
    order = [artifact for stage in stages() for artifact in stage.outputs]
    hits.sort(key=lambda hit: order.index(hit.name) if hit.name in order else len(order))
    return Affected(source, tuple(objects), tuple(hits), models, graph.distrusted, tuple(unknown))


def _nobody(source: str, store: Store, unknown: list[str], alike: set[str]) -> str:
    more = f" ({len(unknown)} locks could not be read: {unknown[0]})" if unknown else ""
    if alike:
        which = min(alike) if len(alike) == 1 else f"'*/{source}', a glob that finds {len(alike)} objects"
        more = f"{more}: did you mean {which}?"
    return f"{source}: no source, object or document of that name or digest is known in {store.url}{more}"


def _matches(asked: str, source: str, locked: Any) -> bool:
    if asked in (source, locked.uri):
        return True
    if any(sign in asked for sign in "*?["):
        return fnmatchcase(locked.uri, asked)
    return bool(DIGEST.fullmatch(asked)) and locked.sha256.startswith(asked)


def _runs(graph: Graph, component: str) -> Iterator[Attestation]:
    """One run for each outcome of a component: several may have made the same."""
    found = {tuple(sorted(one.outputs.items())): one for one in graph.runs.values() if one.component == component}
    yield from found.values()


class _Counter:
    """Counts the text of a source in what was made from it; each artifact once."""

    def __init__(self, graph: Graph, fetch: Callable[..., Path], scratch: Path, workers: int) -> None:
        self.graph, self.fetch, self.scratch, self.workers = graph, fetch, scratch, workers
        self.origins: set[str] = set()
        self.ids: dict[str, set[str]] = {}
        """Documents artifact to ids of its train documents that are of the source."""
        self.stretches: dict[str, npt.NDArray[np.int64]] = {}
        """Tokens artifact to where the tokens of the source are in its stream: (n, 2), in order."""
        self.sizes: dict[str, int] = {}
        """Tokens artifact to tokens in its train split."""
        self.shards: dict[str, dict[str, int]] = {}
        """Tokens artifact to the shards of its train split: name to tokens."""
        self.domains: dict[str, dict[str, Runs]] = {}
        """Tokens artifact to where the documents of each domain are in its train split."""
        self.seen: set[str] = set()
        """Artifacts that were made from the source."""

    def hits(self, locks: Mapping[str, Names], identity: str) -> Iterator[Hit]:
        """Every artifact that was made from these locks: documents before tokens, and tokens before checkpoints."""
        for lock in locks:
            for node in self.graph.forward(lock).stages():
                attested = self.graph.runs[node.id]
                names = {one for each in attested.inputs.values() for one in locks.get(each, ())}
                for name, digest in attested.outputs.items():
                    if digest not in self.seen:
                        self.seen.add(digest)
                        yield self._hit(name, digest, attested, names, identity)

    def _hit(self, name: str, digest: str, attested: Attestation, names: Names, identity: str) -> Hit:
        stage = f"{attested.component} {attested.version}"
        try:
            if name == "documents":
                return Hit(name, digest, stage, documents=self._documents(digest, names, identity))
            if name == "tokens":
                count = self._tokens(digest, attested.inputs["documents"])
                why = "its documents were not counted" if count is None else ""
                return Hit(name, digest, stage, tokens=count, of=self.sizes.get(digest), unknown=why)
            if name == "checkpoint":
                return self._checkpoint(digest, attested, stage)
        except (ArtifactError, StoreError, OSError, ValueError, KeyError) as error:
            return Hit(name, digest, stage, unknown=one_line(error) or type(error).__name__)
        return Hit(name, digest, stage)

    def _documents(self, digest: str, names: Names, identity: str) -> dict[str, int]:
        folder = self.fetch(digest)
        parts = [_Part(shard, split, frozenset(names), identity) for split in SPLITS for shard in shards(folder, split)]
        done = self.scratch / f"counted-{digest}"
        counts = dict.fromkeys(SPLITS, 0)
        ids: set[str] = set()
        for part, found in zip(
            parts, map_shards(look_for, parts, workers=self.workers, done=done, label="documents"), strict=True
        ):
            counts[part.split] += len(found["ids"])
            self.origins.update(found["origins"])
            if part.split == "train":
                ids.update(found["ids"])
        self.ids[digest] = ids
        return counts

    def _tokens(self, digest: str, documents: str) -> int | None:
        if documents not in self.ids:
            return None
        manifest = json.loads((self.fetch(digest, ["tokens.json"]) / "tokens.json").read_bytes())
        train = manifest["splits"]["train"]
        bases = np.concatenate(([0], np.cumsum([shard["tokens"] for shard in train["shards"]]))).astype(np.int64)
        self.shards[digest] = {shard["name"]: shard["tokens"] for shard in train["shards"]}
        self.stretches[digest] = self._stretches(digest, train, bases, self.ids[documents])
        self.sizes[digest] = int(bases[-1])
        return int((self.stretches[digest][:, 1] - self.stretches[digest][:, 0]).sum())

    def _stretches(
        self, digest: str, train: dict[str, Any], bases: npt.NDArray[np.int64], ids: set[str]
    ) -> npt.NDArray[np.int64]:
        """Where documents are in the stream: (n, 2), from and up to, in order."""
        if not ids:
            return np.empty((0, 2), np.int64)
        names = [shard["name"] for shard in train["shards"]]
        count = sum(shard["documents"] for shard in train["shards"])
        # What tokenize made before 0.4.0 has no index; and where many are asked for, the tables are read faster.
        if "domains" not in train or len(ids) * MANY > count:
            folder = self.fetch(digest, [f"{name}.parquet" for name in names])
            parts = [stretches_of(folder / f"{name}.parquet", ids) for name in names]
            return np.concatenate([part + at for part, at in zip(parts, bases[:-1], strict=True)])
        with DocumentIndex(self.fetch(digest, ["train.index"]) / "train.index", count) as index:
            places = [place for document in ids for place in index.find(document)]
        starts = sorted((int(bases[place.shard]) + place.offset, place.length) for place in places)
        return np.array([(start, start + length) for start, length in starts], np.int64).reshape(-1, 2)

    def _streams(self, tokens: str, mixed: bool) -> dict[str, Runs]:
        """What a run drew from: the domains of the train split, or the one stream of all."""
        if not mixed:
            return {ALL: whole([self.sizes[tokens]])}
        if tokens not in self.domains:
            sizes = self.shards[tokens]
            folder = self.fetch(tokens, [f"{name}.parquet" for name in sizes])
            self.domains[tokens] = domains_of([folder / f"{name}.parquet" for name in sizes], list(sizes.values()))
        return self.domains[tokens]

    def _checkpoint(self, digest: str, attested: Attestation, stage: str) -> Hit:
        tokens = attested.inputs["tokens"]
        training = Training.model_validate_json(json.dumps(attested.section))
        if tokens not in self.seen:  # the run began with weights that were made from the source
            return Hit("checkpoint", digest, stage, drawn=0, of=training.tokens)
        if tokens not in self.stretches:
            return Hit("checkpoint", digest, stage, unknown="its tokens were not counted")
        if tuple(map(int, attested.version.split("."))) < ORDERED_SINCE:
            why = f"pretrain {attested.version} drew sequences in an order that this version of Cairn does not know"
            return Hit("checkpoint", digest, stage, unknown=why)
        streams = self._streams(tokens, bool(training.mixture))
        count = drawn(self.stretches[tokens], Order(training, streams), streams)
        return Hit("checkpoint", digest, stage, drawn=count, of=training.tokens)


def look_for(part: _Part) -> dict[str, Any]:
    """The documents of a shard that are meant."""
    ids: list[str] = []
    origins: set[str] = set()
    for record in read_shard(part.shard):
        named = (record["source"], record["origin"]) in part.names
        if named or (part.identity and record["id"].startswith(part.identity)):
            ids.append(record["id"])
            origins.add(record["origin"])
    return {"ids": ids, "origins": sorted(origins) if part.identity else []}


def drawn(stretches: npt.NDArray[np.int64], order: Order, streams: Mapping[str, Runs]) -> int:
    """How many tokens of these stretches of the train split were inputs of a training, each as often as it was drawn.

    A whole epoch of a domain draws every window once; of the last one, every drawn window is looked at.

    Args:
        stretches: (n, 2), from and up to, in the order of the split; they do not overlap.
        streams: where each domain of the order is in the split.
    """
    total = 0
    for domain, name in enumerate(order.domains):
        mine = streams[name].overlap(stretches)
        if not len(mine):
            continue
        before = np.concatenate(([0], np.cumsum(mine[:, 1] - mine[:, 0])))

        def up_to(positions: npt.NDArray[np.int64], mine: Any = mine, before: Any = before) -> Any:
            """Tokens of the stretches before each position of the stream."""
            index = np.searchsorted(mine[:, 0], positions, side="right")
            last = np.maximum(index - 1, 0)
            inside = np.minimum(positions, mine[last, 1]) - mine[last, 0]
            return np.where(index > 0, before[last] + inside, 0)

        epochs, _ = order.epochs(domain)
        total += epochs * int(up_to(order.windows[domain : domain + 1] * order.context)[0])
        for windows in order.begun(domain):
            starts = windows * order.context
            total += int((up_to(starts + order.context) - up_to(starts)).sum())
    return total


def _models(graph: Graph, hits: list[Hit]) -> Iterator[Model]:
    """Every exported model of the store, and whether it saw the source."""
    touched = {hit.digest: hit for hit in hits}
    for attested in _runs(graph, "export"):
        digest = attested.outputs["model"]
        name = str((attested.section or {}).get("name", "model"))
        behind = graph.back(digest).nodes
        above = [touched[one] for one in behind if one in touched]
        # Its own, and those that it was begun from.
        trainings = [hit for hit in above if hit.name == "checkpoint"]
        count = sum(hit.drawn or 0 for hit in trainings)
        given = [path for one in graph.runs.values() for begun, path in one.given.items() if begun in behind]
        documents = [hit for hit in above if hit.name == "documents"]
        if count:
            why = f"{count:,} of {sum(hit.of or 0 for hit in trainings):,} tokens drawn"
            why += f", in the {len(trainings)} trainings that it comes from" if len(trainings) > 1 else ""
            yield Model(name, digest, "trained on it", why)
        elif given:
            reason = f"it began with weights that were given from outside ({given[0]}), of unknown text"
            yield Model(name, digest, "not known", reason)
        elif digest not in touched:
            yield Model(name, digest, "not made from it", "no lock that it was made from has it")
        elif documents and all(hit.documents is not None and not hit.documents["train"] for hit in documents):
            yield Model(name, digest, "has none of it", "none of it is in the train split that it was made from")
        elif trainings and all(hit.drawn == 0 for hit in trainings):
            why = "no step drew it; but its tokenizer may have been trained on it"
            yield Model(name, digest, "not trained on it", why)
        else:
            reason = next((hit.unknown for hit in above if hit.unknown), "its tokens were not counted")
            yield Model(name, digest, "not known", reason)
