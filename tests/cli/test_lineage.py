"""`cairn lineage` and `cairn affected`: from a model back to the text, from a text forward to the models, and why two
runs have other documents."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cairn.lineage import attestation, signing
from cairn.lineage.artifact import digest_of
from cairn.lineage.signing import KeySigner
from cairn.lineage.store import Store
from components.ingest.documents import read_split
from components.snapshot.lock import read_lock
from pipelines.stages import NAMES, place
from tests.cli.conftest import Cairn
from tests.pipelines.project import ARTIFACTS, Project
from trainer.batches import Batches
from trainer.recipe import Training
from trainer.tokens import Tokens


def printed(said: Any) -> Any:
    assert said.code == 0, said.err
    return json.loads(said.out)


def digest(project: Project, artifact: str) -> str:
    found = digest_of(project.root / place(artifact))
    assert found is not None
    return found


# Back and forward


def test_back_from_a_report_lead_all_stages_to_the_sources(built: Project, cairn: Cairn) -> None:
    said = printed(cairn("lineage", "back", "artifacts/report", "--json", at=built.root))
    nodes = said["nodes"]
    assert {node["name"].split()[0] for node in nodes if node["kind"] == "stage"} == set(NAMES)
    artifacts = {node["name"]: node["id"] for node in nodes if node["kind"] == "artifact"}
    # The optimizer was made beside, and nothing was made from it.
    assert artifacts == {name: digest(built, name) for name in ("sources", *ARTIFACTS) if name != "optimizer"}
    objects = {node["name"]: node["digest"] for node in nodes if node["kind"] == "object"}
    lock = read_lock(built.root / "sources.lock.json")
    assert objects == {uri: locked.sha256 for uri, locked in lock.objects().items()}
    assert [node["name"] for node in nodes if node["kind"] == "source"] == ["source walks: text, CC0-1.0"]


def test_back_is_a_tree_in_which_nothing_is_unfolded_twice(built: Project, cairn: Cairn) -> None:
    lines = cairn("lineage", "back", digest(built, "model")[:8], at=built.root).out.splitlines()
    assert lines[0] == f"model  {digest(built, 'model')[:12]}"
    assert lines[1].startswith("└─ export ")
    assert sum("snapshot" in line for line in lines) == 1
    assert [line.strip(" │└─").split(",")[0] for line in lines if "(see above)" in line] == [
        "120 objects (see above)",
        next(line for line in lines if "tokenize" in line).strip(" │└─").split(",")[0],
    ]
    assert lines[-2].endswith(digest(built, "tokenizer")[:12])
    assert any(line.endswith("and 112 more objects") for line in lines)


@pytest.mark.parametrize("start", ["sources", "object"])
def test_forward_from_a_source_leads_to_everything(built: Project, cairn: Cairn, start: str) -> None:
    locked = next(iter(read_lock(built.root / "sources.lock.json").objects().values()))
    asked = "sources.lock.json" if start == "sources" else locked.sha256[:10]
    said = printed(cairn("lineage", "forward", asked, "--json", at=built.root))
    found = {node["name"]: node["id"] for node in said["nodes"] if node["kind"] == "artifact"}
    assert found == {name: digest(built, name) for name in ("sources", *ARTIFACTS)}


def test_forward_from_the_model_leads_to_what_was_made_of_it(built: Project, cairn: Cairn) -> None:
    out = cairn("lineage", "forward", "artifacts/model", at=built.root).out
    assert [line.strip(" └├─│").split()[0] for line in out.splitlines()] == [
        "model", "evaluate", "scores", "report", "report", "report",
    ]  # fmt: skip


def test_what_a_stranger_signed_is_counted_and_not_followed(copy: Project, cairn: Cairn) -> None:
    store = Store.default(copy.root)
    old = attestation.maker(store, digest(copy, "model"))
    assert old is not None
    statement = json.loads(json.dumps(old.statement).replace(digest(copy, "model"), "e" * 64))
    envelope = attestation.sign(statement, KeySigner(ec.generate_private_key(ec.SECP256R1())))
    attestation.publish(store, envelope, ["e" * 64], old.stage_key)
    said = cairn("lineage", "forward", "artifacts/checkpoint", at=copy.root)
    assert "e" * 12 not in said.out
    assert "1 attestations are signed by no trusted key and were passed over" in said.out


def test_an_attestation_that_lies_under_the_id_of_another_hides_nothing(copy: Project, cairn: Cairn) -> None:
    attestations = copy.root / ".cairn/store/attestations"
    (export,) = (attestations / digest(copy, "model")).glob("*.json")
    # The last digest of the store: what is read last would otherwise stand for both.
    last = max(attestations.iterdir())
    (envelope,) = last.glob("*.json")
    assert last.name != digest(copy, "model")
    shutil.copy(envelope, last / export.name)
    said = cairn("lineage", "forward", "artifacts/checkpoint", at=copy.root)
    assert f"model  {digest(copy, 'model')[:12]}" in said.out


def test_a_name_of_a_stranger_cannot_steer_the_terminal(copy: Project, cairn: Cairn) -> None:
    (copy.root / "text" / "0000\x1b[2J.txt").write_text(
        "The lantern marks the path, and the rope holds the river.\n" * 40
    )
    again(copy)
    for words in (("lineage", "back", "artifacts/documents"), ("affected", "text/0000\x1b*")):
        said = cairn(*words, at=copy.root)
        assert (said.code, "\x1b" in said.out) == (0, False), said
        assert "0000␛[2J.txt" in said.out


def test_what_nobody_made_has_no_way_back_or_forward(built: Project, cairn: Cairn) -> None:
    said = cairn("lineage", "back", "params.yaml", at=built.root)
    assert (said.code, said.out.splitlines()[-1]) == (
        0,
        "no attestation in .cairn/store says how it was made: --store names another store",
    )
    said = cairn("lineage", "forward", "artifacts/report", at=built.root)
    assert said.out.splitlines()[-1].startswith("no attestation in .cairn/store has it as")


@pytest.mark.parametrize("verb", [("lineage", "back"), ("lineage", "forward"), ("lineage", "diff")])
def test_a_name_that_means_nothing_is_one_line(built: Project, cairn: Cairn, verb: tuple[str, ...]) -> None:
    said = cairn(*verb, "nobody", at=built.root)
    assert said.code == 2
    assert said.err.startswith("error: nobody: no path, no digest")
    assert len(said.err.splitlines()) == 1


def test_a_git_revision_means_what_was_made_last_in_it(built: Project, cairn: Cairn) -> None:
    out = cairn("lineage", "back", "HEAD", at=built.root).out
    assert out.splitlines()[0] == f"report  {digest(built, 'report')[:12]}"


def test_a_store_and_a_key_can_be_named_from_anywhere(built: Project, cairn: Cairn, tmp_path: Path) -> None:
    stranger = ec.generate_private_key(ec.SECP256R1()).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "stranger.pem").write_bytes(stranger.public_bytes(serialization.Encoding.PEM, form))
    named = ("--store", str(built.root / ".cairn/store"), "--key")
    ours = (*named, str(signing.home() / "signing-key.pub.pem"))
    theirs = (*named, str(tmp_path / "stranger.pem"))
    model = digest(built, "model")
    for verb in (("lineage", "back", model), ("lineage", "forward", model), ("lineage", "diff", model, model)):
        assert cairn(*verb, *ours, at=tmp_path).code == 0
    assert f"model  {model[:12]}" in cairn("lineage", "back", model[:12].upper(), *ours, at=tmp_path).out
    # The store has no bytes here, and the folder has no artifacts.
    said = cairn("affected", "text/0003.txt", *ours, at=tmp_path).out
    assert [line.split()[:2] for line in said.splitlines()[-1:]] == [["cairn-tiny", model[:12]]]
    said = cairn("lineage", "back", model, *theirs, at=tmp_path).out.splitlines()[-1]
    assert said.startswith(
        f"no trusted attestation in {named[1]} says how it was made, and 1 are signed by no trusted key"
    )
    assert "name the public key of the signer with --key, or put it into" in said
    assert "and 1 are signed by no trusted key" in cairn("lineage", "diff", model, model, *theirs, at=tmp_path).err
    assert cairn("lineage", "back", model, "--store", "/nope", at=tmp_path).err.startswith(
        "error: /nope: no such folder"
    )


# Two runs


def again(project: Project) -> None:
    """Run the stages that make documents."""
    project.run("python", "-m", "components.snapshot", "--output", "sources=sources.lock.json", "--refresh")
    documents = ["--input", "sources=sources.lock.json", "--output", "documents=artifacts/documents"]
    project.run("python", "-m", "components.ingest", *documents)


def documents_of(project: Project) -> dict[str, dict[str, Any]]:
    """Origin to document, with its split."""
    return {
        record["origin"]: {**record, "split": split}
        for split in ("train", "development", "heldout")
        for record in read_split(project.root / "artifacts" / "documents", split)
    }


def test_diff_says_why_a_document_is_there_no_more_and_why_another_is_new(copy: Project, cairn: Cairn) -> None:
    before, old = documents_of(copy), digest(copy, "documents")
    limit = sorted(record["bytes"] for record in before.values())[30]
    text = copy.root / "text"
    (text / "0000.txt").unlink()
    (text / "0001.txt").write_text((text / "0001.txt").read_text() + "The walker finds the last stone.\n")
    (text / "9000.txt").write_text("The lantern marks the path, and the rope holds the river number 1.\n" * 40)
    # Not sampled, not remembered: which documents the new rule drops is known from their size.
    recipe = copy.recipe()
    recipe["ingest"]["min_document_bytes"] = limit
    recipe["ingest"]["split"]["seed"] = 1
    recipe["ingest"]["fineweb"] = None
    copy.write_recipe(recipe)
    again(copy)
    after = documents_of(copy)
    gone = [uri for uri in before if uri not in after and uri not in ("text/0000.txt", "text/0001.txt")]
    assert len(gone) > 20
    said = printed(cairn("lineage", "diff", old, "artifacts/documents", "--json", at=copy.root))
    documents = said["documents"]
    assert documents["sources"] == {
        "walks": {"added": ["text/9000.txt"], "removed": ["text/0000.txt"], "changed": ["text/0001.txt"]}
    }
    reasons = {(one["kind"], one["why"]): one["documents"] for one in documents["reasons"]}
    moved = {key: number for key, number in reasons.items() if key[0] == "moved"}  # by the seed; counted below
    stayed = [uri for uri in before if uri in after and uri not in ("text/0001.txt",)]
    assert sum(moved.values()) == sum(before[uri]["split"] != after[uri]["split"] for uri in stayed) > 0
    assert {key: number for key, number in reasons.items() if key[0] != "moved"} == {
        ("dropped", "its object is no longer in the sources"): 1,
        ("dropped", "its object changed"): 1,
        ("dropped", "ingest.min_document_bytes drops it"): len(gone),
        ("added", "its object is new"): 1,
        ("added", "its object changed"): 1,
    }
    assert (documents["first"], documents["second"], documents["both"]) == (120, len(after), len(stayed))
    recipe_changes = {one["name"] for one in said["differences"] if one["part"] == "recipe"}
    assert {"ingest.min_document_bytes", "ingest.split.seed"} <= recipe_changes
    text_form = cairn("lineage", "diff", old, "artifacts/documents", at=copy.root).out
    assert "ingest.min_document_bytes drops it" in text_form
    assert "source walks: 1 objects removed: text/0000.txt" in text_form


def test_diff_backwards_says_which_rule_had_dropped_a_document(copy: Project, cairn: Cairn) -> None:
    old = digest(copy, "documents")
    recipe = copy.recipe()
    recipe["ingest"]["gopher"]["min_words"] = 10_000
    recipe["ingest"]["gopher"]["max_words"] = 20_000
    (copy.root / "text" / "9000.txt").write_text("The lantern marks one path, and that rope holds a river.\n" * 1200)
    recipe["ingest"]["fineweb"] = None
    copy.write_recipe(recipe)
    again(copy)
    said = printed(cairn("lineage", "diff", "artifacts/documents", old, "--json", at=copy.root))
    reasons = {(one["kind"], one["why"]): one["documents"] for one in said["documents"]["reasons"]}
    assert reasons == {
        ("added", "ingest.gopher.min_words dropped it"): 120,
        ("dropped", "its object is no longer in the sources"): 1,
    }


def test_diff_tells_an_equal_document_of_another_object(copy: Project, cairn: Cairn) -> None:
    old = digest(copy, "documents")
    shutil.copy(copy.root / "text" / "0005.txt", copy.root / "text" / "0000-copy.txt")
    again(copy)
    said = printed(cairn("lineage", "diff", old, "artifacts/documents", "--json", at=copy.root))
    (reason,) = said["documents"]["reasons"]
    assert (reason["kind"], reason["documents"]) == ("elsewhere", 1)
    assert reason["samples"][0]["origin"] == "text/0000-copy.txt"


def test_diff_of_a_run_with_itself_finds_nothing(built: Project, cairn: Cairn) -> None:
    out = cairn("lineage", "diff", "HEAD", "artifacts/report", at=built.root).out
    assert out.splitlines()[0] == "made alike: the same recipe, versions, packages, code, machine and bytes"
    assert out.splitlines()[-1] == "documents: 120 and 120, of which 120 in both"


def test_two_kinds_of_artifacts_are_not_called_alike(built: Project, cairn: Cairn) -> None:
    lines = cairn("lineage", "diff", "artifacts/model", "artifacts/tokens", at=built.root).out.splitlines()
    model, tokens = digest(built, "model")[:12], digest(built, "tokens")[:12]
    assert lines[0].startswith(
        f"model {model} and tokens {tokens} are different artifacts: compared are the stages that"
    )
    assert lines[0].endswith("led to both: snapshot, ingest, tokenize")
    assert lines[1].startswith("those stages are alike: ")


def test_a_section_that_is_null_on_one_side_is_told_key_by_key(copy: Project, cairn: Cairn) -> None:
    old = digest(copy, "sources")
    recipe = copy.recipe()
    found = {"checked": "2026-11-20", "evidence": "the terms of use", "says": "allowed"}
    recipe["snapshot"]["sources"][0]["opt_out"] = found
    copy.write_recipe(recipe)
    again(copy)
    said = printed(cairn("lineage", "diff", old, "sources.lock.json", "--json", at=copy.root))
    told = {one["name"]: (one["then"], one["now"]) for one in said["differences"] if one["part"] == "recipe"}
    assert told == {f"snapshot.sources.0.opt_out.{name}": ("(absent)", value) for name, value in found.items()}


# What a source reached


def counted_by_hand(project: Project, origins: set[str]) -> tuple[int, int]:
    """Tokens of these objects in the train split, and how many of those drawn in training are theirs, one by one."""
    tokens = project.root / "artifacts" / "tokens"
    ids = {record["id"] for record in documents_of(project).values() if record["origin"] in origins}
    table = pq.read_table(tokens / "train" / "00000.parquet").to_pylist()
    marked = [row["document"] in ids for row in table for _ in range(row["length"])]
    opened = Tokens.open(tokens)
    training = Training.model_validate_json(json.dumps(project.recipe()["pretrain"]))
    batches = Batches(training, opened)
    drawn = 0
    for step in range(training.steps):
        for row in range(training.batch):
            document, offset = batches.position(step, row)
            start = opened.train.document(document)[0] + offset
            drawn += sum(marked[start : start + training.model.context])
    return sum(marked), drawn


@pytest.mark.parametrize("asked", ["walks", "text/00[0-4]*.txt", "text/0003.txt", "sha256", "document"])
def test_affected_counts_documents_tokens_and_what_was_drawn(built: Project, cairn: Cairn, asked: str) -> None:
    found = documents_of(built)
    one = next(record for record in found.values() if record["split"] == "train")
    lock = read_lock(built.root / "sources.lock.json").objects()
    chosen: Callable[[str], bool] = {
        "walks": lambda uri: True,
        "text/00[0-4]*.txt": lambda uri: uri < "text/0050.txt",
        "text/0003.txt": lambda uri: uri == "text/0003.txt",
    }.get(asked, lambda uri: bool(uri == one["origin"]))
    name = {"sha256": lock[one["origin"]].sha256[:16], "document": one["id"][:16]}.get(asked, asked)
    said = printed(cairn("affected", name, "--json", at=built.root))
    origins = {uri for uri in lock if chosen(uri)}
    assert set(said["objects"]) == origins
    hits = {hit["name"]: hit for hit in said["hits"]}
    assert {name: hit["digest"] for name, hit in hits.items()} == {name: digest(built, name) for name in ARTIFACTS}
    for split in ("train", "development", "heldout"):
        expected = sum(found[uri]["split"] == split for uri in origins)
        assert hits["documents"]["documents"][split] == expected
    tokens, drawn = counted_by_hand(built, origins)
    assert (hits["tokens"]["tokens"], hits["checkpoint"]["drawn"]) == (tokens, drawn)
    assert drawn > 0
    assert [(model["name"], model["verdict"]) for model in said["models"]] == [("cairn-tiny", "trained on it")]


def test_a_model_is_clean_of_what_was_held_out(built: Project, cairn: Cairn) -> None:
    uri = next(uri for uri, record in documents_of(built).items() if record["split"] == "heldout")
    said = printed(cairn("affected", uri, "--json", at=built.root))
    assert {hit["name"]: hit for hit in said["hits"]}["documents"]["documents"]["heldout"] == 1
    assert said["models"][0]["verdict"] == "has none of it"


def test_a_model_of_another_lock_is_clean(copy: Project, cairn: Cairn) -> None:
    (copy.root / "text" / "9000.txt").write_text("The lantern marks the path, and the rope holds the river.\n" * 40)
    again(copy)
    said = cairn("affected", "text/9000.txt", at=copy.root)
    assert said.code == 0, said.err
    assert "not made from it" in said.out
    hits = {line.split()[0] for line in said.out.splitlines() if line}
    assert "checkpoint" not in hits


def test_artifacts_whose_bytes_are_gone_are_told_and_not_taken_for_clean(copy: Project, cairn: Cairn) -> None:
    shutil.rmtree(copy.root / "artifacts" / "documents")
    shutil.rmtree(copy.root / ".dvc" / "cache")
    said = printed(cairn("affected", "walks", "--json", at=copy.root))
    hits = {hit["name"]: hit for hit in said["hits"]}
    assert hits["documents"]["unknown"]
    assert hits["tokens"]["unknown"] == "its documents were not counted"
    assert said["models"][0]["verdict"] == "not known"


def test_whoever_names_a_file_alone_is_told_its_whole_uri(built: Project, cairn: Cairn) -> None:
    assert "0003.txt: no source" in cairn("affected", "0003.txt", at=built.root).err
    assert cairn("affected", "0003.txt", at=built.root).err.endswith(": did you mean text/0003.txt?\n")


def test_a_source_that_nobody_knows_is_one_line(built: Project, cairn: Cairn) -> None:
    for name in ("rivers", "text/nothing*", "abcdef123456"):
        said = cairn("affected", name, at=built.root)
        assert said.code == 2
        assert said.err.splitlines()[-1].startswith(f"error: {name}: no source, object or document of that name")
