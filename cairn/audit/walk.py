"""The walk back: from one artifact along its attestations to the objects of the sources, with a verdict at every step.

First the attestations are followed, which takes no bytes of any artifact; then every copy of everything that was come
by is read, once; then each node and edge is judged. One bad record ends its own branch and no other.
"""

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from cairn.audit import agreement, checks, origins, project, signatures
from cairn.audit.checks import Record
from cairn.audit.copies import Copies, Copy, at_path, in_store
from cairn.audit.limits import limits
from cairn.audit.reading import Reader
from cairn.audit.target import Pins, Target, find
from cairn.audit.verdicts import Audit, Edge, Finding, Node, Verdict
from cairn.errors import ArtifactError, StoreError, one_line
from cairn.lineage.artifact import Artifact, digest_of
from cairn.lineage.attestation import Attestation
from cairn.lineage.places import Places
from cairn.lineage.store import Store
from pipelines.stages import place, stages

Replay = Callable[[Attestation, Places], Finding]
"""Runs a stage again, as far as it can be: what came of it, or why it could not be."""


def audit(
    said: str,
    *,
    store: Store,
    keys: Mapping[str, ec.EllipticCurvePublicKey],
    root: Path | None = None,
    read_bytes: bool = True,
    strict_code: bool = False,
    replay: Replay | None = None,
    scratch: Path | None = None,
) -> Audit:
    """Walk back from an artifact and judge everything on the way.

    Args:
        said: the path of an artifact, or the first digits of a digest that the store has a pin for.
        keys: the only keys whose signatures are believed, by key id.
        root: the project in whose folder this runs, whose copies and lock files are looked at too; None elsewhere.
        read_bytes: read every copy; else only look whether it is there.
        strict_code: take it for a fault that different code worked on it. A version promises that it makes no
            difference; who does not believe the promise asks for this.
        replay: runs a stage again; called once for each trusted attestation.
        scratch: a folder for what a replay fetches; needed with `replay`.

    Raises:
        StoreError: the store cannot be reached at all.
        ArtifactError: there is nothing that `said` means, or it cannot be read.
    """
    store.check()
    reader, pins = Reader(read_bytes), Pins(store)
    expected = partial(project.expected, root, pins) if root is not None else None
    walk = Walk(store, keys, root, reader, pins, find(said, pins, reader, expected), strict_code)
    walk.follow()
    walk.look()
    walk.judge()
    if replay is not None and scratch is not None:
        walk.replay(replay, scratch)
    walk.audit.limits = limits(walk.audit, keys, read_bytes)
    return walk.audit


@dataclass
class Walk:
    """The state of one audit. Each step fills `audit` further."""

    store: Store
    keys: Mapping[str, ec.EllipticCurvePublicKey]
    root: Path | None
    reader: Reader
    pins: Pins
    target: Target
    strict_code: bool
    copies: dict[str, Copies] = field(default_factory=dict)
    """By digest of the artifact."""
    beside: dict[str, Copies] = field(default_factory=dict)
    """By digest, artifacts that are spoken of and not walked to."""
    records: dict[str, list[Record]] = field(default_factory=dict)
    """By digest, every attestation that lies under it."""
    attested: dict[str, tuple[Record, Attestation]] = field(default_factory=dict)
    """By id, the attestations that are believed and say enough to be followed."""
    given: dict[str, str] = field(default_factory=dict)
    """By digest, the path of what training began with that was given from outside."""
    ends: list[origins.Origin] = field(default_factory=list)
    """What has bytes and is no artifact of a stage: objects of sources, code, locks."""

    @cached_property
    def audit(self) -> Audit:
        """The graph."""
        return Audit(artifact_id(self.target.digest), asked=self.target.said, holds=self.target.holds)

    # Following

    def follow(self) -> None:
        """Follow the attestations back to where they end."""
        name = self.target.path.name if self.target.path else "artifact"
        queue, walked = deque([(self.target.digest, name)]), set[str]()
        while queue:
            digest, name = queue.popleft()
            if digest not in walked:  # that it was named as a tree of objects before does not say how it was made
                walked.add(digest)
                queue += self._artifact(digest, name)

    def _artifact(self, digest: str, name: str) -> list[tuple[str, str]]:
        """Take in one artifact; digest and name of what it was made from."""
        pin, faults = self.pins.of(digest)
        node = Node(artifact_id(digest), "artifact", name, digest)
        self.audit.nodes[node.id] = node
        if not self.target.stranger or pin is not None:  # of a stranger nothing more can be known than that it is one
            node.findings += faults
        self.copies[digest] = Copies(digest, pin, in_store(self.store, pin) if pin is not None else [])
        found: list[tuple[str, str]] = []
        records = self._records(digest, node)
        sayings = [one.attested.outputs for one in records if one.attested is not None]
        names = [output for said in sayings for output, one in said.items() if one == digest]
        # What made it may not be believed; what was made from it names it too.
        self._folders(digest, pin, names or [name])
        for record in records:
            attested = record.attested
            if attested is None:
                self._not_believed(record, node, bool(names))
                continue
            stage = self._stage(record, attested, node)
            if record.identifier not in self.attested:
                self.attested[record.identifier] = record, attested
                found += self._inputs(stage, attested)
        if not names and not records and digest in self.given:
            said = f"given from outside as {self.given[digest]}: training began with it, and nothing tells what made it"
            node.findings.append(Finding(Verdict.ATTESTED, said))
            node.given = True
        elif not names:
            node.findings.append(Finding(Verdict.MISSING, f"{self._untold(records)}: the walk ends here"))
        node.name = names[0] if names else node.name
        if node.name in _artifacts():
            node.findings += self.pins.misnamed(digest, place(node.name).name)
        return found

    def _untold(self, records: list[Record]) -> str:
        """Why nothing says what made an artifact."""
        if records:
            return "no attestation that is trusted says what made it"
        try:
            elsewhere = bool(self.store.list("attestations"))
        except StoreError:
            elsewhere = True  # which is told where it is read
        others = "the store has others" if elsewhere else "the store has none at all"
        return f"no attestation says what made it; {others}"

    def _records(self, digest: str, node: Node) -> list[Record]:
        records: list[Record] = []
        folder = f"attestations/{digest}"
        try:
            names = self.store.list(folder)
        except StoreError as error:
            node.findings.append(Finding(Verdict.MISSING, f"{folder}: {one_line(error)}"))
            names = []
        for name in names:
            try:
                data = self.store.read(f"{folder}/{name}")
            except StoreError as error:
                data = None
                node.findings.append(Finding(Verdict.MISSING, f"{folder}/{name}: {one_line(error)}"))
            if data is not None:
                records.append(checks.read_record(digest, name, data, self.keys))
        self.records[digest] = records
        return records

    def _stage(self, record: Record, attested: Attestation, made: Node) -> Node:
        """The node of an attestation that is believed, and the edge to it from what it made."""
        identifier, name = f"stage:{record.identifier}", f"{attested.component} {attested.version}"
        node = self.audit.nodes.setdefault(identifier, Node(identifier, "stage", name, record.identifier))
        node.findings += [one for one in record.findings if one not in node.findings]
        named = Finding(Verdict.ATTESTED, "it is named as what was made")
        self.audit.edges.append(Edge(made.id, node.id, "made by", [named]))
        return node

    def _not_believed(self, record: Record, made: Node, known: bool) -> None:
        """A record that is no proof. It may be a copy of one that is, put in a wrong place: so the place is the node.

        Args:
            known: another attestation, which is believed, says what made it. Then who else signed does no harm.
        """
        if known and record.strangers:
            self.audit.strangers[record.where] = record.strangers
            return
        node = Node(f"record:{record.where}", "record", "attestation", record.identifier, list(record.findings))
        self.audit.nodes[node.id] = node
        self.audit.edges.append(Edge(made.id, node.id, "made by"))  # what is wrong is told of the record, once

    def _inputs(self, stage: Node, attested: Attestation) -> list[tuple[str, str]]:
        """Take in what a stage was made from; the artifacts among it are to be walked to."""
        walked: list[tuple[str, str]] = []
        for name, digest in attested.inputs.items():
            self._edge(stage, artifact_id(digest), f"named as its input {name}")
            walked.append((digest, name))
        self.given |= attested.given
        for name, digest in attested.beginnings.items():
            self._edge(stage, artifact_id(digest), f"named as what it began with, {name}")
            walked.append((digest, name))
        for origin in origins.surroundings(attested, self.store, self.pins):
            self._origin(stage, origin)
        if attested.objects:
            for tree in self._trees(attested):
                self._tree(stage, tree)
            for origin in origins.objects(attested, {tree: self.copies[tree] for tree in self._trees(attested)}):
                self._origin(stage, origin)
        return walked

    def _trees(self, attested: Attestation) -> list[str]:
        """The trees of copied objects that a stage read from: a snapshot says its own, of others the lock that they
        read does, or, where that is gone from the store, whoever made it."""
        sources = attested.inputs.get("sources")
        lock = agreement.lock_of(self._read, sources) if sources else None
        told = [one.facts.get("tree") for one in self.makers(sources)] if sources and lock is None else []
        found = (attested.facts.get("tree"), lock.tree if lock is not None else None, *told)
        trees = (tree for tree in found if isinstance(tree, str) and checks.DIGEST.fullmatch(tree))
        return list(dict.fromkeys(trees))

    def _tree(self, stage: Node, digest: str) -> None:
        """Take in the tree of copied objects: it has a pin and bytes, and no attestation of its own."""
        node = Node(artifact_id(digest), "artifact", "objects", digest)
        if node.id not in self.audit.nodes:
            pin, faults = self.pins.of(digest)
            node.findings += faults
            self.copies[digest] = Copies(digest, pin, in_store(self.store, pin) if pin is not None else [])
            self.audit.nodes[node.id] = node
        self._edge(stage, node.id, "named as the tree of copied objects")

    def _origin(self, stage: Node, origin: origins.Origin) -> None:
        if origin.node.id not in self.audit.nodes:
            self.audit.nodes[origin.node.id] = origin.node
            self.ends.append(origin)
        self._edge(stage, origin.node.id, origin.named)

    def _edge(self, tail: Node, head: str, said: str) -> None:
        edge = Edge(tail.id, head, "made from", [Finding(Verdict.ATTESTED, said)])
        self.audit.edges.append(edge)

    def _folders(self, digest: str, pin: Artifact | None, names: list[str]) -> None:
        """Add the copies that lie in folders: the one that was named, and those at the project's own places."""
        named = self.target.path if digest == self.target.digest else None
        if named is not None:
            self.copies[digest].copies.insert(0, at_path(named, pin))
        for name in dict.fromkeys(names) if self.root is not None else ():
            if name not in _artifacts():
                continue
            path = (self.root or Path()) / place(name)
            if not path.exists() or (named is not None and path.resolve() == named.resolve()):
                continue
            self.copies[digest].copies.append(replace(at_path(path, pin), may_be_another=True))

    # Looking and judging

    def look(self) -> None:
        """Read every copy of everything."""
        places = [place for copies in self.copies.values() for place in copies.places()]
        self.reader.look([*places, *(place for origin in self.ends for place in origin.places())])

    def judge(self) -> None:
        """Say of every node and edge what is proved, claimed, missing or changed."""
        for digest, copies in self.copies.items():
            copies.copies = [copy for copy in copies.copies if not self._is_another(digest, copy)]
            self.audit.nodes[artifact_id(digest)].findings[:0] = copies.findings(self.reader)
        if self.target.stranger:
            self._stranger()
        for origin in self.ends:
            origin.node.findings += origin.findings(self.reader)
        now = datetime.now(UTC)
        for record, attested in self.attested.values():
            self._judge_stage(record, attested, now)
        if self.strict_code:
            self._one_code()
        self._signatures()
        if self.root is not None:
            project.judge(self.audit, self.root, self.pins, self.makers)

    def _judge_stage(self, record: Record, attested: Attestation, now: datetime) -> None:
        node = self.audit.nodes[f"stage:{record.identifier}"]
        artifacts = attested.inputs
        made_by = {name: self.makers(digest) for name, digest in artifacts.items()}
        node.findings += checks.guarded(
            [
                lambda: filter(None, [checks.stage_key(attested)]),
                lambda: checks.signpost(self.store, record, attested),
                lambda: checks.conflicts(self.store, record, attested, self.keys),
                lambda: checks.times(attested, made_by, now),
                lambda: checks.attempts(attested, self.strict_code),
                lambda: self._lock(attested),
            ]
        )
        told: list[tuple[str, Finding]] = []
        node.findings += checks.guarded([lambda: told.extend(agreement.disagreements(attested, artifacts, self._read))])
        for name, finding in told:
            edges = [one for one in self.audit.edges if one.tail == node.id]
            edge = next((one for one in edges if one.head == artifact_id(artifacts.get(name, ""))), None)
            (edge.findings if edge else node.findings).append(finding)

    def _one_code(self) -> None:
        """Find fault with stages that different code made."""
        made_by: dict[str, list[str]] = {}
        for _, attested in self.attested.values():
            made_by.setdefault(attested.code.sha256, []).append(attested.component)
        told = tuple(f"{code}: {', '.join(dict.fromkeys(stages))}" for code, stages in made_by.items())
        for node in self.audit.nodes.values() if len(told) > 1 else ():
            if node.kind == "code" and node.digest in made_by:
                node.findings.append(Finding(Verdict.CONFLICT, "the stages were made by different code", told))

    def _signatures(self) -> None:
        """Verify what claims to be a signature of the target, or of a model on the way."""
        models = [one.outputs["model"] for _, one in self.attested.values() if "model" in one.outputs]
        for digest in dict.fromkeys([self.target.digest, *models]):
            known, node = self.copies.get(digest), self.audit.nodes.get(artifact_id(digest))
            if known is None or known.pin is None or node is None:
                continue
            folders = [Path(copy.where) for copy in known.copies if copy.is_folder]
            found = list(signatures.of_model(node, known.pin, folders, self.store, self.keys))
            believed = any(one.findings[0].verdict is Verdict.ATTESTED for one, _ in found)
            for signature, edge in found:
                where, (judged,) = signature.id.removeprefix("signature:"), signature.findings
                # In the store each key has a place. Beside the model there is one, and another's may be there instead.
                if believed and judged.verdict is Verdict.UNSIGNED and where.startswith("signatures/"):
                    self.audit.strangers[where] = tuple(detail.removeprefix("signed by: ") for detail in judged.details)
                    continue
                self.audit.nodes[signature.id] = signature
                self.audit.edges.append(edge)

    def _lock(self, attested: Attestation) -> list[Finding]:
        if attested.component != "snapshot":
            return []
        lock = agreement.lock_of(self._read, attested.outputs.get("sources", ""))
        return agreement.lock_disagreements(attested, lock) if lock is not None else []

    def _is_another(self, digest: str, copy: Copy) -> bool:
        """Whether what lies at a place of the project is another artifact, as sound as the one that is walked to."""
        there = copy.digest(self.reader) if copy.may_be_another else None
        return there is not None and there != digest and bool(self.makers(there))

    def _stranger(self) -> None:
        """Say that the folder that was named is not what anybody attested."""
        node = self.audit.nodes[self.audit.target]
        path = self.target.path
        if self.pins.of(self.target.digest)[0] is not None:
            said = f"{path}: no attestation knows what lies there; of all artifacts, this one is the nearest"
            told = (f"lies there: {self.target.holds}", f"nearest: {self.target.digest}")
            node.findings.insert(0, Finding(Verdict.TAMPERED, said, told))

    def makers(self, digest: str) -> list[Attestation]:
        """The trusted attestations that name an artifact as what they made."""
        if digest not in self.records:
            self._records(digest, Node("", "artifact", "", digest))
        return [one.attested for one in self.records[digest] if one.attested is not None]

    def _read(self, digest: str, path: str) -> bytes | None:
        """One small file of an artifact that was walked to."""
        known = self.copies.get(digest) or self.beside.get(digest)
        if known is None:
            # No ancestor, such as the optimizer's state: read where an ancestor tells of it, and not judged.
            pin, _ = self.pins.of(digest)
            known = self.beside[digest] = Copies(digest, pin, in_store(self.store, pin) if pin is not None else [])
        return known.read(path)

    def replay(self, replay: Replay, scratch: Path) -> None:
        """Run again what can be run again, in the order in which it was run."""
        places = Places(self.store, scratch, found=self._sound() | self._beside())
        order = {stage.name: index for index, stage in enumerate(stages())}

        def ran(one: tuple[str, tuple[Record, Attestation]]) -> tuple[str, int]:
            attested = one[1][1]
            return attested.finished, order.get(attested.component, len(order))  # a second may have seen two end

        for identifier, (_, attested) in sorted(self.attested.items(), key=ran):
            node = self.audit.nodes[f"stage:{identifier}"]
            self.audit.replayed[node.id] = replay(attested, places)
            node.findings.append(self.audit.replayed[node.id])

    def _sound(self) -> dict[str, Path]:
        """Folders of which every byte was found right now, by digest: nothing of these has to be fetched."""
        folders = ((digest, copy) for digest, one in self.copies.items() for copy in one.copies if copy.is_folder)
        read = self.reader.read_bytes
        return {digest: Path(copy.where) for digest, copy in folders if read and copy.digest(self.reader) == digest}

    def _beside(self) -> dict[str, Path]:
        """Folders of the project that hold what was made beside what was walked to, such as the optimizer's state."""
        made = {name: digest for _, one in self.attested.values() for name, digest in one.outputs.items()}
        if self.root is None or not self.reader.read_bytes:
            return {}
        found = {}
        for name, digest in made.items():
            path = self.root / place(name)
            with suppress(ArtifactError):  # what is no artifact is not it either
                if digest not in self.copies and digest_of(path) == digest:
                    found[digest] = path
        return found


def artifact_id(digest: str) -> str:
    """The id of an artifact's node."""
    return f"artifact:{digest}"


def _artifacts() -> set[str]:
    """The names of everything that a stage makes."""
    return {name for stage in stages() for name in stage.outputs}
