"""dvc.lock, compared with what DVC's own code writes for the same recipe and outputs."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from dvc.dependency.param import read_param_file
from dvc.fs import LocalFileSystem
from dvc.utils.serialize import modify_yaml
from ruamel.yaml import YAML

from cairn.errors import ArtifactError
from cairn.lineage.artifact import Artifact, Member
from pipelines.dvc_lock import entry, lock
from pipelines.stages import stages

INGEST, TOKENIZE = stages()[1], stages()[2]
FILE = Artifact((Member("sources.lock.json", "a" * 64, "b" * 32, 7),), is_directory=False)
FOLDER = Artifact((Member("x", "c" * 64, "d" * 32, 5), Member("y/z", "e" * 64, "f" * 32, 6)), is_directory=True)
ARTIFACTS = {"sources": FILE, "documents": FOLDER, "tokenizer": FOLDER, "tokens": FOLDER}


def by_dvc(path: Path, recipe: Path, known: dict[str, dict[str, Any]]) -> None:
    """What dvc.dvcfile.Lockfile.dump_stages does for each stage that ran."""
    for name, said in known.items():
        params = read_param_file(LocalFileSystem(), str(recipe), [name], flatten=True)
        made = OrderedDict(said)
        made["params"] = OrderedDict([("params.yaml", OrderedDict(params))])
        with modify_yaml(str(path)) as data:
            if not data:
                data.update({"schema": "2.0"})
            data["stages"] = data.get("stages", {})
            data["stages"].update({name: made})


NUMBERS = """
ingest: {rate: 1e-9, small: 0.00001, large: 1e22, none: null, on: yes, octal: 010, sign: -0.0}
tokenize: {a: [1, 2], empty: [], nothing: {}}
"""
TEXTS = """
ingest: {text: 'it: is # quoted', empty: '', number: '1e3', umlaut: Größe}
tokenize:
  multi: |
    a
    b
"""
LONG = f"""
ingest: {{long: {"word " * 40}, url: 's3://bucket/{"x" * 120}'}}
tokenize: [1, [2], {{b: 3}}]
"""
SHARED = """
ingest: {first: &it {z: 1, a: 2}, again: *it}
tokenize: {shared: *it}
"""


@pytest.mark.parametrize("recipe", [NUMBERS, TEXTS, LONG, SHARED])
def test_any_recipe_is_spelled_as_dvc_spells_it(tmp_path: Path, recipe: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(recipe)
    values = YAML(typ="safe").load(recipe)
    entries = {one.name: entry(one, values[one.name], ARTIFACTS) for one in (INGEST, TOKENIZE)}
    by_dvc(tmp_path / "dvc.lock", path, entries)
    assert lock(None, entries).text == (tmp_path / "dvc.lock").read_text()
    # And over a file that somebody has written comments into.
    ours = (tmp_path / "dvc.lock").read_text().replace("\n  tokenize:", "\n  # of last year\n  tokenize:")
    other = {name: {**said, "cmd": "another"} for name, said in entries.items()}
    (tmp_path / "dvc.lock").write_text(ours)
    by_dvc(tmp_path / "dvc.lock", path, other)
    assert lock(ours, other).text == (tmp_path / "dvc.lock").read_text()


def test_what_is_there_already_is_not_touched_whatever_its_spelling() -> None:
    entries = {INGEST.name: entry(INGEST, {"a": 1}, ARTIFACTS)}
    text = lock(None, entries).text.replace("schema: '2.0'", 'schema: "2.0"   # by hand')
    again = lock(text, entries)
    assert (again.text, again.written, again.dropped) == (text, (), ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stages: [", "dvc.lock:1: not valid YAML"),
        ("<<<<<<< HEAD\nschema: '2.0'\n=======\n", "dvc.lock:"),
        ("schema: '1.0'\n", "is no lock file of DVC's with schema 2.0"),
        ("- a\n", "is no lock file of DVC's with schema 2.0"),
        ("schema: '2.0'\nstages:\n- a\n", "its stages are no mapping"),
        ("schema: '2.0'\nstages:\n  ingest: 3\n", "its stages are no mapping"),
    ],
)
def test_what_is_no_lock_file_is_refused_with_the_way_out(text: str, said: str) -> None:
    with pytest.raises(ArtifactError, match=r"git checkout dvc\.lock") as caught:
        lock(text, {})
    assert said in str(caught.value)
