"""`cairn pin`: from a run's records to dvc.lock and a commit; and what may be wrong on the way, each in one line."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cairn.errors import GitError
from cairn.lineage import signing
from cairn.lineage.pins import address, directory_address, directory_listing
from cairn.lineage.store import Store
from pipelines.commits import Repository
from pipelines.stages import NAMES
from tests.cli.conftest import Cairn, Said
from tests.pipelines.project import Project

LATER = ("evaluate", "report")


@pytest.fixture(scope="module")
def pushed(built: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The built project with its artifacts in the store, where `dvc push` put them."""
    root = tmp_path_factory.mktemp("pushed") / "project"
    shutil.copytree(built.root, root, symlinks=True)
    project = Project(root)
    project.run("dvc", "push")
    shutil.rmtree(root / "artifacts")
    shutil.rmtree(root / ".dvc" / "cache")
    return project


@pytest.fixture
def project(pushed: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of it that a test may change."""
    shutil.copytree(pushed.root, tmp_path / "project", symlinks=True)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@example.invalid")
    monkeypatch.delenv("CAIRN_STORE", raising=False)
    return Project(tmp_path / "project")


def store(project: Project) -> Store:
    return Store(str(project.root / ".cairn" / "store"))


def record(project: Project, stage: str) -> Path:
    return project.root / ".cairn" / "store" / "runs" / "built" / f"{stage}.json"


def change(project: Project, stage: str, **fields: Any) -> None:
    """Write over fields of a record."""
    path = record(project, stage)
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **fields}))


def noted(project: Project, stage: str) -> Any:
    return json.loads(record(project, stage).read_bytes())


def fault(said: Said) -> str:
    """The one line that an error is."""
    assert said.code == 2, said.out
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return said.err.removeprefix("error: ").strip()


# What is written


def test_the_lock_is_byte_for_byte_what_dvc_repro_wrote(cairn: Cairn, project: Project) -> None:
    (project.root / "dvc.lock").unlink()
    (project.root / "sources.lock.json").unlink()
    said = cairn("pin", "built", at=project.root)
    assert said.code == 0, said.err
    assert "dvc.lock, sources.lock.json written" in said.out
    assert project.git("status", "--porcelain") == ""
    assert "every file was so already" in cairn("pin", "built", at=project.root).out


def test_a_damaged_lock_is_written_as_dvc_would_write_it_and_what_others_wrote_stays(
    cairn: Cairn, project: Project
) -> None:
    path = project.root / "dvc.lock"
    sound = path.read_text()
    model = noted(project, "export")["outputs"]["model"]
    listing = directory_address(store(project).pin(model))  # type: ignore[arg-type]
    path.write_text("# ours\n" + sound.replace(listing, "0" * 32 + ".dir"))
    project.commit("An edited lock file")
    said = cairn("pin", "built", "--json", at=project.root)
    assert json.loads(said.out)["files"] == ["dvc.lock"]
    assert path.read_text() == "# ours\n" + sound


def test_a_dry_run_checks_everything_and_writes_nothing(cairn: Cairn, project: Project) -> None:
    (project.root / "dvc.lock").unlink()
    said = json.loads(cairn("pin", "built", "--dry-run", "--json", at=project.root).out)
    assert said["files"] == ["dvc.lock"]
    assert not said["written"]
    assert not (project.root / "dvc.lock").exists()


def test_the_runs_of_the_store_are_listed(cairn: Cairn, project: Project) -> None:
    listed = json.loads(cairn("pin", "--json", at=project.root).out)
    model = noted(project, "export")["outputs"]["model"]
    assert listed["built"]["stages"] == list(NAMES)
    assert listed["built"]["model"] == model
    assert cairn("pin", at=project.root).out.splitlines()[1].split()[-2:] == ["all", model[:12]]


# Runs that are not whole


def test_of_a_killed_run_what_was_finished_is_pinned(cairn: Cairn, project: Project) -> None:
    for stage in LATER:
        record(project, stage).unlink()
    (project.root / "dvc.lock").unlink()
    said = cairn("pin", "built", at=project.root)
    assert "run built has no evaluate, report: `dvc repro` makes what is not pinned" in said.out
    lock = (project.root / "dvc.lock").read_text()
    assert "  export:" in lock
    assert not any(f"  {stage}:\n    cmd" in lock for stage in LATER)


def test_an_entry_that_fits_the_run_stays_and_one_that_was_made_of_something_else_goes(
    cairn: Cairn, project: Project
) -> None:
    record(project, "report").unlink()
    path = project.root / "dvc.lock"
    sound = path.read_text()
    assert json.loads(cairn("pin", "built", "--json", at=project.root).out)["dropped"] == []
    assert path.read_text() == sound
    before, after = sound.split("\n  report:")
    scores = directory_address(store(project).pin(noted(project, "evaluate")["outputs"]["scores"]))  # type: ignore[arg-type]
    path.write_text(f"{before}\n  report:{after.replace(scores, '0' * 32 + '.dir')}")
    project.commit("A report of other scores")
    said = cairn("pin", "built", at=project.root)
    assert "dropped: made of something else" in said.out
    assert path.read_text() == before + "\n"


def test_a_stage_that_is_missing_in_the_middle_is_told(cairn: Cairn, project: Project) -> None:
    record(project, "tokenize").unlink()
    assert "run built has no tokenize:" in cairn("pin", "built", at=project.root).out


def test_two_runs_under_one_name_are_told_apart(cairn: Cairn, project: Project) -> None:
    outputs = noted(project, "tokenize")["outputs"]
    change(project, "tokenize", outputs={**outputs, "tokens": "ab" * 32})
    tokens = outputs["tokens"][:12]
    assert fault(cairn("pin", "built", at=project.root)) == (
        f"run built: pretrain read tokens {tokens}, but tokenize made abababababab: two runs wrote under this name: "
        "run one of them again under another"
    )


def test_a_run_that_goes_on_under_its_name_says_what_it_replaces(project: Project) -> None:
    printed = project.run("cairn", "run", "--run", "built", "--until", "snapshot")
    assert "had noted" not in printed
    change(project, "snapshot", outputs={"sources": "ab" * 32})
    printed = project.run("cairn", "run", "--run", "built", "--until", "snapshot")
    assert "run built\n" in printed
    assert "snapshot: run built had noted sources abababababab (" in printed
    assert noted(project, "snapshot")["outcome"] == "up to date"


# What does not fit


def test_the_beginning_of_a_name_is_enough_where_it_means_one_run(cairn: Cairn, project: Project) -> None:
    assert json.loads(cairn("pin", "bui", "--json", at=project.root).out)["run"] == "built"
    shutil.copytree(record(project, "export").parent, record(project, "export").parent.with_name("building"))
    said = fault(cairn("pin", "bui", at=project.root))
    assert said == "run bui: 2 runs have names that begin so: write more of it"


def test_no_such_run(cairn: Cairn, project: Project) -> None:
    assert fault(cairn("pin", "bilt", at=project.root)).endswith(": did you mean built?")
    assert "is no name for a run" in fault(cairn("pin", "../built", at=project.root))


def test_another_recipe_is_refused_and_taken_when_asked_with_the_comments_kept(cairn: Cairn, project: Project) -> None:
    path = project.root / "params.yaml"
    sound = path.read_text()
    text = sound.replace("steps: 150", "steps: 7  # a try").replace("ingest:\n", "# Text in\ningest:\n")
    text = text.replace("  dtype: float32\n", "")
    path.write_text(text)
    project.commit("Another recipe")
    refused = fault(cairn("pin", "built", at=project.root))
    said = "params.yaml: is another recipe than that of run built: pretrain.steps (7 here, 150 there)"
    assert refused == f"{said}: `--recipe` takes the run's, and with `--branch NAME` this folder keeps its own"
    assert path.read_text() == text
    taken = cairn("pin", "built", "--recipe", "--commit", at=project.root)
    assert "pretrain.steps: 7 → 150" in taken.out
    now = path.read_text()
    assert "# Text in\ningest:" in now
    assert "steps: 150 # a try" in now
    assert project.git("status", "--porcelain") == ""


@pytest.mark.parametrize("field", ["outputs", "inputs", "section"])
def test_a_record_that_no_attestation_bears_out_is_refused(cairn: Cairn, project: Project, field: str) -> None:
    there = noted(project, "ingest")[field]
    other = {**there, "min_document_bytes": 1} if field == "section" else dict.fromkeys(there, "ab" * 32)
    for stage in NAMES[2:]:
        record(project, stage).unlink()
    if field == "inputs":
        record(project, "snapshot").unlink()
    change(project, "ingest", **{field: other})
    assert fault(cairn("pin", "built", at=project.root)).startswith("run built: no attestation says ")


def test_a_pin_that_leads_dvc_to_other_bytes_is_named(cairn: Cairn, project: Project) -> None:
    """Its digest is right: of addresses it says nothing."""
    digest = noted(project, "export")["outputs"]["model"]
    artifact = store(project).pin(digest)
    assert artifact
    poison = project.root / "poison"
    poison.write_bytes(b"!" * artifact.members[0].size)
    other = store(project).put(poison).members[0]
    lying = replace(artifact, members=(replace(artifact.members[0], md5=other.md5), *artifact.members[1:]))
    store(project).write_pin(lying)
    store(project).write(address(directory_address(lying)), directory_listing(lying))
    assert store(project).pin(digest) == lying
    told = fault(cairn("pin", "built", at=project.root))
    assert f"pins/{digest}.json: has other addresses than were attested" in told
    assert told.endswith("run export again")


def test_a_record_that_was_cut_short_is_named(cairn: Cairn, project: Project) -> None:
    path = record(project, "export")
    path.write_bytes(path.read_bytes()[:-9])
    assert "runs/built/export.json: is no record of a stage" in fault(cairn("pin", "built", at=project.root))
    listed = cairn("pin", "--json", at=project.root)
    assert json.loads(listed.out)["built"]["stages"] == [name for name in NAMES if name != "export"]
    assert "runs/built/export.json: is no record of a stage" in listed.err


def test_another_version_says_which_cairn(cairn: Cairn, project: Project) -> None:
    change(project, "export", version="9.9.9", cairn="9.1.0")
    assert "pin it with Cairn 9.1.0" in fault(cairn("pin", "built", at=project.root))


def test_whoever_trusts_no_key_of_the_cluster_is_told_where_to_put_it(
    cairn: Cairn, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = signing.home() / "signing-key.pub.pem"
    monkeypatch.setenv("CAIRN_HOME", str(tmp_path / "another"))
    assert str(tmp_path / "another" / "trusted") in fault(cairn("pin", "built", at=project.root))
    (tmp_path / "another" / "trusted").mkdir(parents=True)
    shutil.copy(public, tmp_path / "another" / "trusted" / "cluster.pem")
    assert cairn("pin", "built", at=project.root).code == 0


def test_single_flipped_bits_of_a_pin_are_each_told(cairn: Cairn, project: Project) -> None:
    path = Path(store(project).url, "pins", f"{noted(project, 'export')['outputs']['model']}.json")
    sound = path.read_bytes()
    chance = random.Random(4)
    md5 = sound.index(b'"md5": "') + len(b'"md5": "')  # of which the digest says nothing
    for bit in [md5 * 8, *(chance.randrange(len(sound) * 8) for _ in range(12))]:
        flipped = bytearray(sound)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert f"pins/{path.name}: does not describe this artifact" in fault(cairn("pin", "built", at=project.root))
    path.unlink()
    assert "holds no pin for model" in fault(cairn("pin", "built", at=project.root))


# Where the bytes are


def test_bytes_that_only_the_project_has_are_sent_to_where_dvc_pull_looks(
    cairn: Cairn, copy: Project, tmp_path: Path
) -> None:
    """What `cairn run` makes stays in artifacts/, and a store elsewhere has nothing but its pins."""
    shutil.rmtree(copy.root / ".dvc" / "cache")
    before = sorted((copy.root / ".cairn/store").rglob("*"))
    said = cairn("pin", "built", "--dry-run", at=copy.root)
    assert "would be sent to the store, from this folder: artifacts/documents, " in said.out
    assert sorted((copy.root / ".cairn/store").rglob("*")) == before
    said = cairn("pin", "built", "--branch", "pinned", at=copy.root)
    assert said.code == 0, said.err
    assert "sent to the store, from this folder: artifacts/documents, " in said.out
    clone = Project(tmp_path / "clone")
    copy.git("clone", "-q", "-b", "pinned", ".", str(clone.root))
    clone.run("dvc", "remote", "modify", "--local", "store", "url", str(copy.root / ".cairn/store"))
    clone.run("dvc", "pull")
    assert (clone.root / "artifacts/model/config.json").exists()
    assert json.loads(cairn("pin", "built", "--json", at=copy.root).out)["sent"] == {}


def test_bytes_that_the_project_has_only_changed_are_missed_before_dvc_pull_does(cairn: Cairn, copy: Project) -> None:
    (copy.root / "artifacts/tokens/tokens.json").write_text("{}")
    said = fault(cairn("pin", "built", at=copy.root))
    assert "tokens (" in said
    assert "and artifacts/tokens holds another artifact: `cairn pin` or `dvc push` where its bytes are" in said


def test_a_listing_that_is_missing_is_written_anew(cairn: Cairn, project: Project) -> None:
    model = store(project).pin(noted(project, "export")["outputs"]["model"])
    assert model
    listing = Path(store(project).url, address(directory_address(model)))
    sound = listing.read_bytes()
    listing.unlink()
    cairn("pin", "built", "--dry-run", at=project.root)
    assert not listing.exists()
    assert "is written anew" in cairn("pin", "built", at=project.root).err
    assert listing.read_bytes() == sound


def test_a_store_that_is_not_the_dvc_remote_is_told(
    cairn: Cairn, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = project.root / ".dvc" / "config"
    config.write_text(config.read_text().replace("../.cairn/store", "/nowhere/store"))
    monkeypatch.setenv("CAIRN_STORE", str(project.root / ".cairn" / "store"))
    said = fault(cairn("pin", "built", at=project.root))
    assert "/nowhere/store: `dvc pull` looks there, and documents (" in said
    assert f"the run is in {project.root}/.cairn/store: make that the default DVC remote" in said
    config.write_text("[core]\n    analytics = false\n")
    assert fault(cairn("pin", "built", at=project.root)).startswith("no DVC remote is the default")


def test_neither_push_nor_gc_of_dvc_touches_records(cairn: Cairn, project: Project) -> None:
    def records() -> set[str]:
        folders = ("runs", "pins", "attestations", "stages")
        return {str(path) for name in folders for path in Path(store(project).url, name).rglob("*")}

    before = records()
    project.run("dvc", "gc", "--workspace", "--cloud", "--force")
    assert records() == before
    said = cairn("pin", "built", at=project.root)
    assert said.code == 0
    # DVC knows nothing of the sources' objects, and keeps their lock file in Git.
    assert "the source objects" in said.err
    (project.root / "sources.lock.json").unlink()
    assert "sources.lock.json is missing from the store" in fault(cairn("pin", "built", at=project.root))


# Git


def test_a_commit_holds_the_pins_and_nothing_else_that_is_staged(cairn: Cairn, project: Project) -> None:
    (project.root / "dvc.lock").unlink()
    (project.root / "sources.lock.json").unlink()
    project.commit("Without pins")
    (project.root / "notes.txt").write_text("mine")
    project.git("add", "notes.txt")
    said = cairn("pin", "built", "--commit", "--message", "#1, the first model", at=project.root)
    assert said.code == 0, said.err
    assert project.git("show", "--format=%s", "--name-only", "HEAD").split("\n\n") == [
        "#1, the first model",
        "dvc.lock\nsources.lock.json\n",
    ]
    assert project.git("status", "--porcelain") == "A  notes.txt\n"
    assert "Cairn-Run: built" in project.git("log", "-1", "--format=%(trailers)")
    assert "nothing to commit" in cairn("pin", "built", "--commit", at=project.root).out


def test_a_branch_takes_the_recipe_of_the_run_and_the_folder_stays(cairn: Cairn, project: Project) -> None:
    path = project.root / "params.yaml"
    path.write_text(path.read_text().replace("steps: 150", "steps: 7"))
    project.commit("Another recipe")
    project.git("rm", "-q", "--cached", "dvc.lock", ".gitignore")
    project.git("commit", "-qm", "Neither lock nor ignored outputs")
    (project.root / "loose.txt").write_text("mine")
    before = project.git("status", "--porcelain")
    assert "pretrain.steps (7 here, 150 there)" in fault(
        cairn("pin", "built", "--branch", "runs/built", at=project.root)
    )
    said = cairn("pin", "built", "--branch", "runs/built", "--recipe", at=project.root)
    assert said.code == 0, said.err
    assert project.git("status", "--porcelain") == before
    changed = project.git("diff", "--name-only", "main", "runs/built").split()
    assert changed == ["artifacts/.gitignore", "dvc.lock", "params.yaml"]
    assert "/model\n" in project.git("show", "runs/built:artifacts/.gitignore")
    assert "steps: 150" in project.git("show", "runs/built:params.yaml")
    # Once more, on the branch that is there now.
    assert "pins it so already" in cairn("pin", "built", "--branch", "runs/built", at=project.root).out
    project.git("worktree", "add", "-q", str(project.root.parent / "beside"), "runs/built")
    assert "is checked out" in fault(cairn("pin", "built", "--branch", "runs/built", at=project.root))


def test_a_branch_that_needs_no_commit_begins_where_the_project_is(cairn: Cairn, project: Project) -> None:
    assert cairn("pin", "built", "--commit", at=project.root).code == 0
    for said in ("nothing to commit: again pins it so already; the branch begins at ", "again pins it so already\n"):
        assert said in cairn("pin", "built", "--branch", "again", at=project.root).out
        assert project.git("rev-parse", "again") == project.git("rev-parse", "HEAD")


@pytest.mark.parametrize("words", [("--commit",), ("--branch", "x"), ("--dry-run",), ("--recipe",)])
def test_what_is_said_of_no_run_is_refused(cairn: Cairn, project: Project, words: tuple[str, ...]) -> None:
    said = fault(cairn("pin", *words, at=project.root))
    assert said == f"{words[0]}: says something about a run: name the run (`cairn pin` lists them)"


def test_a_store_that_is_not_there_is_told_as_such(cairn: Cairn, project: Project) -> None:
    assert fault(cairn("pin", "built", "--store", "/nope", at=project.root)).startswith("/nope: no such folder")


def test_a_branch_that_somebody_moved_meanwhile_is_not_moved_back(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    project.git("branch", "pinned")
    repository = Repository.here()
    tip = repository.tip("pinned")
    assert tip is not None
    repository.commit_on("pinned", tip, tip, {Path("theirs"): b"1"}, "Theirs")
    moved = project.git("rev-parse", "pinned")
    with pytest.raises(GitError, match="--branch pinned: was moved by somebody else meanwhile: try again"):
        repository.commit_on("pinned", tip, tip, {Path("ours"): b"2"}, "Ours")
    assert project.git("rev-parse", "pinned") == moved
    with pytest.raises(GitError, match="cannot be the name of a branch"):
        repository.tip("two words")


def test_a_hook_that_refuses_is_told_and_the_files_stay(cairn: Cairn, project: Project) -> None:
    project.git("rm", "-q", "dvc.lock")
    project.git("commit", "-qm", "Without a lock file")
    hook = project.root / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho not on a Friday >&2\nexit 1\n")
    hook.chmod(0o755)
    said = fault(cairn("pin", "built", "--commit", at=project.root))
    assert said == "dvc.lock: written, but not committed: git commit: not on a Friday"
    assert (project.root / "dvc.lock").exists()


def test_a_project_may_lie_in_a_folder_of_its_repository(cairn: Cairn, project: Project, tmp_path: Path) -> None:
    lock = (project.root / "dvc.lock").read_bytes()
    (project.root / "dvc.lock").unlink()
    (project.root / ".gitignore").unlink()
    shutil.rmtree(project.root / ".git")
    outer = tmp_path / "outer"
    outer.mkdir()
    shutil.move(project.root, outer / "inner")
    inner = Project(outer / "inner")
    around = Project(outer)
    around.git("init", "-q", "-b", "main")
    around.git("add", "inner/dvc.yaml", "inner/params.yaml")
    around.git("commit", "-qm", "A project among others")
    assert cairn("pin", "built", "--branch", "pinned", at=inner.root).code == 0
    changed = ["inner/artifacts/.gitignore", "inner/dvc.lock", "inner/sources.lock.json"]
    assert around.git("diff", "--name-only", "main", "pinned").split() == changed
    assert around.git("show", "pinned:inner/dvc.lock").encode() == lock
    (inner.root / "sources.lock.json").unlink()
    assert cairn("pin", "built", "--commit", at=inner.root).code == 0
    assert around.git("rev-parse", "main^{tree}") == around.git("rev-parse", "pinned^{tree}")


def test_edits_that_are_not_committed_are_not_written_over(cairn: Cairn, project: Project) -> None:
    path = project.root / "dvc.lock"
    edited = path.read_text().replace("md5: ", "md5: 0")
    path.write_text(edited)
    said = fault(cairn("pin", "built", at=project.root))
    assert said.startswith("dvc.lock: was changed and is not committed: commit it, or put it back")
    path.write_text("stages: [\n")
    assert fault(cairn("pin", "built", at=project.root)).startswith("dvc.lock:2: not valid YAML: ")
    path.write_text("schema: '1.0'\n")
    assert "is no lock file of DVC's with schema 2.0" in fault(cairn("pin", "built", at=project.root))


def test_a_dag_of_another_cairn_is_refused(cairn: Cairn, project: Project) -> None:
    path = project.root / "dvc.yaml"
    text = path.read_text()
    path.write_text(text.replace("-m components.export --for-version 0", "-m components.export --for-version 1"))
    assert fault(cairn("pin", "built", at=project.root)).startswith("dvc.yaml: its stage export is not what this Cairn")
    path.write_text(text + "# mine\n")
    assert "dvc.yaml: is not committed" in fault(cairn("pin", "built", "--commit", at=project.root))


def test_without_git_there_is_nothing_to_commit_to(
    cairn: Cairn, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(project.root / ".git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.root.parent))
    (project.root / "dvc.lock").unlink()
    assert "without Git there is nothing to commit to" in fault(cairn("pin", "built", "--commit", at=project.root))
    assert not (project.root / "dvc.lock").exists()
    assert cairn("pin", "built", at=project.root).code == 0
    assert (project.root / "dvc.lock").exists()
    monkeypatch.setenv("PATH", "")
    assert "git: is not installed" in fault(cairn("pin", "built", "--branch", "x", at=project.root))
