"""Copies of an artifact: where it could lie, what lies there, and the verdict on each.

A copy is a folder or file that somebody calls the artifact, or the objects of a store at the addresses that its pin
names. An address is an md5, which collides; what decides is the sha256.
"""

import os
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from cairn.audit.reading import Place, Reader, Seen, read_small
from cairn.audit.verdicts import Finding, Verdict
from cairn.lineage.artifact import Artifact, Member
from cairn.lineage.model_signature import NAME
from cairn.lineage.pins import address, directory_address, directory_listing
from cairn.lineage.store import Store

LISTING = "(listing)"
"""Stands for the `.dir` object of a directory, which says which objects are its files."""


@dataclass(frozen=True)
class Copy:
    """One copy: every file of the artifact, and where its bytes should be."""

    where: str
    """As a person would say it: a path, or the URL of a store."""
    places: Mapping[str, Place]
    """Path in the artifact to place."""
    extra: Mapping[str, Place] = field(default_factory=dict)
    """Files that lie there and are not of the artifact."""
    odd: tuple[str, ...] = ()
    """What lies there and has no place in any artifact: links, pipes."""
    is_folder: bool = False
    """A folder or file, not objects in a store."""
    may_be_another: bool = False
    """It is where the artifact would be, but nobody said that it is: another known artifact there is as good."""

    def digest(self, reader: Reader) -> str | None:
        """The digest of all that lies there; None where it was not read, or is no artifact."""
        there = {**self.places, **self.extra}
        seen = {path: reader.seen[place] for path, place in there.items() if reader.seen[place].size is not None}
        if self.odd or not seen or any(one.sha256 is None for one in seen.values()):
            return None
        ordered = sorted(seen, key=os.fsencode)
        members = tuple(Member(path, seen[path].sha256 or "", "", seen[path].size or 0) for path in ordered)
        return Artifact(members, is_directory=os.path.isdir(self.where)).digest


@dataclass
class Copies:
    """All copies of one artifact."""

    digest: str
    pin: Artifact | None
    """What it holds; None where no sound pin says so."""
    copies: list[Copy] = field(default_factory=list)

    def places(self) -> Iterable[Place]:
        """Everything that has to be looked at."""
        return (place for copy in self.copies for place in (*copy.places.values(), *copy.extra.values()))

    @cached_property
    def members(self) -> dict[str, Member]:
        """Path to file, with the listing of a directory among them."""
        if self.pin is None:
            return {}
        found = {member.path: member for member in self.pin.members}
        if self.pin.is_directory:
            listing = directory_listing(self.pin)
            found[LISTING] = Member(LISTING, sha256(listing).hexdigest(), directory_address(self.pin), len(listing))
        return found

    def findings(self, reader: Reader) -> list[Finding]:
        """What became of each copy, and whether the artifact is to be had at all."""
        said = [one for copy in self.copies if (one := self._judge(copy, reader)) is not None]
        lost = self._lost(reader)
        if lost and not any(one.verdict is Verdict.BYTES_MATCH for one in said):
            verb = "is" if len(lost) == 1 else "are"
            count = f"{len(lost):,} of {_counted(len(self.pin.members), 'file')} {verb}" if self.pin else "it is"
            # That one copy lacks a file says no more than that all do.
            said = [one for one in said if one.verdict is not Verdict.MISSING]
            said.append(Finding(Verdict.MISSING, f"{count} nowhere whole: not here, not in the store", tuple(lost)))
        return said

    def sound(self, path: str, reader: Reader) -> Place | None:
        """A place at which a file of the artifact was found to have the right bytes."""
        wanted = self.members.get(path)
        for copy in self.copies if wanted else ():
            place = copy.places.get(path)
            if wanted and place is not None and _fits(reader.seen[place], wanted):
                return place
        return None

    def read(self, path: str) -> bytes | None:
        """One small file of the artifact, from wherever its bytes are right; None when they are nowhere."""
        wanted = self.members.get(path)
        places = [copy.places[path] for copy in self.copies if path in copy.places]
        read = (read_small(place, wanted.sha256) for place in places) if wanted else ()
        return next((data for data in read if data is not None), None)

    def _judge(self, copy: Copy, reader: Reader) -> Finding | None:
        """The verdict on one copy; None where nothing claims to be one."""
        if self.pin is None:
            return self._judge_whole(copy, reader)
        members = self.members
        seen = {path: reader.seen[place] for path, place in copy.places.items()}
        faults = _faults(members, seen, copy)
        wrong = [fault for fault in faults if not fault.startswith("missing: ")]
        there = [path for path, one in seen.items() if one.size is not None]
        lacking: tuple[str, ...] = ()
        if not copy.is_folder:
            # Artifacts share objects. Only the listing, written last, or all of the files say that this one is here.
            claimed = set(there) >= members.keys() - {LISTING} or LISTING in there
            if not claimed and not wrong:
                return None
            if not claimed:
                faults = wrong
            elif self.pin.is_directory and faults == [f"missing: {LISTING} ({address(members[LISTING].md5)})"]:
                faults, lacking = [], ("its listing is missing: `dvc pull` cannot bring it",)
        if faults:
            of = f"{_counted(len(faults), 'fault')} in {_counted(len(self.pin.members), 'file')}"
            verdict = Verdict.TAMPERED if wrong or copy.is_folder else Verdict.MISSING
            return Finding(verdict, f"{copy.where}: {of}", tuple(faults))
        what = f"{copy.where}: {_counted(len(self.pin.members), 'file')}, {self.pin.size:,} bytes"
        if any(seen[member.path].sha256 is None for member in self.pin.members):
            return Finding(Verdict.ATTESTED, f"{what}: there, and not read", lacking)
        return Finding(Verdict.BYTES_MATCH, what, lacking)

    def _judge_whole(self, copy: Copy, reader: Reader) -> Finding | None:
        """The verdict where no pin says which file is which: only the digest of all of it can be compared."""
        if not copy.is_folder or not reader.read_bytes:
            return None
        found = copy.digest(reader)
        if found == self.digest:
            return Finding(Verdict.BYTES_MATCH, f"{copy.where}: {_counted(len(copy.places), 'file')}")
        said = f"{copy.where}: has another digest, and no pin says which files should be there"
        return Finding(Verdict.TAMPERED, said, (f"digest: {found}",))

    def _lost(self, reader: Reader) -> list[str]:
        """Files whose right bytes are nowhere."""
        if self.pin is None:
            return [self.digest]
        return [member.path for member in self.pin.members if self.sound(member.path, reader) is None]


def at_path(path: Path, pin: Artifact | None) -> Copy:
    """The copy in a folder or file. Without a pin, its files are taken as they are found, in canonical order."""
    if path.is_file() and not path.is_symlink():
        # A file has no name of its own: a lock file is the same under any.
        name = pin.members[0].path if pin is not None and not pin.is_directory else path.name
        wanted = {member.path for member in pin.members} if pin is not None else {name}
        absent = {one: Place(str(path / one)) for one in wanted - {name}}
        return Copy(str(path), {name: Place(str(path)), **absent}, is_folder=True)
    found, odd = files(path)
    wanted = {member.path for member in pin.members} if pin is not None else set(found)
    places = {one: Place(str(path / one)) for one in sorted(wanted | set(found), key=os.fsencode)}
    extra = {one: places.pop(one) for one in found if one not in wanted}
    return Copy(str(path), places, extra, tuple(odd), is_folder=True)


def in_store(store: Store, pin: Artifact) -> list[Copy]:
    """The copies in the store and each of its mirrors."""
    members = Copies("", pin).members
    return [
        Copy(root, {path: Place(posixpath.join(root, address(one.md5))) for path, one in members.items()})
        for root in (store.url, *store.mirrors)
    ]


def files(folder: Path) -> tuple[list[str], list[str]]:
    """The files of a folder, in canonical order, without a signature; and what has no place in an artifact."""
    found: list[str] = []
    odd: list[str] = []
    for directory, folders, names in os.walk(folder):
        for name in (*names, *(one for one in folders if os.path.islink(os.path.join(directory, one)))):
            path = os.path.join(directory, name)
            relative = os.path.relpath(path, folder).replace(os.sep, "/")
            plain = os.path.isfile(path) and not os.path.islink(path)
            (found if plain else odd).append(relative)
    return sorted((one for one in found if one != NAME), key=os.fsencode), sorted(odd)


def differences(wanted: Artifact, found: Artifact) -> list[str]:
    """Where what was found differs from what was wanted, a file in each line."""
    here = {member.path: member for member in found.members}
    seen = {one.path: Seen(here[one.path].size, here[one.path].sha256) for one in wanted.members if one.path in here}
    seen |= {one.path: Seen(None) for one in wanted.members if one.path not in here}
    extra = {path: Place(path) for path in here if path not in seen}
    wanted_files = {member.path: member for member in wanted.members}
    return _faults(wanted_files, seen, Copy("", {}, extra, is_folder=True))


def _faults(members: Mapping[str, Member], seen: Mapping[str, Seen], copy: Copy) -> list[str]:
    found = []
    for path, one in seen.items():
        member = members[path]
        named = path if copy.is_folder else f"{path} ({address(member.md5)})"
        if one.error:
            found.append(f"unreadable: {named}: {one.error}")
        elif one.size is None:
            if path != LISTING or not copy.is_folder:
                found.append(f"missing: {named}")
        elif one.size < member.size:
            found.append(f"cut short: {named}: {one.size:,} of {member.size:,} bytes")
        elif one.size > member.size:
            found.append(f"too long: {named}: {one.size:,} bytes, not {member.size:,}")
        elif not _fits(one, member):
            found.append(f"changed: {named}")
    return found + [f"extra: {one}" for one in (*copy.extra, *copy.odd)]


def _fits(seen: Seen, member: Member) -> bool:
    """Whether what was seen is the file: by its bytes where they were read, else as far as can be told."""
    return seen.size == member.size and seen.sha256 in (None, member.sha256)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
