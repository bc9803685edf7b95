"""A model that guesses masked tokens, from text to report: the same bytes on two processes, and no false claims."""

import importlib
import json
from pathlib import Path

import pytest

from cairn.audit.replay import Sample, replay
from cairn.audit.verdicts import Verdict
from cairn.lineage import attestation
from cairn.lineage.artifact import digest_of
from cairn.lineage.places import Places
from cairn.lineage.stage import Component, run_stage
from cairn.lineage.store import Store
from cairn.recipe import load
from cairn.resources import Resources
from components.recipe import Recipe
from pipelines.stages import Stage, place, stages
from tests.cli.conftest import Cairn, cairn
from tests.pipelines.project import Project

__all__ = ["cairn"]  # a fixture


SECTIONS: dict[str, dict[str, object]] = {
    "tokenize": {"mask_token": "<|mask|>"},
    "pretrain.model": {"causal": False, "norm": "layernorm", "qk_norm": "none", "activation": "gelu"},
    "pretrain": {"steps": 24, "keep_every": None, "evaluate_every": 12, "checkpoint_every": 100},
    "evaluate": {"resamples": 50, "prompts": 1},
}
OVERRIDES = [f"{name}.{key}={json.dumps(value)}" for name, keys in SECTIONS.items() for key, value in keys.items()]


def make(stage: Stage, root: Path, *before: Path, processes: int = 1) -> dict[str, Path]:
    """Run a stage in this process, on what is in `root` or else in the first folder before it that has it."""
    component = Component.of(f"components.{stage.name}")
    inputs = {
        name: next(folder / path for folder in (root, *before) if (folder / path).exists())
        for name, path in stage.inputs.items()
    }
    outputs = {name: root / path for name, path in stage.outputs.items()}
    run_stage(
        component,
        getattr(load(Recipe, before[-1] / "params.yaml", OVERRIDES), stage.name),
        importlib.import_module(f"components.{stage.name}.__main__").work,
        inputs=inputs,
        outputs=outputs,
        store=Store(str(root / ".cairn" / "store")),
        resources=Resources(workers=1, processes=processes),
        home=root / ".cairn",
    )
    return outputs


@pytest.fixture(scope="module")
def masked(built: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The text of the built project, and a masked model made of it."""
    root = tmp_path_factory.mktemp("masked")
    for stage in stages()[2:]:
        make(stage, root, built.root)
    return Project(root)


def test_every_artifact_is_made_and_what_it_says_is_of_masked_tokens(masked: Project) -> None:
    artifacts = masked.root / "artifacts"
    scores = json.loads((artifacts / "scores" / "scores.json").read_bytes())
    assert list(scores["masked"]) == ["0.15", "0.3"]
    assert "compressor" not in json.dumps(scores)
    page = (artifacts / "report" / "report.html").read_text()
    assert "Bits per masked byte" in page
    assert "AutoModelForMaskedLM" in page
    last = json.loads((artifacts / "checkpoint" / "training.jsonl").read_text().splitlines()[-1])
    assert {"development_masked_loss_15.walks", "development_masked_loss_30.walks"} < last.keys()
    table = (artifacts / "report" / "development.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in table] == [["step", "domain"], ["12", "walks"], ["24", "walks"]]


def test_two_processes_make_the_same_checkpoint(masked: Project, built: Project, tmp_path: Path) -> None:
    made, digests = make(stages()[3], tmp_path, masked.root, built.root, processes=2), masked.digests()
    assert {name: digest_of(path) for name, path in made.items()} == {name: digests[name] for name in made}


def test_an_audit_scores_held_out_documents_again(
    masked: Project, built: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(masked.root)
    store = Store(str(masked.root / ".cairn" / "store"))
    attested = attestation.maker(store, digest_of(masked.root / place("scores")) or "")
    assert attested is not None
    here = [masked.root / place("model"), masked.root / place("scores"), built.root / place("documents")]
    places = Places(store, tmp_path / "fetched", here)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found = replay(
        attested,
        places,
        store=store,
        sample=Sample(size=4),
        scratch=scratch,
        resources=Resources(workers=1, processes=1),
    )
    assert found.verdict in (Verdict.REPRODUCED, Verdict.CLOSE), found
    assert "4 of " in found.said
    assert "held-out documents were scored again (seed 0)" in found.said


def test_what_is_generated_is_filled_in(masked: Project, cairn: Cairn) -> None:
    said = cairn("generate", "The <|mask|> marks the path", "--json", at=masked.root)
    assert said.code == 0, said.err
    told = json.loads(said.out)
    (guesses,) = told["masks"]
    assert len(guesses) == 5
    assert told["text"] == f"The{guesses[0]['text']} marks the path"
    shown = cairn("generate", "The <|mask|> marks the path", "--top-k", "2", at=masked.root)
    assert shown.out == f"{told['text']}\n"
    assert shown.err.startswith(f"1: {guesses[0]['text']!r} ")
    assert shown.err.count("%") == 2
    refused = cairn("generate", "The", at=masked.root)
    assert refused.code == 2
    assert refused.err.splitlines()[-1].startswith("error: the prompt: has no <|mask|>: write it where the model")
