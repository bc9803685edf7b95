"""Verification of a store: every object against its address and its pins, every `.dir` object against its files.

Each object is read once, whatever names it, and hashed with md5 (its address) and, where a pin names it, sha256 (its
identity). Bytes go by in constant memory; what is remembered is one line for each object. A listing may be stale and an
object may go while others are read, so nothing is called missing before it was asked for by name.

That an artifact is pinned and not here is no fault: pins outlive what collections remove, and a project pins what only
its DVC cache holds. A fault is what keeps others from what they need: bytes that are not what they are called, an
artifact of which only a part is here, and a `.dir` object without its files, which DVC takes for the proof that all was
sent.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec

from cairn.errors import StoreError
from cairn.lineage.artifact import Artifact, Member
from cairn.lineage.collecting import going_on, last
from cairn.lineage.contents import Contents, addresses, in_parallel, listed_members, top_address
from cairn.lineage.fetching import AbsentError, hash_object
from cairn.lineage.hashing import Hashes
from cairn.lineage.pins import address as key_of
from cairn.lineage.pins import directory_listing as listing
from cairn.lineage.records import Records, verify_records
from cairn.lineage.roots import digests_in, pins, pointers
from cairn.lineage.store import Store
from cairn.lineage.transfers import measured

QUARANTINE = "quarantine"
REPAIR = "`cairn store verify --repair` fetches a good copy, or makes room for one"


@dataclass(frozen=True)
class Fault:
    """Something that is wrong in a store."""

    key: str
    """Where."""
    said: str
    """What is wrong, and what that means."""
    way_out: str
    repaired: str = ""
    """What was done about it; empty when it is still wrong."""
    address: str = ""
    """Of the object that is damaged or missing, or of the `.dir` object whose files are."""
    missing: tuple[str, ...] = ()
    """Addresses of the files that a `.dir` object names and that are not there."""
    damaged: bool = False
    """Whether what lies at the address is not what belongs there."""


@dataclass
class Report:
    """What was looked at, and what was found."""

    faults: list[Fault] = field(default_factory=list)
    objects: int = 0
    read: int = 0
    """Bytes that were hashed."""
    whole: int = 0
    """Pinned artifacts of which every object is here."""
    partly: int = 0
    elsewhere: int = 0
    """Pinned artifacts of which nothing is here."""
    unpinned: int = 0
    """Objects that no pin names."""
    leftovers: list[str] = field(default_factory=list)
    """Keys of what killed uploads left behind."""
    strangers: list[str] = field(default_factory=list)
    """Keys of things in the store that are none of Cairn's or DVC's."""
    quarantined: int = 0
    records: Records = field(default_factory=Records)
    notes: list[str] = field(default_factory=list)
    """What a person should know though it is no fault."""

    @property
    def wrong(self) -> list[Fault]:
        """The faults that were not repaired."""
        return [fault for fault in self.faults if not fault.repaired]


@dataclass
class Known:
    """What is in a store, and what pins say should be."""

    there: dict[str, int] = field(default_factory=dict)
    """Address to size of every object."""
    wanted: dict[str, tuple[Member, ...]] = field(default_factory=dict)
    """Address to what pins say of it: more than one only where two files have the same md5."""
    directories: dict[str, Artifact] = field(default_factory=dict)
    """Address of a `.dir` object to the artifact that it lists."""
    pinned: dict[str, Artifact] = field(default_factory=dict)

    def add(self, artifact: Artifact) -> None:
        """Take up what a pin says."""
        self.pinned[artifact.digest] = artifact
        if artifact.is_directory:
            data, top = listing(artifact), top_address(artifact)
            self.directories[top] = artifact
            self._want(Member("", hashlib.sha256(data).hexdigest(), top, len(data)))
        for member in artifact.members:
            self._want(member)

    def _want(self, member: Member) -> None:
        before = self.wanted.get(member.md5, ())
        if not any((one.sha256, one.size) == (member.sha256, member.size) for one in before):
            self.wanted[member.md5] = (*before, member)


def verify(
    store: Store,
    keys: Mapping[str, ec.EllipticCurvePublicKey],
    digests: Collection[str] = (),
    with_bytes: bool = True,
) -> tuple[Report, Known]:
    """Look at all that a store holds, or at what the artifacts of some digests need.

    Args:
        keys: whose signatures count.
        digests: of the artifacts that are looked at, and that must be here; none is everything.
        with_bytes: read the objects. Without, only names and sizes are compared.

    Raises StoreError when the store cannot be reached, or a digest was never pinned.
    """
    report, known, found = Report(), Known(), set[str]()
    contents, before = Contents(store.url), last(store)
    for one in pins(store, digests):
        found.add(one.digest)
        if one.fault:
            way_out = "`--repair` writes it again from the artifact, or from another store (`--from URL`); or remove it"
            report.faults.append(Fault(one.key, one.fault, way_out))
        if one.artifact is not None:
            known.add(one.artifact)
    if unknown := set(digests) - found:
        raise StoreError(f"{store}: holds no pin for {', '.join(sorted(unknown))}")
    _list(contents, known, report, only=set(known.wanted) if digests else None)
    if with_bytes:
        _read(contents, known, report)
    else:
        _compare_sizes(contents, known, report)
    report.faults += broken_listings(contents, known, everything=not digests)
    collected = going_on(store) is not None or last(store) != before
    report.faults += _not_here(store, known, digests, report, collected)
    report.records = verify_records(store, keys, digests, found)
    report.faults += [Fault(key, said, way_out) for key, said, way_out in report.records.faults]
    if not digests:
        if marker := going_on(store):
            report.notes.append(marker)
        report.faults += _in_quarantine(contents, known, report)
        report.leftovers += [entry.key for entry in contents.walk("tmp")]
    return report, known


def broken_listings(contents: Contents, known: Known, everything: bool = True) -> list[Fault]:
    """`.dir` objects that stand there without some of their files: DVC pushes nothing more, and cannot pull."""
    faults = []
    for address in sorted(address for address in known.there if address.endswith(".dir")):
        artifact = known.directories.get(address)
        if artifact is not None:
            files = [(member.path, member.md5) for member in artifact.members]
        elif everything:
            try:
                files = listed_members(contents.read(key_of(address)))
            except FileNotFoundError:
                continue
            except ValueError as error:
                said = f"the `.dir` object {error}"
                faults.append(Fault(key_of(address), said, REPAIR, address=address, damaged=True))
                continue
        else:
            continue
        missing = {md5: path for path, md5 in files if not _is_there(contents, known, md5)}
        if missing and _is_there(contents, known, address, again=True):
            which = some_of(missing.values())
            owner = f"artifact {artifact.digest}" if artifact else "a directory that no pin names"
            said = f"{owner}: {which} missing, but the `.dir` object is there, so `dvc push` takes it for sent"
            faults.append(Fault(key_of(address), said, REPAIR, address=address, missing=tuple(sorted(missing))))
    return faults


def _list(contents: Contents, known: Known, report: Report, only: set[str] | None) -> None:
    # A few objects of a large store are sooner asked for than found in its listing.
    asked = in_parallel(lambda address: contents.entry(key_of(address)), sorted(only or ()))
    for entry in contents.objects() if only is None else filter(None, asked):
        address = entry.address
        if address is not None:
            known.there[address] = entry.size
        else:
            (report.leftovers if entry.is_leftover else report.strangers).append(entry.key)
    report.objects = len(known.there)
    report.unpinned = sum(address not in known.wanted for address in known.there)


def _read(contents: Contents, known: Known, report: Report) -> None:
    """Hash every object; those that are gone by now are struck off."""
    with measured("verifying", sum(known.there.values())) as meter:

        def look(address: str) -> tuple[str, Hashes | None]:
            try:
                return address, hash_object(contents.url, address, meter)
            except AbsentError:
                return address, None

        for address, found in in_parallel(look, sorted(known.there)):
            if found is None:
                del known.there[address]
                continue
            known.there[address] = found.size
            report.read += found.size
            if said := _damage(address, found, known.wanted.get(address, ())):
                report.faults.append(Fault(key_of(address), said, REPAIR, address=address, damaged=True))


def _damage(address: str, found: Hashes, wanted: tuple[Member, ...]) -> str:
    """What is wrong with the bytes at an address; empty when nothing is."""
    if found.md5 != address.removesuffix(".dir"):
        cut = f", cut short at {found.size:,} bytes" if wanted and found.size < wanted[0].size else ""
        return f"damaged: its bytes have the md5 {found.md5}{cut}{_owners(wanted)}"
    for member in wanted:
        if found.sha256 != member.sha256:
            return f"replaced: other bytes of the same md5{_owners((member,))}"
    return ""


def _owners(wanted: tuple[Member, ...]) -> str:
    return f" (wanted: {wanted[0].path or 'the listing of a directory'}, sha256 {wanted[0].sha256})" if wanted else ""


def _compare_sizes(contents: Contents, known: Known, report: Report) -> None:
    for address, members in known.wanted.items():
        size = known.there.get(address)
        if size is None or size == members[0].size:
            continue
        entry = contents.entry(key_of(address))
        if entry is not None and entry.size != members[0].size:
            said = f"damaged: {entry.size:,} bytes, not {members[0].size:,}{_owners(members)}"
            report.faults.append(Fault(key_of(address), said, REPAIR, address=address, damaged=True))


def _not_here(store: Store, known: Known, digests: Collection[str], report: Report, collected: bool) -> Iterator[Fault]:
    """Count what is here, and name what must be here and is not: what was asked for, what models point to, and the
    rest of what is here in part, unless a collection was at work meanwhile."""
    contents = Contents(store.url)
    needed = {digest: f"model {name}" for name, (_, value) in pointers(store).items() for digest in digests_in(value)}
    whole, lacking = set[str](), dict[str, list[str]]()
    for digest, artifact in known.pinned.items():
        wanted = set(addresses(artifact))
        if digest not in digests and digest not in needed and wanted.isdisjoint(known.there):
            report.elsewhere += 1
            continue
        missing = [one for one in sorted(wanted) if not _is_there(contents, known, one)]
        report.whole += not missing
        report.elsewhere += len(missing) == len(wanted)
        report.partly += 0 < len(missing) < len(wanted)
        if missing:
            lacking[digest] = missing
        else:
            whole |= wanted
    for digest, missing in lacking.items():
        artifact = known.pinned[digest]
        wanted, top = set(addresses(artifact)), top_address(artifact)
        if artifact.is_directory and top not in missing:
            continue  # told of already as a `.dir` object without files
        lost = [member.path for member in artifact.members if member.md5 in missing and store.locate(member) is None]
        why = f", and {needed[digest]} points to it" if digest in needed and digest not in digests else ""
        # A file that a whole artifact has too does not show that this one was ever sent.
        part = not collected and not wanted <= {*missing, *whole} and bool(lost or missing == [top])
        if digest in digests or (digest in needed and lost) or part:
            which = f" ({some_of(lost)})" if lost and len(missing) < len(wanted) else ""
            said = f"artifact {digest}: {len(missing)} of {len(wanted)} objects missing{which}{why}"
            yield Fault(key_of(top), said, REPAIR, address=top, missing=tuple(missing))


def some_of(paths: Collection[str]) -> str:
    """The first of some names, and how many more there are."""
    first = min(paths) or "its one file"
    return first + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


def _in_quarantine(contents: Contents, known: Known, report: Report) -> Iterator[Fault]:
    """What was damaged, was taken away, and has not come back since."""
    told = {fault.address for fault in report.faults}
    for entry in contents.walk(QUARANTINE):
        report.quarantined += 1
        address = entry.key.removeprefix(f"{QUARANTINE}/")
        wanted = known.wanted.get(address, ())
        if wanted and address not in told and not _is_there(contents, known, address):
            said = f"lost: it was damaged and lies in {entry.key} since{_owners(wanted)}"
            yield Fault(
                key_of(address), said, f"{REPAIR}; or remove what is in quarantine, if nobody needs it", address=address
            )


def _is_there(contents: Contents, known: Known, address: str, again: bool = False) -> bool:
    """Whether an object is in the store, by the listing or, since that may be stale, by asking for it."""
    if address in known.there and not again:
        return True
    entry = contents.entry(key_of(address))
    if entry is None:
        known.there.pop(address, None)
    return entry is not None
