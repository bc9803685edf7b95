"""How well a bidirectional model guesses masked tokens of development text while training runs: at the rate that it is
trained with, and always at 15 % too, so that models trained with other rates can be told apart (arXiv 2202.08005).

Whatever training puts in their place, here the mask token stands for all: what is seen tells nothing of what is asked.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from trainer.evaluate import CutShortError
from trainer.masking import Ids, Vocabulary, drawn, key, places
from trainer.model import Transformer

COMMON = 0.15
"""The rate that everyone tells (arXiv 1810.04805)."""
AT_ONCE = 16  # windows that go through the model at once


def rates(trained: float) -> list[float]:
    """The rates to score at, rising."""
    return sorted({COMMON, trained})


def percent(rate: float) -> str:
    """A rate as names have it: 15, 12.5."""
    return f"{100 * rate:g}"


@torch.no_grad()
def masked_losses(
    model: Transformer,
    documents: Mapping[str, Sequence[Ids]],
    vocabulary: Vocabulary,
    trained: float,
    asked: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Nats for each masked token, by `development_masked_loss_<percent>.<domain>`; every time of the same tokens.

    Args:
        documents: of each domain, ids that begin with the end-of-text token; cut into windows of the context.
        trained: the rate that the model is trained with.

    Raises CutShortError when `asked`, before every batch, says that somebody wants to stop.
    """
    found = {}
    for rate in rates(trained):
        for domain, texts in documents.items():
            windows = _windows(texts, model.shape.context, vocabulary.end_of_text)
            at = [_places(window, index, rate, vocabulary) for index, window in enumerate(windows)]
            nats = _nats(model, windows, at, vocabulary, asked)
            found[f"development_masked_loss_{percent(rate)}.{domain}"] = nats / max(1, sum(map(len, at)))
    return found


def _windows(texts: Sequence[Ids], context: int, end_of_text: int) -> list[Ids]:
    cut = [ids[start : start + context] for ids in texts for start in range(0, len(ids), context)]
    asked = [window for window in cut if (window != end_of_text).any()]
    return sorted(asked, key=len)  # windows of like length share a batch, with little padding


def _places(window: Ids, index: int, rate: float, vocabulary: Vocabulary) -> Ids:
    stream = np.random.Philox(key=np.array(key("development", index), np.uint64))
    allowed = window != vocabulary.end_of_text
    k = min(places(rate, len(window)), int(allowed.sum()))
    chosen: Ids = drawn(stream.random_raw(len(window))[None], allowed[None], k)[0]
    return chosen


def _nats(
    model: Transformer,
    windows: Sequence[Ids],
    at: Sequence[Ids],
    vocabulary: Vocabulary,
    asked: Callable[[], bool],
) -> float:
    nats = 0.0
    for first in range(0, len(windows), AT_ONCE):
        if asked():
            raise CutShortError
        group = windows[first : first + AT_ONCE]
        tokens = np.full((len(group), max(map(len, group))), vocabulary.end_of_text)
        padding = np.ones_like(tokens)
        for row, window in enumerate(group):
            tokens[row, : len(window)] = window
            padding[row, : len(window)] = 0
        rows = np.repeat(np.arange(len(group)), [len(places) for places in at[first : first + AT_ONCE]])
        columns = np.concatenate(at[first : first + AT_ONCE])
        targets = torch.from_numpy(tokens[rows, columns]).to(model.device)
        tokens[rows, columns] = vocabulary.mask
        # Padding is a document of its own: no position looks into it.
        seen, document = (torch.from_numpy(part).to(model.device) for part in (tokens, padding))
        hidden = model.hidden(seen, document)[rows, columns]
        nats += float(F.cross_entropy(model.logits(hidden), targets, reduction="sum"))
    return nats
