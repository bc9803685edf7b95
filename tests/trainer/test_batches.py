"""The rows of a step: the tokens at their positions, whoever reads them, and the way back from a document."""

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cairn.errors import ArtifactError
from tests.trainer.orders import training
from tests.trainer.tokens import counting, write_tokens
from trainer.batches import Batches, Rows
from trainer.loader import Loader
from trainer.recipe import Phase, Ramp
from trainer.tokens import Tokens

PHASES = (Phase(weights={"even": 0.7, "odd": 0.3}), Phase(begin=0.4, weights={"odd": 0.9, "even": 0.1}))
RAMP = (Ramp(until=2, batch=4),)


def batches_of(tokens: Tokens, **recipe: Any) -> Batches:
    return Batches(training(**recipe), tokens)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    """Documents of 1 to 30 tokens, of domains that come in runs, in 3 shards."""
    random = np.random.default_rng(0)
    texts = [random.integers(1, 64, random.integers(0, 30)).tolist() for _ in range(50)]
    domains = [("even", "odd")[int(each)] for each in np.cumsum(random.random(50) < 0.4) % 2]
    root = tmp_path_factory.mktemp("mixed")
    documents = {"train": texts, "development": [[1]]}
    return Tokens.open(write_tokens(root, documents, vocab_size=65, shards=3, domains=domains, mask=64))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("mixture", [(), PHASES])
def test_a_row_is_made_of_the_tokens_at_its_positions(tokens: Tokens, causal: bool, mixture: Any) -> None:
    batches = batches_of(tokens, causal=causal, mixture=mixture, batch_ramp=RAMP, batch=6)
    stream = tokens.train.read(0, len(tokens.train))
    names: dict[str, set[int]] = {name: set() for name in batches.domains}
    for name, runs in tokens.train.domains.items():
        for start, length in zip(runs.starts.tolist(), np.diff(runs.begins).tolist(), strict=True):
            names[name].update(range(start, start + length))
    for step in (0, 1, 2, 7, 11):
        rows = batches.rows(step, 0, 4)
        assert rows.tokens.shape == (4, 17 if causal else 16)
        assert rows.tokens.dtype == torch.int64
        guessed = torch.zeros_like(rows.tokens)
        if not causal:
            assert rows.at is not None
            assert rows.targets is not None
            guessed.scatter_(1, rows.at, rows.targets)
            assert torch.equal(rows.domain_of_targets(), rows.domain.gather(1, rows.at))
        for row in range(4):
            assert int(rows.number[row]) == min(step, 2) * 4 + max(step - 2, 0) * 6 + row
            for at in range(rows.tokens.shape[1]):
                document, offset = batches.position(step, row, at)
                place = tokens.train.document(document)[0] + offset
                assert stream[place] in (int(rows.tokens[row, at]), int(guessed[row, at]))
                assert place in names[batches.domains[int(rows.domain[row, at])]]
        assert rows.document is not None
        assert torch.equal(rows.document, (rows.tokens[:, :16] == 0).cumsum(1, dtype=torch.int32))
        examples = rows.examples()
        assert torch.equal(examples.tokens, rows.tokens[:, :16])
        assert torch.equal(examples.targets, rows.tokens[:, 1:]) if causal else examples.targets is rows.targets
    assert batches_of(tokens, document_mask=False).rows(0, 0, 1).document is None


def test_a_mixed_row_is_of_one_domain(tokens: Tokens) -> None:
    rows = batches_of(tokens, mixture=PHASES, batch=6).rows(3, 0, 6)
    assert (rows.domain == rows.domain[:, :1]).all()
    assert len(set(rows.domain[:, 0].tolist())) == 2


def test_the_last_token_of_a_split_of_whole_windows_is_a_target_and_no_window_lacks_one(tmp_path: Path) -> None:
    # 4 times 16 tokens, end-of-text included: the fourth window has no target for its last token. A masked model needs
    # none.
    root = write_tokens(tmp_path, {"train": [list(range(1, 16)), list(range(17, 64))], "development": [[1]]})
    tokens = Tokens.open(root)
    assert len(tokens.train) == 64
    assert batches_of(tokens).order.windows.tolist() == [3]
    assert batches_of(tokens, causal=False).order.windows.tolist() == [4]


@settings(deadline=None, max_examples=30)
@given(
    context=st.integers(2, 40),
    batch=st.integers(4, 7),
    steps=st.integers(3, 40),
    causal=st.booleans(),
    mixed=st.booleans(),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_positions_and_occurrences_are_inverse(
    tokens: Tokens, context: int, batch: int, steps: int, causal: bool, mixed: bool, seed: int, data: st.DataObject
) -> None:
    recipe: dict[str, Any] = {"context": context, "batch": batch, "steps": steps, "causal": causal, "seed": seed}
    batches = batches_of(tokens, **recipe, batch_ramp=RAMP, mixture=PHASES if mixed else ())
    step = data.draw(st.integers(0, steps - 1))
    row = data.draw(st.integers(0, (4 if step < 2 else batch) - 1))
    at = data.draw(st.integers(0, context - 1))
    document, offset = batches.position(step, row, at)
    found = batches.occurrences(document, offset)
    assert (step, row, at) in found
    assert all(batches.position(*each) == (document, offset) for each in found)
    assert found == sorted(set(found))
    of_document = {(step, row) for step, row, _ in batches.occurrences(document)}
    assert {each[:2] for each in found} <= of_document
    first, last = tokens.train.document(document)
    offsets = range(last - first)
    assert of_document == {each[:2] for offset in offsets for each in batches.occurrences(document, offset)}


def test_every_input_of_a_training_is_found_from_its_document(tokens: Tokens) -> None:
    batches = batches_of(tokens, mixture=PHASES, batch_ramp=RAMP, steps=20, batch=6)
    every = {
        (step, row, at): batches.position(step, row, at)
        for step in range(20)
        for row in range(4 if step < 2 else 6)
        for at in range(0, 16, 5)
    }
    for place, (document, offset) in every.items():
        assert place in batches.occurrences(document, offset)
    with pytest.raises(IndexError, match="document 0 has "):
        batches.occurrences(0, 99)


def test_the_documents_of_rows_are_named(tokens: Tokens) -> None:
    batches = batches_of(tokens, mixture=PHASES)
    expected = {batches.position(3, row, at)[0] for row in (1, 2) for at in range(17)}
    assert set(batches.documents_of(3, 1, 2)) == {f"{number:064x}" for number in expected}


# The loader


@dataclass
class Mine:
    data_rank: int = 0
    data_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def joined(parts: list[Rows]) -> list[list[Any]]:
    return [
        torch.cat([each for part in parts if (each := getattr(part, name)) is not None]).tolist()
        for name in ("tokens", "document", "domain", "number")
    ]


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("micro_batch", [1, 2])
def test_the_batch_is_the_same_for_any_number_of_processes_and_micro_batches_and_at_any_step(
    tokens: Tokens, processes: int, micro_batch: int
) -> None:
    recipe = training(steps=9, batch=8, micro_batch=micro_batch, batch_ramp=(Ramp(until=3, batch=8),), mixture=PHASES)
    whole = Batches(recipe, tokens)
    expected = [joined([whole.rows(step, 0, 8)]) for step in range(9)]
    begin = int(np.random.default_rng(processes).integers(0, 8))
    for steps in (range(9), range(begin, 9), (5, 2, 2, 8)):
        loaders = [Loader(Batches(recipe, tokens), recipe, Mine(rank, processes)) for rank in range(processes)]
        for step in steps:
            parts = []
            for loader in loaders:
                rows = loader.take(step)
                parts += [rows.part(at, at + micro_batch) for at in range(0, len(rows), micro_batch)]
            assert joined(parts) == expected[step]
        for loader in loaders:
            loader.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rows")]


def test_what_cannot_be_read_is_told_when_its_step_is_asked_for(tmp_path: Path) -> None:
    root = counting(tmp_path)
    tokens = Tokens.open(root)
    recipe = training(steps=50, batch=2)
    loader = Loader(Batches(recipe, tokens), recipe, Mine())
    loader.take(0)
    os.truncate(root / "train" / "00000.bin", 64)
    with pytest.raises(ArtifactError, match=r"00000\.bin: ends before byte \d+: the shard was cut short"):
        for step in range(1, 50):
            loader.take(step)
    loader.close()
