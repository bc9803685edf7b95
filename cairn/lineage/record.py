"""The attestation of one run of a stage: all that is known of it, signed and published.

What an audit may want to look at besides, the store keeps as artifacts: the patch from the commit to the code that ran,
and the locks of requirements.
"""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cairn.lineage import attestation, environment, signing
from cairn.lineage.artifact import Artifact
from cairn.lineage.attempts import Launch
from cairn.lineage.attestation import CODE, DIFFERENCE, LOCK
from cairn.lineage.pins import pin_of
from cairn.lineage.statement import Resource, statement, timestamp
from cairn.lineage.store import Store
from cairn.recipe import Section
from cairn.resources import Resources

if TYPE_CHECKING:
    from cairn.lineage.stage import Component


def record(
    component: "Component",
    section: Section,
    key: str,
    *,
    dependencies: Sequence[Resource],
    outputs: Mapping[str, Artifact],
    facts: Mapping[str, Any],
    launch: Launch,
    store: Store,
    resources: Resources,
    sources: Mapping[str, Any] | None = None,
) -> str:
    """Sign and publish the attestation of one run of a stage; return its id.

    Args:
        dependencies: inputs, and source objects.
        sources: what is said of each source that the objects belong to, by its name.
    """
    code = environment.code()
    noted = {"kind": CODE, "commit": code["commit"], "dirty": code["dirty"]}
    surroundings = [Resource("cairn", code["sha256"], annotations=noted)]
    if changed := environment.difference():
        surroundings.append(Resource("cairn.patch", _kept(store, "cairn.patch", changed), None, {"kind": DIFFERENCE}))
    for name, data in environment.lock_files().items():
        surroundings.append(Resource(name, _kept(store, name, data), None, {"kind": LOCK}))
    internal: dict[str, Any] = {
        "stageKey": key,
        "packages": component.package_versions(),
        "environment": environment.fingerprint(resources),
        "facts": dict(facts),
        "attempts": list(launch.attempts),
    }
    if sources:
        internal["sources"] = dict(sources)
    said = statement(
        # DVC fetches by address. An address that nobody signed could lead it to other bytes.
        outputs=[Resource(name, one.digest, None, {"md5": pin_of(one)["md5"]}) for name, one in outputs.items()],
        dependencies=[*dependencies, *surroundings],
        parameters={
            "component": component.name,
            "version": component.version,
            "section": section.model_dump(mode="json"),
        },
        internal=internal,
        run={
            "invocationId": launch.invocation,
            "startedOn": timestamp(launch.began),
            "finishedOn": timestamp(datetime.now(UTC)),
        },
        builder={"id": "urn:cairn:runner", "version": {"cairn": environment.package_version("cairn")}},
    )
    envelope = attestation.sign(said, signing.signer())
    made = [artifact.digest for artifact in outputs.values()]
    identifier = attestation.publish(store, envelope, made, key)
    attestation.finish_publishing(store, made, signing.trusted_keys())
    return identifier


def _kept(store: Store, name: str, data: bytes) -> str:
    """The digest of a small file, once the store has it."""
    digest = hashlib.sha256(data).hexdigest()
    if not store.hold(digest):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            path.write_bytes(data)
            store.put(path)
    return digest
