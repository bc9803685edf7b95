"""What has no maker: objects of sources, the code, the locks of packages. Here a walk back ends."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cairn.audit.checks import CODE, dependencies, inputs, is_surrounding
from cairn.audit.copies import Copies, at_path, in_store
from cairn.audit.reading import Place, Reader
from cairn.audit.target import Pins
from cairn.audit.verdicts import Finding, Node, Verdict
from cairn.lineage import environment
from cairn.lineage.artifact import Artifact, Member
from cairn.lineage.attestation import Attestation
from cairn.lineage.store import Store, identity
from components.snapshot.lock import Lock


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
        member = next((one for one in tree.pin.members if one.path == self.path), None) if tree.pin else None
        if member is None or member.sha256 != self.node.digest:
            lacks = "has no pin" if tree.pin is None else "does not hold it"
            return [Finding(Verdict.MISSING, f"{self.node.name}: {where} {lacks}")]
        for copy in tree.copies:
            seen = reader.seen[copy.places[self.path]]
            if seen.size is not None and (seen.size != member.size or seen.sha256 not in (None, member.sha256)):
                found.append(Finding(Verdict.TAMPERED, f"{self.node.name}: {copy.places[self.path].url} holds other bytes"))
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


def objects(attested: Attestation, lock: Lock | None, tree: Copies | None) -> Iterator[Origin]:
    """The objects of the sources of a snapshot.

    Args:
        lock: the lock file that it made, where it is to be had: it tells how an object is kept.
        tree: the copied objects.
    """
    locked = lock.objects() if lock is not None else {}
    for uri, digest in inputs(attested).items():
        node = Node(f"object:{digest}:{uri}", "object", uri, digest)
        known = locked.get(uri)
        if known is not None and known.version is not None:
            yield Origin(node, kept=Place(uri, known.version))
        elif tree is not None:
            path = known.path if known is not None and known.path is not None else f"{digest[:2]}/{digest[2:]}"
            yield Origin(node, tree=tree, path=path)
        else:
            yield Origin(node, said=[Finding(Verdict.MISSING, f"{uri}: nothing says where its bytes are kept")])


def surroundings(attested: Attestation, store: Store, pins: Pins) -> Iterator[Origin]:
    """The code that ran and the locks of packages, as an attestation names them."""
    for one in dependencies(attested):
        name, digest = str(one["name"]), str(one["digest"]["sha256"])
        if not is_surrounding(name):
            continue
        if name == CODE:
            noted = one.get("annotations")
            yield from _code(digest, noted if isinstance(noted, dict) else {}, store, pins)
        else:
            yield _kept(Node(f"lock:{name}:{digest}", "lock", name, digest), store, pins, environment.ROOT / name)


def _code(digest: str, noted: dict[str, Any], store: Store, pins: Pins) -> Iterator[Origin]:
    commit, dirty = noted.get("commit"), noted.get("dirty")
    at = f"commit {commit}" if commit else "no commit: it ran where there was no Git"
    said = [Finding(Verdict.ATTESTED, f"{at}{', with changes' if dirty else ''}")]
    if environment.code()["sha256"] == digest:
        said = [Finding(Verdict.BYTES_MATCH, f"is the code of this audit ({at})")]
    # One code may be told of in several ways, with and without a commit: each is a claim of its own.
    yield Origin(Node(f"code:{digest}:{identity([commit, dirty])[:12]}", "code", "cairn", digest), said=said)
    if isinstance(dirty, str) and re.fullmatch("[0-9a-f]{64}", dirty):
        yield _kept(Node(f"code:{dirty}", "code", "changes to the commit", dirty), store, pins, None)


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
    return Origin(node, copies, said=[one for one in faults if one.verdict is not Verdict.MISSING])
