"""Signatures: only what a trusted key signed, exactly as it was signed, is believed."""

import base64
import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cairn.errors import AttestationError
from cairn.lineage.attestation import (
    BEGINNING,
    ENVIRONMENT,
    MAY_BE_NONE,
    Attestation,
    Code,
    made,
    made_under,
    maker,
    pae,
    publish,
    sign,
    verify,
)
from cairn.lineage.graph import dependencies
from cairn.lineage.signing import KeySigner, key_id, signer, trusted_keys
from cairn.lineage.statement import Resource, stage_key, statement
from cairn.lineage.store import Store


def example() -> dict[str, Any]:
    return statement(
        outputs=[Resource("documents", "d" * 64)],
        dependencies=[Resource("sources", "5" * 64, uri="s3://bucket/x", annotations={"licence": "PSF-2.0"})],
        parameters={"component": "ingest", "section": {"seed": 1}},
        internal={"stageKey": "k" * 64},
        run={"startedOn": "2026-01-01T00:00:00+00:00"},
        builder={"id": "urn:cairn:runner"},
    )


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAIRN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_signed_statement_comes_back_with_its_inputs_and_outputs() -> None:
    verified = verify(sign(example(), signer()), trusted_keys())
    assert verified.outputs == {"documents": "d" * 64}
    assert verified.inputs == {"sources": "5" * 64}


def test_what_training_began_with_is_followed_and_is_no_input() -> None:
    tokens, key = Resource("tokens", "5" * 64), {"torch": "2.13.0"}
    begun = Resource("init_from", "c" * 64, annotations={"kind": BEGINNING, "path": "models/base"})
    section = {"init_from": {"path": "models/base", "sha256": "c" * 64}}
    said = statement(
        outputs=[Resource("checkpoint", "d" * 64)],
        dependencies=[tokens, begun],
        parameters={"component": "pretrain", "version": "1", "section": section},
        internal={
            "stageKey": stage_key("pretrain", "1", {"tokens": "5" * 64}, section, key),
            "packages": key,
        },
        run={"startedOn": "2026-01-01T00:00:00+00:00"},
        builder={"id": "urn:cairn:runner"},
    )
    verified = verify(sign(said, signer()), trusted_keys())
    assert verified.inputs == {"tokens": "5" * 64}
    assert verified.beginnings == {"init_from": "c" * 64}
    assert verified.objects == ()
    assert verified.expected_key() == verified.stage_key
    assert [one.digest for one in dependencies(verified)] == ["5" * 64, "c" * 64]


def test_the_envelope_can_be_checked_without_cairn() -> None:
    envelope = json.loads(sign(example(), signer()))
    payload = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    signed = b"DSSEv1 " + str(len(kind)).encode() + b" " + kind + b" " + str(len(payload)).encode() + b" " + payload
    public = signer().public_key
    public.verify(base64.b64decode(envelope["signatures"][0]["sig"]), signed, ec.ECDSA(hashes.SHA256()))
    assert json.loads(payload)["predicateType"] == "https://slsa.dev/provenance/v1"


def test_every_changed_byte_of_the_payload_is_noticed() -> None:
    envelope = json.loads(sign(example(), signer()))
    payload = bytearray(base64.b64decode(envelope["payload"]))
    for position in range(0, len(payload), 7):
        payload[position] ^= 1
        envelope["payload"] = base64.b64encode(bytes(payload)).decode()
        with pytest.raises(AttestationError, match="was changed"):
            verify(json.dumps(envelope).encode(), trusted_keys())
        payload[position] ^= 1


def test_a_stranger_is_not_believed_until_their_key_is_trusted(own_home: Path) -> None:
    stranger = KeySigner(ec.generate_private_key(ec.SECP256R1()))
    envelope = sign(example(), stranger)
    with pytest.raises(AttestationError, match="no trusted key"):
        verify(envelope, trusted_keys())
    (own_home / "trusted").mkdir(parents=True, exist_ok=True)
    pem = stranger.public_key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (own_home / "trusted" / "stranger.pem").write_bytes(pem)
    assert verify(envelope, trusted_keys()).key_id == key_id(stranger.public_key)


def test_a_signature_under_a_borrowed_key_name_is_not_believed() -> None:
    forged = json.loads(sign(example(), KeySigner(ec.generate_private_key(ec.SECP256R1()))))
    forged["signatures"][0]["keyid"] = key_id(signer().public_key)
    with pytest.raises(AttestationError, match="was changed"):
        verify(json.dumps(forged).encode(), trusted_keys())


@pytest.mark.parametrize(
    "garbage", [b"", b"{}", b"[1]", b"[" * 100_000, b'{"payload": "%%%", "payloadType": "x", "signatures": []}']
)
def test_what_is_no_envelope_is_said_to_be_none(garbage: bytes) -> None:
    with pytest.raises(AttestationError, match="not a DSSE envelope"):
        verify(garbage, trusted_keys())


def test_an_attestation_is_found_by_stage_key_and_by_what_was_made(store: Store) -> None:
    envelope = sign(example(), signer())
    identifier = publish(store, envelope, ["d" * 64, "e" * 64], "k" * 64)
    assert list(made_under(store, "k" * 64)) == [(identifier, envelope)]
    assert list(made(store, "d" * 64)) == list(made(store, "e" * 64)) == [(identifier, envelope)]
    assert list(made(store, "f" * 64)) == []
    shutil.rmtree(Path(store.url, "attestations"))
    assert list(made_under(store, "k" * 64)) == []


def run_of(digest: str, finished: str) -> dict[str, object]:
    """The statement of a run of ingest."""
    return statement(
        outputs=[Resource("documents", digest)],
        dependencies=[
            Resource("sources", "5" * 64),
            Resource("cairn", "c" * 64, annotations={"kind": "code", "commit": "abc"}),
        ],
        parameters={"component": "ingest", "version": "0.1.0", "section": {"seed": 1}},
        internal={"stageKey": "k" * 64, "packages": {"orjson": "3"}, "facts": {"seconds": 7}},
        run={"finishedOn": finished},
        builder={"id": "urn:cairn:runner"},
    )


def test_the_newest_trusted_run_is_what_made_an_artifact(store: Store, own_home: Path) -> None:
    wanted = "d" * 64
    assert maker(store, wanted) is None
    assert not own_home.exists(), "nothing was to be checked, so no key was made"
    key = signer()
    for finished in ("2026-01-02T00:00:00+00:00", "2026-01-03T00:00:00+00:00", "2026-01-01T00:00:00+00:00"):
        publish(store, sign(run_of(wanted, finished), key), [wanted], "k" * 64)
    stranger = KeySigner(ec.generate_private_key(ec.SECP256R1()))
    publish(store, sign(run_of(wanted, "2026-01-04T00:00:00+00:00"), stranger), [wanted], "k" * 64)
    # Put under the digest by somebody, although it is about another artifact.
    publish(store, sign(run_of("e" * 64, "2026-01-05T00:00:00+00:00"), key), [wanted], "k" * 64)
    found = maker(store, wanted)
    assert found is not None
    assert found.finished == "2026-01-03T00:00:00+00:00"
    assert (found.component, found.version, found.section) == ("ingest", "0.1.0", {"seed": 1})
    assert (found.stage_key, found.packages, found.facts) == ("k" * 64, {"orjson": "3"}, {"seconds": 7})
    assert (found.code.sha256, found.code.commit, found.code.dirty) == ("c" * 64, "abc", False)


def whole(**internal: Any) -> dict[str, Any]:
    """The statement of a training run that lacks nothing."""
    environment = {**dict.fromkeys(ENVIRONMENT, "said"), **dict.fromkeys(MAY_BE_NONE)}
    facts = {"seed": 0, "world_size": 2, "threads": 1, "mesh": {"data": 2}}
    packages, section, inputs = {"torch": "2"}, {"steps": 4}, {"tokens": "5" * 64}
    return statement(
        outputs=[Resource("checkpoint", "d" * 64), Resource("optimizer", "e" * 64)],
        dependencies=[
            *(Resource(name, digest) for name, digest in inputs.items()),
            Resource("cairn", "c" * 64, None, {"kind": "code", "commit": "abc", "dirty": "a" * 64}),
            Resource("cairn.patch", "a" * 64, None, {"kind": "difference"}),
            Resource("requirements.lock", "b" * 64, None, {"kind": "lock"}),
        ],
        parameters={"component": "pretrain", "version": "1.0.0", "section": section},
        internal={
            "stageKey": stage_key("pretrain", "1.0.0", inputs, section, packages),
            "packages": packages,
            "environment": environment,
            "facts": facts,
            "attempts": [{"invocation": "one"}],
            **internal,
        },
        run={"invocationId": "one", "startedOn": "2026-01-01T00:00:00Z", "finishedOn": "2026-01-02T00:00:00Z"},
        builder={"id": "urn:cairn:runner"},
    )


def verified(said: Any) -> Attestation:
    return verify(sign(said, signer()), trusted_keys())


def test_inputs_code_and_locks_are_kept_apart() -> None:
    found = verified(whole())
    assert found.inputs == {"tokens": "5" * 64}
    assert found.locks == {"requirements.lock": "b" * 64}
    assert found.code == Code("c" * 64, "abc", True, "a" * 64)
    assert found.objects == ()
    assert (found.invocation, found.started) == ("one", "2026-01-01T00:00:00Z")


def test_an_object_has_what_is_said_of_its_sources() -> None:
    said = whole(sources={"web": {"licence": "CC0-1.0", "licence_evidence": "https://a.example/licence"}})
    said["predicate"]["buildDefinition"]["resolvedDependencies"].append(
        Resource(None, "f" * 64, "s3://a/b", {"size": 3, "version": "7", "sources": ["web", "mail"]}).descriptor()
    )
    (found,) = verified(said).objects
    web = {"name": "web", "licence": "CC0-1.0", "licence_evidence": "https://a.example/licence"}
    assert (found.uri, found.sha256) == ("s3://a/b", "f" * 64)
    assert found.annotations == {"size": 3, "version": "7", "sources": [web, {"name": "mail"}]}
    assert verified(said).missing() == [
        f"objects[s3://a/b].{name}" for name in ("licence", "licence_evidence", "opt_out")
    ]
    assert verified(said).inputs == {"tokens": "5" * 64}


def test_an_edited_recipe_input_or_package_shows_as_another_stage_key() -> None:
    assert verified(whole()).expected_key() == verified(whole()).stage_key
    for edit in ("section", "input", "package", "version"):
        said = whole()
        definition = said["predicate"]["buildDefinition"]
        if edit == "section":
            definition["externalParameters"]["section"]["steps"] = 5
        elif edit == "input":
            definition["resolvedDependencies"][0]["digest"]["sha256"] = "6" * 64
        elif edit == "package":
            definition["internalParameters"]["packages"]["torch"] = "3"
        else:
            definition["externalParameters"]["version"] = "1.0.1"
        assert verified(said).expected_key() != verified(said).stage_key, edit


def test_what_a_statement_does_not_say_is_named() -> None:
    assert verified(whole()).missing() == []
    said = whole(facts={"seed": 0, "world_size": 2}, environment={"python": "3"}, attempts=[])
    said["predicate"]["runDetails"]["metadata"] = {}
    assert verified(said).missing() == [
        *(f"environment.{name}" for name in ENVIRONMENT if name != "python"),
        "facts.threads",
        "facts.mesh",
        "attempts",
        *(f"environment.{name}" for name in MAY_BE_NONE),
        "invocationId",
        "startedOn",
        "finishedOn",
    ]
    said = whole()
    _, code, patch, _ = said["predicate"]["buildDefinition"]["resolvedDependencies"]
    del code["annotations"]["commit"]
    patch["digest"]["sha256"] = "0" * 64
    assert verified(said).missing() == ["code.commit", "difference"]
    code["annotations"] = {"kind": "code", "commit": None, "dirty": None}  # as where there is no Git
    assert verified(said).missing() == []
    bare = example()
    bare["predicate"]["buildDefinition"]["externalParameters"]["component"] = "snapshot"
    assert {"version", "packages", "code", "objects"} <= set(verified(bare).missing())


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in a statement."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in inner:
        yield (*path, name)
        yield from places(value, (*path, name))


READ = [name for name in dir(Attestation) if not name.startswith("_") and name not in ("statement", "key_id")]


@pytest.mark.parametrize("garbage", [None, 7, "text", [], {}, [7], {"a": 7}])
def test_a_malformed_statement_is_refused_or_can_be_read_and_never_anything_else(garbage: Any) -> None:
    template = whole(sources={"web": {"licence": "CC0-1.0"}})
    template["predicate"]["buildDefinition"]["resolvedDependencies"].append(
        Resource(None, "f" * 64, "s3://a/b", {"size": 3, "path": "ff", "sources": ["web"]}).descriptor()
    )
    refused = []
    for path in [(), *places(template)]:
        said = copy.deepcopy(template)
        node: Any = said
        for part in path[:-1]:
            node = node[part]
        if path:
            node[path[-1]] = garbage
        else:
            said = garbage
        try:
            found = verified(said)
        except AttestationError as error:
            refused.append(str(error))
            continue
        for name in READ:
            value = getattr(found, name)
            if callable(value):
                value()
    assert len(refused) > 20
    assert all("its statement is malformed: " in told for told in refused)


@pytest.mark.parametrize("where", ["subject", "resolvedDependencies"])
def test_a_statement_that_names_one_thing_twice_is_refused(where: str) -> None:
    said = whole()
    listed = said["subject"] if where == "subject" else said["predicate"]["buildDefinition"][where]
    listed.append({**listed[0], "digest": {"sha256": "7" * 64}})
    with pytest.raises(AttestationError, match=f"{where}: names one thing twice"):
        verified(said)


def test_a_statement_that_is_no_json_is_refused() -> None:
    for payload in (b"", b"{", b"[" * 100_000, b"\xff", b"7"):
        envelope = json.loads(sign(example(), signer()))
        envelope["payload"] = base64.b64encode(payload).decode()
        envelope["signatures"][0]["sig"] = base64.b64encode(signer().sign(pae(payload))).decode()
        with pytest.raises(AttestationError, match="its statement is malformed: it"):
            verify(json.dumps(envelope).encode(), trusted_keys())


def test_a_signpost_that_leads_elsewhere_is_not_followed(store: Store) -> None:
    store.write("secret.json", b"{}")
    store.write("stages/key/secret.json", b'{"subject": ".."}')
    with pytest.raises(AttestationError, match=r"stages/key/secret\.json: cannot be read: remove it"):
        list(made_under(store, "key"))
