"""Repair of a store: good copies of what is damaged or missing, and room for them where none is at hand.

A copy is looked for in the mirrors of the store (a project's DVC cache), among the files of the workspace and in other
stores, and is checked by sha256 before it takes its place. A damaged object without a good copy goes to `quarantine/`,
never away. A `.dir` object whose files cannot be had goes too: only then does the next `dvc push` send them all again.
Small records come from other stores (`record_repair.py`).
"""

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from io import FileIO
from pathlib import Path

from cairn.errors import ArtifactError, StoreError
from cairn.lineage.artifact import Artifact, Member, read_artifact
from cairn.lineage.contents import Contents, addresses
from cairn.lineage.fetching import AbsentError, opened
from cairn.lineage.pins import address as key_of
from cairn.lineage.pins import directory_listing as listing
from cairn.lineage.record_repair import mended
from cairn.lineage.roots import trees_in
from cairn.lineage.sending import Receive, receiving
from cairn.lineage.store import Store
from cairn.lineage.transfers import Opened
from cairn.lineage.verification import QUARANTINE, Fault, Known, Report, broken_listings
from cairn.progress import progress

PUSH = "`dvc push` from where the files are sends them again"
_FROM = "name a store that has it with --from URL"
SNAPSHOT = "run `cairn snapshot` in the project, which copies the sources again as far as they are what they were"


@dataclass(frozen=True)
class Sources:
    """Where good copies may be."""

    stores: tuple[Store, ...] = ()
    """Their mirrors too."""
    workspace: tuple[Path, ...] = ()
    """Artifacts, as they lie in a project."""

    def copies(self, member: Member) -> Iterator[Opened]:
        """What opens everything that may be a copy of a file. Its bytes were not looked at."""
        for store in self.stores:
            for url in (store.url, *store.mirrors):
                yield partial(opened, url, member)
        for path in self.workspace:
            found = path / member.path if path.is_dir() else path
            if found.is_file() and found.stat().st_size == member.size:
                yield partial(FileIO, found)


def repair(store: Store, report: Report, known: Known, sources: Sources) -> list[Fault]:
    """Put right what can be; all faults of the report again, each with what was done about it.

    Raises StoreError when the store cannot be written.
    """
    contents = Contents(store.url)
    broken = [fault for fault in report.faults if fault.address]
    lost: dict[str, str] = {}  # address to what became of what lay there
    fetched: set[str] = set()
    wanted = {address for fault in broken for address in (fault.missing or (fault.address,))}
    damaged = {fault.address for fault in broken if fault.damaged}
    with (
        progress("repairing", len(wanted), "objects") as counter,
        receiving(store.url, lambda _: None) as receive,
    ):
        # Listings last: one that stands without its files keeps DVC from sending them.
        for address in sorted(wanted, key=lambda one: (one.endswith(".dir"), one)):
            if _fetch(store, receive, known, address, sources):
                known.there[address] = 0
                fetched.add(address)
            elif address in damaged:
                to = f"{QUARANTINE}/{address}"
                contents.move(key_of(address), to)
                known.there.pop(address, None)
                lost[address] = f"moved to {to}"
            counter.advance()
    # Once more: a file that went to quarantine leaves `.dir` objects behind that were sound before.
    removed = {fault.address for fault in broken_listings(contents, known)}
    for address in removed:
        if address in known.directories:
            contents.remove([key_of(address)])  # its pin can write it again
        else:
            contents.move(key_of(address), f"{QUARANTINE}/{address}")
    trees = trees_in(store) if lost or removed or wanted - fetched else frozenset()
    copied = {address for digest in trees & known.pinned.keys() for address in addresses(known.pinned[digest])}
    # No lock file of DVC names the tree of copied objects.
    back = {fault.address: SNAPSHOT if fault.address in copied else PUSH for fault in broken}
    told = [_told(fault, store, sources, fetched, lost, removed, back) for fault in report.faults]
    return mended(store, told, sources.stores)


def _told(
    fault: Fault,
    store: Store,
    sources: Sources,
    fetched: set[str],
    lost: dict[str, str],
    removed: set[str],
    back: Mapping[str, str],
) -> Fault:
    """A fault, with what was done about it."""
    if not fault.address:
        digest = fault.key.removeprefix("pins/").removesuffix(".json")
        if fault.key.startswith("pins/") and _write_pin(store, digest, sources):
            return replace(fault, repaired="the pin was written again")
        return fault
    wanted = set(fault.missing or (fault.address,))
    if wanted <= fetched:
        return replace(fault, repaired=f"fetched {len(wanted)} object{'s' if len(wanted) > 1 else ''}")
    if fault.address in lost:
        said = f"{fault.said}: {lost[fault.address]}"
        return replace(fault, said=said, way_out=f"no good copy is at hand: {_FROM}, or {back[fault.address]}")
    if fault.address in removed:
        said = f"{fault.said}: the `.dir` object was removed"
        return replace(fault, said=said, way_out=f"no good copy is at hand: {_FROM}, or {back[fault.address]}")
    way_out = f"no good copy is at hand: {_FROM}, or {back[fault.address]}"
    return replace(fault, way_out=way_out)


def _fetch(store: Store, receive: Receive, known: Known, address: str, sources: Sources) -> bool:
    """Bring a good copy of one object to its address; False when there is none."""
    artifact = known.directories.get(address)
    if artifact is not None:
        if not all(member.md5 in known.there for member in artifact.members):
            return False
        store.write(key_of(address), listing(artifact))
        return True
    for member in known.wanted.get(address, ()) or _unpinned(address, sources):
        for copy in sources.copies(member):
            try:
                if receive(member, copy):
                    return True
            except (AbsentError, FileNotFoundError):
                continue
    return False


def _unpinned(address: str, sources: Sources) -> Iterator[Member]:
    """What is known of an object that no pin names: its address, and the size that it has elsewhere."""
    for store in sources.stores:
        for url in (store.url, *store.mirrors):
            if entry := Contents(url).entry(key_of(address)):
                yield Member(posixpath.basename(entry.key), "", address, entry.size)


def _write_pin(store: Store, digest: str, sources: Sources) -> bool:
    """Write a pin again, from another store that has it, or from the artifact itself."""
    for artifact in _described(digest, sources):
        if artifact.digest == digest:
            store.write_pin(artifact)
            return True
    return False


def _described(digest: str, sources: Sources) -> Iterator[Artifact]:
    for other in sources.stores:
        with suppress(StoreError):  # damaged there too
            found = other.pin(digest)
            if found is not None:
                yield found
    for path in sources.workspace:
        try:
            yield read_artifact(path)
        except ArtifactError:
            continue  # a link, or something that is no artifact: it is not the one that is looked for


def workspace_of(root: Path) -> tuple[Path, ...]:
    """The artifacts that lie in a project."""
    folder = root / "artifacts"
    found: Sequence[Path] = sorted(folder.iterdir()) if folder.is_dir() else ()
    lock = root / "sources.lock.json"
    return (*(path for path in found if not path.name.startswith(".")), *([lock] if lock.is_file() else []))
