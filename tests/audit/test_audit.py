"""`cairn audit`: a sound model is found sound, and every attack is found, named, and told apart from the others."""

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cairn.audit.text import lines
from cairn.audit.verdicts import Verdict
from cairn.audit.walk import audit
from cairn.cli.main import enter
from cairn.errors import ArtifactError, StoreError
from cairn.lineage import signing
from cairn.lineage.artifact import read_artifact
from cairn.lineage.graph import scan
from cairn.lineage.model_signature import sign_model
from cairn.lineage.store import Store
from components.snapshot.lock import Lock
from pipelines.affected import _models
from pipelines.stages import place
from tests.audit.attacks import (
    attest,
    attest_instead,
    audited,
    digest,
    envelope_of,
    forget,
    key_in,
    names,
    statement_of,
    store_of,
    write,
    wrong,
)
from tests.pipelines.project import ARTIFACTS, Project

# Wang, Feng, Lai and Yu 2004 ("Collisions for hash functions MD4, MD5, HAVAL-128 and RIPEMD", eprint 2004/199): two
# messages of 128 bytes with one md5.
COLLIDING = (
    "d131dd02c5e6eec4693d9a0698aff95c2fcab5{0}712467eab4004583eb8fb7f8955ad340609f4b30283e4888325{1}1415a085125e8f7cdc99f"
    "d91dbd{2}280373c5bd8823e3156348f5bae6dacd436c919c6dd53e2{3}487da03fd02396306d248cda0e99f33420f577ee8ce54b67080{4}80d1e"
    "c69821bcb6a8839396f965{5}b6ff72a70"
)
FIRST = bytes.fromhex(COLLIDING.format("8", "7", "f", "b", "a", "2"))
SECOND = bytes.fromhex(COLLIDING.format("0", "f", "7", "3", "2", "a"))


def test_a_model_that_was_made_as_attested_has_nothing_wrong(built: Project) -> None:
    found = audited(built)
    assert wrong(found) == []
    kinds = {node.kind for node in found.nodes.values()}
    assert {"artifact", "stage", "object", "code", "lock", "signature"} <= kinds
    stages = {node.name.split()[0] for node in found.nodes.values() if node.kind == "stage"}
    assert stages == {"snapshot", "ingest", "tokenize", "pretrain", "export"}


def test_every_node_and_edge_has_a_verdict_of_its_own(built: Project) -> None:
    found = audited(built, "artifacts/report")
    assert all(node.findings for node in found.nodes.values())
    assert all(edge.findings for edge in found.edges)
    assert sum(node.kind == "object" for node in found.nodes.values()) == 120


def test_an_auditor_has_the_model_the_store_and_the_public_key_and_nothing_else(
    copy: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ARTIFACTS:
        Store(store_of(copy).url).put(copy.root / place(name))
    shutil.copytree(copy.root / "artifacts/model", tmp_path / "auditor/model")
    shutil.copy(signing.home() / "signing-key.pub.pem", tmp_path / "auditor/public.pem")
    store = shutil.copytree(copy.root / ".cairn/store", tmp_path / "store")
    shutil.rmtree(copy.root)
    monkeypatch.setenv("CAIRN_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "auditor")
    assert enter(["audit", "model", "--store", str(store), "--key", "public.pem"]) == 0
    printed = capsys.readouterr().out
    assert "Nothing is wrong" in printed
    assert "BYTES-MATCH ×120" in printed
    assert "cannot know" in printed
    assert not (tmp_path / "home").exists()
    assert sorted(os.listdir()) == ["model", "public.pem"]


def test_a_digest_is_enough_and_so_are_its_first_digits(built: Project) -> None:
    found = audit(digest(built, "model")[:8], store=store_of(built), keys=signing.trusted_keys())
    assert found.nodes[found.target].name == "model"
    assert wrong(found) == []
    capitals = audit(digest(built, "model")[:8].upper(), store=store_of(built), keys=signing.trusted_keys())
    assert capitals.target == found.target


def test_what_cannot_be_named_is_one_line(built: Project) -> None:
    keys = signing.trusted_keys()
    with pytest.raises(ArtifactError, match="nosuch: no such file"):
        audit("nosuch", store=store_of(built), keys=keys)
    with pytest.raises(ArtifactError, match=r"no artifact of the store .* begins so"):
        audit("0" * 12, store=store_of(built), keys=keys)
    with pytest.raises(StoreError, match="no such folder"):
        audit(str(built.root / "artifacts/model"), store=Store("/nowhere/at/all"), keys=keys)


def test_without_bytes_nothing_is_said_to_match(built: Project) -> None:
    found = audited(built, read_bytes=False)
    assert wrong(found) == []
    read = [holder for holder, one in found.findings() if one.verdict is Verdict.BYTES_MATCH]
    # What was named has to be read to know what it is; the code is that which runs.
    assert {getattr(holder, "name", "") for holder in read} <= {"model", "cairn"}
    assert any("not read (--no-bytes)" in limit for limit in found.limits)


def test_without_bytes_a_file_that_is_too_long_is_found_all_the_same(copy: Project) -> None:
    with open(copy.root / "artifacts/tokens/tokens.json", "a") as file:
        file.write("\n")
    assert names(audited(copy, read_bytes=False), "TAMPERED", "artifacts/tokens", "too long: tokens.json")


# Bytes


def test_a_changed_file_is_named_where_it_lies(copy: Project) -> None:
    path = copy.root / "artifacts/tokens/train/00000.bin"
    data = path.read_bytes()
    write(path, bytes([data[0] ^ 1]) + data[1:])
    assert wrong(audited(copy)) == [
        f"TAMPERED | artifact:{digest_in_store(copy, 'tokens')} tokens | "
        f"{copy.root}/artifacts/tokens: 1 fault in 9 files | changed: train/00000.bin"
    ]


@pytest.mark.parametrize(
    ("attack", "fault"),
    [
        (lambda model: write(model / "model.safetensors", b"short"), "cut short: model.safetensors"),
        (lambda model: (model / "evil.py").write_text("import os"), "extra: evil.py"),
        (lambda model: (model / "README.md").unlink(), "missing: README.md"),
        (lambda model: swap(model / "config.json", model / "generation_config.json"), "config.json"),
        (lambda model: (model / "link").symlink_to("/etc/passwd"), "extra: link"),
    ],
    ids=["truncated", "extra", "missing", "swapped", "link"],
)
def test_a_truncated_extra_missing_or_swapped_file_is_named(
    copy: Project, attack: Callable[[Path], object], fault: str
) -> None:
    attack(copy.root / "artifacts/model")
    found = audited(copy, "artifacts/report")
    assert names(found, "TAMPERED", "artifacts/model", fault)
    if "link" not in fault:
        named = audited(copy)
        assert names(named, "TAMPERED", "artifacts/model", fault)
        assert names(named, "TAMPERED", "no attestation knows what lies there", "nearest")


def test_a_model_that_is_like_no_other_has_no_maker(copy: Project, tmp_path: Path) -> None:
    (tmp_path / "stranger").mkdir()
    (tmp_path / "stranger/weights.bin").write_bytes(b"of somebody else")
    found = audit(str(tmp_path / "stranger"), store=store_of(copy), keys=signing.trusted_keys())
    assert len(wrong(found)) == 1
    assert names(found, "MISSING", "no attestation says what made it; the store has others")
    assert found.holds == found.nodes[found.target].digest


def test_an_object_with_the_md5_that_its_address_asks_for_is_told_by_its_sha256(copy: Project, tmp_path: Path) -> None:
    assert hashlib.md5(FIRST).digest() == hashlib.md5(SECOND).digest()
    assert hashlib.sha256(FIRST).digest() != hashlib.sha256(SECOND).digest()
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.safetensors").write_bytes(FIRST)
    store = Store(store_of(copy).url)
    artifact = store.put(tmp_path / "model")
    said = statement_of(copy, "model")
    said["subject"] = [{"name": "model", "digest": {"sha256": artifact.digest}}]
    attest(copy, said)
    address = hashlib.md5(FIRST).hexdigest()
    path = Path(store.url, "files/md5", address[:2], address[2:])
    assert path.read_bytes() == FIRST
    path.write_bytes(SECOND)
    found = audit(artifact.digest, store=store, keys=signing.trusted_keys())
    assert names(found, "TAMPERED", "changed: model.safetensors", f"files/md5/{address[:2]}/{address[2:]}")
    assert names(found, "MISSING", "nowhere whole", "model.safetensors")


def test_an_artifact_that_is_nowhere_is_missing(copy: Project) -> None:
    shutil.rmtree(copy.root / "artifacts/documents")
    shutil.rmtree(copy.root / ".dvc/cache")
    found = audited(copy)
    assert names(found, "MISSING", "documents", "nowhere whole", "ledger.json")


def test_a_source_that_is_gone_is_named_by_its_uri(copy: Project) -> None:
    lock = json.loads((copy.root / "sources.lock.json").read_bytes())
    (one,) = (found for found in lock["sources"][0]["objects"] if found["uri"] == "text/0007.txt")
    pin = json.loads((copy.root / f".cairn/store/pins/{lock['tree']}.json").read_bytes())
    (md5,) = (member["md5"] for member in pin["members"] if member["path"] == one["path"])
    (copy.root / ".cairn/store/files/md5" / md5[:2] / md5[2:]).unlink()
    found = audited(copy)
    assert names(found, "MISSING", "text/0007.txt", "nowhere in the tree")
    assert names(found, "MISSING", "objects", "1 of 120 files is nowhere whole")
    assert len(wrong(found)) == 2


def test_sources_whose_lock_is_gone_from_the_store_are_looked_for_all_the_same(copy: Project) -> None:
    md5 = hashlib.md5((copy.root / "sources.lock.json").read_bytes()).hexdigest()
    (copy.root / ".cairn/store/files/md5" / md5[:2] / md5[2:]).unlink()
    # From a report, ingest is come to before snapshot, which alone is attested with the tree of the objects.
    assert wrong(audited(copy, "artifacts/report")) == []


def test_another_artifact_in_the_project_is_no_fault_when_it_is_attested_too(copy: Project, tmp_path: Path) -> None:
    other = tmp_path / "tokens"
    shutil.copytree(copy.root / "artifacts/tokens", other)
    (other / "tokens.json").write_text("{}")
    artifact = store_of(copy).put(other)
    said = statement_of(copy, "tokens")
    said["subject"] = [{"name": "tokens", "digest": {"sha256": artifact.digest}}]
    said["predicate"]["buildDefinition"]["externalParameters"]["section"]["vocab_size"] = 401
    said["predicate"]["buildDefinition"]["internalParameters"]["stageKey"] = "0" * 64
    attest(copy, said)
    model = digest(copy, "model")
    shutil.rmtree(copy.root / "artifacts/tokens")
    shutil.copytree(other, copy.root / "artifacts/tokens")
    assert wrong(audited(copy)) == []
    assert model == digest(copy, "model")


# Attestations


def test_another_key_is_not_believed_and_the_walk_ends_there(copy: Project, tmp_path: Path) -> None:
    stranger, _ = key_in(tmp_path / "stranger")
    attest_instead(copy, "tokens", lambda said: None, stranger)
    found = audited(copy)
    assert names(found, "UNSIGNED", "no trusted key signed it", f"signed by: {signing.key_id(stranger.public_key)}")
    assert names(found, "MISSING", "tokens", "no attestation that is trusted says what made it")
    assert "documents" not in {node.name for node in found.nodes.values()}


def test_a_second_signer_who_is_not_trusted_does_no_harm_beside_one_who_is(copy: Project, tmp_path: Path) -> None:
    stranger, _ = key_in(tmp_path / "stranger")
    for artifact in ("tokens", "model"):
        attest(copy, statement_of(copy, artifact), stranger)
    model = copy.root / "artifacts/model"
    key = signing.key_id(stranger.public_key)
    signature = sign_model(read_artifact(model), "model", stranger)
    store_of(copy).write(f"signatures/{digest(copy, 'model')}/{key}.json", signature)
    found = audited(copy)
    assert wrong(found) == []
    (limit,) = (limit for limit in found.limits if key[:12] in limit)
    # Tokens and tokenizer are of one attestation, and it lies under both.
    assert "4 records of other signers" in limit
    assert "was not believed" in limit
    assert names(audited(copy, keys={}), "UNSIGNED", "no trusted key signed it", key)


def test_what_is_not_believed_is_one_finding_on_the_record_in_its_place(copy: Project) -> None:
    path = envelope_of(copy, "documents")
    place_of = copy.root / ".cairn/store/attestations" / digest(copy, "checkpoint")
    shutil.copy(path, place_of)
    found = audited(copy)
    (line,) = wrong(found)
    assert line.startswith(f"TAMPERED | record:attestations/{place_of.name}/{path.name} attestation | ")
    ingest = next(node for node in found.nodes.values() if node.name.startswith("ingest "))
    assert {one.verdict for one in ingest.findings} == {Verdict.ATTESTED}


@pytest.mark.parametrize(
    ("fact", "value"),
    [("world_size", 64), ("tokens_seen", 1), ("step", 1), ("seed", 7), ("threads", 99), ("parameters", 5)],
)
def test_training_that_contradicts_its_own_recipe_is_in_conflict(copy: Project, fact: str, value: int) -> None:
    def boasting(said: dict[str, Any]) -> None:
        said["predicate"]["buildDefinition"]["internalParameters"]["facts"][fact] = value

    attest_instead(copy, "checkpoint", boasting)
    assert names(audited(copy), "CONFLICT", "pretrain", f"contradicts itself: facts.{fact}", f"facts.{fact}: {value}")


def test_only_the_keys_that_are_named_are_trusted(
    copy: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, public = key_in(tmp_path / "stranger")
    monkeypatch.chdir(copy.root)
    monkeypatch.delenv("CAIRN_STORE", raising=False)
    assert enter(["audit"]) == 0
    assert enter(["audit", "--key", str(public)]) == 1
    assert "UNSIGNED" in capsys.readouterr().out


def test_an_edited_attestation_is_told_from_one_by_another_key(copy: Project) -> None:
    path = envelope_of(copy, "checkpoint")
    envelope = json.loads(path.read_bytes())
    other = json.loads(envelope_of(copy, "tokens").read_bytes())
    path.write_text(json.dumps({**envelope, "payload": other["payload"]}))
    found = audited(copy)
    assert names(found, "TAMPERED", path.name, "its signature does not fit its content")
    assert names(found, "TAMPERED", path.name, "not those that its name is the sha256 of")


def test_a_truncated_attestation_is_named(copy: Project) -> None:
    path = envelope_of(copy, "documents")
    path.write_bytes(path.read_bytes()[:100])
    assert names(audited(copy), "TAMPERED", path.name, "not a DSSE envelope")


def test_an_attestation_that_was_replayed_for_another_artifact_is_named(copy: Project) -> None:
    path = envelope_of(copy, "tokens")
    folder = copy.root / ".cairn/store/attestations" / digest(copy, "checkpoint")
    shutil.copy(path, folder)
    assert names(audited(copy), "TAMPERED", f"{folder.name}/{path.name}", "put here to be taken for another")


def test_an_attestation_that_was_replaced_by_another_is_named(copy: Project) -> None:
    path = envelope_of(copy, "checkpoint")
    path.write_bytes(envelope_of(copy, "tokens").read_bytes())
    found = audited(copy)
    assert names(found, "TAMPERED", path.name, "is of something else", "it speaks of: tokens")


def test_a_section_that_was_edited_by_whoever_signs_does_not_fit_the_stage_key(copy: Project) -> None:
    def longer(said: dict[str, Any]) -> None:
        said["predicate"]["buildDefinition"]["externalParameters"]["section"]["steps"] = 10_000

    attest_instead(copy, "checkpoint", longer)
    assert names(audited(copy), "TAMPERED", "pretrain", "its stage key is not that of")


@pytest.mark.parametrize("given", [True, False])
def test_weights_that_were_given_from_outside_are_a_root_and_others_that_nothing_made_are_missing(
    copy: Project,
    tmp_path: Path,
    given: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").write_bytes(b"weights")
    base = store_of(copy).put(tmp_path / "base").digest

    def began(said: dict[str, Any]) -> None:
        noted = {"kind": "beginning", "path": "models/base", **({"given": True} if given else {})}
        one = {"name": "init_from", "digest": {"sha256": base}, "annotations": noted}
        said["predicate"]["buildDefinition"]["resolvedDependencies"].append(one)

    attest_instead(copy, "checkpoint", began)
    found = audited(copy)
    node = found.nodes[f"artifact:{base}"]
    limit = f"the weights that were given from outside (init_from {base[:12]})"
    assert [one.verdict for one in node.findings if one.verdict is Verdict.BYTES_MATCH] == [Verdict.BYTES_MATCH]
    assert node.given is given
    assert any(limit in one for one in found.limits) is given
    if not given:
        assert names(found, "MISSING", "init_from", "no attestation says what made it")
        return
    assert not wrong(found)
    monkeypatch.chdir(copy.root)
    assert enter(["affected", "text/0000.txt", "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert model["verdict"] in ("trained on it", "not known"), model  # never clean: who knows what it began with
    graph = scan(store_of(copy), signing.trusted_keys())
    assert [one.verdict for one in _models(graph, [])] == ["not known"]
    assert "given from outside" in "".join(str(line) for line in lines(found))
    data = next((copy.root / ".cairn/store/files").rglob(hashlib.md5(b"weights").hexdigest()[2:]))
    data.chmod(0o644)
    data.write_bytes(b"weighty")
    assert names(audited(copy), "TAMPERED", "init_from", "model.safetensors")


def test_what_the_weights_were_trained_on_that_a_run_began_with_counts(
    copy: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run's own tokens are of another source: what is affected is the model's, through where it began."""
    base, foreign = "b" * 64, "f" * 64
    first = statement_of(copy, "checkpoint")
    for subject in first["subject"]:
        subject["digest"]["sha256"] = base if subject["name"] == "checkpoint" else "0" * 64
    attest(copy, first)

    def began(said: dict[str, Any]) -> None:
        dependencies = said["predicate"]["buildDefinition"]["resolvedDependencies"]
        for one in dependencies:
            if one["name"] in ("tokens", "tokenizer"):
                one["digest"]["sha256"] = foreign
        beginning = {"kind": "beginning", "path": "models/base"}
        dependencies.append({"name": "init_from", "digest": {"sha256": base}, "annotations": beginning})

    attest_instead(copy, "checkpoint", began)
    monkeypatch.chdir(copy.root)
    assert enter(["affected", "text/0000.txt", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    (model,) = said["models"]
    assert model["verdict"] == "trained on it"
    assert "in the 2 trainings that it comes from" in model["why"]
    assert [hit["drawn"] for hit in said["hits"] if hit["name"] == "checkpoint"].count(0) == 1


def test_what_an_attestation_does_not_say_is_named(copy: Project) -> None:
    def silent(said: dict[str, Any]) -> None:
        del said["predicate"]["buildDefinition"]["internalParameters"]["facts"]["seed"]
        del said["predicate"]["buildDefinition"]["internalParameters"]["environment"]["processor"]

    attest_instead(copy, "checkpoint", silent)
    assert names(audited(copy), "INCOMPLETE", "pretrain", "facts.seed", "environment.processor")


def test_a_clock_that_was_set_back_is_noticed(copy: Project) -> None:
    def earlier(said: dict[str, Any]) -> None:
        run = said["predicate"]["runDetails"]["metadata"]
        run["startedOn"], run["finishedOn"] = "2020-01-01T00:00:00+00:00", "2020-01-01T00:10:00+00:00"

    attest_instead(copy, "checkpoint", earlier)
    found = audited(copy)
    assert names(found, "CONFLICT", "pretrain", "before its input tokens was made", "a clock was set back")


def test_a_run_that_ended_before_it_began_is_noticed(copy: Project) -> None:
    def backwards(said: dict[str, Any]) -> None:
        said["predicate"]["runDetails"]["metadata"]["finishedOn"] = "2020-01-01T00:00:00+00:00"

    attest_instead(copy, "documents", backwards)
    assert names(audited(copy), "CONFLICT", "ingest", "before it began")


def test_two_attestations_of_one_stage_key_with_other_outputs_are_in_conflict(copy: Project) -> None:
    said = statement_of(copy, "checkpoint")
    first = envelope_of(copy, "checkpoint").stem
    said["subject"][0]["digest"]["sha256"] = "f" * 64
    said["predicate"]["buildDefinition"]["internalParameters"]["environment"]["processor"]["model"] = "Another"
    second = attest(copy, said)
    found = audited(copy)
    assert names(found, "CONFLICT", "pretrain", first[:12], second[:12], "f" * 64, "processor.model", '"Another"')


@pytest.mark.parametrize(("strict_code", "verdict"), [(False, "ATTESTED"), (True, "CONFLICT")])
def test_training_that_went_on_with_other_code_is_told_and_a_fault_for_who_asks(
    copy: Project, strict_code: bool, verdict: str
) -> None:
    def resumed(said: dict[str, Any]) -> None:
        internal = said["predicate"]["buildDefinition"]["internalParameters"]
        internal["attempts"].insert(0, {**internal["attempts"][0], "code": "e" * 64})

    attest_instead(copy, "checkpoint", resumed)
    found = audited(copy, strict_code=strict_code)
    [told] = [one for _, one in found.findings() if one.said.startswith("2 launches worked on it")]
    assert told.verdict == verdict
    assert any("e" * 64 in detail for detail in told.details)
    assert bool(found.wrong) is strict_code


def test_stages_of_different_code_are_told_and_a_fault_for_who_asks(copy: Project) -> None:
    def of_other_code(said: dict[str, Any]) -> None:
        definition = said["predicate"]["buildDefinition"]
        code = next(one for one in definition["resolvedDependencies"] if one["name"] == "cairn")
        code["digest"]["sha256"] = "e" * 64
        for attempt in definition["internalParameters"]["attempts"]:
            attempt["code"] = "e" * 64

    attest_instead(copy, "model", of_other_code)
    found = audited(copy)
    assert wrong(found) == []
    assert any("2 different states of the code" in limit for limit in found.limits)
    assert names(audited(copy, strict_code=True), "CONFLICT", "cairn", "e" * 64, "export")


def test_a_checkpoint_that_names_other_tokens_than_were_attested_is_in_conflict(copy: Project, tmp_path: Path) -> None:
    shutil.copytree(copy.root / "artifacts/checkpoint", tmp_path / "checkpoint")
    manifest = json.loads((tmp_path / "checkpoint/checkpoint.json").read_bytes())
    (tmp_path / "checkpoint/checkpoint.json").write_text(json.dumps({**manifest, "tokens": "d" * 64}))
    artifact = store_of(copy).put(tmp_path / "checkpoint")
    said = statement_of(copy, "checkpoint")
    said["subject"][0]["digest"]["sha256"] = artifact.digest
    forget(copy, "checkpoint")
    attest(copy, said)
    found = audit(artifact.digest, store=store_of(copy), keys=signing.trusted_keys())
    assert names(found, "CONFLICT", "checkpoint.json: tokens does not fit tokens", "d" * 64)


def test_a_signpost_that_is_gone_or_leads_elsewhere_is_named(copy: Project) -> None:
    name = envelope_of(copy, "tokens").name
    (signpost,) = (copy.root / ".cairn/store/stages").rglob(name)
    key = f"stages/{signpost.parent.name}/{name}"
    signpost.write_text(json.dumps({"subject": digest(copy, "model")}))
    assert names(audited(copy), "TAMPERED", key, "does not lead to the attestation")
    signpost.unlink()
    assert names(audited(copy), "MISSING", key)


def test_a_record_that_cannot_be_read_ends_its_own_branch_and_no_other(copy: Project) -> None:
    path = envelope_of(copy, "tokens")
    path.unlink()
    path.mkdir()
    found = audited(copy)
    assert names(found, "MISSING", path.name, "cannot be reached")
    assert any(node.name.startswith("pretrain") for node in found.nodes.values())


# What a project says besides


def test_a_pin_that_does_not_describe_its_artifact_is_named(copy: Project) -> None:
    key = digest(copy, "tokens")
    path = copy.root / f".cairn/store/pins/{key}.json"
    pin = json.loads(path.read_bytes())
    path.write_text(json.dumps({**pin, "size": pin["size"] + 1}))
    assert names(audited(copy), "TAMPERED", f"pins/{key}.json", "contradicts itself")
    pin["members"][0]["sha256"] = "0" * 64
    path.write_text(json.dumps(pin))
    assert names(audited(copy), "TAMPERED", f"pins/{key}.json", "does not describe this artifact")


def test_a_pointer_that_leads_nowhere_is_named(copy: Project) -> None:
    store = store_of(copy)
    store.swap("models/small/current", 0, {"digest": digest(copy, "model")})
    assert wrong(audited(copy)) == []
    store.swap("models/small/current", 1, {"digest": "0" * 64})
    assert names(audited(copy), "TAMPERED", "models/small/current/00000002", "leads to no artifact")


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("size: ", "size: 1", "size"),
        ("steps: 150", "steps: 151", "pretrain.steps"),
        ("--for-version 0", "--for-version 9", "cmd"),
        ("nfiles: 7", "nfiles: 6", "nfiles"),
        ("  export:", "  exporb:", "stages.exporb"),
        ("schema: '2.0'", 'schema: "2.0"', "line 1"),
    ],
)
def test_a_dvc_lock_that_leads_elsewhere_is_named(copy: Project, old: str, new: str, fault: str) -> None:
    path = copy.root / "dvc.lock"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert names(audited(copy), "TAMPERED", "dvc.lock", fault)


def test_an_md5_in_dvc_lock_that_is_of_nothing_attested_is_named(copy: Project) -> None:
    path = copy.root / "dvc.lock"
    line = next(line for line in path.read_text().splitlines() if line.endswith(".dir"))
    md5 = line.split()[-1]
    other = ("0" if md5[0] != "0" else "1") + md5[1:]
    path.write_text(path.read_text().replace(md5, other))
    assert names(audited(copy), "TAMPERED", "dvc.lock", other, "address of no attested")


def test_a_lock_file_of_the_sources_that_was_edited_by_hand_is_found_though_it_fits_the_recipe(copy: Project) -> None:
    path = copy.root / "sources.lock.json"
    lock = json.loads(path.read_bytes())
    lock["sources"][0]["objects"][3]["sha256"] = "a" * 64
    path.write_bytes(Lock.model_validate_json(json.dumps(lock)).bytes())
    assert names(audited(copy), "TAMPERED", "sources.lock.json", "changed: sources.lock.json")
    found = audited(copy, "sources.lock.json")
    assert names(found, "TAMPERED", "sources.lock.json", "no attestation knows what lies there")


def test_a_signature_of_other_files_is_named(copy: Project) -> None:
    path = copy.root / "artifacts/model.sig"
    bundle = json.loads(path.read_bytes())
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = "AAAA"
    path.write_text(json.dumps(bundle))
    assert names(audited(copy), "TAMPERED", "artifacts/model.sig", "does not fit its content")


def test_a_sound_signature_of_another_model_is_not_taken_for_this_one_s(copy: Project) -> None:
    other = read_artifact(copy.root / "artifacts/scores")
    (copy.root / "artifacts/model.sig").write_bytes(sign_model(other, "model", signing.signer()))
    assert names(audited(copy), "TAMPERED", "artifacts/model.sig", "the model is not what was signed: missing: ")


def test_a_signature_inside_the_model_is_no_part_of_it(copy: Project) -> None:
    shutil.move(copy.root / "artifacts/model.sig", copy.root / "artifacts/model/model.sig")
    found = audited(copy)
    assert wrong(found) == []
    assert any(node.id.endswith("model/model.sig") for node in found.nodes.values())


def digest_in_store(project: Project, artifact: str) -> str:
    """The digest that the artifact of this name has by its attestation."""
    for folder in (project.root / ".cairn/store/attestations").iterdir():
        for path in folder.iterdir():
            said = json.loads(base64.b64decode(json.loads(path.read_bytes())["payload"]))
            if any((one["name"], one["digest"]) == (artifact, {"sha256": folder.name}) for one in said["subject"]):
                return folder.name
    raise AssertionError(artifact)


def swap(one: Path, other: Path) -> None:
    """Give each the bytes of the other."""
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
