"""What has no maker: objects of sources, the code, the locks of packages. Here a walk back ends."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cairn.audit.copies import Copies, at_path, in_store
from cairn.audit.reading import Place, Reader
from cairn.audit.target import Pins
from cairn.audit.verdicts import Finding, Node, Verdict
from cairn.lineage import environment
from cairn.lineage.artifact import Artifact, Member
from cairn.lineage.attestation import Attestation
from cairn.lineage.store import Store, identity

DIFFERENCE = "cairn.patch"  # what the store calls the changes to a commit


@dataclass
class Origin:
    """One of them: its node, and where its bytes may lie."""

    node: Node
    copies: Copies | None = None
    """Of something that is kept as an artifact of its own."""
    tree: Copies | None = None
    """Of an object that was copied into a tree: that tree."""
    path: str = ""
    """Of the object in the tree."""
    kept: Place | None = None
    """Of an object that its own store keeps: where."""
    said: list[Finding] = field(default_factory=list)
    """What is known of it without reading."""

    named: str = "named with its digest"
    """What the attestation says of it, besides that it was there."""

    def places(self) -> Iterable[Place]:
        """What has to be looked at for it, besides the tree."""
        yield from self.copies.places() if self.copies else ()
        if self.kept is not None:
            yield self.kept

    def findings(self, reader: Reader) -> list[Finding]:
        """What became of it."""
        found = list(self.said)
        if self.copies is not None:
            found += self.copies.findings(reader)
        if self.tree is not None:
            found += self._in_tree(self.tree, reader)
        if self.kept is not None:
            found.append(self._in_its_store(self.kept, reader))
        return found

    def _in_tree(self, tree: Copies, reader: Reader) -> list[Finding]:
        found, where = [], f"the tree of copied objects ({tree.digest[:12]})"
        member = tree.members.get(self.path)
        if member is None or member.sha256 != self.node.digest:
            lacks = "has no pin" if tree.pin is None else "does not hold it"
            return [Finding(Verdict.MISSING, f"{self.node.name}: {where} {lacks}")]
        for copy in tree.copies:
            seen = reader.seen[copy.places[self.path]]
            if seen.size is not None and (seen.size != member.size or seen.sha256 not in (None, member.sha256)):
                found.append(
                    Finding(Verdict.TAMPERED, f"{self.node.name}: {copy.places[self.path].url} holds other bytes")
                )
        sound = tree.sound(self.path, reader)
        if sound is None:
            found.append(Finding(Verdict.MISSING, f"{self.node.name}: its bytes are nowhere in {where}"))
        elif reader.seen[sound].sha256 is None:
            found.append(Finding(Verdict.ATTESTED, f"there, in {where}, and not read"))
        else:
            found.append(Finding(Verdict.BYTES_MATCH, f"in {where}"))
        return found

    def _in_its_store(self, place: Place, reader: Reader) -> Finding:
        named = f"{self.node.name}, version {place.version}"
        if not reader.read_bytes:
            return Finding(Verdict.ATTESTED, f"{named}: kept by its own store, and not looked at")
        seen = reader.seen[place]
        if seen.sha256 is None:
            return Finding(Verdict.MISSING, f"{named}: {seen.error or 'is not there'}")
        if seen.sha256 != self.node.digest:
            return Finding(Verdict.TAMPERED, f"{named}: its store gives other bytes", (f"sha256: {seen.sha256}",))
        return Finding(Verdict.BYTES_MATCH, f"{named}: read again from its own store")


def objects(attested: Attestation, trees: Mapping[str, Copies]) -> Iterator[Origin]:
    """The objects of sources that a stage read.

    Args:
        trees: the trees of copied objects that are known, by digest.
    """
    for one in attested.objects:
        uri, noted = one.uri or "", one.annotations or {}
        sources = noted.get("sources") or ()
        names = ", ".join(str(source.get("name")) for source in sources)
        node = Node(f"object:{one.sha256}:{uri}", "object", uri, one.sha256, source=names)
        evidence = "; ".join(dict.fromkeys(map(_evidence, sources)))
        path, version = noted.get("path"), noted.get("version")
        holding = (tree for tree in trees.values() if path in tree.members)
        if isinstance(version, str):
            yield Origin(node, kept=Place(uri, version), named=evidence)
        elif isinstance(path, str) and trees:
            tree = next(holding, next(iter(trees.values())))
            yield Origin(node, tree=tree, path=path, named=evidence)
        else:
            yield Origin(node, said=[Finding(Verdict.MISSING, f"{uri}: nothing says where its bytes are kept")])


def _evidence(source: Mapping[str, Any]) -> str:
    """What was said of a source's licence and of its owners' reservations, and what for."""
    said = f"licence {source.get('licence')} (evidence: {source.get('licence_evidence') or 'none'})"
    opted = source.get("opt_out")
    if not isinstance(opted, Mapping):
        return f"{said}, opt-out not checked"
    return f"{said}, opt-out {opted.get('says')} (checked {opted.get('checked')}; evidence: {opted.get('evidence')})"


def surroundings(attested: Attestation, store: Store, pins: Pins) -> Iterator[Origin]:
    """The code that ran and the locks of packages, as an attestation names them."""
    code = attested.code
    if code.sha256:
        at = f"commit {code.commit}" if code.commit else "no commit: it ran where there was no Git"
        said = Finding(Verdict.ATTESTED, f"{at}{', with changes' if code.dirty else ''}")
        if environment.code()["sha256"] == code.sha256:
            said = Finding(Verdict.BYTES_MATCH, f"is the code of this audit ({at})")
        # One code may be told of in several ways, with and without a commit: each is a claim of its own.
        node = Node(f"code:{code.sha256}:{identity([code.commit, code.difference])[:12]}", "code", "cairn", code.sha256)
        yield Origin(node, said=[said])
    if code.difference is not None:
        yield _kept(
            Node(f"code:{code.difference}", "code", "changes to the commit", code.difference), store, pins, None
        )
    for name, digest in attested.locks.items():
        yield _kept(Node(f"lock:{name}:{digest}", "lock", name, digest), store, pins, environment.ROOT / name)


def _kept(node: Node, store: Store, pins: Pins, beside: Path | None) -> Origin:
    """Something that the store should keep under its own digest.

    Args:
        beside: a file of this Cairn that may be the same.
    """
    pin, faults = pins.of(node.digest)
    copies = Copies(node.digest, pin, in_store(store, pin) if pin is not None else [])
    if pin is None and beside is not None and beside.is_file():
        only = Artifact((Member(beside.name, node.digest, "", beside.stat().st_size),), is_directory=False)
        copies = replace(copies, pin=only, copies=[replace(at_path(beside, only), may_be_another=True)])
    misnamed = pins.misnamed(node.digest, DIFFERENCE if node.kind == "code" else node.name)
    return Origin(node, copies, said=[*(one for one in faults if one.verdict is not Verdict.MISSING), *misnamed])
