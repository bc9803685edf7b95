"""What is looked at before a training starts: whether it can work at all."""

import os
import shutil

from cairn.errors import StageError
from trainer.order import Order
from trainer.recipe import Training
from trainer.tokens import Tokens


def check(training: Training, tokens: Tokens, processes: int) -> Order:
    """Refuse a run that cannot work, before anything is started; the order of its rows.

    Raises:
        StageError: too few tokens for a batch or, of a domain, for a sequence; a domain that is not there; no mask
            token where tokens are to be masked; processes that cannot share a step; or no C++ compiler to compile with.
        ArtifactError: the table beside a shard is damaged.
    """
    if training.masked is not None and tokens.mask is None:
        raise StageError(
            "the tokens have no mask token, with which a bidirectional model learns: set tokenize.mask_token, such as "
            "to <|mask|>, or pretrain.model.causal: true"
        )
    context = training.model.context
    needed = training.batch * context + (1 if training.model.causal else 0)
    if len(tokens.train) < needed:
        raise StageError(
            f"the train split has {len(tokens.train)} tokens, a batch needs {needed} "
            f"({training.batch} sequences of {context}): add text, or lower pretrain.batch or pretrain.model.context"
        )
    try:
        training.check_processes(processes, tokens.vocab_size)
    except ValueError as error:
        raise StageError(str(error)) from None
    if training.compile and not any(map(shutil.which, (os.environ.get("CXX") or "g++", "c++", "clang++"))):
        raise StageError("pretrain.compile needs a C++ compiler and none is on PATH: install g++, or set it to false")
    return Order(training, tokens.train.streams(mixed=bool(training.mixture)))
