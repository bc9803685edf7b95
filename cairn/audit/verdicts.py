"""What an audit finds: a graph whose every node and edge has verdicts of its own.

Verdicts are never merged. That a signature is sound says nothing of the bytes, and bytes that are there say nothing of
whether the work was done; so each is told apart, and a node has as many findings as there were things to look at.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal


class Verdict(StrEnum):
    """One thing that was looked at."""

    BYTES_MATCH = "BYTES-MATCH"
    """Read and hashed now: they are the bytes of the digest."""
    ATTESTED = "ATTESTED"
    """Signed by a trusted key; what it speaks of was not looked at."""
    REPRODUCED = "REPRODUCED"
    """Done again now, to the same bytes."""
    CLOSE = "CLOSE"
    """Done again now, to within a stated tolerance: this hardware cannot give the same bits."""
    MISSING = "MISSING"
    """Spoken of, and not to be had."""
    TAMPERED = "TAMPERED"
    """There, and not what its digest, or its signature, says."""
    UNSIGNED = "UNSIGNED"
    """Signed by nobody who is trusted."""
    INCOMPLETE = "INCOMPLETE"
    """Signed, and silent on something that it has to say."""
    CONFLICT = "CONFLICT"
    """Two claims that cannot both be true."""


WRONG = frozenset(
    {Verdict.MISSING, Verdict.TAMPERED, Verdict.UNSIGNED, Verdict.INCOMPLETE, Verdict.CONFLICT},
)
"""Verdicts that let an audit fail."""


@dataclass(frozen=True)
class Finding:
    """A verdict, and what it rests on."""

    verdict: Verdict
    said: str
    """One line: what was looked at, and where."""
    details: tuple[str, ...] = ()
    """Files, fields or digests that are at fault, one in each."""
    remains: str = ""
    """Of a replay that drew a sample: what was not done again, and remains claimed."""


@dataclass
class Node:
    """Something that was made, or that was made from."""

    id: str
    """Unique in the graph."""
    kind: Literal["artifact", "stage", "object", "code", "lock", "signature", "record", "work"]
    """`stage`: one run of one, as its attestation tells it. `object`: one object of a source. `lock`: of packages, or
    `dvc.lock`. `signature`: of a model. `record`: what the store keeps and is not believed, or a pointer of it. `work`:
    a checkpoint of work in progress."""
    name: str
    digest: str
    """sha256 of the artifact, object, code or lock; the id of an attestation for a stage."""
    findings: list[Finding] = field(default_factory=list)
    given: bool = False
    """Of an artifact: weights that were given from outside, with which training began. The walk ends there."""
    source: str = ""
    """Of an object: the names of the sources that it belongs to."""


@dataclass
class Edge:
    """What one node says of another: `tail` was made by, or from, `head`."""

    tail: str
    head: str
    role: Literal["made by", "made from", "signed by"]
    findings: list[Finding] = field(default_factory=list)


@dataclass
class Audit:
    """The whole graph, walked back from one artifact."""

    target: str
    """Id of the node that was asked about."""
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)
    """What no audit of this graph can know, one sentence in each."""
    replayed: dict[str, Finding] = field(default_factory=dict)
    """By id of a stage's node, what came of doing it again; it is among the node's findings too."""
    asked: str = ""
    """What was asked about, as it was written: a path, or digits of a digest."""
    holds: str = ""
    """Digest of what lies at the path that was asked about; empty where that is a digest. Of a path that no attestation
    knows, another than that of the target, which is then the nearest."""
    strangers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Record to the keys, not trusted, that signed it: beside one that is believed, it is left out."""

    def findings(self) -> Iterator[tuple[Node | Edge, Finding]]:
        """Every finding, with what it is about; nodes first, in the order in which the walk came to them."""
        holders: list[Node | Edge] = [*self.nodes.values(), *self.edges]
        for holder in holders:
            for finding in holder.findings:
                yield holder, finding

    @property
    def wrong(self) -> list[tuple[Node | Edge, Finding]]:
        """The findings that let the audit fail."""
        return [(holder, finding) for holder, finding in self.findings() if finding.verdict in WRONG]
