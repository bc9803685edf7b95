"""Copies of artifacts from one store to another, with all that is needed to believe them.

Bytes go first, the `.dir` object after its files, the pin after the bytes, and attestations after the pin: whatever can
be found in the target is whole, however early a copy is cut short, and the next one goes on. Every file is hashed on
its way, and one that is not what its pin says never comes to lie at its address. What is there is not sent again. After
a `cairn run` bytes lie in the project's folders alone: what a store lacks is taken from there, if its digest fits.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from cairn.errors import ArtifactError, AttestationError, StoreError
from cairn.lineage import collecting
from cairn.lineage.artifact import Artifact, Member, read_artifact
from cairn.lineage.attestation import made
from cairn.lineage.contents import Contents, in_parallel, top_address
from cairn.lineage.fetching import AbsentError, opened
from cairn.lineage.hashing import Meter, Readable
from cairn.lineage.pins import address as key_of
from cairn.lineage.pins import directory_listing as listing
from cairn.lineage.roots import lead_to, made_beside, pins, statement_of
from cairn.lineage.sending import receiving
from cairn.lineage.store import Store
from cairn.lineage.transfers import measured, side_by_side
from cairn.progress import progress


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
    absent: int = 0
    """Objects that are nowhere to be had."""
    records: int = 0
    """Attestations, signposts, signatures and run records."""
    lacking: dict[str, list[str]] = field(default_factory=dict)
    """Digest to the files that neither the source nor the project has. Of such an artifact only pin and attestations
    are copied."""


def chosen(source: Store, digests: Sequence[str], ancestors: bool, everything: bool) -> list[str]:
    """The artifacts to copy.

    Args:
        ancestors: all that an audit of `digests` walks back to, too, and what was made beside it: kept states of a
            training, from which it is done again.
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
    if not ancestors:
        return wanted
    walked = [*wanted, *sorted(lead_to(source, wanted, held.keys()))]
    return [*walked, *sorted(made_beside(source, walked, held.keys()))]


@dataclass
class _Origin:
    """Where bytes come from: a store, its mirrors, and the artifacts that lie in a project."""

    store: Store
    workspace: Sequence[Path]
    found: dict[str, Path] | None = None
    """Digest to where it lies in the project; None: not looked at yet. That reads every file, so not before need."""

    def place(self, digest: str) -> Path | None:
        """Where an artifact lies in the project."""
        if self.found is None:
            self.found = {}
            with progress("reading artifacts", len(self.workspace), "artifacts") as shown:
                for path in self.workspace:
                    with suppress(ArtifactError):  # holds a link, or is no artifact: not the one that is looked for
                        self.found[read_artifact(path, address=False).digest] = path
                    shown.advance()
        return self.found.get(digest)

    def opened(self, artifact: Artifact, member: Member) -> AbstractContextManager[Readable]:
        """One file: in the store, in a mirror or else in the project."""
        urls = (self.store.url, *self.store.mirrors)
        url = next((url for url in urls if Store(url).locate(member)), None)
        place = self.place(artifact.digest) if url is None else None
        if place is not None:
            return FileIO(place / member.path if artifact.is_directory else place)
        return opened(url or self.store.url, member)


def copy(
    source: Store,
    target: Store,
    digests: Sequence[str],
    everything: bool = False,
    dry_run: bool = False,
    workspace: Sequence[Path] = (),
) -> Copied:
    """Copy artifacts, and what is said of them.

    Args:
        digests: as `chosen` gave them.
        everything: run records and model pointers too.
        dry_run: only say what would be sent.
        workspace: the artifacts of a project, from which what the source lacks is taken.

    Raises StoreError when a store cannot be reached, when bytes are not what their pin says, or when the target holds
    another value of a pointer.
    """
    copied, before, origin = Copied(list(digests)), collecting.last(target), _Origin(source, workspace)
    plan: list[tuple[Artifact, list[Member]]] = []
    planned = set[str]()
    size = 0
    for digest in digests:
        artifact = source.pin(digest)
        if artifact is None:
            raise StoreError(f"{source}: holds no pin for {digest}")
        missing, lacking, there = _missing(origin, target, artifact)
        copied.there += there
        if lacking:
            copied.lacking[digest] = lacking
            copied.absent += len(lacking)
        new = [] if lacking else [member for member in missing if member.md5 not in planned]
        planned |= {member.md5 for member in new}
        size += sum(member.size for member in new)
        plan.append((artifact, new))
    if dry_run:
        copied.objects, copied.sent = len(planned), size
        return copied
    with measured(f"copying to {target}", size) as meter:
        for artifact, missing in plan:
            _send(origin, target, artifact, missing, meter, copied, before)
            copied.records += _copy_records(source, target, artifact.digest)
    if everything:
        copied.records += _copy_under(source, target, "runs") + _copy_pointers(source, target)
    return copied


def _missing(origin: _Origin, target: Store, artifact: Artifact) -> tuple[list[Member], list[str], int]:
    """The files that the target lacks, each address once; the paths of those that nobody has; how many are there."""
    contents = Contents(target.url)
    distinct = list({member.md5: member for member in artifact.members}.values())

    def look(member: Member) -> tuple[bool, bool]:
        there = contents.entry(key_of(member.md5))
        if there is not None and there.size == member.size:
            return True, True
        return False, origin.store.locate(member) is not None

    missing, lacking = list[Member](), list[Member]()
    for member, (there, held) in zip(distinct, in_parallel(look, distinct), strict=True):
        if not there:
            (missing if held else lacking).append(member)
    present = len(distinct) - len(missing) - len(lacking)
    if lacking and origin.place(artifact.digest) is not None:
        missing, lacking = [*missing, *lacking], []
    return missing, [member.path for member in lacking], present


def _send(
    origin: _Origin,
    target: Store,
    artifact: Artifact,
    missing: Sequence[Member],
    meter: Meter,
    copied: Copied,
    before: bytes | None,
) -> None:
    """Send an artifact, its pin last; again, if a collection may have removed what was there."""
    if artifact.digest in copied.lacking:
        target.write_pin(artifact)
        return
    _send_objects(origin, target, artifact, missing, meter, copied)
    target.write_pin(artifact)
    if collecting.wait_until_over(target, before):
        _send_objects(origin, target, artifact, _missing(origin, target, artifact)[0], meter, copied)


def _send_objects(
    origin: _Origin,
    target: Store,
    artifact: Artifact,
    missing: Sequence[Member],
    meter: Meter,
    copied: Copied,
) -> None:
    """Send files and then the listing of the directory; on the disk when this returns."""
    with receiving(target.url, meter) as receive:

        def send(member: Member) -> None:
            place = f"{origin.store}/{key_of(member.md5)}"
            try:
                sound = receive(member, lambda: origin.opened(artifact, member))
            except (AbsentError, FileNotFoundError):
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
    if artifact.is_directory:
        _write(target, key_of(top_address(artifact)), listing(artifact))


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
