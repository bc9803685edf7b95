"""How much memory a process of a training will take, before it is started. No torch here: every door may ask.

What is planned is the peak above the bare program: what that takes after its imports is not in it. docs/trainer.md has
the formula in words.
"""

from dataclasses import dataclass, fields

from trainer.recipe import Training

WIDE = 4  # bytes of an fp32 value
HEAP = 128 * 2**20  # malloc's padding (components/pretrain/launch.py), and what libraries keep once they have been used
EVALUATED = 16  # windows in a batch of the development split (trainer/evaluate.py)


@dataclass(frozen=True)
class Memory:
    """Bytes of one process."""

    weights: int
    gradients: int
    """With those that wait in the fixed-order sum of `strict` mode, and what the processes exchange."""
    optimizer: int
    """Its state."""
    step: int
    """What comes and goes: activations and logits of a micro-batch, or an evaluation; an update; the heap's slack."""
    checkpoint: int
    """The copy that is written while training goes on."""

    @property
    def total(self) -> int:
        """All of it at once."""
        return sum(getattr(self, field.name) for field in fields(self))

    def __str__(self) -> str:
        parts = ", ".join(f"{field.name} {_size(getattr(self, field.name))}" for field in fields(self))
        return f"{_size(self.total)} ({parts})"


def plan(training: Training, vocab_size: int, processes: int = 1) -> Memory:
    """What one of `processes` takes."""
    shape, layout = training.model, training.layout
    tensor = layout.tensor
    shard = processes // tensor if layout.shard == "all" else layout.shard
    parameters = shape.parameters(vocab_size) // (shard * tensor)
    matrices = _of_block(training) * shape.layers // (shard * tensor)
    weights = WIDE * parameters
    muon = training.optimizer.matrices == "muon"
    state = WIDE * (2 * parameters - (matrices if muon else 0))
    micro_batches = training.batch * tensor // (processes * training.micro_batch)
    held = 1
    if training.mode == "strict":
        # A binary counter of sums: one list for each of its digits, and the one that is being added.
        held = micro_batches.bit_length() if micro_batches > 1 else 1
        if processes > 1:
            held += 1 + processes + 1  # flattened, gathered from all, and the first pair's sum
    # Freed memory is in pieces of other sizes: what an update needs comes on top of what a micro-batch left.
    step = max(_forward_and_backward(training, vocab_size, tensor), _evaluation(training, vocab_size))
    # And what gradients leave behind is in pieces too small for activations: measured, half of it is taken anew.
    step += (_update(training) if muon else 0) + weights // 2 + HEAP
    copy = weights + state if training.checkpoint_every < training.steps else 0
    return Memory(weights, held * weights, state, step, copy)


def _forward_and_backward(training: Training, vocab_size: int, tensor: int) -> int:
    """What a micro-batch keeps for its derivatives, and its logits."""
    shape, narrow = training.model, 2 if training.precision == "bf16" else WIDE
    tokens = training.micro_batch * shape.context
    heads = shape.heads * shape.head_dim
    qkv = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    seen = (shape.context + min(256, shape.context)) // 2 if shape.causal else shape.context
    mlp = (4 if shape.gated else 2) * shape.mlp_width
    heads += heads if shape.qk_norm == "none" else 0  # the query times the scale of the scores
    # Stream and its norm, twice; q, k, v before and after they are laid out by heads; what attention gives; the MLP.
    whole = 4 * shape.width + (2 * qkv + heads + mlp + shape.heads * seen) // tensor
    kept = {
        "none": whole,
        "selective": 2 * shape.width + (qkv + heads + mlp // 2) // tensor,
        "full": shape.width,
    }[training.layout.activation_checkpointing]
    cast = 0 if narrow == WIDE else narrow * _of_block(training) // tensor  # weights in the compute dtype
    blocks = narrow * tokens * kept * shape.layers + cast * shape.layers
    if kept != whole:
        blocks += narrow * tokens * whole  # of the block that is being computed again
    rows = tokens if training.masked is None else int(tokens * training.masked.rate)
    rows = min(rows, training.loss_chunk or rows)
    head = vocab_size * shape.width // tensor
    # Logits and their softmax; the head in the compute dtype, its gradient, and that once more, scaled.
    logits = narrow * (2 * rows * vocab_size // tensor + 3 * head) + (WIDE * head if training.loss_chunk else 0)
    return blocks + logits


def _update(training: Training) -> int:
    """Muon's largest group of equal matrices: gradients, update and the products of Newton-Schulz."""
    shape = training.model
    mlp = shape.width * shape.mlp_width * (2 if shape.gated else 1)
    largest = max(mlp, 2 * shape.width * shape.heads * shape.head_dim)
    return shape.layers * largest * (2 * WIDE + 3 * 2)


def _evaluation(training: Training, vocab_size: int) -> int:
    """Logits of a batch of the development split: in the compute dtype, in fp32, and their logarithms."""
    narrow = 2 if training.precision == "bf16" else WIDE
    return EVALUATED * training.model.context * vocab_size * (narrow + 2 * WIDE)


def _of_block(training: Training) -> int:
    """Weights of the matrices of one block."""
    shape = training.model
    attention = 2 * shape.width * shape.head_dim * (shape.heads + shape.kv_heads)
    return attention + (3 if shape.gated else 2) * shape.width * shape.mlp_width


def _size(number: int) -> str:
    return f"{number / 2**30:.2f} GiB" if number >= 2**28 else f"{number / 2**20:.0f} MiB"
