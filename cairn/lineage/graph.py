"""What was made from what: the graph that the attestations of a store span, walked back and forward.

Back from an artifact lead its own attestations. Forward lead all attestations of the store, which are read every time:
an index could be behind, or lie. Only what a trusted key signed is followed; the rest is counted.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from cryptography.hazmat.primitives.asymmetric import ec

from cairn.lineage import attestation
from cairn.lineage.attestation import Attestation
from cairn.lineage.store import Store
from cairn.progress import progress

READS = 16  # records in flight at once

Keys = Mapping[str, ec.EllipticCurvePublicKey]


@dataclass(frozen=True)
class Dependency:
    """One thing that an attestation says a stage depended on."""

    kind: Literal["artifact", "source", "object"]
    """`source`: one that the recipe names. `object`: one object of it."""
    name: str
    """Of the input; of an object its URI."""
    digest: str

    @property
    def id(self) -> str:
        """Of its node: the digest; with the URI of an object, for two may have the same bytes."""
        return f"object:{self.digest}:{self.name}" if self.kind == "object" else self.digest


def dependencies(attested: Attestation) -> Iterator[Dependency]:
    """The artifacts and source objects that a stage read. Its code and locks led nowhere else, and are left out."""
    for name, digest in {**attested.inputs, **attested.beginnings}.items():
        yield Dependency("artifact", name, digest)
    for one in attested.objects:
        yield Dependency("object", str(one.uri), one.sha256)


@dataclass(frozen=True)
class Node:
    """An artifact, a run of a stage, a source, or an object of one."""

    id: str
    """Unique: the digest; of a stage, the id of its attestation; of an object, its digest and URI."""
    kind: Literal["artifact", "stage", "source", "object"]
    name: str
    """Of an artifact what its stage calls it; of a stage component and version; of an object its URI."""
    digest: str
    finished: str | None = None
    """When a stage ended."""


@dataclass
class Lineage:
    """What was come to from one digest, going one way."""

    target: str
    nodes: dict[str, Node] = field(default_factory=dict)
    below: dict[str, list[str]] = field(default_factory=dict)
    """Node to what was come to from it: to what made it and what that was made from, or the other way."""
    distrusted: int = 0
    """Attestations that were passed over, because no trusted key signed them."""

    def stages(self) -> list[Node]:
        """The runs of stages, in the order in which they were come to."""
        return [node for node in self.nodes.values() if node.kind == "stage"]


@dataclass(frozen=True)
class Graph:
    """All trusted attestations of a store."""

    runs: Mapping[str, Attestation]
    """By id, the newest last."""
    distrusted: int
    """How many more there are, signed by no trusted key."""

    @cached_property
    def makers(self) -> dict[str, list[str]]:
        """Digest to the runs that made it."""
        found: dict[str, list[str]] = {}
        for identifier, attested in self.runs.items():
            for digest in attested.outputs.values():
                found.setdefault(digest, []).append(identifier)
        return found

    @cached_property
    def users(self) -> dict[str, list[str]]:
        """Digest of an artifact or object to the runs that it went into."""
        found: dict[str, list[str]] = {}
        for identifier, attested in self.runs.items():
            for one in {each.digest for each in dependencies(attested)}:
                found.setdefault(one, []).append(identifier)
        return found

    def back(self, digest: str) -> Lineage:
        """Everything that the artifact was made from."""
        return _walk(digest, self, self.makers, _made_from)

    def forward(self, digest: str) -> Lineage:
        """Everything that was made from the artifact or object."""
        return _walk(digest, self, self.users, _made)

    def name_of(self, digest: str) -> str:
        """What an artifact or object is called by the run that made it, or that used it."""
        for identifier in self.makers.get(digest, ()):
            return next(name for name, made in self.runs[identifier].outputs.items() if made == digest)
        for identifier in self.users.get(digest, ()):
            return next(one.name for one in dependencies(self.runs[identifier]) if one.digest == digest)
        return "artifact"


def scan(store: Store, keys: Keys) -> Graph:
    """Read every attestation of a store.

    Raises StoreError when the store cannot be read.
    """
    subjects = store.list("attestations")
    with progress("attestations", len(subjects), "artifacts") as shown, ThreadPoolExecutor(READS) as threads:
        found: dict[str, Attestation | None] = {}
        for read in threads.map(lambda subject: list(attestation.believed(store, subject, keys)), subjects):
            shown.advance()
            for identifier, attested in read:
                found[identifier] = attested or found.get(identifier)
    return _graph(found)


def ancestors(store: Store, digest: str, keys: Keys) -> Graph:
    """Only the attestations that lead back from an artifact: few reads, however large the store is."""
    found: dict[str, Attestation | None] = {}
    wanted, seen = [digest], {digest}
    while wanted:
        for identifier, attested in attestation.believed(store, wanted.pop(), keys):
            found[identifier] = attested or found.get(identifier)
            for one in dependencies(attested) if attested else ():
                if one.kind == "artifact" and one.digest not in seen:
                    seen.add(one.digest)
                    wanted.append(one.digest)
    return _graph(found)


def _graph(found: Mapping[str, Attestation | None]) -> Graph:
    runs = {identifier: attested for identifier, attested in found.items() if attested is not None}
    in_order = dict(sorted(runs.items(), key=lambda run: (run[1].finished, run[0])))
    return Graph(in_order, len(found) - len(runs))


def _made_from(attested: Attestation) -> list[Dependency]:
    return [*_sources(attested), *dependencies(attested)]


def _made(attested: Attestation) -> list[Dependency]:
    return [Dependency("artifact", name, digest) for name, digest in attested.outputs.items()]


def _sources(attested: Attestation) -> Iterator[Dependency]:
    """The sources that a snapshot's section of the recipe names."""
    for one in (attested.section or {}).get("sources", ()):
        name = f"source {one.get('name')}: {one.get('uri')}, {one.get('licence')}"
        yield Dependency("source", name, name)


def _walk(
    digest: str, graph: Graph, runs: Mapping[str, list[str]], onward: Callable[[Attestation], list[Dependency]]
) -> Lineage:
    kind: Literal["artifact", "object"] = "artifact"
    if digest not in graph.makers:
        used = (one for run in graph.users.get(digest, ()) for one in dependencies(graph.runs[run]))
        kind = "object" if any(one.digest == digest and one.kind == "object" for one in used) else "artifact"
    found = Lineage(digest, {digest: Node(digest, kind, graph.name_of(digest), digest)}, distrusted=graph.distrusted)
    wanted = deque([digest])
    while wanted:
        now = wanted.popleft()
        below = found.below.setdefault(now, [])
        for identifier in runs.get(now, ()):
            below.append(identifier)
            if identifier in found.nodes:
                continue
            attested = graph.runs[identifier]
            name = f"{attested.component} {attested.version}"
            found.nodes[identifier] = Node(identifier, "stage", name, identifier, attested.finished)
            for one in onward(attested):
                found.below.setdefault(identifier, []).append(one.id)
                if one.id not in found.nodes:
                    found.nodes[one.id] = Node(one.id, one.kind, one.name, one.digest)
                    wanted.append(one.id)
    return found
