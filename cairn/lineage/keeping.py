"""What lies in a project already: it goes to the store before it is replaced, and its pin is written anew when that is
gone or was changed."""

import sys
from collections.abc import Mapping
from pathlib import Path

from cairn.errors import StoreError
from cairn.lineage.artifact import digest_of, read_artifact
from cairn.lineage.attestation import Attestation
from cairn.lineage.pins import pin_of
from cairn.lineage.store import Store


def keep_what_is_replaced(stage: str, output: Path, digest: str, store: Store) -> None:
    """Put an attested artifact into the store before another takes its place: weeks of training may be in it.

    After `dvc repro` DVC's cache has it already. What nobody attested, such as an edited file, is not kept.
    """
    there = digest_of(output)
    if there is None or there == digest or store.pin(there) is None or store.has(there):
        return
    print(f"{stage}: what was at {output} goes to the store ({there[:12]})", file=sys.stderr, flush=True)
    store.put(output)


def mend_pins(attested: Attestation, outputs: Mapping[str, Path], store: Store) -> None:
    """Write the pins that are gone, or were changed: what is pinned is there, and nobody else would write them."""
    for name, path in outputs.items():
        if not is_pinned(attested, name, store):
            store.write_pin(read_artifact(path))


def is_pinned(attested: Attestation, name: str, store: Store) -> bool:
    """Whether the pin of an output is there, with the addresses that were attested."""
    try:
        artifact = store.pin(attested.outputs[name])
    except StoreError:  # a damaged one; a store that cannot be reached is told by what comes next
        return False
    return artifact is not None and attested.addresses.get(name) in (None, pin_of(artifact)["md5"])
