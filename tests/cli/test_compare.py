"""`cairn compare`: runs by folder, digest and revision; differences by document."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from cairn.lineage.artifact import digest_of
from tests.cli.conftest import Cairn, on_a_terminal
from tests.pipelines.project import Project


def write_scores(folder: Path, bits: dict[str, float], overlap: float = 0.0) -> Path:
    """A scores artifact of documents of 100 bytes in one domain."""
    folder.mkdir(parents=True)
    row: dict[str, Any] = {"documents": len(bits), "bytes": 100 * len(bits)}
    row |= {"bits_per_byte": round(sum(bits.values()) / row["bytes"], 4), "low": 0.1, "high": 9.9, "compressors": {}}
    setting = {"context": 64, "stride": 32, "leak_threshold": 0.2}
    table = {"notes": {"naive": row, "filtered": row if overlap < 0.2 else {"documents": 0, "bytes": 0}}}
    (folder / "scores.json").write_text(json.dumps({"bits_per_byte": table, "setting": setting}))
    lines = [
        json.dumps({"id": name, "domain": "notes", "bytes": 100, "bits": value, "overlap": overlap})
        for name, value in bits.items()
    ]
    (folder / "documents.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def rows(text: str) -> dict[str, dict[str, Any]]:
    return {f"{row['domain']} {row['set']}": row for row in json.loads(text)["scores"]}


def test_a_small_difference_shows_although_the_documents_differ_far_more(cairn: Cairn, tmp_path: Path) -> None:
    chance = random.Random(0)
    first = {f"d{number}": chance.uniform(50, 500) for number in range(40)}
    second = {name: value - 1 + chance.uniform(-1, 1) for name, value in first.items()}
    one, other = write_scores(tmp_path / "one", first), write_scores(tmp_path / "other", second)
    row = rows(cairn("compare", str(one), str(other), "--json", at=tmp_path).out)["notes naive"]
    exact = (sum(second.values()) - sum(first.values())) / 4000
    assert row["difference"] == pytest.approx(exact)
    assert row["low"] < exact < row["high"] < 0
    assert (row["verdict"], row["documents"]) == ("better", 40)
    back = rows(cairn("compare", str(other), str(one), "--json", at=tmp_path).out)["notes naive"]
    assert (back["verdict"], back["difference"]) == ("worse", pytest.approx(-exact))


def test_chance_is_no_difference_and_the_same_bits_are_none(cairn: Cairn, tmp_path: Path) -> None:
    chance = random.Random(1)
    first = {f"d{number}": chance.uniform(50, 500) for number in range(40)}
    second = {name: value + chance.uniform(-20, 20) for name, value in first.items()}
    one, other = write_scores(tmp_path / "one", first), write_scores(tmp_path / "other", second)
    assert rows(cairn("compare", str(one), str(other), "--json", at=tmp_path).out)["notes naive"]["verdict"] == (
        "not clearly different"
    )
    shown = cairn("compare", str(one), str(one), at=tmp_path).out
    assert "+0.0000 [+0.000, +0.000]" in shown
    assert "no trusted attestation says how it was made" in shown


def test_only_documents_that_both_scored_are_compared(cairn: Cairn, tmp_path: Path) -> None:
    one = write_scores(tmp_path / "one", {"a": 100.0, "b": 200.0})
    other = write_scores(tmp_path / "other", {"b": 190.0, "c": 5.0}, overlap=0.5)
    found = rows(cairn("compare", str(one), str(other), "--json", at=tmp_path).out)
    assert (found["notes naive"]["documents"], found["notes naive"]["difference"]) == (1, pytest.approx(-0.1))
    assert (found["notes filtered"]["documents"], found["notes filtered"]["difference"]) == (0, None)
    assert found["notes filtered"]["verdict"] == "no common documents"
    assert "no documents" in cairn("compare", str(one), str(other), at=tmp_path).out


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("scores.json", "{", "scores.json: is damaged, or no scores of this version: "),
        ("scores.json", '{"bits_per_byte": {"notes": {}}, "setting": {}}', "scores.json: is damaged, or no scores"),
        ("documents.jsonl", '{"id": "a"}\n', "documents.jsonl:1: is damaged: run the evaluate stage again"),
        ("documents.jsonl", "\0\n", "documents.jsonl:1: is damaged: run the evaluate stage again"),
        ("documents.jsonl", None, "documents.jsonl: no such file: the evaluate stage makes it"),
    ],
)
def test_damaged_scores_are_named(cairn: Cairn, tmp_path: Path, file: str, content: str | None, message: str) -> None:
    one = write_scores(tmp_path / "one", {"a": 1.0})
    other = write_scores(tmp_path / "other", {"a": 1.0})
    (other / file).unlink()
    if content is not None:
        (other / file).write_text(content)
    said = cairn("compare", "one", "other", at=tmp_path)
    assert said.code == 2
    assert one.exists()
    assert said.err.startswith(f"error: other/{message}")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "nowhere: no folder, no digest of scores in .cairn/store, and no Git revision"),
        ("HEAD~1", "HEAD~1: has no dvc.lock: only what `dvc repro` made and was committed can be found so"),
        ("text", "text: neither a scores artifact nor a project with artifacts/scores"),
    ],
)
def test_what_names_no_run_is_told(cairn: Cairn, built: Project, name: str, message: str) -> None:
    said = cairn("compare", name, at=built.root)
    assert said.code == 2
    assert said.err.startswith(f"error: {message}")


def test_a_digest_of_something_else_is_told(cairn: Cairn, built: Project) -> None:
    model = digest_of(built.root / "artifacts" / "model")
    said = cairn("compare", str(model)[:16], at=built.root)
    assert said.err == f"error: {str(model)[:16]}: is the digest of an artifact that holds no scores\n"


def test_two_runs_are_found_by_revision_digest_and_folder_and_their_recipes_compared(
    cairn: Cairn, copy: Project, built: Project
) -> None:
    before = copy.digests()
    recipe = copy.recipe()
    recipe["evaluate"]["stride"] = 16
    recipe["evaluate"]["resamples"] = 100
    copy.write_recipe(recipe)
    assert copy.ran(copy.run("dvc", "repro", "evaluate")) == ["evaluate"]
    copy.commit("Another stride")
    after = copy.digests()
    for name in ("HEAD~1", str(before["scores"])[:12], str(built.root)):
        said = json.loads(cairn("compare", name, "--json", at=copy.root).out)
        assert said["first"]["scores"] == before["scores"]
        assert said["second"]["scores"] == after["scores"]
        assert said["first"]["digests"]["documents"] == before["documents"]
        assert [(one["part"], one["name"]) for one in said["differences"]] == [
            ("recipe", "evaluate.resamples"),
            ("recipe", "evaluate.stride"),
            ("output", "scores"),
        ]
    shown = cairn("compare", "HEAD~1", "HEAD", at=copy.root).out
    assert "evaluate.stride     null          16" in shown
    assert "scored differently, so not comparable as they are" in shown
    assert "made alike" in cairn("compare", ".", "HEAD", at=copy.root).out


def test_scores_that_are_no_longer_kept_are_told_with_the_way_out(cairn: Cairn, copy: Project) -> None:
    shutil.rmtree(copy.root / ".dvc" / "cache")
    name = str(copy.digests()["scores"])[:12]
    assert "made alike" in cairn("compare", name, at=copy.root).out, "they lie in the project still"
    shutil.rmtree(copy.root / "artifacts" / "scores")
    said = cairn("compare", name, str(copy.root), at=copy.root)
    assert said.code == 2
    assert said.err == (
        f"error: {name}: its scores are known, but their bytes are neither in artifacts/ nor in .cairn/store: "
        "`cairn run` with that recipe makes them again\n"
    )


def test_a_scores_folder_is_attested_by_the_project_that_it_lies_in(
    cairn: Cairn, built: Project, tmp_path: Path
) -> None:
    said = cairn("compare", str(built.root / "artifacts" / "scores"), str(built.root), at=tmp_path)
    assert said.code == 0
    assert said.out.startswith("made alike: ")


def test_a_narrow_terminal_breaks_no_number_and_no_word(tmp_path: Path) -> None:
    bits = {f"d{number}": 300.0 + number for number in range(40)}
    folder = tmp_path / "a-folder-with-quite-a-long-name"
    write_scores(folder, bits)
    write_scores(
        tmp_path / "other", {name: value + (number % 2 or -1) for number, (name, value) in enumerate(bits.items())}
    )
    for columns in (60, 80):
        lines = on_a_terminal("compare", str(folder), "other", at=tmp_path, columns=columns).splitlines()
        (row,) = [line for line in lines if line.startswith("notes naive")]
        assert [word for word in row.split() if "." in word] == ["3.1950", "3.1950", "+0.0000"]
        assert max(len(line) for line in lines[lines.index("") + 2 : lines.index(f"first: {folder}")]) <= columns
        assert {"not", "clearly", "different"} <= {word for line in lines for word in line.split()}
        assert not any("[" in line for line in lines)
    assert "+0.0000 [-0.0" in on_a_terminal("compare", str(folder), "other", at=tmp_path, columns=160)
