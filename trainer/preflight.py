"""What is looked at before a training starts: whether it can work at all."""

import os
import shutil

import psutil

from cairn.errors import StageError
from trainer.beginning import check_beginning
from trainer.memory import plan
from trainer.order import Order
from trainer.recipe import Training
from trainer.tokens import Tokens


def outlook(training: Training, vocab_size: int, processes: int) -> str:
    """What a training is about to take, in one line: parameters, tokens, steps, operations and memory."""
    masked = training.masked
    flops = training.model.flops_per_token(vocab_size, 1.0 if masked is None else masked.rate) * training.tokens
    each = " in each process" if processes > 1 else ""
    parameters = training.model.parameters(vocab_size)
    return (
        f"{parameters:,} parameters, {training.tokens:,} tokens in {training.steps:,} steps, "
        f"{flops:.1e} FLOP; memory{each} about {plan(training, vocab_size, processes)}, and the program itself"
    )


def beyond(training: Training, vocab_size: int, processes: int) -> str | None:
    """A warning where the processes on this machine will take more memory than is free; None where it is enough, or
    where they train on a GPU."""
    free = psutil.virtual_memory().available
    needed = plan(training, vocab_size, processes).total * processes
    if needed <= free or shutil.which("nvidia-smi"):
        return None
    return (
        f"this training takes about {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free: lower "
        "pretrain.micro_batch, set pretrain.loss_chunk, choose a smaller pretrain.model, or start fewer processes"
    )


def check(training: Training, tokens: Tokens, processes: int) -> Order:
    """Refuse a run that cannot work, before anything is started; the order of its rows.

    Raises:
        StageError: too few tokens for a batch or, of a domain, for a sequence; a domain that is not there; no mask
            token where tokens are to be masked; weights to begin with that are others than the recipe says; processes
            that cannot share a step; or no C++ compiler to compile with.
        ArtifactError: the table beside a shard is damaged.
    """
    if training.masked is not None and tokens.mask is None:
        raise StageError(
            "the tokens have no mask token, with which a bidirectional model learns: set tokenize.mask_token, such as "
            "to <|mask|>, or pretrain.model.causal: true"
        )
    check_beginning(training, tokens)
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
