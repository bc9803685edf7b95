"""The loss of masked tokens: only of these, and in the loop the same whatever stands beside them."""

import itertools
import math

import numpy as np
import pytest
import torch

from trainer.loss import Examples, documents, loss
from trainer.masked_loss import masked_losses, percent
from trainer.masking import IGNORED, Vocabulary, mask
from trainer.model import Transformer
from trainer.recipe import Masking, ModelShape

VOCABULARY = Vocabulary(size=40, end_of_text=0, mask=1)
SHAPE = ModelShape(
    layers=2, width=16, heads=2, kv_heads=2, head_dim=8, mlp_width=24, context=16, causal=False, norm="layernorm",
    qk_norm="none", activation="gelu",
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Transformer:
    """Weights that say something of every token."""
    made = Transformer(SHAPE, VOCABULARY.size)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3 + (parameter.dim() == 1))
    return made


def text(rows: int, context: int = 16) -> np.ndarray:
    return np.random.default_rng(rows).integers(2, VOCABULARY.size, (rows, context))


def test_only_masked_places_are_learned_from_their_own_document(model: Transformer) -> None:
    rows = text(4)
    rows[1, [0, 6, 11]] = 0
    rows[2] = 0
    rows[2, 3:5] = 7  # fewer other tokens than are to be masked
    masked = mask(Masking(), VOCABULARY, 0, 0, 0, rows)
    assert (masked.targets == IGNORED).sum() == 3
    inputs, at, targets = (torch.from_numpy(part) for part in (masked.inputs, masked.at, masked.targets))
    found = loss(model, Examples(inputs, targets, at, documents(inputs, VOCABULARY.end_of_text)))
    assert int(found.counted) == 4 * 5 - 3
    expected = 0.0
    for row in range(4):
        starts = [0, *[place for place in np.flatnonzero(rows[row] == 0).tolist() if place], 16]
        for start, stop in itertools.pairwise(starts):
            with torch.no_grad():
                # Positions count on through a row.
                hidden = model.hidden(
                    torch.from_numpy(masked.inputs[row : row + 1, start:stop]), positions=torch.arange(start, stop)
                )
                chances = torch.log_softmax(model.logits(hidden)[0].double(), -1)
            for place, target in zip(masked.at[row].tolist(), masked.targets[row].tolist(), strict=True):
                if start <= place < stop and target != IGNORED:
                    expected -= float(chances[place - start, target])
    assert found.total.item() == pytest.approx(expected, rel=1e-4)
    assert float(found.nats.sum()) == pytest.approx(expected, rel=1e-4)


def test_development_losses_are_those_of_every_window_by_itself(model: Transformer) -> None:
    documents = {"code": [np.append(0, text(1, length)[0]) for length in (1, 7, 15, 40, 100)], "text": [np.array([0])]}
    found = masked_losses(model, documents, VOCABULARY, trained=0.3)
    assert list(found) == [f"development_masked_loss_{rate}.{name}" for rate in (15, 30) for name in documents]
    # One by one, no window is padded, and the tokens that are asked for stay the same.
    for rate in (15, 30):
        name = f"development_masked_loss_{rate}.code"
        assert found[name] == masked_losses(model, documents, VOCABULARY, trained=0.3)[name]
        assert found[name] == pytest.approx(_one_at_a_time(model, documents["code"])[name], rel=1e-5)
    assert found["development_masked_loss_15.text"] == 0.0  # an empty document asks for nothing
    assert masked_losses(model, documents, VOCABULARY, trained=0.15).keys() == {
        f"development_masked_loss_15.{name}" for name in documents
    }
    assert percent(0.125) == "12.5"


def _one_at_a_time(model: Transformer, documents: list[np.ndarray]) -> dict[str, float]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("trainer.masked_loss.AT_ONCE", 1)
        return masked_losses(model, {"code": documents}, VOCABULARY, trained=0.3)


def test_a_model_that_knows_nothing_loses_the_logarithm_of_its_vocabulary() -> None:
    nothing = Transformer(SHAPE, VOCABULARY.size)
    with torch.no_grad():
        for parameter in nothing.parameters():
            parameter.zero_()
    found = masked_losses(nothing, {"code": [np.append(0, text(1, 60)[0])]}, VOCABULARY, trained=0.3)
    assert list(found.values()) == pytest.approx([math.log(VOCABULARY.size)] * 2)
