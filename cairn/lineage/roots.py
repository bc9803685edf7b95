"""What a store must keep: the artifacts that runs and model pointers name, what is young, and all that led to them.

A root that cannot be read is an error and never an empty one: what is not known to be garbage is kept. An attestation
that nobody trusted signed keeps its inputs alive all the same; that costs bytes, and the reverse would cost proofs.
"""

import base64
import binascii
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from cairn.errors import AttestationError, StoreError
from cairn.lineage.artifact import Artifact, parsed
from cairn.lineage.attestation import made
from cairn.lineage.contents import Contents, Entry, in_parallel
from cairn.lineage.store import Store

_SHA256 = re.compile("[0-9a-f]{64}")
_NAMED = re.compile('"([0-9a-f]{64})"')
_POINTER = re.compile(r"models/(.+)/current/(\d+)")
LOCK = "sources.lock.json"
LARGEST_LOCK = 1 << 30  # bytes; three million objects


@dataclass(frozen=True)
class Root:
    """Something that must be kept."""

    name: str
    """The digest of an artifact, or the address that `dvc.lock` has for it."""
    kind: Literal["sha256", "md5"]
    why: str
    """Who names it."""
    by: Literal["runs", "models", "lock files", "young pins"]
    """What kind of thing that is."""


@dataclass(frozen=True)
class Pinned:
    """A pin as it lies in a store."""

    digest: str
    """What it is named after."""
    key: str
    artifact: Artifact | None
    """None when it does not describe an artifact of this digest."""
    fault: str
    """What is wrong with it; empty when nothing is."""
    modified: float
    """When it was last written: seconds since 1970, by the store's clock."""


def pins(store: Store, digests: Collection[str] = ()) -> Iterator[Pinned]:
    """Every pin of a store, or those of some artifacts, sound or not."""
    contents = Contents(store.url)

    def read(entry: Entry) -> Pinned | None:
        name = entry.key.removeprefix("pins/")
        digest = name.removesuffix(".json")
        if not _SHA256.fullmatch(digest) or name == digest:
            return Pinned(digest, entry.key, None, f"{store}/{entry.key}: is not named by a digest", entry.modified)
        try:
            artifact = store.pin(digest)
        except StoreError as error:
            return Pinned(digest, entry.key, None, str(error), entry.modified)
        return Pinned(digest, entry.key, artifact, "", entry.modified) if artifact else None  # gone since it was listed

    asked = filter(None, in_parallel(lambda digest: contents.entry(f"pins/{digest}.json"), sorted(digests)))
    entries = asked if digests else (entry for entry in contents.walk("pins") if not entry.is_leftover)
    yield from filter(None, in_parallel(read, entries))


def run_records(store: Store) -> dict[str, dict[str, Any]]:
    """Every record of what a run did, by its key; empty where it is no record."""
    found = {}
    for entry in sorted(Contents(store.url).walk("runs"), key=lambda one: one.key):
        if not entry.is_leftover:
            said = parsed(store.read(entry.key) or b"")
            found[entry.key] = said if isinstance(said, dict) else {}
    return found


def pointers(store: Store) -> dict[str, tuple[int, Any]]:
    """Every `current` of a model: its version and its value, None where that is not what was written."""
    newest: dict[str, int] = {}
    for entry in Contents(store.url).walk("models"):
        if found := _POINTER.fullmatch(entry.key):
            newest[found[1]] = max(int(found[2]), newest.get(found[1], 0))
    read = {}
    for name, version in sorted(newest.items()):
        try:
            read[name] = store.pointer(f"models/{name}/current")
        except StoreError:
            read[name] = version, None
    return read


def store_roots(store: Store) -> Iterator[Root]:
    """What the runs and the model pointers of a store name. Raises StoreError when one of them cannot be read."""
    for key, record in run_records(store).items():
        if not record:
            raise StoreError(f"{store}/{key}: cannot be read, and it may name what is needed: mend or remove it")
        run = key.split("/")[1].removesuffix(".json")
        named = digests_in({part: said for part, said in record.items() if part != "key"})  # a stage key is no artifact
        yield from (Root(digest, "sha256", f"run {run}", "runs") for digest in sorted(named))
    for name, (version, value) in pointers(store).items():
        named = digests_in(value)
        if not named:
            store.pointer(f"models/{name}/current")  # says what is wrong, if it cannot be read
            key = f"models/{name}/current/{version:08d}"
            raise StoreError(f"{store}/{key}: names no artifact: mend or remove it")
        yield from (Root(digest, "sha256", f"model {name}", "models") for digest in sorted(named))


def lead_to(store: Store, wanted: Iterable[str], held: Collection[str]) -> dict[str, str]:
    """Everything that led to the artifacts `wanted`, along attestations: digest to the artifact that needs it.

    Args:
        held: the digests that count; a statement names many things that are no artifacts.

    Raises StoreError when an attestation on the way cannot be read.
    """
    found: dict[str, str] = {}
    done = set(wanted)
    level = sorted(done)
    while level:
        following = []
        for digest, named in zip(level, in_parallel(lambda one: _made_from(store, one, held), level), strict=True):
            for one in sorted(named - done):
                done.add(one)
                found[one] = digest
                following.append(one)
        level = following
    return found


def made_beside(store: Store, digests: Iterable[str], held: Collection[str]) -> set[str]:
    """What the stages that made these artifacts made besides, as far as it is among `held`: what a training kept of its
    states, say, without which nobody can do some of its steps again.

    Raises StoreError when an attestation cannot be read.
    """
    wanted = sorted(set(digests))
    found = set[str]()
    for digest, envelopes in zip(wanted, in_parallel(lambda one: list(made(store, one)), wanted), strict=True):
        for identifier, envelope in envelopes:
            try:
                found |= digests_in(statement_of(envelope)["subject"])
            except AttestationError as error:
                where = f"{store}/attestations/{digest}/{identifier}.json"
                raise StoreError(f"{where}: {error}, and it may name what is needed: move it away") from None
    return (found & set(held)) - set(wanted)


def statement_of(envelope: bytes) -> Mapping[str, Any]:
    """What an attestation says, whoever signed it. Raises AttestationError when it says nothing."""
    try:
        said = json.loads(base64.b64decode(json.loads(envelope)["payload"], validate=True))
        if not isinstance(said["subject"], list) or not isinstance(said["predicate"], dict):
            raise ValueError
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
        raise AttestationError("holds no in-toto statement") from None
    return said  # type: ignore[no-any-return]


def digests_in(value: Any) -> set[str]:
    """Every sha256 that stands anywhere in a JSON value."""
    return set(_NAMED.findall(json.dumps(value)))


def _made_from(store: Store, digest: str, held: Collection[str]) -> set[str]:
    named: set[str] = set()
    for identifier, envelope in made(store, digest):
        try:
            # The subjects are left out: what was made beside an artifact did not lead to it.
            named |= digests_in(statement_of(envelope)["predicate"])
        except AttestationError as error:
            where = f"{store}/attestations/{digest}/{identifier}.json"
            raise StoreError(f"{where}: {error}, and it may name what is needed: move it away") from None
    named |= _tree_of(store, digest) if digest in held else set()
    return {one for one in named if one in held and one != digest}


def trees_in(store: Store) -> frozenset[str]:
    """The trees of copied objects that pinned lock files of sources name, as far as these can be read."""
    found = set[str]()
    for one in pins(store):
        with suppress(StoreError):  # a damaged lock file, which whoever reads it is told of
            found |= _tree_in(store, one.artifact)
    return frozenset(found)


def _tree_of(store: Store, digest: str) -> set[str]:
    """The tree of copied objects, if the artifact is a lock file of sources."""
    return _tree_in(store, store.pin(digest))


def _tree_in(store: Store, artifact: Artifact | None) -> set[str]:
    # Its name is no sign: no digest covers what the one file of an artifact is called.
    if artifact is None or artifact.is_directory or artifact.size > LARGEST_LOCK:
        return set()
    if store.locate(artifact.members[0]) is None:
        return set()
    try:
        return {tree_in(store.read_member(artifact.digest, ""))} - {""}
    except ValueError:
        return set()  # another file


def tree_in(data: bytes) -> str:
    """The digest of the tree of copied objects that a lock file of sources names; empty when it names none.

    Raises ValueError when the bytes are no such file.
    """
    try:
        tree = parsed(data)["tree"]
    except (KeyError, TypeError):
        raise ValueError("is not a lock file of sources") from None
    if tree is not None and not (isinstance(tree, str) and _SHA256.fullmatch(tree)):
        raise ValueError("names a tree that is no digest")
    return tree or ""
