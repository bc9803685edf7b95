"""Collection: remove from a store the bytes that no run, model, Git ref or young pin needs (mark and sweep).

Only what lies under `files/md5` and what killed uploads left behind is ever removed. Pins, attestations, signposts,
records and pointers stay: what was made is told for ever, and the bytes can be made again.

A `.dir` object goes before the files that it names: one that stood there without them would have DVC believe that all
had been sent. A collection may be killed at any moment; the next one goes on.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cairn.errors import StoreError
from cairn.lineage import collecting
from cairn.lineage.contents import Contents, Entry, addresses, listed_members, top_address
from cairn.lineage.git_roots import file_roots, git_roots
from cairn.lineage.pins import address as key_of
from cairn.lineage.roots import LOCK, Pinned, Root, lead_to, pins, store_roots
from cairn.lineage.store import Store
from cairn.progress import progress

WEEK = 7 * 24 * 3600.0
LEFTOVER_AGE = 3600.0  # seconds; an upload that goes on writes its file more often than that
BATCH = 500  # objects between two looks at the marker


@dataclass(frozen=True)
class Unneeded:
    """A pinned artifact that nothing needs."""

    digest: str
    age: float
    """Seconds since its pin was written."""
    frees: int
    """Bytes of it that go; what others need of it stays."""
    objects: int


@dataclass(frozen=True)
class Plan:
    """What a collection removes, and what it keeps."""

    artifacts: tuple[Unneeded, ...]
    """Pinned artifacts that nothing needs, the largest first."""
    objects: tuple[Entry, ...]
    """The objects that go, `.dir` objects first."""
    unpinned: tuple[Entry, ...]
    """Those among `objects` that no pin names."""
    leftovers: tuple[Entry, ...]
    """What killed uploads left behind."""
    kept: int
    """Objects that are needed."""
    kept_bytes: int
    young: int
    """Objects that nothing needs, and that are younger than the minimum age."""
    roots: tuple[Root, ...]
    """What is named from outside; each keeps what led to it."""

    @property
    def bytes(self) -> int:
        """How many the store shrinks by."""
        return sum(entry.size for entry in (*self.objects, *self.leftovers))


@dataclass(frozen=True)
class Repositories:
    """Where lock files are, besides those that a store knows of."""

    git: tuple[Path, ...] = ()
    """Git repositories: all their refs, indexes and work trees."""
    folders: tuple[Path, ...] = ()
    """Projects without Git: the lock files at their top."""

    def roots(self) -> list[Root]:
        """What they name. Raises StoreError when one cannot be read."""
        found = [root for repository in self.git for root in git_roots(repository)]
        for folder in self.folders:
            wanted = sorted(path.name for path in folder.glob("*.dvc") if path.is_file())
            found += list(file_roots(folder, ["dvc.lock", LOCK, *wanted]))
        return found


def plan(store: Store, repositories: Repositories, minimum_age: float, now: float) -> Plan:
    """What a collection would remove; nothing is changed.

    Args:
        minimum_age: seconds; nothing younger is removed, and what was pinned since counts as needed.
        now: seconds since 1970, by the store's clock.

    Raises StoreError when a root, a pin or an attestation on the way cannot be read.
    """
    if not (minimum_age >= 0 and math.isfinite(minimum_age)):
        raise StoreError(f"{minimum_age} seconds is no age")
    pinned = {one.digest: one for one in _sound(pins(store))}
    by_address: dict[str, list[str]] = {}
    for one in pinned.values():
        assert one.artifact is not None
        by_address.setdefault(top_address(one.artifact), []).append(one.digest)
    roots = [*store_roots(store), *repositories.roots()]
    roots += [
        Root(one.digest, "sha256", "pinned lately", "young pins")
        for one in pinned.values()
        if now - one.modified < minimum_age
    ]
    wanted = {root.name for root in roots if root.kind == "sha256"}
    unpinned_roots = {root.name: root.why for root in roots if root.kind == "md5" and root.name not in by_address}
    wanted |= {digest for root in roots if root.kind == "md5" for digest in by_address.get(root.name, ())}
    live = wanted | set(lead_to(store, wanted, pinned.keys()))
    needed = _listed_by(store, unpinned_roots)
    for digest in live & pinned.keys():
        needed.update(addresses(pinned[digest].artifact))  # type: ignore[arg-type]
    return _sweep(store, pinned, live, needed, tuple(roots), minimum_age, now)


def collect(
    store: Store,
    repositories: Repositories,
    minimum_age: float,
    confirmed: Callable[[Plan], None] = lambda _: None,
) -> Plan:
    """Remove what nothing needs; the plan that was carried out.

    Args:
        confirmed: called with the plan before the first object goes.

    Raises StoreError as `plan` does, and when another collection is going on.
    """
    going_on = collecting.begin(store)
    try:
        going_on.renew()
        found = plan(store, repositories, minimum_age, going_on.began)
        confirmed(found)
        contents = Contents(store.url)
        doomed = [entry.key for entry in (*found.objects, *found.leftovers)]
        # Two passes, so that every `.dir` object has gone before any file does.
        first = sum(entry.key.endswith(".dir") for entry in found.objects)
        with progress("removing", len(doomed), "objects") as counter:
            for keys in (doomed[:first], doomed[first:]):
                for start in range(0, len(keys), BATCH):
                    going_on.renew(always=True)
                    batch = keys[start : start + BATCH]
                    contents.remove(batch)
                    counter.advance(len(batch))
    finally:
        collecting.end(going_on)
    return found


def _sound(found: Iterable[Pinned]) -> Iterator[Pinned]:
    for one in found:
        if one.artifact is None:
            raise StoreError(f"{one.fault}: nothing is removed, since it is not known what it needs: mend or remove it")
        yield one


def _listed_by(store: Store, wanted: dict[str, str]) -> set[str]:
    """The addresses that lock files name without a pin, and what the `.dir` objects among them list."""
    found = set(wanted)
    places = [Contents(root) for root in (store.url, *store.mirrors)]
    for address, why in wanted.items():
        if not address.endswith(".dir"):
            continue
        for place in places:
            try:
                data = place.read(key_of(address))
            except FileNotFoundError:
                continue  # what lists no files anywhere cannot be brought back either
            try:
                found.update(md5 for _, md5 in listed_members(data))
            except ValueError as error:
                raise StoreError(
                    f"{Store(place.url)}/{key_of(address)}: {error}, and {why} needs it: nothing is removed: "
                    "`cairn store verify --repair` mends it"
                ) from None
    return found


def _sweep(
    store: Store,
    pinned: dict[str, Pinned],
    live: set[str],
    needed: set[str],
    roots: tuple[Root, ...],
    minimum_age: float,
    now: float,
) -> Plan:
    doomed: dict[str, Entry] = {}
    leftovers: list[Entry] = []
    kept = kept_bytes = young = 0
    contents = Contents(store.url)
    for entry in contents.objects():
        address = entry.address
        if address is None:
            if entry.is_leftover and now - entry.modified >= max(minimum_age, LEFTOVER_AGE):
                leftovers.append(entry)
        elif address in needed:
            kept, kept_bytes = kept + 1, kept_bytes + entry.size
        elif now - entry.modified < minimum_age:
            young += 1
        else:
            doomed[address] = entry
    for entry in contents.walk("tmp"):
        if now - entry.modified >= max(minimum_age, LEFTOVER_AGE):
            leftovers.append(entry)
    named: set[str] = set()
    artifacts = []
    for one in pinned.values():
        assert one.artifact is not None
        gone = {address for address in addresses(one.artifact) if address in doomed}
        named |= gone
        if gone and one.digest not in live:
            frees = sum(doomed[address].size for address in gone)
            artifacts.append(Unneeded(one.digest, now - one.modified, frees, len(gone)))
    return Plan(
        artifacts=tuple(sorted(artifacts, key=lambda one: (-one.frees, one.digest))),
        objects=tuple(sorted(doomed.values(), key=lambda entry: (not entry.key.endswith(".dir"), entry.key))),
        unpinned=tuple(entry for address, entry in sorted(doomed.items()) if address not in named),
        leftovers=tuple(sorted(leftovers, key=lambda entry: entry.key)),
        kept=kept,
        kept_bytes=kept_bytes,
        young=young,
        roots=roots,
    )
