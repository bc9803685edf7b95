"""Replay: what was made comes out again; what somebody forged, and signed with the trusted key, does not.

A forger here is who has the key: artifact, pin and attestation fit each other in every case, so that no signature and
no digest is wrong. Only doing it again tells.
"""

import hashlib
import json
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from cairn.audit.replay import Sample, replay
from cairn.audit.verdicts import Finding, Verdict
from cairn.cli.main import enter
from cairn.errors import StageError
from cairn.lineage import attestation, signing
from cairn.lineage.artifact import digest_of, read_artifact, readable
from cairn.lineage.attestation import Attestation
from cairn.lineage.places import Places
from cairn.lineage.stage import Component
from cairn.lineage.store import Store
from cairn.resources import Resources
from components.ingest.documents import ShardWriter, read_shard
from components.ingest.ingest import split_of
from components.ingest.recipe import Split
from components.tokenize.index import RECORD
from pipelines.stages import NAMES, place, stages
from tests.pipelines.project import Project

Edit = Callable[[Path], None]
# What a replay of training does when no steps are asked for, one half each: a launch of the trainer takes four seconds.
FIRST, LAST = (0, 20), (100, 150)


class Auditor:
    """Replays stages of a project, as who stands in its folder."""

    def __init__(self, project: Project, scratch: Path) -> None:
        self.root, self.scratch = project.root, scratch
        self.store = Store.default(project.root)

    def places(self) -> list[Path]:
        return [self.root / path for stage in stages() for path in stage.outputs.values()]

    def attested(self, artifact: str) -> Attestation:
        found = attestation.maker(self.store, digest_of(self.root / place(artifact)) or "")
        assert found is not None
        return found

    def replay(self, artifact: str, **sample: Any) -> Finding:
        """What comes of the stage that made an artifact."""
        before = {path: digest_of(path) for path in self.places()}
        found = replay(
            self.attested(artifact),
            Places(self.store, self.scratch / "fetched", self.places()),
            store=self.store,
            sample=Sample(**{"size": 5, **sample}),
            scratch=self.scratch,
            resources=Resources(workers=1, processes=1),
        )
        assert {path: digest_of(path) for path in self.places()} == before, "a replay wrote into an artifact"
        assert {path.name for path in self.scratch.iterdir()} <= {"fetched"}, "a replay left something behind"
        return found

    def forge(self, artifact: str, edit: Edit) -> None:
        """Change an artifact and let the attestation, signed with the trusted key, speak of it as changed."""
        self.resign(artifact, lambda _: None, edit)

    def resign(self, artifact: str, change: Callable[[Any], None], edit: Edit = lambda _: None) -> None:
        """Sign what the attestation of an artifact says, changed."""
        path = self.root / place(artifact)
        old = self.attested(artifact)
        before = digest_of(path)
        edit(path)
        made = read_artifact(path)
        self.store.write_pin(made)
        statement = json.loads(json.dumps(old.statement).replace(str(before), made.digest))
        statement["predicate"]["runDetails"]["metadata"]["finishedOn"] = "2999-01-01T00:00:00+00:00"
        change(statement)
        envelope = attestation.sign(statement, signing.signer())
        subjects = [one["digest"]["sha256"] for one in statement["subject"]]
        attestation.publish(self.store, envelope, subjects, old.stage_key)


@pytest.fixture
def auditor(copy: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Auditor:
    monkeypatch.chdir(copy.root)
    for path in (copy.root / "artifacts").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # DVC makes what it knows read-only
    (tmp_path / "scratch").mkdir()
    return Auditor(copy, tmp_path / "scratch")


def said(finding: Finding) -> str:
    return "\n".join((finding.said, *finding.details))


# What was made comes out again


def test_an_audit_does_every_stage_again_on_a_sample_and_leaves_nothing_behind(
    auditor: Auditor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(auditor.scratch))
    monkeypatch.delenv("CAIRN_STORE", raising=False)
    html = tmp_path / "audit.html"
    shutil.rmtree(auditor.root / ".dvc/cache")  # as after `cairn run`: the kept states lie in the project alone
    before = files_of(auditor.root)
    words = ["audit", "artifacts/report", "--replay", "--sample", "5", "--seed", "3", "--json", "--html", str(html)]
    assert enter(words) == 0
    printed = capsys.readouterr()
    said = json.loads(printed.out)
    names = {node["id"]: node["name"].split()[0] for node in said["nodes"]}
    found = {names[one["about"][0]]: one for one in said["replayed"]}
    assert list(found) == list(NAMES)
    assert {one["verdict"] for one in found.values()} == {"REPRODUCED"}, found
    assert "5 of 120 objects were read again (seed 3)" in found["ingest"]["said"]
    assert "the tokenizer was trained again" in found["tokenize"]["said"]
    assert "steps 101 to 150 of 150 were trained again from the state kept at step 100" in found["pretrain"]["said"]
    assert "so are the final weights, bit for bit" in found["pretrain"]["said"]
    assert not any("of whoever holds the key" in limit for limit in said["limits"])
    trained = f"pretrain {version('pretrain')} was done as attested: steps 21 to 100"
    for remains in (trained, f"ingest {version('ingest')}", "115 of 120 objects"):
        assert any(remains in limit for limit in said["limits"]), said["limits"]
    assert [line for line in printed.err.splitlines() if line.startswith("replay: ")] == [f"replay: {n}" for n in NAMES]
    assert "What was done again" in html.read_text()
    assert files_of(auditor.root) == before
    assert [path.name for path in auditor.scratch.iterdir() if path.name.startswith("cairn-")] == []


def version(stage: str) -> str:
    """Of a component."""
    return Component.of(f"components.{stage}").version


def files_of(root: Path) -> dict[str, str | None]:
    """Everything that lies in a project, and its digest."""
    return {str(path): digest_of(path) if path.is_file() else None for path in root.rglob("*")}


def test_a_replay_that_conflicts_fails_the_audit_and_one_that_cannot_be_is_told(
    auditor: Auditor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CAIRN_STORE", raising=False)
    auditor.forge("model", lambda path: edit_tensor(path / "model.safetensors", "model.norm.weight"))
    assert enter(["audit", "--replay", "--sample", "1", "--steps", "0..9999"]) == 1
    told = capsys.readouterr().out.partition("What was done again")[2]
    assert f"CONFLICT  export {version('export')}: the model was exported again" in told
    asked = "steps 0..9999 are asked for, and it has 150"
    assert f"ATTESTED  pretrain {version('pretrain')}: was not replayed: {asked}" in told


@pytest.mark.parametrize(
    "words", [["--seed", "3"], ["--sample", "5"], ["--steps", "0..5"], ["--replay", "--sample", ""]]
)
def test_a_sample_of_nothing_is_one_line(auditor: Auditor, words: list[str]) -> None:
    with pytest.raises(StageError, match=r"give --replay too|must be a whole number"):
        enter(["audit", *words])


def test_what_breaks_the_reader_of_a_forged_artifact_does_not_end_the_audit(auditor: Auditor) -> None:
    def nonsense(checkpoint: Path) -> None:
        for path in checkpoint.glob("*.safetensors"):
            path.write_bytes(b"no tensors")

    forged = auditor.root / place("checkpoint")
    before = str(digest_of(forged))
    auditor.forge("checkpoint", nonsense)
    auditor.resign("model", lambda said: replace_in(said, before, str(digest_of(forged))))
    found = auditor.replay("model")
    assert found.verdict is Verdict.CONFLICT, said(found)
    assert "refuses what it is said to have worked on" in found.said


def replace_in(statement: Any, before: str, after: str) -> None:
    """Name another digest wherever a statement names one."""
    changed = json.loads(json.dumps(statement).replace(before, after))
    statement.clear()
    statement.update(changed)


@pytest.mark.parametrize("artifact", ["documents", "tokens", "checkpoint", "scores"])
def test_with_no_limit_to_the_sample_the_whole_stage_comes_out_again(auditor: Auditor, artifact: str) -> None:
    found = auditor.replay(artifact, size=None)
    assert found.verdict is Verdict.REPRODUCED, said(found)


def test_the_steps_asked_for_begin_at_a_kept_state_or_are_refused_with_those_that_are_kept(auditor: Auditor) -> None:
    refused = auditor.replay("checkpoint", steps=(110, 120))
    assert refused.verdict is Verdict.ATTESTED
    assert "steps 110..120 are asked for, and training can begin at 0, 100 only" in refused.said
    found = auditor.replay("checkpoint", steps=(100, 120))
    assert found.verdict is Verdict.REPRODUCED, said(found)
    assert "steps 101 to 120 of 150 were trained again from the state kept at step 100" in found.said
    assert "20 lines of the log are equal" in found.said
    assert "final weights" not in found.said
    assert found.remains == "steps 1 to 100 and 121 to 150 of 150 were not done again"


def test_without_the_kept_states_the_first_steps_are_trained_again_and_what_is_absent_is_named(
    auditor: Auditor,
) -> None:
    optimizer = auditor.attested("checkpoint").outputs["optimizer"]
    shutil.rmtree(auditor.root / place("optimizer"))
    (auditor.root / ".cairn/store/pins" / f"{optimizer}.json").unlink()
    shutil.rmtree(auditor.root / ".dvc/cache")
    found = auditor.replay("checkpoint")
    assert found.verdict is Verdict.REPRODUCED, said(found)
    assert "steps 1 to 20 of 150 were trained again from the seed" in found.said
    assert f"optimizer {optimizer}, which holds them, is not to be had" in found.said
    assert found.remains == "steps 21 to 150 of 150 were not done again"


def test_a_state_that_is_kept_on_the_way_is_compared(auditor: Auditor) -> None:
    def change(optimizer: Path) -> None:
        state = optimizer / "steps" / "00000100.safetensors"
        edit_tensor(state, "model.norm.weight")
        manifest = json.loads(state.with_suffix(".json").read_bytes())
        manifest["sha256"] = digest_of(state)
        state.with_suffix(".json").write_bytes(readable(manifest))

    auditor.forge("optimizer", change)
    found = auditor.replay("optimizer", steps=(0, 101))
    assert found.verdict is Verdict.CONFLICT
    assert "the state kept at step 100 is another" in said(found)


def test_other_hardware_is_close_and_the_tolerance_is_told(auditor: Auditor, monkeypatch: pytest.MonkeyPatch) -> None:
    # Kernels without vector instructions add up in another order, as another processor does.
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    found = auditor.replay("checkpoint", steps=FIRST)
    assert found.verdict is Verdict.CLOSE, said(found)
    assert "tolerance 2%" in said(found)
    assert "what steers arithmetic was nothing, here it is ATEN_CPU_CAPABILITY=default" in found.details


def test_another_version_of_the_component_is_told_and_not_replayed(auditor: Auditor) -> None:
    def older(statement: Any) -> None:
        statement["predicate"]["buildDefinition"]["externalParameters"]["version"] = "0.0.9"

    auditor.resign("documents", older)
    found = auditor.replay("documents")
    assert found.verdict is Verdict.ATTESTED
    assert "ingest 0.0.9 made it" in found.said


def test_what_is_not_to_be_had_is_told_and_is_no_conflict(auditor: Auditor) -> None:
    shutil.rmtree(auditor.root / place("tokens"))
    shutil.rmtree(auditor.root / ".dvc" / "cache")
    found = auditor.replay("checkpoint")
    assert found.verdict is Verdict.ATTESTED
    assert "was not replayed: tokens is not to be had" in found.said


def test_objects_that_changed_or_went_upstream_are_no_fault(auditor: Auditor) -> None:
    (auditor.root / "text" / "0000.txt").write_text("Somebody wrote something else.\n")
    (auditor.root / "text" / "0001.txt").unlink()
    found = auditor.replay("sources", size=None)
    assert found.verdict is Verdict.ATTESTED
    assert "118 are the same, 1 changed since, 1 are gone" in found.said
    assert found.details == ("changed: text/0000.txt", "gone: text/0001.txt")
    # Ingest reads what was copied, and does not care.
    assert auditor.replay("documents").verdict is Verdict.REPRODUCED


def test_the_seed_decides_the_sample(auditor: Auditor) -> None:
    one, other, again = (auditor.replay("sources", size=2, seed=seed) for seed in (1, 2, 1))
    assert one == again
    assert (one.verdict, other.verdict) == (Verdict.REPRODUCED, Verdict.REPRODUCED)
    assert other.said != one.said


def test_packages_that_are_others_are_told_and_nothing_is_promised_for_them(auditor: Auditor) -> None:
    def other(statement: Any) -> None:
        statement["predicate"]["buildDefinition"]["internalParameters"]["packages"]["orjson"] = "1.0.0"

    auditor.resign("documents", other)
    found = auditor.replay("documents")
    assert found.verdict is Verdict.REPRODUCED
    assert any(detail.startswith("orjson was 1.0.0, here it is") for detail in found.details)
    auditor.resign("documents", other, lambda documents: edit_documents(documents, "train", replaced_text))
    found = auditor.replay("documents", size=120)
    assert found.verdict is Verdict.ATTESTED
    assert "with other packages, for which nothing is promised" in found.said


def test_a_sample_is_asked_for_in_words() -> None:
    assert Sample.asked("7", 1, None) == Sample(seed=1, size=7)
    assert Sample.asked("all", 0, "100..150") == Sample(size=None, steps=(100, 150))
    for size, steps in (("0", None), ("-1", None), ("some", None), ("5", "3"), ("5", "5..5"), ("5", "9..2"), ("5", "")):
        with pytest.raises(StageError, match=r"must be a whole number|write two steps"):
            Sample.asked(size, 0, steps)


# What was forged does not


def edit_documents(documents: Path, split: str, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change the documents of a split, and the ledger's numbers with them: the forger is thorough."""
    shards = sorted((documents / split).glob("*.jsonl.zst"))
    records = [record for shard in shards for record in read_shard(shard)]
    before = len(records)
    change(records)
    for shard in shards:
        shard.unlink()
    with ShardWriter(documents / split, 1 << 26) as writer:
        for record in records:
            writer.write(record)
    ledger = json.loads((documents / "ledger.json").read_bytes())
    ledger["splits"][split]["walks"] = {"documents": len(records), "bytes": sum(one["bytes"] for one in records)}
    ledger["sources"]["walks"]["kept"]["documents"] += len(records) - before
    (documents / "ledger.json").write_bytes(readable(ledger))


def document(like: dict[str, Any], text: str) -> dict[str, Any]:
    digest = sha256(text)
    return {**like, "id": digest, "raw": digest, "text": text, "bytes": len(text.encode())}


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def of_train() -> Iterator[str]:
    """Texts that belong to the train split."""
    for number in range(1000):
        text = f"A stone that nobody ever put there, number {number}. " * 20
        if split_of(sha256(text), Split(heldout=0.1, development=0.1)) == "train":
            yield text


def added(records: list[dict[str, Any]]) -> None:
    records.append(document(records[0], next(of_train())))


def from_nowhere(records: list[dict[str, Any]]) -> None:
    records.append({**document(records[0], next(of_train())), "origin": "text/9999.txt"})


def removed(records: list[dict[str, Any]]) -> None:
    del records[0]


def replaced_text(records: list[dict[str, Any]]) -> None:
    records[0] = document(records[0], next(of_train()))


def replaced_text_under_the_old_id(records: list[dict[str, Any]]) -> None:
    records[0]["text"] = records[0]["text"].replace("stone", "stoat").replace("path", "pith")


def another_licence(records: list[dict[str, Any]]) -> None:
    records[0]["licence"] = "MIT"


def twice(records: list[dict[str, Any]]) -> None:
    records.append(records[0])


def reordered(records: list[dict[str, Any]]) -> None:
    records[0], records[1] = records[1], records[0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (reordered, "stands behind one of an object that comes after its own"),
        (added, "did not come out of"),
        (from_nowhere, "names text/9999.txt, which is not in the lock"),
        (removed, "is missing"),
        (replaced_text, "is missing"),
        (replaced_text_under_the_old_id, "has another text than its id says"),
        (another_licence, "has other fields than came out"),
        (twice, "is there twice"),
    ],
)
def test_a_forged_document_is_found(auditor: Auditor, change: Callable[[Any], None], told: str) -> None:
    auditor.forge("documents", lambda documents: edit_documents(documents, "train", change))
    # All objects are sampled and read one by one: with no limit, the stage would be run again instead.
    found = auditor.replay("documents", size=120)
    assert found.verdict is Verdict.CONFLICT
    assert told in said(found), said(found)


def test_a_document_from_nowhere_is_found_whatever_the_sample(auditor: Auditor) -> None:
    auditor.forge("documents", lambda documents: edit_documents(documents, "train", from_nowhere))
    assert auditor.replay("documents", size=1).verdict is Verdict.CONFLICT


def test_a_held_out_document_that_was_moved_to_train_is_found(auditor: Auditor) -> None:
    moved: list[dict[str, Any]] = []

    def take(records: list[dict[str, Any]]) -> None:
        moved.append(records.pop())
        moved[0].pop("overlap")

    def move(documents: Path) -> None:
        edit_documents(documents, "heldout", take)
        edit_documents(documents, "train", lambda records: records.extend(moved))

    auditor.forge("documents", move)
    found = auditor.replay("documents", size=1)
    assert found.verdict is Verdict.CONFLICT
    assert "belongs to another split" in said(found)


def test_a_forged_overlap_is_found_when_the_stage_is_run_again(auditor: Auditor) -> None:
    def clean(records: list[dict[str, Any]]) -> None:
        for record in records:
            record["overlap"] = 0.5

    auditor.forge("documents", lambda documents: edit_documents(documents, "heldout", clean))
    found = auditor.replay("documents", size=None)
    assert found.verdict is Verdict.CONFLICT
    assert "documents: heldout/00000.jsonl.zst: other bytes" in found.details


def test_a_changed_token_is_found(auditor: Auditor) -> None:
    def change(tokens: Path) -> None:
        numbers = np.fromfile(tokens / "train" / "00000.bin", "<u2")
        numbers[100] += 1
        numbers.tofile(tokens / "train" / "00000.bin")

    auditor.forge("tokens", change)
    found = auditor.replay("tokens")
    assert found.verdict is Verdict.CONFLICT
    assert found.details[0] == "tokens train/00000.bin: other bytes than train/00000.jsonl.zst gives"


@pytest.mark.parametrize(("key", "told"), [("bytes", 1), ("sha256", {".bin": "0" * 64})])
def test_a_manifest_that_tells_a_shard_wrong_is_found(auditor: Auditor, key: str, told: object) -> None:
    def change(tokens: Path) -> None:
        manifest = json.loads((tokens / "tokens.json").read_bytes())
        manifest["splits"]["train"]["shards"][0][key] = told
        (tokens / "tokens.json").write_bytes(readable(manifest))

    auditor.forge("tokens", change)
    found = auditor.replay("tokens")
    assert found.verdict is Verdict.CONFLICT
    assert "tokens.json: tells other numbers of train/00000" in found.details


def swap_ids(tokens: Path) -> None:
    """Let two documents have each other's tokens."""
    path = tokens / "train.index"
    records = np.fromfile(path, RECORD)
    records["document"][[0, 1]] = records["document"][[1, 0]]
    records[:2] = np.sort(records[:2], order="document")
    path.write_bytes(records.tobytes())


def shorten_index(tokens: Path) -> None:
    path = tokens / "train.index"
    path.write_bytes(path.read_bytes()[: -RECORD.itemsize])


def count_otherwise(tokens: Path) -> None:
    manifest = json.loads((tokens / "tokens.json").read_bytes())
    manifest["splits"]["train"]["domains"]["walks"]["tokens"] += 1
    (tokens / "tokens.json").write_bytes(readable(manifest))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (swap_ids, "tokens train.index: leads elsewhere for document "),
        (shorten_index, "tokens train.index: is not of 103 documents"),
        (lambda tokens: (tokens / "train.index").unlink(), "tokens train.index: is missing"),
        (count_otherwise, "tokens.json: the tokens by domain of train do not add up to "),
    ],
)
def test_an_index_or_counts_that_were_forged_are_found(auditor: Auditor, change: Edit, told: str) -> None:
    auditor.forge("tokens", change)
    found = auditor.replay("tokens")
    assert found.verdict is Verdict.CONFLICT
    assert told in said(found)


def write_notes(tokens: Path) -> None:
    (tokens / "train" / "notes.txt").write_text("?")


def test_a_shard_that_is_listed_twice_or_was_slipped_in_is_found(auditor: Auditor) -> None:
    def slip_in(tokens: Path) -> None:
        for suffix in (".bin", ".ends", ".parquet"):
            shutil.copy(tokens / "train" / f"00000{suffix}", tokens / "train" / f"00001{suffix}")
        manifest = json.loads((tokens / "tokens.json").read_bytes())
        shards = manifest["splits"]["train"]["shards"]
        shards.append({**shards[0], "name": "train/00001"})
        (tokens / "tokens.json").write_bytes(readable(manifest))

    auditor.forge("tokens", slip_in)
    found = auditor.replay("tokens")
    assert found.verdict is Verdict.CONFLICT
    assert "tokens.json: the split train has 206 documents, and was made of 103" in found.details
    auditor.forge("tokens", write_notes)
    assert "tokens train/notes.txt: tokens.json does not name it" in auditor.replay("tokens").details


def test_a_table_that_names_another_source_is_found(auditor: Auditor) -> None:
    def change(tokens: Path) -> None:
        path = tokens / "train" / "00000.parquet"
        table = pq.read_table(path)
        renamed = table.column("licence").cast("string").to_pylist()
        index = table.schema.get_field_index("licence")
        column = table.column("licence").type
        forged = pa.array(["MIT", *renamed[1:]], pa.string()).cast(column)
        pq.write_table(table.set_column(index, table.schema.field(index), forged), path, compression="zstd")

    auditor.forge("tokens", change)
    found = auditor.replay("tokens")
    assert found.verdict is Verdict.CONFLICT
    assert "tokens train/00000.parquet: other bytes" in said(found)


def test_a_forged_tokenizer_is_found(auditor: Auditor) -> None:
    def change(tokenizer: Path) -> None:
        path = tokenizer / "tokenizer.json"
        said = json.loads(path.read_bytes())
        merges = said["model"]["merges"]
        merges[-1], merges[-2] = merges[-2], merges[-1]
        path.write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n")

    auditor.forge("tokenizer", change)
    found = auditor.replay("tokenizer")
    assert found.verdict is Verdict.CONFLICT
    assert "tokenizer.json: trained again on the train split, it is another" in said(found)


def edit_log(checkpoint: Path, step: int) -> None:
    """Make one step of the log look a little better than it was."""
    path = checkpoint / "training.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    line = next(line for line in lines if line["step"] == step)
    line["loss"] = float(f"{line['loss'] * 0.999:.7g}")
    path.write_text("".join(json.dumps(one, sort_keys=True, separators=(",", ":")) + "\n" for one in lines))


@pytest.mark.parametrize(("step", "steps"), [(7, FIRST), (140, LAST)])
def test_a_loss_that_was_edited_is_found(auditor: Auditor, step: int, steps: tuple[int, int]) -> None:
    auditor.forge("checkpoint", lambda checkpoint: edit_log(checkpoint, step))
    found = auditor.replay("checkpoint", steps=steps)
    assert found.verdict is Verdict.CONFLICT
    assert f"step {step}: loss was" in said(found), said(found)


def test_a_loss_that_was_edited_where_nothing_is_trained_again_does_not_fit_the_kept_state(auditor: Auditor) -> None:
    auditor.forge("checkpoint", lambda checkpoint: edit_log(checkpoint, 60))
    found = auditor.replay("checkpoint", steps=LAST)
    assert found.verdict is Verdict.CONFLICT
    assert "came with other lines than training.jsonl begins with" in said(found)


def edit_tensor(path: Path, name: str) -> None:
    tensors = load_file(path)
    tensors[name].view(-1)[0] += 1e-3
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_changed_weight_of_the_checkpoint_is_found(auditor: Auditor) -> None:
    auditor.forge("checkpoint", lambda path: edit_tensor(path / "model-00001-of-00001.safetensors", "norm.weight"))
    found = auditor.replay("checkpoint", steps=LAST)
    assert found.verdict is Verdict.CONFLICT
    assert "checkpoint: model-00001-of-00001.safetensors: other bytes" in said(found)
    assert "the surroundings are those attested, so it must be equal" in said(found)


def test_a_state_that_was_kept_at_the_last_step_proves_nothing_and_is_refused(auditor: Auditor) -> None:
    # Trained on from such a state, every forged weight would come out again: not a step is left.
    weights = auditor.root / "artifacts" / "checkpoint" / "model-00001-of-00001.safetensors"

    def keep(optimizer: Path) -> None:
        tensors = load_file(optimizer / "steps" / "00000100.safetensors")
        tensors |= {f"model.{name}": tensor for name, tensor in load_file(weights).items()}
        state = optimizer / "steps" / "00000150.safetensors"
        save_file(tensors, state, metadata={"format": "pt"})
        manifest = json.loads((optimizer / "steps" / "00000100.json").read_bytes())
        log = (weights.parent / "training.jsonl").read_bytes()
        manifest |= {"step": 150, "sha256": digest_of(state)}
        manifest["log"] = {"length": len(log), "sha256": hashlib.sha256(log).hexdigest()}
        state.with_suffix(".json").write_bytes(readable(manifest))

    auditor.forge("checkpoint", lambda path: edit_tensor(path / weights.name, "norm.weight"))
    auditor.forge("optimizer", keep)
    found = auditor.replay("optimizer")
    assert found.verdict is Verdict.CONFLICT
    assert "the states with the optimizer are not those that the recipe keeps" in found.said


def test_a_weight_that_was_changed_much_is_a_conflict_on_any_hardware(
    auditor: Auditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(path: Path) -> None:
        tensors = load_file(path / "model-00001-of-00001.safetensors")
        tensors["norm.weight"] += 3
        save_file(tensors, path / "model-00001-of-00001.safetensors", metadata={"format": "pt"})

    auditor.forge("checkpoint", change)
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    found = auditor.replay("checkpoint", steps=LAST)
    assert found.verdict is Verdict.CONFLICT
    assert "the weights are further apart than 0.25" in said(found)


def test_a_changed_weight_of_the_exported_model_is_found(auditor: Auditor) -> None:
    auditor.forge("model", lambda path: edit_tensor(path / "model.safetensors", "model.norm.weight"))
    found = auditor.replay("model")
    assert found.verdict is Verdict.CONFLICT
    assert "model: model.safetensors: other bytes" in said(found)


def test_a_model_card_that_tells_another_licence_is_found(auditor: Auditor) -> None:
    def change(model: Path) -> None:
        card = (model / "README.md").read_text()
        assert "Apache-2.0" in card or "apache-2.0" in card
        (model / "README.md").write_text(card.replace("Apache-2.0", "MIT").replace("apache-2.0", "mit"))

    auditor.forge("model", change)
    found = auditor.replay("model")
    assert found.verdict is Verdict.CONFLICT
    assert "model: README.md: other bytes" in found.details


def better(scores: Path, thorough: bool) -> None:
    """Let one document look better, and the totals with it."""
    path = scores / "documents.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    if thorough:
        lines[0]["bits"] = round(lines[0]["bits"] * 0.9, 2)
        path.write_bytes(b"".join(orjson.dumps(line, option=orjson.OPT_SORT_KEYS) + b"\n" for line in lines))
    table = json.loads((scores / "scores.json").read_bytes())
    table["bits_per_byte"]["walks"]["naive"]["bits_per_byte"] -= 0.01
    (scores / "scores.json").write_bytes(readable(table))


@pytest.mark.parametrize(
    ("thorough", "told"), [(True, "bits, has"), (False, "scores.json: walks naive: says")], ids=["bits", "totals"]
)
def test_scores_that_were_made_better_are_found(auditor: Auditor, thorough: bool, told: str) -> None:
    auditor.forge("scores", lambda scores: better(scores, thorough))
    found = auditor.replay("scores", size=100)
    assert found.verdict is Verdict.CONFLICT
    assert told in said(found)


def test_a_report_that_tells_another_number_is_found(auditor: Auditor) -> None:
    def change(report: Path) -> None:
        path = report / "report.html"
        path.write_text(path.read_text().replace("bits per byte", "bits per bit", 1))

    auditor.forge("report", change)
    found = auditor.replay("report")
    assert found.verdict is Verdict.CONFLICT
    assert found.details[0] == "report: report.html: other bytes"


def test_a_lock_that_names_other_bytes_than_its_attestation_is_found(auditor: Auditor) -> None:
    def change(statement: Any) -> None:
        for one in statement["predicate"]["buildDefinition"]["resolvedDependencies"]:
            if one.get("uri") == "text/0003.txt":
                one["digest"]["sha256"] = "0" * 64

    auditor.resign("sources", change)
    found = auditor.replay("sources")
    assert found.verdict is Verdict.CONFLICT
    assert found.details[0].startswith("text/0003.txt: the lock says")


# Interrupted


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_an_audit_that_is_interrupted_in_a_replay_leaves_nothing_behind(
    auditor: Auditor, sent: signal.Signals, code: int
) -> None:
    before = files_of(auditor.root)
    words = ["cairn", "audit", "artifacts/checkpoint", "--replay", "--sample", "all"]
    process = Project(auditor.root).start(*words, TMPDIR=str(auditor.scratch))
    deadline = time.monotonic() + 60
    while not any(log.stat().st_size for log in auditor.scratch.glob("cairn-*/pretrain-*/0/work/training.jsonl")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(sent)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == code, printed
    assert "Traceback" not in printed
    assert [path.name for path in auditor.scratch.iterdir() if path.name.startswith("cairn-")] == []
    assert files_of(auditor.root) == before
