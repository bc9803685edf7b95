"""The form of what is signed: in-toto Statement v1 with the SLSA provenance v1 predicate.

    subject                          outputs: name, sha256; annotations.md5, the address in DVC's layout
    predicate.buildDefinition
      externalParameters             what a person chose: component, version, section of the recipe
      internalParameters             what followed: stageKey, packages, environment, facts, attempts, sources
      resolvedDependencies           inputs by name; source objects by uri; code, its difference from the commit and
                                     locks of requirements by name, with annotations.kind
    predicate.runDetails             builder; metadata: invocationId, startedOn, finishedOn

References: in-toto/attestation spec v1; slsa.dev/spec/v1.0/provenance.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cairn.errors import AttestationError
from cairn.lineage.store import identity

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:cairn:stage:v1"


@dataclass(frozen=True)
class Resource:
    """Something that went into a stage or came out of it (an in-toto ResourceDescriptor)."""

    name: str | None
    """None for a source object, which its URI names."""
    sha256: str
    uri: str | None = None
    annotations: Mapping[str, Any] | None = None

    def descriptor(self) -> dict[str, Any]:
        """The form it takes in a statement."""
        described: dict[str, Any] = {"digest": {"sha256": self.sha256}}
        if self.name is not None:
            described["name"] = self.name
        if self.uri is not None:
            described["uri"] = self.uri
        if self.annotations:
            described["annotations"] = dict(self.annotations)
        return described


def stage_key(
    component: str, version: str, inputs: Mapping[str, str], section: Any, packages: Mapping[str, str]
) -> str:
    """The stage key: sha256 over component, version, input digests, section and versions of bit-affecting packages.

    Args:
        inputs: digest by name; of a stage that has no input, sha256 of the objects that it looked at, by URI.
    """
    return identity(
        {
            "component": component,
            "version": version,
            "inputs": dict(inputs),
            "section": section,
            "packages": dict(packages),
        }
    )


def statement(
    *,
    outputs: Sequence[Resource],
    dependencies: Sequence[Resource],
    parameters: Mapping[str, Any],
    internal: Mapping[str, Any],
    run: Mapping[str, Any],
    builder: Mapping[str, Any],
) -> dict[str, Any]:
    """An in-toto Statement with SLSA provenance.

    Args:
        outputs: the subjects.
        dependencies: inputs, source objects, code and locks.
        parameters: what the person chose: stage, component and recipe section.
        internal: what followed: stage key, environment, facts of the run.
        run: invocation id and times.
        builder: who ran it.
    """
    return {
        "_type": STATEMENT_TYPE,
        "subject": [resource.descriptor() for resource in outputs],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": dict(parameters),
                "internalParameters": dict(internal),
                "resolvedDependencies": [resource.descriptor() for resource in dependencies],
            },
            "runDetails": {"builder": dict(builder), "metadata": dict(run)},
        },
    }


def timestamp(moment: datetime) -> str:
    """A moment in UTC as in-toto writes it: RFC 3339, to the second, ending in Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def check_form(said: Any) -> None:
    """Make sure that a statement has the form that its readers count on. What may be absent is not asked for.

    Raises AttestationError, naming the field.
    """
    top = _Fields(said, "")
    top.equal("_type", STATEMENT_TYPE)
    top.equal("predicateType", PREDICATE_TYPE)
    subjects = top.list("subject")
    if not subjects:
        raise AttestationError("its statement is malformed: subject: is empty")
    for index, subject in enumerate(subjects):
        _check_resource(_Fields(subject, f"subject[{index}]."), named=True)
    top.distinct("subject", subjects)
    predicate = top.fields("predicate")
    definition = predicate.fields("buildDefinition")
    definition.equal("buildType", BUILD_TYPE)
    external = definition.fields("externalParameters")
    external.of("component", str)
    external.of("version", str, required=False)
    internal = definition.fields("internalParameters")
    internal.of("stageKey", str)
    internal.texts("packages")
    for name in ("environment", "facts", "sources"):
        internal.fields(name, required=False)
    internal.dictionaries("attempts")
    sources = internal.fields("sources", required=False)
    for name in sources.said:
        sources.fields(name)
    dependencies = definition.list("resolvedDependencies")
    for index, dependency in enumerate(dependencies):
        _check_resource(_Fields(dependency, f"resolvedDependencies[{index}]."), named=False)
    definition.distinct("resolvedDependencies", dependencies)
    details = predicate.fields("runDetails")
    details.fields("builder", required=False).of("id", str, required=False)
    run = details.fields("metadata", required=False)
    for name in ("invocationId", "startedOn", "finishedOn"):
        run.of(name, str, required=False)


def _check_resource(fields: "_Fields", named: bool) -> None:
    fields.of("name", str, required=named or "uri" not in fields.said)
    fields.of("uri", str, required=False)
    digest = fields.fields("digest")
    if not re.fullmatch("[0-9a-f]{64}", digest.of("sha256", str)):
        digest.refuse("sha256", "is no sha256")
    noted = fields.fields("annotations", required=False)
    if fields.said.get("uri") is not None:
        names = noted.said.get("sources", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            noted.refuse("sources", "is no list of names")
    for name in ("commit", "dirty", "kind", "md5"):
        noted.of(name, str, required=False)


@dataclass(frozen=True)
class _Fields:
    """A JSON object that is being looked through, and where it stands in the statement."""

    said: Any
    where: str

    def __post_init__(self) -> None:
        if not isinstance(self.said, dict):
            raise AttestationError(f"its statement is malformed: {self.where.rstrip('.') or 'it'}: is no JSON object")

    def refuse(self, name: str, why: str) -> None:
        """Raise AttestationError about a field."""
        raise AttestationError(f"its statement is malformed: {self.where}{name}: {why}")

    def of(self, name: str, kind: type, required: bool = True) -> Any:
        """The value of a field; None when it is absent and may be. A null is as good as absent."""
        value = self.said.get(name)
        if value is None and not required:
            return None
        if not isinstance(value, kind):
            self.refuse(name, "is missing" if value is None else f"is {type(value).__name__}, not {kind.__name__}")
        return value

    def equal(self, name: str, value: str) -> None:
        if self.said.get(name) != value:
            self.refuse(name, f"is {self.said.get(name)!r}, not {value}")

    def list(self, name: str) -> Any:
        return self.of(name, list)

    def fields(self, name: str, required: bool = True) -> "_Fields":
        return _Fields(self.of(name, dict, required) or {}, f"{self.where}{name}.")

    def distinct(self, name: str, resources: Any) -> None:
        """Two resources of one name: who reads them by name would see but one."""
        names = [one["name"] for one in resources if one.get("name") is not None]
        if len(set(names)) < len(names):
            self.refuse(name, "names one thing twice")

    def texts(self, name: str) -> None:
        """An object whose values are all texts, or nothing."""
        said = self.fields(name, required=False)
        for key in said.said:
            said.of(key, str)

    def dictionaries(self, name: str) -> None:
        """A list of objects, or nothing."""
        for index, one in enumerate(self.of(name, list, required=False) or ()):
            _Fields(one, f"{self.where}{name}[{index}].")
