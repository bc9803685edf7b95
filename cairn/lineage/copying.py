"""Copies of artifacts from one store to another, with all that is needed to believe them.

Bytes go first, the `.dir` object after its files, the pin after the bytes, and attestations after the pin: whatever can
be found in the target is whole, however early a copy is cut short, and the next one goes on. Every file is hashed on
its way, and one that is not what its pin says never comes to lie at its address. What is there is not sent again.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from cairn.errors import AttestationError, StoreError
from cairn.lineage import collecting
from cairn.lineage.artifact import Artifact, Member
from cairn.lineage.attestation import made
from cairn.lineage.contents import Contents, in_parallel, top_address
from cairn.lineage.fetching import AbsentError, opened
from cairn.lineage.hashing import Meter, Readable
from cairn.lineage.pins import address as key_of
from cairn.lineage.pins import directory_listing as listing
from cairn.lineage.roots import lead_to, pins, statement_of
from cairn.lineage.sending import receiving
from cairn.lineage.store import Store
from cairn.lineage.transfers import measured, side_by_side


@dataclass
class Copied:
    """What a copy did, or would do."""

    artifacts: list[str] = field(default_factory=list)
    """Digests, in the order in which they were asked for; what led to them follows."""
    objects: int = 0
    """Objects that were sent."""
    sent: int = 0
    """Bytes."""
    there: int = 0
    """Objects that the target had already."""
    records: int = 0
    """Attestations, signposts, signatures and run records."""
    lacking: dict[str, list[str]] = field(default_factory=dict)
    """Digest to the files that the source does not have. Of such an artifact only pin and attestations are copied."""


def chosen(source: Store, digests: Sequence[str], ancestors: bool, everything: bool) -> list[str]:
    """The artifacts to copy.

    Args:
        ancestors: all that an audit of `digests` walks back to, too.
        everything: whatever is pinned.

    Raises StoreError when one is not pinned, or an attestation on the way cannot be read.
    """
    held: dict[str, None] = {}
    if ancestors or everything:
        for one in pins(source):
            if one.artifact is None:
                raise StoreError(f"{one.fault}: `cairn store verify --repair` mends it")
            held[one.digest] = None
    for digest in digests:
        if digest not in held and source.pin(digest) is None:
            raise StoreError(f"{source}: holds no pin for {digest}")
    wanted = list(dict.fromkeys([*digests, *(sorted(held) if everything else ())]))
    return [*wanted, *(sorted(lead_to(source, wanted, held.keys())) if ancestors else ())]


def copy(
    source: Store,
    target: Store,
    digests: Sequence[str],
    everything: bool = False,
    dry_run: bool = False,
) -> Copied:
    """Copy artifacts, and what is said of them.

    Args:
        digests: as `chosen` gave them.
        everything: run records and model pointers too.
        dry_run: only say what would be sent.

    Raises StoreError when a store cannot be reached, when bytes are not what their pin says, or when the target holds
    another value of a pointer.
    """
    copied, before = Copied(list(digests)), collecting.last(target)
    plan: list[tuple[Artifact, list[Member], list[str]]] = []
    size = 0
    for digest in digests:
        artifact = source.pin(digest)
        if artifact is None:
            raise StoreError(f"{source}: holds no pin for {digest}")
        missing, lacking = _missing(source, target, artifact)
        plan.append((artifact, missing, lacking))
        size += sum(member.size for member in missing)
        copied.there += len({member.md5 for member in artifact.members}) - len(missing)
        if lacking:
            copied.lacking[digest] = lacking
    if dry_run:
        objects = {member.md5: member.size for _, missing, _ in plan for member in missing}
        copied.objects, copied.sent = len(objects), sum(objects.values())
        return copied
    with measured(f"copying to {target}", size) as meter:
        for artifact, missing, lacking in plan:
            _send(source, target, artifact, missing, bool(lacking), meter, copied, before)
            copied.records += _copy_records(source, target, artifact.digest)
    if everything:
        copied.records += _copy_under(source, target, "runs") + _copy_pointers(source, target)
    return copied


def _missing(source: Store, target: Store, artifact: Artifact) -> tuple[list[Member], list[str]]:
    """The files that the target lacks, each address once, and the paths of those that the source lacks too."""
    contents = Contents(target.url)
    distinct = list({member.md5: member for member in artifact.members}.values())

    def look(member: Member) -> tuple[bool, bool]:
        there = contents.entry(key_of(member.md5))
        if there is not None and there.size == member.size:
            return True, True
        return False, source.locate(member) is not None

    missing, lacking = [], []
    for member, (there, held) in zip(distinct, in_parallel(look, distinct), strict=True):
        if not there and held:
            missing.append(member)
        elif not there:
            lacking.append(member.path)
    return missing, lacking


def _send(
    source: Store,
    target: Store,
    artifact: Artifact,
    missing: Sequence[Member],
    lacks: bool,
    meter: Meter,
    copied: Copied,
    before: bytes | None,
) -> None:
    """Send an artifact, its pin last; again, if a collection may have removed what was there."""
    _send_objects(source, target, artifact, missing, lacks, meter, copied)
    target.write_pin(artifact)
    if collecting.wait_until_over(target, before):
        _send_objects(source, target, artifact, _missing(source, target, artifact)[0], lacks, meter, copied)


def _send_objects(
    source: Store,
    target: Store,
    artifact: Artifact,
    missing: Sequence[Member],
    lacks: bool,
    meter: Meter,
    copied: Copied,
) -> None:
    """Send files and, when all are there, the listing of the directory; on the disk when this returns."""
    with receiving(target.url, meter) as receive:

        def send(member: Member) -> None:
            place = f"{source}/{key_of(member.md5)}"
            try:
                sound = receive(member, lambda: _opened(source, member))
            except AbsentError:
                raise StoreError(f"{place}: {member.path} went while it was copied: run again") from None
            if not sound:
                raise StoreError(
                    f"{place}: holds other bytes than {member.path} of {artifact.digest}: nothing was left at its "
                    "address: `cairn store verify --repair` mends the source"
                )

        sizes = [member.size for member in missing]
        side_by_side(send, missing, sizes)
    copied.objects += len(sizes)
    copied.sent += sum(sizes)
    if artifact.is_directory and not lacks:
        _write(target, key_of(top_address(artifact)), listing(artifact))


def _opened(source: Store, member: Member) -> AbstractContextManager[Readable]:
    """One file, in the store or else in a mirror."""
    url = next((url for url in (source.url, *source.mirrors) if Store(url).locate(member)), source.url)
    return opened(url, member)


def _copy_records(source: Store, target: Store, digest: str) -> int:
    """Copy the attestations of an artifact with their signposts, and its signatures; how many were new."""
    copied = 0
    for identifier, envelope in made(source, digest):
        try:
            statement = statement_of(envelope)
            subjects = [str(one["digest"]["sha256"]) for one in statement["subject"]]
            key = str(statement["predicate"]["buildDefinition"]["internalParameters"]["stageKey"])
        except (AttestationError, KeyError, TypeError):
            subjects, key = [digest], ""  # whatever it says, an audit is to see it
        for subject in subjects:
            copied += _write(target, f"attestations/{subject}/{identifier}.json", envelope)
        signpost = f"stages/{key}/{identifier}.json"
        data = source.read(signpost) if key else None
        if data is not None:
            copied += _write(target, signpost, data)
    return copied + _copy_under(source, target, f"signatures/{digest}")


def _copy_under(source: Store, target: Store, folder: str) -> int:
    copied = 0
    for entry in sorted(Contents(source.url).walk(folder), key=lambda one: one.key):
        data = None if entry.is_leftover else source.read(entry.key)
        if data is not None:
            copied += _write(target, entry.key, data)
    return copied


def _copy_pointers(source: Store, target: Store) -> int:
    """Copy what models point to, with its history. A pointer moves by compare-and-swap, so none is overwritten."""
    copied = 0
    for entry in sorted(Contents(source.url).walk("models"), key=lambda one: one.key):
        data = None if entry.is_leftover else source.read(entry.key)
        if data is None:
            continue
        if target.create(entry.key, data):
            copied += 1
        elif target.read(entry.key) != data:
            raise StoreError(
                f"{target}/{entry.key}: points elsewhere than in {source}: publish the model there by hand"
            )
    return copied


def _write(target: Store, key: str, data: bytes) -> bool:
    if target.read(key) == data:
        return False
    target.write(key, data)
    return True
