"""Token shards: one stream over their edges, whose documents and domains are known; damage is named."""

import os
from pathlib import Path

import numpy as np
import pytest

from cairn.errors import ArtifactError, StageError
from tests.trainer.orders import training
from tests.trainer.tokens import counting, write_tokens
from trainer.batches import Batches
from trainer.preflight import check
from trainer.recipe import Phase
from trainer.tokens import Tokens


def test_a_stream_runs_on_over_the_edges_of_documents_and_shards(tmp_path: Path) -> None:
    root = write_tokens(tmp_path, {"train": [[1, 2, 3], [4, 5], [], [6, 7]], "development": [[6]]}, shards=3)
    train = Tokens.open(root).train
    assert len(train) == 11
    assert train.read(0, 11).tolist() == [1, 2, 3, 0, 4, 5, 0, 0, 6, 7, 0]
    assert train.read(5, 9).tolist() == [5, 0, 0, 6]
    assert train.read(3, 3).tolist() == []
    assert train.document_ends.tolist() == [4, 7, 8, 11]
    assert [train.document_at(at) for at in range(11)] == [
        (0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (2, 0), (3, 0), (3, 1), (3, 2),
    ]  # fmt: skip
    assert [train.document(number) for number in range(4)] == [(0, 4), (4, 7), (7, 8), (8, 11)]
    assert train.document_id(3) == f"{3:064x}"
    with pytest.raises(IndexError, match="document 4: the split train has 4"):
        train.document(4)


def test_neighbouring_documents_of_a_domain_are_one_run_but_not_over_the_edge_of_a_shard(tmp_path: Path) -> None:
    texts = [[1], [2, 2], [3], [4], [5, 5], [6]]
    domains = ["a", "a", "b", "b", "b", "a"]
    root = write_tokens(tmp_path, {"train": texts, "development": [[1]]}, shards=2, domains=domains)
    found = Tokens.open(root).train.domains
    assert {name: runs.starts.tolist() for name, runs in found.items()} == {"a": [0, 12], "b": [5, 7]}
    assert {name: runs.begins.tolist() for name, runs in found.items()} == {"a": [0, 5, 7], "b": [0, 2, 7]}
    which, column, start, length = found["b"].pieces(np.array([0, 1, 4]), 3)
    assert which.tolist() == [0, 0, 1, 1, 2]
    assert (column.tolist(), start.tolist(), length.tolist()) == ([0, 2, 0, 1, 0], [5, 7, 6, 7, 9], [2, 1, 1, 2, 3])
    assert found["a"].place(np.arange(14)).tolist() == [0, 1, 2, 3, 4, *[-1] * 7, 5, 6]
    assert found["a"].overlap(np.array([[3, 6], [11, 14]])).tolist() == [[3, 5], [5, 7]]


@pytest.mark.parametrize(
    ("changes", "processes", "message"),
    [
        ({"batch": 4000}, 1, "the train split has 2745 tokens, a batch needs 64001"),
        ({"batch": 2}, 4, "4 processes cannot share 2 micro-batches evenly"),
        ({"batch": 12, "micro_batch": 2}, 2, "2 processes need 2, 4, 8 ... micro-batches in a step, not 6"),
        ({"mixture": (Phase(weights={"eden": 1.0}),)}, 1, "has no domain eden: did you mean even?"),
        ({"mixture": (Phase(weights={"law": 0.0, "odd": 1.0}),)}, 1, "has no domain law: there are: even, odd"),
        ({"mixture": (Phase(weights={"odd": 1e-6, "even": 1.0}),)}, 1, "weight of odd is less than one sequence in"),
        ({"context": 1400, "batch": 1, "mixture": (Phase(weights={"odd": 1.0}),)}, 1, "domain odd of the mixture has"),
    ],
)
def test_a_run_that_cannot_work_is_refused(
    tmp_path: Path, changes: dict[str, object], processes: int, message: str
) -> None:
    with pytest.raises(StageError, match=message):
        check(training(**changes), Tokens.open(counting(tmp_path)), processes)  # type: ignore[arg-type]


def test_compiling_without_a_compiler_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens.open(counting(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(StageError, match=r"needs a C\+\+ compiler"):
        check(training(compile=True), tokens, 1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "train" / "00000.bin").write_bytes(b"x"), r"00000\.bin: has 1 bytes"),
        (lambda root: (root / "train" / "00000.ends").unlink(), r"00000\.ends: no such file"),
        (lambda root: (root / "tokens.json").write_text("{"), r"tokens\.json: is not a tokens manifest"),
        (lambda root: (root / "tokens.json").write_text("[]"), r"tokens\.json: is not a tokens manifest"),
        (
            lambda root: (root / "tokens.json").write_bytes(
                (root / "tokens.json").read_bytes().replace(b'"uint16"', b'"float32"')
            ),
            r"tokens\.json: dtype is 'float32', not uint16 or uint32: tok",
        ),
        (lambda root: (root / "tokens.json").write_text('{"format": "x"}'), "is of format 'x'"),
        (lambda root: (root / "tokens.json").unlink(), "run the tokenize stage first"),
        (
            lambda root: np.full(60, 9, "<u8").tofile(root / "train" / "00000.ends"),
            r"00000\.ends: .* the shard is corrupt",
        ),
    ],
)
def test_damaged_shards_are_named(tmp_path: Path, damage: object, message: str) -> None:
    root = counting(tmp_path)
    damage(root)  # type: ignore[operator]
    with pytest.raises(ArtifactError, match=message):
        Tokens.open(root)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda table: table.unlink(), r"00000\.parquet: no such file"),
        (lambda table: table.write_bytes(b"PAR1"), r"00000\.parquet: is not the table of a token shard"),
        (
            lambda table: table.write_bytes((table.parents[1] / "development" / table.name).read_bytes()),
            r"00000\.parquet: tells of \d+ tokens, its shard has 2745",
        ),
    ],
)
def test_a_damaged_sidecar_is_named(tmp_path: Path, damage: object, message: str) -> None:
    root = counting(tmp_path)
    damage(root / "train" / "00000.parquet")  # type: ignore[operator]
    with pytest.raises(ArtifactError, match=message):
        Tokens.open(root).train.domains  # noqa: B018


def test_a_shard_that_is_cut_short_while_it_is_open_is_named_and_nothing_dies(tmp_path: Path) -> None:
    root = counting(tmp_path)
    train = Tokens.open(root).train
    train.read(0, 10)
    os.truncate(root / "train" / "00000.bin", 200)
    assert train.read(0, 100).tolist()
    with pytest.raises(ArtifactError, match=r"00000\.bin: ends before byte 300: the shard was cut short"):
        train.read(90, 150)


@pytest.mark.parametrize("at", [0, 77, 2744])
def test_an_id_beyond_the_vocabulary_is_an_error_that_names_the_shard_and_the_place(tmp_path: Path, at: int) -> None:
    path = counting(tmp_path) / "train" / "00000.bin"
    ids = np.fromfile(path, "<u2")
    ids[at] = 4096
    ids.tofile(path)
    train = Tokens.open(tmp_path).train
    assert train.read(0, at).tolist() == ids[:at].tolist()
    with pytest.raises(ArtifactError, match=rf"00000\.bin: token {at} has id 4096, tokens\.json says vocab_size \d+: "):
        train.read(max(0, at - 3), at + 1)
    recipe = training(steps=400, batch=1, context=8)
    rows = Batches(recipe, Tokens.open(tmp_path))
    with pytest.raises(ArtifactError, match=rf"00000\.bin: token {at} has id 4096"):
        for step in range(recipe.steps):
            rows.rows(step, 0, 1)
